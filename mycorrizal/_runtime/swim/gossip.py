"""The thread ``mycorrizal-gossip``: owns one machine, its two sockets and its mailbox.

It adds no rule. One ``select`` until the machine's timer, a socket, or the
mailbox; then, in this order, because an answer that has arrived must not be
taken for one that has not: datagrams, connections, commands and the results of
exchanges, and only then the timer. Observation callbacks, dialling, and
anything that blocks happen on other threads.
"""

from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from ... import events as public
from ..._swim import events as swim
from ..._swim.machine import Swim
from ..._wire.messages import Message, PushPull
from ..._wire.text import logger
from ...config import Config
from ...types import Address, Node, NodeState
from ..net.sockets import BoundSockets, from_sockaddr, to_sockaddr
from ..threads import clock, reentry
from ..threads.counters import Counters, QuietLog
from ..threads.deadline import Deadline
from ..threads.mailbox import Mailbox
from ..threads.service import Service
from ..threads.subscribers import Subscribers
from .companion import Companion
from .conversation import Conversations
from .departed import Departed
from .dispatch import Dispatcher
from .exchanges import ExchangePool, Lane
from .layer import Layer
from .lobby import Guest, Lobby
from .reach import Reach
from .roaming import Roaming

__all__ = ["Gossip", "View"]

log = logger("mycorrizal.gossip")

_DATAGRAM_MAX = 65536
_BATCH = 512  # datagrams between two looks at the timer
_BATCH_AFTER_STALL = 16384  # all that 2 MiB of receive buffer can hold: see it before acting on stale timers
_SECONDS = 0.1  # the same in time, for one that is busy; also for commands
_SECONDS_AFTER_STALL = 0.5
_LATE_SECONDS = 30.0  # for so long it is told that the timers were late
_FLUSH_EVERY = 16  # datagrams read before our answers go out: acks are what others wait for
_OPERATIONS_SWEEP = 1024  # from here on abandoned operations are swept out

_LOCALLY_FULL = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)
_UDP, _MAILBOX = 1, 2  # beside these the selector has the lobby's


@dataclass(frozen=True, slots=True)
class View:
    """What readers on other threads see: replaced as a whole, never changed."""

    members: tuple[Node, ...]
    local_node: Node


class _Operation(Future[Any]):
    """The result of an operation of the machine; ``begun``: whether the machine has begun with it, or will."""

    begun = False


