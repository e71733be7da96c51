"""Queries, keys and intents of Serf on the gossip thread."""
