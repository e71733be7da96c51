"""Serf's messages about queries, between values and bytes; as ``messages``, whose bounds and manners they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .._wire import msgpack
from ..exceptions import ConfigError, RemoteProtocolError
from ..types import Node
from .messages import (
    MAX_EVENT_SIZE,
    MAX_MESSAGE,
    MAX_NAME,
    MessageType,
    _bytes,
    _dict,
    _Fields,
    _to_text,
    _unpack,
    decode_tags,
)
from .patterns import Pattern

__all__ = [
    "ACK",
    "NO_BROADCAST",
    "Query",
    "QueryResponse",
    "Relay",
    "decode_query_message",
    "encode_filters",
    "encode_query_message",
    "pack_conflict",
    "pack_key",
    "pack_key_answer",
    "passes",
    "read_conflict",
    "read_key",
]

ACK = 1
"""Flag: of a query, that receipt is to be acknowledged; of a response, that it does so."""
NO_BROADCAST = 2
"""Flag of a query: whoever takes it does not pass it on."""
MAX_FILTERS = 64
"""Filters of a query, and names in one."""
MAX_WORK = 200_000
"""Steps of expressions times characters of tags, for a whole query: they are matched where membership is kept up."""
_NODES, _TAG = 0, 1  # kinds of filters


@dataclass(frozen=True, slots=True)
class Query:
    """A question to the cluster; answers go to `addr` and `port`, within `timeout` nanoseconds."""

    ltime: int
    id: int
    addr: bytes
    port: int
    source: str
    filters: tuple[bytes, ...]
    flags: int
    relays: int
    timeout: int
    name: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class QueryResponse:
    """What `sender` has to say to the query of that time and id: an acknowledgement, or an answer."""

    ltime: int
    id: int
    sender: str
    flags: int
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Relay:
    """A message to be sent on to the node `name` at `addr` and `port`, as it is."""

    addr: bytes
    port: int
    name: str
    message: bytes


def encode_query_message(message: Query | QueryResponse | Relay) -> bytes:
    """Return `message` as Serf sends it."""
    if isinstance(message, Relay):
        to = {"DestAddr": {"IP": message.addr, "Port": message.port, "Zone": ""}, "DestName": message.name}
        return bytes((MessageType.RELAY,)) + msgpack.pack(to) + message.message
    body: dict[str, object] = {
        "Flags": message.flags, "ID": message.id, "LTime": message.ltime, "Payload": message.payload or None,
    }  # fmt: skip
    if isinstance(message, QueryResponse):
        return bytes((MessageType.QUERY_RESPONSE,)) + msgpack.pack({**body, "From": message.sender})
    body |= {
        "Addr": message.addr, "Filters": message.filters or None, "Name": message.name, "Port": message.port,
        "RelayFactor": message.relays, "SourceNode": message.source, "Timeout": message.timeout,
    }  # fmt: skip
    return bytes((MessageType.QUERY,)) + msgpack.pack(body)


def decode_query_message(data: bytes) -> Query | QueryResponse | Relay | None:
    """Return the message in `data`; None when its type is none of these.

    Raises:
        RemoteProtocolError: the bytes are no such message, or beyond a limit.
    """
    if data[:1] not in (b"\x04", b"\x05", b"\x09"):
        return None
    if len(data) > MAX_MESSAGE:
        raise RemoteProtocolError(f"Serf message of {len(data)} bytes")
    value, end = msgpack.unpack(data, 1, items=1024)
    fields = _Fields(_dict(value))
    if data[0] == MessageType.RELAY:
        to = _Fields(fields.mapping("DestAddr"))
        return Relay(_addr(to.get("IP")), _port(to), _short(fields.get("DestName")), data[end:])
    ltime, number, flags = fields.ltime("LTime"), _unsigned(fields, "ID", 32), _unsigned(fields, "Flags", 32)
    payload = _bytes(fields.get("Payload"))
    if data[0] == MessageType.QUERY_RESPONSE:
        return QueryResponse(ltime, number, fields.name("From"), flags, payload)
    filters = tuple(_bytes(one) for one in fields.sequence("Filters"))
    name = _bytes(fields.get("Name"))
    if len(name) + len(payload) > MAX_EVENT_SIZE:
        raise RemoteProtocolError(f"query of {len(name) + len(payload)} bytes")
    if len(filters) > MAX_FILTERS or not all(filters):
        raise RemoteProtocolError(f"{len(filters)} filters, or an empty one")
    return Query(
        ltime, number, _addr(fields.get("Addr")), _port(fields), _short(fields.get("SourceNode")), filters, flags,
        _unsigned(fields, "RelayFactor", 8), _unsigned(fields, "Timeout", 63), _to_text(name), payload,
    )  # fmt: skip


def _unsigned(fields: _Fields, key: str, bits: int) -> int:
    value = fields.get(key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
        raise RemoteProtocolError(f"{key}: {value!r:.40}")
    return value


def _addr(value: object) -> bytes:
    raw = _bytes(value)
    if len(raw) not in (4, 16):
        raise RemoteProtocolError(f"an address of {len(raw)} bytes")
    return raw


def _port(fields: _Fields) -> int:
    port = _unsigned(fields, "Port", 16)
    if not port:
        raise RemoteProtocolError("no port to answer to")
    return port


def _short(value: object) -> str:
    """Return a name, which may be empty: old agents give none."""
    raw = _bytes(value)
    if len(raw) > MAX_NAME:
        raise RemoteProtocolError(f"node name of {len(raw)} bytes")
    return _to_text(raw)


# -- filters -----------------------------------------------------------------------------------


def encode_filters(nodes: Iterable[str], tags: Mapping[str, str]) -> tuple[bytes, ...]:
    """Return the filters of a query to these nodes, if there are any, whose tags match these expressions.

    Raises:
        ConfigError: an expression is wrong, or there are too many.
    """
    names = list(nodes)
    if len(names) > MAX_FILTERS or len(tags) >= MAX_FILTERS:
        raise ConfigError("nodes", f"a query names at most {MAX_FILTERS} nodes or tags", hint="use a tag")
    filters = [bytes((_NODES,)) + msgpack.pack(names)] if names else []
    for tag, expression in tags.items():
        Pattern(expression)
        filters.append(bytes((_TAG,)) + msgpack.pack({"Expr": expression, "Tag": tag}))
    return tuple(filters)


def passes(query: Query, name: str, tags: Mapping[str, str]) -> bool:
    """Return whether `query` is for the node of that name and those tags; a filter that cannot be read is no yes.

    Raises:
        RemoteProtocolError, ConfigError: one cannot be read.
    """
    work = 0
    for one in query.filters:
        if one[0] == _NODES:
            names, _ = msgpack.unpack(one, 1, items=1024)
            if not isinstance(names, list) or len(names) > 1024:
                raise RemoteProtocolError("a filter of nodes that is no list")
            if name not in [_to_text(_bytes(each)) for each in names]:
                return False
        elif one[0] == _TAG:
            fields = _Fields(_unpack(one, 64))
            tag, expression = (_to_text(_bytes(fields.get(key))) for key in ("Tag", "Expr"))
            pattern, value = Pattern(expression), tags.get(tag, "")
            work += pattern.size * (len(value) + 1)
            if work > MAX_WORK:
                raise RemoteProtocolError("filters that take too long")
            if not pattern.search(value):
                return False
        else:
            raise RemoteProtocolError(f"a filter of kind {one[0]}")
    return True


# -- what Serf asks itself -----------------------------------------------------------------------


def pack_conflict(node: Node | None, status: int) -> bytes:
    """Return where `node` is, as ``_serf_conflict`` is answered; None for one that is not known."""
    body = None
    if node is not None:
        v = node.versions
        body = {
            "Addr": node.addr, "Name": node.name, "Port": node.port, "Status": status, "Tags": decode_tags(node.meta),
            "ProtocolMin": v.protocol_min, "ProtocolMax": v.protocol_max, "ProtocolCur": v.protocol,
            "DelegateMin": v.delegate_min, "DelegateMax": v.delegate_max, "DelegateCur": v.delegate,
        }  # fmt: skip
    return bytes((MessageType.CONFLICT_RESPONSE,)) + msgpack.pack(body)


def read_conflict(payload: bytes) -> tuple[bytes, int] | None:
    """Return address and port in an answer to ``_serf_conflict``; None if that node knows none.

    Raises:
        RemoteProtocolError: it is no such answer.
    """
    fields = _request(payload, MessageType.CONFLICT_RESPONSE)
    return None if fields is None else (_addr(fields.get("Addr")), _port(fields))


def pack_key(key: bytes) -> bytes:
    """Return the payload of a query about `key`."""
    return bytes((MessageType.KEY_REQUEST,)) + msgpack.pack({"Key": key})


def read_key(payload: bytes) -> bytes:
    """Return the key in the payload of a query about keys.

    Raises:
        RemoteProtocolError: there is none.
    """
    fields = _request(payload, MessageType.KEY_REQUEST)
    return b"" if fields is None else _bytes(fields.get("Key"))


def pack_key_answer(ok: bool, message: str = "", keys: Iterable[str] = ()) -> bytes:
    """Return the answer to a query about keys; `keys` are those installed, in base64, the primary first."""
    listed = list(keys)
    primary = listed[0] if listed else ""
    body = {"Keys": listed or None, "Message": message, "PrimaryKey": primary, "Result": ok}
    return bytes((MessageType.KEY_RESPONSE,)) + msgpack.pack(body)


def _request(payload: bytes, kind: MessageType) -> _Fields | None:
    if payload[:1] != bytes((kind,)):
        raise RemoteProtocolError(f"no {kind.name.lower().replace('_', ' ')}")
    value, _ = msgpack.unpack(payload, 1, items=1024)
    return None if value is None else _Fields(_dict(value))

