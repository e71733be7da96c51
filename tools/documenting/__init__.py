"""What ``tools/docs`` is made of: the build, and what is checked of it."""
