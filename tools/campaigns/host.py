"""``tools/chaos host``: agents of one host, one of which is killed again and again while others ask and send.

The victim notes each request that it runs and each message that it reads in a
file, in one write, before it answers or goes on. Passes if no request ran and
no message arrived twice, each request that was answered ran, messages came in
order, all went over the host's socket, everybody knew of each death at once,
and nothing is left: no descriptor, thread or socket file.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.child import as_child
from mycorrizal import Agent, MycorrizalError

LARGE_EVERY, LARGE = 50, 3 << 20
PATIENCE = 60.0
CALLERS = 4


def serve(path: str) -> None:
    """Be the victim."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(kind: str, value: list[object]) -> None:
        os.write(log, f"{kind} {value[0]}\n".encode())

    def run(request: object) -> int:
        value = request.value  # type: ignore[attr-defined]
        note("request", value)
        return len(value[1])

    with Agent("victim", handlers={"run": run}) as agent:
        print("up", flush=True)
        while True:
            note("message", agent.receive(None).value)


class Victim:
    """The process that is killed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.lives = 0
        self.start()

    def start(self) -> None:
        """Begin a life."""
        self.lives += 1
        command = as_child("campaigns.host", "--victim", f"{self._path}.{self.lives}")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None and self.process.stdout.readline() == b"up\n"

    def kill(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()

    def notes(self, kind: str) -> Iterator[list[int]]:
        """Yield what each life has noted."""
        for life in range(1, self.lives + 1):
            found = Path(f"{self._path}.{life}")
            lines = found.read_text().splitlines() if found.exists() else []
            yield [int(line.split()[1]) for line in lines if line.startswith(kind)]


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> float:
    """Wait; return the seconds it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise SystemExit("it did not happen in time")
        time.sleep(0.005)
    return time.monotonic() - began


class Work:
    """Threads that ask and send until they are stopped."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self.answered: list[int] = []
        self.sent: list[int] = []
        self.failed: Counter[str] = Counter()
        self.wrong: list[str] = []
        kinds = [self._ask] * CALLERS + [self._send]
        self._threads = [threading.Thread(target=self._go_on, args=(kind,)) for kind in kinds]
        for thread in self._threads:
            thread.start()

    def _go_on(self, one: Callable[[int, bytes], None]) -> None:
        while not self._stop.is_set():
            number = next(self._numbers)
            body = bytes(LARGE if number % LARGE_EVERY == 0 else number % 3000)
            try:
                one(number, body)
            except MycorrizalError as error:
                self.failed[type(error).__name__] += 1
                self._stop.wait(0.01)

    def _ask(self, number: int, body: bytes) -> None:
        if self._agent.request("victim", "run", [number, body], timeout=PATIENCE) != len(body):
            self.wrong.append(f"request {number} has another's answer")
        self.answered.append(number)

    def _send(self, number: int, body: bytes) -> None:
        self._agent.send("victim", [number, body], timeout=PATIENCE)
        self.sent.append(number)

    def end(self) -> None:
        """Stop them."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def used() -> tuple[int, int]:
    """Return open descriptors and threads of this process."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def judge(victim: Victim, work: Work, last: int) -> list[str]:
    """Return what is wrong with the notes; in the last life, `last`, all that was sent has been read."""
    wrong = list(work.wrong)
    ran = Counter(number for life in victim.notes("request") for number in life)
    read = Counter(number for life in victim.notes("message") for number in life)
    wrong += [f"request {number} ran {times} times" for number, times in ran.items() if times > 1]
    wrong += [f"message {number} arrived {times} times" for number, times in read.items() if times > 1]
    wrong += [f"request {number} was answered and never ran" for number in work.answered if number not in ran]
    wrong += [f"messages of life {n} are out of order" for n, life in enumerate(victim.notes("message"), 1)
              if life != sorted(life)]
    wrong += [f"message {number} is lost" for number in work.sent if number >= last and number not in read]
    return wrong


def campaign(folder: str, seconds: float, every: float) -> list[str]:
    """Run it; return what is wrong."""
    before = used()
    took: list[float] = []
    wrong: list[str] = []
    victim = Victim(os.path.join(folder, "notes"))
    with Agent("asks") as asks, Agent("looks") as looks:
        asks.wait_for(3)
        work = Work(asks)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(every)
            ways = {peer.carrier for peer in asks.peers() if peer.name == "victim"}
            wrong += [] if ways <= {"host", ""} else [f"a carrier other than the host's socket: {ways}"]
            victim.kill()
            took.append(until(lambda: all("victim" not in agent.members().names for agent in (asks, looks))))
            victim.start()
        until(lambda: "victim" in asks.members().names)
        until(lambda: asks.request("victim", "run", [-victim.lives, b""], timeout=PATIENCE) == 0)
        last = max(work.answered)
        time.sleep(every)
        work.end()
        until(lambda: (list(victim.notes("message"))[-1] or [0])[-1] >= max(work.sent))
        wrong += judge(victim, work, last)
        found = asks.metrics()
        victim.kill()
        until(lambda: all("victim" not in agent.members().names for agent in (asks, looks)))
    took.sort()
    print(f"{victim.lives} lives, {len(work.answered)} requests, {len(work.sent)} messages, failed {dict(work.failed)}")
    print(f"a death was known after {took[len(took) // 2]:.2f} s, at most {took[-1]:.2f} s")
    print({name: found[name] for name in sorted(found) if name.startswith(("host.", "offences", "processes"))})
    try:
        until(lambda: used() <= before, 15.0)
    except SystemExit:
        wrong.append(f"descriptors and threads: {before} before, {used()} after")
    sockets = [name for name in os.listdir(folder) if name.endswith((".data", ".control", ".events"))]
    return wrong + ([] if len(sockets) <= 3 else [f"left: {sockets}"])  # those of the one that was killed last


def main() -> int:
    if sys.argv[1:2] == ["--victim"]:
        serve(sys.argv[2])
    parser = argparse.ArgumentParser(prog="tools/chaos host", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two kills")
    options = parser.parse_args()
    print("load {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))
    with tempfile.TemporaryDirectory(prefix="myc-") as folder:
        os.environ["MYCORRIZAL_RUNTIME_DIR"] = folder
        wrong = campaign(folder, options.seconds, options.every)
    print("load {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))
    for line in wrong[:20]:
        print("WRONG:", line)
    print("FAILED" if wrong else "passed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
