"""Values a user's code may hold: nodes, addresses, results. Immutable, no behaviour."""

from __future__ import annotations

import copy
import enum
import ipaddress
import operator
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

__all__ = [
    "HTML_ROWS_MAX",
    "HTML_TEXT_MAX",
    "Address",
    "Figures",
    "Health",
    "JoinResult",
    "Member",
    "Members",
    "Message",
    "Node",
    "NodeState",
    "PeerInfo",
    "Peers",
    "MaybeUnreadable",
    "ReceivedFile",
    "Request",
    "Service",
    "Versions",
    "as_builtin",
    "find_numpy",
    "frameless",
    "host_of",
    "html_table",
    "html_text",
    "is_loopback",
    "pack_host",
    "parse_host",
    "printable",
]

Address = tuple[str, int]
"""A socket address as ``(IP literal, port)``."""


def as_builtin(value: Any) -> Any:
    """Return a text or number of another class, such as ``StrEnum`` or NumPy's integers, as the builtin; others as is.

    For what a user gives as a name, key, topic, port or bound. It goes on to our threads, where no class of a user's
    may have a say: one whose ``__hash__`` or ``__eq__`` raises would end them.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if type(value) is bool:
        return value
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    numpy = find_numpy()
    if numpy is not None and isinstance(value, numpy.integer):
        return int(operator.index(value))
    return float(value) if numpy is not None and isinstance(value, numpy.floating) else value


def find_numpy() -> Any:
    """Return NumPy if this process has imported it, else None: without it there are no arrays to send.

    One that another thread is just importing lacks names, and no value here can be of it yet.
    """
    numpy = sys.modules.get("numpy")
    return None if getattr(getattr(numpy, "__spec__", None), "_initializing", False) else numpy


class NodeState(enum.IntEnum):
    """State of a member; the numbers are memberlist's, as they travel in push/pull."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


_E = TypeVar("_E", bound=BaseException)
_K = TypeVar("_K", bound="MaybeUnreadable")


def frameless(error: _E) -> _E:
    """Return `error`, which is to be kept as a value, without the frames that it and its causes came through.

    They know all callers' frames, one of which is about to know the error: such a cycle keeps all that is in them.
    """
    seen: list[BaseException] = [error]
    one = error.__cause__
    error.__traceback__ = error.__context__ = None
    while one is not None and one not in seen:
        one.__traceback__ = one.__context__ = None
        seen.append(one)
        one = one.__cause__
    return error


class MaybeUnreadable:
    """What brings a value of another node's, which this process may not be able to decode.

    Then ``error``, a field of each class below this one, says why, and to read the value raises it. Everything else
    goes on: it can be compared, shown, copied and pickled.
    """

    __slots__ = ()

    carries: ClassVar[str] = "value"
    """The field with the value: it is not set where there is an ``error``, so that ``__getattr__`` is asked."""

    @classmethod
    def unreadable(cls: type[_K], error: Exception, **more: Any) -> _K:
        """Return one without its value; `more` are its other fields."""
        made = cls(**more, **{cls.carries: None, "error": frameless(error)})
        object.__delattr__(made, cls.carries)
        return made

    def __getattr__(self, name: str) -> Any:
        if name == self.carries:
            error: Exception | None = self.error
            if error is not None:  # one of its own for each reader: it gets a traceback
                raise copy.copy(error) from error.__cause__
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def _set(self) -> dict[str, Any]:
        """Return the fields that are set."""
        gone = self.carries if self.error is not None else None
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != gone}  # type: ignore[arg-type]

    def __repr__(self) -> str:
        found = self._set()
        if found["error"] is None:
            del found["error"]
        shown = ", ".join(["=".join((field, repr(value))) for field, value in found.items()])
        return f"{type(self).__name__}({shown})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self is other or self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(self._compared())

    def _compared(self) -> tuple[Any, ...]:
        found = self._set()
        return (*(value for name, value in found.items() if name != "error"), self.error and str(self.error))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self._set())


def _restored(kind: type[MaybeUnreadable], found: dict[str, Any]) -> MaybeUnreadable:
    return kind(**found) if found["error"] is None else kind.unreadable(**found)


