"""Real peers as context managers: Debian's ``serf agent``, our Go program, Python nodes in processes of their own.

Each starts its process, waits until it is ready and always stops it. Waiting
is polling against a deadline; nothing here sleeps for a fixed time.
"""

from __future__ import annotations

import base64
import json
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["GoPeer", "PythonNode", "SerfAgent", "free_port", "wait_until"]

T = TypeVar("T")
START_TIMEOUT = 15.0
ROOT = Path(__file__).resolve().parent.parent.parent


def free_port() -> int:
    """Return a loopback port that is free for TCP and UDP at this moment."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_until(look: Callable[[], T], what: str, timeout: float = 30.0, every: float = 0.03) -> T:
    """Return the first true value of `look`; fail with `what` and its last value after `timeout`."""
    deadline = time.monotonic() + timeout
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}; last seen: {value!r}")
        time.sleep(every)


class _Process:
    """A child process that reports in lines of text on stdout."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            self._line(line)

    def _line(self, line: str) -> None:
        """Take one line in, on the reader thread."""

    def write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it without a word, as a crash does."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self.running:
            self._process.kill()
        self._process.wait()
        self._reader.join(5)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                pass

    def tail(self) -> str:
        return "".join(self.lines[-20:])


class _Closing(ABC):
    """``with`` support for what has ``close()``."""

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Stop it, whatever state it is in."""


class SerfAgent(_Closing):
    """One ``serf agent`` on loopback."""

    def __init__(
        self,
        serf: str,
        name: str,
        *,
        key: bytes | None = None,
        tags: dict[str, str] | None = None,
        handler: str | None = None,
        profile: str = "local",
        keyring_file: str | None = None,
    ) -> None:
        self._serf = serf
        self.name = name
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._rpc = f"127.0.0.1:{free_port()}"
        argv = [serf, "agent", "-node", name, "-bind", self.address, "-rpc-addr", self._rpc]
        argv += ["-profile", profile, "-log-level", "debug"]
        if key is not None:
            argv += ["-encrypt", base64.b64encode(key).decode()]
        if keyring_file is not None:
            argv += ["-keyring-file", keyring_file]
        for tag, value in (tags or {}).items():
            argv += ["-tag", f"{tag}={value}"]
        if handler is not None:
            argv += ["-event-handler", handler]
        self.process = _Process(argv)
        try:
            wait_until(self._ready, f"serf agent {name} answers", START_TIMEOUT)
        except AssertionError:
            self.close()
            raise AssertionError(f"serf agent {name} did not start:\n{self.process.tail()}") from None

    def _ready(self) -> bool:
        assert self.process.running, self.process.tail()
        return self._run("info", check=False).returncode == 0

    def _run(self, command: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = [self._serf, command, f"-rpc-addr={self._rpc}", *args]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
        assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done

    def members(self) -> dict[str, dict[str, Any]]:
        """Return what ``serf members`` shows, by name: ``addr``, ``port``, ``tags``, ``status``, ``protocol``."""
        listed = json.loads(self._run("members", "-format", "json").stdout)["members"]
        return {member["name"]: member for member in listed or []}

    def statuses(self) -> dict[str, str]:
        return {name: member["status"] for name, member in self.members().items()}

    def join(self, address: str, *, replay: bool = False) -> None:
        self._run("join", *(["-replay"] if replay else []), address)

    def query(self, name: str, *args: str, timeout: str = "2s") -> tuple[list[str], dict[str, str]]:
        """Ask the cluster; return who acknowledged, each time that it did, and the answers by node."""
        told = json.loads(self._run("query", "-format=json", f"-timeout={timeout}", name, *args).stdout)
        return sorted(told["Acks"] or []), told["Responses"] or {}

    def reachability(self) -> subprocess.CompletedProcess[str]:
        """Have it look whether all members answer."""
        return self._run("reachability", check=False)

    def keys(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Change or list the keys of the cluster."""
        return self._run("keys", *args, check=False)

    def event(self, name: str, payload: str = "", *, coalesce: bool = True) -> None:
        self._run("event", f"-coalesce={str(coalesce).lower()}", name, *([payload] if payload else []))

    def set_tag(self, name: str, value: str) -> None:
        self._run("tags", "-set", f"{name}={value}")

    def force_leave(self, name: str, *, prune: bool = False) -> None:
        self._run("force-leave", *(["-prune"] if prune else []), name)

    def leave(self) -> None:
        self._run("leave")

    def kill(self) -> None:
        self.process.kill()

    def quiet(self) -> bool:
        """Tell whether it gossips no user event (any more)."""
        return any(line.split() == ["event_queue", "=", "0"] for line in self._run("info").stdout.splitlines())

    def logged(self, text: str) -> int:
        """Return how many lines of the log hold `text`."""
        return sum(text in line for line in list(self.process.lines))

    def close(self) -> None:
        self.process.close()


