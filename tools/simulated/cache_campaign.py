"""A campaign against the cache: faults of every kind while clients work, then calm, and everything is checked.

The kinds, by what may be claimed:

* ``stable``: calls are lost and slow and wall clocks wrong, but nobody comes or goes. Histories are linearizable,
  locks exclusive.
* ``crashes``: one process at a time dies, some restart at once under the same name, some leave in good order; the next
  fault waits for ``synced``. Nothing acknowledged is lost, and all of the above.
* ``partitions``: networks split, the living are held for dead. Afterwards all copies agree on the newest acknowledged
  write of every key.
* ``bounds``: a cache with room for little, entries that expire, few tombstones, and any of the faults. Bounds hold at
  any time, nothing deleted or overwritten comes back, and what expired leaves no trace.
* ``near``: near copies, lost notices and crashes. Nothing is read for longer than is promised, nor after a write of
  the same node what was before it.
* ``computing``: callers compute under leases while others write, delete, pop and clear, and entries expire; storms, and
  in every other campaign crashes. What was computed before a change is not stored after it. Histories are linearizable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from mycorrizal._cache.definition import Definition, Limits
from mycorrizal._cache.machine import CacheMachine
from mycorrizal.simulation.checkers import CheckFailed
from mycorrizal.simulation.faults import Faults

from .cache_checkers import (
    check_bounds,
    check_computed,
    check_converged,
    check_copies,
    check_linearizable,
    check_locks,
    check_near,
    check_newest,
    check_no_trace,
    check_nothing_old,
    check_own_writes,
    check_withdrawn,
)
from .cache_cluster import CacheCluster, CacheNode
from .cache_computing import ComputingClients, lasting
from .cache_history import ALL_KINDS, Clients

__all__ = ["KINDS", "CacheReport", "run_cache_campaign"]

KINDS = ("stable", "crashes", "partitions", "bounds", "near", "computing")

_WEATHER = Faults(loss=0.02, delay=0.0005, jitter=0.005, exchange_slow=0.02, exchange_slow_by=0.5)
_STORM = Faults(loss=0.2, delay=0.001, jitter=0.05, exchange_slow=0.2, exchange_slow_by=1.0)
_CALM = Faults()
_SYNC_MAX = 30.0
_NEAR_KINDS = ("near", "near", "near", "near", "near", "near", "set", "delete", "incr")


@dataclass(slots=True)
class CacheReport:
    """What a campaign did; ``str()`` gives one line."""

    seed: object
    kind: str
    nodes: int
    replicas: int
    operations: int = 0
    unknown: int = 0
    refused: int = 0
    locks: int = 0
    keys: int = 0
    undecided: int = 0
    computed: int = 0
    near_reads: int = 0
    near_oldest: float = 0.0
    evicted: int = 0
    synced_after: list[float] = field(default_factory=list)
    actions: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    digest: str = ""
    steps: int = 0

    def __str__(self) -> str:
        done = " ".join(f"{name}={count}" for name, count in sorted(self.actions.items()))
        slowest = max(self.synced_after, default=0.0)
        return (
            f"seed {self.seed!r}: {self.kind}, {self.nodes} nodes, {self.replicas} copies, {self.operations} operations"
            f" ({self.unknown} unknown, {self.refused} refused), {self.locks} locks, synced within {slowest:.1f} s;"
            + (f" {self.near_reads} near reads, {self.near_oldest:.2f} s old at most;" if self.near_reads else "")
            + (f" {self.computed} computed;" if self.computed else "")
            + (f" {self.evicted} evicted;" if self.evicted else "")
            + f" {done}"
        )


def run_cache_campaign(
    seed: object,
    *,
    kind: str | None = None,
    duration: float = 8.0,
    machine: type[CacheMachine] = CacheMachine,
    definition: Definition | None = None,
    limits: Limits | None = None,
) -> CacheReport:
    """Run one campaign, a function of its arguments.

    Args:
        seed: of everything, the kind included unless `kind` says it.
        kind: one of ``KINDS``.
        duration: seconds of faults.
        machine: the class to run; tests plant faults in a subclass.
        definition: of the cache, which is named ``cache``; by default as the kind needs it.
        limits: of the machines.

    Raises:
        CheckFailed: a rule was broken; carries seed and time.
    """
    return _Campaign(seed, kind, duration, machine, definition, limits).run()


class _Campaign:
    def __init__(
        self,
        seed: object,
        kind: str | None,
        duration: float,
        machine: type[CacheMachine],
        definition: Definition | None,
        limits: Limits | None,
    ) -> None:
        self.rng = rng = Random(f"{seed}/campaign")
        drawn, nodes, replicas = rng.choice(KINDS[:5]), rng.choice((3, 4, 5)), rng.choice((2, 2, 3))
        skew = rng.choice((0.0, 1.0, 3600.0))
        spread = rng.choice((0.05, 0.5, 1.5))
        dealt = Random(f"{seed}/kind").random()  # beside the others' dice, so that their seeds stay what they were
        self.kind = kind or ("computing" if dealt < 0.25 else drawn)
        self.still = dealt * 8 % 2 < 1  # of computing: nobody comes or goes
        definition = definition or _definition(self.kind, replicas, rng)
        limits = limits or (Limits(graves=6, graves_age=3.0) if self.kind == "bounds" else Limits())
        self.cluster = CacheCluster(
            nodes, seed=seed, definition=definition, limits=limits, faults=_WEATHER, skew=skew, spread=spread,
            machine=machine, telling=True,
        )  # fmt: skip
        self.duration = duration
        self.report = CacheReport(seed, self.kind, nodes, definition.replicas)
        if self.kind == "bounds":
            self.clients = Clients(self.cluster, seed, keys=30, think=0.3, kinds=ALL_KINDS)
        elif self.kind == "near":
            self.clients = Clients(self.cluster, seed, think=0.05, kinds=_NEAR_KINDS)
        elif self.kind == "computing":
            self.clients = self.computing = ComputingClients(self.cluster, seed, still=self.still)
        else:
            self.clients = Clients(self.cluster, seed, keys=40 if self.kind == "partitions" else 6)

    def fail(self, checker: str, text: str) -> CheckFailed:
        return CheckFailed(checker, self.cluster.now, text, seed=self.report.seed)

    def run(self) -> CacheReport:
        actions: dict[str, Callable[[], None]] = {
            "stable": self._storm,
            "crashes": self._crash,
            "partitions": self._divide,
            "bounds": self._anything,
            "near": self._storm_or_crash,
            "computing": self._redefine_or(self._storm if self.still else self._crash),
        }
        while self.cluster.now < self.duration:
            self.cluster.run(self.rng.expovariate(1.0))
            actions[self.kind]()
            check_bounds(self.cluster, self.fail)
        self._calm()
        self._check()
        return self._summed_up()

    # -- faults -------------------------------------------------------------------------

    def _redefine_or(self, fault: Callable[[], None]) -> Callable[[], None]:
        """Give the cache other settings first, now and then; the fault may come before all have heard."""

        def act() -> None:
            if self.rng.random() < 0.3:
                self.report.actions["redefine"] += 1
                replicas, ttl = self.rng.choice((2, 3)), self.rng.choice((None, 60.0))
                definition = replace(self.cluster.definition, replicas=replicas, ttl=ttl)
                self.cluster.redefine(self.rng.choice(self.cluster.running), definition)
                if not self.still:  # a copy that is not made yet cannot survive a crash
                    self.cluster.run(2 * self.cluster.spread)
                    self._wait_synced()
            fault()

        return act

    def _storm(self) -> None:
        self.report.actions["storm"] += 1
        self.cluster.faults = _STORM
        self.cluster.run(self.rng.random() * 2)
        self.cluster.faults = _WEATHER

    def _crash(self) -> None:
        """One process dies. If it was not noticed in between, that was a restart under the same name and port."""
        node = self.rng.choice(self.cluster.nodes)
        if self.rng.random() < 0.2:
            self._retire(node)
            return
        at_once, down = self.rng.random() < 0.5, self.rng.random() * 4
        self.cluster.crash(node, noticed=not at_once)
        if at_once:
            self.report.actions["restart"] += 1
            self.cluster.run(self.rng.random() * 0.2)
        else:
            self.report.actions["crash"] += 1
            self.cluster.run(down)
            if self.rng.random() < 0.5:
                self._wait_synced()
        self.cluster.restart(node)
        self._wait_synced(node)

    def _divide(self) -> None:
        nodes = self.cluster.nodes
        what, seconds = self.rng.random(), self.rng.random() * 6
        if what < 0.5:
            self.report.actions["partition"] += 1
            side = {node.index for node in nodes if self.rng.random() < 0.5}
            self.cluster.split(side)
            self.cluster.run(seconds)
            self.cluster.heal()
        else:
            self.report.actions["false_death"] += 1
            observers = [node for node in nodes if what < 0.75 or self.rng.random() < 0.5]
            subject = self.rng.choice(nodes)
            self.cluster.suspect([node for node in observers if node is not subject], subject, seconds)
        self.cluster.run(self.rng.random() * 2)

    def _retire(self, node: CacheNode) -> None:
        """The process hands over what it has, and ends."""
        self.report.actions["retire"] += 1
        if not self.cluster.retire(node, 20.0):
            raise self.fail("retire", f"{node.name} still holds copies after 20 s")
        self.cluster.restart(node)
        self._wait_synced(node)

    def _anything(self) -> None:
        self.rng.choice((self._storm, self._divide, self._restart))()

    def _restart(self) -> None:
        """Crash without waiting for anything."""
        node = self.rng.choice(self.cluster.nodes)
        self.report.actions["crash"] += 1
        self.cluster.crash(node)
        self.cluster.run(self.rng.random() * 3)
        self.cluster.restart(node)

    def _storm_or_crash(self) -> None:
        self.rng.choice((self._storm, self._storm, self._crash))()

    # -- checks -------------------------------------------------------------------------

    def _wait_synced(self, restarted: CacheNode | None = None) -> None:
        """Wait for ``synced`` as a caller on one node sees it, and see whether it is true.

        That node is the one that has `restarted`, if any: the others may all not have heard of it, and agree.
        """
        drawn: CacheNode = self.rng.choice(self.cluster.running)  # in any case, so that a seed stays what it was
        node = restarted or drawn
        answers: list[object] = []
        began = self.cluster.now
        name = self.cluster.definition.name

        def done(answer: object) -> None:
            answers.append(answer)
            if answer and self.kind != "bounds":  # there, any copy may be evicted
                check_copies(self.cluster, node, lasting(self.clients.events), self.fail)

        self.cluster.ask(node, lambda machine, ticket, now: machine.synced(name, ticket, now + _SYNC_MAX, now), done)
        self.cluster.run_until(lambda: bool(answers), _SYNC_MAX + 1)
        if answers != [True]:
            raise self.fail("synced", f"not after {_SYNC_MAX} s: {answers}")
        self.report.synced_after.append(self.cluster.now - began)

    def _calm(self) -> None:
        self.cluster.links.heal()
        self.cluster.faults = _CALM
        self.cluster.run(4 * self.cluster.spread + 6.0)
        self.cluster.set_views()
        self.clients.stopped = True
        self.cluster.run(8.0)
        self._wait_synced()
        check_nothing_old(self.cluster, self.clients.events, self.fail)
        self.cluster.run(16.0 if self.kind == "bounds" else 4.0)

    def _check(self) -> None:
        clients, fail, kind = self.clients, self.fail, self.kind
        check_bounds(self.cluster, fail)
        if kind == "bounds":
            check_no_trace(self.cluster, fail)
        else:
            check_nothing_old(self.cluster, clients.events, fail)
            check_newest(self.cluster, lasting(clients.events), fail)
            check_converged(self.cluster, fail)
        if kind == "computing":
            check_computed(self.computing.computed, clients.events, self.still, fail)
            if self.still:
                check_withdrawn(self.cluster, fail)
            self.report.computed = len(self.computing.computed)
        if kind in ("stable", "crashes", "computing"):
            self.report.keys, self.report.undecided = check_linearizable(clients.events, fail)
            check_locks(clients.locks, fail)
        if kind == "near":
            self.report.near_reads = sum(read.copy for read in clients.near)
            self.report.near_oldest = check_near(self.cluster, clients.near, clients.events, fail)
            check_own_writes(clients.near, clients.events, clients.per_node, fail)
        if len(clients.events) < 50 or not self.report.actions or (kind == "near" and not self.report.near_reads):
            raise fail("vacuous", f"{len(clients.events)} operations, {self.report.actions}")

    def _summed_up(self) -> CacheReport:
        report, clients = self.report, self.clients
        report.operations = len(clients.events)
        report.unknown, report.refused, report.locks = clients.unknown, clients.refused, len(clients.locks)
        report.digest, report.steps = self.cluster.digest, self.cluster.steps
        report.counters = Counter(self.cluster.counters)
        for node in self.cluster.running:
            report.counters.update(node.machine.counters())
            report.evicted += node.machine.info(self.cluster.definition.name)["evicted"]
        return report


def _definition(kind: str, replicas: int, rng: Random) -> Definition:
    if kind == "bounds":
        most = rng.choice((10, 20, None))
        return Definition("cache", replicas=replicas, max_entries=most, max_bytes=None if most else 6000)
    return Definition("cache", replicas=replicas, near=kind == "near")
