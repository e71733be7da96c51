"""The owner of the data plane's machine: calls, streams, files and messages over QUIC."""
