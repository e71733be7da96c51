"""``tools/chaos sweep``: tasks over three workers, while one is killed and started again, and another one is stopped.

Each worker is a process with an agent of four handlers' threads, or with
processes; tasks sleep. At a quarter of the results one worker gets SIGSTOP,
and SIGCONT some seconds later; at half of them another one gets SIGKILL, and is
started again. Also run, shorter, by tests/integration/test_executor.py.

The ideal is what the tasks would take if all threads of all workers were
there all the time and nothing else cost anything; that of what was there leaves
out what this tool takes away, which on a busy machine is more than it means to:
a worker starts there in several seconds. Judge on a machine with nothing else.
"""

from __future__ import annotations

import argparse
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
from mycorrizal import Agent, DataConfig, Request

NAMES = ("ada", "bob", "cyd")
THREADS = 4
PATIENCE = 60.0
DETECTION = 3.0
"""Seconds in which a worker that is stopped is known to be silent, or one that was killed to be gone."""
FACTOR = 1.15


def nap(request: Request) -> Any:
    """Sleep as long as is said, and answer with the number of the task."""
    number, seconds = request.value
    time.sleep(seconds)
    return number


def serve(name: str, processes: int | None) -> None:
    """Be a worker until SIGTERM. In a process of its own."""
    from campaigns import sweep  # noqa: PLW0406 - not __main__, which another process does not import

    config = DataConfig(handlers=THREADS)
    with Agent(name, cluster="sweep", control=False, data_config=config) as agent:
        agent.leave_on_signal()
        agent.on_request("nap", processes=processes)(sweep.nap)
        print("ready", flush=True)
        threading.Event().wait()


class Worker:
    """A name, and the process that has it at present."""

    def __init__(self, name: str, processes: int | None) -> None:
        self.name = name
        self._command = as_child("campaigns.sweep", "--serve", name)
        self._command += [] if processes is None else ["--processes", str(processes)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, bufsize=0)
        self._lines = Lines(self.process)

    def ready(self) -> None:
        assert self._lines.next(PATIENCE) == b"ready"

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Trouble:
    """What is done to the workers as results come. The threads end by themselves."""

    def __init__(self, workers: list[Worker], tasks: int, away: float, stopped: float) -> None:
        self._workers = workers
        self._at = {tasks // 4: self._stop, tasks // 2: self._kill}
        self._away, self._stopped = away, stopped
        self._threads: list[threading.Thread] = []
        self.missing = 0.0  # seconds of one worker that were taken away

    def after(self, results: int) -> None:
        """So many results have come."""
        act = self._at.get(results)
        if act is not None:
            self._threads.append(threading.Thread(target=act))
            self._threads[-1].start()

    def _stop(self) -> None:
        process = self._workers[1].process
        process.send_signal(signal.SIGSTOP)
        time.sleep(self._stopped)
        process.send_signal(signal.SIGCONT)
        self.missing += self._stopped

    def _kill(self) -> None:
        began = time.monotonic()
        self._workers[2].end()
        time.sleep(self._away)
        self._workers[2].start()
        self._workers[2].ready()
        self.missing += time.monotonic() - began

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()


def run(
    tasks: int, seconds: float, *, away: float = 2.0, stopped: float = 5.0, processes: int | None = None,
    trouble: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Run the tasks; return how that went, and in ``wrong`` what should not have been."""
    folder, before = tempfile.mkdtemp(prefix="myc-"), os.environ.get("MYCORRIZAL_RUNTIME_DIR")
    os.environ["MYCORRIZAL_RUNTIME_DIR"] = folder
    try:
        with contextlib.ExitStack() as stack:
            agent = stack.enter_context(Agent("caller", cluster="sweep", control=False))
            workers: list[Worker] = []
            for name in NAMES:
                workers.append(Worker(name, processes))
                stack.callback(workers[-1].end)
            for worker in workers:
                worker.ready()
            agent.wait_for(len(NAMES) + 1, timeout=PATIENCE)
            return _swept(agent, Trouble(workers, tasks if trouble else 0, away, stopped), tasks, seconds, processes)
    finally:
        if before is None:
            del os.environ["MYCORRIZAL_RUNTIME_DIR"]
        else:
            os.environ["MYCORRIZAL_RUNTIME_DIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def _swept(agent: Agent, trouble: Trouble, tasks: int, seconds: float, processes: int | None) -> dict[str, Any]:
    found: list[Any] = []
    with agent.executor("nap") as executor:
        while f"at {len(NAMES)} workers" not in repr(executor):  # connected, which imports QUIC on both sides
            executor.submit([-1, 0.01]).result(PATIENCE)
        began = time.monotonic()
        for result in executor.map(([number, seconds] for number in range(tasks)), ordered=False):
            found.append(result)
            trouble.after(len(found))
        took = time.monotonic() - began
    counters = {name: value for name, value in agent.metrics().items() if name.startswith("tasks.")}
    trouble.wait()
    slots = len(NAMES) * (processes or THREADS)
    ideal = tasks * seconds / slots
    wrong = []
    if sorted(found) != list(range(tasks)):
        wrong.append(f"{tasks} tasks, {len(found)} results, {len(set(found))} of them different")
    return {
        "tasks": tasks, "seconds": round(took, 2), "ideal": round(ideal, 2), "times": round(took / ideal, 3),
        "ideal of what was there": round(ideal + trouble.missing / len(NAMES), 2),
        "load": round(os.getloadavg()[0], 1), "counters": counters, "wrong": wrong,
    }  # fmt: skip


def _judged(found: dict[str, Any], most: float) -> bool:
    if found["seconds"] > most:
        found["wrong"].append(f"took {found['seconds']} s, more than {most:.2f} s")
    for name, value in found.items():
        print(f"{name}: {value}")
    print(flush=True)
    return not found["wrong"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/chaos sweep", description=__doc__)
    parser.add_argument("--tasks", type=int, help="instead of 300 of 1 s and 5,000 of 10 ms")
    parser.add_argument("--task-seconds", type=float, default=0.01, help="that each of them takes")
    parser.add_argument("--away", type=float, default=2.0, help="seconds until the killed worker is started again")
    parser.add_argument("--stopped", type=float, default=5.0, help="seconds for which the other one is stopped")
    parser.add_argument("--processes", type=int, help="of each worker's handler, instead of its threads")
    parser.add_argument("--calm", action="store_true", help="nobody is killed or stopped")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve, options.processes)
        return 0
    sweeps = [(300, 1.0, 0.0), (5000, 0.01, DETECTION)]
    if options.tasks is not None:
        sweeps = [(options.tasks, options.task_seconds, DETECTION)]
    good = []
    for tasks, seconds, more in sweeps:
        found = run(
            tasks, seconds, away=options.away, stopped=options.stopped, processes=options.processes,
            trouble=not options.calm,
        )  # fmt: skip
        good.append(_judged(found, FACTOR * found["ideal"] + more))
    print("passed" if all(good) else "FAILED")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
