"""What several tools stand on: hosts in namespaces, child processes, and the lines that those write."""
