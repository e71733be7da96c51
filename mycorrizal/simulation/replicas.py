"""Replicas beside the machines of a ``Cluster``: their messages ride its gossip and its push/pull.

What the runtime carries over QUIC, pushes and fetches, is modelled here: it
takes as long as a conversation of the network, arrives whole or not at all,
and needs a connection between the two when it sets out and when it arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from .._replica.limits import BOOT_BYTES, Limits
from .._replica.machine import Replica
from .._replica.outputs import Fetch, Output, SyncDone
from .._replica.share import Share
from .._swim.broadcasts import TransmitLimitedQueue
from .._swim.events import Event, NodeJoined, NodeLeft, NodeUpdated, OperationDone
from ..delegates import Delegate
from .cluster import Cluster
from .faults import Condition
from .members import Member, SimulatedDelegate

__all__ = ["ReplicaDelegate", "Replicas"]

WALL = 1_700_000_000.0
"""What an honest wall clock shows at the start."""

_TIMEOUT = 2.0  # seconds until a fetch that reaches nobody has failed
_REJOIN = 2.0


class ReplicaDelegate(SimulatedDelegate):
    """A member's delegate with a replica in it, as the runtime has one."""

    def __init__(self, meta: bytes, replica: Replica, user: Delegate | None, now: Callable[[], float]) -> None:
        super().__init__(meta)
        self.replica = replica
        self._share = Share(replica, user)
        self._now = now

    def notify_msg(self, data: bytes) -> None:
        rest = self._share.take_message(data, self._now())
        if rest is not None:
            self.messages.append(rest)

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        return self._share.get_broadcasts(overhead, limit)

    def local_state(self, join: bool) -> bytes:
        return self._share.local_state(join)

    def merge_remote_state(self, buf: bytes, join: bool) -> None:
        rest = self._share.take_state(buf, join, self._now())
        if rest:
            self.states.append(rest)


