"""Connections between processes of one host: the data plane's frames over a Unix socket."""
