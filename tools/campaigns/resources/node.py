"""One agent of ``tools/chaos resources``, whose process can be starved. Orders are lines of JSON on stdin.

Run as ``campaigns.resources.node SETTINGS`` (JSON). What it answers says what each call came to, and what the process
holds: threads by name, descriptors by kind, and what died without anybody catching it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from mycorrizal import Agent, DataConfig, MycorrizalError
from mycorrizal._runtime.host.rundir import RuntimeDir
from mycorrizal.control import ControlClient

SECONDS = 3.0
"""Timeout of each call; what takes much longer did not keep to it."""
OWN_UID = 54_321
"""Whose processes are counted against RLIMIT_NPROC; a user that runs nothing else."""
_PRIVILEGED = (21, 24)  # CAP_SYS_ADMIN, CAP_SYS_RESOURCE
_PAGE = os.sysconf("SC_PAGE_SIZE")

Answer = dict[str, Any]


def count_as_another_user() -> None:
    """Let the kernel hold this process, root's, to its limit of threads.

    The limit is of the real user, and not for root or who has one of two capabilities. The effective user stays, who
    may read the interpreter's files and is the one that agents of one host look at.
    """
    if os.geteuid() != 0:
        return
    os.setresuid(OWN_UID, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    if libc.capget(header, data) == 0:
        keep = ~sum(1 << number for number in _PRIVILEGED) & 0xFFFFFFFF
        for place in (0, 1):
            data[place] &= keep
        if libc.capset(header, data) == 0:
            return
    raise OSError(ctypes.get_errno(), "capabilities cannot be given up")


def told(call: Callable[[], Any]) -> Answer:
    """Return what `call` came to: ``{}`` if well, else the error with its fields; and how long it took."""
    began = time.monotonic()
    answer: Answer = {}
    try:
        call()
    except Exception as error:
        answer = {
            "error": type(error).__name__, "text": str(error)[:300], "ours": isinstance(error, MycorrizalError),
            "node": getattr(error, "node", None), "operation": getattr(error, "operation", None),
            "indeterminate": getattr(error, "indeterminate", None), "errno": getattr(error, "errno", None),
        }  # fmt: skip
    return {**answer, "seconds": time.monotonic() - began}


class Node:
    """The agent and what is done with it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.died: list[str] = []
        threading.excepthook = self._note_thread
        sys.unraisablehook = lambda info: self.died.append(f"unraisable: {info.exc_value!r} in {info.object!r}")
        self.agent_settings = dict(settings["agent"])
        self.limits: dict[int, tuple[int, int]] = {}
        self.ballast: Path | None = None
        self.blob = b""
        self.calls: list[Future[Any]] = []
        self.free = threading.Event()
        self.free.set()
        self.begin()

    def _note_thread(self, args: Any) -> None:
        self.died.append(f"thread {getattr(args.thread, 'name', '?')}: {args.exc_value!r}")

    def begin(self) -> None:
        """Start the agent, and what reads all that comes in."""
        options = dict(self.agent_settings)
        if "data_config" in options:
            options["data_config"] = DataConfig(**options["data_config"])
        self.agent = Agent(**options)
        self.cache = self.agent.cache("chaos", ttl=300.0)
        self.heard: set[str] = set()
        self.news: list[str] = []
        self.agent.on_request("echo")(lambda request: request.value)
        self.agent.on_request("size")(lambda request: len(request.value))
        self.agent.on_request("block")(lambda request: self.free.wait(60))
        for source in (self.agent.messages(), self.agent.subscribe("chaos")):
            threading.Thread(target=self._hear, args=(source,), daemon=True, name="reader").start()
        threading.Thread(target=self._follow, args=(self.agent.events(),), daemon=True, name="reader").start()

    def _hear(self, source: Any) -> None:
        with contextlib.suppress(MycorrizalError):
            for item in source:
                if isinstance(item.value, str):
                    self.heard.add(item.value)

    def _follow(self, source: Any) -> None:
        with contextlib.suppress(MycorrizalError):
            for event in source:
                self.news.append(f"{event.kind} {getattr(getattr(event, 'node', None), 'name', '')}")

    # -- orders: what it is and what it does ---------------------------------------------------

    def do_ready(self) -> Answer:
        host, port = self.agent.address
        return {"address": f"{host}:{port}", "control": _endpoint(self.agent)}

    def do_use(self, tag: str, target: str, endpoint: str) -> dict[str, Answer]:
        """Use every part once, towards `target`; return what each call came to."""
        agent = self.agent
        calls: dict[str, Callable[[], Any]] = {
            "members": agent.members,
            "request": lambda: self._same(agent.request(target, "echo", tag, timeout=SECONDS), tag),
            "send": lambda: agent.send(target, f"message {tag}", timeout=SECONDS),
            "setting": lambda: agent.settings.set(f"key {agent.name}", tag, timeout=SECONDS),
            "broadcast": lambda: agent.broadcast("chaos", f"event {tag}", timeout=SECONDS),
            "cache.set": lambda: self.cache.set(f"key {tag}", tag, timeout=SECONDS),
            "cache.get": lambda: self._same(self.cache.get(f"key {tag}", timeout=SECONDS), tag, *doubt),
            "control": lambda: self._control(endpoint),
        }
        answers: dict[str, Answer] = {}
        doubt: list[None] = []
        for name, call in calls.items():
            answers[name] = told(call)
            if name == "cache.set" and "error" in answers[name]:
                doubt.append(None)  # it may not be there
        return answers

    def do_heard(self, tags: list[str]) -> list[str]:
        """Return what has not arrived of the events and settings that were told with `tags`, by their tellers."""
        shared = set(dict(self.agent.settings).values())
        missing = [f"event {tag}" for tag in tags if f"event {tag}" not in self.heard]
        return missing + [f"setting {tag}" for tag in tags if tag not in shared]

    def do_state(self) -> Answer:
        """Return what the process holds, what has died, and what the agent says of itself."""
        kinds = Counter(re.sub(r"\d+", "N", link) for link in (_link(name) for name in os.listdir("/proc/self/fd")))
        threads = Counter(thread.name for thread in threading.enumerate())
        held = {"threads": threads, "descriptors": kinds}
        return {**held, "died": self.died, "news": list(self.news), **self.do_health()}

    def do_health(self) -> Answer:
        crash = told(self.agent.members)
        if "error" in crash:
            return {"members": [], "problems": [], "suspects": 0, "crash": crash["text"]}
        found = self.agent.health()
        return {"members": self.agent.members().names, "problems": found.problems, "suspects": found.suspects}

    def do_metrics(self) -> dict[str, int]:
        return self.agent.metrics()

    # -- orders: what is taken away -----------------------------------------------------------------

    def do_starve(self, what: str, few: int) -> int:
        """Lower a limit to what is in use and a `few` more: descriptors, threads, or MB of memory."""
        kind = {"descriptors": resource.RLIMIT_NOFILE, "threads": resource.RLIMIT_NPROC, "memory": resource.RLIMIT_AS}
        self.limits[kind[what]] = resource.getrlimit(kind[what])
        match what:
            case "descriptors":
                open_now = {int(name) for name in os.listdir("/proc/self/fd")}
                number = min(n for n in range(1, 65_536) if n - sum(fd < n for fd in open_now) >= few)
            case "threads":
                number = 1
            case _:
                with open("/proc/self/statm", encoding="ascii") as file:
                    number = int(file.read().split()[0]) * _PAGE + (few << 20)
        resource.setrlimit(kind[what], (number, self.limits[kind[what]][1]))
        return number

    def do_feed(self) -> None:
        """Give back what was taken."""
        for kind, limits in self.limits.items():
            resource.setrlimit(kind, limits)
        self.limits.clear()

    def do_fill(self, folder: str) -> int:
        """Fill the file system of `folder` to the last byte; return how many bytes that took."""
        self.ballast = Path(folder, "ballast")
        written = 0
        with open(self.ballast, "wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        written += file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        return written

    def do_empty(self) -> None:
        assert self.ballast is not None
        self.ballast.unlink()

    def do_start(self, name: str) -> Answer:
        """Start another agent here, and close it."""

        def start() -> None:
            with Agent(**{**self.agent_settings, "name": name, "settings_file": None}):
                pass

        return told(start)

    def do_rotate(self) -> Answer:
        """Add a key and use it; the answer's ``errors`` are those of single agents."""
        key, errors = os.urandom(32), {}

        def rotate() -> None:
            for step in (self.agent.keys.add, self.agent.keys.use):
                results = step(key, timeout=SECONDS)
                errors.update({node: repr(error) for node, error in results.errors.items()})

        return {**told(rotate), "errors": errors}

    def do_restart(self) -> dict[str, Any]:
        """Leave, start again alone, and return the settings that the file has kept."""
        self.agent.leave(5)
        self.agent.close()
        self.agent_settings.pop("join", None)
        self.begin()
        return dict(self.agent.settings)

    # -- orders: large values, stuck handlers, clocks --------------------------------------------------------

    def do_blob(self, megabytes: int) -> None:
        self.blob = bytes(megabytes << 20)

    def do_large(self, target: str, seconds: float) -> dict[str, Answer]:
        """Send, request and cache a large value."""
        calls: dict[str, Callable[[], Any]] = {
            "large send": lambda: self.agent.send(target, self.blob, timeout=seconds),
            "large request": lambda: self.agent.request(target, "size", self.blob, timeout=seconds),
            "large cache.set": lambda: self.cache.set(f"large {target}", self.blob, timeout=seconds),
            "large cache.delete": lambda: self.cache.delete(f"large {target}", timeout=seconds),
        }
        return {name: told(call) for name, call in calls.items()}

    def do_block(self) -> None:
        """From now on the handler ``block`` does not return."""
        self.free.clear()

    def do_unblock(self) -> None:
        self.free.set()

    def do_crowd(self, target: str, count: int, seconds: float) -> list[Answer]:
        """Ask `target`'s stuck handler `count` times at once; return what each came to."""
        self.calls = [self.agent.request_async(target, "block", timeout=seconds) for _ in range(count)]
        return [told(lambda call=call: call.result(seconds + SECONDS)) for call in self.calls]  # type: ignore[misc]

    def do_hold(self, key: str, value: str, ttl: float | None) -> Answer:
        """Write an entry of the cache."""
        return told(lambda: self.cache.set(key, value, ttl=ttl, timeout=SECONDS))

    def do_look(self, key: str) -> Any:
        """Return what the cache has, None without an entry."""
        return self.cache.get(key, None, timeout=SECONDS)

    def do_setting(self, key: str, value: str) -> Answer:
        return told(lambda: self.agent.settings.set(key, value, timeout=SECONDS))

    def do_settings(self) -> dict[str, Any]:
        return dict(self.agent.settings)

    def do_clock(self) -> float:
        return time.time()

    # -- inside ------------------------------------------------------------------------------------------

    @staticmethod
    def _same(found: Any, *wanted: Any) -> None:
        if found not in wanted:
            raise AssertionError(f"{found!r} instead of {wanted[0]!r}")

    @staticmethod
    def _control(endpoint: str) -> None:
        with ControlClient(endpoint, timeout=SECONDS) as client:
            client.call("ping")


def _endpoint(agent: Agent) -> str:
    """Return where `agent`, of this process, takes commands."""
    (endpoint,) = [one.control for one in RuntimeDir().agents() if one.name == agent.name]
    assert endpoint is not None
    return endpoint


def _link(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return "gone"


def main() -> None:
    settings = json.loads(sys.argv[1])
    if settings.get("counted"):
        count_as_another_user()
    node = Node(settings)
    print(json.dumps(node.do_ready()), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(getattr(node, f"do_{order.pop('do')}")(**order)), flush=True)
    node.free.set()
    node.agent.close()


if __name__ == "__main__":
    main()
