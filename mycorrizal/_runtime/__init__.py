"""The only impure package: threads, sockets and the clock, around machines that know none of them."""
