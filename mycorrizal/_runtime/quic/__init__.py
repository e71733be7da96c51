"""The QUIC transport: one thread, one UDP socket, every aioquic object."""
