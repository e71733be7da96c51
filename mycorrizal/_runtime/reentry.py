"""Which threads must not wait, those whose progress the wait needs, and how the others do.

The loop and the gossip thread write themselves down here; a blocking call
asks before it waits. The question costs one look into a dict.

A wait on the main thread goes in slices: a signal that another thread of the
process takes, or that comes between Python's last look for one and the system
call that sleeps, interrupts nothing, and a Ctrl-C would be seen only when the
wait is over.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..exceptions import ReentrantCallError
from .deadline import Deadline

__all__ = ["Roll", "finishers", "owner", "pass_gate", "refuse", "wait_sliced"]

SLICE = 0.1
"""Seconds after which a Ctrl-C is seen at the latest."""


class Roll:
    """Names of the threads that are inside ``with entered(name):``. Any thread."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        if hasattr(os, "register_at_fork"):
            # A child has none of these threads, but may give their idents to new ones.
            os.register_at_fork(after_in_child=self._names.clear)

    @contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """Write the calling thread down as `name` inside ``with``."""
        ident = threading.get_ident()
        before = self._names.get(ident)
        self._names[ident] = name
        try:
            yield
        finally:
            # An ident is given to another thread as soon as this one has ended.
            if before is None:
                self._names.pop(ident, None)
            else:
                self._names[ident] = before

    def caller(self) -> str | None:
        """Return the name of the calling thread if it is written down."""
        return self._names.get(threading.get_ident())


_owners = Roll()
finishers = Roll()
"""Threads that must not wait for a future, because they finish them."""

owner = _owners.entered
"""``with owner(name):`` refuses all blocking calls of ours on the calling thread."""


def refuse(operation: str) -> None:
    """Return if the caller may wait in `operation`. Any thread.

    Raises:
        ReentrantCallError: on a thread inside ``owner``.
    """
    name = _owners.caller()
    if name is not None:
        raise ReentrantCallError(
            f"{operation} would wait on {name}, the thread it waits for",
            operation=operation,
            hint="call it from a handler or a thread of your own",
        )


def pass_gate(gate: threading.Lock, deadline: Deadline) -> bool:
    """Acquire `gate`; False if the deadline passed first."""
    left = deadline.remaining()
    if left is not None and left <= SLICE:
        return gate.acquire(timeout=left)
    # Nearly every wait ends here, without asking what thread this is.
    return gate.acquire(timeout=SLICE) or wait_sliced(lambda seconds: gate.acquire(timeout=seconds), deadline)


def wait_sliced(wait: Callable[[float], bool], deadline: Deadline) -> bool:
    """Call ``wait(seconds)``, -1 for no end, until it returns True or the deadline passed; return which."""
    main = threading.current_thread() is threading.main_thread()
    while True:
        left = deadline.remaining()
        if main and (left is None or left > SLICE):
            if wait(SLICE):
                return True
        else:
            return wait(-1 if left is None else left)
