"""Puts the threads, the sockets and the machine of one ``Memberlist`` together, and takes them apart.

The facade (``mycorrizal.memberlist``) holds one of these and no thread, socket
or lock of its own.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from ..._endings import Ending, error, for_call
from ..._swim.machine import Swim
from ..._wire.messages import BOOT_BYTES, Message, User
from ..._wire.packet import PacketCodec
from ..._wire.security import Keyring
from ..._wire.stream import StreamCodec
from ..._wire.text import Log, logger
from ...config import Config, weakness
from ...delegates import AliveDelegate, ConflictDelegate, Delegate, EventDelegate, MergeDelegate, PingDelegate
from ...events import EventsLost, MemberEvent
from ...exceptions import MycorrizalError, NotRunningError, QueueFull, ReentrantCallError
from ...types import Address, Node, NodeState, host_of, is_loopback
from ..net import addresses, sockets
from ..threads import clock, lifecycle, shortage
from ..threads.counters import Counters
from ..threads.deadline import Deadline
from ..threads.mailbox import Mailbox
from ..threads.nonces import Nonces
from ..threads.shortage import as_ours
from ..threads.subscribers import EventStream, Subscribers
from ..threads.waits import pause, settled
from .companion import Companion
from .conversation import Conversations
from .dispatch import Dispatcher, Observers
from .exchanges import ExchangePool, Lane
from .gossip import Gossip, View
from .layer import Ground, Layer
from .supply import AliveGate, MergeGate, PingSupply, Supply, Timed

__all__ = ["Delegates", "Membership"]

log = logger("mycorrizal.memberlist")

T = TypeVar("T")

_DATAGRAM_MAX = 65507  # largest UDP payload over IPv4
_CHECKSUM_BYTES = 5
_FULL_SECONDS = 0.05  # until it is looked again whether a call finds room
_WAITING_MAX = 1024  # conversations that wait for a thread, each way


@dataclass(frozen=True, slots=True)
class Delegates:
    """A user's hooks; each may be missing."""

    delegate: Delegate | None = None
    events: EventDelegate | None = None
    conflict: ConflictDelegate | None = None
    merge: MergeDelegate | None = None
    ping: PingDelegate | None = None
    alive: AliveDelegate | None = None
    companion: Companion | None = None

    def __post_init__(self) -> None:
        for role, methods in _METHODS.items():
            hook = getattr(self, role)
            if isinstance(hook, type):
                raise TypeError(f"{role} must be an instance: {hook.__name__}(), not the class {hook.__name__}")
            if hook is not None and not any(hasattr(hook, method) for method in methods):
                raise TypeError(f"{role}: {type(hook).__name__} has none of the methods {', '.join(methods)}")

    @property
    def layer(self) -> Layer | None:
        """The delegate, if it is a layer of ours: it observes inline, and all that there is to observe."""
        return self.delegate if isinstance(self.delegate, Layer) else None


_METHODS = {
    "delegate": ("node_meta", "notify_msg", "get_broadcasts", "local_state", "merge_remote_state"),
    "events": ("notify_join", "notify_leave", "notify_update"),
    "conflict": ("notify_conflict",),
    "merge": ("notify_merge",),
    "ping": ("ack_payload", "notify_ping_complete"),
    "alive": ("notify_alive",),
}
"""What each hook is asked or told; one that has none of it is a mistake that nobody would notice."""


