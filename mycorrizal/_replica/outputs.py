"""What the replica has to say to its owner: values pulled after every input, and what others may read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Union

from .clock import Stamp

__all__ = [
    "DeletionChanged",
    "EventReceived",
    "EventsMissed",
    "Fetch",
    "Kept",
    "MessageRejected",
    "Output",
    "Push",
    "ServiceChanged",
    "Setting",
    "SettingChanged",
    "SyncDone",
]


class Setting(NamedTuple):
    """One row of ``Replica.settings``."""

    value: bytes
    writer: str


class Kept(NamedTuple):
    """A setting or its tombstone for a file, `age` seconds old when it was taken (0 for a setting)."""

    data: bytes
    age: float


@dataclass(frozen=True, slots=True)
class Push:
    """Work for the owner: send `payload` to each of `targets`, best effort."""

    targets: tuple[str, ...]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Fetch:
    """Work for the owner: ask `member`, and report with ``fetched`` or ``fetch_failed``."""

    fetch_id: int
    member: str
    payload: bytes
    whole: bool = False
    """A whole state goes there and comes back: megabytes perhaps."""


@dataclass(frozen=True, slots=True)
class SettingChanged:
    """A setting has another value; `value` is None once it is deleted."""

    key: str
    value: bytes | None
    writer: str
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class DeletionChanged:
    """A deletion was learnt of what was not there, or is forgotten: nothing is to be seen, but a file changes."""

    key: str


@dataclass(frozen=True, slots=True)
class ServiceChanged:
    """A service that can be seen came, changed or went, with its node or without."""

    kind: Literal["added", "updated", "removed"]
    node: str
    service_id: str
    record: bytes


@dataclass(frozen=True, slots=True)
class EventReceived:
    """The next event of `sender`, our own too."""

    topic: str
    value: bytes
    sender: str
    number: int


@dataclass(frozen=True, slots=True)
class EventsMissed:
    """`count` events of `sender` are not to be had any more; what follows comes after them."""

    sender: str
    count: int


@dataclass(frozen=True, slots=True)
class SyncDone:
    """The end of ``sync``, by the id it returned."""

    sync_id: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class MessageRejected:
    """A message, a state or an answer was refused, at least in part."""

    reason: str


Output = Union[
    SettingChanged, DeletionChanged, ServiceChanged, EventReceived, EventsMissed, SyncDone, MessageRejected
]  # fmt: skip
"""Everything ``Replica.next_event`` returns."""
