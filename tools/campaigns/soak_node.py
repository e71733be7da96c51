"""One agent of ``tools/chaos soak``: does a little of everything without end, and says on request what it holds.

Run as ``campaigns.soak_node SETTINGS`` (JSON). Orders are lines of JSON on stdin, answers lines on stdout.
"""

from __future__ import annotations

import collections
import gc
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from mycorrizal import Agent, MycorrizalError, NotRunningError

KEYS = 100
"""Keys of the cache, settings and services: names come again and again, as they do in a real program."""
EVENTS = 1100
"""More than what is remembered of all senders."""
RARE = 10
"""How much rarer a call is that leaves a tombstone."""
LARGE = 200_000
"""Bytes of the large values, which travel on streams of their own."""
TABLES = (dict, list, set, collections.deque, bytearray)


class Worker:
    """One thread that calls, waits, and calls something else."""

    def __init__(self, agent: Agent, seed: str, pause: float) -> None:
        self.agent = agent
        self.random = random.Random(seed)
        self.pause = pause
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.stopping = False
        self.cache = agent.cache("soak", ttl=60.0, max_entries=2 * KEYS)
        self.near = agent.cache("soak near", near=True, max_bytes=4 << 20)
        often: list[Callable[[], object]] = [
            self.send, self.send_large, self.request, self.request_all, self.set, self.get, self.count, self.near_set,
            self.near_get, self.compute, self.setting, self.event,
        ]  # fmt: skip
        # What leaves a tombstone is rarer: they are kept for an hour or a day, and shall not be what grows.
        self.calls = [*often * RARE, self.delete, self.lock, self.unset, self.service]

    def prime(self) -> None:
        """Fill what has a bound, so that it does not count as growing: the memory of events, and every name once."""
        for number in range(KEYS):
            self.cache.set(f"k{number}", "x" * 1000)
            self.near.set(f"k{number}", 0.5)
            self.agent.settings[f"k{number}"] = 0.5
            with self.agent.services.register("soak", service_id=f"k{number}", port=1):
                pass
        for _ in range(EVENTS):
            self.agent.broadcast("one", "x" * 10, timeout=30)

    def run(self) -> None:
        """Call until told to stop; what fails while others are killed is counted by its type."""
        while not self.stopping:
            call = self.random.choice(self.calls)
            try:
                call()
                self.done[call.__name__] += 1
            except NotRunningError:
                return
            except (MycorrizalError, KeyError) as error:
                self.errors[f"{call.__name__} {type(error).__name__}"] += 1
            time.sleep(self.random.expovariate(1 / self.pause))

    def key(self) -> str:
        return f"k{self.random.randrange(KEYS)}"

    def other(self) -> str:
        names = [name for name in self.agent.members().names if name != self.agent.name]
        return self.random.choice(names or [self.agent.name])

    def send(self) -> None:
        self.agent.send(self.other(), {"step": 1}, timeout=2)

    def send_large(self) -> None:
        self.agent.send(self.other(), bytes(LARGE), timeout=5)

    def request(self) -> None:
        self.agent.request(self.other(), "echo", [1, 2, 3], timeout=2)

    def request_all(self) -> None:
        self.agent.request_all("echo", "all", timeout=2)

    def set(self) -> None:
        self.cache.set(self.key(), "x" * self.random.randrange(2000), timeout=2)

    def get(self) -> None:
        self.cache.get(self.key(), timeout=2)

    def delete(self) -> None:
        self.cache.delete(self.key(), timeout=2)

    def count(self) -> None:
        self.cache.incr("counter", timeout=2)

    def near_set(self) -> None:
        self.near.set(self.key(), self.random.random(), timeout=2)

    def near_get(self) -> None:
        self.near.get(self.key(), timeout=2)

    def compute(self) -> None:
        self.cache.get_or_compute(f"computed {self.key()}", lambda: 1, ttl=5.0, timeout=2)

    def lock(self) -> None:
        with self.cache.lock(self.key(), lease=2.0, timeout=2):
            pass

    def setting(self) -> None:
        self.agent.settings[self.key()] = self.random.random()

    def unset(self) -> None:
        self.agent.settings.pop(self.key(), None)

    def service(self) -> None:
        with self.agent.services.register("soak", service_id=self.key(), port=1, timeout=2):
            pass

    def event(self) -> None:
        size = self.random.choice((10, 10, 10, 5000))
        self.agent.broadcast(self.random.choice(("one", "two")), "x" * size, timeout=2)


def attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the attributes of `thing`, slots included."""
    yield from list(getattr(thing, "__dict__", {}).items())
    for cls in type(thing).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(thing, name):
                yield name, getattr(thing, name)


def holdings() -> dict[str, Any]:
    """Return resident bytes, descriptors, threads, and the sizes of all tables of all objects of the library.

    A table is found by what it is, a container in an attribute, so that one that is added later counts too.
    """
    gc.collect()
    tables: Counter[str] = Counter()
    things = gc.get_objects()
    for thing in things:
        if not type(thing).__module__.startswith("mycorrizal"):
            continue
        name = type(thing).__qualname__
        tables[f"objects {name}"] += 1
        for attribute, value in attributes(thing):
            if isinstance(value, TABLES):
                tables[f"{name}.{attribute}"] += len(value)
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    found = {
        "resident": resident, "descriptors": len(os.listdir("/proc/self/fd")), "threads": threading.active_count(),
        "objects": len(things),
    }  # fmt: skip
    return {**found, "tables": dict(tables)}


def main() -> None:
    settings = json.loads(sys.argv[1])
    agent = Agent(**settings["agent"])
    agent.on_request("echo")(lambda request: request.value)
    received: Counter[str] = Counter()

    def count(kind: str, source: Any) -> None:
        for _ in source:
            received[kind] += 1

    sources = {"message": agent.messages(), "event": agent.subscribe(), "news": agent.events()}
    for kind, source in sources.items():
        threading.Thread(target=count, args=(kind, source), daemon=True).start()
    worker = Worker(agent, settings["seed"], settings["pause"])
    if settings["prime"]:
        worker.prime()
    threading.Thread(target=worker.run, daemon=True).start()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        match line.strip():
            case "holdings":
                answer: Any = holdings()
            case "members":
                answer = agent.members().names
            case "told":
                answer = {"done": worker.done, "errors": worker.errors, "received": received}
            case "health":
                answer = list(agent.health().problems)
            case "leave":
                worker.stopping = True
                agent.leave(5)
                break
        print(json.dumps(answer), flush=True)
    agent.close()


if __name__ == "__main__":
    main()
