"""One agent of ``tools/chaos cache``: callers that never stop, and a file that says what each of them saw.

Run as ``campaigns.cache_node SETTINGS`` (JSON). Each call is two lines in the
file, one before it and one after it, so that a SIGKILL leaves the calls that
were under way in it. Takes orders in lines on stdin, answers in lines.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from mycorrizal import Agent, Cache, CacheUnavailable, Config, MycorrizalError

WRITES_A_KEY = 25  # then its writer goes on to another; all stay to be read
BUCKET = 4.0  # seconds for which all nodes share a few keys
TIMEOUT = 8.0
REFUSED_TIMEOUT = 1.0  # where nothing else can be expected for a while
LOOK = 0.05
NEAR_READS = 40


class Log:
    """The file. Any thread; a line is written with one system call, and stays when the process is killed."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._number = 0

    def write(self, **fields: Any) -> None:
        """Append a line, with the time."""
        fields["t"] = time.monotonic()
        os.write(self._file, (json.dumps(fields, separators=(",", ":")) + "\n").encode())

    def call(self, cache: str, kind: str, key: str, argument: Any, run: Callable[[], Any]) -> Any:
        """Write a call down, run it, and write down what came of it; return its answer, or the error."""
        with self._lock:
            self._number += 1
            number = self._number
        self.write(begin=number, cache=cache, kind=kind, key=key, arg=argument)
        try:
            answer = run()
        except MycorrizalError as error:
            sure = isinstance(error, CacheUnavailable) and not error.indeterminate
            self.write(end=number, error=type(error).__name__, sure=sure)
            return error
        self.write(end=number, answer=answer)
        return answer


class Callers:
    """Threads that write, read and delete until they are told to stop."""

    def __init__(self, life: str, caches: list[Cache], log: Log, seed: int, pause: float) -> None:
        self._caches = caches
        self._log = log
        self._pause = pause
        self._stop = threading.Event()
        self._recent: list[str] = []  # keys of our own, the newest last
        works = [self._write, self._write, self._read, self._share, self._read_near]
        self._threads = [
            threading.Thread(target=self._run, args=(work, Random(f"{seed}/{life}/{index}"), f"{life}.{index}"))
            for index, work in enumerate(works)
        ]

    def go(self) -> None:
        """Start."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let them end what they are doing."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, work: Callable[[Random, str, int], None], rng: Random, me: str) -> None:
        turn = 0
        while not self._stop.wait(rng.expovariate(1.0) * self._pause):
            work(rng, me, turn)
            turn += 1

    def _write(self, rng: Random, me: str, turn: int) -> None:
        """Set or delete a key that nobody else writes; what a key holds counts up, so that a read tells its age."""
        cache = self._caches[turn // WRITES_A_KEY % len(self._caches)]
        key = f"{me}/{turn // WRITES_A_KEY}"
        if turn % WRITES_A_KEY == 0:
            self._recent.append(key)
            del self._recent[:-20]
        number = turn % WRITES_A_KEY + 1
        timeout = REFUSED_TIMEOUT if cache.definition.quorum else TIMEOUT
        if rng.random() < 0.15:
            self._log.call(cache.name, "delete", key, number, lambda: cache.delete(key, timeout=timeout))
        else:
            value = [number, "x" * rng.randrange(200)]
            self._log.call(cache.name, "set", key, number, lambda: cache.set(key, value, timeout=timeout))

    def _read(self, rng: Random, me: str, turn: int) -> None:
        """Read what some node's writers write at present."""
        cache = self._caches[turn % len(self._caches)]
        for key in rng.sample(self._recent, min(4, len(self._recent))) + [self._of_another(rng)] * 4:
            if key:
                self._get(cache, key)

    def _read_near(self, rng: Random, me: str, turn: int) -> None:
        """Read one key over and over, so that its near copy is read while it is overwritten elsewhere."""
        key = self._of_another(rng)
        for _ in range(NEAR_READS if key else 0):
            self._get(self._caches[1], key)
            time.sleep(0.001)

    def _of_another(self, rng: Random) -> str:
        keys = HEARD[-20:]
        return rng.choice(keys) if keys else ""

    def _get(self, cache: Cache, key: str) -> None:
        self._log.call(cache.name, "get", key, None, lambda: _number(cache.get(key, timeout=TIMEOUT)))

    def _share(self, rng: Random, me: str, turn: int) -> None:
        """Keys that all write, a few at a time: every operation that changes something depending on what is there."""
        cache = self._caches[0]
        key = f"shared/{int(time.monotonic() / BUCKET)}/{rng.randrange(2)}"
        value, log = f"{me}#{turn}", self._log
        kind = rng.choice(("get", "set", "delete", "add", "cas", "incr", "incr"))
        if kind == "get":
            log.call(cache.name, "get", key, None, lambda: cache.get(key, timeout=TIMEOUT))
        elif kind == "set":
            log.call(cache.name, "set", key, value, lambda: cache.set(key, value, timeout=TIMEOUT))
        elif kind == "delete":
            log.call(cache.name, "delete", key, None, lambda: cache.delete(key, timeout=TIMEOUT))
        elif kind == "add":
            log.call(cache.name, "add", key, value, lambda: cache.add(key, value, timeout=TIMEOUT))
        elif kind == "incr":
            log.call(cache.name, "incr", "n" + key, 1, lambda: cache.incr("n" + key, timeout=TIMEOUT))
        else:
            seen = log.call(cache.name, "get", key, None, lambda: cache.get(key, timeout=TIMEOUT))
            if isinstance(seen, str):
                swap = [seen, value]
                log.call(cache.name, "cas", key, swap, lambda: cache.compare_and_set(key, seen, value, timeout=TIMEOUT))


