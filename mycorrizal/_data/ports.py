"""What the data machine needs from the world, as protocols: a connection, trust, and its host.

Everything here is called on the thread that owns the machine. Tests hand in
fakes; ``_runtime/quic`` has the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from .._wire.frames import Close
from .._wire.values import Codecs, Encoded, decode_packed, decode_parts, pack_parts
from ..exceptions import MycorrizalError
from ..types import Address

__all__ = [
    "BY_QUIC",
    "ON_HOST",
    "Connection",
    "Host",
    "Lender",
    "Pipe",
    "Received",
    "Served",
    "Sink",
    "Trust",
    "Waiting",
    "Way",
]


class Way(NamedTuple):
    """How the bytes of a connection travel.

    Attributes:
        name: for people.
        early: the server is proved before the first byte, so that frames may follow the client's proof at once.
        tentative: if it ends before the welcome, the next dial takes another way, and what waits goes on waiting.
        shared: ``put`` may be called by any thread.
        reads: ``send`` has read what it is given when it returns.
    """

    name: str
    early: bool
    tentative: bool
    shared: bool
    reads: bool


BY_QUIC = Way("quic", early=True, tentative=False, shared=False, reads=False)
ON_HOST = Way("host", early=False, tentative=True, shared=True, reads=True)


class Waiting(Protocol):
    """For whom a thread waits for what comes next; ``done``: it needs nothing any more."""

    @property
    def done(self) -> bool: ...


class Connection(Protocol):
    """One connection, by whatever way.

    ``boot``: the process that the way says is at the other end, None if it says nothing. ``why``: this way was taken.
    ``full``: it takes no more for now, and is touched once it does.
    ``put``: as ``send``, from any thread, where ``way.shared``; a Ctrl-C in it leaves what was sent whole.
    ``read``: there the calling thread may wait for what comes next, for `who`, and let ``take(stream, bytes)`` have it;
    False if another thread reads, `take` did not want it, or nothing came until `deadline`, which is the runtime's.
    """

    @property
    def way(self) -> Way: ...
    @property
    def boot(self) -> bytes | None: ...
    @property
    def why(self) -> str: ...
    @property
    def dialled(self) -> bool: ...
    @property
    def address(self) -> Address: ...
    @property
    def channel(self) -> bytes | None: ...
    @property
    def last_received(self) -> float: ...
    @property
    def created(self) -> float: ...
    @property
    def full(self) -> bool: ...

    def open_stream(self, *, uni: bool) -> int: ...
    def send(self, stream: int, data: bytes | memoryview, fin: bool = False) -> None: ...
    def put(self, stream: int, data: bytes) -> None: ...
    def read(self, who: Waiting, take: Callable[[int, bytes], bool], deadline: Any) -> bool: ...
    def backlog(self, stream: int) -> int: ...
    def reset(self, stream: int, code: int) -> None: ...
    def stop(self, stream: int, code: int) -> None: ...
    def touch(self) -> None: ...
    def ping(self) -> None: ...
    def follow(self, address: Address) -> None: ...
    def stats(self) -> dict[str, float | int]: ...
    def mark_proved(self) -> None: ...
    def close(self, code: int, reason: str, now: float) -> None: ...


class Trust(Protocol):
    """How two nodes prove themselves to each other; see ``_runtime/quic/trust/keys.py``.

    What a proof is bound to comes from ``Host.binding`` and is not looked into here.
    """

    @property
    def early(self) -> bool: ...
    @property
    def compare(self) -> str: ...
    def offer(self) -> bytes: ...
    def prove(self, s: Any, offer: bytes) -> tuple[bytes, str]: ...
    def verify(self, s: Any, proof: bytes) -> str: ...
    def answer(self, s: Any, key_id: str) -> bytes: ...
    def check_answer(self, s: Any, key_id: str, answer: bytes) -> None: ...
    def holds(self, key_id: str) -> bool: ...


class Ticket(Protocol):
    """Where the outcome of a call goes; called once."""

    def succeed(self, outcome: object) -> None: ...
    def fail(self, error: MycorrizalError) -> None: ...


class Pipe(Protocol):
    """What the user's end of an open stream acts through: ``pipes.Pipe``."""

    def write(self, parts: list[memoryview], fin: bool) -> None: ...
    def consumed(self, size: int) -> None: ...
    def stop(self) -> None: ...
    def abort(self, code: int = ...) -> None: ...


