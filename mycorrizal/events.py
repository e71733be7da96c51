"""What ``events()``, ``subscribe()`` and ``watch()`` yield: one frozen value for each change a subscriber can see.

Whether a node said goodbye or was given up is told apart here (``MemberLeft``
and ``MemberFailed``); memberlist's ``notify_leave`` delegate covers both. Every
class carries its ``kind`` as a short text for logs, JSON and command lines; a
type checker knows what an event is from ``event.kind == "join"``, ``isinstance``
or ``match``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Union

from .types import MaybeUnreadable, Node, Service

__all__ = [
    "AgentEvent",
    "CacheRedefined",
    "ChangesLost",
    "EventsLost",
    "MemberEvent",
    "MemberFailed",
    "MemberJoined",
    "MemberLeft",
    "MemberStalled",
    "MemberUpdated",
    "NameConflict",
    "ServiceChange",
    "SettingChange",
    "Stalled",
    "TcpBlocked",
    "UdpBlocked",
    "UserEvent",
    "UserEventsMissed",
]


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """`node` became a member, or came back."""

    kind: ClassVar[Literal["join"]] = "join"
    node: Node


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """`node` announced that it leaves; ``node.state`` is LEFT. ``since`` is when that was heard, seconds since 1970."""

    kind: ClassVar[Literal["leave"]] = "leave"
    node: Node
    since: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class MemberFailed:
    """`node` stopped answering and was declared dead; ``node.state`` is DEAD. ``since``: when, seconds since 1970."""

    kind: ClassVar[Literal["fail"]] = "fail"
    node: Node
    since: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class MemberUpdated:
    """The metadata of `node` changed, or its address."""

    kind: ClassVar[Literal["update"]] = "update"
    node: Node


@dataclass(frozen=True, slots=True)
class NameConflict:
    """Two live nodes claim one name; `existing` stays, `other` is ignored."""

    kind: ClassVar[Literal["conflict"]] = "conflict"
    existing: Node
    other: Node


@dataclass(frozen=True, slots=True)
class Stalled:
    """This process did not run for `seconds`: it was stopped, swapped out, slept, or its GIL was held."""

    kind: ClassVar[Literal["stall"]] = "stall"
    seconds: float


@dataclass(frozen=True, slots=True)
class UdpBlocked:
    """`node` answers over TCP but not over UDP.

    Attributes:
        node: the peer.
        port: the UDP port that seems closed: the peer's for ``"outbound"``
            (our packets do not reach it), ours for ``"inbound"``.
        direction: ``"outbound"``, ``"inbound"`` or ``"unknown"``.
    """

    kind: ClassVar[Literal["udp_blocked"]] = "udp_blocked"
    node: Node
    port: int
    direction: str


@dataclass(frozen=True, slots=True)
class TcpBlocked:
    """`node` answers over UDP but cannot be dialled over TCP. Told once, and again if it was reached meanwhile.

    Attributes:
        node: the peer.
        port: its TCP port.
        direction: ``"outbound"``: our dials fail. Whether the peer's do, its own events tell.
    """

    kind: ClassVar[Literal["tcp_blocked"]] = "tcp_blocked"
    node: Node
    port: int
    direction: str


@dataclass(frozen=True, slots=True)
class EventsLost:
    """The subscriber was too slow and lost its `count` oldest events.

    `members` is the member list at the moment of reading, to start over from;
    events that follow may describe changes it already contains.
    """

    kind: ClassVar[Literal["lost"]] = "lost"
    count: int
    members: tuple[Node, ...]


MemberEvent = Union[
    MemberJoined, MemberLeft, MemberFailed, MemberUpdated, NameConflict, Stalled, UdpBlocked, TcpBlocked, EventsLost
]
"""Everything ``Memberlist.events()`` yields."""


@dataclass(frozen=True, slots=True)
class MemberStalled:
    """The agent `node` tells that its process did not run for `seconds`; this one's own stalls too."""

    kind: ClassVar[Literal["member_stalled"]] = "member_stalled"
    node: str
    seconds: float


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class UserEvent(MaybeUnreadable):
    """An event that an agent broadcast.

    Attributes:
        topic: what it is about.
        value: what was broadcast; the reader's own. Raises ``error`` if it cannot be decoded here.
        sender: the agent's name.
        number: counts the events of one process of the sender, from 1.
        error: the ``ValueDecodeError`` that says why the value cannot be read; None if it can.
    """

    kind: ClassVar[Literal["user"]] = "user"
    topic: str
    value: Any
    sender: str
    number: int
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class UserEventsMissed:
    """`count` events of `sender` are to be had nowhere any more: this agent was away for too long."""

    kind: ClassVar[Literal["missed"]] = "missed"
    sender: str
    count: int


@dataclass(frozen=True, slots=True)
class ServiceChange:
    """A service appeared, changed or went: with its node, by ``deregister``, or because its check says so."""

    kind: Literal["added", "updated", "removed"]
    service: Service


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class SettingChange(MaybeUnreadable):
    """A setting was set, or deleted (`value` is None then), by the agent `writer`.

    `value` raises `error`, a ``ValueDecodeError``, where it cannot be decoded here; otherwise that is None.
    """

    key: str
    value: Any
    deleted: bool
    writer: str
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class ChangesLost:
    """The watcher was too slow and lost its `count` oldest changes; look at the present state to start over from."""

    kind: ClassVar[Literal["lost"]] = "lost"
    count: int


@dataclass(frozen=True, slots=True)
class CacheRedefined:
    """A cache that this agent has open has other settings from now on, as `node` says; those that changed."""

    kind: ClassVar[Literal["cache_redefined"]] = "cache_redefined"
    cache: str
    node: str
    before: dict[str, Any]
    after: dict[str, Any]


AgentEvent = Union[MemberEvent, MemberStalled, CacheRedefined, UserEvent, UserEventsMissed]
"""Everything ``Agent.events()`` yields."""
