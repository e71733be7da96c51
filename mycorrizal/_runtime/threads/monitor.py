"""A lock that can be waited on, for a facade whose machine is called from more than one thread.

Most machines here are owned by one thread and need none. ``SerfDelegate`` is
the exception: the gossip thread calls it, the user on any thread. Re-entrant,
because a signal handler may call in while the interrupted thread is inside.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from .deadline import Deadline
from .waits import pass_gate, wait_sliced

__all__ = ["Monitor"]


class Monitor:
    """``with monitor:`` excludes all other threads. Any thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()

    def __enter__(self) -> None:
        pass_gate(self._condition, Deadline(None))

    def __exit__(self, *exc_info: object) -> None:
        self._condition.release()

    def wait_for(self, predicate: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait, inside ``with``, until `predicate()`; False if the deadline passed first. Lets others in meanwhile."""

        def wait(seconds: float) -> bool:
            return self._condition.wait_for(predicate, None if seconds < 0 else seconds)

        return predicate() or wait_sliced(wait, deadline, locked=True)

    def notify(self) -> None:
        """Let every waiting thread look again. Call it inside ``with``."""
        self._condition.notify_all()
