"""A bar that shows how many of an executor's tasks are done; tqdm draws it, in a terminal and in a notebook."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from ...exceptions import ConfigError
from ...types import printable

__all__ = ["Bar"]


class Bar:
    """Any thread.

    Raises:
        ConfigError: tqdm is not installed.
    """

    def __init__(self, name: str) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            hint = "pip install 'mycorrizal[progress]'"
            raise ConfigError("progress", "tqdm, which draws the bar, is not installed", hint=hint) from None
        self._lock = threading.RLock()
        self._known = self._added = 0
        self._bar: Any = tqdm(desc=printable(name, 40), total=0, unit="task")

    def expect(self, count: int) -> None:
        """So many tasks will be added."""
        with self._lock:
            self._known = self._added + count
            self._grow()

    def added(self, future: Future[Any]) -> None:
        """One more task is there."""
        with self._lock:
            self._added += 1
            self._grow()
        future.add_done_callback(self._done)

    def _grow(self) -> None:
        self._bar.total = max(self._known, self._added)

    def _done(self, future: Future[Any]) -> None:
        with self._lock:
            self._bar.update(1)

    def close(self) -> None:
        """Leave it as it is."""
        with self._lock:
            self._bar.refresh()
            self._bar.close()
