"""Counters that several threads raise and any thread reads, and warnings that do not flood.

An increment takes a lock because ``d[k] += 1`` is three steps. The machine's
own counters are not here: it counts by itself, on one thread.
"""

from __future__ import annotations

import threading

from ..._wire.text import Log
from . import clock

__all__ = ["Counters", "QuietLog"]


class Counters:
    """Named counters, zero until raised. Any thread."""

    def __init__(self, *names: str) -> None:
        self._values = dict.fromkeys(names, 0)
        self._lock = threading.RLock()

    def add(self, name: str, amount: int = 1) -> None:
        """Raise `name` by `amount`."""
        with self._lock:
            self._values[name] = self._values.get(name, 0) + amount

    def __getitem__(self, name: str) -> int:
        return self._values.get(name, 0)

    def snapshot(self) -> dict[str, int]:
        """Return a copy."""
        with self._lock:
            return dict(self._values)


class QuietLog:
    """Logs a kind of trouble at most once per `interval` seconds and says how often it was silent."""

    _KINDS_MAX = 256

    def __init__(self, log: Log, node: str, interval: float = 10.0) -> None:
        self._log = log
        self._node = node
        self._interval = interval
        self._last: dict[str, tuple[float, int]] = {}
        self._lock = threading.RLock()

    def warning(self, kind: str, message: str, *args: object, exc_info: BaseException | None = None) -> bool:
        """Log `message` unless one of this `kind` was logged lately; return whether it was."""
        with self._lock:
            now = clock.now()
            last, silent = self._last.get(kind, (None, 0))
            if last is not None and now - last < self._interval:
                self._last[kind] = (last, silent + 1)
                return False
            if len(self._last) >= self._KINDS_MAX:
                self._last.clear()
            self._last[kind] = (now, 0)
        more = f" ({silent} more like it were not logged)" if silent else ""
        self._log.warning("%s: " + message + more, self._node, *args, exc_info=exc_info)
        return True
