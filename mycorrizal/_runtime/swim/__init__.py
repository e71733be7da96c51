"""The gossip thread, which owns the membership machine and reads its sockets."""
