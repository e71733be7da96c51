"""Faults in single rules of the machines, which distant tests did not find."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault(
        "Replica._take_setting",
        "elif age >= self._limits.tombstone_seconds",
        "elif age >= 1e9 + self._limits.tombstone_seconds",
        "deletions of long ago do not go round",
    ),
    Fault(
        "Replica._take_setting",
        "self._limits.tombstone_seconds - ",
        "self._limits.tombstone_seconds - 0 * ",
        "nor those of almost so long ago",
    ),
    Fault(
        "Replica._take_setting", "self._events.ready and age", "self._events.ready or age", "only news is gossiped on"
    ),
    Fault("Repairs._answered", "repair.lacking.clear()", "pass", "who lacked one event is asked for the next"),
    Fault(
        "Repairs._answered",
        "            repair.failed.clear()\n",
        "",
        "so is who did not answer",
    ),
    Fault("Prober._fell_back", "_FALLBACKS_LATE * self", "0 * self", "fallbacks after a stall tell nothing"),
    Fault("Prober.abandon", "self._woke = now", "pass", "a stall is remembered"),
    Fault("Prober.abandon", "member.fallbacks = member.tcp_only = 0", "pass", "what was before a stall tells nothing"),
    Fault("Check._ask", "is not False", "", "a check that returns nothing is well"),
    Fault("Check._ask", "return False", "return True", "a check that raises is ill"),
    Fault("Check._run", "self._healthy = healthy", "pass", "only what is new is told"),
    Fault("Check._run", " and not self._over.is_set()", "", "nothing is told after the end"),
    Fault(
        "SerfMachine._handle_event",
        " and event.payload == other.payload",
        "",
        "events of one time and name, and other payloads",
    ),
    Fault("SerfMachine._handle_event", "event.name == other.name and ", "", "events of one time and payload"),
]
