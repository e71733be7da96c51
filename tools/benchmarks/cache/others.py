"""The peers of ``tools/bench cache`` that are not ours, each with its usual client in Python and its defaults."""

from __future__ import annotations

import abc
import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.managers import SyncManager
from typing import Any

from benchmarks.cache.peer import KEYS, VALUE

SERVERS = {
    "redis": ["redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", "{port}"],
    "memcached": ["memcached", "-l", "127.0.0.1", "-U", "0", "-m", "512", "-I", "128m", "-u", "nobody", "-p", "{port}"],
}
"""Commands of servers, by peer. They hold their data in memory only, as ours does."""


@contextlib.contextmanager
def server(peer: str) -> Iterator[int]:
    """Run the peer's server on a free port of loopback; yield the port, 0 if it needs none."""
    if peer not in SERVERS:
        yield 0
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="mycorrizal-bench-") as folder:
        command = [word.format(port=port) for word in SERVERS[peer]]
        child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            _wait_for(port, child)
            yield port
        finally:
            child.terminate()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if child.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server on port {port} does not answer") from None
            time.sleep(0.02)


class Base(abc.ABC):
    """Most of a peer: the same keys wherever they are held, and bytes as the large value."""

    def __init__(self, port: int) -> None:
        for key in KEYS:
            self.set(key, VALUE)

    def keys(self, held: str) -> list[str]:
        return KEYS

    @abc.abstractmethod
    def get(self, key: str) -> Any: ...

    @abc.abstractmethod
    def set(self, key: str, value: Any) -> None: ...

    @abc.abstractmethod
    def set_many(self, items: Mapping[str, Any]) -> None: ...

    def large(self, size: int) -> Any:
        return bytes(range(256)) * (size // 256)

    def set_large(self, value: Any) -> None:
        self.set("large", value)

    def get_large(self) -> Any:
        return self.get("large")

    def end_large(self) -> None:
        self.set("large", VALUE)

    def close(self) -> None:
        return None


class Redis(Base):
    """redis-py with hiredis: one client, whose pool gives each thread a connection."""

    def __init__(self, port: int) -> None:
        import redis

        self._redis = redis.Redis(port=port)
        super().__init__(port)

    def get(self, key: str) -> Any:
        return self._redis.get(key)

    def set(self, key: str, value: Any) -> None:
        self._redis.set(key, value)

    def set_many(self, items: Mapping[str, Any]) -> None:
        self._redis.mset(items)


class Memcached(Base):
    """pymemcache's pooled client."""

    def __init__(self, port: int) -> None:
        from pymemcache.client.base import PooledClient

        self._client = PooledClient(("127.0.0.1", port), max_pool_size=32, default_noreply=False)
        super().__init__(port)

    def get(self, key: str) -> Any:
        return self._client.get(key)

    def set(self, key: str, value: Any) -> None:
        if not self._client.set(key, value):
            raise RuntimeError("not stored")

    def set_many(self, items: Mapping[str, Any]) -> None:
        if self._client.set_many(items):
            raise RuntimeError("not all stored")


class DiskCache(Base):
    """diskcache.Cache in a temporary folder; a write is in SQLite's log when it returns."""

    def __init__(self, port: int) -> None:
        import diskcache

        self._folder = tempfile.mkdtemp(prefix="mycorrizal-bench-")
        self._cache = diskcache.Cache(self._folder)
        super().__init__(port)

    def get(self, key: str) -> Any:
        return self._cache.get(key)

    def set(self, key: str, value: Any) -> None:
        self._cache.set(key, value)

    def set_many(self, items: Mapping[str, Any]) -> None:
        with self._cache.transact():
            for key, value in items.items():
                self._cache.set(key, value)

    def close(self) -> None:
        self._cache.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class ManagerDict(Base):
    """multiprocessing.Manager().dict(): a dict in a process of its own."""

    def __init__(self, port: int) -> None:
        self._manager = SyncManager()
        self._manager.start()
        self._dict = self._manager.dict()
        super().__init__(port)

    def get(self, key: str) -> Any:
        return self._dict.get(key)

    def set(self, key: str, value: Any) -> None:
        self._dict[key] = value

    def set_many(self, items: Mapping[str, Any]) -> None:
        self._dict.update(items)

    def close(self) -> None:
        self._manager.shutdown()


class TtlCache(Base):
    """cachetools.TTLCache behind a lock, as its documentation asks for: in this process alone."""

    def __init__(self, port: int) -> None:
        import cachetools

        self._cache: Any = cachetools.TTLCache(maxsize=1 << 20, ttl=3600)
        self._lock = threading.Lock()
        super().__init__(port)

    def get(self, key: str) -> Any:
        with self._lock:
            return self._cache.get(key)

    def set(self, key: str, value: Any) -> None:
        with self._lock:
            self._cache[key] = value

    def set_many(self, items: Mapping[str, Any]) -> None:
        with self._lock:
            self._cache.update(items)
