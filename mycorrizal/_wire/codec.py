"""Choice of the body codec, and messages in the form that stands in a packet.

A message in a packet is its type byte and its body; a user message is its type
byte, a header if it is numbered, and raw bytes. Which types may come where is the matter of ``packet`` and
``stream``.
"""

from __future__ import annotations

from ..exceptions import LocalProtocolError, RemoteProtocolError
from .body import B, BodyCodec, IncompleteError
from .cbor import CborCodec
from .messages import (
    BOOT_BYTES,
    AckResp,
    Alive,
    Dead,
    Err,
    IndirectPing,
    Message,
    MessageType,
    NackResp,
    NumberedHeader,
    Ping,
    PushPull,
    Suspect,
    User,
)
from .msgpack import MsgpackCodec

__all__ = ["B", "BodyCodec", "IncompleteError", "body_codec", "decode_message", "encode_message", "numbered"]

_CODECS: dict[str, BodyCodec] = {"cbor": CborCodec(), "msgpack": MsgpackCodec()}

_USER = User.TYPE
_NUMBERED = bytes([MessageType.NUMBERED])
_BY_TYPE: dict[
    int,
    type[Ping]
    | type[IndirectPing]
    | type[AckResp]
    | type[Suspect]
    | type[Alive]
    | type[Dead]
    | type[NackResp]
    | type[Err],
] = {int(cls.TYPE): cls for cls in (Ping, IndirectPing, AckResp, Suspect, Alive, Dead, NackResp, Err)}
_TYPE_BYTE = {cls: bytes([kind]) for kind, cls in _BY_TYPE.items()}


def body_codec(name: str) -> BodyCodec:
    """Return the body codec of the setting ``wire=``: ``"cbor"`` or ``"msgpack"``."""
    return _CODECS[name]


def encode_message(codec: BodyCodec, message: Message) -> bytes:
    """Return `message` as it stands in a packet: type byte and body.

    Raises:
        LocalProtocolError: it has no such form (a push/pull), or a field is out of range.
    """
    if isinstance(message, User):
        return (_NUMBERED + codec.encode(message.header) if message.boot else b"\x08") + message.data
    if isinstance(message, PushPull):
        raise LocalProtocolError("a push/pull travels on streams only")
    return _TYPE_BYTE[type(message)] + codec.encode(message)


def numbered(header: NumberedHeader, data: bytes) -> User:
    """Return the numbered user message of a header and its bytes.

    Raises:
        RemoteProtocolError: the header is none.
    """
    boot = header.boot or b""
    if len(boot) != BOOT_BYTES or header.number <= 0 or header.user_msg_len != len(data):
        raise RemoteProtocolError("the header of a numbered user message is wrong")
    return User(data, boot, header.number, header.to)


def decode_message(codec: BodyCodec, data: bytes) -> Message:
    """Return the message that `data` is, type byte first; bytes after its body are ignored.

    Raises:
        RemoteProtocolError: it is none.
    """
    if not data:
        raise RemoteProtocolError("an empty message: no type byte")
    kind = data[0]
    if kind == _USER:
        return User(data[1:])
    if kind == MessageType.NUMBERED and codec.name == "cbor":
        header, at = codec.decode(NumberedHeader, data, 1)
        return numbered(header, data[at:])
    cls = _BY_TYPE.get(kind)
    if cls is None:
        raise RemoteProtocolError(f"message type {kind} is not supported here")
    return codec.decode(cls, data, 1)[0]
