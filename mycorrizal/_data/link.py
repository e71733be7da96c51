"""One connection's protocol: prove (``handshake``), then frames on the lane, and streams (``bulk``).

States: ``opening`` (TLS), ``proving``, ``ready``, ``closed``. A client is ready
once it has sent its proof: its frames may follow at once. Both read frames
once they are ``live``. Streams of their own wait until the other side is known
to be live (``open``), since they may overtake the lane.

Owned by the machine's thread. Nothing a peer sends raises out of here: it is an
offence, which closes the connection and is counted by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._endings import Ending, error
from .._wire import frames
from .._wire.frames import FRAME_MAX, INLINE_MAX, Close, Frame, LaneReader, Limits, Status
from .._wire.text import printable
from .._wire.values import Encoded
from ..exceptions import ProofError, RemoteProtocolError
from .bulk import Bulk
from .calls import Call
from .channel import OutMessage
from .handshake import Handshake
from .ports import Connection, Received, Served, Sink, Ticket

if TYPE_CHECKING:
    from .machine import DataMachine
    from .peer import Peer

__all__ = ["Link"]

_EARLY_MAX = 32 << 10
"""Bytes of frames that a client sends before it is welcomed, if TLS alone proves the server; a server holds no more
of the unproven."""

_LANE_MAX = 16 << 20
"""Bytes on the lane that a peer has not acknowledged, from which on its requests are answered BUSY."""

_WASTE_RATE, _WASTE_MAX = 2000.0, 20000.0
"""Frames a second, and in one burst, that may achieve nothing: answers to cancelled calls, what came twice."""


class Flood(RemoteProtocolError):
    """Many frames, each of them allowed, and nothing achieved."""


class Link:
    """A connection and what is open on it."""

    def __init__(self, machine: DataMachine, conn: Connection, expected: str | None) -> None:
        self.machine = machine
        self.conn = conn
        self.expected = expected
        self.state = "opening"
        self.live = False  # frames are read
        self.welcomed = False  # it was live, if it is no longer
        self.open = False  # streams of their own may be opened
        self.peer: Peer | None = None
        self.name = expected or ""
        self.boot = b""
        self.key_id = ""
        self.remote: Limits | None = None
        self.retired = False  # another one is preferred
        self.surplus = False  # closed because there is another
        self.worked = False  # a call of ours was answered on it, a message accepted, a stream taken
        self.greeting: Ticket | None = None  # who dialled without knowing the name
        self.fate = ""  # why this side closes it, for the error of what was open
        self.used = self.ready_at = conn.created
        self.waiting_since: float | None = None  # since when something has been open
        self.pinged = 0.0
        self.calls: dict[int, Call] = {}
        self.served: dict[int, Served] = {}
        self.answering: list[None] = []  # one for each answer that a handler's thread is about to send
        self.shut = False  # about to be closed as idle: callers begin nothing on it
        self.bulk = Bulk(self)
        self.lane = -1
        self.accept_due = False
        self._handshake = Handshake(self)
        self._remote_lane = 3 if conn.dialled else 2
        self._reader = LaneReader()
        self._out: list[bytes] = []
        self._early = _EARLY_MAX if machine.trust.early and conn.way.early else 0
        self._numbers = itertools.count()  # of calls; two threads may have the same one where there is no GIL
        self._wasted, self._wasted_at = 0.0, 0.0

    def __repr__(self) -> str:
        way = "to" if self.conn.dialled else "from"
        return f"<Link {self.state} {way} {printable(self.name) or '?'} {self.conn.address}>"

    @property
    def ready(self) -> bool:
        """Whether both sides are proved, as far as this side has to wait for that."""
        return self.state == "ready"

    @property
    def busy(self) -> bool:
        """Whether something is open that an end of the connection would break."""
        return bool(self.calls or self.served or self.answering or self._out or self.bulk.busy)

    @property
    def unacknowledged(self) -> bool:
        """Whether something was given to QUIC that the peer may not have."""
        return self.lane >= 0 and (self.conn.backlog(self.lane) > 0 or self.bulk.unacknowledged)

    # -- the beginning ---------------------------------------------------------------------

    def connected(self, now: float) -> None:
        """TLS is done."""
        self.state = "proving"
        self.lane = self.conn.open_stream(uni=True)
        self._handshake.begin()

    def proved(self, peer: Peer, now: float) -> None:
        """This side has done what it must: frames may be sent."""
        self.state = "ready"
        self.peer = peer
        self.used = self.ready_at = now
        peer.link_ready(self, now)

    def welcome(self, accepted: int, now: float) -> None:
        """Both sides are proved; the peer has all our messages up to `accepted`."""
        self.welcomed = self.live = True
        self._reader.limit = FRAME_MAX
        self.conn.mark_proved()
        if self.conn.dialled:
            # The server opens no stream before it has heard this: it might arrive before the welcome.
            self.open = self.accept_due = True
            self.conn.touch()
        assert self.peer is not None
        self.peer.welcomed(self, accepted, now)
        greeting, self.greeting = self.greeting, None
        if greeting is not None:
            greeting.succeed(self.name)

    # -- what the connection brings -----------------------------------------------------------

    def stream_data(self, stream: int, data: bytes, fin: bool, now: float) -> None:
        """Bytes of a stream, in order."""
        if self.state == "closed":
            return
        if stream == self._remote_lane:
            self._heed(self._lane_data, data, fin, now)
        elif self.live:
            self._heed(self.bulk.data, stream, data, fin, now)
        else:
            self._heed(_unproven)

    def stream_filled(self, stream: int, size: int, fin: bool, now: float) -> None:
        """As ``stream_data``, for `size` bytes that are where ``bulk.room`` said."""
        if self.state != "closed":
            self._heed(self.bulk.filled, stream, size, fin, now)

    def _heed(self, take: Callable[..., None], *args: object) -> None:
        """Call ``take(*args)``; what it says is wrong with the peer ends the connection."""
        now = self.machine.now
        try:
            take(*args)
        except ProofError as exc:
            self.machine.host.count("quic.not_proved")
            self._offence("not_proved", exc, Close.NOT_PROVED, now)
        except Flood as exc:
            self._offence("flood", exc, Close.FLOOD, now)
        except RemoteProtocolError as exc:
            self._offence("protocol", exc, Close.PROTOCOL, now)
        except Exception as exc:  # a fault of ours must not end the other connections too
            self._offence("internal", exc, Close.PROTOCOL, now)

    def _lane_data(self, data: bytes, fin: bool, now: float) -> None:
        if fin:
            raise RemoteProtocolError("a lane that ends")
        for kind, body in self._reader.feed(data):
            if self.live:
                handler = _LIVE.get(kind)
                if handler is None:
                    raise RemoteProtocolError(f"frame kind {kind} has no place here")
                handler(self, body, now)
            elif self.state == "closed":
                return
            else:
                self._handshake.frame(kind, body, now)

    def stream_reset(self, stream: int, code: int, now: float) -> None:
        """The peer gave up sending on `stream`."""
        if stream == self._remote_lane:
            self._offence("protocol", RemoteProtocolError("a lane that was reset"), Close.PROTOCOL, now)
        else:
            self.bulk.reset(stream, code)

    def stream_stopped(self, stream: int, code: int, now: float) -> None:
        """The peer does not want what comes on `stream`."""
        if stream == self.lane:
            self._offence("protocol", RemoteProtocolError("a lane that was stopped"), Close.PROTOCOL, now)
        else:
            self.bulk.stopped(stream, code)

    def _offence(self, reason: str, exc: Exception, code: int, now: float) -> None:
        if self.state != "closed":
            self.machine.offence(self, reason, exc)
            self.close(code, str(exc), now)

    def wasted(self, now: float) -> None:
        """A frame achieved nothing.

        Raises:
            Flood: as did too many before it.
        """
        self._wasted = max(0.0, self._wasted - (now - self._wasted_at) * _WASTE_RATE) + 1.0
        self._wasted_at = now
        if self._wasted > _WASTE_MAX:
            raise Flood("too many frames that achieve nothing")

    # -- frames once live ---------------------------------------------------------------------

    def _on_message(self, body: bytes, now: float) -> None:
        sequence = frames.parse_sequence(body)
        self.deliver(sequence, Received(body[8:]), now)

    def deliver(self, sequence: int, value: Received, now: float) -> None:
        """A message is whole."""
        assert self.peer is not None
        self.used = now
        incoming = self.peer.incoming_for(self.boot)
        if not incoming.expects(sequence):
            self.accept_due = True  # it does not know that we have it
            self.wasted(now)
            return
        if incoming.put(sequence, (self.name, value), value.size):
            self.accept_due = True
        if incoming.blocked:
            self.machine.blocked(self.peer)

    def _on_accepted(self, body: bytes, now: float) -> None:
        assert self.peer is not None
        if not self.peer.accepted(frames.parse_sequence(body), self, now):
            self.wasted(now)
        if not self.open:
            self.open = True
            self.peer.opened(self, now)

    def _on_skip(self, body: bytes, now: float) -> None:
        assert self.peer is not None
        incoming = self.peer.incoming_for(self.boot)
        if incoming.skip(frames.parse_sequence(body)):
            self.accept_due = True
        else:
            self.wasted(now)
        if incoming.blocked:
            self.machine.blocked(self.peer)

    def _on_request(self, body: bytes, now: float) -> None:
        number, left, depth, name, at = frames.parse_request(body)
        self.serve(number, left, depth, name, Received(body[at:]), now)

    def serve(self, number: int, left: int, depth: int, name: str, value: Received, now: float) -> None:
        """A request is whole: give it to a handler, or say why not."""
        machine = self.machine
        self.used = now
        status = self.refusal(number, name, depth)
        if status is None:
            request = Served(self, number, name, self.name, now + left / 1000 if left else None, value, depth)
            self.served[number] = request
            if machine.host.serve(request):
                return
            del self.served[number]
            status = Status.BUSY
        self.refuse(number, status)

    def refusal(self, number: int, name: str, depth: int) -> Status | None:
        """Return why a request is not given to a handler.

        Raises:
            RemoteProtocolError: its id is in use.
        """
        machine = self.machine
        if number in self.served:
            raise RemoteProtocolError("a request id that is in use")
        if machine.closing:
            return Status.CLOSING
        if not machine.host.has_handler(name):
            return Status.NOT_YET if machine.host.settling else Status.UNKNOWN
        if not machine.host.has_thread(depth):
            return Status.TOO_DEEP
        # What was answered and not fetched counts too: it is as much to keep.
        open_now = len(self.served) + self.bulk.sending
        if open_now >= machine.limits.requests or self.conn.backlog(self.lane) > _LANE_MAX:
            return Status.BUSY
        return None

    def refuse(self, number: int, status: Status) -> None:
        """Answer a request that no handler gets.

        Raises:
            Flood: the peer takes no answers.
        """
        self.machine.host.count(f"requests.{status.name.lower()}")
        if self.conn.backlog(self.lane) > 2 * _LANE_MAX:
            raise Flood("requests, and nobody takes the answers")
        self.put(frames.frame(Frame.RESPONSE, frames.response_body(number, status)))

    def _on_response(self, body: bytes, now: float) -> None:
        number, status = frames.parse_response(body)
        if number in self.calls:
            self.answered(number, status, Received(body[5:]), now)
        else:  # nobody waits for it any more
            self.wasted(now)

    def answered(self, number: int, status: int, value: Received, now: float) -> None:
        """A response is whole."""
        self.used = now
        call = self._take_call(number)
        if call is not None:
            self.worked = True
            if call.times is not None and call.began is not None:
                call.times.observe(now - call.began)
            call.ticket.succeed((status, value))

    def broken_answer(self, number: int) -> None:
        """The answer to a call had begun, and will not come whole."""
        call = self._take_call(number)
        if call is not None:
            what = f"{self.name} gave up its answer on the way"
            call.ticket.fail(error(Ending.GAVE_UP, what, sent=True, node=self.name))

    def _take_call(self, number: int) -> Call | None:
        call = self.calls.pop(number, None)
        if call is None or call.done:
            return None
        if call.flow is not None:
            self.bulk.abort(call.flow)
        call.end()
        return call

    def _on_cancel(self, body: bytes, now: float) -> None:
        request = self.served.get(frames.parse_id(body))
        if request is None or request.cancelled:
            self.wasted(now)
        else:
            request.cancelled = True
            self.machine.host.count("requests.cancelled")

    def _on_grant(self, body: bytes, now: float) -> None:
        if not self.bulk.granted(*frames.parse_grant(body)):
            self.wasted(now)

    # -- sending -----------------------------------------------------------------------------

    def put(self, data: bytes) -> None:
        """Queue one frame for the lane; it leaves at the end of this turn."""
        if self.state != "closed":
            self._out.append(data)
            self.conn.touch()

    def send_message(self, message: OutMessage) -> None:
        """Send a numbered message, or say that its number is skipped."""
        body = frames.message_body(message.sequence)
        value = message.value
        message.carrier = self
        message.flow = None
        if value is None:
            self.put(frames.frame(Frame.SKIP, body))
        elif value.size <= INLINE_MAX:
            packed = value.pack()
            if not message.over:  # else its number is about to be skipped
                self.put(frames.frame(Frame.MESSAGE, body + packed))
        else:

            def refused(code: int) -> None:
                if self.peer is not None:
                    self.peer.message_refused(message, code, self)

            taken = getattr(message.ticket, "progress", None)
            message.flow = self.bulk.send(Frame.MESSAGE, body, value, refused, taken, message)

    def skip(self, message: OutMessage) -> None:
        """Nobody waits for a sent message any more."""
        if message.flow is not None:
            self.bulk.abort(message.flow)
            message.flow = None
        self.put(frames.frame(Frame.SKIP, frames.message_body(message.sequence)))

    def request(self, call: Call, now: float) -> None:
        """Send a request; its response ends the call. Nothing happens if its caller has given it up."""
        call.sent = True
        inline = call.value.size <= INLINE_MAX
        packed = call.value.pack() if inline else b""
        if call.over:
            return
        body = self._open(call, now)
        if inline:
            self.put(frames.frame(Frame.REQUEST, body + packed))
        else:
            taken = getattr(call.ticket, "progress", None)
            # A refusal is a response.
            call.flow = self.bulk.send(Frame.REQUEST, body, call.value, None, taken, call)
        self.used = now

    def _open(self, call: Call, now: float) -> bytes:
        """Note `call` as open, and return what its frame begins with. Any thread: one step of the dict notes it."""
        call.link = self
        number = call.number = next(self._numbers) % 0xFFFFFFFF + 1
        while self.calls.setdefault(number, call) is not call:
            number = call.number = next(self._numbers) % 0xFFFFFFFF + 1
        left = 0 if call.deadline is None else max(1, min(int((call.deadline - now) * 1000), 0xFFFFFFFF))
        return frames.request_body(number, left, call.depth) + call.name

    def free(self, size: int) -> bool:
        """Whether any thread may send a frame of a value of `size` bytes now: nothing waits before it. Any thread."""
        if self._out or not self.live or not self.conn.way.shared or size > INLINE_MAX:
            return False
        return self.remote is not None and size <= self.remote.value

    def shut_idle(self) -> bool:
        """Let no caller begin anything more; False, and all as before, if one has just begun.

        He notes his call and looks at ``shut``, this sets ``shut`` and looks for calls: one of the two sees the other.
        """
        self.shut = True
        if self.calls:
            self.shut = False
        return self.shut

    def request_now(self, call: Call, now: float) -> bool:
        """Send a request that is ``free`` to be sent; False if the connection has just gone. Any thread.

        A call that is noted is taken out once: by the answer, by the end of the connection, or here.
        """
        frame = frames.frame
        call.sent, call.began = True, now
        packed = call.value.pack()
        body = self._open(call, now)
        if (self.shut or self.state == "closed") and self.calls.pop(call.number, None) is not None:
            call.sent, call.link = False, None
            return False
        self.conn.put(self.lane, frame(Frame.REQUEST, body + packed))
        self.used = now
        return True

    def respond_now(self, request: Served, status: int, value: Encoded | None, now: float) -> bool:
        """Answer a request from any thread, if it is the only one and nothing waits before it; else False."""
        if len(self.served) > 1 or not self.free(0 if value is None else value.size):
            return False
        body = frames.response_body(request.number, status)
        if value is not None:
            body += value.pack()
        self.used = now
        self.answering.append(None)  # first: whoever looks sees the request, or that its answer is about to go
        try:
            if self.served.pop(request.number, None) is request and not request.cancelled:
                self.conn.put(self.lane, frames.frame(Frame.RESPONSE, body))
        finally:
            self.answering.pop()
        return True

    def _alone(self, stream: int, data: bytes, kind: Frame) -> bytes | None:
        """Return the body of the frame that `data` is, if it is of this kind and no other one has begun. Who reads."""
        if stream != self._remote_lane or not self.live or not self._reader.between:
            return None
        found = frames.only_frame(data)
        return found[1] if found is not None and found[0] == kind else None

    def answer_now(self, call: Call, stream: int, data: bytes, now: float) -> tuple[int, Received] | None:
        """Take what has come if it is just the answer to `call`, and return that. The thread that reads.

        What it is not, or cannot be read, is the loop's.
        """
        body = self._alone(stream, data, Frame.RESPONSE)
        try:
            if body is None or (found := frames.parse_response(body))[0] != call.number:
                return None
        except RemoteProtocolError:
            return None
        if self.calls.pop(call.number, None) is not call:
            return None
        call.end()
        self.used, self.worked = now, True
        return found[1], Received(body[5:])

    def serve_now(self, stream: int, data: bytes, now: float) -> Served | None:
        """Take what has come if it is just a request that a handler may have now, and return it. As ``answer_now``."""
        body = self._alone(stream, data, Frame.REQUEST)
        try:
            if body is None:
                return None
            number, left, depth, name, at = frames.parse_request(body)
            if self.refusal(number, name, depth) is not None:
                return None
        except RemoteProtocolError:
            return None
        self.used = now
        deadline = now + left / 1000 if left else None
        request = Served(self, number, name, self.name, deadline, Received(body[at:]), depth)
        self.served[number] = request
        return request

    def cancel(self, call: Call, now: float) -> None:
        """Nobody waits for `call` any more: free what it holds and tell the peer."""
        if self.calls.pop(call.number, None) is None:
            return
        if call.flow is not None:
            self.bulk.abort(call.flow)
        self.put(frames.frame(Frame.CANCEL, frames.id_body(call.number)))

    def respond(self, request: Served, status: int, value: Encoded | None, now: float) -> None:
        """Answer a request, unless its sender has cancelled it."""
        if self.served.get(request.number) is not request:
            return
        del self.served[request.number]
        self.used = now
        if request.cancelled:
            return
        if value is not None and self.remote is not None and value.size > self.remote.value:
            status, value = Status.TOO_LARGE, None
        body = frames.response_body(request.number, status)
        if value is None:
            self.put(frames.frame(Frame.RESPONSE, body))
        elif value.size <= INLINE_MAX:
            self.put(frames.frame(Frame.RESPONSE, body + value.pack()))
        else:
            self.bulk.send(Frame.RESPONSE, body, value, None)

    def flush(self, now: float) -> None:
        """The end of a turn: give QUIC what is queued."""
        if self.state != "ready":
            return
        if self.accept_due and self.live:
            self.accept_due = False
            assert self.peer is not None
            accepted = self.peer.incoming_for(self.boot).accepted
            self._out.append(frames.frame(Frame.ACCEPTED, frames.message_body(accepted)))
        if self._out:
            self._flush_lane()
        if self.open:
            self.bulk.flush()

    def _flush_lane(self) -> None:
        out = self._out
        if self.live:
            self.conn.send(self.lane, out[0] if len(out) == 1 else b"".join(out))
            out.clear()
            return
        sent = 0
        for data in out:
            if len(data) > self._early:
                break
            self._early -= len(data)
            self.conn.send(self.lane, data)
            sent += 1
        del out[:sent]

    # -- the end -----------------------------------------------------------------------------

    def look_after(self, now: float) -> None:
        """Give up on what has stopped coming."""
        head = self.bulk.look_after(now)
        if head:
            self._offence("stalled", RemoteProtocolError(head), Close.STALLED, now)

    def close(self, code: int, reason: str, now: float) -> None:
        """Close the connection; nothing is read or sent any more."""
        if self.state != "closed":
            reason = printable(reason)  # it may quote the peer, and is for the peer's log
            self.conn.close(code, reason, now)
            self.machine.closed(self.conn, code, reason, False, "local", now)

    def ended(self) -> tuple[list[Call], list[Sink]]:
        """The connection is gone: let go of everything and return what was open."""
        self.state = "closed"
        self.live = self.open = False
        calls = []
        while self.calls:  # one by one: a caller who has just noted his takes it back, or finds it taken
            calls.append(self.calls.popitem()[1])
        calls = [call for call in reversed(calls) if not call.done]
        while self.served:
            self.served.popitem()[1].cancelled = True
        self._out.clear()
        return calls, self.bulk.clear()


def _unproven() -> None:
    raise ProofError("a stream before the proof")


_LIVE: dict[int, Callable[[Link, bytes, float], None]] = {
    Frame.MESSAGE: Link._on_message,
    Frame.ACCEPTED: Link._on_accepted,
    Frame.SKIP: Link._on_skip,
    Frame.REQUEST: Link._on_request,
    Frame.RESPONSE: Link._on_response,
    Frame.CANCEL: Link._on_cancel,
    Frame.GRANT: Link._on_grant,
}