@dataclass(frozen=True, slots=True)
class Versions:
    """The six version numbers a node announces (``Vsn``): protocol and delegate min, max, current."""

    protocol_min: int = 0
    protocol_max: int = 0
    protocol: int = 0
    delegate_min: int = 0
    delegate_max: int = 0
    delegate: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """One member as this node knows it; a snapshot that never changes.

    Attributes:
        name: unique in the cluster. Names of foreign nodes need not be UTF-8;
            undecodable bytes stand as surrogates (``surrogateescape``).
        addr: 4 or 16 raw address bytes exactly as the node announced them.
            A Go node may announce IPv4 in its 16-byte v4-mapped form.
        port: port of its UDP and TCP gossip sockets.
        meta: at most 512 bytes from the node's ``node_meta`` delegate.
        state: alive, suspect, dead or left.
        incarnation: the version of this record, raised only by the node itself.
        versions: its protocol and delegate versions.
    """

    name: str
    addr: bytes
    port: int
    meta: bytes = b""
    state: NodeState = NodeState.ALIVE
    incarnation: int = 0
    versions: Versions = Versions()

    @property
    def host(self) -> str:
        """The address as text, v4-mapped addresses as plain IPv4."""
        return host_of(self.addr)

    @property
    def address(self) -> Address:
        """``(host, port)`` to dial."""
        return (host_of(self.addr), self.port)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an agent's cluster, as this agent knows it at one moment.

    Attributes:
        name, host, port: who, and where it gossips.
        quic_port: where its data plane listens; None if it tells none (a Go or Serf node).
        tags: what it says of itself.
        state: alive or suspect; dead or left in events, and of those that are gone.
        boot: the random id of its process; None if it is no agent.
        node: membership's own record.
        since: when it left or failed, in seconds since 1970; None of one that is here.
    """

    name: str
    host: str
    port: int
    quic_port: int | None
    tags: Mapping[str, str]
    state: NodeState
    boot: bytes | None
    node: Node = field(repr=False)
    since: float | None = None


class Members(tuple[Member, ...]):
    """Members by name; a tuple that a notebook shows as a table."""

    __slots__ = ()

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [member.name for member in self]

    def _repr_html_(self) -> str:
        rows = [(m.name, _state(m), f"{m.host}:{m.port}", m.quic_port or "", _pairs(m.tags)) for m in self]
        return html_table(("name", "state", "address", "quic", "tags"), rows)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Service(MaybeUnreadable):
    """One registered service.

    Attributes:
        name: the text by which it is looked for; several nodes may offer it.
        node, host: the node that offers it, and the address of that node.
        port: where it listens; None if that is not how it is reached.
        meta: whatever was registered with it; raises ``error`` if that cannot be decoded here.
        healthy: the last outcome of its check; True without one.
        id: unique on its node.
        error: the ``ValueDecodeError`` that says why `meta` cannot be read; None if it can.
    """

    carries: ClassVar[str] = "meta"

    name: str
    node: str
    host: str
    port: int | None
    meta: Any
    healthy: bool
    id: str
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How an agent is, at one moment.

    Attributes:
        name, cluster: whose.
        score: 0 is well; higher means that this node answers or is answered late (Lifeguard).
        members, suspects: how many there are; suspects are members that did not answer lately.
        stalls: how often this process stood still.
        connections: of the data plane.
        inbox: messages that were not received yet.
        events_lost: by readers that were too slow.
        problems: a sentence for each thing that is not as it should be; empty if all is well.
    """

    name: str
    cluster: str
    score: int
    members: int
    suspects: int
    stalls: int
    connections: int
    inbox: int
    events_lost: int
    problems: tuple[str, ...]

    def _repr_html_(self) -> str:
        state = "all is well" if not self.problems and not self.score else "not all is well"
        head = f"<div>{html_text(self.name)} of {html_text(self.cluster)}: {state}</div>"
        problems = "".join(f"<li>{html_text(problem)}</li>" for problem in self.problems[:HTML_ROWS_MAX])
        names = ("score", "members", "suspects", "stalls", "connections", "inbox", "events_lost")
        figures = html_table(names, [tuple(getattr(self, name) for name in names)])
        return head + (f"<ul>{problems}</ul>" if problems else "") + figures


@dataclass(frozen=True, slots=True)
class JoinResult:
    """What a join achieved.

    Attributes:
        reached: how many addresses completed a push/pull with us.
        failures: the error of each entry that failed, by the text it was given as.
        itself: one of the addresses reached is this node's own.
        delegates_pending: whether delegates have not been told all of what the seeds told: they were too slow for
            the timeout, or the call was made on their thread.
    """

    reached: int
    failures: Mapping[str, Exception]
    itself: bool = False
    delegates_pending: bool = False


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Message(MaybeUnreadable):
    """One message out of the inbox.

    Attributes:
        sender: name of the node that sent it.
        value: what it sent; the reader's own. Raises ``error`` if that cannot be decoded here.
        error: the ``ValueDecodeError`` that says why the value cannot be read; None if it can.
    """

    sender: str
    value: Any
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a request handler is called with.

    Attributes:
        name: under which the handler is registered.
        value: what the caller sent; the handler's own.
        sender: name of the node that asks.
        deadline: seconds that were left to the caller when the handler began, None without end. What the
            handler itself requests is cut to it.
    """

    name: str
    value: Any
    sender: str
    deadline: float | None


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file that a peer sent.

    Attributes:
        path: where it is; the name in it may end in " (2)" or so, since no file is overwritten.
        name: what the sender called it, made safe.
        sender: name of the node that sent it.
        size: bytes.
    """

    path: Path
    name: str
    sender: str
    size: int


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What the data plane knows of one peer, at one moment.

    Attributes:
        name, address: of the peer; the address is None if it is not known.
        state: ``connected``, ``connecting``, ``idle`` (dialled at the next call) or ``failing`` (waits to redial).
        dialled: whether we opened the connection.
        connections: how many there are; 2 for a moment after both sides have dialled.
        rtt: smoothed round trip in seconds, 0.0 while unknown.
        mtu: bytes of the largest datagram we send to it; 0 where there are none.
        calls, serving: requests of ours and of the peer's that are open.
        messages: messages on their way, not accepted by its inbox yet.
        path: further figures of the connection: bytes, datagrams, congestion window, losses.
        carrier, why: ``quic``, or ``host`` for a Unix socket of this host, and why that; empty without a connection.
    """

    name: str
    address: Address | None
    state: str
    dialled: bool
    connections: int
    rtt: float
    mtu: int
    calls: int
    serving: int
    messages: int
    path: Mapping[str, float]
    carrier: str = ""
    why: str = ""


class Peers(list[PeerInfo]):
    """Peers; a list that a notebook shows as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        head = ("name", "state", "carrier", "round trip", "calls", "serving", "messages")
        rows = [
            (p.name, p.state, p.carrier, f"{p.rtt * 1000:.2f} ms" if p.rtt else "", p.calls, p.serving, p.messages)
            for p in self
        ]
        return html_table(head, rows)


