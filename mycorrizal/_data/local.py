"""The node itself as a peer: what it sends itself never leaves the process."""

from __future__ import annotations

from .._wire.frames import Status
from .._wire.values import Encoded
from ..exceptions import MycorrizalError, PeerUnreachable
from .channel import OutMessage
from .peer import Opening, Peer
from .ports import Call, Received, Served

__all__ = ["LocalPeer"]


class LocalPeer(Peer):
    """Same inbox, same handlers, same limits; no connection."""

    def send(self, message: OutMessage, now: float) -> None:
        self.outgoing.waiting.append(message)
        self._pump(now)

    def _pump(self, now: float) -> None:
        incoming = self.incoming_for(self.machine.host.boot)
        for message in self.outgoing.pop_ready():
            value = message.value
            if value is None:
                incoming.skip(message.sequence)
            else:
                incoming.receive(message.sequence, (self.name, Received(value.pack())), value.size)
        self.outgoing.accepted(incoming.accepted)
        if incoming.blocked:
            self.machine.blocked(self)

    def room(self) -> None:
        self.incoming_for(self.machine.host.boot).drain()
        self._pump(self.machine.now)

    def withdraw(self, message: OutMessage, now: float) -> None:
        if not message.done:
            self.outgoing.withdraw(message)
            if message.sequence:
                self.incoming_for(self.machine.host.boot).skip(message.sequence)
            self._pump(now)

    def request(self, call: Call, now: float) -> None:
        name = call.name[1:].decode()
        request = Served(self, call.number, name, self.name, call.deadline, Received(call.value.pack()))
        request.call = call
        host = self.machine.host
        if not host.has_handler(name):
            call.ticket.succeed((Status.UNKNOWN, Received(b"")))
        elif not host.serve(request):
            call.ticket.succeed((Status.BUSY, Received(b"")))
        else:
            call.sent = True
            self.calls.append(call)

    def respond(self, request: Served, status: int, value: Encoded | None, now: float) -> None:
        """A handler has answered."""
        call = request.call
        if call is not None and not call.done:
            call.done = True
            call.ticket.succeed((status, Received(b"" if value is None else value.pack())))
        self.calls = type(self.calls)(other for other in self.calls if other is not call)

    def cancel(self, call: Call, now: float) -> None:
        call.done = True
        self.calls = type(self.calls)(other for other in self.calls if other is not call)

    def open(self, opening: Opening, now: float) -> None:
        error: MycorrizalError = PeerUnreachable(
            "a stream to oneself is not offered", node=self.name, hint="hand the object over", retriable=False
        )
        opening.ticket.fail(error)

    def dial(self, now: float) -> None:
        """There is nothing to dial."""

    @property
    def waiting(self) -> bool:
        return False
