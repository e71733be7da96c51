"""A thread that is never silent about its end: it is stopped, or it crashed and says of what."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..._endings import Ending, error
from ..._wire.text import logger
from ...exceptions import MycorrizalError
from .deadline import Deadline
from .shortage import start_thread
from .starting import linger, own_thread
from .waits import join_thread

__all__ = ["Service"]

log = logger("mycorrizal.service")


class Service:
    """One named daemon thread that runs `body` once.

    A daemon, because a thread that waits for ever must not hold up the end of
    the interpreter; ``lifecycle`` stops it in order before it comes to that.

    Args:
        what: the user's object that the thread is of.

    Attributes:
        crashed: the exception that ended the thread, if one did.
    """

    def __init__(
        self, name: str, node: str, body: Callable[[], None], on_end: Callable[[], None], what: str = "Memberlist"
    ) -> None:
        self._name = name
        self._node = node
        self._body = body
        self._on_end = on_end
        self._what = what
        self.crashed: BaseException | None = None
        self._thread = own_thread(name, self._run)

    def start(self) -> None:
        """Start the thread.

        Raises:
            ResourcesExhausted: the system, or an interpreter that is ending, refuses a new thread.
        """
        start_thread(self._thread)

    def _run(self) -> None:
        try:
            self._body()
        except BaseException as exc:
            self.crashed = exc
            log.critical("%s: thread %s died: %r", self._node, self._name, exc, exc_info=exc)
        finally:
            self._on_end()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def join(self, deadline: Deadline) -> bool:
        """Wait until the thread has ended; False if the deadline passed, or it is the caller's own."""
        if self._thread.ident is None:
            return True
        if self.is_current():
            return False
        return join_thread(self._thread, deadline)

    def refusal(self, *, sent: bool = False) -> MycorrizalError:
        """Return the error for a call that needs this thread, once it has ended; `sent`: the call had begun."""
        linger()
        hint = "create a new one"
        if self.crashed is None:
            done = "closed" if self._what == "DataPlane" else "shut down"
            return error(Ending.CLOSED, f"{self._node}: this {self._what} was {done}", sent=sent, hint=hint)
        text = f"{self._node}: thread {self._name} died: {self.crashed!r}"
        return error(Ending.CRASHED, text, sent=sent, hint=hint, cause=self.crashed)
