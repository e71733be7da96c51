"""Serf's messages and tags, between values and bytes.

A Serf message travels as a user message of memberlist, Serf's state as the
user state of a push/pull: a type byte and a msgpack map of the old raw family,
keyed by Go's field names in byte order. Tags are a node's metadata: ``ff`` and
a map of texts; metadata without ``ff`` is the tag ``role`` of Serf's first
versions.

Every decoder here takes hostile bytes: it raises ``RemoteProtocolError`` and
nothing else, and each size has a limit below. Text is held as ``str`` with
``surrogateescape``, as node names need not be UTF-8.

Field names and types are those of Serf's gossip protocol 5, checked against
the bytes of Debian's ``serf agent`` (tests/test_serf.py holds some).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from .._wire import msgpack
from ..exceptions import ConfigError, MetaTooLarge, RemoteProtocolError

__all__ = [
    "Clock",
    "EventsAt",
    "JoinIntent",
    "LeaveIntent",
    "Message",
    "MessageType",
    "State",
    "UserEvent",
    "decode",
    "decode_state",
    "decode_tags",
    "encode",
    "encode_tags",
]

MAX_LTIME = 1 << 62
"""Largest Lamport time taken from a peer."""
MAX_NAME = 255
"""Bytes of a node's name, as in ``Config.name``."""
MAX_EVENT_SIZE = 9 * 1024
"""Bytes of a user event's name and payload (Serf's hard limit)."""
MAX_MESSAGE = 4 * MAX_EVENT_SIZE
"""Bytes of a whole message; room for fields that later versions may add."""
MAX_STATE = 20 << 20
"""Bytes of a peer's state (memberlist's limit of a push/pull)."""
MAX_STATE_NODES = 1 << 17
"""Members in a peer's state: as many as ``Config.max_nodes`` and as many departed ones."""
MAX_STATE_TICKS = 1 << 12
"""Places in a peer's event buffer; Serf's has 512, most of them empty."""
MAX_STATE_VALUES = 3 * MAX_STATE_NODES + (1 << 18)
"""msgpack values in a peer's state: the members, and some hundred thousand parts of events."""
TAGS = b"\xff"
"""First byte of metadata that is a tag map."""


class Clock:
    """A Lamport clock; ``time`` is the time that the next message gets."""

    __slots__ = ("time",)

    def __init__(self) -> None:
        self.time = 1  # 0 is "never", the time of a member that no intent was seen of

    def tick(self) -> int:
        """Return the time, and go on."""
        now, self.time = self.time, self.time + 1
        return now

    def witness(self, seen: int) -> None:
        """Be later than `seen`."""
        if seen >= self.time:
            self.time = seen + 1


class MessageType(enum.IntEnum):
    """The first byte of a Serf message. Those from ``QUERY`` on are in ``asking``."""

    LEAVE = 0
    JOIN = 1
    PUSH_PULL = 2
    USER_EVENT = 3
    QUERY = 4
    QUERY_RESPONSE = 5
    CONFLICT_RESPONSE = 6
    KEY_REQUEST = 7
    KEY_RESPONSE = 8
    RELAY = 9


@dataclass(frozen=True, slots=True)
class LeaveIntent:
    """`node` is about to leave; with `prune` it is to be forgotten afterwards."""

    ltime: int
    node: str
    prune: bool = False


@dataclass(frozen=True, slots=True)
class JoinIntent:
    """`node` is here."""

    ltime: int
    node: str


@dataclass(frozen=True, slots=True)
class UserEvent:
    """A named event with a payload."""

    ltime: int
    name: str
    payload: bytes = b""
    coalesce: bool = False

    @property
    def size(self) -> int:
        """The bytes that count against size limits."""
        return len(_to_raw(self.name)) + len(self.payload)


@dataclass(frozen=True, slots=True)
class EventsAt:
    """The user events of one Lamport time."""

    ltime: int
    events: tuple[UserEvent, ...]


@dataclass(frozen=True, slots=True)
class State:
    """A node's whole Serf state, as in a push/pull."""

    ltime: int
    status_ltimes: tuple[tuple[str, int], ...] = ()
    left_members: tuple[str, ...] = ()
    event_ltime: int = 0
    events: tuple[EventsAt, ...] = ()
    query_ltime: int = 0


Message = LeaveIntent | JoinIntent | UserEvent | State


# -- encoding ------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """Return `message` as Serf sends it."""
    if isinstance(message, LeaveIntent):
        kind, body = MessageType.LEAVE, {"LTime": message.ltime, "Node": message.node, "Prune": message.prune}
    elif isinstance(message, JoinIntent):
        kind, body = MessageType.JOIN, {"LTime": message.ltime, "Node": message.node}
    elif isinstance(message, UserEvent):
        kind = MessageType.USER_EVENT
        body = {
            "CC": message.coalesce,
            "LTime": message.ltime,
            "Name": message.name,
            "Payload": message.payload or None,
        }
    else:
        kind, body = MessageType.PUSH_PULL, _state_body(message)
    return bytes((kind,)) + msgpack.pack(body)


def _state_body(state: State) -> dict[str, object]:
    return {
        "EventLTime": state.event_ltime,
        "Events": [
            {"Events": [{"Name": e.name, "Payload": e.payload or None} for e in tick.events], "LTime": tick.ltime}
            for tick in state.events
        ],
        "LTime": state.ltime,
        "LeftMembers": list(state.left_members),
        "QueryLTime": state.query_ltime,
        "StatusLTimes": dict(state.status_ltimes),
    }


