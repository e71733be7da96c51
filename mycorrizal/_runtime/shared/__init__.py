"""Events, services and settings: the replica on the gossip thread."""
