"""Tasks over members: which goes to whom, and when to somebody else. Pure: docs/sweeps.md."""
