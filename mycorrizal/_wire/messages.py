"""memberlist's messages as values, and the table that both body codecs work from.

A message is a type byte and a body; what a body looks like in bytes is the
matter of ``cbor`` and ``msgpack``. Field names here are snake case, names on
the wire are the Go struct's (``FIELDS`` holds both). ``None`` and ``b""`` are
kept apart in byte fields, because Go writes them differently and a
re-broadcast must not change a message.

From: memberlist-protocol §1 (message types of memberlist ``net.go``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar, Union

__all__ = [
    "BOOT_BYTES",
    "AckResp",
    "Alive",
    "Body",
    "Compress",
    "Dead",
    "Err",
    "Field",
    "IndirectPing",
    "Kind",
    "Message",
    "MessageType",
    "NackResp",
    "NumberedHeader",
    "Ping",
    "PushNodeState",
    "PushPull",
    "PushPullHeader",
    "Suspect",
    "User",
    "UserMsgHeader",
]


BOOT_BYTES = 8
"""Length of the random id of a process's life in a numbered user message."""


class MessageType(enum.IntEnum):
    """The first byte of every message. Append-only: the numbers are on the wire."""

    PING = 0
    INDIRECT_PING = 1
    ACK_RESP = 2
    SUSPECT = 3
    ALIVE = 4
    DEAD = 5
    PUSH_PULL = 6
    COMPOUND = 7
    USER = 8
    COMPRESS = 9
    ENCRYPT = 10
    NACK_RESP = 11
    HAS_CRC = 12
    ERR = 13
    NUMBERED = 200  # ours, with wire="cbor": a user message that counts once
    HAS_LABEL = 244


class Kind(enum.Enum):
    """Type of one field on the wire."""

    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    INT = "int"  # Go's signed int
    BOOL = "bool"
    TEXT = "text"  # arbitrary bytes, held as str with surrogateescape
    BYTES = "bytes"  # None or bytes


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its attribute here, its key on the wire, its kind, whether empty is left out."""

    attr: str
    key: str
    kind: Kind
    omit_empty: bool = False


# In Go's declaration order: a body may arrive as an array in this order.
_SOURCE = (
    Field("source_addr", "SourceAddr", Kind.BYTES, True),
    Field("source_port", "SourcePort", Kind.U16, True),
    Field("source_node", "SourceNode", Kind.TEXT, True),
)


@dataclass(frozen=True, slots=True)
class Ping:
    """Probe of one node; answered with ``AckResp`` to the source fields."""

    FIELDS: ClassVar = (Field("seq_no", "SeqNo", Kind.U32), Field("node", "Node", Kind.TEXT), *_SOURCE)
    TYPE: ClassVar = MessageType.PING
    seq_no: int = 0
    node: str = ""
    source_addr: bytes | None = None
    source_port: int = 0
    source_node: str = ""


@dataclass(frozen=True, slots=True)
class IndirectPing:
    """Request to probe `target` on the sender's behalf."""

    FIELDS: ClassVar = (
        Field("seq_no", "SeqNo", Kind.U32),
        Field("target", "Target", Kind.BYTES),
        Field("port", "Port", Kind.U16),
        Field("node", "Node", Kind.TEXT),
        Field("nack", "Nack", Kind.BOOL),
        *_SOURCE,
    )
    TYPE: ClassVar = MessageType.INDIRECT_PING
    seq_no: int = 0
    target: bytes | None = None
    port: int = 0
    node: str = ""
    nack: bool = False
    source_addr: bytes | None = None
    source_port: int = 0
    source_node: str = ""


@dataclass(frozen=True, slots=True)
class AckResp:
    """Answer to a ping."""

    FIELDS: ClassVar = (Field("seq_no", "SeqNo", Kind.U32), Field("payload", "Payload", Kind.BYTES))
    TYPE: ClassVar = MessageType.ACK_RESP
    seq_no: int = 0
    payload: bytes | None = None


@dataclass(frozen=True, slots=True)
class NackResp:
    """A relay's word that it is alive but got no answer from the target."""

    FIELDS: ClassVar = (Field("seq_no", "SeqNo", Kind.U32),)
    TYPE: ClassVar = MessageType.NACK_RESP
    seq_no: int = 0


@dataclass(frozen=True, slots=True)
class Err:
    """Why the other side could not read our stream."""

    FIELDS: ClassVar = (Field("error", "Error", Kind.TEXT),)
    TYPE: ClassVar = MessageType.ERR
    error: str = ""


