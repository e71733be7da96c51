"""Services, settings and events on the gossip thread: owns a ``Replica``, and carries what it asks for.

Small messages ride gossip through the delegate that ``supply`` returns, larger
ones and repairs go over the data plane; what arrives there is posted to the
gossip thread. Facades post commands and wait; reads look at the replica's
dicts, which only the gossip thread changes, one step at a time: a copy of a dict
is one step too, of the GIL or of the dict's own lock.
"""

from __future__ import annotations

import math
import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from ..._replica import outputs as replica
from ..._replica.machine import Replica
from ..._replica.outputs import Kept
from ..._replica.share import Share
from ..._swim import events as swim
from ..._swim.broadcasts import TransmitLimitedQueue
from ..._wire.meta import read_meta
from ..._wire.text import logger
from ..._wire.values import encode_value
from ...config import RESERVED
from ...delegates import BaseDelegate, Delegate
from ...events import CacheRedefined
from ...exceptions import MycorrizalError, NotRunningError, PeerUnreachable, QueueFull
from ...types import NodeState
from ..threads import clock
from ..threads.counters import Counters, QuietLog
from ..threads.deadline import Deadline
from ..threads.waits import pause, settled
from .announcing import ANNOUNCE, SECONDS, SPREAD, Announcing, unpacked

if TYPE_CHECKING:
    from ..data.carrier import Answer, Carrier, Done
    from ..swim.membership import Membership

__all__ = ["STALLED", "Sharing"]

log = logger("mycorrizal.agent")

STALLED = RESERVED + "stalled"
"""Topic by which an agent tells that its process stood still."""

_PUSH, _FETCH = b"\0", b"\1"  # ``announcing`` has two more
_FETCH_SECONDS = 5.0
_STATE_SECONDS = 120.0  # a whole state, over a bad network
_REPAIR_SECONDS = 2.0  # between two exchanges of states with a member that some pushes did not reach
_REPAIR_LATEST = 10.0  # before that the repair waits for a moment without pushes
_FULL_SECONDS = 0.05  # until it is looked again whether there is room
_SETTLE_SECONDS = 0.01  # between two looks whether all pushes have arrived
_ROUND_SECONDS = 0.02  # between two rounds of telling everybody: what is told meanwhile shares packets and requests
_BURST_SECONDS = 0.05  # the same while more is told than gossip carries: each packet wakes everybody
_BATCH_MESSAGES, _BATCH_BYTES = 256, 256 << 10  # in one push; so many bytes do not wait for the next round
_STALL_SECONDS = 5.0  # between two times that stalls are told
_WALL_SECONDS = 60.0  # between two looks at the wall clock
_LANE_MAX = 1024  # pushes on their way to one member; what it remembers of events is as much
_LANE_BUSY = 256
_LANE_SECONDS = 1.0  # who answered nothing for so long does not hold up the others any more

T = TypeVar("T")


