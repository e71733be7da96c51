"""Faults in the modules that users see."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("ControlClient.events", "not isinstance(endpoint, str)", "False", "an agent without events is told of"),
    Fault("Discovery.addresses", "seed not in self._failures", "True", "a seed that failed gives none"),
    Fault("Discovery.__init__", "len(entries) > finders.SEEDS_MAX", "False", "seeds are bounded"),
]
