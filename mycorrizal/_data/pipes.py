"""A stream that a user opened, at either end: raw bytes both ways, each half with an end of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._wire import frames
from .._wire.frames import BULK_INITIAL, STREAM_WINDOW, Close, Frame
from ..exceptions import MycorrizalError, RemoteProtocolError
from .flows import Outflow
from .ports import Sink

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Pipe"]


class Pipe:
    """Both halves of one open stream, in ``Bulk.pipes`` until both have ended. On the machine's thread.

    The reading half is over when the peer has ended or reset it, which it also
    does after our STOP_SENDING; what still comes until then is dropped.
    """

    __slots__ = (
        *("_accepted", "_bulk", "_consumed", "_flow", "_over", "_reading", "_received"),
        *("limit", "link", "sink", "stream"),
    )

    def __init__(self, link: Link, stream: int, sink: Sink) -> None:
        self.link = link
        self._bulk = link.bulk
        self.stream = stream
        self.sink = sink
        self.limit = BULK_INITIAL
        self._received = 0
        self._consumed = 0
        self._reading = True  # the user wants what comes, and there is more
        self._over = False  # nothing can come any more
        self._accepted = False
        self._flow = self._bulk.flows[stream] = Outflow(stream, [], fin=False, taken=sink.taken)
        self._bulk.pipes[stream] = self

    # -- from the peer -----------------------------------------------------------------------

    def feed(self, data: bytes, fin: bool) -> None:
        """Hand bytes to the reader.

        Raises:
            RemoteProtocolError: more than granted.
        """
        self._received += len(data)
        if self._received > self.limit:
            raise RemoteProtocolError("more bytes of a stream than granted")
        if self._reading:
            self._reading = not fin
            self.sink.feed(data, fin)
        if fin:
            self._over = True
            self.prune()

    def reset(self, code: int) -> None:
        """The peer sends no more; unless we asked for that, it gave the stream up altogether."""
        self._over = True
        if self._reading:
            self._reading = False
            self._drop(code)
            self.sink.broken(self.link.machine.stream_error(self.link, code))
        self.prune()

    def stopped(self, code: int) -> None:
        """The peer reads no more."""
        if self._drop(code):
            self.sink.stopped(self.link.machine.stream_error(self.link, code))
        self.prune()

    def accepted(self) -> bool:
        """The peer has a handler for it; return whether that is news."""
        if self._accepted:
            return False
        self._accepted = True
        self.sink.accepted()
        return True

    # -- from the user -----------------------------------------------------------------------

    def consumed(self, size: int) -> None:
        """The reader has read `size` bytes: grant more if it is time to."""
        self._consumed += size
        wanted = self._consumed + STREAM_WINDOW
        if self._reading and wanted - self.limit >= STREAM_WINDOW // 4:
            self.limit = wanted
            self.link.put(frames.frame(Frame.GRANT, frames.grant_body(self.stream, wanted)))

    def write(self, parts: list[memoryview], fin: bool) -> None:
        """Queue bytes, and the end."""
        if self.writing:
            for part in parts:
                self._flow.append(part)
            if fin:
                self._flow.fin = True
                self._bulk.finishing.add(self.stream)
                if len(self._bulk.finishing) > 64:
                    self._bulk.unfinished()  # forgets those that have finished
            self.link.conn.touch()

    def stop(self, code: int = Close.CANCELLED) -> None:
        """The user reads no more."""
        if self._reading:
            self._reading = False
            self.link.conn.stop(self.stream, code)

    def abort(self, code: int = Close.CANCELLED) -> None:
        """The user gave the stream up, in both directions."""
        self.stop(code)
        self._drop(code)
        self.prune()

    # -- the end -----------------------------------------------------------------------------

    @property
    def writing(self) -> bool:
        """Whether the end of what is to be sent has not been given to QUIC."""
        return self._bulk.flows.get(self.stream) is self._flow

    def _drop(self, code: int) -> bool:
        """Reset the sending half; False if it has ended already."""
        if not self.writing:
            return False
        del self._bulk.flows[self.stream]
        self._flow.drop()
        self._bulk.finishing.discard(self.stream)
        self.link.conn.reset(self.stream, code)
        return True

    def end(self) -> Sink:
        """The connection is gone; return who is to be told."""
        self._reading = False
        self._over = True
        self._flow.drop()
        return self._leave()

    def _leave(self) -> Sink:
        """Forget who is told: it knows us too, and only a collection would free what it keeps."""
        sink, self.sink = self.sink, _NOBODY
        return sink

    def prune(self) -> None:
        """Leave the link once both halves have ended."""
        if self._over and not self.writing and self._bulk.pipes.get(self.stream) is self:
            del self._bulk.pipes[self.stream]
            self._leave()
            self.link.used = self.link.machine.now


class _Nobody:
    """In place of the user's end of a stream that is over."""

    def opened(self, pipe: object) -> None:
        """Nobody is told."""

    def accepted(self) -> None:
        """Nobody is told."""

    def feed(self, data: bytes, fin: bool) -> None:
        """Nobody is told."""

    def taken(self, size: int) -> None:
        """Nobody is told."""

    def stopped(self, error: MycorrizalError) -> None:
        """Nobody is told."""

    def broken(self, error: MycorrizalError) -> None:
        """Nobody is told."""


_NOBODY = _Nobody()