class Sharing:
    """One agent's replica, its owner's side. Methods say which thread may call them.

    Args:
        name, boot: the agent's.
        meta: returns the node's metadata within a limit; the user's part is an argument. Gossip thread.
        gossip: whether our share may ride gossip; False among Go peers.
        retransmit_mult: of gossip, as in ``Config``.
    """

    def __init__(
        self,
        name: str,
        boot: bytes,
        meta: Callable[[int, Delegate | None], bytes],
        *,
        gossip: bool,
        retransmit_mult: int,
    ) -> None:
        self._name = name
        self._meta = meta
        self._gossip = gossip
        self._up: dict[str, bytes | None] = {}
        self._queue = TransmitLimitedQueue(retransmit_mult, lambda: len(self._up) or 1)
        self._wall_at = clock.now()
        self._round_due = 0.0
        self._stalled = 0.0  # seconds that were not told yet
        self._stall_due = 0.0  # when they may be
        self.replica = Replica(
            name, boot, rng=random.Random(int.from_bytes(os.urandom(16))), queue=self._queue,
            wall=clock.wall_offset(), gossip=gossip, now=self._wall_at,
        )  # fmt: skip
        self.counters = Counters()
        self._user: Delegate | None = None
        self._share = Share(self.replica, None)
        self._quiet = QuietLog(log, name)
        self._carrier: Carrier | None = None
        self._announcing = Announcing(name, self._other_agents, self._suspects, self._ask, self.note)
        self._lanes: dict[str, _Lane] = {}  # pushes on their way, by target; gossip thread
        self._lost: dict[str, float] = {}  # who missed pushes, and when to repair that; the loop only adds
        self._syncs: dict[int, Future[None]] = {}
        self._put_off: deque[tuple[float, Callable[[float], object]]] = deque()  # and when to run it; gossip thread
        self._membership: Membership | None = None
        self.rivals: list[Any] = []  # nodes that claimed our name
        # Called on the gossip thread; what happens before they are set is told to nobody.
        self.on_event: Callable[[replica.Output | CacheRedefined], None] = lambda event: None  # for what is public
        self.on_setting: Callable[[str], None] = lambda key: None  # also of settings of before that come with a join
        self.on_end: Callable[[], None] = lambda: None
        # Of members and of the hidden services that changed; it is told of all of before as soon as it is set.
        self.on_view: Callable[[dict[str, bytes | None], Iterable[tuple[str, str]]], None] | None = None
        self._view_changed = True
        self._services_changed: dict[tuple[str, str], None] = {}

    # -- before the thread starts ----------------------------------------------------------

    def attached(self, membership: Membership) -> None:
        """Know the membership whose thread this will run on."""
        self._membership = membership

    def supply(self, user: Delegate | None) -> Delegate:
        """Return the delegate for the membership machine: ours, with `user` inside."""
        self._user = user
        self._share = Share(self.replica, user)
        return _Supply(self._share, partial(self._node_meta, user), self.waiting, user)

    def _node_meta(self, user: Delegate | None, limit: int) -> bytes:
        return self._meta(limit, user)

    # -- any thread ----------------------------------------------------------------------

    def carry(self, carrier: Carrier) -> None:
        """Use `carrier` from now on."""
        self._carrier = carrier

    def call(self, command: Callable[[float], T], deadline: Deadline, operation: str) -> T:
        """Run `command` on the gossip thread and return its result. Blocks, also while too much waits to be told.

        Raises:
            QueueFull: there was no room before the deadline, or there will not be.
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        membership = self._attached
        membership.guard(operation)
        while True:
            try:
                return membership.wait(membership.mailbox.post(command), deadline, operation)
            except QueueFull as full:
                if not full.retriable or deadline.passed:
                    raise
                pause(deadline.capped(_FULL_SECONDS))

    def tell(self, command: Callable[[float], T], deadline: Deadline, operation: str) -> T:
        """Run a command that tells the others something, as ``call``, once they are not behind. Blocks.

        Raises: as ``call``.
        """

        def step(now: float) -> T:
            self.check(now)
            return command(now)

        return self.call(step, deadline, operation)

    def kept(self, keys: list[str]) -> dict[str, Kept]:
        """Return what a file should hold of `keys`; those that are to be removed are missing. Blocks.

        Raises:
            ServiceCrashed, ForkedProcessError
        """
        try:
            return self.call(lambda now: self.replica.kept(keys), Deadline(None), "settings_file")
        except NotRunningError:
            return self.replica.kept(keys)  # the thread has ended: nobody changes it any more

    def announce(self, service_id: str, record: bytes, deadline: Deadline) -> None:
        """Register a service, and return when every agent that answers within a moment knows of it. Blocks.

        Raises: as ``call``.
        """
        told = Future[list[str]]()

        def register(now: float) -> None:
            self.replica.register(service_id, record, now)
            if self._carrier is None:
                told.set_result([])
            else:
                self._announcing.tell(self.replica.service_message(service_id), told.set_result)

        self.call(register, deadline, "cache")
        if not settled(told, Deadline(deadline.capped(SECONDS))):
            log.info("%s: some agents hear of %s by gossip only", self._name, service_id)

    def _other_agents(self) -> list[str]:
        return [name for name, boot in self._up.items() if boot is not None and name != self._name]

    def _suspects(self) -> set[str]:
        return {node.name for node in self._attached.view().members if node.state == NodeState.SUSPECT}

    def _ask(self, node: str, payload: bytes, timeout: float, done: Done) -> None:
        if self._carrier is None:
            done(None, PeerUnreachable("there is no data plane"))
        else:
            self._carrier.ask(node, payload, timeout, done)

    def sync(self, member: str, deadline: Deadline) -> None:
        """Exchange states with `member` over the data plane. Blocks.

        Raises:
            PeerUnreachable, OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError
        """
        done: Future[None] = Future()

        def begin(now: float) -> None:
            self._syncs[self.replica.sync(member, now)] = done

        self.call(begin, deadline, "join")
        self._attached.wait(done, deadline, "join")

    def settle(self, deadline: Deadline) -> None:
        """Wait until what was pushed to the others has arrived or failed, at most until the deadline. Blocks.

        Raises: as ``call``.
        """

        def waiting(now: float) -> bool:
            self.pump(now)  # what was told just now goes out first
            if self._round_at() is not None:
                return True
            return any(lane.waiting for lane in self._lanes.values())

        while self.call(waiting, deadline, "leave") and not deadline.passed:
            pause(deadline.capped(_SETTLE_SECONDS))

    def serve(self, sender: str, payload: bytes, answer: Answer) -> None:
        """Take a payload of another agent. Loop thread of the data plane."""
        kind, body = payload[:1], payload[1:]
        pushed = unpacked(body, bytes) if kind in (_PUSH, ANNOUNCE) else []

        def take(now: float) -> None:
            for raw in pushed:
                self.replica.receive(raw, now, pushed=True)
            if kind == ANNOUNCE:  # answered a turn later: by then all that follows from it here has happened
                self._tell(lambda then: answer(b""))

        if kind == _PUSH and pushed:
            # Who hears nothing of it compares states with us; who was told that it is here would not.
            if self._tell(take):
                answer(b"")
        elif kind == ANNOUNCE:

            self._tell(take)
        elif kind == SPREAD:

            def spread(now: float) -> None:
                self.replica.receive(body, now, pushed=True)
                self._announcing.pass_on(sender, body, answer)

            self._tell(spread)
        elif kind == _FETCH:
            self._tell(lambda now: answer(self.replica.answer_fetch(body, now)))
        else:
            self.counters.add("share.rejected")
            answer(b"")

    def metrics(self) -> dict[str, int]:
        """Return counters and gauges, ``share.`` in front of their names."""
        counted = {**self.replica.counters, **self.replica.gauges}
        return {**{f"share.{name}": value for name, value in counted.items()}, **self.counters.snapshot()}

    def post(self, command: Callable[[float], T]) -> Future[T]:
        """Run `command` on the gossip thread; the future brings its result."""
        return self._attached.mailbox.post(command)

    def note(self, command: Callable[[float], object]) -> None:
        """Run `command` on the gossip thread, soon; nothing happens after its end. Never refused, and never blocks.

        For what must not be lost: `command` raises nothing, and who calls has at most one waiting.
        """
        self._attached.mailbox.tell(command)

    def _tell(self, command: Callable[[float], object]) -> bool:
        """Run `command` on the gossip thread, soon; False if too much waits there already, or it has ended."""
        try:
            return self._attached.mailbox.tell(command, bounded=True)
        except QueueFull:
            self.counters.add("share.dropped")
            return False

    @property
    def _attached(self) -> Membership:
        assert self._membership is not None
        return self._membership

    # -- the gossip thread ------------------------------------------------------------------

    def take_message(self, data: bytes, now: float) -> bytes | None:
        return self._share.take_message(data, now)

    def take_state(self, data: bytes, join: bool, now: float, answer: bool) -> bytes:
        return self._share.take_state(data, join, now, answer=answer)

    def observe(self, event: swim.Event, now: float) -> None:
        match event:
            case swim.NodeJoined(node=node) | swim.NodeUpdated(node=node):
                boot = read_meta(node.meta).boot
                self._view_changed |= self._up.get(node.name, b"") != boot
                self._up[node.name] = boot
                self.replica.member_up(node.name, boot, now)
            case swim.NodeLeft(node=node):
                self._view_changed = True
                self._up.pop(node.name, None)
                self._lanes.pop(node.name, None)
                self.replica.member_down(node.name, now)
            case swim.NodeConflict(existing=existing, other=other) if existing.name == self._name:
                self.rivals = [other, *self.rivals[:7]]
            case swim.Stalled(seconds=seconds):
                self.on_stall(seconds, now)

    def on_stall(self, seconds: float, now: float) -> None:
        """Tell the others how long this process stood still, of several stalls in a row the sum."""
        self._stalled += seconds
        self._tell_stalls(now)

    def _tell_stalls(self, now: float) -> None:
        if not self._stalled or now < self._stall_due:
            return
        seconds, self._stalled, self._stall_due = self._stalled, 0.0, now + _STALL_SECONDS
        try:
            self.replica.publish(STALLED, encode_value(seconds).pack(), now)
        except MycorrizalError as error:
            log.warning("%s: a stall of %.1f s could not be told: %s", self._name, seconds, error)

    def later(self, command: Callable[[float], object], now: float) -> None:
        """Run `command` in a moment: what it had to tell found no room. Gossip thread; for what ``note`` is for."""
        self._put_off.append((now + _FULL_SECONDS, command))

    def get_timer(self) -> float | None:
        due = self.replica.get_timer()
        if self._stalled:
            due = min(self._stall_due, math.inf if due is None else due)
        if (at := self._round_at()) is not None:
            due = min(at, math.inf if due is None else due)
        return min(self._put_off[0][0], math.inf if due is None else due) if self._put_off else due

    def handle_timer(self, now: float) -> None:
        self.replica.handle_timer(now)
        self._tell_stalls(now)
        while self._put_off and self._put_off[0][0] <= now:
            self._put_off.popleft()[1](now)

    def pump(self, now: float) -> None:
        if now - self._wall_at > _WALL_SECONDS:
            self._wall_at = now
            self.replica.set_wall(clock.wall_offset())
        if self._lost:
            self._repair(now)
        if (at := self._round_at()) is not None and now >= at:
            self._tell_all(now)
        for fetch in self.replica.fetches_to_start():
            self._fetch(fetch)
        while (event := self.replica.next_event()) is not None:
            match event:
                case replica.SyncDone():
                    self._synced(event)
                case replica.MessageRejected(reason=reason):
                    self.counters.add("share.rejected")
                    self._quiet.warning("share", "what another agent shares was refused: %s", reason)
                case _:
                    if isinstance(event, (replica.SettingChanged, replica.DeletionChanged)):
                        self.on_setting(event.key)
                    elif isinstance(event, replica.ServiceChanged) and event.service_id.startswith(RESERVED):
                        self._services_changed[event.node, event.service_id] = None
                        continue
                    self.on_event(event)
        if self.on_view is not None and (self._view_changed or self._services_changed):
            services, self._services_changed = self._services_changed, {}
            self._view_changed = False
            self.on_view(self._up, services)

    def _round_at(self) -> float | None:
        """Return when what waits is to be told, None if nothing does."""
        replica = self.replica
        if replica.push_bytes >= _BATCH_BYTES:
            return 0.0
        return self._round_due if replica.direct_waiting or replica.push_bytes else None

    def _tell_all(self, now: float) -> None:
        self._round_due = now + (_BURST_SECONDS if self.replica.batch_waiting else _ROUND_SECONDS)
        if self.replica.direct_waiting:
            told, names = self.replica.direct_to_send(now)
            self._attached.machine.send_users([self._share.ours(one) for one in told], names, now)
        for targets, pushes in groupby(self.replica.pushes_to_send(), key=attrgetter("targets")):
            for batch in _batches([push.payload for push in pushes]):
                payload = _PUSH + encode_value(batch).pack()
                for target in targets:
                    if target in self._up:  # it may have gone since
                        self._push(target, payload, len(batch), now)

    def publish(self, topic: str, value: bytes, now: float) -> int:
        """Tell an event; see ``Replica.publish``. Gossip thread.

        Raises:
            QueueFull: as ``check``.
        """
        self.check(now)
        return self.replica.publish(topic, value, now)

    def check(self, now: float) -> None:
        """Refuse to tell the others more than they can take. Gossip thread.

        Raises:
            QueueFull: a member that does answer is behind with what was pushed to it.
        """
        if any(lane.busy(now) for lane in self._lanes.values()):
            raise QueueFull("the others are behind with what was told", hint="tell less a second, or try again")

    def _push(self, target: str, payload: bytes, count: int, now: float) -> None:
        lane = self._lanes.setdefault(target, _Lane(now))
        if self._carrier is None or lane.waiting >= _LANE_MAX:
            self.counters.add("share.pushes_dropped", count)
            self._lost.setdefault(target, now + _REPAIR_SECONDS)
            return

        def done(answer: bytes | None, error: MycorrizalError | None) -> None:
            lane.ended += count
            if error is None:
                lane.moved = clock.now()
            else:
                self.counters.add("share.pushes_failed", count)
                self._lost.setdefault(target, clock.now() + _REPAIR_SECONDS)

        if not lane.waiting:
            lane.moved = now
        lane.begun += count
        self._carrier.ask(target, payload, _FETCH_SECONDS, done)

    def _repair(self, now: float) -> None:
        """Compare states with those who missed pushes: nobody asks for a setting that it has never heard of."""
        for target, due in [one for one in list(self._lost.items()) if one[1] <= now]:
            lane = self._lanes.get(target)
            if lane is None:
                del self._lost[target]  # no member any more; if it comes back, states are exchanged
            elif not lane.waiting or now - due > _REPAIR_LATEST:
                try:
                    self.replica.sync(target, now)
                    del self._lost[target]
                    self.counters.add("share.repairs")
                except QueueFull:
                    self._lost[target] = now + _REPAIR_SECONDS

    def _fetch(self, fetch: replica.Fetch) -> None:
        def done(answer: bytes | None, error: MycorrizalError | None) -> None:
            if answer is None:
                self._attached.mailbox.tell(lambda now: self.replica.fetch_failed(fetch.fetch_id, now))
            else:
                self._attached.mailbox.tell(lambda now: self.replica.fetched(fetch.fetch_id, answer, now))

        if self._carrier is None:
            done(None, None)
        else:
            seconds = _STATE_SECONDS if fetch.whole else _FETCH_SECONDS
            self._carrier.ask(fetch.member, _FETCH + fetch.payload, seconds, done)

    def _synced(self, event: replica.SyncDone) -> None:
        future = self._syncs.pop(event.sync_id, None)
        if future is not None and future.set_running_or_notify_cancel():
            if event.error is None:
                future.set_result(None)
            else:
                future.set_exception(PeerUnreachable(event.error, operation="join"))

    def waiting(self) -> bool:
        return self._user is not None or len(self._queue) > 0  # a user's delegate does not tell, and has to be asked

    def ended(self) -> None:
        self.on_end()
        syncs, self._syncs = self._syncs, {}
        for future in syncs.values():
            if future.set_running_or_notify_cancel():
                future.set_exception(self._attached.gossip.service.refusal(sent=True))


def _batches(messages: list[bytes]) -> Iterator[list[bytes]]:
    """Yield `messages` in lists that go as one: not too many, and not too many bytes unless it is a single one."""
    batch: list[bytes] = []
    size = 0
    for message in messages:
        if batch and (len(batch) >= _BATCH_MESSAGES or size + len(message) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += len(message)
    if batch:
        yield batch


class _Lane:
    """Pushes on their way to one member. ``begun`` is the gossip thread's, ``ended`` the loop's, each a single step."""

    __slots__ = ("begun", "ended", "moved")

    def __init__(self, now: float) -> None:
        self.begun = 0
        self.ended = 0
        self.moved = now

    @property
    def waiting(self) -> int:
        return self.begun - self.ended

    def busy(self, now: float) -> bool:
        return self.waiting >= _LANE_BUSY and now - self.moved < _LANE_SECONDS


class _Supply(BaseDelegate):
    """What the membership machine asks; the user's share is inside ``Share``."""

    def __init__(
        self, share: Share, meta: Callable[[int], bytes], waiting: Callable[[], bool], user: Delegate | None
    ) -> None:
        self.waiting = waiting
        self._share = share
        self._meta = meta
        leaving: Callable[[], bytes] | None = getattr(user, "leaving", None)
        if leaving is not None:
            self.leaving = leaving

    def node_meta(self, limit: int) -> bytes:
        return self._meta(limit)

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        return self._share.get_broadcasts(overhead, limit)

    def local_state(self, join: bool) -> bytes:
        return self._share.local_state(join)
