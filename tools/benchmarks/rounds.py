"""What the measurements of ``tools/bench`` have in common: rounds, callers that begin together, where it ran."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from benchmarks.data.pair import WorkerError

MANY_CALLERS = 16
BUSY = 0.3  # load for each core, before anything is started, above which figures are doubtful
WARM = 0.2  # seconds of calls that are not counted

T = TypeVar("T")


def turned(names: list[T], number: int) -> list[T]:
    """Return `names` in the order of a round: each begins with another one."""
    first = number % len(names)
    return names[first:] + names[:first]


def at_once(callers: int, prepare: Callable[[int], Callable[[], T]]) -> list[T]:
    """Return what `callers` threads return; ``prepare(thread)()`` in each, the second call when all are prepared."""
    lined_up = threading.Barrier(callers, timeout=60)
    found: list[T] = []
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            begin = prepare(number)
            lined_up.wait()
            found.append(begin())
        except BaseException as error:  # told to whoever measures, below
            errors.append(error)
            lined_up.abort()

    threads = [threading.Thread(target=run, args=(number,), name=f"bench-caller-{number}") for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
    return found


def environment(packages: Iterable[str]) -> dict[str, Any]:
    """Return what the figures depend on."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_at_start": os.getloadavg()[0],
        "packages": versions,
    }


class Failures(dict[str, list[str]]):
    """What went wrong, by peer."""

    def note(self, name: str, error: WorkerError) -> None:
        """Print it now, and keep it."""
        self.setdefault(name, []).append(str(error))
        print(f"{name} failed: {error}\n{error.trace}", file=sys.stderr)

    def lines(self, absent: Mapping[str, str]) -> list[str]:
        """Return what a report says at its end; `absent` is what a peer lacks here, "" if nothing."""
        lines = [f"absent: {name} needs {what}" for name, what in absent.items() if what]
        return lines + [f"FAILED: {name}, {len(errors)} times: {errors[0]}" for name, errors in self.items()]
