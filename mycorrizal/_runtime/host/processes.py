"""Child processes that report in lines of JSON, for programs that direct several nodes on one host."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ...exceptions import OperationTimeout
from ..threads import clock
from ..threads.deadline import Deadline
from ..threads.shortage import as_ours, start_thread

__all__ = ["Children", "Report"]

REPORTS_MAX = 10_000
"""Reports that wait; a child that tells more waits itself, by its pipe."""
END_SECONDS = 3.0

Report = tuple[float, str, dict[str, Any]]
"""When, of which child, and what; ``{"event": "gone"}`` at its end."""


class Children:
    """Starts children, collects what they write, and ends them all. One thread uses it."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._reports: queue.Queue[Report] = queue.Queue(REPORTS_MAX)
        self._ending = False

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start `command` as child `name`. A Ctrl-C at the terminal does not reach it: ending it is our matter."""
        with as_ours(f"child {name} cannot be started", operation="demo"):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                env=dict(environment),
                start_new_session=True,
            )
        self._processes[name] = process
        start_thread(
            threading.Thread(target=self._listen, args=(name, process), name=f"child-{name}", daemon=True)
        )

    def _listen(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                told = json.loads(line)
            except ValueError:
                told = None
            self._put((clock.now(), name, told if isinstance(told, dict) else {"event": "text", "text": line.rstrip()}))
        process.stdout.close()
        self._put((clock.now(), name, {"event": "gone", "code": process.wait()}))

    def _put(self, report: Report) -> None:
        while not self._ending:
            try:
                self._reports.put(report, timeout=0.2)
                return
            except queue.Full:
                pass

    def get(self, deadline: Deadline) -> Report:
        """Return the next report of any child; wait for one. Ctrl-C ends the wait.

        Raises:
            OperationTimeout: none until the deadline.
        """
        while True:
            try:
                return self._reports.get(timeout=deadline.capped(0.1))
            except queue.Empty:
                if deadline.passed:
                    raise OperationTimeout("no report in time", operation="demo") from None

    def kill(self, name: str) -> int:
        """Kill a child with SIGKILL: no goodbye, nothing closed by the library. Returns its process number."""
        self._processes[name].send_signal(signal.SIGKILL)
        return self._processes[name].pid

    def close(self) -> None:
        """End all: SIGTERM, then SIGKILL."""
        self._ending = True
        for process in self._processes.values():
            process.terminate()
        deadline = Deadline(END_SECONDS)
        for process in self._processes.values():
            try:
                process.wait(deadline.remaining())
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
