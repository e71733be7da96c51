"""Streams for users: a blocking file object over one QUIC stream, how to open one, and who is called for one.

The loop puts what arrives into the stream and hears what was read; it never
waits. A reader holds at most 4 MiB, since the peer may send no more than is
granted as it reads, and a writer waits while 4 MiB of its own have not left.

How no wake-up is lost: a caller first says that it waits and looks again, the
loop first changes and then looks for who waits.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from ..._data.peer import Opening
from ..._data.ports import Pipe
from ..._endings import Ending, error
from ..._wire.frames import Close
from ..._wire.text import logger, printable
from ...exceptions import ConfigError, MycorrizalError
from ..threads import reentry
from ..threads.counters import QuietLog
from ..threads.deadline import Deadline
from ..threads.futures import Waiter
from ..threads.lifecycle import Handle
from ..threads.waits import pass_gate
from .tickets import BlockingTicket, field, own

if TYPE_CHECKING:
    from .core import Core

    Buffer: TypeAlias = bytes | bytearray | memoryview | Any

__all__ = ["RESERVED", "Stream", "StreamHandler", "Streams", "open_stream", "stream_field"]

log = logger("mycorrizal.data")

RESERVED = "mycorrizal/"
"""How the names of our own streams begin."""

WRITE_AHEAD = 4 << 20
"""Bytes written and not yet given to QUIC from which on a writer waits; until it is half."""

_PIECE = 512 << 10
_REPORT = 512 << 10  # bytes read that are worth telling the loop; below the step of a grant
_NEVER = 1 << 62


class Stream(Handle, io.RawIOBase):
    """One end of an open stream: raw bytes in both directions, each of which ends by itself.

    A raw file object: ``read(n)`` returns what there is, at least one byte, and
    ``b""`` at the end; wrap it in ``io.BufferedReader``, ``io.BufferedWriter``
    or ``io.TextIOWrapper`` for lines, exact sizes and many small writes.

    Any thread may call any method; one may read while another writes. Blocked
    calls end with ``OperationTimeout`` after ``timeout`` seconds, with the
    error of a lost connection at once, and by Ctrl-C; the stream stays usable
    after the first and the last. As ``with`` it is closed at the end, and
    aborted if an exception leaves the block, so that the peer does not take a
    part for the whole.

    Attributes:
        node: the other end.
        name: of the stream, as opened.
        timeout: seconds that one call may wait, None for ever. May be changed at any time.
    """

    def __init__(self, core: Core, node: str, name: str, *, accepted: bool) -> None:
        super().__init__()
        self.node = node
        self.name = name
        self.timeout: float | None = None
        self._core = core
        self._pipe: Pipe | None = None  # the loop's
        self._cancelled = False
        # Reading: the loop appends chunks, the reader takes them.
        self._chunks: deque[bytes] = deque()
        self._chunk = memoryview(b"")  # what is left of the one that is being read
        self._fed = self._read = self._unreported = 0
        self._end: MycorrizalError | None = None  # why nothing more comes, unless the peer has ended it
        self._ended = False
        self._reader: Waiter | None = None
        self._waking = False
        self._read_lock = threading.RLock()
        # Writing: the writer appends parts, the loop takes them.
        self._parts: deque[memoryview] = deque()
        self._written = self._gone = 0
        self._flushing = False
        self._write_ended = False
        self._refusal: MycorrizalError | None = None  # why nothing more can be written
        self._accepted = accepted
        self._writer: Waiter | None = None
        self._wake_at = _NEVER
        self._write_lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<Stream {self.name!r} with {printable(self.node)}{', closed' if self.closed else ''}>"

    # -- the loop thread --------------------------------------------------------------------

    def opened(self, pipe: Pipe) -> None:
        self._pipe = pipe
        if self._cancelled:
            pipe.abort()

    def accepted(self) -> None:
        if not self._accepted:
            self._accepted = True
            self._wake(self._writer)

    def feed(self, data: bytes, fin: bool) -> None:
        if data:
            self._chunks.append(data)
            self._fed += len(data)
        if fin:
            self._ended = True
        if self._reader is not None and not self._waking:
            # At the end of this turn: a thread that is woken for each packet costs more than it reads.
            self._waking = True
            self._core.submit(self._wake_reader)

    def taken(self, size: int) -> None:
        self._gone += size
        if self._gone >= self._wake_at:
            self._wake(self._writer)

    def stopped(self, error: MycorrizalError) -> None:
        if self._refusal is None:
            self._refusal = error
        self._wake(self._writer)

    def broken(self, error: MycorrizalError) -> None:
        if not self._ended:
            self._end = error
            self._ended = True
        self._wake(self._reader)
        self.stopped(error)

    def cancel(self, code: int, now: float = 0.0) -> None:
        """Give it up, with a reason."""
        self._cancelled = True
        if self._pipe is not None:
            self._pipe.abort(code)

    @staticmethod
    def _wake(waiter: Waiter | None) -> None:
        if waiter is not None:
            waiter.set(None)

    def _wake_reader(self, now: float) -> None:
        self._waking = False
        self._wake(self._reader)

    def _flush(self, now: float) -> None:
        self._flushing = False  # first this, then the parts; a writer does it the other way round
        fin = self._write_ended
        parts = []
        while self._parts:
            parts.append(self._parts.popleft())
        if len(parts) > 1 and (total := sum(map(len, parts))) <= _PIECE and total < len(parts) * 4096:
            parts = [memoryview(b"".join(parts))]
        if self._pipe is not None:
            self._pipe.write(parts, fin)

    def _shut(self, now: float) -> None:
        self._flush(now)
        if self._pipe is not None:
            self._pipe.stop()

    def _consumed(self, size: int, now: float) -> None:
        if self._pipe is not None:
            self._pipe.consumed(size)

    # -- reading (any thread) ------------------------------------------------------------------

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes, at least one; ``b""`` at the end. Without `size`, everything until the end.

        Raises:
            OperationTimeout: nothing came within ``timeout`` seconds.
            PeerUnreachable: the peer, or the connection, has given the stream up; what had arrived was read before.
            OperationCancelled: it was closed here meanwhile. ValueError: it was before.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        if size is None or size < 0:
            return self.readall()
        return b"".join(self._take(size)) if size else b""

    def readall(self) -> bytes:
        """Return everything until the end; raises as ``read``, and keeps what has come for the next call then."""
        found: list[bytes] = []
        try:
            while data := b"".join(self._take(1 << 20)):
                found.append(data)
        except BaseException:
            with self._read_lock:
                if self._chunk:
                    found.append(bytes(self._chunk))
                self._chunk = memoryview(b"".join(found))
            raise
        return b"".join(found)

    def readinto(self, buffer: Buffer, /) -> int:
        """Read into `buffer`; return how many bytes, 0 at the end. Raises as ``read``."""
        view = memoryview(buffer).cast("B")
        at = 0
        for piece in self._take(len(view)) if len(view) else ():
            view[at : at + len(piece)] = piece
            at += len(piece)
        return at

    def _take(self, size: int) -> list[memoryview]:
        """Wait for bytes; return up to `size` of them, none at the end."""
        deadline = self._begin("read")
        with self._alone(self._read_lock, "read", deadline):
            if not self._await_bytes(deadline):
                return []
            pieces = []
            left = size
            while left and (self._chunk or self._chunks):
                if not self._chunk:
                    self._chunk = memoryview(self._chunks.popleft())
                piece, self._chunk = self._chunk[:left], self._chunk[left:]
                pieces.append(piece)
                left -= len(piece)
            first = not self._read
            self._read += size - left
            self._unreported += size - left
            if first or self._unreported >= _REPORT:
                unreported, self._unreported = self._unreported, 0
                self._core.submit(partial(self._consumed, unreported))
            return pieces

    def _await_bytes(self, deadline: Deadline) -> bool:
        waiter = None
        try:
            while True:
                ended = self._ended  # first this, then the bytes: the loop does it the other way round
                if self._chunk or self._chunks:
                    return True
                if self.closed:
                    raise self._given_up("read")
                if ended:
                    if self._end is not None:
                        raise own(self._end, "read")
                    return False
                if waiter is not None:
                    with self._core.pool.waiting():
                        if not waiter.wait(deadline):
                            raise self._late("read", f"nothing came from {self.node}")
                waiter = self._reader = Waiter()
        finally:
            self._reader = None

    # -- writing (any thread) ------------------------------------------------------------------

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        """Write all of `data`, any contiguous buffer, and return its size. It may be changed afterwards.

        Waits while 4 MiB have not left, because the peer does not read or the
        network is slow; the first write on a stream also until the peer has
        accepted it. What was written arrives unless the stream breaks; to
        know that it was read, let the peer answer.

        Raises:
            OperationTimeout: not within ``timeout`` seconds; a part may be on its way, see ``written``.
            PeerUnreachable: the peer has no handler of this name, or has given the stream up, or is gone.
            PeerBusy: the peer serves as many streams as it can.
            OperationCancelled: it was closed here meanwhile. ValueError: it was before, or ``close_write`` was called.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        deadline = self._begin("write")
        view = memoryview(data)
        view = view.cast("B") if view.nbytes else memoryview(b"")  # no empty one of several dimensions can be cast
        steady = type(view.obj) is bytes
        with self._alone(self._write_lock, "write", deadline):
            for start in range(0, len(view), _PIECE):
                self._await_room(deadline)
                piece = view[start : start + _PIECE]
                self._parts.append(piece if steady else memoryview(bytes(piece)))
                self._written += len(piece)
                self._submit_flush()
            if not self._accepted and len(view):
                self._await_room(deadline, accepted=True)
        return len(view)

    def close_write(self) -> None:
        """End the writing half: the peer reads to the end; this side can still read. Any thread, once is enough.

        Raises:
            OperationTimeout: another thread is writing.
        """
        if self._write_ended:
            return
        with self._alone(self._write_lock, "close_write", self._begin("close_write")):
            self._write_ended = True
            self._submit_flush()

    @property
    def written(self) -> int:
        """Bytes that ``write`` took, in all."""
        return self._written

    @property
    def pending(self) -> int:
        """Bytes that ``write`` took and that have not left."""
        return self._written - self._gone

    @property
    def lost(self) -> bool:
        """Whether the peer takes nothing any more, or is gone."""
        return self._refusal is not None

    def _submit_flush(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._core.loop.submit(self._flush)

    def _await_room(self, deadline: Deadline, *, accepted: bool = False) -> None:
        waiter = None
        try:
            while True:
                if accepted and self._accepted:
                    return
                if self._refusal is not None:
                    raise own(self._refusal, "write")
                if self.closed:
                    raise self._given_up("write")
                if self._write_ended:
                    raise ValueError("write after close_write")
                if not accepted and self.pending < WRITE_AHEAD:
                    return
                if waiter is not None:
                    with self._core.pool.waiting():
                        if not waiter.wait(deadline):
                            raise self._late("write", f"{self.node} does not take what was written")
                self._wake_at = _NEVER if accepted else self._written - WRITE_AHEAD // 2
                waiter = self._writer = Waiter()
        finally:
            self._writer = None
            self._wake_at = _NEVER

    # -- the end (any thread) --------------------------------------------------------------------

    def close(self) -> None:
        """End both halves. Does not wait: what was written is still delivered while the plane is open.

        Bytes that were not read are dropped; a peer that goes on writing hears of it. Idempotent.
        """
        if self.closed:
            return
        super().close()
        self._write_ended = True
        self._leave(self._shut)

    def abort(self) -> None:
        """Give the stream up: nothing more is sent, and the peer's calls fail. Does not wait; idempotent."""
        if not self.closed:
            super().close()
            self._leave(partial(self.cancel, Close.CANCELLED))

    def _leave(self, command: Callable[[float], object]) -> None:
        if not self._core.guard.forked:
            self._core.submit(command)
        self._wake(self._reader)
        self._wake(self._writer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    # -- inside ----------------------------------------------------------------------------------

    def _begin(self, operation: str) -> Deadline:
        self._core.guard.check("Stream", operation)
        if self.closed:
            raise ValueError("I/O operation on closed stream")
        reentry.refuse(operation)
        return self._core.deadline(self.timeout)

    @contextmanager
    def _alone(self, lock: Any, operation: str, deadline: Deadline) -> Iterator[None]:
        """Keep other threads out of one half."""
        if not lock.acquire(blocking=False):
            with self._core.pool.waiting():
                if not pass_gate(lock, deadline):
                    raise self._late(operation, "another thread is inside")
        try:
            yield
        finally:
            lock.release()

    def _late(self, operation: str, what: str) -> MycorrizalError:
        text = f"stream {self.name!r}: {what} within {self.timeout} s"
        return self._ours(Ending.TIMEOUT, text, operation)

    def _given_up(self, operation: str) -> MycorrizalError:
        return self._ours(Ending.CANCELLED, "the stream was closed here", operation)

    def _ours(self, ending: Ending, text: str, operation: str) -> MycorrizalError:
        return error(ending, text, sent=operation == "write", node=self.node, operation=operation)


StreamHandler = Callable[[Stream], object]


class Streams:
    """Who is called for the streams that peers open."""

    def __init__(self, core: Core) -> None:
        self.handlers: dict[str, StreamHandler] = {}
        self.reserved: dict[str, Callable[[Stream], bool]] = {}
        self._core = core
        self._quiet = QuietLog(log, core.name)
        self._serving: set[Stream] = set()
        # A handler may wait for its peer for ever: the places of request handlers are not for that.
        self._most = max(1, core.config.handler_spares)

    def accept(self, name: str, sender: str) -> Stream | Close:
        """Return the end of a stream that `sender` has opened, or how it is refused. Loop thread."""
        core = self._core
        reserved, handler = self.reserved.get(name), self.handlers.get(name)
        if reserved is None and handler is None:
            return Close.NOT_YET if core.settling else Close.UNKNOWN
        stream = Stream(core, sender, name, accepted=True)
        if reserved is not None:
            return stream if reserved(stream) else Close.FULL
        assert handler is not None
        if len(self._serving) >= self._most:
            return Close.FULL
        self._serving.add(stream)
        if not core.run(partial(self._serve, handler, stream)):
            self._serving.discard(stream)
            return Close.FULL
        return stream

    def _serve(self, handler: StreamHandler, stream: Stream) -> None:
        core = self._core
        try:
            try:
                handler(stream)
            finally:
                self._serving.discard(stream)
        except BaseException as error:
            stream.abort()
            core.counters.add("streams.raised")
            if isinstance(error, MycorrizalError):
                log.debug("%s: handler of stream %s: %s", core.name, stream.name, error)
            else:
                text = "the handler of stream %r raised %r; the stream is aborted"
                self._quiet.warning(f"raised {stream.name}", text, stream.name, error, exc_info=error)
        else:
            stream.close()


def stream_field(name: str) -> bytes:
    """Return a name of the user's as it travels.

    Raises:
        ConfigError: it is empty, too long, or one of ours.
    """
    packed = field(name)
    if name.startswith(RESERVED):
        raise ConfigError("name", f"{name!r}: names that begin with {RESERVED!r} are the library's own")
    return packed


def open_stream(core: Core, node: str, name: str, timeout: float | None, *, ours: bool = False) -> Stream:
    """Open a stream; see ``DataPlane.open_stream``. A caller's thread."""
    stream = Stream(core, node, name, accepted=False)
    ticket = BlockingTicket(core.loop)
    opening = Opening(field(name) if ours else stream_field(name), stream, ticket)
    deadline = core.deadline(timeout)
    opening.done = deadline.passed
    core.begin(partial(core.machine.open, node, opening), "open_stream", node)
    try:
        with core.pool.waiting():
            if not ticket.wait(deadline):
                text = f"no connection to {node} within {timeout} s{core.machine.delay(node)}"
                raise error(Ending.TIMEOUT, text, node=node, operation="open_stream")
        ticket.result("open_stream")
    except BaseException:
        core.submit(partial(_forget, core, node, opening, stream))
        raise
    return stream


def _forget(core: Core, node: str, opening: Opening, stream: Stream, now: float) -> None:
    stream.cancel(Close.CANCELLED)
    if not opening.done:
        opening.done = True
        core.machine.forget_opening(node, opening)
