"""Ours in ``tools/bench data``: a ``DataPlane`` and, in the same process, a ``Memberlist`` that must not be disturbed.

Both sides hold a key and prove it, as between hosts.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import mycorrizal
from benchmarks.data.peer import (
    REQUEST,
    Address,
    Caller,
    Figures,
    ThreadedClient,
    bulk_value,
    figures,
    forget_peak,
    memory,
    receipt,
)

KEY = bytes(range(32))
_TROUBLE = ("probes_failed", "msg.suspect", "msg.dead", "suspicions_expired", "refutations", "nodes.lost", "stalls")


class Losses:
    """An event delegate that counts who was lost."""

    def __init__(self) -> None:
        self.lost = 0

    def notify_join(self, node: mycorrizal.Node) -> None:
        return None

    def notify_leave(self, node: mycorrizal.Node) -> None:
        self.lost += 1

    def notify_update(self, node: mycorrizal.Node) -> None:
        return None


class Member:
    """One process's membership, with memberlist's LAN settings."""

    def __init__(self, name: str, host: str, seed: Address | None = None) -> None:
        self.losses = Losses()
        config = mycorrizal.Config.lan(name=name, bind_addr=host, bind_port=0)
        self.member = mycorrizal.Memberlist(config, events=self.losses)
        if seed is not None:
            self.member.join([f"{seed['host']}:{seed['gossip']}"], timeout=10)

    @property
    def port(self) -> int:
        return self.member.local_node.port

    def trouble(self) -> dict[str, int]:
        """Return how often it probed, and every sign of a suspicion that is not zero."""
        metrics = self.member.metrics()
        found = {name: metrics.get(name, 0) for name in _TROUBLE} | {"lost": self.losses.lost}
        return {"probes": metrics.get("probes", 0), **{name: count for name, count in found.items() if count}}


def _plane(name: str, host: str, spin: float | None, peers: dict[str, tuple[str, int]]) -> mycorrizal.DataPlane:
    config = mycorrizal.DataConfig(spin=spin)
    return mycorrizal.DataPlane(name, bind=host, port=0, key=KEY, peers=peers, config=config)


class PlaneServer:
    """Echoes requests; answers a large value with its receipt, and an array with that of its bytes."""

    def __init__(self, host: str, work: Path, spin: float | None = None) -> None:
        self.member = Member("server", host)
        self.plane = _plane("server", host, spin, {})
        self.small = 0
        self.plane.on_request("echo")(lambda request: request.value)
        self.address: Address = {"host": host, "port": self.plane.port, "gossip": self.member.port}
        threading.Thread(target=self.take, daemon=True).start()

    def meet(self, address: Address) -> None:
        self.plane.add_peer("client", (address["host"], address["port"]))

    def take(self) -> None:
        with contextlib.suppress(mycorrizal.NotRunningError):
            while True:
                value: Any = self.plane.receive().value
                if isinstance(value, bytes) and len(value) == len(REQUEST):
                    self.small += 1
                    continue
                answer: Any = self.small if isinstance(value, str) else receipt(value)
                value, self.small = None, 0  # before the answer, so that two values are never held at a time
                self.plane.send("client", answer, timeout=30)

    def trouble(self) -> dict[str, int]:
        return self.member.trouble()

    def close(self) -> None:
        self.plane.close()
        self.member.member.shutdown()


class PlaneClient(ThreadedClient):
    """All callers share one plane."""

    def __init__(self, host: str, work: Path, address: Address, spin: float | None = None) -> None:
        super().__init__()
        self.member = Member("client", host, address)
        self.plane = _plane("client", host, spin, {"server": (address["host"], address["port"])})
        self.address = {"host": host, "port": self.plane.port}

    def caller(self) -> Caller:
        request = self.plane.request
        return lambda data: request("server", "echo", data, timeout=30)

    def bulk(self, value: Any) -> bytes:
        answer: bytes = self._exchange(value)
        return answer

    def sends(self, seconds: float) -> Figures:
        """Send 64-byte messages from one thread until the time is over; counted when the receiver has the last."""
        clock, send = time.perf_counter_ns, self.plane.send
        found: list[int] = []
        begin = before = clock()
        end = begin + int(seconds * 1e9)
        while before < end:
            send("server", REQUEST, timeout=30)
            now = clock()
            found.append(now - before)
            before = now
        received = self._exchange("how many?")
        if received != len(found):
            raise RuntimeError(f"{len(found)} messages sent, {received} received")
        return figures(found, (clock() - begin) / 1e9)

    def array(self, size: int, kind: str) -> dict[str, float]:
        """Send `size` bytes as ``bytes`` or as a NumPy array; the value is made before the clock runs."""
        value: Any = bulk_value(size)
        expected = receipt(value)
        if kind == "array":
            import numpy as np

            value = np.frombuffer(value, dtype="<f8").copy()
        before = forget_peak()
        begin = time.perf_counter()
        if self._exchange(value) != expected:
            raise RuntimeError(f"the {kind} arrived changed")
        return {"seconds": time.perf_counter() - begin, "rss_sender": (memory()["peak"] - before) / size}

    def trouble(self) -> dict[str, int]:
        return self.member.trouble()

    def close(self) -> None:
        self.plane.close()
        self.member.member.shutdown()

    def _exchange(self, value: Any) -> Any:
        self.plane.send("server", value, timeout=300)
        return self.plane.receive(timeout=300).value
