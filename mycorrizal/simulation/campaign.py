"""A campaign: random faults of every kind against a small cluster, every rule watched, then calm.

``run_campaign(seed)`` is a function of its arguments. It deals the kinds of
faults from a shuffled deck, so that each turns up about equally often, and
draws all dice for an action before it looks whether the action is possible.
Then everything is healed and the live members must agree within
``bounds.agreement_bound``. What was injected is counted: a campaign in which
nothing happened fails as vacuous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from random import Random

from .._swim.events import Event
from .._swim.machine import Swim
from ..config import Config
from ..types import Address, NodeState
from .bounds import agreement_bound
from .checkers import CheckFailed, FalsePositiveChecker, Referee, check_agreement, standard_checkers
from .cluster import Cluster
from .faults import Condition, Faults
from .members import Member

__all__ = ["CampaignReport", "run_campaign"]

WEATHER = Faults(
    loss=0.02,
    jitter=0.02,
    duplicate=0.02,
    reorder=0.02,
    send_error=0.005,
    exchange_slow=0.1,
    exchange_cut=0.05,
)
"""The network between the faults: never quite well."""

STORM = Faults(
    loss=0.3,
    jitter=0.1,
    duplicate=0.1,
    reorder=0.2,
    send_error=0.02,
    exchange_slow=0.3,
    exchange_cut=0.3,
)

_GAP = 1.5  # mean seconds between two actions
_STEADY = 20.0  # seconds that agreement must last, without one false accusation
_TAIL = 4.0  # longest delay of anything the network held back
_REJOIN = 3.0  # how often a started process tries to join until it succeeds
_KINDS = (
    "crash", "restart_moved", "freeze", "slow", "partition", "one_way", "udp_only", "storm", "leave", "update", "user",
    "join",
)  # fmt: skip
_WEATHERS = ("lost", "blocked", "duplicated", "reordered", "refused_sends", "exchanges_slow", "exchanges_cut")


@dataclass(slots=True)
class CampaignReport:
    """What a campaign did and how it ended; ``str()`` gives one line."""

    seed: object
    members: int
    duration: float
    calm: float = 0.0
    """Seconds from the end of all faults to agreement."""
    bound: float = 0.0
    digest: str = ""
    steps: int = 0
    introduced: int = 0
    """Groups that had to be joined by hand afterwards, because nobody could know of them any more."""
    actions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0))
    network: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    """The machines' own counters, added up over all lives."""

    def __str__(self) -> str:
        done = " ".join(f"{kind}={count}" for kind, count in self.actions.items())
        return (
            f"seed {self.seed!r}: {self.members} members, {self.duration:g} s of faults, calm after {self.calm:.1f} s "
            f"(bound {self.bound:.0f} s), {self.steps} steps; {done}; "
            + " ".join(f"{name}={self.network[name]}" for name in _WEATHERS)
        )


def run_campaign(
    seed: object,
    *,
    members: int = 8,
    duration: float = 60.0,
    config: Config | None = None,
    machine: type[Swim] = Swim,
    weather: Faults = WEATHER,
    kinds: Sequence[str] = _KINDS,
) -> CampaignReport:
    """Run one campaign.

    Args:
        seed: of everything.
        members: how many processes start.
        duration: seconds of faults.
        config: settings of the members; the default is the local profile with a short memory for the dead,
            so that pruning and reconnecting happen too.
        machine: the class to run; tests plant faults in a subclass.
        weather: odds of the network outside storms.
        kinds: which actions to deal.

    Raises:
        CheckFailed: a rule was broken, or nothing was injected; carries seed and time.
    """
    config = config or Config.local(name="template", gossip_to_the_dead_time=5.0, reconnect_interval=2.0)
    campaign = _Campaign(seed, members, duration, config, machine, weather, kinds)
    try:
        return campaign.run()
    except CheckFailed as failed:
        raise CheckFailed(failed.checker, failed.time, failed.text, seed=seed) from None


class _Memory:
    """Where each member last saw each other one that did not say goodbye (a watcher)."""

    def __init__(self) -> None:
        self._seen: dict[int, dict[str, Address]] = {}

    def event(self, member: Member, event: Event, now: float) -> None:
        return None

    def changed(self, member: Member, now: float) -> None:
        seen = self._seen.setdefault(member.index, {})
        for node in member.machine.nodes():
            if node.state <= NodeState.SUSPECT:
                seen[node.name] = node.address
            elif node.state == NodeState.LEFT:  # an older life's goodbye may be said after a newer life was seen
                seen.pop(node.name, None)

    def connects(self, one: Member, other: Member) -> bool:
        """Return whether one of the two would find the other where it saw it last."""
        return (
            self._seen.get(one.index, {}).get(other.name) == other.address
            or self._seen.get(other.index, {}).get(one.name) == one.address
        )


