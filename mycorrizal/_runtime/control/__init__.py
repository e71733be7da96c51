"""The control plane: the agent's server, its clients, and where they meet."""
