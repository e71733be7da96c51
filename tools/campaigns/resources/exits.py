"""The ways in which an agent's process ends, for ``tools/chaos resources``: the time it takes, and what others see.

Run as ``campaigns.resources.exits WAY NAME SEED KEY`` this is one such process: it starts an agent, says so, and ends
in the way `WAY` when a line comes in.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from campaigns.resources.cluster import KEY, Report, environment
from lab.child import as_child
from lab.lines import Lines

END_SECONDS = 10.0
SEEN_SECONDS = 30.0
"""In which the others must know; a killed process is noticed in about 6 s (docs/agent.md)."""


@dataclass(frozen=True)
class Way:
    """A way to end.

    Attributes:
        code: what the process ends with.
        seen: what the others report: ``leave`` after a goodbye, ``fail`` without one.
        tracebacks: how many Python prints, of the user's own exception.
        signal: what is sent to it from outside.
    """

    code: int
    seen: str
    tracebacks: int = 0
    signal: signal.Signals | None = None


WAYS = {
    "return": Way(0, "fail"),
    "return from with": Way(0, "leave"),
    "sys.exit": Way(3, "leave"),
    "exception": Way(1, "leave", tracebacks=1),
    "os._exit": Way(4, "fail"),
    "SIGTERM": Way(-signal.SIGTERM, "fail", signal=signal.SIGTERM),
    "SIGTERM handled": Way(5, "leave", signal=signal.SIGTERM),
    "SIGINT": Way(-signal.SIGINT, "leave", tracebacks=1, signal=signal.SIGINT),
    "SIGKILL": Way(-signal.SIGKILL, "fail", signal=signal.SIGKILL),
    "receiving": Way(0, "fail"),
    "fork": Way(0, "leave"),
    "in flight": Way(0, "fail"),
    "abort": Way(-signal.SIGABRT, "fail"),
}


# -- in the child ---------------------------------------------------------------------------------


def _stop(*_: object) -> NoReturn:
    sys.exit(5)


def _call_for_ever(agent: Any, way: str) -> None:
    """Have calls under way that nobody ends: in daemon threads, and as futures."""
    with contextlib.suppress(Exception):
        if way == "receiving":
            agent.receive()
        agent.request("watcher", "block", timeout=None)


def _fork() -> None:
    """Fork a child that ends in order, and wait for it."""
    child = os.fork()
    if not child:
        sys.exit(0)  # out of the parent's block, and through what Python does at exit
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child ended with {status}"


def end(way: str, agent: Any) -> None:
    """End the process in this way, or begin to."""
    match way:
        case "sys.exit":
            sys.exit(3)
        case "exception":
            raise ValueError("planted by the user")
        case "os._exit":
            os._exit(4)
        case "abort":
            os.abort()
        case "fork":
            _fork()
        case _ if WAYS[way].signal is not None:
            time.sleep(60)


def child(way: str, name: str, seed: str, key: str) -> None:
    """Run an agent and end."""
    from mycorrizal import Agent

    if way == "SIGTERM handled":
        signal.signal(signal.SIGTERM, _stop)
    agent = Agent(
        name, cluster="exits", key=key, bind="127.0.0.1", port=0, join=[seed], discover=False, join_timeout=30
    )
    if way in ("receiving", "in flight"):
        threading.Thread(target=_call_for_ever, args=(agent, way), daemon=True).start()
        futures = [agent.request_async("watcher", "block", timeout=None) for _ in range(3)]
        agent.settings["futures"] = len(futures)
    context: Any = agent if WAYS[way].seen == "leave" else contextlib.nullcontext()
    with context:
        print("ready", flush=True)
        sys.stdin.readline()
        end(way, agent)


# -- outside -----------------------------------------------------------------------------------------


class Ending:
    """A process that will end in some way."""

    def __init__(self, way: str, folder: str, seed: str) -> None:
        self.way, self.name = way, way.replace(" ", "-")
        self._errors = Path(folder, f"{self.name}.err")
        with open(self._errors, "wb") as errors:
            self.process = subprocess.Popen(
                as_child("campaigns.resources.exits", way, self.name, seed, KEY), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors, bufsize=0, env=environment(f"{folder}/run"),
            )  # fmt: skip
        self._lines = Lines(self.process)

    def ready(self) -> None:
        """Wait until its agent is a member."""
        assert self._lines.next(60.0) == b"ready"

    def begin(self) -> None:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"end\n")
        if (number := WAYS[self.way].signal) is not None:
            time.sleep(0.1)
            self.process.send_signal(number)

    def judge(self, report: Report) -> float | None:
        """Judge how it ended; return the seconds that took, None if it did not."""
        way, began = WAYS[self.way], time.monotonic()
        try:
            code = self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            report.expect(False, f"{self.way}: it had not ended after {END_SECONDS:.0f} s")
            self.close()
            return None
        took = time.monotonic() - began
        said = self._errors.read_text(errors="replace")
        report.expect(code == way.code, f"{self.way}: it ended with {code}, not {way.code}: {said[-300:]}")
        ours = [word for word in ("Exception ignored", "Exception in thread", "Fatal Python error") if word in said]
        tracebacks = said.count("Traceback (most recent")
        report.expect(not ours and tracebacks == way.tracebacks, f"{self.way}: it said {said[-500:]!r}")
        return took

    def close(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def exits(report: Report, ways: tuple[str, ...] = tuple(WAYS)) -> None:
    """End agents in all ways, one after the other, beside one that watches; then start each name again."""
    from mycorrizal import Agent

    with tempfile.TemporaryDirectory(prefix="myc-") as folder:
        before = os.environ.get("MYCORRIZAL_RUNTIME_DIR")
        os.environ["MYCORRIZAL_RUNTIME_DIR"] = f"{folder}/run"
        free = threading.Event()
        try:
            with Agent("watcher", cluster="exits", key=KEY, bind="127.0.0.1", port=0, discover=False) as watcher:
                watcher.on_request("block")(lambda request: free.wait(60))
                _watch(report, watcher, folder, ways)
                free.set()
        finally:
            free.set()
            if before is None:
                del os.environ["MYCORRIZAL_RUNTIME_DIR"]
            else:
                os.environ["MYCORRIZAL_RUNTIME_DIR"] = before


def _watch(report: Report, watcher: Any, folder: str, ways: tuple[str, ...]) -> None:
    host, port = watcher.address
    running: list[Ending] = []
    try:
        with watcher.events() as news:
            for way in ways:  # a few seconds of start each: two at a time would only make both slower
                running.append(Ending(way, folder, f"{host}:{port}"))
                running[-1].ready()
            watcher.wait_for(len(ways) + 1, 30)
            while len(news):
                news.get(0)
            took: dict[str, float | None] = {}
            began = time.monotonic()
            for one in running:
                one.begin()
                took[one.way] = one.judge(report)
            seen = _seen(news, {one.name for one in running}, began + SEEN_SECONDS + END_SECONDS)
        for one in running:
            told, wanted = seen.get(one.name), WAYS[one.way].seen
            report.expect(told == wanted, f"{one.way}: the others saw {told}, not {wanted}")
        slowest = max(took, key=lambda way: took[way] or 0.0)
        report.notes.append(f"{len(ways)} ways to end, the slowest ({slowest}) took {took[slowest] or 0.0:.1f} s")
        again = {one.way: _again(report, watcher, one.way, one.name) for one in running}
        report.notes.append(f"each name was taken again, after {max(again.values()):.1f} s at most")
    finally:
        for one in running:
            one.close()
    left = [name for name in os.listdir(f"{folder}/run") if "watcher" not in name]
    report.expect(len(left) <= 5, f"files are left in the runtime directory: {sorted(left)}")


def _seen(news: Any, names: set[str], end_at: float) -> dict[str, str]:
    """Return what was reported of each of `names`, once all were reported or it is too late."""
    from mycorrizal import OperationTimeout

    seen: dict[str, str] = {}
    with contextlib.suppress(OperationTimeout):
        while names - set(seen):
            event = news.get(max(0.0, end_at - time.monotonic()))
            if event.kind in ("leave", "fail") and event.node.name in names:
                seen.setdefault(event.node.name, event.kind)
    return seen


def _again(report: Report, watcher: Any, way: str, name: str) -> float:
    """Start an agent of the same name in this process; return the seconds that took."""
    from mycorrizal import Agent, MycorrizalError

    host, port = watcher.address
    began = time.monotonic()
    try:
        with Agent(name, cluster="exits", key=KEY, bind="127.0.0.1", port=0, join=[f"{host}:{port}"], discover=False):
            pass
    except MycorrizalError as error:
        report.expect(False, f"{way}: the name cannot be taken again: {error}")
    return time.monotonic() - began


if __name__ == "__main__":
    child(*sys.argv[1:])
