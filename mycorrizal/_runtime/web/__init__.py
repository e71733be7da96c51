"""Pages for monitoring, over plain HTTP."""
