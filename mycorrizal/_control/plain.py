"""What an agent holds, as values that any language reads: members, events, health, peers."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from typing import Any

from .._wire.meta import read_meta
from ..types import MaybeUnreadable, Node

__all__ = ["USER_TOPIC", "event_fields", "plain"]

DEPTH_MAX = 8
"""How deep values of our own nest; what a user nests deeper is left as it is."""

USER_TOPIC = "event.user."
"""What stands before the topic of a broadcast."""


def plain(value: Any, depth: int = 0) -> Any:
    """Return `value` made of maps, lists, texts and numbers; what is none of ours stays as it is.

    Dataclasses become maps of their fields, enumerations the lower-case name,
    errors their text. A node's raw address and metadata become ``host``,
    ``quic_port`` and ``tags``; the ``boot`` of a process becomes hexadecimal text.
    """
    if depth > DEPTH_MAX:
        return value
    if isinstance(value, Node):
        return _node(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value, depth)
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, Mapping):
        return {key: plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, Exception):
        return {"error": type(value).__name__, "text": str(value)}
    return value


def event_fields(event: Any) -> tuple[str, dict[str, Any]]:
    """Return topic and value of an event of ``Agent.events()``."""
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    fields = _fields(event, 0)
    if kind == "user_event":
        return USER_TOPIC + str(event.topic), fields
    return f"event.{kind}", fields


def _fields(value: Any, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    error = value.error if isinstance(value, MaybeUnreadable) else None
    for field in dataclasses.fields(value):
        if error is not None and field.name == value.carries:
            found[field.name] = None  # its error says why
            continue
        item = getattr(value, field.name)
        if field.name == "boot":
            found["boot"] = item.hex() if isinstance(item, bytes) else None
        elif field.name == "error" and item is None:
            continue
        elif field.name == "node" and isinstance(item, Node) and hasattr(value, "host"):
            continue  # a member has all of its node that is of use
        else:
            found[field.name] = plain(item, depth + 1)
    return found


def _node(node: Node) -> dict[str, Any]:
    meta = read_meta(node.meta)
    return {
        "name": node.name.encode("utf-8", "replace").decode(),
        "host": node.host,
        "port": node.port,
        "quic_port": meta.quic_port,
        "tags": dict(meta.tags),
        "state": node.state.name.lower(),
        "boot": None if meta.boot is None else meta.boot.hex(),
        "incarnation": node.incarnation,
    }
