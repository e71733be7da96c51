"""One peer: what waits for it, its connections, and when to dial.

A connection is dialled when there is something to send, and shared by both
directions. When both sides dial at once both connections work; both sides
prefer the one that the smaller name dialled, and the other is closed once
nothing is open on it. A connection that ends takes with it only what the peer
may have begun: messages are sent again and counted once, requests that the
peer has said it did not read are sent again too.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .._wire.frames import Close
from ..exceptions import MycorrizalError, OperationTimeout, PeerUnreachable, ValueTooLarge
from ..types import PeerInfo
from .channel import Incoming, Outgoing, OutMessage
from .link import Link
from .ports import Call, Sink, Ticket

if TYPE_CHECKING:
    from .machine import DataMachine

__all__ = ["Opening", "Peer"]

NOT_READ = frozenset(
    (Close.IDLE, Close.TRY_AGAIN, Close.NAME_TAKEN, Close.NOT_PROVED, Close.WRONG_NAME, Close.FULL)
)
"""Reasons to close with which the peer says that it has begun nothing of what was under way."""

_AGAIN = frozenset((Close.IDLE, Close.TRY_AGAIN))


class Opening:
    """A stream that the user wants; waits for a connection."""

    __slots__ = ("done", "name", "sink", "ticket")

    def __init__(self, name: bytes, sink: Sink, ticket: Ticket) -> None:
        self.name = name
        self.sink = sink
        self.ticket = ticket
        self.done = False


class Peer:
    """A node that we send to or that sends to us. Owned by the machine's thread."""

    def __init__(self, machine: DataMachine, name: str) -> None:
        self.machine = machine
        self.name = name
        self.links: list[Link] = []
        self.link: Link | None = None
        self.dialling: Link | None = None
        self.calls: deque[Call] = deque()
        self.openings: deque[Opening] = deque()
        self.outgoing = Outgoing(machine.limits.messages, machine.limits.bytes)
        self.boot = b""
        self.failures = 0
        self.next_dial = 0.0
        self.again_since: float | None = None
        self.challenged: float | None = None
        self._incoming: Incoming | None = None
        self._incoming_boot = b""

    @property
    def waiting(self) -> bool:
        """Whether something waits for a connection."""
        return bool(self.calls or self.openings or self.outgoing)

    def incoming_for(self, boot: bytes) -> Incoming:
        """Return the receiving half for the peer's process `boot`; a new process counts from 1 again."""
        if self._incoming is None or self._incoming_boot != boot:
            limits = self.machine.limits
            self._incoming = Incoming(limits.messages, limits.bytes, self.machine.host.offer)
            self._incoming_boot = boot
        return self._incoming

    def room(self) -> None:
        """The inbox has room again."""
        if self._incoming is not None and self._incoming.drain() and self.link is not None:
            self.link.accept_due = True
            self.link.conn.touch()

    @property
    def blocked(self) -> bool:
        """Whether messages of this peer wait for room in the inbox."""
        return self._incoming is not None and self._incoming.blocked

    # -- work of ours ------------------------------------------------------------------------

    def send(self, message: OutMessage, now: float) -> None:
        """Queue a message."""
        self.outgoing.waiting.append(message)
        self._pump(now)

    def request(self, call: Call, now: float) -> None:
        """Send a request now, or once there is a connection."""
        if self.link is None:
            self.calls.append(call)
            self.dial(now)
        elif self._fits(call.ticket, call.value.size, self.link):
            self.link.request(call, now)

    def open(self, opening: Opening, now: float) -> None:
        """Open a stream now, or once there is a connection."""
        if self.link is None:
            self.openings.append(opening)
            self.dial(now)
        else:
            stream = self.link.open_pipe(opening.name, opening.sink)
            opening.ticket.succeed((self.link, stream))

    def withdraw(self, message: OutMessage, now: float) -> None:
        """Nobody waits for `message` any more."""
        if not message.done:
            self.outgoing.withdraw(message)
            if message.sequence and self.link is not None:
                self.link.withdraw(message)
            self._pump(now)

    def cancel(self, call: Call, now: float) -> None:
        """Nobody waits for `call` any more."""
        call.done = True
        if isinstance(call.link, Link):
            call.link.cancel(call, now)
        else:
            self.calls = deque(other for other in self.calls if other is not call)

    def _fits(self, ticket: Ticket, size: int, link: Link) -> bool:
        if link.remote is None or size <= link.remote.value:
            return True
        ticket.fail(
            ValueTooLarge(
                f"{size} bytes, and {self.name} accepts {link.remote.value}",
                node=self.name,
                hint="raise max_value there, or send a file or a stream",
            )
        )
        return False

    def _pump(self, now: float) -> None:
        link = self.link
        if link is None:
            if self.outgoing:
                self.dial(now)
            return
        for message in self.outgoing.pop_ready():
            if self._fits(message.ticket, message.size, link):
                link.used = now
            else:
                self.outgoing.withdraw(message)
            link.send_message(message)

    def accepted(self, sequence: int, link: Link, now: float) -> None:
        """The peer's inbox has all messages up to `sequence`."""
        self.outgoing.accepted(sequence)
        link.used = now
        self._pump(now)

    def message_refused(self, message: OutMessage, code: int, link: Link) -> None:
        """The peer does not want a message that was on its way."""
        if not message.done:
            self.outgoing.withdraw(message)
            link.withdraw(message)
            message.ticket.fail(ValueTooLarge(f"{self.name} refused the message ({_code(code)})", node=self.name))

    # -- dialling ----------------------------------------------------------------------------

    def dial(self, now: float) -> None:
        """Dial if nothing is under way and the time has come."""
        machine = self.machine
        machine.arm()
        if self.dialling is not None or self.link is not None or now < self.next_dial or machine.ended:
            return
        address = machine.host.resolve(self.name)
        if address is None:
            self.fail_waiting(
                PeerUnreachable(
                    f"no address is known for {self.name!r}",
                    node=self.name,
                    hint="give peers={name: (host, port)} or add_peer(), or wait until it has joined",
                )
            )
            return
        self.dialling = machine.add(machine.host.dial(address, self.name, now), self.name)

    def dial_failed(self, error: MycorrizalError, again: bool, now: float) -> None:
        """An attempt has ended without a connection; what waits fails, unless the peer asked us to come again."""
        self.dialling = None
        config = self.machine.config
        delay = min(config.redial_max, config.redial_first * 2.0**self.failures)
        self.failures = min(self.failures + 1, 32)
        self.next_dial = now + delay * (0.5 + self.machine.host.jitter() / 2)
        if again:
            self.again_since = now if self.again_since is None else self.again_since
            if now - self.again_since < config.connect_timeout:
                self.machine.arm()
                return
        self.again_since = None
        if self.link is None:
            self.fail_waiting(error)

    def fail_waiting(self, error: MycorrizalError) -> None:
        """Everything that waits for a connection ends with `error`."""
        calls, self.calls = self.calls, deque()
        openings, self.openings = self.openings, deque()
        waiting: list[Call | Opening] = [*calls, *openings]
        for item in waiting:
            if not item.done:
                item.done = True
                item.ticket.fail(error)
        for message in self.outgoing.take_all():
            message.done = True
            message.ticket.fail(_with_doubt(error) if message.sequence else error)

    # -- connections -------------------------------------------------------------------------

    def link_ready(self, link: Link, accepted: int, now: float) -> None:
        """A connection is proved; the server knows by now which messages the peer has."""
        if self.dialling is link:
            self.dialling = None
        self.failures, self.next_dial, self.again_since = 0, 0.0, None
        if self.boot and link.boot != self.boot:
            self._restarted(now)
        self.boot = link.boot
        assert link.remote is not None
        self.outgoing.window_messages = link.remote.messages
        self.outgoing.window_bytes = link.remote.bytes
        self.links.append(link)
        self._choose(now)
        if not link.conn.dialled:
            self._resend(link, accepted)
        self._start(now)

    def welcomed(self, link: Link, accepted: int, now: float) -> None:
        """The server has told which messages it has: send the others again."""
        self._resend(link, accepted)
        self._pump(now)
        link.conn.touch()

    def _resend(self, link: Link, accepted: int) -> None:
        for message in self.outgoing.resend(accepted):
            if message.carrier is not link and (message.carrier is None or message.carrier not in self.links):
                message.carrier = link
                link.send_message(message)

    def _start(self, now: float) -> None:
        link = self.link
        if link is None:
            return
        calls, self.calls = self.calls, deque()
        for call in calls:
            if not call.done:
                self.request(call, now)
        openings, self.openings = self.openings, deque()
        for opening in openings:
            if not opening.done:
                self.open(opening, now)
        self._pump(now)

    def _restarted(self, now: float) -> None:
        """Another process answers under this name: the old one's connections and messages are gone."""
        error = PeerUnreachable(f"{self.name} was restarted", node=self.name, indeterminate=True)
        for message in self.outgoing.restart():
            message.done = True
            message.ticket.fail(error)
        for link in list(self.links):
            link.close(Close.DECLARED_DEAD, "another process has this name now", now)
            self.link_ended(link, "replaced", Close.DECLARED_DEAD, "it was restarted", False, now)

    def _choose(self, now: float) -> None:
        """Prefer the connection that the smaller name dialled; of two such, the newer one."""
        mine = self.machine.host.name < self.name
        ranked = sorted(self.links, key=lambda link: (link.conn.dialled == mine, link.conn.created))
        self.link = ranked[-1] if ranked else None
        for link in ranked[:-1]:
            link.retired = True
            link.used = now

    def link_ended(self, link: Link, kind: str, code: int, reason: str, by_peer: bool, now: float) -> None:
        """A connection of this peer is gone, or an attempt to make one."""
        calls, sinks = link.ended()
        not_read = by_peer and code in NOT_READ
        again = by_peer and code in _AGAIN
        error = self.machine.unreachable(self.name, link, kind, code, reason)
        for sink in sinks:
            sink.broken(error)
        for call in calls:
            if again:
                call.sent, call.link, call.flow = False, None, None
                self.calls.append(call)
            else:
                call.done = True
                call.ticket.fail(error if not_read else _with_doubt(error))
        was_ready = link in self.links
        if was_ready:
            self.links.remove(link)
            self._choose(now)
        if self.dialling is link or (was_ready and again and link.conn.dialled and code == Close.TRY_AGAIN):
            self.dial_failed(error, again, now)
        elif was_ready and not_read and not again and self.link is None:
            self.fail_waiting(error)
        if self.link is not None:
            if was_ready:
                self._resend(self.link, 0)
            self._start(now)
        elif self.waiting:
            self.dial(now)

    def down(self, error: MycorrizalError, now: float) -> None:
        """Membership declares this peer dead: everything ends at once."""
        for link in [*self.links, *([self.dialling] if self.dialling else [])]:
            calls, sinks = link.ended()
            self.machine.forget(link)
            for call in calls:
                call.done = True
                call.ticket.fail(_with_doubt(error))
            for sink in sinks:
                sink.broken(error)
            link.conn.close(Close.DECLARED_DEAD, "declared dead", now)
        self.links.clear()
        self.link = self.dialling = None
        self.fail_waiting(error)

    def info(self) -> PeerInfo:
        """Return a snapshot for the user."""
        link = self.link
        state = "connected" if link else "connecting" if self.dialling else "failing" if self.failures else "idle"
        path = link.conn.stats() if link is not None else {}
        return PeerInfo(
            name=self.name,
            address=link.conn.address if link is not None else self.machine.host.resolve(self.name),
            state=state,
            dialled=link is not None and link.conn.dialled,
            connections=len(self.links),
            rtt=float(path.get("rtt", 0.0)),
            mtu=int(path.get("mtu", 0)),
            calls=len(self.calls) + sum(len(link.calls) for link in self.links),
            serving=sum(len(link.served) for link in self.links),
            messages=len(self.outgoing),
            path=path,
        )

    def expire(self, now: float) -> None:
        """End calls whose deadline has passed; blocking callers look at their own clock, futures need this."""
        late: list[Call] = [call for call in self.calls if call.deadline is not None and now >= call.deadline]
        for link in self.links:
            late += [call for call in link.calls.values() if call.deadline is not None and now >= call.deadline]
        for call in late:
            if not call.done:
                sent = call.sent
                self.cancel(call, now)
                call.ticket.fail(
                    OperationTimeout(
                        f"no answer from {self.name} in time", node=self.name, operation="request", indeterminate=sent
                    )
                )


def _with_doubt(error: MycorrizalError) -> MycorrizalError:
    """Return `error` for a call that may have taken effect."""
    if error.indeterminate or not isinstance(error, PeerUnreachable):
        return error
    doubtful = PeerUnreachable(str(error), node=error.node, operation=error.operation, indeterminate=True)
    doubtful.hint = error.hint
    return doubtful


def _code(code: int) -> str:
    try:
        return Close(code).name.lower().replace("_", " ")
    except ValueError:
        return f"code {code}"
