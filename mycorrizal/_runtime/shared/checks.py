"""Health checks of services: a user's function, called every so often on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..._wire.text import logger
from ...config import check_function
from ...exceptions import ConfigError
from ..threads.counters import Counters
from ..threads.service import Service
from ..threads.starting import ours

__all__ = ["Check"]

log = logger("mycorrizal.services")

_INTERVAL_MIN = 0.05


class Check:
    """Calls `check` every `interval` seconds and `tell(healthy)` when the answer is another one than before.

    A check that raises is not well (``checks.faults``). One that hangs is left behind at the end; its thread is a
    daemon.

    Raises:
        ConfigError: `interval` is too short or endless, or `check` cannot be called.
    """

    def __init__(
        self,
        check: Callable[[], object],
        interval: float,
        tell: Callable[[bool], None],
        node: str,
        counters: Counters,
    ) -> None:
        check_function("check", check)
        if not isinstance(interval, (int, float)) or not _INTERVAL_MIN <= interval <= threading.TIMEOUT_MAX:
            raise ConfigError(
                "interval", f"{interval!r} is not a number of seconds from {_INTERVAL_MIN} on", hint="e.g. 10"
            )
        self._check = check
        self._interval = interval
        self._tell = tell
        self._node = node
        self._counters = counters
        self._healthy = True
        self._begun = threading.Event()
        self._over = threading.Event()
        self._service = Service("mycorrizal-check", node, self._run, lambda: None)

    def first(self) -> bool:
        """Call the check once, on the calling thread; return whether it is well."""
        self._healthy = self._ask()
        return self._healthy

    def start(self) -> None:
        """Get a thread, before anybody hears of what it checks; ``begin`` says that they have.

        Raises:
            ResourcesExhausted: there is none to be had.
        """
        self._service.start()

    def begin(self) -> None:
        """Begin to call it."""
        self._begun.set()

    def close(self) -> None:
        """End it; does not wait for a check that runs. Idempotent, any thread."""
        self._over.set()
        self._begun.set()

    def _run(self) -> None:
        self._begun.wait()
        while not self._over.wait(self._interval):
            healthy = self._ask()
            if healthy != self._healthy and not self._over.is_set():
                self._tell(healthy)
                self._healthy = healthy

    def _ask(self) -> bool:
        try:
            return self._check() is not False
        except BaseException as exc:
            if not (isinstance(exc, Exception) or ours()):
                raise  # Ctrl-C in the first one
            self._counters.add("checks.faults")
            if self._healthy:
                log.warning("%s: a check raised %r", self._node, exc, exc_info=exc)
            return False
