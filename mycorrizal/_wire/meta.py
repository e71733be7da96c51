"""A node's metadata: the QUIC port in two bytes, big-endian, and what an agent tells of itself in a map behind it.

In a Serf cluster the metadata are Serf's tags (``ff``, then a msgpack map), and
the port is the tag ``quic_port``. A port from 65280 on would begin with ``ff``
too, so such ports are not announced.

An agent's map is CBOR: ``b`` its boot id, ``t`` its tags, ``u`` what the user's
own delegate wants to say. In a Serf cluster the tag ``mycorrizal_boot`` holds
the boot id in hex. A boot id tells that the node shares services, settings and
events; every process has another one.

From: the delegate example of memberlist's users (``Meta[:2]``), serf-protocol (tags).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

import cbor2

from ..exceptions import ConfigError, MetaTooLarge, RemoteProtocolError
from . import msgpack
from .values import decode_parts

__all__ = [
    "BOOT_BYTES",
    "BOOT_TAG",
    "PORT_MAX",
    "SERF_TAG",
    "AgentMeta",
    "agent_meta",
    "port_meta",
    "quic_port",
    "read_meta",
]

PORT_MAX = 0xFEFF
"""Highest port that two bytes of metadata can tell from Serf's tags."""

SERF_TAG = "quic_port"
"""Name of the tag that holds the port in a Serf cluster, as decimal text."""

BOOT_TAG = "mycorrizal_boot"
"""Name of the tag that holds an agent's boot id in a Serf cluster, as hex."""

BOOT_BYTES = 8

_SERF = 0xFF
_TAGS_MAX = 1024


def quic_port(meta: bytes) -> int | None:
    """Return the QUIC port that a node announces; None if it announces none, or something else. Never raises."""
    if len(meta) < 2:
        return None
    if meta[0] != _SERF:
        return int.from_bytes(meta[:2], "big") or None
    return _decimal_port(_serf_tags(meta).get(SERF_TAG.encode()))


def _serf_tags(meta: bytes) -> dict[bytes, bytes]:
    try:
        tags, end = msgpack.unpack(meta, 1, items=_TAGS_MAX)
    except RemoteProtocolError:
        return {}
    if not isinstance(tags, dict) or end != len(meta):
        return {}
    return {key: value for key, value in tags.items() if isinstance(key, bytes) and isinstance(value, bytes)}


def _decimal_port(text: bytes | None) -> int | None:
    if text is None or not text.isdigit() or len(text) > 5:
        return None
    port = int(text)
    return port if 0 < port <= 0xFFFF else None


@dataclass(frozen=True, slots=True)
class AgentMeta:
    """What a node's metadata say.

    Attributes:
        quic_port: where it listens for QUIC, None if it does not tell.
        boot: the id of its process, None if it is no agent.
        tags: its tags.
        user: what its user's delegate says; of a node that is no agent, all that is not understood.
    """

    quic_port: int | None
    boot: bytes | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    user: bytes = b""


def agent_meta(meta: AgentMeta, limit: int | None) -> bytes:
    """Return the metadata of an agent.

    Raises:
        MetaTooLarge: they take more than `limit` bytes (None: whoever asks for them looks at that).
        ConfigError: the port cannot be announced.
    """
    body: dict[str, object] = {"b": meta.boot, "t": dict(meta.tags), "u": meta.user}
    data = port_meta(meta.quic_port or 0, cbor2.dumps({key: value for key, value in body.items() if value}))
    if limit is not None and len(data) > limit:
        raise MetaTooLarge(
            "tags", f"tags and metadata take {len(data)} bytes of {limit}", hint="put what is long into agent.settings"
        )
    return data


def read_meta(meta: bytes) -> AgentMeta:
    """Return what `meta` says, of an agent, a Serf node or any other. Never raises."""
    port = quic_port(meta)
    if meta[:1] == b"\xff":
        texts = {_text(key): _text(value) for key, value in _serf_tags(meta).items()}
        boot_text = texts.pop(BOOT_TAG, "")
        texts.pop(SERF_TAG, None)
        return AgentMeta(port, _boot(boot_text), texts)
    if len(meta) > 2:
        try:
            match decode_parts(meta[2:], ()):
                case {"b": bytes(boot), **rest} if len(boot) == BOOT_BYTES:
                    found, user = rest.get("t", {}), rest.get("u", b"")
                    if _is_tags(found) and isinstance(user, bytes):
                        return AgentMeta(port, boot, found, user)
        except RemoteProtocolError:
            pass
    return AgentMeta(port, user=meta[2:] if port is not None else meta)


def _boot(text: str) -> bytes | None:
    try:
        boot = bytes.fromhex(text)
    except ValueError:
        return None
    return boot if len(boot) == BOOT_BYTES else None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _is_tags(tags: object) -> TypeGuard[dict[str, str]]:
    return isinstance(tags, dict) and all(isinstance(k, str) and isinstance(v, str) for k, v in tags.items())


def port_meta(port: int, rest: bytes = b"") -> bytes:
    """Return metadata that announce `port` (0 for none), followed by `rest`.

    Raises:
        ConfigError: the port is not in 0..65279.
    """
    if not 0 <= port <= PORT_MAX:
        raise ConfigError("port", f"{port} is not in 0..{PORT_MAX}", hint="a higher one would look like Serf's tags")
    return port.to_bytes(2, "big") + rest
