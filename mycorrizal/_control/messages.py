"""Requests, replies and events of the control plane, as bytes.

Each is one CBOR map with text keys, of definite lengths in their shortest form,
so that a CBOR library of any language reads and writes it::

    request  {"id": any, "command": text, "arguments": {text: any}}
    reply    {"id": the request's, "ok": true, "result": any}
             {"id": the request's or null, "ok": false, "error": {"code", "text", "retriable", "indeterminate"}}
    event    {"topic": text, "sequence": n, "topic_sequence": n, "publisher": text, "value": {text: any}}

What comes from a client passes the guard of values (``_wire.values``) before
cbor2 sees it. Nothing here is written to a log: arguments may hold keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cbor2

from .._wire.arrays import Buffers, Unfit
from .._wire.text import printable, text_of
from .._wire.value_guard import BUFFERS_MAX, TAG_ARRAY, TAG_ARRAY_F, TAG_DECIMAL, TAG_DTYPE, TAG_SCALAR
from .._wire.value_walk import sendable
from .._wire.values import DEFAULT, decode_parts
from ..exceptions import ControlError, MycorrizalError, RemoteProtocolError, ValueEncodeError, ValueTooLarge

__all__ = [
    "EVENT_MAX",
    "PROTOCOL",
    "REPLY_MAX",
    "REQUEST_MAX",
    "ControlEvent",
    "Reply",
    "Request",
    "decode_event",
    "decode_reply",
    "decode_request",
    "encode_event",
    "encode_failure",
    "encode_reply",
    "encode_request",
]

PROTOCOL = 1
"""Version of what is written here; ``ping`` and ``subscribe`` tell it."""

REQUEST_MAX = 1 << 20
"""Bytes of the longest request. Bulk goes over the data plane, not through its control."""

REPLY_MAX = 4 << 20
"""Bytes of the longest reply: some ten thousand members."""

EVENT_MAX = 256 << 10
"""Bytes of the longest event; a larger one is told without its value."""

ID_MAX = 64
"""Characters or bytes of the longest request id."""

TEXT_MAX = 2000
"""Characters of the longest error text."""


Id = int | float | str | bytes | None
"""Of a request. A float is a whole number: JavaScript writes large ones so, and reads an integer as a BigInt."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks. ``arguments`` are not checked yet, see ``commands``."""

    id: Id
    command: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What an agent answers: a result, or the error."""

    id: Id
    result: Any = None
    error: ControlError | None = None


@dataclass(frozen=True, slots=True)
class ControlEvent:
    """One event out of an agent's stream.

    Attributes:
        topic: what it is about, e.g. ``event.member_joined``; for a broadcast ``event.user.<its topic>``.
        value: what happened, as plain values.
        sequence: number of the event among all that this publisher told.
        topic_sequence: its number among those of its topic; one that is missing was lost on the way.
        publisher: tells one run of an agent from the next, where numbers start anew.
        lost: events of this topic missing before this one, as the reader counted them.
    """

    topic: str
    value: dict[str, Any]
    sequence: int
    topic_sequence: int
    publisher: str
    lost: int = 0


# -- the agent's side ---------------------------------------------------------------------


def decode_request(data: bytes) -> Request:
    """Return the request in `data`.

    Raises:
        RemoteProtocolError: it is none.
    """
    if len(data) > REQUEST_MAX:
        raise RemoteProtocolError(f"a request of {len(data)} bytes; {REQUEST_MAX} are the most")
    table = _map(data, "request")
    number, command, arguments = table.get("id"), table.get("command"), table.get("arguments", {})
    long = isinstance(number, str | bytes) and len(number) > ID_MAX
    if long or not isinstance(number, Id) or (isinstance(number, float) and not number.is_integer()):
        raise RemoteProtocolError("a request whose id is neither a number nor a short text")
    if not isinstance(command, str) or len(command) > ID_MAX:
        raise RemoteProtocolError("a request without the name of a command")
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        raise RemoteProtocolError("a request whose arguments are no map with text keys")
    return Request(number, command, arguments)


def encode_reply(number: Id, result: object) -> bytes:
    """Return the reply that carries `result`.

    Raises:
        ValueEncodeError, ValueTooLarge: it cannot be sent.
    """
    data = _encode({"id": number, "ok": True, "result": result}, "the result")
    if len(data) > REPLY_MAX:
        raise ValueTooLarge(f"a result of {len(data)} bytes; {REPLY_MAX} are the most")
    return data


def encode_failure(number: Id, code: str, error: BaseException) -> bytes:
    """Return the reply that says what went wrong. Never raises."""
    told = {
        "code": code,
        "text": printable(text_of(error), TEXT_MAX),
        "retriable": isinstance(error, MycorrizalError) and error.retriable,
        "indeterminate": isinstance(error, MycorrizalError) and error.indeterminate,
    }
    return cbor2.dumps({"id": number, "ok": False, "error": told})


def encode_event(topic: str, numbers: tuple[int, int], publisher: str, value: Mapping[str, Any]) -> bytes:
    """Return the payload of an event; what cannot be sent or is too large is left out and named in ``omitted``."""
    told = {"topic": topic, "sequence": numbers[0], "topic_sequence": numbers[1], "publisher": publisher}
    try:
        data = _encode({**told, "value": dict(value)}, "the event")
        if len(data) <= EVENT_MAX:
            return data
        why = f"{len(data)} bytes"
    except ValueEncodeError as error:
        why = printable(str(error), TEXT_MAX)
    rest = {key: item for key, item in value.items() if isinstance(item, str) and key != "value" and len(item) < 1000}
    return _encode({**told, "value": {**rest, "omitted": why}}, "the event")


# -- the client's side --------------------------------------------------------------------


def encode_request(number: int, command: str, arguments: Mapping[str, Any]) -> bytes:
    """Return the request as bytes.

    Raises:
        ValueEncodeError, ValueTooLarge: an argument cannot be sent.
    """
    data = _encode({"id": number, "command": command, "arguments": dict(arguments)}, "an argument", readable=False)
    if len(data) > REQUEST_MAX:
        raise ValueTooLarge(f"a request of {len(data)} bytes; {REQUEST_MAX} are the most")
    return data


def decode_reply(data: bytes) -> Reply:
    """Return the reply in `data`.

    Raises:
        RemoteProtocolError: it is none.
    """
    table = _map(data, "reply")
    number = table.get("id")
    if table.get("ok") is True:
        return Reply(number, table.get("result"))
    error = table.get("error")
    if not isinstance(error, dict) or not isinstance(error.get("code"), str):
        raise RemoteProtocolError("a reply with neither a result nor an error")
    told = ControlError(
        printable(error["code"]),
        printable(str(error.get("text", "")), TEXT_MAX),
        retriable=error.get("retriable") is True,
        indeterminate=error.get("indeterminate") is True,
    )
    return Reply(number, error=told)


def decode_event(data: bytes) -> ControlEvent:
    """Return the event in `data`.

    Raises:
        RemoteProtocolError: it is none.
    """
    table = _map(data, "event")
    found: list[Any] = [table.get(name) for name in ("topic", "value", "sequence", "topic_sequence", "publisher")]
    fits = zip(found, (str, dict, int, int, str), strict=True)
    if not all(isinstance(item, kind) for item, kind in fits):
        raise RemoteProtocolError("an event that lacks what it should tell")
    return ControlEvent(*found)


# -- both ---------------------------------------------------------------------------------


_NO_NUMBERS = ("NaN", "Infinity", "-Infinity")


class _NoRoom(Buffers):
    """Buffers that are full: everything goes into the one frame, as CBOR that any library reads."""

    def __len__(self) -> int:
        return BUFFERS_MAX


def _encode(value: dict[str, Any], what: str, *, readable: bool = True) -> bytes:
    try:
        sent = sendable(value, 0, _NoRoom(), DEFAULT)
        return cbor2.dumps(_readable(sent) if readable else sent)
    except Unfit as error:
        raise ValueEncodeError(what + "".join(reversed(error.path)) + ": " + error.reason, hint=error.hint) from None
    except (cbor2.CBOREncodeError, UnicodeEncodeError) as error:
        raise ValueEncodeError(f"{what}: {error}") from None


def _readable(sent: Any) -> Any:
    """Return what ``sendable`` made, with plain values where they say the same as tags that only we know."""
    if isinstance(sent, dict):
        return {key: _readable(item) for key, item in sent.items()}
    if isinstance(sent, list | tuple):
        return [_readable(item) for item in sent]
    if not isinstance(sent, cbor2.CBORTag):
        return sent
    if sent.tag == TAG_DECIMAL and sent.value in _NO_NUMBERS:
        return float(sent.value)
    flat = sent.value[1] if sent.tag in (TAG_ARRAY, TAG_ARRAY_F) else sent
    if sent.tag == TAG_SCALAR or flat.tag == TAG_DTYPE:
        found: Any = decode_parts(cbor2.dumps(sent), ())
        if found.dtype.kind in "biufSU":
            return found.tolist()
    return sent


def _map(data: bytes, what: str) -> dict[str, Any]:
    table = decode_parts(data, ())
    if not isinstance(table, dict):
        raise RemoteProtocolError(f"a {what} that is no map")
    return table
