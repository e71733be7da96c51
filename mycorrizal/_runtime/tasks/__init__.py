"""Tasks over members, and handlers in processes, in real time."""