class Membership:
    """One running node: threads, sockets, machine. Every method may be called on any thread.

    Raises:
        BindError: the address or port cannot be had.
        ResourcesExhausted: nor can a descriptor or a thread.
        ConfigError: no address to advertise, or the node's own is refused.
        MetaTooLarge: ``node_meta`` returned more than 512 bytes.
    """

    def __init__(self, config: Config, delegates: Delegates) -> None:
        self._fork = lifecycle.ForkGuard()
        self._stopped = False
        self.counters = Counters()
        self._boot = os.urandom(BOOT_BYTES)
        self._numbers = itertools.count(1)
        self._numbering = threading.RLock()  # a step of it is atomic under the GIL alone
        self.keyring = Keyring.of(config)
        self._nonces = Nonces(self.keyring)
        starting = getattr(delegates.delegate, "starting", None)
        if starting is not None and isinstance(changed := starting(config), Config):
            config = changed
        with as_ours(f"{config.name} cannot start", node=config.name, operation="Memberlist"):
            self._open(config, delegates)
            self._start()
        self._warn_if_open()
        self._warn_of_weak_keys()

    def _open(self, config: Config, delegates: Delegates) -> None:
        with ExitStack() as opened:
            bound = sockets.bind(config.bind_addr, config.bind_port)
            opened.callback(bound.close)
            self.config = config.replace(bind_port=bound.port)
            self.advertised = sockets.advertised(config, bound.port)
            self.mailbox = Mailbox()
            opened.callback(self.mailbox.close)
            self._assemble(bound, delegates)
            opened.pop_all()

    def _assemble(self, bound: sockets.BoundSockets, delegates: Delegates) -> None:
        config, node = self.config, self.config.name
        layer = delegates.layer
        observers = Observers(  # a layer observes by itself
            _but(layer, delegates.delegate), _but(layer, delegates.events), _but(layer, delegates.conflict),
            delegates.ping,
        )  # fmt: skip
        wanted = observers or layer is not None
        self.dispatcher = Dispatcher(observers, config.handoff_queue_depth, node, self.counters) if wanted else None
        self.pool = ExchangePool(config.exchange_threads, _WAITING_MAX, node, self.counters)
        self.subscribers: Subscribers[MemberEvent] = Subscribers(self._new_stream)
        self.conversations = Conversations(
            StreamCodec(config, self.keyring, self._nonces), self.pool, self.counters, node, self._answer
        )
        self.machine = self._machine(delegates)
        self.gossip = Gossip(
            config, self.machine, bound, self.mailbox, self.pool, self.conversations, self.dispatcher, self.subscribers,
            self.counters, delegates.companion,
        )  # fmt: skip
        self.gossip.layer = layer
        if layer is not None:
            layer.attached(Ground(self))
        if delegates.companion is not None:
            delegates.companion.attached(self)

    def _machine(self, delegates: Delegates) -> Swim:
        timed = Timed(self.config.name, self.counters)
        addr, port = self.advertised
        self.codec = PacketCodec(self.config, self.keyring, self._nonces)
        supply: Delegate | None = Supply(delegates.delegate, timed) if delegates.delegate is not None else None
        if delegates.companion is not None:
            supply = delegates.companion.supply(supply)
        return Swim(
            self.config,
            addr=addr,
            port=port,
            codec=self.codec,
            rng=random.Random(int.from_bytes(os.urandom(16))),
            delegate=supply,
            alive=AliveGate(delegates.alive, timed) if delegates.alive is not None else None,
            merge=MergeGate(delegates.merge, timed) if delegates.merge is not None else None,
            ping=PingSupply(delegates.ping, timed) if delegates.ping is not None else None,
        )

    def _answer(self, message: Message, address: Address) -> Future[Message | None]:
        return self.gossip.answer(message, address)

    def _start(self) -> None:
        try:
            if self.dispatcher is not None:
                self.dispatcher.service.start()
            self.pool.start()
            self.gossip.service.start()
        except BaseException:
            self.pool.close()
            self.gossip.close_descriptors()
            if self.dispatcher is not None:
                self.dispatcher.stop()
            raise
        lifecycle.remember(self)
        try:
            settled(self.gossip.started, Deadline(None))
            self.gossip.started.result()
        except BaseException:  # also Ctrl-C while a delegate's node_meta takes its time
            self.stop()
            self.join(Deadline(1.0))
            raise

    def _warn_if_open(self) -> None:
        if self.keyring:
            return
        config, host = self.config, self.config.bind_addr
        if is_loopback(host):
            text = "%s: listening on %s without a key: every user of this host can join, read and forge"
            log.info(text, config.name, host)
            return
        log.warning(
            "%s: listening on %s without a key: whoever reaches port %d (here: %s) can join, read and forge; "
            "give it a key, or let it listen on 127.0.0.1 alone",
            config.name,
            host,
            config.bind_port,
            host_of(self.advertised[0]),
        )

    def _warn_of_weak_keys(self) -> None:
        for why in map(weakness, self.keyring.keys()):
            if why is not None:
                log.warning("%s: a key %s; give the cluster another one", self.config.name, why)

    def _new_stream(self) -> EventStream[MemberEvent]:
        depth, refusal = self.config.event_queue_depth, self.gossip.service.refusal
        return EventStream(depth, lambda n: EventsLost(n, self.view().members), self.guard, refusal, self.counters)

    # -- may this thread call? ----------------------------------------------------------------

    def check_process(self) -> None:
        """Raise ``ForkedProcessError`` in a forked child."""
        self._fork.check("Memberlist")

    def guard(self, operation: str) -> None:
        """Check that the calling thread may block here.

        Raises:
            ForkedProcessError: in a forked child.
            ReentrantCallError: on the gossip thread, whose progress every blocking call needs.
        """
        self._fork.check("Memberlist", operation)
        if self.gossip.service.is_current():
            raise ReentrantCallError(
                f"{operation}() would wait for the thread it was called on",
                operation=operation,
                hint="supply and admission delegates must return at once; call it from another thread",
            )

    def view(self) -> View:
        """Return what readers see.

        Raises:
            ServiceCrashed: the gossip thread died, so the view is not kept up any more.
        """
        self._fork.check("Memberlist")
        if self.gossip.service.crashed is not None:
            raise self.gossip.service.refusal()
        view = self.gossip.view
        if view is None:
            hint = "the first node_meta is asked before there are members"
            raise NotRunningError("the node is still starting", hint=hint)
        return view

    def gone(self) -> list[tuple[Node, float]]:
        """Return members that left or failed within a day, each with the time, in seconds since 1970; by name."""
        self.view()
        found = self.gossip.departed.view(clock.now())
        return sorted(((node, since + clock.wall_offset()) for node, since in found), key=lambda one: one[0].name)

    # -- waiting --------------------------------------------------------------------------------

    def wait(self, future: Future[T], deadline: Deadline, operation: str) -> T:
        """Return the future's result.

        Raises:
            OperationTimeout: the deadline passed first; the operation may still have its effect, if it had begun.
        """
        late = error(Ending.TIMEOUT, f"{operation}() was not done within its timeout")
        try:
            done = settled(future, deadline)
        except NotRunningError as over:  # the program
            done, late = False, over
        finally:
            future.cancel()  # if it goes on, also after Ctrl-C: nobody will look at it any more
        if not done:
            raise for_call(late, getattr(future, "begun", True), operation=operation)
        try:
            return future.result()
        except MycorrizalError as made:
            raise for_call(made, made.indeterminate, operation=operation) from made.__cause__

    def operate(self, begin: Callable[[float], int], deadline: Deadline, operation: str) -> Any:
        """Run a machine's operation and return its result. Blocks, also while too many calls wait for the thread.

        Raises:
            QueueFull: they did until the deadline.
            OperationTimeout, NotRunningError, ServiceCrashed
        """
        while True:
            try:
                future = self.gossip.operation(begin)
            except QueueFull:
                if deadline.passed:
                    raise
                pause(deadline.capped(_FULL_SECONDS))
            else:
                return self.wait(future, deadline, operation)

    def process_ended(self, name: str, boot: bytes) -> None:
        """The kernel says that a process has ended: see ``Transitions.ended``. Any thread."""
        self.gossip.process_ended(name, boot)

    def run(self, job: Callable[[], T]) -> Future[T]:
        """Run something that blocks, such as the system's resolver, on an exchange thread."""
        future: Future[T] = Future()
        self.pool.submit(Lane.DIALLED, job, lambda result, error: _settle(future, result, error))
        return future

    def converse(self, address: Address, message: Message, deadline: Deadline) -> Future[Message | None]:
        """Dial `address` and say `message`, without an answer."""
        return self.run(lambda: self.conversations.hold(address, message, False, deadline))

    def user(self, data: bytes, to: str) -> User:
        """Return a user message for the node `to`, numbered if that is on: it is sent once.

        Differs from memberlist: there a packet or a stream that was recorded delivers its message each time that it
        is sent again. Switched off by ``number_messages=False``, and with Go peers.
        """
        if not self.config.number_messages or self.config.wire != "cbor":
            return User(data)
        with self._numbering:
            number = next(self._numbers)
        return User(data, self._boot, number, to)

    def datagram_room(self, message: User) -> int:
        """Return how many bytes of data a datagram carries in a message such as this."""
        head = 1 + (len(self.codec.body.encode(message.header)) if message.boot else 0)
        return _DATAGRAM_MAX - head - _CHECKSUM_BYTES - self.codec.overhead(gossip=True)

    def is_own(self, address: Address) -> bool:
        """Whether whoever dials `address` on this host gets this node."""
        host, port = address
        if address == self.view().local_node.address:
            return True
        if port != self.config.bind_port:
            return False
        if ipaddress.ip_address(self.config.bind_addr).is_unspecified:
            return ipaddress.ip_address(host).is_loopback or host in addresses.interface_addresses()
        return host == self.config.bind_addr

    def resolve(self, host: str, port: int) -> Future[list[Address]]:
        """Return the addresses of a name, asked for on an exchange thread."""
        return self.run(lambda: addresses.resolve(host, port))

    # -- views --------------------------------------------------------------------------------

    def metrics(self) -> dict[str, int]:
        """Return all counters and gauges."""
        gossip, dispatcher = self.gossip, self.dispatcher
        merged = dict(_ZERO)
        for source in (gossip.machine_metrics, self.counters.snapshot()):
            for name, value in source.items():
                merged[name] = merged.get(name, 0) + value
        view = gossip.view
        merged |= {
            "members": len(view.members) if view is not None else 0,
            "health.score": gossip.health_score,
            "queue.delegates": len(dispatcher) if dispatcher is not None else 0,
            "queue.commands": len(self.mailbox),
            "queue.events": self.subscribers.waiting(),
            "subscribers": len(self.subscribers),
            "exchanges.dialled": self.pool.busy(Lane.DIALLED),
            "exchanges.accepted": len(gossip.lobby.places),
            "tcp.held": gossip.lobby.places.held + self.conversations.dialled.held,
            "tcp.refusing": int(gossip.lobby.places.refusing(clock.now())),
            "exchanges.threads": self.pool.threads(),
            "key.sealed": self._nonces.drawn,
            "log.faults": Log.faults,
            "address.lost": int(gossip.roaming.lost),
            "timers.late_ms": int(1000 * gossip.late(clock.now())),
            "state.local": self.conversations.size_local,
            "state.remote": self.conversations.size_remote,
            "tcp.failing": self.gossip.reach.failing((node.address for node in self._alive(view)), clock.now()),
        }
        return merged | shortage.metrics()

    def _alive(self, view: View | None) -> list[Node]:
        return [] if view is None else [node for node in view.members if node.state == NodeState.ALIVE]

    # -- the end ------------------------------------------------------------------------------

    @property
    def forked(self) -> bool:
        """Whether this process inherited the object through ``fork``."""
        return self._fork.forked

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped

    def stop(self) -> None:
        """Begin to stop everything; does not wait. Idempotent."""
        if self._fork.forked:
            return
        self._stopped = True
        self.gossip.stop()
        self.pool.close()
        self.subscribers.end()
        if self.dispatcher is not None:
            self.dispatcher.stop()

    def join(self, deadline: Deadline) -> bool:
        """Wait for the threads; False if one still runs at the deadline, or is the caller's own."""
        if self._fork.forked:
            return True
        if self.gossip.service.is_current():
            return False  # the others may be waiting for us
        done = self.gossip.service.join(deadline)
        done = self.pool.join(deadline) and done
        if self.dispatcher is not None:
            done = self.dispatcher.join(deadline) and done
        if done:
            lifecycle.forget(self)
        return done

    def abandon(self) -> None:
        """Close this process's copies of the descriptors, in a forked child."""
        self.gossip.close_descriptors()
        self.pool.abandon_sockets()


