"""The node itself as a peer: what it sends itself never leaves the process."""

from __future__ import annotations

from .._endings import Ending, error, for_call
from .._wire.frames import Status
from .._wire.values import Encoded
from ..exceptions import MycorrizalError, PeerUnreachable
from .calls import Call
from .channel import OutMessage
from .peer import NEVER, TICK_BUSY, Opening, Peer
from .ports import Received, Served

__all__ = ["LocalPeer"]


class OwnRequest(Served):
    """A request to oneself, which knows the call that it came from."""

    __slots__ = ("call",)

    call: Call


class LocalPeer(Peer):
    """Same inbox, same handlers, same limits; no connection."""

    @property
    def _open(self) -> dict[Call, Served]:
        return self.machine.local_calls

    @property
    def waiting(self) -> bool:
        return False

    @property
    def pending(self) -> int:
        return len(self._open) + len(self.outgoing)

    def _pump(self, now: float) -> None:
        incoming = self.incoming_for(self.machine.host.boot)
        more = True
        while more:
            for message in self.outgoing.pop_ready():
                value = message.value
                assert value is not None
                packed = value.pack()
                if not message.over:  # else its number is about to be skipped
                    incoming.put(message.sequence, (self.name, Received(packed)), value.size)
            more = self.outgoing.accepted(incoming.accepted)
        if incoming.blocked:
            self.machine.blocked(self)

    def let_in(self) -> bool:
        if not self.incoming_for(self.machine.host.boot).drain(1) and self.blocked:
            return False
        self._pump(self.machine.now)
        return True

    def _skip(self, message: OutMessage) -> None:
        self.incoming_for(self.machine.host.boot).skip(message.sequence)

    def withdraw(self, message: OutMessage, now: float) -> None:
        super().withdraw(message, now)
        self._pump(now)

    def request(self, call: Call, now: float) -> None:
        name = call.name[1:].decode()
        call.sent = True
        request = OwnRequest(self, call.number, name, self.name, call.deadline, Received(call.value.pack()), call.depth)
        if call.over:
            return
        request.call = call
        host = self.machine.host
        if self.machine.closing:
            self._answer(call, Status.CLOSING, None)
        elif not host.has_handler(name):
            self._answer(call, Status.UNKNOWN, None)
        elif not host.has_thread(call.depth):
            self._answer(call, Status.TOO_DEEP, None)
        elif not host.serve(request):
            self._answer(call, Status.BUSY, None)
        else:
            self._open[call] = request
            self.machine.arm()

    def respond(self, request: Served, status: int, value: Encoded | None, now: float) -> None:
        """A handler has answered."""
        call = request.call if isinstance(request, OwnRequest) else None
        if call is not None and self._open.pop(call, None) is not None:
            self._answer(call, status, value)

    def _answer(self, call: Call, status: int, value: Encoded | None) -> None:
        if not call.done:
            call.end()
            call.ticket.succeed((status, Received(b"" if value is None else value.pack())))

    def cancel(self, call: Call, now: float) -> None:
        call.end()
        request = self._open.pop(call, None)
        if request is not None:
            request.cancelled = True

    def open(self, opening: Opening, now: float) -> None:
        text = "a stream to oneself is not offered"
        opening.done = True
        opening.ticket.fail(PeerUnreachable(text, node=self.name, hint="hand the object over", retriable=False))

    def fail_waiting(self, why: MycorrizalError) -> None:
        for call in list(self._open):
            self.cancel(call, self.machine.now)
            call.ticket.fail(for_call(why, True, node=self.name))
        for message in self.outgoing.take_all():  # the inbox surely has not got it
            message.ticket.fail(for_call(why, False, node=self.name))
        super().fail_waiting(why)

    def dial(self, now: float) -> None:
        """There is nothing to dial."""

    def tick(self, now: float) -> float:
        self.outgoing.purge()
        for call in [call for call in self._open if call.deadline is not None and now >= call.deadline]:
            self.cancel(call, now)
            call.ticket.fail(error(Ending.TIMEOUT, "no answer in time", sent=True, node=self.name))
        return TICK_BUSY if self._open else NEVER