class Replicas:
    """A cluster whose members each have a replica.

    Args:
        seed: of everything.
        limits, gossip: of the replicas.
        machine: the class to run; tests plant faults in a subclass.
        arguments: as for ``Cluster``.

    Attributes:
        watchers: asked for each thing a replica says, as it happens: (member, output).
    """

    def __init__(
        self,
        seed: object = 0,
        *,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        gossip: bool = True,
        machine: type[Replica] = Replica,
        **arguments: Any,
    ) -> None:
        self.cluster = Cluster(seed, supply=self._supply, **arguments)
        self.watchers: list[Callable[[Member, Output], None]] = []
        self.skews: dict[int, float] = {}
        self._limits = limits
        self._gossip = gossip
        self._machine = machine
        self._random = Random(f"{seed}/replicas")
        self._filed: dict[int, float] = {}
        self._joins: dict[tuple[int, int], tuple[Member, Callable[[], Member]]] = {}
        self._ready: dict[int, float] = {}
        self._syncs: dict[tuple[int, int], Callable[[], Member]] = {}
        self._lives: dict[str, Member] = {}
        self._skew = 0.0
        self.cluster.watchers.append(self)

    # -- members ------------------------------------------------------------------------

    def add(self, *, skew: float = 0.0, first: bool = False) -> Member:
        """Start a member whose wall clock is `skew` seconds ahead; the first joins nobody."""
        self._skew = skew
        member = self.cluster.add(meta=self._meta())
        return self._entered(member, first)

    def restart(self, member: Member, *, skew: float = 0.0, restore: bool = False) -> Member:
        """Start a new life of a member that crashed, with its settings out of a file if `restore`."""
        self._skew = skew
        kept = self.of(member).settings_entries() if restore else []
        new = self._entered(self.cluster.restart(member, meta=self._meta()), False)
        away = 0.0 if member.ended is None else self.cluster.clock.now - member.ended
        self.of(new).restore([(data, age + away if age else 0.0) for data, age in kept], self.cluster.clock.now)
        return new

    def join(self, member: Member, other: Callable[[], Member]) -> None:
        """Let `member` join at what `other` returns, again and again until it succeeds."""
        if member.alive and member.index not in self._ready:
            seed = other()
            operation = self.cluster.join(member, seed)
            self._joins[member.index, operation] = seed, other

    def joined_at(self, member: Member) -> float | None:
        """Return when the member's join was done."""
        return self._ready.get(member.index)

    def of(self, member: Member) -> Replica:
        """Return a member's replica."""
        assert isinstance(member.delegate, ReplicaDelegate)
        return member.delegate.replica

    def life(self, name: str) -> Member | None:
        """Return the latest life of a name."""
        return self._lives.get(name)

    @property
    def alive(self) -> list[Member]:
        """Members whose process exists."""
        return self.cluster.alive

    def do(self, member: Member, action: Callable[[Replica, float], object]) -> None:
        """Run `action` on a member's replica, and carry what follows."""
        action(self.of(member), self.cluster.clock.now)
        self.pump(member)

    # -- the cluster's watcher --------------------------------------------------------------

    def event(self, member: Member, event: Event, now: float) -> None:
        """Tell the replica who is a member, and carry what follows of any event."""
        replica = self.of(member)
        match event:
            case NodeJoined(node) | NodeUpdated(node):
                replica.member_up(node.name, node.meta[2 : 2 + BOOT_BYTES] or None, now)
            case NodeLeft(node):
                replica.member_down(node.name, now)
            case OperationDone(operation, _, error):
                join = self._joins.pop((member.index, operation), None)
                if join is not None and error is not None:
                    self._join_later(member, join[1])
                elif join is not None and self._gossip:
                    self._joined(member)
                elif join is not None:  # the state did not come with the join
                    self._syncs[member.index, replica.sync(join[0].name, now)] = join[1]
        self.pump(member)

    def changed(self, member: Member, now: float) -> None:
        """Nothing: the events say it all."""

    # -- outputs ------------------------------------------------------------------------------

    def pump(self, member: Member) -> None:
        """Pull every output of a replica, then file its next timer."""
        replica, now = self.of(member), self.cluster.clock.now
        if replica.direct_waiting:
            told, names = replica.direct_to_send(now)
            self.cluster.send_users(member, [Share.ours(one) for one in told], names)
        for push in replica.pushes_to_send():
            for target in push.targets:
                fate = self.cluster.network.converse()
                if fate.cut_request == fate.cut_answer == 1.0:
                    self.cluster.at(now + fate.there, self._pushed, member, target, push.payload)
        for fetch in replica.fetches_to_start():
            fate = self.cluster.network.converse()
            if fate.cut_request < 1.0 or not self._reaches(member, fetch.member):
                self.cluster.at(now + _TIMEOUT, self._fetch_ended, member, fetch, None)
            else:
                self.cluster.at(now + fate.there, self._fetching, member, fetch, fate.back, fate.cut_answer < 1.0)
        while (output := replica.next_event()) is not None:
            if isinstance(output, SyncDone) and (again := self._syncs.pop((member.index, output.sync_id), None)):
                self._joined(member) if output.error is None else self._join_later(member, again)
            for watcher in self.watchers:
                watcher(member, output)
        timer = replica.get_timer()
        filed = self._filed.get(member.index)
        if timer is not None and (filed is None or timer < filed or filed < now):
            self._filed[member.index] = timer
            self.cluster.at(timer, self._timer, member, timer)

    # -- private --------------------------------------------------------------------------------

    def _joined(self, member: Member) -> None:
        self._ready.setdefault(member.index, self.cluster.clock.now)
        self.of(member).joined(self.cluster.clock.now)

    def _join_later(self, member: Member, other: Callable[[], Member]) -> None:
        self.cluster.at(self.cluster.clock.now + _REJOIN * self._random.uniform(0.5, 1.0), self.join, member, other)

    def _supply(self, member: Member, meta: bytes) -> SimulatedDelegate:
        boot = meta[2:]
        self.skews[member.index] = self._skew
        queue = TransmitLimitedQueue(member.config.retransmit_mult, lambda: len(member.machine.members()))
        replica = self._machine(
            member.name,
            boot,
            rng=Random(f"{self.cluster.seed}/{member.index}/replica"),
            queue=queue,
            wall=WALL + self._skew,
            gossip=self._gossip,
            limits=self._limits,
            now=self.cluster.clock.now,
        )
        self._lives[member.name] = member
        return ReplicaDelegate(meta, replica, None, lambda: self.cluster.clock.now)

    def _entered(self, member: Member, first: bool) -> Member:
        if first:
            self._ready[member.index] = self.cluster.clock.now
            self.of(member).joined(self.cluster.clock.now)
        self.pump(member)
        return member

    def _meta(self) -> bytes:
        return b"\0\0" + self._random.randbytes(BOOT_BYTES)

    def _runs(self, member: Member) -> bool:
        return member.condition is Condition.RUNNING

    def _reaches(self, member: Member, name: str) -> bool:
        target = self._lives.get(name)
        return target is not None and self._runs(target) and self.cluster.network.connects(member.slot, target.slot)

    def _timer(self, member: Member, when: float) -> None:
        if self._runs(member) and self._filed.get(member.index) == when:
            del self._filed[member.index]
            self.of(member).handle_timer(self.cluster.clock.now)
            self.pump(member)

    def _pushed(self, member: Member, target: str, payload: bytes) -> None:
        if self._reaches(member, target):
            self.do(self._lives[target], lambda replica, now: replica.receive(payload, now, pushed=True))

    def _fetching(self, member: Member, fetch: Fetch, back: float, cut: bool) -> None:
        now = self.cluster.clock.now
        if not self._reaches(member, fetch.member):
            self.cluster.at(now + _TIMEOUT, self._fetch_ended, member, fetch, None)
            return
        target = self._lives[fetch.member]
        answer = self.of(target).answer_fetch(fetch.payload, now)
        self.pump(target)
        self.cluster.at(now + back, self._fetch_ended, member, fetch, None if cut else answer)

    def _fetch_ended(self, member: Member, fetch: Fetch, answer: bytes | None) -> None:
        if not self._runs(member):
            return
        if answer is None:
            self.do(member, lambda replica, now: replica.fetch_failed(fetch.fetch_id, now))
        else:
            data = answer
            self.do(member, lambda replica, now: replica.fetched(fetch.fetch_id, data, now))
