"""One connection's protocol above QUIC, as machines that know no socket and no clock."""
