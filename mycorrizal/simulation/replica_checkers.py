"""What must hold of settings, services and events, whatever was injected; each rule is one small class or function.

The classes watch what replicas say as it happens (``Replicas.watchers``); the
functions look at the end. All raise ``CheckFailed``, so that each can be tested
with a fault planted on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .._replica import messages
from .._replica.clock import Stamp
from .._replica.outputs import EventReceived, EventsMissed, Output, ServiceChanged, SettingChanged
from .checkers import CheckFailed
from .members import Member
from .replicas import Replicas

__all__ = [
    "EventChecker",
    "ServiceChecker",
    "SettingChecker",
    "check_events_even",
    "check_everything_there",
    "check_services",
    "check_settings",
    "check_writes",
    "entries",
]

Entries = dict[str, tuple[Stamp, bytes | None]]


class EventChecker:
    """Each life of each node hands on each event once, in the order of the sender's numbers, without silent holes.

    The campaigns put the sender's boot id in front of the value, so that its lives can be told apart.

    Attributes:
        seen: numbers by (index of the observer, sender, boot).
        missed: (index of the observer, sender, count) of each time events were said to be missed.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._missed: dict[tuple[int, str], int] = {}
        self.seen: dict[tuple[int, str, bytes], list[int]] = {}
        self.missed: list[tuple[int, str, int]] = []

    def __call__(self, member: Member, output: Output) -> None:
        if isinstance(output, EventsMissed):
            self._missed[member.index, output.sender] = self._missed.get((member.index, output.sender), 0) + 1
            self.missed.append((member.index, output.sender, output.count))
        if not isinstance(output, EventReceived):
            return
        numbers = self.seen.setdefault((member.index, output.sender, output.value[:8]), [])
        if numbers and output.number <= numbers[-1]:
            self._fail(member, output, f"again, or after {numbers[-1]}")
        if numbers and output.number > numbers[-1] + 1 and not self._missed.pop((member.index, output.sender), 0):
            self._fail(member, output, f"after {numbers[-1]}, and nothing was said to be missed")
        numbers.append(output.number)

    def check_missed(self) -> None:
        """Check that nothing was missed of a process that has lived from beginning to end: it has all its events."""
        names = [member.name for member in self._replicas.cluster.members]
        for index, sender, count in self.missed:
            if names.count(sender) == 1 and any(member.name == sender for member in self._replicas.alive):
                now, member = self._replicas.cluster.clock.now, self._replicas.cluster.members[index]
                raise CheckFailed("EventChecker", now, f"{member!r} missed {count} events of {sender}, which has them")

    def _fail(self, member: Member, output: EventReceived, what: str) -> None:
        now = self._replicas.cluster.clock.now
        raise CheckFailed("EventChecker", now, f"{member!r} got event {output.number} of {output.sender} {what}")


class SettingChecker:
    """A setting of one life of one node changes only to later writes."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._stamps: dict[tuple[int, str], Stamp] = {}

    def __call__(self, member: Member, output: Output) -> None:
        if not isinstance(output, SettingChanged):
            return
        old = self._stamps.get((member.index, output.key))
        if old is not None and output.stamp <= old:
            now = self._replicas.cluster.clock.now
            raise CheckFailed("SettingChecker", now, f"{member!r} let {output.key} fall from {old} to {output.stamp}")
        self._stamps[member.index, output.key] = output.stamp


class ServiceChecker:
    """What is said of services makes sense: only what is there goes or changes, and the view is what was said."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._told: dict[int, dict[tuple[str, str], bytes]] = {}

    def __call__(self, member: Member, output: Output) -> None:
        if not isinstance(output, ServiceChanged):
            return
        told = self._told.setdefault(member.index, {})
        place = output.node, output.service_id
        if (output.kind == "added") == (place in told):
            now = self._replicas.cluster.clock.now
            raise CheckFailed("ServiceChecker", now, f"{member!r} says {output.kind} of {place}, which cannot be")
        if output.kind == "removed":
            del told[place]
        else:
            told[place] = output.record

    def check_views(self, members: Iterable[Member]) -> None:
        """Compare what was said with what can be seen."""
        for member in members:
            view, told = self._replicas.of(member).services, self._told.get(member.index, {})
            if view != told:
                now = self._replicas.cluster.clock.now
                raise CheckFailed("ServiceChecker", now, f"{member!r} shows {view}, and has said {told}")


