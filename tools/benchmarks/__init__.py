"""Measurements beside peers and older revisions: ``tools/bench``."""