@dataclass(frozen=True, slots=True)
class Suspect:
    """`sender` (wire: ``From``) could not reach `node`."""

    FIELDS: ClassVar = (
        Field("incarnation", "Incarnation", Kind.U32),
        Field("node", "Node", Kind.TEXT),
        Field("sender", "From", Kind.TEXT),
    )
    TYPE: ClassVar = MessageType.SUSPECT
    incarnation: int = 0
    node: str = ""
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Dead:
    """`sender` declares `node` dead; from the node itself: it leaves."""

    FIELDS: ClassVar = Suspect.FIELDS
    TYPE: ClassVar = MessageType.DEAD
    incarnation: int = 0
    node: str = ""
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Alive:
    """A node's own record of itself."""

    FIELDS: ClassVar = (
        Field("incarnation", "Incarnation", Kind.U32),
        Field("node", "Node", Kind.TEXT),
        Field("addr", "Addr", Kind.BYTES),
        Field("port", "Port", Kind.U16),
        Field("meta", "Meta", Kind.BYTES),
        Field("vsn", "Vsn", Kind.BYTES),
    )
    TYPE: ClassVar = MessageType.ALIVE
    incarnation: int = 0
    node: str = ""
    addr: bytes | None = None
    port: int = 0
    meta: bytes | None = None
    vsn: bytes | None = None


@dataclass(frozen=True, slots=True)
class Compress:
    """A compressed message; algorithm 0 is LZW, the only one."""

    FIELDS: ClassVar = (Field("algo", "Algo", Kind.U8), Field("buf", "Buf", Kind.BYTES))
    TYPE: ClassVar = MessageType.COMPRESS
    algo: int = 0
    buf: bytes | None = None


@dataclass(frozen=True, slots=True)
class PushPullHeader:
    """Head of a push/pull: how much follows."""

    FIELDS: ClassVar = (
        Field("nodes", "Nodes", Kind.INT),
        Field("user_state_len", "UserStateLen", Kind.INT),
        Field("join", "Join", Kind.BOOL),
    )
    nodes: int = 0
    user_state_len: int = 0
    join: bool = False


@dataclass(frozen=True, slots=True)
class PushNodeState:
    """One member in a push/pull; `state` is a ``NodeState`` number, unchecked."""

    FIELDS: ClassVar = (
        Field("name", "Name", Kind.TEXT),
        Field("addr", "Addr", Kind.BYTES),
        Field("port", "Port", Kind.U16),
        Field("meta", "Meta", Kind.BYTES),
        Field("incarnation", "Incarnation", Kind.U32),
        Field("state", "State", Kind.INT),
        Field("vsn", "Vsn", Kind.BYTES),
    )
    name: str = ""
    addr: bytes | None = None
    port: int = 0
    meta: bytes | None = None
    incarnation: int = 0
    state: int = 0
    vsn: bytes | None = None


@dataclass(frozen=True, slots=True)
class UserMsgHeader:
    """Head of a user message on a stream."""

    FIELDS: ClassVar = (Field("user_msg_len", "UserMsgLen", Kind.INT),)
    user_msg_len: int = 0


@dataclass(frozen=True, slots=True)
class NumberedHeader:
    """Head of a numbered user message, in a packet and on a stream; see ``User``."""

    FIELDS: ClassVar = (
        Field("user_msg_len", "UserMsgLen", Kind.INT),
        Field("boot", "Boot", Kind.BYTES),
        Field("number", "Number", Kind.INT),
        Field("to", "To", Kind.TEXT),
    )
    user_msg_len: int = 0
    boot: bytes | None = None
    number: int = 0
    to: str = ""


@dataclass(frozen=True, slots=True)
class User:
    """A user message: raw bytes, in a packet without a header, in a stream with one.

    With `boot`, the 8-byte id of its sender's life, it is numbered: `number` is unique in that life, and `to` the
    name of the node it is for, empty if the sender did not know it. So the receiver can drop a second copy.
    """

    TYPE: ClassVar = MessageType.USER
    data: bytes = b""
    boot: bytes = b""
    number: int = 0
    to: str = ""

    @property
    def header(self) -> NumberedHeader:
        """The head of a numbered one."""
        return NumberedHeader(len(self.data), self.boot, self.number, self.to)


@dataclass(frozen=True, slots=True)
class PushPull:
    """A whole push/pull: members in table order and the user's state."""

    TYPE: ClassVar = MessageType.PUSH_PULL
    nodes: tuple[PushNodeState, ...] = ()
    user_state: bytes = b""
    join: bool = False


Body = Union[
    Ping, IndirectPing, AckResp, NackResp, Err, Suspect, Dead, Alive,
    Compress, PushPullHeader, PushNodeState, UserMsgHeader, NumberedHeader,
]  # fmt: skip
"""What a body codec reads and writes: one map."""

Message = Union[Ping, IndirectPing, AckResp, NackResp, Err, Suspect, Dead, Alive, User, PushPull]
"""What the machine sends and receives."""
