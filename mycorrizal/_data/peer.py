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

from .._endings import Ending, error, for_call
from .._wire.frames import PIPES_MAX, Close
from ..exceptions import MycorrizalError, QueueFull, ValueTooLarge
from ..types import PeerInfo
from .calls import Call
from .channel import Incoming, Outgoing, OutMessage
from .gone import Numbers
from .link import Link
from .ports import Sink, Ticket

if TYPE_CHECKING:
    from .machine import DataMachine

__all__ = ["Opening", "Peer"]

_AGAIN = frozenset((Close.IDLE, Close.TRY_AGAIN, Close.OTHER_PROCESS))

NOT_READ = _AGAIN | {Close.NAME_TAKEN, Close.NOT_PROVED, Close.WRONG_NAME, Close.WRONG_FORMAT, Close.FULL}
"""Reasons to close with which the peer says that it has begun nothing of what was under way."""

_AGAIN_MAX = 0.25
"""Seconds between attempts at most, when the peer has asked for another."""

_OTHER_PROCESS_MAX, _OTHER_PROCESS_SECONDS = 1.0, 120.0
"""The same, and for how long in all, while one side's membership knows another process by the other's name. Its
news come by gossip, at the latest with a push/pull; here they end the pause."""

_STEADY_SECONDS = 10.0
"""A connection that lasted this long was a good one, although nothing was done on it."""

TICK_SOON, TICK_BUSY = 0.02, 0.1
NEVER = float("inf")


class Opening:
    """A stream that the user wants; waits for a connection."""

    __slots__ = ("done", "name", "sink", "ticket")

    def __init__(self, name: bytes, sink: Sink, ticket: Ticket) -> None:
        self.name = name
        self.sink = sink
        self.ticket = ticket
        self.done = False