class _Campaign:
    def __init__(
        self,
        seed: object,
        members: int,
        duration: float,
        config: Config,
        machine: type[Swim],
        weather: Faults,
        kinds: Sequence[str],
    ) -> None:
        self._cluster = Cluster(seed, config=config, faults=weather, machine=machine)
        self._weather = weather
        self._random = Random(f"{seed}/campaign")
        self._kinds = tuple(kinds)
        self._deck: list[str] = []
        self._lives = 0
        self._joined: set[int] = set()  # those whose join has succeeded; only looked up, never walked
        self._storms = 0
        self._splits = 0
        self._over = False
        self._report = CampaignReport(seed, members, duration)
        self._memory = _Memory()
        self._cluster.watchers += [Referee(standard_checkers(self._cluster)), self._memory]

    def run(self) -> CampaignReport:
        cluster, report = self._cluster, self._report
        self._joined.add(cluster.add(meta=self._new_meta("m0")).index)
        for index in range(1, report.members):
            member = cluster.add(meta=self._new_meta(f"m{index}"))
            cluster.at(self._random.random(), self._enter, member)
        when = 2.0
        while when < report.duration:
            cluster.at(when, self._act)
            when += self._random.expovariate(1.0 / _GAP)
        cluster.run_until(report.duration)
        self._calm()
        self._check_vacuous()
        report.digest = cluster.digest
        report.steps = cluster.steps
        report.network = asdict(cluster.network.counters)
        for member in cluster.members:
            for name, count in member.machine.counters.items():
                report.counters[name] = report.counters.get(name, 0) + count
        return report

    def _calm(self) -> None:
        cluster, report = self._cluster, self._report
        self._over = True
        cluster.network.links.heal()
        cluster.network.faults = Faults()
        for member in cluster.members:
            cluster.resume(member)
            if member.left and member.condition is not Condition.GONE:
                cluster.crash(member)
        self._introduce()
        report.bound = agreement_bound(cluster.config, len({member.name for member in cluster.members}))
        began = cluster.clock.now
        # Probes and conversations of the time before may still fail, and what they say is no false alarm.
        cluster.run(cluster.config.probe_interval * cluster.config.awareness_max_multiplier + _TAIL)
        settled = cluster.run_while(lambda: not self._settled(), report.bound, step=0.5)
        report.calm = cluster.clock.now - began
        if not settled:
            check_agreement(cluster)
            raise CheckFailed("Agreement", cluster.clock.now, f"somebody never joined within {report.bound:.0f} s")
        cluster.watchers.append(FalsePositiveChecker(cluster, limit=0))
        cluster.run(_STEADY)
        check_agreement(cluster)

    def _introduce(self) -> None:
        """Let those join again who share no memory with the others.

        Whoever moved to another address while the only member that knew of it
        moved too cannot be found by any protocol; an operator must help.
        """
        found, rest = [], list(self._members())
        while rest:
            group = [rest.pop(0)]
            for member in group:  # grows while it is walked
                near = [other for other in rest if self._memory.connects(member, other)]
                group += near
                rest = [other for other in rest if other not in near]
            found.append(group)
        for group in found[1:]:
            self._report.introduced += 1
            self._cluster.join(group[0], found[0][0])

    def _settled(self) -> bool:
        """Whether all agree and no suspicion from the time of the faults still runs."""
        if not self._cluster.agreed:
            return False
        if any(n.state != NodeState.ALIVE for member in self._cluster.alive for n in member.machine.members()):
            return False
        try:
            check_agreement(self._cluster)
        except CheckFailed:
            return False
        return True

    def _check_vacuous(self) -> None:
        now, report = self._cluster.clock.now, self._report
        counters = asdict(self._cluster.network.counters)
        missing = [kind for kind in self._kinds if not report.actions[kind]]
        missing += [name for name in _WEATHERS if not counters[name]]
        if missing:
            raise CheckFailed("Vacuous", now, f"never injected: {', '.join(missing)}; run longer or with more members")

    # -- actions ------------------------------------------------------------------------

    def _act(self) -> None:
        if not self._deck:
            self._deck = list(self._kinds)
            self._random.shuffle(self._deck)
        first, second, length = self._random.random(), self._random.random(), self._random.expovariate(1.0 / 6.0)
        running = [member for member in self._members() if member.condition is Condition.RUNNING]
        if len(running) < 3:  # somebody must be left to notice
            return
        kind = self._deck.pop()
        victim = running.pop(int(first * len(running)))
        other = running[int(second * len(running))]
        getattr(self, f"_do_{kind}")(victim, other, 0.5 + length)
        self._report.actions[kind] += 1

    def _members(self) -> list[Member]:
        """Those who belong to the cluster; two who only ever joined each other would be another one."""
        return [member for member in self._cluster.alive if member.index in self._joined]

    def _do_crash(self, victim: Member, other: Member, length: float) -> None:
        self._cluster.crash(victim, silent=length < 3.0)
        self._later(length, self._restart, victim, False)

    def _do_restart_moved(self, victim: Member, other: Member, length: float) -> None:
        self._cluster.crash(victim, silent=True)
        self._later(min(length, 3.0), self._restart, victim, True)

    def _do_freeze(self, victim: Member, other: Member, length: float) -> None:
        self._cluster.freeze(victim)
        self._later(length, self._cluster.resume, victim)

    def _do_slow(self, victim: Member, other: Member, length: float) -> None:
        self._cluster.slow(victim)
        self._later(length, self._cluster.resume, victim)

    def _do_partition(self, victim: Member, other: Member, length: float) -> None:
        slots = sorted({member.slot for member in self._cluster.members})
        side = [slot for slot in slots if self._random.random() < 0.5 and slot != other.slot]
        self._cluster.network.links.partition({victim.slot, *side})
        self._splits += 1
        self._later(2.0 * length, self._unsplit, self._splits)

    def _do_one_way(self, victim: Member, other: Member, length: float) -> None:
        self._cluster.network.links.cut(victim.slot, other.slot)
        self._later(2.0 * length, self._cluster.network.links.mend, victim.slot, other.slot)

    def _do_udp_only(self, victim: Member, other: Member, length: float) -> None:
        self._cluster.network.links.cut(victim.slot, other.slot, udp_only=True)
        self._later(2.0 * length, self._cluster.network.links.mend, victim.slot, other.slot)

    def _do_storm(self, victim: Member, other: Member, length: float) -> None:
        self._cluster.network.faults = STORM
        self._storms += 1
        self._later(length, self._clear, self._storms)

    def _do_leave(self, victim: Member, other: Member, length: float) -> None:
        self._cluster.leave(victim)
        self._later(2.0, self._cluster.crash, victim)
        self._later(2.0 + length, self._restart, victim, length < 3.0)

    def _do_update(self, victim: Member, other: Member, length: float) -> None:
        assert victim.delegate is not None
        life, _, version = victim.delegate.meta.rpartition(b"/")
        self._cluster.update(victim, life + b"/%d" % (int(version) + 1))

    def _do_user(self, victim: Member, other: Member, length: float) -> None:
        self._cluster.send_user(victim, other, b"hello from " + victim.name.encode())

    def _do_join(self, victim: Member, other: Member, length: float) -> None:
        self._cluster.join(victim, other)

    # -- what follows ---------------------------------------------------------------------

    def _later(self, seconds: float, action: object, *arguments: object) -> None:
        self._cluster.at(self._cluster.clock.now + seconds, self._unless_over, action, arguments)

    def _unless_over(self, action: object, arguments: tuple[object, ...]) -> None:
        if not self._over:
            assert callable(action)
            action(*arguments)

    def _restart(self, member: Member, moved: bool) -> None:
        if self._cluster.at_address(member.address) is member and member.condition is Condition.GONE:
            self._enter(self._cluster.restart(member, new_address=moved, meta=self._new_meta(member.name)))

    def _enter(self, member: Member, operation: int = -1) -> None:
        """Join somewhere, and again until it works, also after the faults are over."""
        done = self._cluster.results.get((member.index, operation))
        if done is not None and done.error is None:
            self._joined.add(member.index)
        if not member.alive or member.index in self._joined:
            return
        others = [other for other in self._members() if other is not member]
        draw = self._random.random()
        if others and member.condition in (Condition.RUNNING, Condition.SLOW):
            operation = self._cluster.join(member, others[int(draw * len(others))])
        self._cluster.at(self._cluster.clock.now + _REJOIN, self._enter, member, operation)

    def _unsplit(self, number: int) -> None:
        if number == self._splits:
            self._cluster.network.links.partition()

    def _clear(self, number: int) -> None:
        if number == self._storms:
            self._cluster.network.faults = self._weather

    def _new_meta(self, name: str) -> bytes:
        self._lives += 1
        return f"{name}/{self._lives}/0".encode()