HEARD: list[str] = []
"""Keys that others have said they write."""


def _number(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def look(agent: Agent, log: Log, stopped: threading.Event) -> None:
    """Write down every change of the view."""
    before: list[list[str]] = []
    while not stopped.wait(LOOK):
        try:
            view = sorted([member.name, (member.boot or b"").hex()] for member in agent.members())
        except MycorrizalError:
            return
        if view != before:
            before = view
            log.write(view=view)


def hear(agent: Agent, callers: Callers, stopped: threading.Event) -> None:
    """Tell the others from time to time which keys are written here."""
    with agent.subscribe("keys") as told:
        while not stopped.wait(0.2):
            try:
                agent.broadcast("keys", callers._recent[-4:], timeout=1.0)
                while len(told):
                    event = told.get(0)
                    HEARD.extend(getattr(event, "value", []))
                del HEARD[:-100]
            except MycorrizalError:
                pass


def holdings(caches: list[Cache]) -> dict[str, dict[str, int]]:
    """Return the version of every entry that this process holds, by cache."""
    found: dict[str, dict[str, int]] = {}
    for cache in caches:
        tables = cache._host.machine._space(cache.name).store.tables
        found[cache.name] = {entry.key.decode(): entry.version for table in tables for entry in list(table.values())}
    return found


def obey(agent: Agent, caches: list[Cache], order: dict[str, Any]) -> Any:
    """Return the answer to one order."""
    what = order["do"]
    if what == "synced":
        began = time.monotonic()
        for cache in caches:
            cache.synced(order["timeout"])
        return [began, time.monotonic()]
    if what == "members":
        return [member.name for member in agent.members()]
    if what == "read":
        keys = json.loads(Path(order["path"]).read_text(encoding="ascii"))
        return {
            cache.name: {key: _number(value) for key, value in cache.get_many(keys[cache.name], timeout=60).items()}
            for cache in caches
        }
    if what == "holdings":
        return holdings(caches)
    if what == "metrics":
        return {**agent.metrics(), **caches[0]._host.machine.counters()}
    raise ValueError(what)


def main() -> None:
    """Start, say so, obey; ``leave`` ends in order."""
    settings = json.loads(sys.argv[1])
    log = Log(settings["log"])
    options = settings["agent"]
    if "config" in settings:
        options["config"] = Config.local(**settings["config"])
    agent = Agent(config_file=False, control=False, **options)
    caches = [agent.cache(**definition) for definition in settings["caches"]]
    callers = Callers(settings["life"], caches, log, settings["seed"], settings["pause"])
    stopped = threading.Event()
    others = [
        threading.Thread(target=look, args=(agent, log, stopped)),
        threading.Thread(target=hear, args=(agent, callers, stopped)),
    ]
    for thread in others:
        thread.start()
    print(json.dumps("ready"), flush=True)
    calls = {"go": callers.go, "stop": callers.stop, "leave": callers.stop}
    for line in sys.stdin:
        order = json.loads(line)
        call = calls.get(order["do"])
        if call is not None:
            call()
        if order["do"] == "leave":
            break
        try:
            answer = True if call is not None else obey(agent, caches, order)
        except MycorrizalError as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)
    stopped.set()
    for thread in others:
        thread.join()
    agent.__exit__(None, None, None)


if __name__ == "__main__":
    main()