class Sink(Protocol):
    """The user's end of an open stream.

    ``accepted``: the peer has a handler for it. ``stopped``: the peer reads no
    more. ``broken``: both halves are over.
    """

    def opened(self, pipe: Pipe) -> None: ...
    def accepted(self) -> None: ...
    def feed(self, data: bytes, fin: bool) -> None: ...
    def taken(self, size: int) -> None: ...
    def stopped(self, error: MycorrizalError) -> None: ...
    def broken(self, error: MycorrizalError) -> None: ...


class Received:
    """A value as it came, in one piece or as header and buffers. Decoded by whoever wants it, never on the loop."""

    __slots__ = ("_buffers", "_header", "_packed", "size")

    def __init__(self, packed: bytes, header: bytes = b"", buffers: list[bytes | bytearray] | None = None) -> None:
        self._packed = packed
        self._header = header
        self._buffers = buffers
        self.size = len(packed) if buffers is None else len(header) + sum(map(len, buffers))

    def decode(self, codecs: Codecs | None) -> object:
        """Return the value. Arguments and errors as those of ``decode_parts``."""
        if self._buffers is None:
            return decode_packed(self._packed, codecs)
        return decode_parts(self._header, self._buffers, codecs)

    def pack(self) -> bytes:
        """Return the wire form in one piece; copies the buffers."""
        return self._packed if self._buffers is None else pack_parts(self._header, self._buffers)


class Lender(Protocol):
    """Whose memory is sent. ``over`` is set by the caller before it goes on, and may change that memory.

    Who sends says so first (``sent``, ``sequence``), copies, and looks at ``over`` last: then what the caller finds
    unsent stays unsent, and nothing that was changed while it was copied arrives.
    """

    @property
    def over(self) -> bool: ...


class Answering(Protocol):
    """Who takes the answer to a request."""

    def respond(self, request: Served, status: int, value: Encoded | None, now: float) -> None: ...


class Served:
    """One request of a peer, while a handler has it."""

    __slots__ = ("cancelled", "deadline", "depth", "link", "name", "number", "sender", "value")

    def __init__(
        self, link: Answering, number: int, name: str, sender: str, deadline: float | None, value: Received, depth: int
    ) -> None:
        self.link = link
        self.number = number
        self.name = name
        self.sender = sender
        self.deadline = deadline
        self.value = value
        self.depth = depth
        self.cancelled = False


class Host(Protocol):
    """The runtime around the machine."""

    @property
    def name(self) -> str: ...
    @property
    def boot(self) -> bytes: ...
    @property
    def settling(self) -> bool: ...
    def dial(self, address: Address, peer: str | None, now: float) -> Connection: ...
    def resolve(self, node: str) -> Address | None: ...
    def missing(self, node: str) -> tuple[str, str]: ...
    def member(self, node: str) -> bool | None: ...
    def process(self, node: str) -> bytes | None: ...
    def offer(self, item: tuple[str, Received], size: int) -> bool: ...
    def serve(self, request: Served) -> bool: ...
    def has_handler(self, name: str) -> bool: ...
    def has_thread(self, depth: int) -> bool: ...
    def accept_stream(self, name: str, sender: str) -> Sink | Close: ...
    def arm(self, delay: float) -> None: ...
    def nonce(self) -> bytes: ...
    def jitter(self) -> float: ...
    def binding(self, channel: bytes, server_nonce: bytes, client_nonce: bytes, client: str, server: str) -> Any: ...
    def count(self, name: str, amount: int = 1) -> None: ...
    def warn(self, kind: str, message: str, *args: object) -> None: ...
