"""What happens to running services at interpreter exit and after ``fork``.

Threads here are daemons, so an object that nobody closed cannot hang the
interpreter; an exit handler, set up at import because Python 3.12 and later
start no thread during exit, stops them in order before the interpreter takes
its modules apart, which is what would print tracebacks. A forked child has the
descriptors but not the threads: it closes its copies, so that the parent's
port does not stay taken by a child, and its handles refuse every call.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import NoReturn, Protocol

from ...exceptions import ForkedProcessError
from . import platform
from .deadline import Deadline
from .starting import at_exit

__all__ = ["ForkGuard", "Handle", "Running", "forget", "remember"]

EXIT_SECONDS = 3.0
"""How long the end of the interpreter waits for all that runs."""


class Running(Protocol):
    """What is stopped at exit and given up in a forked child."""

    def stop(self) -> None:
        """Begin to stop; does not wait."""

    def join(self, deadline: Deadline) -> bool:
        """Wait until it has stopped."""

    def abandon(self) -> None:
        """Close descriptors without taking a lock; called in a forked child."""


_running: weakref.WeakSet[Running] = weakref.WeakSet()


def remember(service: Running) -> None:
    """Stop `service` at exit unless it was stopped before."""
    _running.add(service)


def forget(service: Running) -> None:
    """`service` was stopped."""
    _running.discard(service)


def _at_exit() -> None:
    services = list(_running)
    at_exit()
    for service in services:
        service.stop()
    deadline = Deadline(EXIT_SECONDS)
    for service in services:
        service.join(deadline)


def _in_child() -> None:
    services = list(_running)
    _running.clear()
    for service in services:
        service.abandon()


atexit.register(_at_exit)
platform.at_fork(after_in_child=_in_child)


class Handle:
    """A handle to what runs in this process: threads, sockets, shared state. It has no copy."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        """Refuse pickle and copy, which would fail at a lock inside, or share what has one owner."""
        name = type(self).__name__
        raise TypeError(f"a {name} cannot be copied or pickled: it belongs to this process; make one in each process")


class ForkGuard:
    """Tells a process that it inherited a handle through ``fork``."""

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this process is not the one that made the handle."""
        return os.getpid() != self._pid

    def check(self, what: str, operation: str | None = None) -> None:
        """Raise in a child that calls `operation` of `what`.

        Raises:
            ForkedProcessError: always, in a forked child.
        """
        if os.getpid() != self._pid:
            raise ForkedProcessError(
                f"this {what} belongs to process {self._pid}; a fork copies neither threads nor sockets' ownership",
                operation=operation,
                hint="create a new one in the child, with its own name and port",
            )
