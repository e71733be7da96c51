"""Tests of the cache machine and its parts."""
