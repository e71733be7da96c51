"""Published experiments on SWIM, Lifeguard and Serf, and ablations of our own, on the real machine.

Each function returns a ``Report``: a table, figures with the bands they must
fall into, and a plot. ``tools/simulate`` prints and draws them.
"""

from __future__ import annotations

from .heal import heal
from .lossy import lossy
from .report import Band, Plot, Report, Series
from .s1_load import message_load
from .s2_detection import first_detection
from .s3_infection import infection
from .s5_lifeguard import lifeguard
from .s7_convergence import convergence
from .s9_stall import stall
from .sleepers import sleepers
from .speed import speed

__all__ = [
    "Band",
    "Plot",
    "Report",
    "Series",
    "convergence",
    "first_detection",
    "heal",
    "infection",
    "lifeguard",
    "lossy",
    "message_load",
    "sleepers",
    "speed",
    "stall",
]
