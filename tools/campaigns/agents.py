"""An agent as a process on a host of the lab, which does what lines of JSON on stdin say. For ``tools/chaos``.

``MYCORRIZAL_CHAOS_AHEAD`` sets this process's wall clock, in seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from lab.child import as_child
from lab.lines import Lines
from lab.netlab import Lab

PORT = 7946
KEY = bytes(range(32))
SECONDS = 60.0


class Node:
    """One agent, in the child process."""

    def __init__(self, name: str, address: str, seed: str, config: dict[str, Any]) -> None:
        from mycorrizal import Agent, Config

        wire = config.pop("wire", "cbor")
        began = time.monotonic()
        self.agent = Agent(
            name, bind=address, port=PORT, key=KEY, join=[seed] if seed else [], discover=False, control=False,
            wire=wire, config=Config.lan(bind_addr=address, bind_port=PORT, **config), join_timeout=SECONDS,
        )  # fmt: skip
        self.joined = time.monotonic() - began
        self.seen: dict[str, list[Any]] = {}
        self.last = 0.0
        self.missed: dict[str, int] = {}
        self.told: dict[str, Any] = {}

    def do_ready(self) -> dict[str, Any]:
        return {"joined": self.joined, "settings": len(self.agent.settings), "boot": self.agent.boot.hex()}

    def do_members(self) -> list[str]:
        return self.agent.members().names

    def do_subscribe(self, topic: str) -> None:
        from mycorrizal import UserEvent, UserEventsMissed

        stream = self.agent.subscribe(topic, depth=100_000)

        def read() -> None:
            for event in stream:
                if isinstance(event, UserEventsMissed):
                    self.missed[event.sender] = self.missed.get(event.sender, 0) + event.count
                elif isinstance(event, UserEvent):
                    self.seen.setdefault(event.sender, []).append(event.value[0])
                    self.last = time.monotonic()

        threading.Thread(target=read, daemon=True).start()

    def do_broadcast(self, topic: str, first: int, count: int, size: int, interval: float) -> None:
        """Begin to tell events; ``told`` says when it is done."""

        def work() -> None:
            began, failed = time.monotonic(), []
            for number in range(first, first + count):
                try:
                    self.agent.broadcast(topic, [number, "x" * size], timeout=30)
                except Exception as error:
                    failed.append(repr(error))
                time.sleep(interval)
            self.told = {"seconds": time.monotonic() - began, "failed": failed}

        self.told = {}
        threading.Thread(target=work, daemon=True).start()

    def do_told(self) -> dict[str, Any]:
        return self.told

    def do_seen(self) -> dict[str, Any]:
        counts = {sender: len(values) for sender, values in self.seen.items()}
        return {"count": sum(counts.values()), "missed": sum(self.missed.values()), "last": self.last}

    def do_values(self) -> dict[str, Any]:
        return {"seen": self.seen, "missed": self.missed}

    def do_set(self, values: dict[str, Any]) -> None:
        for key, value in values.items():
            self.agent.settings[key] = value

    def do_delete(self, keys: list[str]) -> None:
        for key in keys:
            del self.agent.settings[key]

    def do_fill(self, count: int, size: int) -> None:
        for number in range(count):
            self.agent.settings[f"fill {number:06}"] = "x" * size

    def do_settings(self) -> dict[str, Any]:
        return {key: value for key, value in self.agent.settings.items() if not key.startswith("fill ")}

    def do_register(self, service: str, port: int) -> None:
        self.agent.services.register(service, port=port)

    def do_services(self) -> list[str]:
        return sorted(f"{found.name}@{found.node}" for found in self.agent.services.find())

    def do_metrics(self) -> dict[str, Any]:
        sharing = self.agent._running.sharing
        gossip_cpu = sharing.post(lambda now: time.thread_time()).result(10)
        return {**self.agent.metrics(), "cpu": time.process_time(), "cpu.gossip": gossip_cpu}


def serve() -> None:
    """Run one agent until stdin ends."""
    ahead = float(os.environ.get("MYCORRIZAL_CHAOS_AHEAD", "0"))
    if ahead:
        real = time.time
        time.time = lambda: real() + ahead
    name, address, seed, config = sys.argv[2:6]
    node = Node(name, address, seed, json.loads(config))
    print(json.dumps(node.do_ready()), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer: Any = getattr(node, f"do_{order.pop('do')}")(**order)
        print(json.dumps(answer), flush=True)
    node.agent.close()


class Host:
    """An agent's process on a host of the lab, and how to talk to it."""

    def __init__(self, lab: Lab, number: int, seed: str, ahead: float = 0.0, **config: Any) -> None:
        self.name = f"h{number}"
        command = as_child("campaigns.agents", "serve", self.name, lab.address(number), seed, json.dumps(config))
        environment = {**os.environ, "MYCORRIZAL_CHAOS_AHEAD": str(ahead)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        self.child = lab.popen(number, command, env=environment, **pipes)
        self._lines = Lines(self.child)

    def take(self, seconds: float = SECONDS) -> Any:
        """Return the next answer."""
        try:
            return json.loads(self._lines.next(seconds))
        except TimeoutError as error:
            raise TimeoutError(f"{self.name}: {error}") from None
        except EOFError as error:
            raise RuntimeError(f"{self.name}: {error}") from None

    def tell(self, do: str, **order: Any) -> None:
        """Give an order."""
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")

    def ask(self, do: str, **order: Any) -> Any:
        """Give an order and return the answer."""
        self.tell(do, **order)
        return self.take()

    def dismiss(self) -> None:
        """Let it end in order."""
        assert self.child.stdin is not None
        with contextlib.suppress(OSError):
            self.child.stdin.close()


def end_all(hosts: list[Host]) -> list[int]:
    """Let all end in order, at once; return their exit codes."""
    for host in hosts:
        host.dismiss()
    return [int(host.child.wait(20)) for host in hosts]


def ask_all(hosts: list[Host], do: str, **order: Any) -> list[Any]:
    """Give all the same order at once; return the answers."""
    for host in hosts:
        host.tell(do, **order)
    return [host.take() for host in hosts]


def wait_for(what: str, condition: Callable[[], bool], seconds: float, every: float = 0.2) -> float:
    """Wait until `condition()`; return the seconds that it took.

    Raises:
        TimeoutError: it did not come true in time.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(every)
    return time.monotonic() - began


@contextlib.contextmanager
def cluster(
    count: int, seed: int, faults: dict[str, float], *, spare: int = 0, last_ahead: float = 0.0, **config: Any
) -> Iterator[tuple[Lab, list[Host]]]:
    """Yield a lab with an agent on each host but the spare ones, who all know each other; the faults have begun."""
    with tempfile.TemporaryDirectory(prefix="myc-") as folder, Lab(count + spare, seed=seed) as lab:
        os.environ["MYCORRIZAL_RUNTIME_DIR"] = folder
        hosts = [Host(lab, 0, "", **config)]
        hosts[0].take()
        for number in range(1, count):
            ahead = last_ahead if number == count - 1 else 0.0
            hosts.append(Host(lab, number, f"{lab.address(0)}:{PORT}", ahead, **config))
        for host in hosts[1:]:
            host.take()
        wait_for("all see all", lambda: all(len(names) == count for names in ask_all(hosts, "members")), SECONDS)
        lab.faults(**faults)
        yield lab, hosts


if __name__ == "__main__":
    serve()
