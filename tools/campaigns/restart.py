"""``tools/chaos restart``: three workers are restarted one after the other, again and again, under load.

Each worker is a process with an agent: the handler ``given`` is an argument of
it, the handler ``late`` is registered some time after it has joined, as scripts
do that import something large in between. Callers never stop. Also run,
shorter, by tests/integration/test_restart.py.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from lab.child import as_child
from lab.lines import Lines
from mycorrizal import Agent, MycorrizalError, UnknownHandler

NAMES = ("ada", "bob", "cyd")
HANDLERS = ("given", "late")
PATIENCE = 60.0
TIMEOUT = 10.0


def serve(name: str, late: float) -> None:
    """Be a worker until SIGTERM, which says goodbye first. In a process of its own."""
    stop = threading.Event()
    answer = lambda request: [name, request.value]  # noqa: E731
    with Agent(name, cluster="restart", control=False, handlers={"given": answer}) as agent:
        agent.leave_on_signal()
        print("ready", flush=True)
        stop.wait(late)
        agent.on_request("late")(answer)
        stop.wait()


class Worker:
    """A name, and the process that has it at present."""

    def __init__(self, name: str, late: float) -> None:
        self.name = name
        self._late = late
        self.start()

    def start(self) -> None:
        command = as_child("campaigns.restart", "--serve", self.name, "--late", str(self._late))
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
        self._lines = Lines(self.process)

    def ready(self) -> None:
        assert self._lines.next(PATIENCE) == b"ready"

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Callers:
    """Threads that ask all workers in turn, and count what came of it."""

    def __init__(self, agent: Agent, count: int) -> None:
        self.answers: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.unknown: list[str] = []
        self.wrong: list[str] = []
        self.slowest = 0.0
        self._agent = agent
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int) -> None:
        turn = number
        while not self._stop.is_set():
            turn += 1
            node, name = NAMES[turn % len(NAMES)], HANDLERS[turn // len(NAMES) % len(HANDLERS)]
            began = time.monotonic()
            try:
                answer = self._agent.request(node, name, turn, timeout=TIMEOUT)
            except MycorrizalError as error:
                with self._lock:
                    self.errors[type(error).__name__] += 1
                    if isinstance(error, UnknownHandler):
                        self.unknown.append(str(error))
                self._stop.wait(0.02)  # whoever is gone is told at once
                continue
            with self._lock:
                self.answers[node] += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                if answer != [node, turn]:
                    self.wrong.append(f"{node} answered {answer!r} to {turn}")

    def answered_again(self, node: str) -> bool:
        """Wait until `node` has answered something from now on."""
        before, end = self.answers[node], time.monotonic() + PATIENCE
        while self.answers[node] == before and time.monotonic() < end:
            time.sleep(0.05)
        return self.answers[node] > before

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def run(rounds: int = 3, callers: int = 4, late: float = 1.0, kill: bool = False) -> dict[str, Any]:
    """Restart each worker `rounds` times; return what the callers saw, and in ``wrong`` what should not have been."""
    folder, before = tempfile.mkdtemp(prefix="myc-"), os.environ.get("MYCORRIZAL_RUNTIME_DIR")
    os.environ["MYCORRIZAL_RUNTIME_DIR"] = folder
    workers: list[Worker] = []
    try:
        with contextlib.ExitStack() as stack:
            agent = stack.enter_context(Agent("caller", cluster="restart", control=False))
            for name in NAMES:
                worker = Worker(name, late)
                workers.append(worker)
                stack.callback(worker.stop, signal.SIGKILL)
            for worker in workers:
                worker.ready()
            agent.wait_for(len(NAMES) + 1, timeout=PATIENCE)
            asking = Callers(agent, callers)
            stack.callback(asking.stop)
            wrong = _roll(workers * rounds, asking, signal.SIGKILL if kill else signal.SIGTERM)
        wrong += asking.wrong + asking.unknown
        return {
            "restarts": rounds * len(NAMES), "answers": dict(asking.answers), "errors": dict(asking.errors),
            "slowest": round(asking.slowest, 2), "wrong": wrong,
        }  # fmt: skip
    finally:
        if before is None:
            del os.environ["MYCORRIZAL_RUNTIME_DIR"]
        else:
            os.environ["MYCORRIZAL_RUNTIME_DIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def _roll(workers: list[Worker], asking: Callers, how: int) -> list[str]:
    wrong = []
    for worker in workers:
        worker.stop(how)
        worker.start()
        worker.ready()
        if not asking.answered_again(worker.name):
            wrong.append(f"{worker.name} did not answer within {PATIENCE:.0f} s of its restart")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/chaos restart", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="restarts of each worker")
    parser.add_argument("--callers", type=int, default=8, help="threads that ask")
    parser.add_argument("--late", type=float, default=1.5, help="seconds after which the second handler is there")
    parser.add_argument("--kill", action="store_true", help="SIGKILL instead of SIGTERM")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve, options.late)
        return 0
    began = time.monotonic()
    found = run(options.rounds, options.callers, options.late, options.kill)
    for name, value in found.items():
        print(f"{name}: {value}")
    print(f"{time.monotonic() - began:.0f} s: {'FAILED' if found['wrong'] else 'passed'}")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
