"""Agents whose process lacks something, and processes that end."""
