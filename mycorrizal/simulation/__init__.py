"""Whole clusters in virtual time, on the real machine and through the real codecs.

One more owner of the machine beside the runtime: no threads, no sockets, no
clock. ``Cluster`` runs members, ``Faults`` and its methods hurt them,
``checkers`` watch, ``run_campaign`` does all of it at random from one seed,
``Replicas`` adds settings, services and events with campaigns of their own,
``cache_campaign`` does the same for caches,
``experiments`` replays published figures. See docs/simulation.md.
"""

from __future__ import annotations

from .bounds import agreement_bound, detection_bound, spread_time, suspicion_window
from .campaign import CampaignReport, run_campaign
from .checkers import (
    BoundsChecker,
    Checker,
    CheckFailed,
    DetectionChecker,
    FalsePositiveChecker,
    IncarnationChecker,
    MetaChecker,
    Referee,
    ResurrectionChecker,
    SelfChecker,
    check_agreement,
    standard_checkers,
)
from .clock import VirtualClock
from .cluster import Cluster, Watcher
from .faults import Condition, Faults, Links
from .members import Member, SimulatedDelegate
from .network import Network, NetworkCounters
from .replica_campaign import run_events, run_joins, run_settings_campaign
from .replicas import Replicas

__all__ = [
    "BoundsChecker",
    "CampaignReport",
    "CheckFailed",
    "Checker",
    "Cluster",
    "Condition",
    "DetectionChecker",
    "FalsePositiveChecker",
    "Faults",
    "IncarnationChecker",
    "Links",
    "Member",
    "MetaChecker",
    "Network",
    "NetworkCounters",
    "Referee",
    "Replicas",
    "ResurrectionChecker",
    "SelfChecker",
    "SimulatedDelegate",
    "VirtualClock",
    "Watcher",
    "agreement_bound",
    "check_agreement",
    "detection_bound",
    "run_campaign",
    "run_events",
    "run_joins",
    "run_settings_campaign",
    "spread_time",
    "standard_checkers",
    "suspicion_window",
]
