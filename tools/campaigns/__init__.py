"""What goes wrong outside the laboratory, for minutes: ``tools/chaos``."""
