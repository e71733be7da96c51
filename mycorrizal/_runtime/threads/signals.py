"""Signals as a wish to stop, for a program that has something to end in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from ...exceptions import LocalProtocolError
from .platform import signal_self

__all__ = ["SIGTERM", "StopSignals", "end_first"]

SIGTERM: int = signal.SIGTERM


class StopSignals:
    """Inside ``with``, the first SIGINT or SIGTERM sets ``received``; the second one acts as it did before.

    Main thread only. A wait of the main thread goes on after the first
    signal, so whoever waits has to look at ``received`` now and then.

    Attributes:
        received: the name of the signal, None until one came.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        for number in self._SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def end_first(number: int, end: Callable[[], object]) -> None:
    """Have the signal `number` call `end`, on a thread of its own, before it does what it did until now.

    A second one does that at once. The thread is waited for at the end of the interpreter.

    Raises:
        LocalProtocolError: not on the main thread.
        ValueError, OSError: there is no such signal, or it cannot be caught.
    """
    if threading.current_thread() is not threading.main_thread():
        raise LocalProtocolError("only the main thread may say what a signal does", hint="call it there")
    _EndFirst(signal.Signals(number), end)


class _EndFirst:
    """One signal's handler. It runs on the main thread, which may hold any lock, so it waits for nothing."""

    def __init__(self, number: signal.Signals, end: Callable[[], object]) -> None:
        self._number = number
        self._end = end
        self._begun = False
        self._mine = self._came  # one object, to be found again
        self._before: Any = signal.SIG_DFL
        self._before = signal.signal(number, self._mine) or signal.SIG_DFL

    def _came(self, number: int, frame: FrameType | None) -> None:
        if signal.getsignal(number) is self._mine:
            signal.signal(number, self._before)
        if not self._begun:
            self._begun = True
            try:
                threading.Thread(target=self._run, name="mycorrizal-leave", daemon=False).start()
                return
            except RuntimeError:  # no thread is to be had
                pass
        if signal.getsignal(number) is self._before:
            signal.raise_signal(number)
        elif callable(self._before):  # somebody's handler in front of this one has called it
            self._before(number, frame)

    def _run(self) -> None:
        try:
            self._end()
        finally:
            signal_self(self._number)
