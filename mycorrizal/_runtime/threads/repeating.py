"""A job that is done again and again on a thread of its own, until it or its owner ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .service import Service

__all__ = ["Repeater"]


class Repeater:
    """Runs ``job()`` when the seconds are over that it has asked for, first `seconds` from now; None ends it.

    Args:
        what: of the thread's name.
        node: whose thread it is.
    """

    def __init__(self, what: str, node: str, job: Callable[[], float | None], seconds: float) -> None:
        self._job = job
        self._seconds: float | None = seconds
        self._stopped = threading.Event()
        self._service = Service(f"mycorrizal-{what}", node, self._run, lambda: None)

    def start(self) -> None:
        """Start the thread.

        Raises:
            ResourcesExhausted: there is none to be had.
        """
        self._service.start()

    def stop(self) -> None:
        """End it; what runs just then is not waited for. Any thread."""
        self._stopped.set()

    def _run(self) -> None:
        while self._seconds is not None and not self._stopped.wait(self._seconds):
            self._seconds = self._job()
