"""The threads of ours: nothing that a user's code raises on one comes further than to its top."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..._wire import text

__all__ = ["at_exit", "exiting", "linger", "ours", "own_thread"]

_log = text.logger("mycorrizal.service")
_here = threading.local()
_exiting: list[None] = []  # an entry from the moment on at which the exit handlers close what runs
_LINGER_SECONDS = 10.0


def own_thread(name: str, body: Callable[[], object]) -> threading.Thread:
    """Return a daemon, not started, that runs `body`. ``threading.excepthook``, which is the user's, is not asked."""

    def run() -> None:
        _here.ours = True
        try:
            body()
        except BaseException as exc:  # one that was thrown into the thread from outside, say
            _log.critical("thread %s died: %r", name, exc, exc_info=exc)

    return threading.Thread(target=run, name=name, daemon=True)


def ours() -> bool:
    """Whether the caller runs on a thread of ours, where no Ctrl-C comes and nobody catches what is raised."""
    return getattr(_here, "ours", False)


def at_exit() -> None:
    """What runs is about to be closed because the interpreter ends."""
    _exiting.append(None)


def exiting() -> bool:
    """Whether the interpreter ends, and what runs is being closed."""
    return bool(_exiting)


def linger() -> None:
    """At the interpreter's end keep a daemon thread of the user's where it is, which nobody waits for.

    What its call of ours would raise now, because all is closed, nobody is there to catch: it would print a
    traceback at the end of a program that has done nothing wrong. For some seconds, in case somebody does wait. To be
    called without a lock, which whoever closes may want.
    """
    if _exiting and not ours() and threading.current_thread().daemon:
        threading.Event().wait(_LINGER_SECONDS)


text.Log.ours = staticmethod(ours)
