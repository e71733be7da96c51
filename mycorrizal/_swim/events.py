"""What the machine has to say to whoever owns it: values pulled with ``next_event()``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Union

from .._wire.messages import Message
from ..types import Address, Node

__all__ = [
    "DelegateFault",
    "Direction",
    "Event",
    "ExchangeRequested",
    "MergeRejected",
    "NodeConflict",
    "NodeJoined",
    "NodeLeft",
    "NodeUpdated",
    "OperationDone",
    "PacketRejected",
    "PingComplete",
    "RemoteState",
    "Stalled",
    "UdpBlocked",
    "UserMessage",
]

Direction = Literal["inbound", "outbound", "unknown"]


@dataclass(frozen=True, slots=True)
class ExchangeRequested:
    """Work for the driver: dial `address`, send `message`, read at most one answer, before `deadline`."""

    exchange_id: int
    address: Address
    node: str
    message: Message
    expects_reply: bool
    deadline: float


@dataclass(frozen=True, slots=True)
class OperationDone:
    """The end of ``join``, ``leave``, ``update_meta`` or ``ping``, by the id that call returned."""

    operation_id: int
    result: object = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class NodeJoined:
    """A node became a member, or came back."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeLeft:
    """A node is gone: ``node.state`` is LEFT when it said so, DEAD when it failed."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeUpdated:
    """A member's metadata changed."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeConflict:
    """Two nodes claim one name; `existing` stays."""

    existing: Node
    other: Node


@dataclass(frozen=True, slots=True)
class UserMessage:
    """A user message arrived."""

    data: bytes
    address: Address | None


@dataclass(frozen=True, slots=True)
class RemoteState:
    """A peer's user state arrived with a push/pull; `answer`: we dialled that peer."""

    data: bytes
    join: bool
    answer: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class PingComplete:
    """A probe was answered directly, `rtt` in seconds."""

    node: Node
    rtt: float
    payload: bytes


@dataclass(frozen=True, slots=True)
class Stalled:
    """This process did not run for `seconds`; what it should have done meanwhile was put off."""

    seconds: float


@dataclass(frozen=True, slots=True)
class UdpBlocked:
    """`node` answers over TCP but not over UDP.

    `port` is the UDP port that seems closed: the node's for ``outbound``
    (our packets do not reach it), ours for ``inbound`` (its packets do not reach us).
    """

    node: Node
    port: int
    direction: Direction


@dataclass(frozen=True, slots=True)
class PacketRejected:
    """A datagram, or a part of one, was refused."""

    address: Address
    reason: Exception


@dataclass(frozen=True, slots=True)
class MergeRejected:
    """State that a peer pushed to us was refused; the peer is not told (as in memberlist)."""

    address: Address
    reason: Exception


@dataclass(frozen=True, slots=True)
class DelegateFault:
    """A supply or admission delegate raised, or gave more than it may; `call` is the method."""

    call: str
    message: str


Event = Union[
    OperationDone, NodeJoined, NodeLeft, NodeUpdated, NodeConflict, UserMessage, RemoteState, PingComplete,
    Stalled, UdpBlocked, PacketRejected, MergeRejected, DelegateFault,
]  # fmt: skip
"""Everything ``Swim.next_event`` returns."""