def encode_tags(tags: Mapping[str, str], limit: int) -> bytes:
    """Return `tags` as node metadata.

    Raises:
        ConfigError: `tags` is not a mapping of texts.
        MetaTooLarge: it takes more than `limit` bytes.
    """
    for key, value in tags.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ConfigError("tags", f"{key!r}: {value!r} is not text", hint="tags are a mapping of str to str")
    meta = TAGS + msgpack.pack(dict(tags))
    if len(meta) > limit:
        raise MetaTooLarge("tags", f"take {len(meta)} bytes, the limit is {limit}", hint="shorten or remove some")
    return meta


# -- decoding ------------------------------------------------------------------------


def decode(data: bytes) -> LeaveIntent | JoinIntent | UserEvent | None:
    """Return the message in `data`; None when its type is one we do not take.

    Raises:
        RemoteProtocolError: the bytes are no such message, or beyond a limit.
    """
    if not data:
        raise RemoteProtocolError("empty Serf message")
    kind = data[0]
    if kind > MessageType.USER_EVENT:
        return None
    if kind == MessageType.PUSH_PULL:
        raise RemoteProtocolError("a Serf state outside of a push/pull")
    if len(data) > MAX_MESSAGE:
        raise RemoteProtocolError(f"Serf message of {len(data)} bytes")
    fields = _Fields(_unpack(data, 1024))
    if kind == MessageType.LEAVE:
        return LeaveIntent(fields.ltime("LTime"), fields.name("Node"), fields.flag("Prune"))
    if kind == MessageType.JOIN:
        return JoinIntent(fields.ltime("LTime"), fields.name("Node"))
    return _event(fields, fields.ltime("LTime"))


def decode_state(data: bytes) -> State:
    """Return the state in a push/pull's user state.

    Raises:
        RemoteProtocolError: the bytes are no Serf state, or beyond a limit.
    """
    if data[:1] != bytes((MessageType.PUSH_PULL,)):
        raise RemoteProtocolError("user state that is not Serf's")
    if len(data) > MAX_STATE:
        raise RemoteProtocolError(f"Serf state of {len(data)} bytes")
    return _state(_Fields(_unpack(data, MAX_STATE_VALUES)))


def decode_tags(meta: bytes) -> dict[str, str]:
    """Return the tags in another node's metadata.

    Metadata that is no tag map is the tag ``role``, as Serf shows it; a broken
    map gives no tags.
    """
    if meta[:1] != TAGS:
        return {"role": _to_text(meta)}
    try:
        tags = _unpack(meta, 1024)
        return {_to_text(_bytes(key)): _to_text(_bytes(value)) for key, value in tags.items()}
    except RemoteProtocolError:
        return {}


def _state(fields: _Fields) -> State:
    times = fields.mapping("StatusLTimes")
    left = fields.sequence("LeftMembers")
    ticks = fields.sequence("Events")
    if len(times) > MAX_STATE_NODES or len(left) > MAX_STATE_NODES or len(ticks) > MAX_STATE_TICKS:
        raise RemoteProtocolError("Serf state beyond the limits")
    return State(
        ltime=fields.ltime("LTime"),
        status_ltimes=tuple((_name(key), _ltime(value)) for key, value in times.items()),
        left_members=tuple(_name(value) for value in left),
        event_ltime=fields.ltime("EventLTime"),
        events=tuple(_tick(_Fields(_dict(tick))) for tick in ticks if tick is not None),
        query_ltime=fields.ltime("QueryLTime"),
    )


def _tick(fields: _Fields) -> EventsAt:
    ltime = fields.ltime("LTime")
    return EventsAt(ltime, tuple(_event(_Fields(_dict(e)), ltime) for e in fields.sequence("Events")))


def _event(fields: _Fields, ltime: int) -> UserEvent:
    name, payload = _bytes(fields.get("Name")), _bytes(fields.get("Payload"))
    if len(name) + len(payload) > MAX_EVENT_SIZE:
        raise RemoteProtocolError(f"user event of {len(name) + len(payload)} bytes")
    return UserEvent(ltime, _to_text(name), payload, fields.flag("CC"))


class _Fields:
    """Access to one map by key, with a check of each type; what is absent is Go's zero value."""

    __slots__ = ("_body",)

    def __init__(self, body: dict[object, object]) -> None:
        self._body = body

    def get(self, key: str) -> object:
        return self._body.get(key.encode())

    def ltime(self, key: str) -> int:
        return _ltime(self.get(key))

    def name(self, key: str) -> str:
        return _name(self.get(key))

    def flag(self, key: str) -> bool:
        value = self.get(key)
        if value not in (None, False, True):
            raise RemoteProtocolError(f"{key} is no boolean")
        return bool(value)

    def mapping(self, key: str) -> dict[object, object]:
        value = self.get(key)
        return {} if value is None else _dict(value)

    def sequence(self, key: str) -> list[object]:
        value = self.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise RemoteProtocolError(f"{key} is no list")
        return value


def _unpack(data: bytes, items: int) -> dict[object, object]:
    value, _ = msgpack.unpack(data, 1, items=items)  # what follows the map is ignored, as in memberlist's packets
    return _dict(value)


def _dict(value: object) -> dict[object, object]:
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"a map was expected, not {type(value).__name__}")
    return value


def _bytes(value: object) -> bytes:
    if value is None:
        return b""
    if not isinstance(value, bytes):
        raise RemoteProtocolError(f"bytes were expected, not {type(value).__name__}")
    return value


def _name(value: object) -> str:
    raw = _bytes(value)
    if not 0 < len(raw) <= MAX_NAME:
        raise RemoteProtocolError(f"node name of {len(raw)} bytes")
    return _to_text(raw)


def _ltime(value: object) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_LTIME:
        raise RemoteProtocolError(f"no Lamport time: {value!r:.40}")
    return value


def _to_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _to_raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
