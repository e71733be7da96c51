"""Two planes of one process that know each other, and threads to use them from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from mycorrizal._runtime.data.streams import Stream
from mycorrizal.dataplane import DataPlane

SECONDS = 20.0
KEY = bytes(range(32))
MIB = 1 << 20


class Pair(NamedTuple):
    alice: DataPlane
    bob: DataPlane

    def open(self, name: str) -> Stream:
        stream = self.alice.open_stream("bob", name)
        stream.timeout = SECONDS
        return stream

    def quiet(self) -> bool:
        """Whether both are still friends, and nothing of a stream is left."""
        for plane in self:
            assert plane.metrics().get("offences", 0) == 0
        return all(left_open(plane) == (0, 0) for plane in self)


def left_open(plane: DataPlane) -> tuple[int, int]:
    core = plane._started

    def look() -> tuple[int, int]:
        links = list(core.machine.links.values())
        return sum(len(link.bulk.pipes) for link in links), sum(len(link.bulk.flows) for link in links)

    found: tuple[int, int] = core.ask(look, "test")
    return found


class Task:
    """A function on a thread of its own; ``result`` raises what it raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._outcome: Any = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._function()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        if self._error is not None:
            raise self._error
        return self._outcome


def until(condition: Callable[[], object]) -> None:
    """Wait for `condition`, which becomes true by itself."""
    pause = threading.Event()
    for _ in range(int(SECONDS * 200)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not come true")
