"""What replicas say to each other: CBOR arrays that begin with their kind, and *packs* of many.

Gossip and pushes carry one array each (``Setting``, ``Service``, ``Event``,
``Highest``). A fetch, its answer and a state are packs: ``u32 length, header``
and then for each item ``u32 length, u32 age in seconds, array``. The header is an array too (``Want``,
``Have``, ``State``). Further fields at the end of an array are a later
version's, and are passed on as they came.

All bytes of a peer go through the guarded decoder of ``_wire.values``; all
that is wrong with them becomes a ``RemoteProtocolError``.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Union

import cbor2

from .._wire.values import decode_parts
from ..config import check_name
from ..exceptions import ConfigError, RemoteProtocolError, ValueTooLarge
from .clock import COUNTER_MAX, WALL_MAX, Stamp
from .limits import BOOT_BYTES, NAME_MAX, NUMBER_MAX

__all__ = [
    "AGE_MAX",
    "BATCH_MAX",
    "Batch",
    "Event",
    "Have",
    "Highest",
    "Kind",
    "LastBatch",
    "Message",
    "Sender",
    "Service",
    "Setting",
    "State",
    "Want",
    "check_text",
    "decode",
    "decode_header",
    "items",
    "pack",
]

AGE_MAX = (1 << 32) - 1
MESSAGE_MAX = (1 << 20) + 2048
"""Longest array: the largest event with its names."""
HEADER_MAX = 2 << 20
"""Longest header: a state's, with the numbers of all senders."""
SENDERS_MAX = 8_192
"""Senders in one state."""
RANGES_MAX = 32
"""Holes in one ``Want``."""
BATCH_MAX = 255
"""Messages in one ``Batch``."""
ROUND_MAX = 255


class Kind(enum.IntEnum):
    """First element of an array; numbers are append-only."""

    SETTING = 1
    SERVICE = 2
    EVENT = 3
    HIGHEST = 4
    WANT = 5
    HAVE = 6
    STATE = 7
    BATCH = 8
    LAST_BATCH = 9


class Sender(NamedTuple):
    """One life of a node."""

    name: str
    boot: bytes


class Setting(NamedTuple):
    """A write of `key`; `value` is None for a deletion."""

    key: str
    value: bytes | None
    stamp: Stamp

    def encode(self) -> bytes:
        return cbor2.dumps([Kind.SETTING.value, self.key, self.value, *self.stamp])


class Service(NamedTuple):
    """A service of the life that wrote the stamp; `record` is None once it is deregistered."""

    id: str
    record: bytes | None
    stamp: Stamp

    @property
    def key(self) -> tuple[str, bytes, str]:
        """Node, boot and id."""
        return self.stamp.writer, self.stamp.boot, self.id

    @property
    def life(self) -> Sender:
        """Node and boot."""
        return Sender(self.stamp.writer, self.stamp.boot)

    def encode(self) -> bytes:
        return cbor2.dumps([Kind.SERVICE.value, self.id, self.record, *self.stamp])


class Event(NamedTuple):
    """An event; each life of a node numbers its own from 1."""

    sender: Sender
    number: int
    topic: str
    value: bytes

    def encode(self) -> bytes:
        return cbor2.dumps([Kind.EVENT.value, *self.sender, self.number, self.topic, self.value])


class Highest(NamedTuple):
    """The latest event of `sender` has this number. Each `round` of saying so is passed on once."""

    sender: Sender
    number: int
    round: int

    def encode(self) -> bytes:
        return cbor2.dumps([Kind.HIGHEST.value, *self.sender, self.number, self.round])


class Batch(NamedTuple):
    """Settings and services that `sender` tells each directly and nobody gossips; each life numbers its own from 1."""

    sender: Sender
    number: int
    content: tuple[bytes, ...]

    def encode(self) -> bytes:
        return cbor2.dumps([Kind.BATCH.value, *self.sender, self.number, list(self.content)])


class LastBatch(NamedTuple):
    """The latest batch of `sender` has this number. Each `round` of saying so is passed on once."""

    sender: Sender
    number: int
    round: int

    def encode(self) -> bytes:
        return cbor2.dumps([Kind.LAST_BATCH.value, *self.sender, self.number, self.round])