class Figures(dict[str, int]):
    """Counters and gauges by name; a dict that a notebook shows as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return html_table(("name", "value"), sorted(self.items()))


HTML_ROWS_MAX = 200
HTML_TEXT_MAX = 200


def html_table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]], count: int | None = None) -> str:
    """Return a small HTML table; all that is in it is escaped. At most 200 rows and 200 characters a cell are shown.

    Args:
        count: of all rows, if `rows` has not more of them than are shown.
    """
    rows = list(rows)
    count = len(rows) if count is None else count
    cells = "".join(f"<th style='text-align:left'>{html_text(name)}</th>" for name in head)
    lines = ("".join(f"<td style='text-align:left'>{html_text(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line, _ in zip(lines, range(HTML_ROWS_MAX), strict=False))
    more = f"<div>and {count - HTML_ROWS_MAX} more</div>" if count > HTML_ROWS_MAX else ""
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>{more}"


def html_text(value: object) -> str:
    """Return `value` as text for HTML: escaped, one printable line, not too long."""
    from html import escape  # late: for notebooks

    return escape(printable(str(value), HTML_TEXT_MAX))


def _state(member: Member) -> str:
    """Return the state as people say it: ``failed at 13:06:21 UTC`` of one that is gone, for a day at the most."""
    if member.since is None:
        return member.state.name.lower()
    second = int(member.since % 86400)
    what = "left" if member.state == NodeState.LEFT else "failed"
    return f"{what} at {second // 3600:02}:{second // 60 % 60:02}:{second % 60:02} UTC"


def _pairs(tags: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(tags.items()))


_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What ``str.isprintable`` takes, and shows nothing: joiners, fillers, variation selectors, the empty Braille cell."""


def printable(text: str | bytes, limit: int = 200) -> str:
    """Return a stranger's `text` as one line that steers no terminal, forges no line of a log, and hides nothing.

    Line ends, escapes and other controls, marks of direction, zero-width and other invisible characters, and surrogates
    stand as in a literal of Python: ``\\n``, ``\\x1b``, ``\\u202e``. A backslash stays as it is, so that text which
    comes here twice is escaped once; a caller that must tell a line end from the two characters takes the ``repr``.
    Bytes that are no UTF-8 stand as in the name of a node, ``\\udcff``.

    Args:
        limit: characters of the result at most; what is longer ends with an ellipsis.
    """
    if isinstance(text, bytes):
        text = text[: 4 * (limit + 1)].decode("utf-8", "surrogateescape")
    if len(text) <= limit and text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    shown, size = [], 0
    for char in text[: limit + 1]:
        visible = char.isprintable() and not _INVISIBLE.match(char)
        shown.append(char if visible else char.encode("unicode_escape").decode())
        size += len(shown[-1])
    if size > limit:
        while size >= limit and shown:
            size -= len(shown.pop())
        shown.append("…")
    return "".join(shown)


@lru_cache(maxsize=4096)  # one packet asks for three
def host_of(addr: bytes) -> str:
    """Return raw address bytes as text; a length that is no address gives ``"?<hex>"``."""
    if len(addr) == 4:
        return "%d.%d.%d.%d" % tuple(addr)
    if len(addr) == 16:
        v6 = ipaddress.IPv6Address(addr)
        return str(v6.ipv4_mapped or v6)
    return "?" + addr.hex() if addr else "<nil>"


def parse_host(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address that an IP literal means, however it is spelt: without a zone, v4-mapped as IPv4.

    Raises:
        ValueError: `host` is not an IP literal.
    """
    ip = ipaddress.ip_address(host.partition("%")[0])
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def pack_host(host: str) -> bytes:
    """Return an IP literal as raw bytes, IPv4 (also v4-mapped) as 4.

    Raises:
        ValueError: `host` is not an IP literal.
    """
    return parse_host(host).packed


def is_loopback(host: str) -> bool:
    """Return whether `host` is an IP literal of this host's loopback."""
    try:
        return parse_host(host).is_loopback
    except ValueError:
        return False
