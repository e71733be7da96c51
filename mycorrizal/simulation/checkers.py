"""What must hold in every run, whatever was injected; each rule is one small class.

A ``Referee`` watches a cluster, finds out after each input which records
changed, and shows every such change to every checker: a violation that heals
before anybody would look is seen all the same. A checker raises
``CheckFailed``; so each can be tested with a fault planted on purpose.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._swim.events import Event, NodeLeft
from ..exceptions import MycorrizalError
from ..types import Node, NodeState
from .cluster import Cluster
from .faults import Condition
from .members import Member

__all__ = [
    "BoundsChecker",
    "CheckFailed",
    "Checker",
    "DetectionChecker",
    "FalsePositiveChecker",
    "IncarnationChecker",
    "MetaChecker",
    "Referee",
    "ResurrectionChecker",
    "SelfChecker",
    "check_agreement",
    "standard_checkers",
]


class CheckFailed(MycorrizalError, AssertionError):
    """A rule was broken. ``checker``, ``time`` (virtual) and, in a campaign, ``seed`` say which, when, where."""

    def __init__(self, checker: str, time: float, message: str, *, seed: object = None) -> None:
        where = "" if seed is None else f"seed {seed!r}, "
        super().__init__(f"{checker}: {where}t={time:.6f}: {message}")
        self.checker = checker
        self.time = time
        self.seed = seed
        self.text = message


class Checker:
    """A rule. Subclasses override what they need.

    One that needs events only may be a cluster's watcher by itself; the others need a ``Referee``.
    """

    def row(self, observer: Member, before: Node | None, after: Node | None, now: float) -> None:
        """A record in `observer`'s table changed; ``None`` stands for no record."""

    def event(self, observer: Member, event: Event, now: float) -> None:
        """`observer` reported `event`."""

    def view(self, observer: Member, now: float) -> None:
        """`observer`'s table changed somewhere."""

    def changed(self, member: Member, now: float) -> None:
        """As a watcher by itself: whole tables are not compared."""

    def fail(self, now: float, message: str) -> None:
        """Raise ``CheckFailed`` in this checker's name."""
        raise CheckFailed(type(self).__name__, now, message)


class IncarnationChecker(Checker):
    """The incarnation of a live record never falls, unless the name moved to another address."""

    def row(self, observer: Member, before: Node | None, after: Node | None, now: float) -> None:
        if before is None or after is None or before.address != after.address:
            return
        if before.state <= NodeState.SUSPECT and after.incarnation < before.incarnation:
            self.fail(now, f"{observer!r} let {_short(before)} fall to {_short(after)}")


class ResurrectionChecker(Checker):
    """Nobody comes back from dead or left at the same or a lower incarnation, unless pruned or moved meanwhile.

    One input can prune a record and learn it anew, which looks like a return;
    so a record that is old enough to be pruned is let off.
    """

    def __init__(self) -> None:
        self._gone: dict[tuple[int, str], float] = {}

    def row(self, observer: Member, before: Node | None, after: Node | None, now: float) -> None:
        if after is None:
            return
        key = observer.index, after.name
        if after.state >= NodeState.DEAD:
            self._gone.setdefault(key, now)
            return
        since = self._gone.pop(key, now)
        if before is None or before.state < NodeState.DEAD or before.address != after.address:
            return
        if after.incarnation <= before.incarnation and now - since <= observer.config.gossip_to_the_dead_time:
            self.fail(now, f"{observer!r} took {_short(before)} back as {_short(after)}")


class SelfChecker(Checker):
    """A running member never believes itself anything but alive."""

    def row(self, observer: Member, before: Node | None, after: Node | None, now: float) -> None:
        name = (before or after or observer).name
        if name != observer.name or observer.left:
            return
        if after is None or after.state != NodeState.ALIVE:
            self.fail(now, f"{observer!r} believes of itself: {_short(after)}")


class MetaChecker(Checker):
    """One incarnation of one life of a member has one metadata, whoever holds it for alive.

    A suspicion or a death may be newer than the record it hits; it raises the
    number without bringing metadata along, as in memberlist.

    Lives are told apart by the metadata itself (``name/life/version``): a new
    process cannot know what number its predecessor had come to.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, bytes, int], bytes] = {}

    def row(self, observer: Member, before: Node | None, after: Node | None, now: float) -> None:
        if after is None or after.state != NodeState.ALIVE or not after.meta:
            return
        life = after.meta.rpartition(b"/")[0]
        first = self._seen.setdefault((after.name, life, after.incarnation), after.meta)
        if first != after.meta:
            self.fail(now, f"{observer!r} holds {_short(after)} with {after.meta!r}, others with {first!r}")


class BoundsChecker(Checker):
    """Table and broadcast queue stay as small as the number of names that ever were."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def view(self, observer: Member, now: float) -> None:
        names = len({member.name for member in self._cluster.members})
        sizes = observer.machine.gauges
        if sizes["nodes"] > names:
            self.fail(now, f"{observer!r} knows {sizes['nodes']} nodes, only {names} ever were")
        # One broadcast per name, and refutations: they go by our address.
        if sizes["queue.broadcasts"] > names + 1:
            self.fail(now, f"{observer!r} has {sizes['queue.broadcasts']} broadcasts queued for {names} names")


