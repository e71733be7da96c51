"""What is open on streams of their own on one connection: large values both ways, and users' streams.

On the machine's thread. What a peer does wrong raises ``RemoteProtocolError``,
which the link turns into the end of the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._wire import frames
from .._wire.frames import BULK_INITIAL, STREAMS_MAX, VALUES_MAX, VALUES_TAKEN, Close, Frame, Status, StreamHead
from .._wire.values import Encoded
from ..exceptions import RemoteProtocolError
from .flows import SEND_AHEAD, InValue, Outflow, feed
from .pipes import Pipe
from .ports import Lender, Received, Sink

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Bulk"]

_DROPPED_MAX = 16 << 20
"""Bytes that may still come on a stream that we do not want; a sender that hears us sends less."""

_RATE_MIN = 64 << 10
"""Bytes a second at which a value must come while others wait for the memory that it holds."""


class Bulk:
    """The streams of one connection, but for the two lanes.

    Attributes:
        flows: what is being sent.
        values: large values that are arriving.
        pipes: streams that users have opened.
        finishing: streams that the user has ended and the peer may not have whole.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.flows: dict[int, Outflow] = {}
        self.values: dict[int, InValue] = {}
        self.pipes: dict[int, Pipe] = {}
        self.finishing: set[int] = set()
        self._queue: deque[Outflow] = deque()  # values that have no stream yet
        self._tails: dict[int, Outflow] = {}  # all given to QUIC, not all acknowledged
        self._unsettled: dict[int, Outflow] = {}  # acknowledged, but may still be refused
        self._heads: dict[int, StreamHead] = {}
        self._dropped: dict[int, int] = {}  # streams that we do not want, and the bytes that came since

    @property
    def busy(self) -> bool:
        """Whether anything is open."""
        return bool(self.flows or self.values or self.pipes or self._queue or self._heads)

    @property
    def sending(self) -> int:
        """Flows that are not over."""
        return len(self.flows) + len(self._queue)

    @property
    def unacknowledged(self) -> bool:
        """Whether the peer may not have all that was given to QUIC."""
        self._prune()
        return bool(self._tails)

    @property
    def opened_here(self) -> int:
        """Users' streams that this side has opened."""
        mine = not self.link.conn.dialled
        return sum(bool(stream & 1) == mine for stream in self.pipes)

    def unfinished(self) -> bool:
        """Whether streams that the user has ended are not whole at the peer yet."""
        backlog = self.link.conn.backlog
        self.finishing = {stream for stream in self.finishing if stream in self.flows or backlog(stream)}
        return bool(self.finishing)

    # -- what comes ------------------------------------------------------------------------

    def data(self, stream: int, data: bytes, fin: bool, now: float) -> None:
        """Take bytes of a stream, in order."""
        value = self.values.get(stream)
        if value is not None:
            self._value_data(stream, value, data, fin, now)
        elif stream in self.pipes:
            self.pipes[stream].feed(data, fin)
        elif stream in self._dropped:
            self._dropped[stream] += len(data)
            if fin:
                del self._dropped[stream]
            elif self._dropped[stream] > _DROPPED_MAX:
                raise RemoteProtocolError("a stream that goes on although it was stopped")
        else:
            self._head_data(stream, data, fin, now)

    def _head_data(self, stream: int, data: bytes, fin: bool, now: float) -> None:
        head = self._heads.get(stream)
        if head is None:
            if bool(stream & 1) != self.link.conn.dialled:
                raise RemoteProtocolError("bytes on a stream of ours that is over")
            if len(self._heads) + len(self.values) + len(self.pipes) + len(self._dropped) >= STREAMS_MAX:
                raise RemoteProtocolError("too many streams")
            head = self._heads[stream] = StreamHead(now)
        parsed = head.feed(data)
        if parsed is None:
            if fin:
                raise RemoteProtocolError("a stream that ends in its head")
            return
        del self._heads[stream]
        kind, body, rest = parsed
        if kind == Frame.OPEN and not stream & 2:
            self._opened(stream, body, rest, fin, now)
        elif kind in (Frame.MESSAGE, Frame.REQUEST, Frame.RESPONSE) and stream & 2:
            self._value_begins(stream, kind, body, fin, now)
            value = self.values.get(stream)
            if value is not None:
                self._value_data(stream, value, rest, fin, now)
        else:
            raise RemoteProtocolError(f"a stream of kind {kind}")

    def _drop(self, stream: int, code: int) -> None:
        """Want nothing more of a stream; what still comes counts for nothing."""
        self._dropped[stream] = 0
        self.link.conn.stop(stream, code)

    def _opened(self, stream: int, body: bytes, rest: bytes, fin: bool, now: float) -> None:
        link, machine = self.link, self.link.machine
        name = frames.parse_open(body)
        sink = Close.SHUTDOWN if machine.closing else machine.host.accept_stream(name, link.name)
        if isinstance(sink, Close):
            machine.host.count("streams.refused")
            link.wasted(now)
            link.conn.reset(stream, sink)
            if not fin:
                self._drop(stream, sink)
            return
        pipe = Pipe(link, stream, sink)
        link.put(frames.frame(Frame.GRANT, frames.grant_body(stream, BULK_INITIAL)))  # says: accepted
        sink.opened(pipe)
        if rest or fin:
            pipe.feed(rest, fin)

    # -- values ------------------------------------------------------------------------------

    def _value_begins(self, stream: int, kind: int, body: bytes, fin: bool, now: float) -> None:
        if len(body) <= 8:
            raise RemoteProtocolError("a value without its size")
        size = int.from_bytes(body[-8:], "big")
        body = body[:-8]
        value = InValue(kind, body, size, now)
        code = self._refusal(kind, body, size, now)
        if code is not None:
            if not fin:
                self._drop(stream, code)
            return
        self.values[stream] = value
        if size > BULK_INITIAL:
            value.on_grant = lambda: self._grant(stream, value)
            self.link.machine.budget.ask(value, self.link.peer, self.link.conn.address[0])

    def _refusal(self, kind: int, body: bytes, size: int, now: float) -> Close | None:
        """Return the code to stop a value with, if we do not want it; its sender has been told the rest."""
        link = self.link
        code: Close | None = None
        if size > link.machine.limits.value:
            link.machine.host.count("values.too_large")
            code = Close.TOO_LARGE
        elif len(self.values) >= VALUES_TAKEN:
            code = Close.FULL
        if kind == Frame.MESSAGE:
            if len(body) != 8:
                raise RemoteProtocolError("a message without its sequence number")
            assert link.peer is not None
            link.peer.incoming_for(link.boot).expects(frames.parse_sequence(body))
        elif kind == Frame.REQUEST:
            number, _, depth, name, at = frames.parse_request(body)
            if at != len(body):
                raise RemoteProtocolError("a request with bytes before its value")
            busy = {Close.TOO_LARGE: Status.TOO_LARGE, Close.FULL: Status.BUSY}
            status = busy[code] if code is not None else link.refusal(number, name, depth)
            if status is not None:
                link.refuse(number, status)
                return code or Close.CANCELLED
        else:
            number, _ = frames.parse_response(body)
            if number not in link.calls:
                link.wasted(now)
                return Close.CANCELLED
            if code is not None:
                link.answered(number, busy_status(code), Received(b""), now)
        return code

    def _grant(self, stream: int, value: InValue) -> None:
        value.grant(self.link.machine.now)
        self.link.put(frames.frame(Frame.GRANT, frames.grant_body(stream, 1 << 62)))

    def room(self, stream: int) -> memoryview | None:
        """Return the memory that the next bytes of a value belong in, if there is any: tell ``filled`` then."""
        value = self.values.get(stream)
        return None if value is None else value.room()

    def filled(self, stream: int, size: int, fin: bool, now: float) -> None:
        """As ``data``, for `size` bytes that are where ``room`` said."""
        value = self.values[stream]
        self._value_came(stream, value, value.filled(size, fin, now), now)

    def _value_data(self, stream: int, value: InValue, data: bytes, fin: bool, now: float) -> None:
        self._value_came(stream, value, value.feed(data, fin, now), now)

    def _value_came(self, stream: int, value: InValue, received: Received | None, now: float) -> None:
        if received is None:
            return
        self._value_gone(stream)
        link = self.link
        if value.kind == Frame.MESSAGE:
            link.deliver(frames.parse_sequence(value.body), received, now)
        elif value.kind == Frame.REQUEST:
            number, left, depth, name, _ = frames.parse_request(value.body)
            link.serve(number, left, depth, name, received, now)
        else:
            number, status = frames.parse_response(value.body)
            link.answered(number, status, received, now)

    def _value_gone(self, stream: int) -> InValue:
        value = self.values.pop(stream)
        self.link.machine.budget.drop(value)
        return value

    def _value_broken(self, stream: int) -> None:
        """A value will not come whole."""
        value = self._value_gone(stream)
        if value.kind == Frame.RESPONSE:
            self.link.broken_answer(frames.parse_response(value.body)[0])

    # -- what the peer says about streams ------------------------------------------------------

    def reset(self, stream: int, code: int) -> None:
        """The peer gave up sending on `stream`."""
        self._heads.pop(stream, None)
        self._dropped.pop(stream, None)
        if stream in self.values:
            self._value_broken(stream)
        elif stream in self.pipes:
            self.pipes[stream].reset(code)

    def stopped(self, stream: int, code: int) -> None:
        """The peer does not want what comes on `stream`."""
        pipe = self.pipes.get(stream)
        if pipe is not None:
            pipe.stopped(code)
            return
        for table in (self.flows, self._tails, self._unsettled):
            flow = table.pop(stream, None)
            if flow is not None:
                self.link.conn.reset(stream, code)
                flow.limit = -1
                refused = flow.refused
                flow.drop()
                if refused is not None:
                    refused(code)

    def granted(self, stream: int, limit: int) -> bool:
        """The peer grants more, or has accepted a stream; return whether that is news."""
        flow = self.flows.get(stream)
        news = flow is not None and limit > flow.limit
        if flow is not None and news:
            flow.limit = limit
        pipe = self.pipes.get(stream)
        if pipe is not None and pipe.accepted():
            news = self.link.worked = True
        return news

    # -- what goes ---------------------------------------------------------------------------

    def send(
        self,
        kind: int,
        body: bytes,
        value: Encoded,
        refused: Callable[[int], None] | None,
        taken: Callable[[int], None] | None = None,
        lender: Lender | None = None,
    ) -> Outflow:
        """Queue a large value; `refused` hears of it if the peer does not want it."""
        parts = [memoryview(part) for part in value.parts()]
        head = frames.stream_head(kind, body, value.size)
        flow = Outflow(-1, parts, fin=True, taken=taken, head=head, refused=refused, lent=value.lent or lender)
        self._queue.append(flow)
        self.link.conn.touch()
        return flow

    def abort(self, flow: Outflow) -> None:
        """Nobody wants to send this value any more, or hear of it."""
        over = flow.finished
        flow.drop()
        if over:
            return
        if flow.stream < 0:
            self._queue.remove(flow)
        elif self.flows.pop(flow.stream, None) is not None:
            self.link.conn.reset(flow.stream, Close.CANCELLED)
        flow.limit = -1

    def open_pipe(self, name: bytes, sink: Sink) -> None:
        """Open a stream for the user; the link is open."""
        link = self.link
        stream = link.conn.open_stream(uni=False)
        link.conn.send(stream, frames.stream_head(Frame.OPEN, name))
        sink.opened(Pipe(link, stream, sink))

    def flush(self) -> None:
        """The end of a turn: give QUIC what it should have."""
        conn, flows = self.link.conn, self.flows
        if self._queue:
            room = VALUES_MAX - sum(bool(flow.head) for flow in flows.values())
            while self._queue and room > 0:
                flow = self._queue.popleft()
                flow.stream = conn.open_stream(uni=True)
                flows[flow.stream] = flow
                conn.send(flow.stream, flow.head)
                room -= 1
        if self._tails:
            self._prune()
        if flows:
            backlog = sum(conn.backlog(stream) for table in (flows, self._tails) for stream in table)
            for flow in feed(conn, flows, SEND_AHEAD - backlog):
                self._tails[flow.stream] = flow
                pipe = self.pipes.get(flow.stream)
                if pipe is not None:
                    pipe.prune()
            if self._queue and len(flows) < VALUES_MAX:
                conn.touch()

    def _prune(self) -> None:
        backlog = self.link.conn.backlog
        for stream in [stream for stream in self._tails if not backlog(stream)]:
            flow = self._tails.pop(stream)
            if flow.refused is not None:
                self._unsettled[stream] = flow

    # -- the end -----------------------------------------------------------------------------

    def look_after(self, now: float) -> str | None:
        """Give up on values that have stopped coming; return what is wrong with the peer, if that is worse."""
        machine = self.link.machine
        limit = machine.config.stall_timeout
        self._prune()
        self._unsettled = {stream: flow for stream, flow in self._unsettled.items() if flow.refused is not None}
        for stream, value in list(self.values.items()):
            if not value.expected:
                continue
            stalled = now - value.last >= limit
            least = (now - value.since - limit) * _RATE_MIN
            if stalled or (value.granted and machine.budget.wanted and value.reader.received < least):
                machine.host.count("values.stalled")
                machine.host.warn("stalled", "a value of %s has stopped coming", self.link.name)
                self._drop(stream, Close.STALLED)
                self._value_broken(stream)
                if value.kind == Frame.REQUEST:
                    self.link.refuse(frames.parse_request(value.body)[0], Status.EXPIRED)
        if any(now - head.since >= limit for head in self._heads.values()):
            return "a stream that has not even begun"
        return None

    def clear(self) -> list[Sink]:
        """The connection is gone; return whose streams it takes with it."""
        values = list(self.values.values())
        self.values.clear()
        for flow in (*self.flows.values(), *self._queue, *self._tails.values(), *self._unsettled.values()):
            flow.drop()
        for value in sorted(values, key=lambda value: value.granted):  # those that wait first: they want no room
            self.link.machine.budget.drop(value)
        sinks = [pipe.end() for pipe in self.pipes.values()]
        tables = (self.flows, self.pipes, self._tails, self._unsettled, self._heads, self._dropped)
        for table in tables:
            table.clear()
        self.finishing.clear()
        self._queue.clear()
        return sinks


def busy_status(code: Close) -> Status:
    """Return what a caller is told about an answer that was not taken."""
    return Status.TOO_LARGE if code == Close.TOO_LARGE else Status.BUSY
