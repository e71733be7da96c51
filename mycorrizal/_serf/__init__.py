"""Serf's layer above memberlist, as one pure machine: it knows no socket, no thread and no clock."""

from .asking import Query, pack_conflict, pack_key_answer, passes, read_conflict, read_key
from .machine import Kind, Member, Outgoing, Received, SerfMachine, SerfStatus
from .messages import decode_state, decode_tags, encode_tags
from .queries import Answers, Asked, Direct

__all__ = [
    "Answers",
    "Asked",
    "Direct",
    "Kind",
    "Member",
    "Outgoing",
    "Query",
    "Received",
    "SerfMachine",
    "SerfStatus",
    "decode_state",
    "decode_tags",
    "encode_tags",
    "pack_conflict",
    "pack_key_answer",
    "passes",
    "read_conflict",
    "read_key",
]
