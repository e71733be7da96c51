"""Faults in the checkers: each rule still finds what it is for."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault(
        "IncarnationChecker.row",
        "before.state <= NodeState.SUSPECT",
        "before.state < NodeState.SUSPECT",
        "a suspect's incarnation does not fall either",
    ),
    Fault(
        "ResurrectionChecker.row",
        "after.incarnation <= before.incarnation",
        "after.incarnation < before.incarnation",
        "nobody comes back at the same incarnation",
    ),
    Fault("SelfChecker.row", " or after.state != NodeState.ALIVE", "", "no member holds itself for a suspect"),
    Fault("SelfChecker.row", " or observer.left", "", "who left may believe so"),
    Fault("MetaChecker.row", "after.state != NodeState.ALIVE or ", "", "metadata of a suspect are not compared"),
    Fault(
        "BoundsChecker.view",
        'sizes["queue.broadcasts"] > names + 1',
        'sizes["queue.broadcasts"] > 10 * names',
        "queues are bounded",
    ),
    Fault("FalsePositiveChecker.event", " or subject.left", "", "who left is no false positive"),
    Fault(
        "FalsePositiveChecker.event",
        "if observer.name not in self._distressed:",
        "if True:",
        "only healthy observers count as such",
    ),
    Fault("FalsePositiveChecker.event", "self.total > self._limit", "self.total > self._limit + 1", "the limit holds"),
    Fault(
        "DetectionChecker.event",
        " or subject.name != event.node.name",
        "",
        "another node at that address is not the one that crashed",
    ),
    Fault(
        "DetectionChecker.finish",
        "max(times) > self._bound",
        "min(times) > self._bound",
        "every observer notices in time",
    ),
    Fault("check_agreement", "if missing or extra:", "if missing:", "nobody believes in who is gone"),
    Fault(
        "check_agreement",
        "(node.address, node.meta) != (own.address, own.meta)",
        "node.address != own.address",
        "everybody has the right metadata",
    ),
    Fault("Referee.changed", "if name not in after:", "if False:", "records that vanish are shown"),
    Fault(
        "linearizable",
        "event.began > horizon",
        "event.began >= horizon",
        "operations that touch may be in either order",
    ),
    Fault(
        "linearizable",
        "if event.known and answer != event.answer:",
        "if answer != event.answer:",
        "an operation of unknown outcome may have happened",
    ),
    Fault("check_locks", "if one.token == other.token:", "if False:", "no token is given twice"),
    Fault("check_locks", "if other.granted < one.asked:", "if False:", "tokens grow"),
    Fault("check_locks", " and one.granted < other.released", "", "one after the other is no conflict"),
    Fault("newest_writes", " and event.answer is not False", "", "a write that was refused is none"),
    Fault("check_newest", "if version < event.version:", "if False:", "no acknowledged write is lost"),
    Fault(
        "check_newest",
        'event.kind in ("set", "add") and value != event.argument',
        'event.kind == "set" and value != event.argument',
        "an added value is the one that is there",
    ),
    Fault("check_newest", 'event.kind == "delete" and value is not None', "False", "a deleted key does not come back"),
    Fault("check_converged", "elif table:", "elif False:", "nobody but owners holds a partition"),
    Fault("check_converged", "if space.shards[partition].owners != owners:", "if False:", "all agree on the owners"),
    Fault(
        "check_converged",
        "any(table != next(iter(tables.values())) for table in tables.values())",
        "False",
        "copies are equal",
    ),
    Fault(
        "check_copies",
        "len(holders) < least",
        "len(holders) < least - 1",
        "there are as many copies as there should be",
    ),
    Fault(
        "check_nothing_old", "entry.version < event.version", "entry.version < event.version - 1", "nothing old is left"
    ),
    Fault("check_near", "if age > bound:", "if age > 10 * bound:", "near copies are not older than promised"),
    Fault("check_no_trace", "store.bytes or ", "", "no bytes are left"),
    Fault("check_no_trace", " or any(store.tables)", "", "no tables are left"),
    Fault("check_bounds", " or size != store.bytes", "", "bytes are counted right"),
    Fault(
        "check_bounds",
        "definition.max_bytes is not None and store.bytes > definition.max_bytes",
        "False",
        "bytes are bounded",
    ),
    Fault(
        "EventChecker.__call__", "output.number <= numbers[-1]", "output.number < numbers[-1]", "no event comes twice"
    ),
    Fault(
        "EventChecker.__call__",
        "self._missed.pop((member.index, output.sender), 0)",
        "self._missed.get((member.index, output.sender), 0)",
        "what was said to be missed excuses one hole",
    ),
    Fault("EventChecker.check_missed", "names.count(sender) == 1 and ", "", "events of a life before may be missed"),
    Fault(
        "SettingChecker.__call__",
        "output.stamp <= old",
        "output.stamp < old",
        "no setting changes twice with one stamp",
    ),
    Fault("ServiceChecker.check_views", "if view != told:", "if False:", "what can be seen is what was said"),
    Fault(
        "check_settings",
        "if shown != {key: value for key, (_, value) in held.items() if value is not None}:",
        "if False:",
        "settings that are held are shown",
    ),
    Fault("check_writes", " or held[key][0] < stamp", "", "no write is undone by an older one"),
    Fault(
        "check_events_even",
        "seen[member.index].get(life) != seen[sender.index].get(life)",
        "seen[member.index].get(life, 0) > seen[sender.index].get(life, 0)",
        "all have come as far",
    ),
    Fault(
        "check_everything_there",
        "if settings is not None and shown != dict(settings):",
        "if False:",
        "a joiner has all settings",
    ),
]