def _but(layer: Layer | None, hook: T | None) -> T | None:
    """Return `hook`, unless it is the layer."""
    same: object = layer
    return None if hook is same else hook


def _ends(future: Future[Any], seconds: float) -> bool:
    """Wait up to `seconds`, -1 for ever; return whether it has ended."""
    with suppress(Exception):
        future.result(None if seconds < 0 else seconds)
    return future.done()


def _settle(future: Future[Any], result: Any, error: Exception | None) -> None:
    if future.set_running_or_notify_cancel():
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


_ZERO = dict.fromkeys(
    (
        "delegate.faults", "delegate.slow", "dropped.notify_msg", "dropped.merge_remote_state", "events.lost",
        "events.folded", "exchanges.starved", "stalls", "packets_rejected", "tcp.accept", "tcp.accept_errors",
        "tcp.address_refused", "tcp.broken", "tcp.connect", "tcp.crowded", "tcp.dials_dropped", "tcp.displaced",
        "tcp.flooded", "tcp.received", "tcp.rejected", "tcp.sent", "tcp.silent", "tcp.timeouts", "udp.packets_received",
        "udp.packets_sent", "udp.read_errors", "udp.received", "udp.send_dropped", "udp.sent", "udp.write_errors",
        "user.misdirected", "user.replayed",
    ),
    0,
)  # fmt: skip
"""Counters that are there before anything happened, so that a reader need not ask."""
