"""Faults that are planted in copies of the library, one at a time, to see whether the tests find them."""
