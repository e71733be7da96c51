"""Campaigns against settings, services and events; each is a function of its seed.

* ``run_settings_campaign``: writes and deletions from all sides, clocks up to
  an hour off, a partition with writes on both sides, crashes and restarts.
  Afterwards every node has the same settings, and what was deleted stays so.
* ``run_joins``: one joiner after the other has every setting and service at
  the moment its join is done.
* ``run_events``: every node gets every event once, in order, though the
  network loses datagrams.

What was injected is counted: a campaign in which nothing happened fails as vacuous.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from .._replica.clock import Stamp
from .._replica.limits import Limits
from .._replica.machine import Replica
from ..config import Config
from .checkers import CheckFailed
from .faults import Condition, Faults
from .members import Member
from .replica_checkers import (
    EventChecker,
    ServiceChecker,
    SettingChecker,
    check_events_even,
    check_everything_there,
    check_services,
    check_settings,
    check_writes,
    entries,
)
from .replicas import Replicas

__all__ = ["EventsReport", "JoinsReport", "SettingsReport", "run_events", "run_joins", "run_settings_campaign"]

WEATHER = Faults(loss=0.03, jitter=0.02, duplicate=0.02, reorder=0.02, exchange_slow=0.05, exchange_cut=0.03)
_START, _SPLIT, _HEAL = 6.0, 10.0, 40.0
_AFTER = (0.0, 6.0)  # seconds of writes after the partition
_CALM = 150.0
_SKEW = 3600.0
_KEYS = [f"key{number}" for number in range(6)]


def _set(replicas: Replicas, member: Member, key: str, value: bytes | None) -> None:
    replicas.do(member, lambda replica, now: replica.set_setting(key, value, now))


def _register(replicas: Replicas, member: Member, service: str, record: bytes) -> None:
    replicas.do(member, lambda replica, now: replica.register(service, record, now))


def _publish(replicas: Replicas, member: Member, value: bytes) -> None:
    replicas.do(member, lambda replica, now: replica.publish("topic", value, now))


def _config() -> Config:
    return Config.local(
        name="template", reconnect_interval=2.0, push_pull_interval=5.0,
        enable_compression=False, gossip_interval=0.25,  # half of the cost of a run, and tested elsewhere
    )  # fmt: skip


@dataclass(slots=True)
class SettingsReport:
    """What one campaign did. ``str()`` gives one line."""

    seed: object
    members: int
    calm: float = 0.0
    """Seconds from the end of all faults until all agreed."""
    steps: int = 0
    done: dict[str, int] = field(default_factory=dict)
    missed: int = 0
    """Events that some node was told it missed: their sender crashed before it could be asked."""

    def __str__(self) -> str:
        done = " ".join(f"{kind}={count}" for kind, count in sorted(self.done.items()))
        return (
            f"seed {self.seed!r}: {self.members} members, calm after {self.calm:.1f} s, {self.steps} steps; {done} "
            f"missed={self.missed}"
        )


def run_settings_campaign(
    seed: object, *, gossip: bool = True, machine: type[Replica] = Replica
) -> SettingsReport:
    """Run one campaign of about a virtual minute.

    Args:
        seed: of everything.
        gossip: whether messages ride gossip; if not, pushes and comparisons of whole states do it all.
        machine: the class to run; tests plant faults in a subclass.

    Raises:
        CheckFailed: a rule was broken, or nothing was injected; carries seed and time.
    """
    try:
        return _Settings(seed, gossip, machine).run()
    except CheckFailed as failed:
        raise CheckFailed(failed.checker, failed.time, failed.text, seed=seed) from None


class _Settings:
    def __init__(self, seed: object, gossip: bool, machine: type[Replica]) -> None:
        self._random = Random(f"{seed}/settings")
        limits = Limits(gossip_backlog=Random(f"{seed}/backlog").choice((0, 1, 128)))  # the rest is batched
        self._replicas = Replicas(
            seed, gossip=gossip, machine=machine, config=_config(), faults=WEATHER, digest=False, limits=limits
        )
        self._cluster = self._replicas.cluster
        self._report = SettingsReport(seed, self._random.randint(3, 5))
        self._writes: list[tuple[Member, str, Stamp, bytes | None]] = []
        self._services: dict[int, dict[str, bytes]] = {}
        self._founders: list[Member] = []
        self._side: list[int] = []
        self._restarting = 0
        self._events = EventChecker(self._replicas)
        self._view = ServiceChecker(self._replicas)
        self._replicas.watchers += [self._events, SettingChecker(self._replicas), self._view]

    def run(self) -> SettingsReport:
        cluster, random, report = self._cluster, self._random, self._report
        for index in range(report.members):
            member = self._replicas.add(skew=self._skew(), first=not index)
            self._founders.append(member)
            if index:
                cluster.at(random.random(), self._replicas.join, member, self._target(member))
        when, end = _START, _HEAL + random.choice(_AFTER)
        while when < end:
            cluster.at(when, self._act)
            when += random.expovariate(2.0)
        cluster.at(_SPLIT, self._split)
        cluster.at(_HEAL, self._heal)
        for _ in range(random.randint(1, 3)):
            cluster.at(random.uniform(_SPLIT, end), self._crash)
        cluster.run_until(end)
        self._calm()
        return report

    def _calm(self) -> None:
        cluster, report = self._cluster, self._report
        cluster.network.faults = Faults()
        began = cluster.clock.now
        settled = cluster.run_while(lambda: not self._settled(), _CALM, step=0.5)
        report.calm = cluster.clock.now - began
        cluster.run(5.0)
        if not settled or not self._all_in():
            self._check()
            raise CheckFailed("Agreement", cluster.clock.now, f"not all are members of each other after {_CALM:.0f} s")
        self._check()
        for member in self._replicas.alive:
            rejected = self._replicas.of(member).counters.get("rejected", 0)
            if rejected:
                raise CheckFailed("Rejected", cluster.clock.now, f"{member!r} refused {rejected} honest messages")
        self._events.check_missed()
        report.missed, report.steps = sum(count for _, _, count in self._events.missed), cluster.steps
        needed = ("writes_here", "writes_there", "deletes_here", "deletes_there", "crashes", "services", "events")
        if missing := [kind for kind in needed if not report.done.get(kind)]:
            raise CheckFailed("Vacuous", cluster.clock.now, f"never happened: {', '.join(missing)}")

    def _all_in(self) -> bool:
        joined = all(self._replicas.joined_at(member) is not None for member in self._replicas.alive)
        return joined and not self._restarting and self._cluster.agreed

    def _settled(self) -> bool:
        if not self._all_in():
            return False
        try:
            self._check()
        except CheckFailed:
            return False
        return True

    def _check(self) -> None:
        alive = self._replicas.alive
        check_settings(self._replicas)
        check_writes(self._replicas, self._writes)
        expected = {
            (member.name, service): record
            for member in alive
            for service, record in self._services.get(member.index, {}).items()
        }
        check_services(self._replicas, expected)
        self._view.check_views(alive)
        check_events_even(self._replicas)

    # -- what happens -------------------------------------------------------------------

    def _skew(self) -> float:
        return self._random.uniform(-_SKEW, _SKEW)

    def _did(self, kind: str) -> None:
        self._report.done[kind] = self._report.done.get(kind, 0) + 1

    def _act(self) -> None:
        draw, place, which, size = (self._random.random() for _ in range(4))
        alive = self._replicas.alive
        member = alive[int(place * len(alive))]
        key = _KEYS[int(which * len(_KEYS))]
        if draw < 0.4:
            self._write(member, key, self._random.randbytes(2000 if size < 0.2 else 20))
        elif draw < 0.65:
            self._write(member, key, None)
        elif draw < 0.8:
            self._serve(member, f"service{int(which * 3)}", size)
        elif draw < 0.95:
            value = self._replicas.of(member).boot + bytes(3000 if size < 0.2 else 10)
            _publish(self._replicas, member, value)
            self._did("events")
        else:
            offset = self._skew() + 1_700_000_000.0
            self._replicas.do(member, lambda replica, now: replica.set_wall(offset))
            self._did("clocks")

    def _write(self, member: Member, key: str, value: bytes | None) -> None:
        _set(self._replicas, member, key, value)
        held = entries(self._replicas, member).get(key)
        if held is None or held[1] != value:
            raise CheckFailed("Writes", self._cluster.clock.now, f"{member!r} does not hold what it wrote: {key}")
        self._writes.append((member, key, held[0], value))
        where = "" if not self._cluster.network.links.closed else "_here" if member.slot in self._side else "_there"
        self._did(("deletes" if value is None else "writes") + where)

    def _serve(self, member: Member, service: str, draw: float) -> None:
        own = self._services.setdefault(member.index, {})
        if service in own and draw < 0.5:
            del own[service]
            self._replicas.do(member, lambda replica, now: replica.deregister(service, now))
        else:
            record = own[service] = self._random.randbytes(8)
            _register(self._replicas, member, service, record)
        self._did("services")

    def _split(self) -> None:
        """Cut the network in two, and see to it that both sides write and delete."""
        slots = [member.slot for member in self._founders]
        self._side = self._random.sample(slots, self._random.randint(1, len(slots) - 1))
        self._cluster.network.links.partition(self._side)
        for here in (True, False):
            for value in (b"split", None):
                self._cluster.at(self._random.uniform(_SPLIT, _HEAL), self._write_at, here, value)

    def _write_at(self, here: bool, value: bytes | None) -> None:
        """Write on one side of the partition, as soon as somebody lives there."""
        members = [member for member in self._replicas.alive if (member.slot in self._side) == here]
        if members:
            self._write(self._random.choice(members), self._random.choice(_KEYS), value)
        else:
            self._cluster.at(self._cluster.clock.now + 0.5, self._write_at, here, value)

    def _heal(self) -> None:
        self._cluster.network.links.heal()

    def _crash(self) -> None:
        """End one process; the first is spared, so that there is always a cluster to join."""
        draw, pause, kept = self._random.random(), self._random.uniform(0.5, 8.0), self._random.random() < 0.5
        running = [member for member in self._replicas.alive if member.slot and not self._is_last(member)]
        if not running:
            return
        member = running[int(draw * len(running))]
        self._cluster.crash(member, silent=draw < 0.5)
        self._restarting += 1
        self._did("crashes")
        self._cluster.at(self._cluster.clock.now + pause, self._restart, member, kept)

    def _is_last(self, member: Member) -> bool:
        """Return whether nobody else would be left to write on its side of the partition."""
        side = member.slot in self._side
        return sum((one.slot in self._side) == side for one in self._replicas.alive) == 1

    def _restart(self, member: Member, kept: bool) -> None:
        self._restarting -= 1
        if self._replicas.life(member.name) is member and member.condition is Condition.GONE:
            new = self._replicas.restart(member, skew=self._skew(), restore=kept)
            self._did("restored" if kept else "restarts")
            self._replicas.join(new, self._target(new))

    def _target(self, member: Member) -> _Target:
        return _Target(self._replicas, self._founders[0], member)


class _Target:
    """Whom to join: the founder, or by chance another one that belongs to the cluster and can be reached."""

    def __init__(self, replicas: Replicas, founder: Member, member: Member) -> None:
        self._replicas = replicas
        self._founder = founder
        self._member = member
        self._random = Random(f"{member.index}/target")

    def __call__(self) -> Member:
        connects = self._replicas.cluster.network.connects
        known = [
            other
            for other in self._replicas.alive
            if other is not self._member
            and self._replicas.joined_at(other) is not None
            and connects(self._member.slot, other.slot)
        ]
        return self._random.choice(known) if known else self._founder


# -- joins ------------------------------------------------------------------------------------


@dataclass(slots=True)
class JoinsReport:
    """How many joined, with how much to learn, and the longest join in virtual seconds."""

    seed: object
    joins: int
    settings: int
    services: int
    longest: float = 0.0

    def __str__(self) -> str:
        return (
            f"seed {self.seed!r}: {self.joins} joins, each had {self.settings} settings and {self.services} services "
            f"or more when it was done, the longest after {self.longest * 1e3:.1f} ms"
        )


def run_joins(seed: object, *, joins: int = 100, members: int = 4, machine: type[Replica] = Replica) -> JoinsReport:
    """Let one member after the other join a living cluster, and look at it at the moment its join is done.

    Raises:
        CheckFailed: a joiner lacked something.
    """
    random = Random(f"{seed}/joins")
    replicas = Replicas(seed, machine=machine, config=_config(), digest=False)
    cluster = replicas.cluster
    residents = [replicas.add(first=not index) for index in range(members)]
    for member in residents[1:]:
        replicas.join(member, lambda: residents[0])
    cluster.run(5.0)
    settings: dict[str, bytes] = {}
    services: dict[tuple[str, str], bytes] = {}
    for member in residents:
        for number in range(10):
            key, value = f"{member.name}/{number}", random.randbytes(40)
            settings[key] = value
            _set(replicas, member, key, value)
        for number in range(5):
            record = random.randbytes(20)
            services[member.name, f"s{number}"] = record
            _register(replicas, member, f"s{number}", record)
    report = JoinsReport(seed, joins, len(settings), len(services))
    cluster.run(10.0)

    def joined(member: Member, began: float) -> None:
        done = replicas.joined_at(member)
        if done is None:
            raise CheckFailed("Joins", cluster.clock.now, f"{member!r} did not join")
        report.longest = max(report.longest, done - began)
        check_everything_there(replicas, member, settings, services)

    for _ in range(joins):
        new, began = replicas.add(), cluster.clock.now
        seed_member = random.choice(residents)
        replicas.join(new, lambda: seed_member)  # noqa: B023 - asked before the next turn
        cluster.run_while(lambda: replicas.joined_at(new) is None, 5.0, step=0.001)  # noqa: B023
        joined(new, began)
        _register(replicas, new, "mine", random.randbytes(20))
        cluster.run(random.uniform(0.0, 2.0))
        cluster.leave(new)
        cluster.run(0.5)
        cluster.crash(new)
        cluster.run(1.0)
    return report


# -- events -----------------------------------------------------------------------------------


@dataclass(slots=True)
class EventsReport:
    """How many events got how far."""

    seed: object
    members: int
    events: int
    loss: float
    lost: int = 0
    fetches: int = 0
    calm: float = 0.0
    """Seconds from the last event until all had all."""

    def __str__(self) -> str:
        return (
            f"seed {self.seed!r}: {self.events} events of {self.members} members, {self.loss:.0%} loss "
            f"({self.lost} datagrams), {self.fetches} fetches, all had all {self.calm:.1f} s after the last"
        )


def run_events(
    seed: object,
    *,
    members: int = 8,
    events: int = 1000,
    loss: float = 0.1,
    gossip: bool = True,
    machine: type[Replica] = Replica,
) -> EventsReport:
    """Publish `events` from all members at about 20 a second, one in ten of them large.

    Raises:
        CheckFailed: a member lacks one, got one twice, or in the wrong order.
    """
    random = Random(f"{seed}/events")
    replicas = Replicas(
        seed, machine=machine, gossip=gossip, config=_config(), digest=False, limits=Limits(remembered=1024),
        faults=Faults(loss=loss, jitter=0.01, duplicate=0.02, exchange_cut=0.02),
    )  # fmt: skip
    cluster = replicas.cluster
    checker = EventChecker(replicas)
    replicas.watchers.append(checker)
    everybody = [replicas.add(first=not index) for index in range(members)]
    for member in everybody[1:]:
        replicas.join(member, lambda: everybody[0])
    cluster.run(10.0)
    sent = dict.fromkeys((member.name for member in everybody), 0)
    for _ in range(events):
        member, large = random.choice(everybody), random.random() < 0.1
        value = replicas.of(member).boot + bytes(3000 if large else 20)
        _publish(replicas, member, value)
        sent[member.name] += 1
        cluster.run(random.expovariate(20.0))
    last = cluster.clock.now

    whole = {(other.name, replicas.of(other).boot): list(range(1, sent[other.name] + 1)) for other in everybody}

    def complete() -> bool:
        return all(
            checker.seen.get((member.index, *sender), []) == numbers
            for member in everybody
            for sender, numbers in whole.items()
        )

    cluster.run_while(lambda: not complete(), 60.0, step=0.1)
    report = EventsReport(seed, members, events, loss)
    report.calm = cluster.clock.now - last
    report.lost = cluster.network.counters.lost
    report.fetches = sum(replicas.of(member).counters.get("events.fetches", 0) for member in everybody)
    cluster.run(15.0)  # nothing comes twice later
    if not complete() or checker.missed:
        raise CheckFailed("Events", cluster.clock.now, "somebody lacks an event, or has one too many", seed=seed)
    if not report.lost:
        raise CheckFailed("Vacuous", cluster.clock.now, "nothing was lost", seed=seed)
    return report
