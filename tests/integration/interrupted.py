"""A program that calls everything that blocks, and has another thread take the Ctrl-C: prints how long each slept on.

Each line is ``{"call": name, "seconds": time from the signal to KeyboardInterrupt}``, the least of some tries; None
where the call ended before the signal.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mycorrizal import Agent, Config, DataPlane, Memberlist, MycorrizalError, SerfDelegate
from mycorrizal.control import ControlClient

TRIES = 3
GOOD = 0.1
Calls = dict[str, Callable[[], object]]


def main() -> None:
    """Run the group of calls that the first argument names, in the directory of the second."""
    taker = threading.Thread(target=threading.Event().wait, daemon=True)
    taker.start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # of this thread, and of those it starts from now on
    GROUPS[sys.argv[1]](Path(sys.argv[2]))


def measure(calls: Calls) -> None:
    """Interrupt each of `calls` after a moment."""
    for name, call in calls.items():
        best: float | None = None
        for number in range(TRIES):
            seconds = interrupt(call, 0.111 + number * 0.013)
            best = seconds if best is None or seconds is None else min(best, seconds)
            if best is None or best <= GOOD:
                break
        print(json.dumps({"call": name, "seconds": best}), flush=True)


def interrupt(call: Callable[[], object], after: float) -> float | None:
    """Return the seconds from a Ctrl-C, `after` seconds into `call`, to its end."""
    sent: list[float] = []

    def send() -> None:
        time.sleep(after)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    try:
        sender.start()
        call()
    except KeyboardInterrupt:
        return time.monotonic() - sent[0]
    else:
        with contextlib.suppress(KeyboardInterrupt):
            sender.join()
            time.sleep(0.2)
        return None


@contextlib.contextmanager
def frozen(*posts: Callable[[Callable[[float], object]], object]) -> Iterator[None]:
    """Hold up the threads that `posts` give work to, each at its next command."""
    gate = threading.Event()
    held = [threading.Event() for _ in posts]
    for post, here in zip(posts, held, strict=True):
        post(lambda now, here=here: (here.set(), gate.wait(60)))
    try:
        for here in held:
            assert here.wait(10)
        yield
    finally:
        gate.set()


def gossip(agent: Agent) -> Callable[[Callable[[float], object]], object]:
    """Return how to give work to the gossip thread."""
    return agent._running.members._running.mailbox.post


def plane(agent: Agent) -> Callable[[Callable[[float], object]], object]:
    """Return how to give work to the thread of the data plane."""
    return agent._running.data._started.submit


def shared(_: Path) -> None:
    """What waits for the gossip thread, or for news from it."""
    with Agent("alice") as agent:
        service = agent.services.register("db", port=1)
        opened = agent.cache("c")
        member = agent._running.members
        with frozen(gossip(agent)):
            measure({
                "settings[...]": lambda: agent.settings.__setitem__("a", 1),
                "settings.delete": lambda: agent.settings.delete("a"),
                "settings.set, no timeout": lambda: agent.settings.set("a", 1, timeout=None),
                "broadcast": lambda: agent.broadcast("x", 1),
                "subscribe": lambda: agent.subscribe("x", last=3),
                "services.register": lambda: agent.services.register("api", port=2),
                "services.deregister": lambda: service.deregister(),
                "update_tags": lambda: agent.update_tags({"a": "b"}),
                "join": lambda: agent.join(["127.0.0.1:9"]),
                "cache": lambda: agent.cache("another"),
                "memberlist.update_node": lambda: member.update_node(),
                "memberlist.ping": lambda: member.ping("alice"),
                "memberlist.leave": lambda: member.leave(),
                "services.deregister of none": lambda: agent.services.deregister("none"),
            })  # fmt: skip
        measure({
            "wait_for": lambda: agent.wait_for(9),
            "events.get": lambda: agent.events().get(20),
            "events, iterated": lambda: next(iter(agent.events())),
            "settings.watch": lambda: agent.settings.watch().get(None),
            "services.watch": lambda: agent.services.watch().get(20),
            "subscribe.get": lambda: agent.subscribe("x").get(20),
            "memberlist.events": lambda: member.events().get(20),
        })
        usable(agent)
        opened.set("k", 1)
        assert opened.get("k") == 1


def usable(agent: Agent) -> None:
    """Fail unless `agent` can still do its work."""
    agent.settings["after"] = 1
    assert agent.settings["after"] == 1 and agent.broadcast("after") > 0 and len(agent.members())


def talking(directory: Path) -> None:
    """What waits for the thread of the data plane, for a peer, or for a value to come."""
    file = directory / "file"
    file.write_bytes(bytes(100))
    gate = threading.Event()
    with Agent("alice") as agent, Agent("bob") as bob:
        agent.wait_for(2)
        bob.on_request("slow")(lambda request: gate.wait(60))
        bob.on_stream("silent")(lambda stream: gate.wait(60))
        data, future = agent._running.data, agent.request_async("bob", "slow", timeout=60)
        stream = agent.open_stream("bob", "silent")
        cache = agent.cache("c")
        bob.open_cache("c")
        held = cache.lock("one")
        measure({
            "request": lambda: agent.request("bob", "slow", timeout=20),
            "request with progress": lambda: agent.request("bob", "slow", timeout=20, progress=lambda *_: None),
            "request_all": lambda: agent.request_all("slow", timeout=20),
            "future.result": lambda: future.result(20),
            "future.exception": lambda: future.exception(),
            "receive": lambda: agent.receive(20),
            "receive, no timeout": lambda: agent.receive(),
            "receive with progress": lambda: agent.receive(20, progress=lambda *_: None),
            "receive_file": lambda: agent.receive_file(directory, timeout=20),
            "stream.read": lambda: stream.read(10),
            "stream.readinto": lambda: stream.readinto(bytearray(10)),
            "stream.write": lambda: [stream.write(bytes(1 << 20)) for _ in range(100)],
            "cache.lock": lambda: cache.lock("one", timeout=20),
            "stream.read behind another's": lambda: behind(stream),
        })  # fmt: skip
        with frozen(plane(agent)):
            measure({
                "send": lambda: agent.send("bob", 1, timeout=20),
                "send_file": lambda: agent.send_file("bob", file),
                "open_stream": lambda: agent.open_stream("bob", "silent", timeout=20),
                "plane.connect": lambda: data.connect(("127.0.0.1", 9), timeout=20),
                "cache.set": lambda: cache.set("a", 1, timeout=20),
                "cache.delete": lambda: cache.delete("a"),
                "cache.incr": lambda: cache.incr("n"),
                "cache.get_or_compute": lambda: cache.get_or_compute("computed", lambda: 1),
                "cache.keys": lambda: list(cache.keys()),
                "cache.clear": lambda: cache.clear(),
                "cache.stats": lambda: cache.stats(),
                "lock.renew": lambda: held.renew(),
                "lock.release": lambda: held.release(),
                "peers": lambda: agent.peers(),
                "keys.add": lambda: agent.keys.add(os.urandom(32)),
            })  # fmt: skip
        gate.set()
        stream.abort()
        usable(agent)
        assert agent.request_all("slow", timeout=20)["bob"] is True


def behind(stream: Any) -> None:
    """Read `stream` while another thread reads it."""

    def read() -> None:
        with contextlib.suppress(MycorrizalError):
            stream.read(10)

    threading.Thread(target=read, daemon=True).start()
    time.sleep(0.02)
    stream.read(10)


def controlled(_: Path) -> None:
    """What a program of this host waits for."""
    with Agent("alice") as agent:
        endpoint = next(Path(os.environ["MYCORRIZAL_RUNTIME_DIR"]).glob("*.control"))
        with ControlClient(f"ipc://{endpoint}") as client:
            with frozen(gossip(agent)):
                measure({"client.call": lambda: client.call("settings.set", key="a", value=1, timeout=20)})
            with client.events() as told:
                measure({"client events": lambda: told.get(20), "client events, no end": lambda: next(told)})
            assert "alice" in repr(client.call("members"))
        usable(agent)


def starting(directory: Path) -> None:
    """What waits for others before an agent is there. The end of what was begun is in the time, too."""
    import sqlite3

    path = directory / "settings.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        path.chmod(0o600)
        other.execute("CREATE TABLE t (a)")
        other.execute("BEGIN EXCLUSIVE")
        measure({"Agent with a file that is taken": lambda: Agent("alice", settings_file=str(path))})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        seed = f"127.0.0.1:{silent.getsockname()[1]}"
        measure({"Agent whose seed is silent": lambda: Agent("alice", join=seed)})
        with Memberlist(Config.local(name="m", bind_addr="127.0.0.1", bind_port=0)) as member:
            measure({
                "memberlist.join": lambda: member.join([seed]),
            })  # fmt: skip
    serf = SerfDelegate()
    measure({"serf.next_event": lambda: serf.next_event(20)})


def ending(_: Path) -> None:
    """The ends: each can be asked for again."""

    def close(agent: Agent, *held: Any) -> None:
        with frozen(*held):
            measure({f"close {agent.name}": lambda: agent.close(20)})
        agent.close()
        assert agent.closed

    one, other = Agent("one"), Agent("other")
    one.cache("c")
    with frozen(gossip(one)):
        measure({"leave": lambda: one.leave(20)})
    with frozen(plane(one)):
        measure({"leave with a cache": lambda: one.leave(20)})
    one.leave()
    close(one, gossip(one))
    close(other, plane(other))
    member = Memberlist(Config.local(name="m", bind_addr="127.0.0.1", bind_port=0))
    with frozen(member._running.mailbox.post):
        measure({"memberlist.shutdown": lambda: member.shutdown(20)})
    member.shutdown()
    data = DataPlane("d")
    with frozen(data._started.submit):
        measure({"plane.close": lambda: data.close(20)})
    data.close()


GROUPS: dict[str, Callable[[Path], None]] = {
    "shared": shared, "talking": talking, "controlled": controlled, "starting": starting, "ending": ending,
}  # fmt: skip

if __name__ == "__main__":
    main()
