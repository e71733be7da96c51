"""Real data planes for the tests: several in this process, or one in a process of its own that runs a script."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import pytest

from mycorrizal import DataConfig
from mycorrizal.dataplane import DataPlane
from tests._runtime.local.meeting import assert_carrier, folder, meet

from .conftest import ROOT

__all__ = [
    "KEY",
    "Script",
    "Task",
    "each_carrier",
    "introduce",
    "memory",
    "mesh",
    "pythons",
    "run_script",
    "spawn",
    "together",
]

KEY = bytes(range(32))
SECONDS = 20.0

T = TypeVar("T")


@contextlib.contextmanager
def mesh(*names: str, config: DataConfig | None = None, **options: Any) -> Iterator[list[DataPlane]]:
    """Yield one plane for each name, who all know each other's addresses; close them at the end.

    Their carrier is QUIC, in a test with ``each_carrier`` what that says; another one is an error.
    """
    options.setdefault("key", KEY)
    with contextlib.ExitStack() as stack:
        planes = []
        for name in names:
            planes.append(DataPlane(name, config=config, **options))
            stack.callback(planes[-1].close)
        introduce(*planes)
        carrier = os.environ.get("MYCORRIZAL_TESTS_CARRIER", "quic")
        if carrier == "host":
            meet(stack.enter_context(folder()), *planes)
        yield planes
        assert_carrier(carrier, *planes)


@pytest.fixture(params=["quic", "host"])
def each_carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the planes of ``mesh`` reach each other by one carrier, then by the other."""
    name: str = request.param
    monkeypatch.setenv("MYCORRIZAL_TESTS_CARRIER", name)
    return name


def introduce(*planes: DataPlane) -> None:
    """Tell each the addresses of all others."""
    for one in planes:
        for other in planes:
            if other is not one:
                one.add_peer(other.name, other.address)


class Task(threading.Thread):
    """A thread that keeps what its function returned or raised."""

    def __init__(self, function: Callable[..., Any], *args: Any, **options: Any) -> None:
        super().__init__(daemon=True)
        self._function = partial(function, *args, **options)
        self._outcome: Any = None
        self._error: BaseException | None = None
        self.seconds = 0.0
        self.start()

    def run(self) -> None:
        began = time.monotonic()
        try:
            self._outcome = self._function()
        except BaseException as error:
            self._error = error
        self.seconds = time.monotonic() - began

    def result(self, timeout: float = SECONDS) -> Any:
        """Return what it returned, or raise what it raised."""
        self.join(timeout)
        assert not self.is_alive(), "it still runs"
        if self._error is not None:
            raise self._error
        return self._outcome

    def error(self, timeout: float = SECONDS) -> BaseException | None:
        """Return what it raised."""
        self.join(timeout)
        assert not self.is_alive(), "it still runs"
        return self._error


def together(count: int, function: Callable[[int], T], timeout: float = SECONDS) -> list[T]:
    """Call ``function(0)`` … ``function(count - 1)`` at once, each on a thread of its own; return the results."""
    gate = threading.Barrier(count)

    def run(number: int) -> T:
        gate.wait(timeout)
        return function(number)

    tasks = [Task(run, number) for number in range(count)]
    return [task.result(timeout) for task in tasks]


def memory(pid: int | None = None) -> int:
    """Return the resident bytes of a process, by default this one."""
    with open(f"/proc/{pid or os.getpid()}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


_HEAD = """
    import asyncio, gc, os, signal, sys, threading, time, warnings
    from mycorrizal import *
    from mycorrizal.dataplane import DataPlane
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who started the tests may ignore it
    KEY = bytes(range(32))
    def say(*words): print(*words, flush=True)
    def hear(): return sys.stdin.readline().strip()
"""


def _command(body: str, python: str) -> list[str]:
    return [python, "-W", "error", "-c", textwrap.dedent(_HEAD) + textwrap.dedent(body)]


class Script:
    """A process that runs a script, speaks in lines (``say``) and is spoken to in lines (``hear``)."""

    def __init__(self, body: str, *, python: str = sys.executable) -> None:
        self.process = subprocess.Popen(
            _command(body, python), cwd=ROOT, bufsize=0, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._heard = b""

    def read(self, timeout: float = SECONDS) -> str:
        """Return the next line it says."""
        assert self.process.stdout is not None
        end = time.monotonic() + timeout
        while b"\n" not in self._heard:
            left = end - time.monotonic()
            assert left > 0 and select.select([self.process.stdout], [], [], left)[0], "it says nothing"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"it has ended: {self.errors()}"
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()

    def words(self, timeout: float = SECONDS) -> list[str]:
        """Return the words of the next line."""
        return self.read(timeout).split()

    def tell(self, line: object) -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    def ask(self, line: object, timeout: float = SECONDS) -> str:
        """Give it a line, and return what it says to that."""
        self.tell(line)
        return self.read(timeout)

    def interrupt(self) -> None:
        """Do what Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(10)

    def errors(self) -> str:
        """Return what it wrote to stderr; it has to be at its end."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def end(self) -> None:
        """Kill it, whatever it does."""
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextlib.contextmanager
def spawn(body: str) -> Iterator[Script]:
    """Run a script beside the test, and kill it at the end."""
    script = Script(body)
    try:
        yield script
    finally:
        script.end()


def run_script(body: str, *, seconds: float = SECONDS, python: str = sys.executable) -> tuple[int, str, str]:
    """Run a script to its end; return exit code, output and errors."""
    done = subprocess.run(
        _command(body, python), cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def pythons() -> Sequence[str]:
    """Return this interpreter, and newer ones that have what we need (MYCORRIZAL_PYTHONS, separated by colons)."""
    return [sys.executable, *filter(None, os.environ.get("MYCORRIZAL_PYTHONS", "").split(":"))]
