"""The faults, a list for each package of the library: ``FAULTS``."""