class _GoProcess(_Process):
    def __init__(self, argv: Sequence[str]) -> None:
        self.events: list[dict[str, Any]] = []
        self.replies: queue.Queue[dict[str, Any]] = queue.Queue()
        super().__init__(argv)

    def _line(self, line: str) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            return  # a crash, in the tail
        if "event" in told:
            self.events.append(told)
        else:
            self.replies.put(told)


class GoPeer(_Closing):
    """One member on Debian's memberlist, run by the program in gopeer/."""

    def __init__(self, program: Path, name: str, *flags: str, key: bytes | None = None, port: int = 0) -> None:
        self.name = name
        argv = [str(program), "-name", name, "-port", str(port), *flags]
        if key is not None:
            argv += ["-key", base64.b64encode(key).decode()]
        self.process = _GoProcess(argv)
        self._next_id = 0
        try:
            wait_until(lambda: self.events("ready") or not self.process.running, f"{name} starts", START_TIMEOUT)
            assert self.events("ready"), self.process.tail()
        except AssertionError:
            self.close()
            raise
        self.port: int = self.events("ready")[0]["node"]["port"]
        self.address = f"127.0.0.1:{self.port}"

    def ask(self, cmd: str, *, timeout: float = 15.0, **fields: Any) -> dict[str, Any]:
        """Send a command and return the answer; `fields` that are bytes go as base64. One at a time."""
        self._next_id += 1
        body = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in fields.items()}
        self.process.write(json.dumps({"id": self._next_id, "cmd": cmd, **body}))
        reply = self.process.replies.get(timeout=timeout)
        assert reply["reply"] == self._next_id, reply
        return reply

    def do(self, cmd: str, **fields: Any) -> dict[str, Any]:
        """Send a command that must succeed."""
        reply = self.ask(cmd, **fields)
        assert "error" not in reply, reply
        return reply

    def members(self) -> dict[str, dict[str, Any]]:
        """Return its members by name; ``meta`` as bytes."""
        return {m["name"]: m | {"meta": base64.b64decode(m["meta"])} for m in self.do("members")["members"]}

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return what its delegates saw of `kind`, oldest first."""
        return [event for event in list(self.process.events) if event["event"] == kind]

    def data(self, kind: str) -> list[bytes]:
        """Return the bytes that came with each event of `kind`."""
        return [base64.b64decode(event["data"] or "") for event in self.events(kind)]

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self.process.close()


class PythonNode(_Closing):
    """One ``Memberlist`` in a process of its own, to be killed; see node.py beside this file."""

    def __init__(self, name: str, join: str, *, serf: bool = False, key: bytes | None = None) -> None:
        self.name = name
        argv = [sys.executable, "-m", "tests.interop.node", "--name", name, "--join", join]
        if serf:
            argv.append("--serf")
        if key is not None:
            argv += ["--key", key.hex()]
        self.process = _Process(argv)
        try:
            wait_until(
                lambda: "joined\n" in self.process.lines or not self.process.running, f"{name} joins", START_TIMEOUT
            )
            assert self.process.running, self.process.tail()
        except AssertionError:
            self.close()
            raise

    def leave(self) -> None:
        """Let it leave, and wait for its end."""
        self.process.write("leave")
        wait_until(lambda: not self.process.running, f"{self.name} ends after leaving")

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self.process.close()
