"""The threads of ours: nothing that a user's code raises on one comes further than to its top."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .._wire import text

__all__ = ["ours", "own_thread"]

_log = text.logger("mycorrizal.service")
_here = threading.local()


def own_thread(name: str, body: Callable[[], object]) -> threading.Thread:
    """Return a daemon, not started, that runs `body`. ``threading.excepthook``, which is the user's, is not asked."""

    def run() -> None:
        _here.ours = True
        try:
            body()
        except BaseException as exc:  # one that was thrown into the thread from outside, say
            _log.critical("! thread %s died: %r", name, exc, exc_info=exc)

    return threading.Thread(target=run, name=name, daemon=True)


def ours() -> bool:
    """Whether the caller runs on a thread of ours, where no Ctrl-C comes and nobody catches what is raised."""
    return getattr(_here, "ours", False)


text.Log.ours = staticmethod(ours)
