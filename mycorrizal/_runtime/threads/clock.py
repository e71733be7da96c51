"""The one clock. Seconds that never go back and, where the system offers it, go on while it sleeps.

A laptop that wakes has to notice that it slept: its peers went on without it.
``CLOCK_MONOTONIC`` stands still during a suspend on Linux, ``CLOCK_BOOTTIME`` does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["date", "now", "span", "wall_offset"]


def _choose() -> Callable[[], float]:
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    if clock is None:
        return time.monotonic
    try:
        time.clock_gettime(clock)
    except OSError:
        return time.monotonic
    read = time.clock_gettime
    return lambda: read(clock)


now = _choose()
"""Return the time in seconds since an arbitrary moment. Any thread."""


def wall_offset() -> float:
    """Return what must be added to ``now()`` to get seconds since 1970. It changes when somebody sets the clock."""
    return time.time() - now()


def date(seconds: float) -> str:
    """Return a moment, in seconds since 1970, as people read it: ``2026-12-01 13:06 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def span(seconds: float) -> str:
    """Return a time in the two units that matter: ``2 d 3 h``, ``5 min 20 s``, ``4 s``."""
    whole, parts = int(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"
