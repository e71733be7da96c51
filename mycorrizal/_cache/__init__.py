"""The distributed cache as a pure machine: placement, store, protocol. Owned by the loop thread, or by a simulation."""
