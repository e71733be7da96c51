"""What the process or its host has run out of: descriptors, threads, memory, room on a disk.

One place turns the system's errors into ours, with what helps, and remembers
them: these things are the process's, so what is noted here is too, and every
node of it tells of it in ``metrics()`` and ``health()``.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..._wire.text import logger
from ...exceptions import ResourcesExhausted
from . import clock
from .counters import Counters, QuietLog

__all__ = ["as_ours", "exhausted", "metrics", "note", "problems", "resource_of", "spare_descriptors", "start_thread"]

log = logger("mycorrizal.shortage")

RECENT_SECONDS = 60.0
"""How long a shortage is a problem of ``health()``."""

_HINTS = {
    "descriptors": "raise the limit of open files (`ulimit -n`, LimitNOFILE=), or close files and connections",
    "threads": "raise the limit of processes and threads (`ulimit -u`, TasksMax=, a container's pids limit), or end "
    "some; each also needs address space for its stack",
    "memory": "raise the limit of memory (`ulimit -v`, MemoryMax=), or hold less",
    "disk": "free room on that disk, or raise its quota",
}
_AT_THE_END = "the interpreter is ending: call it before"
_NUMBERS = {
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
    errno.ENOMEM: "memory",
    errno.ENOBUFS: "memory",
    errno.ENOSPC: "disk",
    errno.EDQUOT: "disk",
}
_TEXTS = {
    "descriptors": "no descriptors were left",
    "threads": "no threads were to be had",
    "memory": "there was no memory",
    "disk": "a disk was full",
}
_SQLITE_FULL = 13

_counters = Counters(*(f"starved.{resource}" for resource in _HINTS))
_quiet = QuietLog(log, "this process")
_last: dict[str, float] = {}


def resource_of(error: BaseException) -> str | None:
    """Return what `error` says is used up, None if it is about something else."""
    if isinstance(error, ResourcesExhausted):
        return error.resource
    if isinstance(error, MemoryError):
        return "memory"
    if getattr(error, "sqlite_errorcode", None) == _SQLITE_FULL:
        return "disk"
    number = getattr(error, "errno", None)  # of OSError, and of ZeroMQ's
    if isinstance(number, int):
        return _NUMBERS.get(number)
    if isinstance(error, RuntimeError) and "new thread" in str(error):
        return "threads"
    return None


def note(error: BaseException) -> str | None:
    """Count and log `error` if it is a shortage; return what is used up, None if it is about something else."""
    resource = resource_of(error)
    if resource is not None and not isinstance(error, ResourcesExhausted):  # those were noted when they were made
        _noted(resource, error)
    return resource


def _noted(resource: str, error: BaseException) -> None:
    _last[resource] = clock.now()
    _counters.add(f"starved.{resource}")
    _quiet.warning(resource, "%s: %s; %s", _TEXTS[resource], _text(error), _HINTS[resource])


def exhausted(
    error: BaseException, what: str, *, node: str | None = None, operation: str | None = None
) -> ResourcesExhausted | None:
    """Return `error` as ours, noted, if it is a shortage: ``raise exhausted(exc, "...") or BindError(...) from exc``.

    Args:
        what: what could not be done.
    """
    if isinstance(error, ResourcesExhausted):
        error.node, error.operation = error.node or node, error.operation or operation
        return error
    resource = note(error)
    return None if resource is None else _made(resource, error, what, node, operation)


def spare_descriptors(wanted: int = 1) -> None:
    """Raise what the system does if it has not even so many: of what others open they tell only that it failed.

    Raises:
        OSError: of the number that ``resource_of`` knows.
    """
    found: list[int] = []
    try:
        while len(found) < wanted:
            found.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for one in found:
            os.close(one)


def _text(error: BaseException) -> str:
    """Return what `error` says, without the path of an ``OSError``: where one is asked for, a key may be given."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _made(
    resource: str, error: BaseException, what: str, node: str | None = None, operation: str | None = None
) -> ResourcesExhausted:
    text = _text(error)
    hint = _AT_THE_END if "shutdown" in text else _HINTS[resource]
    made = ResourcesExhausted(f"{what}: {text}", node=node, operation=operation, hint=hint)
    made.resource = resource
    made.errno = getattr(error, "errno", None)
    return made


@contextmanager
def as_ours(what: str, *, node: str | None = None, operation: str | None = None) -> Iterator[None]:
    """Raise what is short inside the block as ``ResourcesExhausted``; what else is raised passes."""
    try:
        yield
    except Exception as exc:
        error = exhausted(exc, what, node=node, operation=operation)
        if error is None or error is exc:
            raise
        raise error from exc


def start_thread(thread: threading.Thread) -> None:
    """Start `thread`.

    Raises:
        ResourcesExhausted: there is none to be had. Also in an interpreter that is ending.
    """
    try:
        thread.start()
    except (RuntimeError, MemoryError) as exc:  # a thread of ours is started once: this is the system's refusal
        _noted("threads", exc)
        raise _made("threads", exc, f"thread {thread.name} cannot be started") from exc


def metrics() -> dict[str, int]:
    """Return how often each was short in this process."""
    return _counters.snapshot()


def problems() -> list[str]:
    """Return a sentence for each that was short of late."""
    now = clock.now()
    found = []
    for resource, at in list(_last.items()):
        if now - at < RECENT_SECONDS:
            found.append(f"{_TEXTS[resource]} {now - at:.0f} s ago: {_HINTS[resource]}")
    return found
