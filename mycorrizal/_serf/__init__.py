"""Serf's layer above memberlist, as one pure machine: it knows no socket, no thread and no clock."""

from .machine import Member, Outgoing, Received, SerfMachine, SerfStatus
from .messages import decode_state, decode_tags, encode_tags

__all__ = ["Member", "Outgoing", "Received", "SerfMachine", "SerfStatus", "decode_state", "decode_tags", "encode_tags"]
