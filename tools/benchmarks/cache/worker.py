"""One process of ``tools/bench cache``: one of our two agents, or the client of another cache."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.cache import others
from benchmarks.cache.ours import Node, Ours, Plane
from benchmarks.cache.peer import MANY, Cache, Peer, rate, reads, timed, writes
from benchmarks.data.peer import forget_peak, memory
from benchmarks.data.worker import obey

OTHERS: dict[str, type[others.Base]] = {
    "redis": others.Redis,
    "memcached": others.Memcached,
    "manager": others.ManagerDict,
    "diskcache": others.DiskCache,
    "ttlcache": others.TtlCache,
}


class Worker:
    """Obeys orders by the name in their ``do``."""

    def __init__(self) -> None:
        self.node: Node | None = None
        self.caches: dict[str, Cache] = {}
        self.peers: dict[str, Peer] = {}
        self.value: Any = None

    def serve(self) -> dict[str, str]:
        """Be the agent that is asked."""
        self.node = Node("server", None)
        return {"address": self.node.address}

    def join(self, address: str) -> None:
        """Be the agent that asks."""
        self.node = Node("client", address)
        self.caches = {each: Ours(self.node, each) for each in self.node.caches}
        self.peers = {"plane": Plane(self.node), **self.caches}

    def open(self, peer: str, port: int) -> None:
        self.peers[peer] = self.caches[peer] = OTHERS[peer](port)

    def get(self, peer: str, held: str, callers: int, seconds: float) -> float:
        found = self.peers[peer]
        return rate(reads(found.get, found.keys(held)), callers, seconds)

    def set(self, peer: str, held: str, callers: int, seconds: float) -> float:
        found = self.peers[peer]
        return rate(writes(found.set, found.keys(held)), callers, seconds)

    def loop(self, peer: str, seconds: float) -> float:
        return rate(writes(self.peers[peer].set, list(MANY)[:100]), 1, seconds)

    def many(self, peer: str) -> float:
        found = self.caches[peer]
        return len(MANY) / timed(lambda: found.set_many(MANY))

    def large(self, peer: str, size: int, times: int) -> list[dict[str, float]]:
        """Write and read a value of `size` bytes: MB/s, and the peak of memory above what was there before."""
        found = self.peers[peer]
        self.value = found.large(size) if self.value is None else self.value
        figures = []
        for _ in range(times):
            before = forget_peak()
            put = timed(lambda: found.set_large(self.value))
            rss_put, before = memory()["peak"] - before, forget_peak()
            begin = time.perf_counter()
            got = found.get_large()
            fetch = time.perf_counter() - begin
            if memoryview(got).nbytes != size:
                raise RuntimeError("the large value is not what was set")
            del got
            rss_get = memory()["peak"] - before
            figures.append({
                "put": size / put / 1e6, "fetch": size / fetch / 1e6, "rss_put": rss_put / size,
                "rss_fetch": rss_get / size,
            })  # fmt: skip
        found.end_large()
        return figures

    def forget_peak(self) -> int:
        return forget_peak()

    def peak(self) -> int:
        return memory()["peak"]

    def trouble(self) -> dict[str, int]:
        assert self.node is not None
        return self.node.trouble()

    def quit(self) -> None:
        for peer in self.peers.values():
            peer.close()
        if self.node is not None:
            self.node.close()


if __name__ == "__main__":
    obey(Worker())
