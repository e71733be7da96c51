"""What ``tools/fuzz`` throws at every decoder and machine."""
