"""What every peer of ``tools/bench data`` has in common: how it is called, timed and weighed.

A peer is a server class and a client class. The server answers a request with
the request itself and a bulk value with its receipt; it keeps the value whole
until then, as a program that wants the value would. A client is either called
from threads (``ThreadedClient``) or brings its own way of keeping several
requests outstanding.
"""

from __future__ import annotations

import abc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from benchmarks.rounds import WARM, at_once

REQUEST = bytes(range(64))
BULK_FROM = 1 << 20  # bytes: a frame at least this long is a bulk value, to servers that have one port for both

Caller = Callable[[bytes], bytes]
Address = dict[str, Any]
Figures = dict[str, float]


class Server(Protocol):
    """The answering side; ``address`` is what a client needs to know, as JSON."""

    address: Address

    def meet(self, address: Address) -> None:
        """Hear of the client's own address."""

    def close(self) -> None: ...


class Client(Protocol):
    """The asking side. Every method blocks until it is done."""

    address: Address

    def requests(self, callers: int, seconds: float) -> Figures:
        """Keep `callers` requests outstanding for `seconds`."""

    def bulk(self, value: Any) -> bytes:
        """Hand over one large value; return the receiver's receipt."""

    def close(self) -> None: ...


class BaseServer:
    """A server that need not know its client."""

    def __init__(self) -> None:
        self.address: Address = {}

    def meet(self, address: Address) -> None:
        return None

    def close(self) -> None:
        return None


class ThreadedClient(abc.ABC):
    """A client that is called from threads, one call at a time in each."""

    def __init__(self) -> None:
        self.address: Address = {}

    @abc.abstractmethod
    def caller(self) -> Caller:
        """Return what one thread calls; runs in that thread."""

    def requests(self, callers: int, seconds: float) -> Figures:
        return threaded(self.caller, callers, seconds)

    @abc.abstractmethod
    def bulk(self, value: Any) -> bytes:
        """Hand over one large value; return the receiver's receipt."""

    def close(self) -> None:
        return None


# -- values ------------------------------------------------------------------------------


def bulk_value(size: int) -> bytes:
    """Return bytes that no link compresses and no page of which is shared."""
    block = b"".join(i.to_bytes(4, "big") for i in range(0x9E3779B9, 0x9E3779B9 + (1 << 18)))
    return (block * (size // len(block) + 1))[:size]


def receipt(value: bytes | bytearray | memoryview) -> bytes:
    """Return what proves that a whole value came: its length and samples, which cost nothing to look at."""
    view = memoryview(value).cast("B")
    middle = len(view) // 2
    return len(view).to_bytes(8, "big") + view[:8].tobytes() + view[middle : middle + 8].tobytes() + view[-8:].tobytes()


# -- time --------------------------------------------------------------------------------


def figures(latencies: list[int], seconds: float) -> Figures:
    """Return calls per second, and the median and 99th percentile in microseconds, of latencies in nanoseconds."""
    ordered = sorted(latencies)
    return {
        "per_second": len(ordered) / seconds,
        "p50": ordered[len(ordered) // 2] / 1000,
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] / 1000,
        "count": len(ordered),
    }


def threaded(make: Callable[[], Caller], callers: int, seconds: float) -> Figures:
    """Call from `callers` threads for `seconds` and measure every call."""

    def prepare(number: int) -> Callable[[], tuple[list[int], int, int]]:
        call = make()
        _calls(call, WARM)
        return lambda: _calls(call, seconds)

    found = at_once(callers, prepare)
    begin, end = min(begin for _, begin, _ in found), max(end for _, _, end in found)
    return figures([each for latencies, _, _ in found for each in latencies], (end - begin) / 1e9)


def _calls(call: Caller, seconds: float) -> tuple[list[int], int, int]:
    clock, request = time.perf_counter_ns, REQUEST
    found: list[int] = []
    note = found.append
    begin = before = clock()
    end = begin + int(seconds * 1e9)
    while before < end:
        if call(request) != request:
            raise RuntimeError("a reply differs from its request")
        now = clock()
        note(now - before)
        before = now
    return found, begin, before


# -- memory ------------------------------------------------------------------------------


def memory() -> dict[str, int]:
    """Return this process's resident memory, now and at its peak since ``forget_peak``, in bytes."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"now": int(rows["VmRSS"].split()[0]) * 1024, "peak": int(rows["VmHWM"].split()[0]) * 1024}


def forget_peak() -> int:
    """Start a new peak; return the resident bytes it starts from."""
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    return memory()["now"]
