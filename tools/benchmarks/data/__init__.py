"""Requests and bulk of the data plane beside its peers."""
