"""The owner of the cache's machine, on the data plane's loop."""
