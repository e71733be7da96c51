"""The control plane's messages and commands: what a tool on this machine may ask an agent, and what it is told."""
