"""Convergence, detection, idle cost and packet rate beside Go's memberlist."""