def entries(replicas: Replicas, member: Member) -> Entries:
    """Return all that a member knows of settings, tombstones too."""
    found: Entries = {}
    for raw, _ in replicas.of(member).settings_entries():
        message = messages.decode(raw)
        assert isinstance(message, messages.Setting)
        found[message.key] = message.stamp, message.value
    return found


def check_settings(replicas: Replicas) -> None:
    """Check that all live members hold the same settings and tombstones, and show them."""
    now = replicas.cluster.clock.now
    first: tuple[Member, Entries] | None = None
    for member in replicas.alive:
        held = entries(replicas, member)
        shown = {key: setting.value for key, setting in replicas.of(member).settings.items()}
        if shown != {key: value for key, (_, value) in held.items() if value is not None}:
            raise CheckFailed("Settings", now, f"{member!r} shows {shown} and holds {held}")
        if first is None:
            first = member, held
        elif held != first[1]:
            differ = sorted(key for key in held.keys() | first[1].keys() if held.get(key) != first[1].get(key))
            raise CheckFailed("Settings", now, f"{member!r} and {first[0]!r} differ in {differ}")


def check_writes(replicas: Replicas, writes: Iterable[tuple[Member, str, Stamp, bytes | None]]) -> None:
    """Check that no write of a live member was undone by an older one: what was deleted stays deleted."""
    alive = {member.index for member in replicas.alive}
    for observer in replicas.alive:
        held = entries(replicas, observer)
        for member, key, stamp, value in writes:
            if member.index in alive and (key not in held or held[key][0] < stamp):
                now = replicas.cluster.clock.now
                raise CheckFailed("Writes", now, f"{observer!r} lost {key} = {value!r} of {member!r} at {stamp}")


def check_events_even(replicas: Replicas) -> None:
    """Check that every live member has come as far as every live sender with its events."""
    alive = replicas.alive
    seen = {}
    for member in alive:
        header, _ = messages.decode_header(replicas.of(member).local_state(False))
        assert isinstance(header, messages.State)
        seen[member.index] = dict(header.seen)
    for sender in alive:
        life = messages.Sender(sender.name, replicas.of(sender).boot)
        for member in alive:
            if seen[member.index].get(life) != seen[sender.index].get(life):
                text = f"{member!r} is at event {seen[member.index].get(life)} of {sender!r}, it is"
                raise CheckFailed("Events", replicas.cluster.clock.now, f"{text} {seen[sender.index].get(life)}")


def check_services(replicas: Replicas, expected: Mapping[tuple[str, str], bytes]) -> None:
    """Check that every live member sees exactly the `expected` services."""
    for member in replicas.alive:
        check_everything_there(replicas, member, None, expected)


def check_everything_there(
    replicas: Replicas,
    member: Member,
    settings: Mapping[str, bytes] | None,
    services: Mapping[tuple[str, str], bytes],
) -> None:
    """Check that one member has exactly these settings (None: whatever it has) and services."""
    now, replica = replicas.cluster.clock.now, replicas.of(member)
    if dict(replica.services) != dict(services):
        seen = replica.services
        wrong = sorted(place for place in services.keys() | seen.keys() if services.get(place) != seen.get(place))
        raise CheckFailed("Services", now, f"{member!r} differs in {wrong[:5]}")
    shown = {key: setting.value for key, setting in replica.settings.items()}
    if settings is not None and shown != dict(settings):
        keys = sorted(key for key in settings.keys() | shown.keys() if settings.get(key) != shown.get(key))
        raise CheckFailed("Settings", now, f"{member!r} differs in {keys[:5]}")