class FalsePositiveChecker(Checker):
    """Counts members declared dead that run normally.

    Attributes:
        total: such events anywhere (Lifeguard's FP).
        healthy: those at observers that run normally themselves (Lifeguard's FP-).
    """

    def __init__(self, cluster: Cluster, *, distressed: Sequence[Member] = (), limit: int | None = None) -> None:
        self._cluster = cluster
        self._distressed = frozenset(member.name for member in distressed)
        self._limit = limit
        self.total = 0
        self.healthy = 0

    def event(self, observer: Member, event: Event, now: float) -> None:
        if not isinstance(event, NodeLeft) or event.node.state != NodeState.DEAD or event.node.name in self._distressed:
            return
        subject = self._cluster.at_address(event.node.address)
        if subject is None or subject.condition is not Condition.RUNNING or subject.left:
            return
        self.total += 1
        if observer.name not in self._distressed:
            self.healthy += 1
        if self._limit is not None and self.total > self._limit:
            self.fail(now, f"{self.total} false positives, at most {self._limit} allowed; last: {_short(event.node)}")


class DetectionChecker(Checker):
    """Measures, and with a bound judges, how long it takes until each observer knows of a crash."""

    def __init__(self, cluster: Cluster, *, bound: float | None = None) -> None:
        self._cluster = cluster
        self._bound = bound
        self.times: dict[str, list[float]] = {}
        """Seconds from the crash to each observer's event, by name of the crashed."""

    def event(self, observer: Member, event: Event, now: float) -> None:
        if not isinstance(event, NodeLeft):
            return
        subject = self._cluster.at_address(event.node.address)
        if subject is None or subject.ended is None or subject.name != event.node.name:
            return
        self.times.setdefault(subject.name, []).append(now - subject.ended)

    def finish(self, now: float) -> None:
        """Check that every crash was noticed by every live member, and in time."""
        alive = self._cluster.alive
        for subject in self._cluster.members:
            if subject.ended is None or self._cluster.at_address(subject.address) is not subject:
                continue
            late = [m for m in alive if subject.name in m.view]
            times = self.times.get(subject.name, [])
            if late and (self._bound is None or now - subject.ended > self._bound):
                self.fail(now, f"{len(late)} members still believe in {subject!r}, first {late[0]!r}")
            if self._bound is not None and times and max(times) > self._bound:
                self.fail(now, f"{subject!r} was noticed after {max(times):.2f} s, bound {self._bound:.2f} s")


class Referee:
    """Shows every change of every view to the checkers. Add it to ``cluster.watchers``."""

    def __init__(self, checkers: Sequence[Checker]) -> None:
        self._checkers = tuple(checkers)
        self._views: dict[int, dict[str, Node]] = {}

    def event(self, member: Member, event: Event, now: float) -> None:
        for checker in self._checkers:
            checker.event(member, event, now)

    def changed(self, member: Member, now: float) -> None:
        before = self._views.get(member.index, {})
        after = {node.name: node for node in member.machine.nodes()}
        self._views[member.index] = after
        for name, node in after.items():
            old = before.get(name)
            if old is not node and old != node:
                self._row(member, old, node, now)
        for name, node in before.items():
            if name not in after:
                self._row(member, node, None, now)
        for checker in self._checkers:
            checker.view(member, now)

    def _row(self, member: Member, before: Node | None, after: Node | None, now: float) -> None:
        for checker in self._checkers:
            checker.row(member, before, after, now)


def standard_checkers(cluster: Cluster) -> list[Checker]:
    """Return the rules that hold under any faults."""
    return [IncarnationChecker(), ResurrectionChecker(), SelfChecker(), MetaChecker(), BoundsChecker(cluster)]


def check_agreement(cluster: Cluster) -> None:
    """Check that every live member believes in exactly the live ones, at the right address, with the right metadata.

    Raises:
        CheckFailed: names the first observer that differs, and how.
    """
    alive = {member.name: member for member in cluster.alive}
    for observer in alive.values():
        seen = {node.name: node for node in observer.machine.members()}
        missing = sorted(alive.keys() - seen.keys())
        extra = sorted(seen.keys() - alive.keys())
        if missing or extra:
            raise CheckFailed(
                "Agreement", cluster.clock.now, f"{observer!r} misses {missing} and still believes in {extra}"
            )
        for name, node in seen.items():
            own = alive[name].machine.local_node
            if (node.address, node.meta) != (own.address, own.meta):
                raise CheckFailed("Agreement", cluster.clock.now, f"{observer!r} holds {node}, it is {own}")


def _short(node: Node | None) -> str:
    if node is None:
        return "no record"
    return f"{node.name} {node.state.name} inc {node.incarnation} at {node.host}"