class Want(NamedTuple):
    """Asks for events of `sender`, as ranges of numbers, both ends included."""

    sender: Sender
    ranges: tuple[tuple[int, int], ...]

    def encode(self) -> bytes:
        flat = [number for pair in self.ranges for number in pair]
        return cbor2.dumps([Kind.WANT.value, *self.sender, flat])


class Have(NamedTuple):
    """Answers a ``Want``; the events are the items of the pack. `last` is up to where the answerer has seen them."""

    sender: Sender
    last: int

    def encode(self) -> bytes:
        return cbor2.dumps([Kind.HAVE.value, *self.sender, self.last])


class State(NamedTuple):
    """A whole state: the hash of the entries, which are the items, and up to where events and batches were seen."""

    digest: bytes
    seen: tuple[tuple[Sender, int], ...]
    batches: tuple[tuple[Sender, int], ...] = ()

    def encode(self) -> bytes:
        seen, batches = ([[*sender, last] for sender, last in rows] for rows in (self.seen, self.batches))
        return cbor2.dumps([Kind.STATE.value, self.digest, seen, batches])


Message = Union[Setting, Service, Event, Highest, Batch, LastBatch]
Header = Union[Want, Have, State]


def check_text(text: str, what: str) -> None:
    """Refuse a name of our own user's that does not travel.

    Raises:
        ConfigError: it is empty, or not UTF-8.
        ValueTooLarge: longer than 255 bytes.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConfigError(what, "text with lone surrogates cannot be sent") from None
    if not size:
        raise ConfigError(what, "is empty", hint="give it a name")
    if size > NAME_MAX:
        raise ValueTooLarge(f"a {what} of {size} bytes; the limit is {NAME_MAX}")


# -- reading --------------------------------------------------------------------------


def decode(data: bytes) -> Message:
    """Return the message in one array.

    Raises:
        RemoteProtocolError: whatever is wrong with it.
    """
    fields = _array(data, MESSAGE_MAX)
    match fields[0]:
        case Kind.SETTING:
            _count(fields, 7)
            return Setting(_text(fields[1], "key"), _optional(fields[2]), _stamp(fields))
        case Kind.SERVICE:
            _count(fields, 7)
            return Service(_text(fields[1], "service"), _optional(fields[2]), _stamp(fields))
        case Kind.EVENT:
            _count(fields, 6)
            number, topic = _number(fields[3], NUMBER_MAX, 1), _text(fields[4], "topic")
            return Event(_sender(fields), number, topic, _bytes(fields[5]))
        case Kind.HIGHEST:
            _count(fields, 5)
            return Highest(_sender(fields), _number(fields[3], NUMBER_MAX, 1), _number(fields[4], ROUND_MAX))
        case Kind.BATCH:
            _count(fields, 5)
            return Batch(_sender(fields), _number(fields[3], NUMBER_MAX, 1), _content(fields[4]))
        case Kind.LAST_BATCH:
            _count(fields, 5)
            return LastBatch(_sender(fields), _number(fields[3], NUMBER_MAX, 1), _number(fields[4], ROUND_MAX))
    raise RemoteProtocolError(f"a message of kind {str(fields[0])[:20]} where none should be")


def decode_header(data: bytes) -> tuple[Header, int]:
    """Return the header of a pack, and where the items begin.

    Raises:
        RemoteProtocolError: whatever is wrong with it.
    """
    if len(data) < 4:
        raise RemoteProtocolError("a pack that is cut off")
    end = 4 + int.from_bytes(data[:4], "big")
    if end > len(data):
        raise RemoteProtocolError("a pack cut off in its header")
    fields = _array(data[4:end], HEADER_MAX)
    match fields[0]:
        case Kind.WANT:
            _count(fields, 4)
            return Want(_sender(fields), _ranges(fields[3])), end
        case Kind.HAVE:
            _count(fields, 4)
            return Have(_sender(fields), _number(fields[3], NUMBER_MAX)), end
        case Kind.STATE:
            _count(fields, 3)
            if len(_bytes(fields[1])) != 16:
                raise RemoteProtocolError("a state whose hash has the wrong size")
            return State(_bytes(fields[1]), _seen(fields[2]), _seen(fields[3]) if len(fields) > 3 else ()), end
    raise RemoteProtocolError(f"a pack of kind {str(fields[0])[:20]}")


def items(data: bytes, at: int, most: int) -> Iterator[tuple[bytes, int]]:
    """Yield the bytes and the age of each item of a pack, from offset `at` on.

    Raises:
        RemoteProtocolError: it is cut off, or there are more than `most`.
    """
    end = len(data)
    while at < end:
        if at + 8 > end:
            raise RemoteProtocolError("a pack cut off between its items")
        size, age = _ITEM.unpack_from(data, at)
        stop = at + 8 + size
        if stop > end or size > MESSAGE_MAX:
            raise RemoteProtocolError("a pack cut off in an item")
        most -= 1
        if most < 0:
            raise RemoteProtocolError("a pack of too many items")
        yield data[at + 8 : stop], age
        at = stop


def pack(header: Header, content: Iterable[tuple[bytes, float]]) -> bytes:
    """Return a pack; ages are rounded up, so that they grow from node to node."""
    raw = header.encode()
    parts = [len(raw).to_bytes(4, "big"), raw]
    for one, age in content:
        parts.append(_ITEM.pack(len(one), min(int(age) + 1, AGE_MAX) if age > 0 else 0))
        parts.append(one)
    return b"".join(parts)


_ITEM = struct.Struct(">II")


def _array(data: bytes, most: int) -> list[object]:
    if not 0 < len(data) <= most:
        raise RemoteProtocolError(f"a message of {len(data)} bytes")
    fields = decode_parts(data, ())
    if not isinstance(fields, list) or not fields or type(fields[0]) is not int:
        raise RemoteProtocolError("a message that is no array with its kind")
    return fields


def _count(fields: list[object], least: int) -> None:
    if len(fields) < least:
        raise RemoteProtocolError(f"a message with {len(fields)} fields where {least} should be")


def _text(value: object, what: str) -> str:
    if type(value) is str and 0 < len(value) <= NAME_MAX and len(value.encode()) <= NAME_MAX:
        return value
    raise RemoteProtocolError(f"a {what} that is none")


def _name(value: object, what: str) -> str:
    """Return the name of an agent, which each checks for itself; it stands in logs and tables."""
    name = _text(value, what)
    try:
        check_name(name)
    except ConfigError:
        raise RemoteProtocolError(f"a {what} that no agent may be called") from None
    return name


def _bytes(value: object) -> bytes:
    if type(value) is bytes:
        return value
    raise RemoteProtocolError(f"{type(value).__name__} where bytes should be")


def _optional(value: object) -> bytes | None:
    return None if value is None else _bytes(value)


def _number(value: object, below: int, least: int = 0) -> int:
    if type(value) is int and least <= value < below:
        return value
    raise RemoteProtocolError(f"a number that is not in {least}..{below - 1}")


def _boot(value: object) -> bytes:
    if type(value) is bytes and len(value) == BOOT_BYTES:
        return value
    raise RemoteProtocolError("a boot id that is none")


def _content(value: object) -> tuple[bytes, ...]:
    if isinstance(value, list) and 0 < len(value) <= BATCH_MAX:
        return tuple(map(_bytes, value))
    raise RemoteProtocolError("a batch of nothing, or of too many messages")


def _stamp(fields: Sequence[object]) -> Stamp:
    wall, counter = _number(fields[3], WALL_MAX), _number(fields[4], COUNTER_MAX)
    return Stamp(wall, counter, _name(fields[5], "writer"), _boot(fields[6]))


def _sender(fields: Sequence[object]) -> Sender:
    return Sender(_name(fields[1], "sender"), _boot(fields[2]))


def _ranges(value: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or len(value) % 2 or not 0 < len(value) <= 2 * RANGES_MAX:
        raise RemoteProtocolError("ranges that are none")
    numbers = [_number(number, NUMBER_MAX, 1) for number in value]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _seen(value: object) -> tuple[tuple[Sender, int], ...]:
    if not isinstance(value, list) or len(value) > SENDERS_MAX:
        raise RemoteProtocolError("a state with too many senders")
    seen = []
    for row in value:
        if not isinstance(row, list) or len(row) < 3:
            raise RemoteProtocolError("a state with a strange sender")
        seen.append((Sender(_name(row[0], "sender"), _boot(row[1])), _number(row[2], NUMBER_MAX)))
    return tuple(seen)
