"""One connection's protocol: prove, then frames on the lane and values on streams of their own.

States: ``opening`` (TLS), ``proving``, ``ready``, ``closed``. The server speaks
first: a challenge rides with its handshake. The client's proof is bound to this
TLS session, and its first frames follow right behind it, so the proof costs no
round trip; the server reads nothing of them before the proof has held.

Owned by the machine's thread. Nothing a peer sends raises out of here: it is an
offence, which closes the connection and is counted by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .._wire import frames
from .._wire.frames import (
    BULK_INITIAL,
    FRAME_MAX,
    INLINE_MAX,
    Challenge,
    Close,
    Frame,
    LaneReader,
    Limits,
    Proof,
    Status,
    StreamHead,
    Welcome,
)
from .._wire.values import Encoded
from ..exceptions import ProofError, RemoteProtocolError
from .channel import OutMessage
from .flows import InPipe, InValue, Outflow, feed
from .ports import Call, Connection, Received, Served, Sink, Ticket

if TYPE_CHECKING:
    from .machine import DataMachine
    from .peer import Peer

__all__ = ["Link"]

_EARLY_MAX = 32 << 10
"""Bytes of frames that a client sends before it is welcomed; a server holds no more of the unproven."""


class Link:
    """A connection and what is open on it."""

    def __init__(self, machine: DataMachine, conn: Connection, expected: str | None) -> None:
        self.machine = machine
        self.conn = conn
        self.expected = expected
        self.state = "opening"
        self.peer: Peer | None = None
        self.name = expected or ""
        self.boot = b""
        self.key_id = ""
        self.remote: Limits | None = None
        self.retired = False
        self.greeting: Ticket | None = None  # who dialled without knowing the name
        self.fate = ""  # why this side closes it, for the error of what was open
        self.used = conn.created
        self.pinged = 0.0
        self.calls: dict[int, Call] = {}
        self.served: dict[int, Served] = {}
        self.flows: dict[int, Outflow] = {}
        self.values: dict[int, InValue] = {}
        self.pipes: dict[int, InPipe] = {}
        self.sinks: dict[int, Sink] = {}
        self.accept_due = False
        self._message_flows: dict[int, Outflow] = {}
        self._heads: dict[int, StreamHead] = {}
        self._aborted: dict[int, Callable[[int], None]] = {}
        self._reader = LaneReader()
        self._out: list[bytes] = []
        self._early = _EARLY_MAX
        self._welcomed = False
        self._next_call = 1
        self._lane = -1
        self._remote_lane = 3 if conn.dialled else 2
        self._nonce = b""
        self._challenge: Challenge | None = None

    def __repr__(self) -> str:
        way = "to" if self.conn.dialled else "from"
        return f"<Link {self.state} {way} {self.name or '?'} {self.conn.address}>"

    @property
    def ready(self) -> bool:
        """Whether both sides are proved, as far as this side has to wait for that."""
        return self.state == "ready"

    @property
    def busy(self) -> bool:
        """Whether something is open that an end of the connection would break."""
        return bool(self.calls or self.served or self.flows or self.values or self.pipes or self.sinks or self._out)

    # -- proving ---------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        """TLS is done."""
        self.state = "proving"
        self._lane = self.conn.open_stream(uni=True)
        if not self.conn.dialled:
            host = self.machine.host
            self._nonce = host.nonce()
            challenge = Challenge(self._nonce, host.name, host.boot, self.machine.trust.offer(), self.machine.limits)
            self._challenge = challenge
            self.conn.send(self._lane, challenge.pack())

    def _challenged(self, body: bytes, now: float) -> None:
        challenge = Challenge.parse(body)
        host, trust = self.machine.host, self.machine.trust
        if self.expected is not None and challenge.name != self.expected:
            self.close(Close.WRONG_NAME, f"this is {challenge.name}, not {self.expected}", now)
            return
        self.name, self.boot, self.remote = challenge.name, challenge.boot, challenge.limits
        self._nonce = host.nonce()
        binding = host.binding(self._channel(), challenge.nonce, self._nonce, host.name, challenge.name)
        proof, self.key_id = trust.prove(binding, challenge.offer)
        peer = self.machine.peer(challenge.name)
        accepted = peer.incoming_for(challenge.boot).accepted
        self._challenge = challenge
        packed = Proof(self._nonce, host.name, host.boot, proof, self.machine.limits, accepted).pack()
        self.conn.send(self._lane, packed)
        self._proved(peer, now)

    def _proof(self, body: bytes, now: float) -> None:
        proof = Proof.parse(body)
        host, trust, challenge = self.machine.host, self.machine.trust, self._challenge
        if challenge is None:
            raise ProofError("a second proof on one connection")
        self._challenge = None  # its nonce counts once
        binding = host.binding(self._channel(), challenge.nonce, proof.nonce, proof.name, host.name)
        self.key_id = trust.verify(binding, proof.proof)
        refusal = self.machine.claim(self, proof.name, proof.boot, now)
        if refusal is not None:
            self.close(*refusal, now)
            return
        self.name, self.boot, self.remote = proof.name, proof.boot, proof.limits
        peer = self.machine.peer(proof.name)
        answer = trust.answer(binding, self.key_id)
        self.conn.mark_proved()
        self._welcomed = True
        self.conn.send(self._lane, Welcome(answer, peer.incoming_for(proof.boot).accepted).pack())
        self._proved(peer, now, proof.accepted)

    def _welcome(self, body: bytes, now: float) -> None:
        welcome = Welcome.parse(body)
        challenge, host = self._challenge, self.machine.host
        if challenge is None or self._welcomed:
            raise ProofError("a second welcome on one connection")
        binding = host.binding(self._channel(), challenge.nonce, self._nonce, host.name, self.name)
        self.machine.trust.check_answer(binding, self.key_id, welcome.answer)
        self._challenge = None
        self._welcomed = True
        self.conn.mark_proved()
        if self.peer is not None:
            self.peer.welcomed(self, welcome.accepted, now)

    def _proved(self, peer: Peer, now: float, accepted: int = 0) -> None:
        self.state = "ready"
        self._reader.limit = FRAME_MAX
        self.peer = peer
        self.used = now
        peer.link_ready(self, accepted, now)
        if self.greeting is not None:
            self.greeting.succeed(self.name)
            self.greeting = None

    def _channel(self) -> bytes:
        channel = self.conn.channel
        if channel is None:
            raise ProofError("this connection has no channel binding")
        return channel

    # -- what the connection brings -----------------------------------------------------------

    def stream_data(self, stream: int, data: bytes, fin: bool, now: float) -> None:
        """Bytes of a stream, in order."""
        if self.state == "closed":
            return
        try:
            if stream == self._remote_lane:
                self._lane_data(data, fin, now)
            elif stream in self.values:
                self._value_data(stream, data, fin, now)
            elif stream in self.pipes:
                self.pipes[stream].feed(data, fin)
                if fin:
                    self._pipe_ended(stream)
            elif self.state != "ready" or not self._welcomed:
                raise ProofError("a stream before the proof")
            else:
                self._head_data(stream, data, fin, now)
        except ProofError as error:
            self.machine.host.count("quic.not_proved")
            self._offence("not_proved", error, Close.NOT_PROVED, now)
        except RemoteProtocolError as error:
            self._offence("protocol", error, Close.PROTOCOL, now)

    def _lane_data(self, data: bytes, fin: bool, now: float) -> None:
        if fin:
            raise RemoteProtocolError("a lane that ends")
        for kind, body in self._reader.feed(data):
            if self.state == "ready":
                handler = _READY.get(kind)
                if handler is None:
                    if kind == Frame.WELCOME and self.conn.dialled:
                        self._welcome(body, now)
                        continue
                    raise RemoteProtocolError(f"frame kind {kind} has no place here")
                handler(self, body, now)
            elif self.state == "closed":
                return
            elif kind == Frame.CHALLENGE and self.conn.dialled:
                self._challenged(body, now)
            elif kind == Frame.PROOF and not self.conn.dialled:
                self._proof(body, now)
            else:
                raise ProofError(f"frame kind {kind} before the proof")

    def _offence(self, reason: str, error: Exception, code: int, now: float) -> None:
        self.machine.offence(self, reason, error)
        self.close(code, str(error)[:200], now)

    # -- frames once ready --------------------------------------------------------------------

    def _on_message(self, body: bytes, now: float) -> None:
        sequence = frames.parse_sequence(body)
        self.deliver(sequence, Received(body[8:]), now)

    def deliver(self, sequence: int, value: Received, now: float) -> None:
        """A message is whole."""
        assert self.peer is not None
        self.used = now
        incoming = self.peer.incoming_for(self.boot)
        if incoming.receive(sequence, (self.name, value), value.size):
            self.accept_due = True
        elif incoming.blocked:
            self.machine.blocked(self.peer)

    def _on_accepted(self, body: bytes, now: float) -> None:
        if self.peer is not None:
            self.peer.accepted(frames.parse_sequence(body), self, now)

    def _on_skip(self, body: bytes, now: float) -> None:
        assert self.peer is not None
        if self.peer.incoming_for(self.boot).skip(frames.parse_sequence(body)):
            self.accept_due = True

    def _on_request(self, body: bytes, now: float) -> None:
        number, left, name, at = frames.parse_request(body)
        self.serve(number, left, name, Received(body[at:]), now)

    def serve(self, number: int, left: int, name: str, value: Received, now: float) -> None:
        """A request is whole: give it to a handler, or say why not."""
        machine = self.machine
        self.used = now
        if number in self.served or len(self.served) >= machine.limits.requests:
            raise RemoteProtocolError("a request id that is in use, or too many requests at once")
        if machine.closing:
            status = Status.CLOSING
        elif not machine.host.has_handler(name):
            status = Status.UNKNOWN
        else:
            request = Served(self, number, name, self.name, now + left / 1000 if left else None, value)
            self.served[number] = request
            if machine.host.serve(request):
                return
            del self.served[number]
            status = Status.BUSY
        machine.host.count(f"requests.{status.name.lower()}")
        self.put(frames.frame(Frame.RESPONSE, frames.response_body(number, status)))

    def _on_response(self, body: bytes, now: float) -> None:
        number, status = frames.parse_response(body)
        self.answered(number, status, Received(body[5:]), now)

    def answered(self, number: int, status: int, value: Received, now: float) -> None:
        """A response is whole; one that nobody waits for any more is no fault."""
        self.used = now
        call = self.calls.pop(number, None)
        if call is not None and not call.done:
            call.done = True
            call.ticket.succeed((status, value))

    def _on_cancel(self, body: bytes, now: float) -> None:
        request = self.served.get(frames.parse_id(body))
        if request is not None:
            request.cancelled = True
            self.machine.host.count("requests.cancelled")

    def _on_grant(self, body: bytes, now: float) -> None:
        stream, limit = frames.parse_grant(body)
        flow = self.flows.get(stream)
        if flow is not None and limit > flow.limit >= 0:
            flow.limit = limit

    # -- streams of their own ------------------------------------------------------------------

    def _head_data(self, stream: int, data: bytes, fin: bool, now: float) -> None:
        head = self._heads.get(stream)
        if head is None:
            if len(self._heads) + len(self.values) + len(self.pipes) >= 256:
                raise RemoteProtocolError("too many streams")
            head = self._heads[stream] = StreamHead()
        parsed = head.feed(data)
        if parsed is None:
            if fin:
                raise RemoteProtocolError("a stream that ends in its head")
            return
        del self._heads[stream]
        kind, body, rest = parsed
        if kind == Frame.OPEN:
            self._opened(stream, body, rest, fin)
        elif kind in (Frame.MESSAGE, Frame.REQUEST, Frame.RESPONSE) and len(body) > 8:
            self._value_begins(stream, kind, body, now)
            if stream in self.values:
                self._value_data(stream, rest, fin, now)
        else:
            raise RemoteProtocolError(f"a stream of kind {kind}")

    def _value_begins(self, stream: int, kind: int, body: bytes, now: float) -> None:
        size = int.from_bytes(body[-8:], "big")
        limits = self.machine.limits
        if size > limits.value:
            self.machine.host.count("values.too_large")
            self.conn.stop(stream, Close.TOO_LARGE)
            if kind == Frame.REQUEST:
                number = frames.parse_request(body[:-8])[0]
                self.put(frames.frame(Frame.RESPONSE, frames.response_body(number, Status.TOO_LARGE)))
            return
        value = self.values[stream] = InValue(kind, body[:-8], size, now)

        def grant() -> bool:
            if self.values.get(stream) is not value:
                return False
            value.granted = True
            if size > BULK_INITIAL:
                value.limit = size
                value.last = self.machine.now
                self.put(frames.frame(Frame.GRANT, frames.grant_body(stream, 1 << 62)))
            return True

        self.machine.budget.ask(size, grant)

    def _value_data(self, stream: int, data: bytes, fin: bool, now: float) -> None:
        value = self.values[stream]
        received = value.feed(data, fin, now)
        if received is None:
            return
        self._value_gone(stream)
        if value.kind == Frame.MESSAGE:
            self.deliver(frames.parse_sequence(value.body), received, now)
        elif value.kind == Frame.REQUEST:
            number, left, name, _ = frames.parse_request(value.body)
            self.serve(number, left, name, received, now)
        else:
            number, status = frames.parse_response(value.body)
            self.answered(number, status, received, now)

    def _value_gone(self, stream: int) -> None:
        value = self.values.pop(stream)
        if value.granted:
            self.machine.budget.free(value.size)

    def _opened(self, stream: int, body: bytes, rest: bytes, fin: bool) -> None:
        name = body[1:].decode("utf-8", "replace")
        sink = None if self.machine.closing else self.machine.host.accept_stream(name, self.name)
        if sink is None:
            self.machine.host.count("streams.refused")
            self.conn.stop(stream, Close.UNKNOWN)
            self.conn.reset(stream, Close.UNKNOWN)
            return
        pipe = self._pipe(stream, sink)
        sink.opened((self, stream))
        pipe.feed(rest, fin)
        if fin:
            self._pipe_ended(stream)

    def _pipe(self, stream: int, sink: Sink) -> InPipe:
        pipe = self.pipes[stream] = InPipe(sink)
        self.sinks[stream] = sink
        self.flows[stream] = Outflow(stream, [], fin=False, taken=sink.taken)
        return pipe

    def _pipe_ended(self, stream: int) -> None:
        del self.pipes[stream]
        if stream not in self.flows:
            self.sinks.pop(stream, None)

    def stream_reset(self, stream: int, code: int, now: float) -> None:
        """The peer gave up sending on `stream`."""
        self._heads.pop(stream, None)
        if stream == self._remote_lane:
            self._offence("protocol", RemoteProtocolError("a lane that was reset"), Close.PROTOCOL, now)
        elif stream in self.values:
            self._value_gone(stream)
        elif stream in self.pipes:
            sink = self.pipes.pop(stream).sink
            self.flows.pop(stream, None)
            self.sinks.pop(stream, None)
            sink.broken(self.machine.stream_error(self, code))

    def stream_stopped(self, stream: int, code: int, now: float) -> None:
        """The peer does not want what comes on `stream`."""
        if stream == self._lane:
            self._offence("protocol", RemoteProtocolError("a lane that was stopped"), Close.PROTOCOL, now)
            return
        flow = self.flows.pop(stream, None)
        if flow is None:
            return
        self.conn.reset(stream, code)
        sink = self.sinks.pop(stream, None)
        aborted = self._aborted.pop(stream, None)
        if sink is not None:
            self.pipes.pop(stream, None)
            sink.broken(self.machine.stream_error(self, code))
        elif aborted is not None:
            aborted(code)

    # -- sending -----------------------------------------------------------------------------

    def put(self, data: bytes) -> None:
        """Queue one frame for the lane; it leaves at the end of this turn."""
        self._out.append(data)
        self.conn.touch()

    def send_message(self, message: OutMessage) -> None:
        """Send a numbered message, or say that its number is skipped."""
        body = frames.message_body(message.sequence)
        value = message.value
        message.carrier = self
        if value is None:
            self.put(frames.frame(Frame.SKIP, body))
        elif value.size <= INLINE_MAX:
            self.put(frames.frame(Frame.MESSAGE, body + value.pack()))
        else:

            def refused(code: int) -> None:
                if self.peer is not None:
                    self.peer.message_refused(message, code, self)

            taken = getattr(message.ticket, "progress", None)
            flow = self._value_flow(Frame.MESSAGE, body, value, refused, taken)
            self._message_flows[message.sequence] = flow

    def withdraw(self, message: OutMessage) -> None:
        """Nobody waits for a sent message any more."""
        flow = self._message_flows.pop(message.sequence, None)
        if flow is not None and not flow.finished:
            self._abort(flow)
        self.put(frames.frame(Frame.SKIP, frames.message_body(message.sequence)))

    def forget_flow(self, sequence: int) -> None:
        """A message was accepted."""
        self._message_flows.pop(sequence, None)

    def request(self, call: Call, now: float) -> None:
        """Send a request; its response ends the call."""
        number = self._next_call
        self._next_call = number % 0xFFFFFFFF + 1
        call.number, call.link, call.sent = number, self, True
        self.calls[number] = call
        left = 0 if call.deadline is None else max(1, min(int((call.deadline - now) * 1000), 0xFFFFFFFF))
        body = frames.request_body(number, left) + call.name
        if call.value.size <= INLINE_MAX:
            self.put(frames.frame(Frame.REQUEST, body + call.value.pack()))
        else:
            taken = getattr(call.ticket, "progress", None)
            call.flow = self._value_flow(Frame.REQUEST, body, call.value, lambda code: None, taken)
        self.used = now

    def cancel(self, call: Call, now: float) -> None:
        """Nobody waits for `call` any more: free what it holds and tell the peer."""
        if self.calls.pop(call.number, None) is None or self.state == "closed":
            return
        flow = call.flow
        if isinstance(flow, Outflow) and not flow.finished:
            self._abort(flow)
        self.put(frames.frame(Frame.CANCEL, frames.id_body(call.number)))

    def respond(self, request: Served, status: int, value: Encoded | None, now: float) -> None:
        """Answer a request, unless its sender has cancelled it."""
        if self.served.pop(request.number, None) is None or self.state == "closed":
            return
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
            self._value_flow(Frame.RESPONSE, body, value, lambda code: None)

    def open_pipe(self, name: bytes, sink: Sink) -> int:
        """Open a stream for the user; return its id."""
        stream = self.conn.open_stream(uni=False)
        self._pipe(stream, sink)
        self.conn.send(stream, frames.stream_head(Frame.OPEN, name))
        return stream

    def grant_pipe(self, stream: int, consumed: int) -> None:
        """The reader of an open stream has read."""
        pipe = self.pipes.get(stream)
        limit = pipe.consumed(consumed) if pipe is not None else None
        if limit is not None:
            self.put(frames.frame(Frame.GRANT, frames.grant_body(stream, limit)))

    def write_pipe(self, stream: int, data: memoryview, fin: bool) -> None:
        """Queue bytes of the user's, or the end."""
        flow = self.flows.get(stream)
        if flow is not None:
            flow.append(data)
            flow.fin = flow.fin or fin
            self.conn.touch()

    def abort_pipe(self, stream: int) -> None:
        """The user gave the stream up in both directions."""
        if self.flows.pop(stream, None) is not None:
            self.conn.reset(stream, Close.CANCELLED)
        if self.pipes.pop(stream, None) is not None:
            self.conn.stop(stream, Close.CANCELLED)
        self.sinks.pop(stream, None)

    def _value_flow(
        self,
        kind: int,
        body: bytes,
        value: Encoded,
        refused: Callable[[int], None],
        taken: Callable[[int], None] | None = None,
    ) -> Outflow:
        stream = self.conn.open_stream(uni=True)
        self.conn.send(stream, frames.stream_head(kind, body, value.size))
        flow = Outflow(stream, [memoryview(part) for part in value.parts()], fin=True, taken=taken)
        self.flows[stream] = flow
        self._aborted[stream] = refused
        return flow

    def _abort(self, flow: Outflow) -> None:
        self.flows.pop(flow.stream, None)
        self._aborted.pop(flow.stream, None)
        self.conn.reset(flow.stream, Close.CANCELLED)

    def flush(self, now: float) -> None:
        """The end of a turn: give QUIC what is queued."""
        if self.state != "ready":
            return
        if self.accept_due and self.peer is not None:
            self.accept_due = False
            accepted = self.peer.incoming_for(self.boot).accepted
            self._out.append(frames.frame(Frame.ACCEPTED, frames.message_body(accepted)))
        if self._out:
            self._flush_lane()
        if self.flows and self._welcomed:
            feed(self.conn, self.flows)
            for stream in [stream for stream in self._aborted if stream not in self.flows]:
                del self._aborted[stream]

    def _flush_lane(self) -> None:
        out = self._out
        if self._welcomed:
            self.conn.send(self._lane, out[0] if len(out) == 1 else b"".join(out))
            out.clear()
            return
        sent = 0
        for data in out:
            if len(data) > self._early:
                break
            self._early -= len(data)
            self.conn.send(self._lane, data)
            sent += 1
        del out[:sent]

    def close(self, code: int, reason: str, now: float) -> None:
        """Close the connection; the machine hears of it as of any other end."""
        if self.state != "closed":
            self.conn.close(code, reason, now)

    def drop_stalled(self, now: float) -> None:
        """Give up on values that have stopped coming; their sender has broken its word."""
        limit = now - self.machine.config.stall_timeout
        for stream in [stream for stream, value in self.values.items() if value.granted and value.last < limit]:
            self.machine.offence(self, "stalled", TimeoutError("a value that stopped coming"))
            self.conn.stop(stream, Close.STALLED)
            self._value_gone(stream)

    def ended(self) -> tuple[list[Call], list[Sink]]:
        """The connection is gone: let go of everything and return what was open."""
        self.state = "closed"
        for stream in list(self.values):
            self._value_gone(stream)
        calls, sinks = [call for call in self.calls.values() if not call.done], list(self.sinks.values())
        for request in self.served.values():
            request.cancelled = True
        for table in (self.calls, self.served, self.flows, self.pipes, self.sinks, self._heads, self._aborted):
            table.clear()
        self._message_flows.clear()
        self._out.clear()
        return calls, sinks


_READY: dict[int, Callable[[Link, bytes, float], None]] = {
    Frame.MESSAGE: Link._on_message,
    Frame.ACCEPTED: Link._on_accepted,
    Frame.SKIP: Link._on_skip,
    Frame.REQUEST: Link._on_request,
    Frame.RESPONSE: Link._on_response,
    Frame.CANCEL: Link._on_cancel,
    Frame.GRANT: Link._on_grant,
}