class Gossip:
    """Drives one ``Swim``. Methods say which thread may call them."""

    def __init__(
        self,
        config: Config,
        machine: Swim,
        sockets: BoundSockets,
        mailbox: Mailbox,
        pool: ExchangePool,
        conversations: Conversations,
        dispatcher: Dispatcher | None,
        subscribers: Subscribers[public.MemberEvent],
        counters: Counters,
        companion: Companion | None = None,
    ) -> None:
        self._machine = machine
        self._sockets = sockets
        self._mailbox = mailbox
        self._pool = pool
        self._conversations = conversations
        self._dispatcher = dispatcher
        self._subscribers = subscribers
        self._counters = counters
        self._companion = companion
        self.layer: Layer | None = None  # set before the thread starts
        self._node = config.name
        self._stall = config.stall_threshold or 1.0
        self._family = sockets.udp.family
        self._buffer = bytearray(_DATAGRAM_MAX)
        self._operations: dict[int, Future[Any]] = {}
        self._stopping = False
        self._quiet = QuietLog(log, config.name)
        self._version: int | None = None
        self._late = (0.0, float("-inf"))  # how much a timer was, and when
        # Published for other threads; each is replaced as a whole.
        self.view: View | None = None
        self.health_score = 0
        self.reach = Reach()
        self.roaming = Roaming(config, machine, mailbox, pool)
        self.departed = Departed()
        self.started: Future[None] = Future()
        self.service = Service("mycorrizal-gossip", config.name, self._run, self._ended)
        # Not epoll: its descriptor would be shared with a forked child, which must be able to close its copies.
        self._selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
        self._selector.register(sockets.udp, selectors.EVENT_READ, _UDP)
        self._selector.register(mailbox, selectors.EVENT_READ, _MAILBOX)
        self.lobby = Lobby(config, sockets.tcp, self._selector, mailbox, pool, conversations, counters)

    # -- any thread -----------------------------------------------------------------------

    def stop(self) -> None:
        """Make the thread end soon; does not wait."""
        self._stopping = True
        self._mailbox.wake()

    def operation(self, begin: Callable[[float], int]) -> Future[Any]:
        """Run `begin` on the machine; the future ends with the operation whose id it returned.

        Raises:
            QueueFull: too many calls are waiting.
            NotRunningError, ServiceCrashed: the thread has ended.
        """
        result = _Operation()

        def command(now: float) -> None:
            result.begun = True  # first this, then a look; who gives up does it the other way round
            if not result.cancelled():
                operation_id = begin(now)
                self._sweep()
                self._operations[operation_id] = result

        def refused(ticket: Future[None]) -> None:
            error = ticket.exception()
            if error is not None and result.set_running_or_notify_cancel():
                result.set_exception(error)

        self._mailbox.post(command).add_done_callback(refused)
        return result

    def process_ended(self, name: str, boot: bytes) -> None:
        """The kernel says that a process has ended."""
        self._mailbox.tell(lambda now: self._machine.ended(name, boot, now))

    def answer(self, message: Message, address: Address) -> Future[Message | None]:
        """Ask the machine what to say to somebody who dialled us."""
        return self._mailbox.post(lambda now: self._machine.answer_exchange(message, address, now))

    # -- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        with reentry.owner("mycorrizal-gossip"):  # a data plane's blocking calls refuse to wait here
            self._drive()

    def _drive(self) -> None:
        try:
            self._machine.start(clock.now())
            self._pump()
        except Exception as exc:
            self._stopping = True
            self.started.set_exception(exc)
            return
        self.started.set_result(None)
        log.info("%s: listening on %s port %d", self._node, self._sockets.host, self._sockets.port)
        while not self._stopping:
            self._turn()

    def _turn(self) -> None:
        now = clock.now()
        companion = self._companion
        due = self._machine.get_timer()
        ready, knocks = 0, False
        guests = []
        for key, _ in self._selector.select(self._timeout(due, now)):
            if isinstance(key.data, Guest):
                guests.append(key.data)
            elif key.data is None:
                knocks = True
            else:
                ready |= key.data
        now = clock.now()
        if ready & _UDP:
            if self._machine.stood_still(now) > self._stall:
                self._receive(_BATCH_AFTER_STALL, now + _SECONDS_AFTER_STALL)
            else:
                self._receive(_BATCH, now + _SECONDS)
        if guests or knocks:
            self.lobby.ready(guests, knocks)
        if ready & _MAILBOX or len(self._mailbox):
            self._mailbox.run(_SECONDS)
        now = clock.now()
        due = self._machine.get_timer()
        if due is not None and due <= now:
            if now - due >= self.late(now) and self._machine.stood_still(now) <= self._stall:
                self._late = now - due, now
            self._machine.handle_timer(now)
        self.roaming.look(now)
        if companion is not None and (due := companion.get_timer()) is not None and due <= now:
            companion.handle_timer(now)
        if (due := self.lobby.get_timer()) is not None and due <= now:
            self.lobby.handle_timer(now)
        self._pump()

    def _timeout(self, due: float | None, now: float) -> float | None:
        if len(self._mailbox):
            return 0
        for clocked in (self.lobby, self._companion):
            if clocked is not None and (other := clocked.get_timer()) is not None:
                due = other if due is None else min(due, other)
        return None if due is None else max(0.0, due - now)

    @property
    def machine_metrics(self) -> dict[str, int]:
        """Counters and sizes of the machine. Any thread: each is copied, or looked at, in one step."""
        return {**self._machine.counters, **self._machine.gauges}

    def late(self, now: float) -> float:
        """Return by how many seconds a timer was late lately; stalls are not meant. Any thread."""
        seconds, at = self._late
        return seconds if now - at <= _LATE_SECONDS else 0.0

    def _receive(self, batch: int, until: float) -> None:
        """Take up to `batch` datagrams, no longer than `until`; what remains makes the next ``select`` return at once.

        So a thread that cannot keep up still does what is due, and its buffer drops what is too much.
        """
        machine, buffer = self._machine, self._buffer
        receive = self._sockets.udp.recvfrom_into
        view = memoryview(buffer)
        packets = size = 0
        for turn in range(1, batch + 1):
            try:
                length, sockaddr = receive(buffer)
            except BlockingIOError:
                break
            except OSError:
                # An ICMP error for an earlier packet (§11.40): the probe finds out by itself.
                self._counters.add("udp.read_errors")
                continue
            packets += 1
            size += length
            if length:
                machine.receive_datagram(bytes(view[:length]), from_sockaddr(sockaddr), now := clock.now())
                if now > until:
                    break
            if not turn % _FLUSH_EVERY:
                self._flush()
        self._counters.add("udp.packets_received", packets)
        self._counters.add("udp.received", size)

    # -- outputs ------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Pull everything the machine has to send and to say."""
        while True:
            sent = self._flush()
            requests = self._machine.exchanges_to_start()
            for request in requests:
                self._dial(request)
            if not sent and not requests:
                break
        self._publish()
        while (event := self._machine.next_event()) is not None:
            self._announce(event)
        if self._companion is not None:
            self._companion.pump(now := clock.now())
            self._flush()
            if self._companion.waiting():
                self._machine.broadcasts_waiting(now)

    def _flush(self) -> int:
        datagrams = self._machine.datagrams_to_send()
        if not datagrams:
            return 0
        send, family = self._sockets.udp.sendto, self._family
        sent = size = 0
        failed: list[Address] = []
        for data, address in datagrams:
            try:
                if family == socket.AF_INET and ":" in address[0]:
                    raise OSError(errno.EAFNOSUPPORT, "bound to IPv4 only")
                send(data, to_sockaddr(family, address))
                sent += 1
                size += len(data)
            except OSError as exc:
                if exc.errno in _LOCALLY_FULL:
                    self._counters.add("udp.send_dropped")  # as good as lost on the way
                else:
                    failed.append(address)
                    self._quiet.warning("send", "cannot send to %s port %d: %s", *address, exc.strerror or exc)
        self._counters.add("udp.packets_sent", sent)
        self._counters.add("udp.sent", size)
        for address in failed:
            self._machine.write_failed(address, clock.now())
        return len(datagrams)

    def _dialled(self, address: Address, error: Exception | None, now: float) -> None:
        """Note how a push/pull ended; tell of a member that answers datagrams and cannot be dialled, once."""
        self.reach.dialled(address, error, now)
        node = next((node for node in self._machine.members() if node.address == address), None)
        if node is None or not self.reach.news(address, now):
            return
        self._counters.add("tcp.blocked")
        self._subscribers.publish(public.TcpBlocked(node, node.port, "outbound"))
        text = "%s answers over UDP, and cannot be dialled over TCP at %s port %d: %s"
        self._quiet.warning("tcp blocked", text, node.name, *address, error)

    def _dial(self, request: swim.ExchangeRequested) -> None:
        deadline = Deadline.at(request.deadline)

        def run() -> Message | None:
            return self._conversations.hold(request.address, request.message, request.expects_reply, deadline)

        def done(answer: Message | None, error: Exception | None) -> None:
            if isinstance(request.message, PushPull):
                self._mailbox.tell(lambda now: self._dialled(request.address, error, now))
            if error is None:
                self._mailbox.tell(lambda now: self._machine.exchange_answered(request.exchange_id, answer, now))
            else:
                self._mailbox.tell(lambda now: self._machine.exchange_failed(request.exchange_id, error, now))

        try:
            self._pool.submit(Lane.DIALLED, run, done)
        except RuntimeError as exc:  # QueueFull, NotRunningError, or no more threads
            self._counters.add("tcp.dials_dropped")
            done(None, exc)

    def _publish(self) -> None:
        machine = self._machine
        version = machine.node_version
        if version != self._version:
            self._version = version
            self.view = View(machine.members(), machine.local_node)
        self.health_score = machine.health_score

    def _announce(self, event: swim.Event) -> None:
        if isinstance(event, swim.OperationDone):
            self._finish(event)
            return
        if self._companion is not None and not self._shared(self._companion, event):
            return
        self._tell_delegates(event)
        match event:
            case swim.NodeJoined(node=node):
                log.info("%s: %s joined (%s port %d)", self._node, node.name, *node.address)
                self.departed.joined(node.name)
                self._subscribers.publish(public.MemberJoined(node))
            case swim.NodeLeft(node=node):
                failed = node.state == NodeState.DEAD
                now = clock.now()
                self.departed.left(node, now)
                log.info("%s: %s %s", self._node, node.name, "failed" if failed else "left")
                kind = public.MemberFailed if failed else public.MemberLeft
                self._subscribers.publish(kind(node, now + clock.wall_offset()))
            case swim.NodeUpdated(node=node):
                self._subscribers.publish(public.MemberUpdated(node))
            case swim.NodeConflict(existing=existing, other=other):
                self._subscribers.publish(public.NameConflict(existing, other))
            case swim.Stalled(seconds=seconds):
                self._subscribers.publish(public.Stalled(seconds))
            case swim.UdpBlocked(node=node, port=port, direction=direction):
                self._subscribers.publish(public.UdpBlocked(node, port, direction))
            case swim.PacketRejected(address=address, reason=reason):
                self._quiet.warning(
                    f"rejected {type(reason).__name__}", "packet from %s port %d refused: %s", *address, reason
                )
            case swim.DelegateFault(call=call, message=message):
                self._quiet.warning(f"fault {call}", "delegate method %s: %s", call, message)

    def _tell_delegates(self, event: swim.Event) -> None:
        if self.layer is not None:
            try:
                self.layer.observe(event, clock.now())
            except Exception as exc:  # a subclass of ours may be a user's
                self._counters.add("delegate.faults")
                log.exception("%s: %s raised %r; ignored", self._node, type(self.layer).__name__, exc)
        if self._dispatcher is not None:
            self._dispatcher.put(event)

    def _shared(self, companion: Companion, event: swim.Event) -> bool:
        """Give the companion its share; return whether the event is for the user's delegates and readers too."""
        now = clock.now()
        match event:
            case swim.UserMessage(data=data):
                rest = companion.take_message(data, now)
                if rest is data:
                    return True
                if rest is not None:
                    self._tell_delegates(replace(event, data=rest))
                return False
            case swim.RemoteState(data=data, join=join, answer=answer):
                rest = companion.take_state(data, join, now, answer)
                if rest:
                    self._tell_delegates(replace(event, data=rest))
                return False
        companion.observe(event, now)
        return True

    def _finish(self, event: swim.OperationDone) -> None:
        result = self._operations.pop(event.operation_id, None)
        if result is None or not result.set_running_or_notify_cancel():
            return  # its caller gave up
        if event.error is not None:
            result.set_exception(event.error)
        else:
            result.set_result(event.result)

    def _sweep(self) -> None:
        if len(self._operations) >= _OPERATIONS_SWEEP:
            self._operations = {key: value for key, value in self._operations.items() if not value.cancelled()}

    # -- the end --------------------------------------------------------------------------------

    def _ended(self) -> None:
        """Leave nobody waiting. Runs on the thread, whatever ended it."""
        if not self.started.done():
            self.started.set_exception(self.service.refusal())
        self._mailbox.refuse(self.service.refusal)
        operations, self._operations = self._operations, {}
        for result in operations.values():
            if result.set_running_or_notify_cancel():
                result.set_exception(self.service.refusal(sent=True))  # the machine had begun with it
        self._subscribers.end()
        self._pool.close()
        if self._companion is not None:
            self._companion.ended()
        if self._dispatcher is not None:
            self._dispatcher.stop()
        self.close_descriptors()

    def close_descriptors(self) -> None:
        """Close what is open to the system. Takes no lock, so a forked child may call it for its copies."""
        self._selector.close()
        self.lobby.close()
        self._sockets.close()
        self._mailbox.close()