class Peer:
    """A node that we send to or that sends to us. Owned by the machine's thread.

    Args:
        numbers: of before, if it was forgotten.
    """

    def __init__(self, machine: DataMachine, name: str, numbers: Numbers | None = None) -> None:
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
        self.delayed = ""  # why what waits goes on waiting; read by any thread
        self.challenged: float | None = None
        self.in_line = False  # for room in the inbox; the machine's
        self.removed = False  # it was said to be gone, and has not been here since
        self._incoming: Incoming | None = None
        self._incoming_boot = b""
        if numbers is not None:
            self.boot = numbers.boot
            self.outgoing.resume(numbers.first, numbers.following)
            self.incoming_for(numbers.boot, numbers.accepted)

    @property
    def waiting(self) -> bool:
        """Whether something waits for a connection."""
        return bool(self.outgoing.open or self.calls or self.openings)

    @property
    def pending(self) -> int:
        """Everything of ours that is not over, but for calls on a connection that is about to go."""
        calls = len(self.calls) if self.link is None else len(self.calls) + len(self.link.calls)
        return calls + len(self.openings) + len(self.outgoing)

    @property
    def over(self) -> bool:
        """Whether nothing of it is left but numbers."""
        return not (self.links or self.dialling or self.waiting)

    @property
    def numbers(self) -> Numbers | None:
        """What is to be kept of it when it is forgotten; None if no message was ever on its way."""
        first, following = self.outgoing.numbers
        known = self._incoming is not None and self._incoming_boot == self.boot
        accepted = self._incoming.accepted if self._incoming is not None and known else 0
        return Numbers(self.boot, first, following, accepted) if following > 1 or accepted else None

    def incoming_for(self, boot: bytes, accepted: int = 0) -> Incoming:
        """Return the receiving half for the peer's process `boot`; a new process counts from 1 again."""
        if self._incoming is None or self._incoming_boot != boot:
            limits = self.machine.limits
            self._incoming = Incoming(limits.messages, limits.bytes, self.machine.offer, accepted)
            self._incoming_boot = boot
        return self._incoming

    def let_in(self) -> bool:
        """The inbox has room again: let one message in; False if it does not fit."""
        incoming = self._incoming
        if incoming is None or not incoming.blocked:
            return True
        rose = incoming.drain(1)
        if rose and self.link is not None:
            self.link.accept_due = True
            self.link.conn.touch()
        return rose

    @property
    def blocked(self) -> bool:
        """Whether messages of this peer wait for room in the inbox."""
        return self._incoming is not None and self._incoming.blocked

    @property
    def holding(self) -> bool:
        """Whether messages of this peer are held here, so that it waits for us."""
        return self._incoming is not None and self._incoming.holding

    # -- work of ours ------------------------------------------------------------------------

    def send(self, message: OutMessage, now: float) -> None:
        """Queue a message."""
        self.outgoing.add(message)
        self._pump(now)

    def request(self, call: Call, now: float) -> None:
        """Send a request now, or once there is a connection."""
        if call.began is None:
            call.began = now
        if self.link is None:
            self.calls.append(call)
            self.dial(now)
        elif self._fits(call.ticket, call.value.size, self.link):
            self.link.request(call, now)
        else:
            call.end()

    def request_now(self, call: Call, now: float) -> Link | None:
        """Send a request at once, if its way takes it from any thread, and no other one is open there. Any thread.

        Amid others the loop sends many at once, where each send of a caller's own would hand the interpreter to another
        thread. Nobody looks after the deadline of what is sent here but the caller.
        """
        link = self.link
        if link is None or link.calls or call.done or not link.free(call.value.size):
            return None
        return link if link.request_now(call, now) else None

    def open(self, opening: Opening, now: float) -> None:
        """Open a stream now, or once the peer has welcomed us: what it refuses before that has not begun."""
        if self.link is not None and self.link.open:
            opening.done = True
            if self.link.bulk.opened_here >= PIPES_MAX:
                text = f"{PIPES_MAX} streams to {self.name} are open"
                opening.ticket.fail(QueueFull(text, node=self.name, hint="close some"))
                return
            self.link.bulk.open_pipe(opening.name, opening.sink)
            opening.ticket.succeed(None)
        else:
            self.openings.append(opening)
            self.dial(now)

    def withdraw(self, message: OutMessage, now: float) -> None:
        """Nobody waits for `message` any more."""
        if self.outgoing.withdraw(message):
            self._skip(message)
        if self.outgoing.waiting:
            self._pump(now)

    def _skip(self, message: OutMessage) -> None:
        """Its number is to be skipped: say so on the connection that it was sent on; the next one hears anyway."""
        carrier = message.carrier
        if isinstance(carrier, Link) and carrier in self.links:
            carrier.skip(message)

    def cancel(self, call: Call, now: float) -> None:
        """Nobody waits for `call` any more."""
        if isinstance(call.link, Link):
            call.link.cancel(call, now)
        else:
            self.machine.arm()  # what waits is forgotten at the next tick
        call.end()

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
            if self.outgoing.open:
                self.dial(now)
            return
        for message in self.outgoing.pop_ready():
            if self._fits(message.ticket, message.size, link):
                link.used = now
            else:
                self.outgoing.withdraw(message)
            link.send_message(message)

    def accepted(self, sequence: int, link: Link, now: float) -> bool:
        """The peer's inbox has all messages up to `sequence`; return whether that is news."""
        news = self.outgoing.accepted(sequence)
        link.worked = link.worked or news
        link.used = now
        if self.outgoing.waiting:
            self._pump(now)
        return news

    def message_refused(self, message: OutMessage, code: int, link: Link) -> None:
        """The peer does not want a message that was on its way."""
        if self.outgoing.withdraw(message):
            self._skip(message)
            message.ticket.fail(self.machine.refusal(link, code))

    # -- dialling ----------------------------------------------------------------------------

    def dial(self, now: float) -> None:
        """Dial if nothing is under way and the time has come."""
        machine = self.machine
        if self.dialling is not None or self.link is not None or machine.ended:
            return
        machine.arm()
        if now < self.next_dial:
            return
        address = machine.host.resolve(self.name)
        if address is None:
            why, hint = machine.host.missing(self.name)
            self.fail_waiting(error(Ending.LOST, why, node=self.name, hint=hint))
            return
        try:
            conn = machine.host.dial(address, self.name, now)
        except MycorrizalError as exc:  # there is no way at all, for now
            self._dial_failed(exc, now)
            return
        self.dialling = machine.add(conn, self.name)

    def follow(self) -> None:
        """Go on at the peer's new address with what we dialled, where membership says that it is the same process."""
        host = self.machine.host
        address = host.resolve(self.name)
        if address is None or not self.boot or host.process(self.name) != self.boot:
            return
        for link in self.links:
            if link.conn.dialled and link.conn.address != address:
                host.count("quic.followed")
                link.conn.follow(address)

    def _dial_failed(self, why: MycorrizalError, now: float) -> None:
        """An attempt has ended without a connection: what waits fails, unless there is another."""
        self._back_off(self.machine.config.redial_max, now)
        self.again_since, self.delayed = None, ""
        if self.link is None and self.dialling is None:
            self.fail_waiting(why)

    def _come_again(self, why: MycorrizalError, code: int, now: float) -> None:
        """One side has read nothing and wants another connection: what waits goes on waiting, for a time."""
        other = code == Close.OTHER_PROCESS
        if self.again_since is None:
            self.again_since = now
        self.delayed = str(why) if code != Close.IDLE else ""
        if now - self.again_since >= (_OTHER_PROCESS_SECONDS if other else self.machine.config.connect_timeout):
            self._dial_failed(why, now)
        elif self.failures or code != Close.IDLE:
            self._back_off(_OTHER_PROCESS_MAX if other else _AGAIN_MAX, now)
        else:
            self.failures = 1

    def _lost(self, link: Link, why: MycorrizalError, code: int, now: float) -> None:
        """The last connection has ended. The next dial is at once after a good one, else after a growing pause.

        Good is one on which work of ours was done (a call answered, a message accepted), or that lasted for long.
        No two dials come closer than the first pause, also when every connection does a little work.
        """
        self.delayed = str(why) if code != Close.IDLE else ""
        if not link.worked and now - link.ready_at < _STEADY_SECONDS:
            self._back_off(self.machine.config.redial_max, now)
            return
        self.failures, self.again_since = 0, None
        if now - link.conn.created < self.machine.config.redial_first:
            self._pause(self.machine.config.redial_max, now)

    def _back_off(self, most: float, now: float) -> None:
        self._pause(most, now)
        self.failures = min(self.failures + 1, 32)

    def _pause(self, most: float, now: float) -> None:
        config, host = self.machine.config, self.machine.host
        delay = min(config.redial_max, most, config.redial_first * 2.0**self.failures)
        self.next_dial = now + delay * (0.5 + host.jitter() / 2)
        host.count("quic.backoffs")
        self.machine.arm()

    def fail_waiting(self, why: MycorrizalError) -> None:
        """Everything that waits for a connection ends with `why`."""
        self.machine.gone.may_be(self.name)
        calls, self.calls = self.calls, deque()
        openings, self.openings = self.openings, deque()
        for call in calls:
            if not call.done:
                call.end()
                call.ticket.fail(for_call(why, False, node=self.name))
        for opening in openings:
            if not opening.done:
                opening.done = True
                opening.ticket.fail(for_call(why, False, node=self.name))
        for message in self.outgoing.take_all():
            message.ticket.fail(for_call(why, message.sequence > 0, node=self.name))

    # -- connections -------------------------------------------------------------------------

    def link_ready(self, link: Link, now: float) -> None:
        """This side of a connection is proved. It takes the place of those of an earlier process, or attempt."""
        if self.dialling is link:
            self.dialling = None
        self.next_dial = 0.0
        self.removed = False
        restarted = self.boot not in (b"", link.boot)
        # Nobody dials while it has a connection: an earlier one of the same direction is dead for the peer.
        replaced = [other for other in self.links if restarted or other.conn.dialled == link.conn.dialled]
        self.links = [*(other for other in self.links if other not in replaced), link]
        self.boot = link.boot
        what = "was restarted" if restarted else "has made a new connection"
        why = error(Ending.OTHER_PROCESS if restarted else Ending.PEER_CLOSED, f"{self.name} {what}", node=self.name)
        for message in self.outgoing.restart() if restarted else ():
            message.ticket.fail(for_call(why, True))
        assert link.remote is not None
        self.outgoing.window_messages = link.remote.messages
        self.outgoing.window_bytes = link.remote.bytes
        self._choose(now)
        for other in replaced:
            self._drop(other, Close.REPLACED, why, now)
        self._start(now)

    def welcomed(self, link: Link, accepted: int, now: float) -> None:
        """The peer has told which messages it has: send the others again."""
        self.delayed = ""
        self.outgoing.trim(accepted)
        self._choose(now)
        self._resend()
        self._start(now)

    def opened(self, link: Link, now: float) -> None:
        """Streams may be opened now."""
        if link is self.link:
            self._start(now)

    def _resend(self) -> None:
        """Send again what a lost connection carried."""
        link = self.link
        if link is None or not link.welcomed:
            return  # wait until the peer has told what it has
        for message in self.outgoing.unaccepted():
            if message.carrier not in self.links:
                link.send_message(message)

    def _start(self, now: float) -> None:
        if self.link is None:
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

    def _choose(self, now: float) -> None:
        """Prefer a connection that is welcomed, then the one that the smaller name dialled."""
        mine = self.machine.host.name < self.name
        self.link = max(
            self.links, default=None, key=lambda link: (link.welcomed, link.conn.dialled == mine, link.conn.created)
        )
        for link in self.links:
            if link is self.link:
                link.retired = False
            elif not link.retired:
                link.retired = True
                link.used = now
                self.machine.arm()

    def link_ended(self, link: Link, kind: str, code: int, reason: str, by_peer: bool, now: float) -> None:
        """A connection of this peer is gone, or an attempt to make one."""
        calls, sinks = link.ended()
        if link.conn.way.tentative and link.conn.dialled and not link.welcomed and code not in _AGAIN:
            kind, code, by_peer = "local", Close.IDLE, False  # nothing was read: the next dial takes another way
        again = (by_peer or not link.welcomed) and code in _AGAIN and kind in ("closed", "local")
        not_read = again or (by_peer and code in NOT_READ)
        why = self.machine.unreachable(self.name, link, kind, code, reason)
        for sink in sinks:
            sink.broken(for_call(why, not not_read))
        for call in calls:
            if again:
                call.sent, call.link, call.flow = False, None, None
                self.calls.append(call)
            else:
                _fail(call, why, read=not not_read)
        if self.dialling is link:
            self.dialling = None
        if link in self.links:
            self.links.remove(link)
            self._choose(now)
            self._let_go()
        wanted = self.waiting or (code != Close.IDLE and (link.conn.dialled or calls or sinks))
        if link.surplus:
            pass  # there is another
        elif link.welcomed:
            if wanted and self.link is None:
                self._lost(link, why, code, now)
        elif again and self.waiting:
            self._come_again(why, code, now)
        elif link.conn.dialled:
            self._dial_failed(why, now)
        self._resend()
        self._start(now)
        if self.waiting:
            self.dial(now)
        self.machine.gone.may_be(self.name)

    def _drop(self, link: Link, code: int, why: MycorrizalError, now: float) -> None:
        """End a connection, and what is open on it, with `why`."""
        self.machine.forget(link)
        calls, sinks = link.ended()
        for call in calls:
            _fail(call, why, read=True)
        for sink in sinks:
            sink.broken(for_call(why, True, node=self.name))
        if link.greeting is not None:
            link.greeting.fail(for_call(why, False, node=self.name))
            link.greeting = None
        link.conn.close(code, str(why)[:200], now)

    def replaced(self, now: float) -> None:
        """Membership knows another process by this name: what is open with this one ends, the rest waits for that."""
        links, self.links = self.links, []
        self._choose(now)
        why = error(Ending.OTHER_PROCESS, f"{self.name} is another process now", node=self.name)
        for link in links:
            self._drop(link, Close.REPLACED, why, now)
        self._let_go()
        if self.waiting:
            self.dial(now)

    def down(self, why: MycorrizalError, now: float, code: int = Close.DECLARED_DEAD) -> None:
        """Membership declares this peer dead: everything ends at once."""
        links = [*self.links, *([self.dialling] if self.dialling else [])]
        self.links = []
        self.link = self.dialling = self.again_since = None
        self.delayed = ""
        self.fail_waiting(why)
        for link in links:
            self._drop(link, code, why, now)
        self._let_go()

    def _let_go(self) -> None:
        if not self.links:
            self.machine.gone.may_be(self.name)
            if self._incoming is not None:
                self._incoming.let_go()

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
            messages=self.outgoing.open,
            path=path,
            carrier=link.conn.way.name if link is not None else "",
            why=link.conn.why if link is not None else "",
        )

    # -- time --------------------------------------------------------------------------------

    def tick(self, now: float) -> float:
        """Look after deadlines and dialling; return the seconds until the next time."""
        self.outgoing.purge()
        if any(call.done for call in self.calls):
            self.calls = deque(call for call in self.calls if not call.done)
        if any(opening.done for opening in self.openings):
            self.openings = deque(opening for opening in self.openings if not opening.done)
        self._expire(now)
        if not self.pending:
            self.again_since, self.delayed = None, ""
            if not self.links:
                self.machine.gone.may_be(self.name)
        if not self.waiting or self.link is not None:
            return TICK_BUSY if self.waiting or any(link.calls for link in self.links) else NEVER
        self.dial(now)
        return max(TICK_SOON, min(TICK_BUSY, self.next_dial - now))

    def _expire(self, now: float) -> None:
        """End calls whose deadline has passed; blocking callers look at their own clock, futures need this."""
        calls = list(self.calls)
        for link in self.links:
            calls += link.calls.values()  # one step of GIL or dict: any thread may note another one
        for call in calls:
            if call.deadline is not None and now >= call.deadline and not call.done:
                sent = call.sent
                self.cancel(call, now)
                text = f"no answer from {self.name} in time{self.machine.delay(self.name)}"
                call.ticket.fail(error(Ending.TIMEOUT, text, sent=sent, node=self.name))


def _fail(call: Call, why: MycorrizalError, *, read: bool) -> None:
    """End a call whose connection is gone; `read`: the peer may have read it, if all of it was sent."""
    whole = call.flow is None or call.flow.finished
    call.end()
    call.ticket.fail(for_call(why, read and whole, node=call.node))
