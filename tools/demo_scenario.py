"""The scenario of tools/demo: what three processes do, and what each must see.

This process is the director. It starts one process per node (this file again,
with ``--node``), tells them what to do by JSON lines on their stdin, and prints
what they report on their stdout as a timeline. A *chapter* is a function that
gives orders and waits for what must follow; ``CHAPTERS`` is the whole play.
The nodes use nothing but the public API.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import mycorrizal

NAMES = ("alice", "bob", "carol")
PATIENCE = 20.0
"""Seconds to wait for anything that must happen; a kill is noticed after 4 to 7."""

KEY = b"the demo's key; yours is random!"
"""32 bytes that all nodes have: gossip is encrypted with it, and connections prove it."""

Report = dict[str, Any]


# -- a node: one process ---------------------------------------------------------------


class Narrator(mycorrizal.BaseDelegate, mycorrizal.BaseEventDelegate):
    """Both delegates of a node: supplies its metadata and reports what it sees of the others.

    The metadata begins with the port of the node's data plane.
    """

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.meta = b"role=worker"

    def node_meta(self, limit: int) -> bytes:
        return self.port.to_bytes(2, "big") + self.meta

    def notify_msg(self, data: bytes) -> None:
        report("message", size=len(data), text=data[:40].decode("utf-8", "replace"))

    def notify_join(self, node: mycorrizal.Node) -> None:
        self._saw("join", node)

    def notify_leave(self, node: mycorrizal.Node) -> None:
        self._saw("left" if node.state is mycorrizal.NodeState.LEFT else "failed", node)

    def notify_update(self, node: mycorrizal.Node) -> None:
        self._saw("update", node)

    def _saw(self, event: str, node: mycorrizal.Node) -> None:
        if node.name != self.name:
            report(event, node=node.name, meta=node.meta[2:].decode("utf-8", "replace"))


def report(event: str, **fields: Any) -> None:
    """Tell the director; one write, so that lines of two threads do not mix."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def play(name: str) -> None:
    """Be node `name` until stdin ends."""
    config = mycorrizal.Config.local(name=name, bind_addr="127.0.0.1", bind_port=0, secret_key=KEY)
    with mycorrizal.DataPlane(name, key=KEY) as plane:
        narrator = Narrator(name, plane.port)
        offer_services(plane)
        with mycorrizal.Memberlist(config, delegate=narrator, events=narrator) as cluster:
            plane.follow(cluster)
            host, port = cluster.local_node.address
            report("ready", address=f"{host}:{port}", quic=plane.port)
            for line in sys.stdin:
                order = json.loads(line)
                try:
                    obey(cluster, plane, narrator, order)
                except mycorrizal.MycorrizalError as error:
                    report("error", text=f"{order['do']}: {type(error).__name__}: {error}")


def offer_services(plane: mycorrizal.DataPlane) -> None:
    """What the others may ask this node for."""

    @plane.on_request("square")
    def square(request: mycorrizal.Request) -> list[int]:
        return [number * number for number in request.value]

    @plane.on_request("think")
    def think(request: mycorrizal.Request) -> None:
        threading.Event().wait(request.value)

    def read() -> None:
        for message in plane.messages():
            report("parcel", size=len(message.value), sender=message.sender)

    threading.Thread(target=read, daemon=True).start()


def obey(cluster: mycorrizal.Memberlist, plane: mycorrizal.DataPlane, narrator: Narrator, order: Report) -> None:
    """Carry out one order of the director."""
    match order["do"]:
        case "join":
            result = cluster.join([order["address"]], timeout=PATIENCE)
            report("joined", reached=result.reached)
        case "send":
            data = order["text"].encode().ljust(order["size"])
            if order["reliable"]:
                cluster.send_reliable(order["to"], data, timeout=PATIENCE)
            else:
                cluster.send_best_effort(order["to"], data)
        case "meta":
            narrator.meta = order["meta"].encode()
            cluster.update_node(timeout=PATIENCE)
        case "members":
            report("members", names=sorted(node.name for node in cluster.members()))
        case "leave":
            cluster.leave(timeout=PATIENCE)
        case "request":
            answer = plane.request(order["to"], "square", order["numbers"], timeout=PATIENCE)
            report("answer", sender=order["to"], answer=answer)
        case "parcel":
            began = time.monotonic()
            plane.send(order["to"], bytes(order["size"]), timeout=PATIENCE)
            report("delivered", size=order["size"], seconds=time.monotonic() - began)
        case "wait":
            threading.Thread(target=wait_for_answer, args=(plane, order["to"]), daemon=True).start()


def wait_for_answer(plane: mycorrizal.DataPlane, node: str) -> None:
    """Ask for something that takes a minute, and report how that ends."""
    try:
        plane.request(node, "think", 60, timeout=60)
    except mycorrizal.PeerUnreachable as error:
        report("ended", node=node, text=str(error), indeterminate=error.indeterminate)


# -- the director ------------------------------------------------------------------------


class Missed(Exception):
    """Something that must happen did not."""


class Stage:
    """The processes, their reports, and the clock of the timeline."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.addresses: dict[str, str] = {}
        self.findings: list[str] = []
        self._actors: dict[str, subprocess.Popen[str]] = {}
        self._reports: queue.Queue[tuple[float, str, Report]] = queue.Queue()
        self._killed: set[str] = set()

    def enter(self, name: str) -> None:
        """Start the process of a node."""
        command = [sys.executable, __file__, "--node", name]
        actor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self._actors[name] = actor
        threading.Thread(target=self._listen, args=(name, actor), daemon=True).start()

    def order(self, name: str, do: str, **fields: Any) -> float:
        """Tell a node what to do; return the time."""
        stdin = self._actors[name].stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps({"do": do, **fields}) + "\n")
            stdin.flush()
        except OSError:
            raise Missed(f"the process of {name} is gone") from None
        return time.monotonic()

    def kill(self, name: str) -> float:
        """SIGKILL a node: no goodbye, no closing of sockets by the library."""
        self._killed.add(name)
        self.say(name, f"killed (SIGKILL, pid {self._actors[name].pid})")
        self._actors[name].send_signal(signal.SIGKILL)
        return time.monotonic()

    def wait(self, what: str, expected: set[tuple[Any, ...]], see: Callable[[str, Report], tuple[Any, ...]]) -> float:
        """Wait until reports, as `see` reads them, have covered `expected`; return when the last one came."""
        missing, deadline = set(expected), time.monotonic() + PATIENCE
        while missing:
            try:
                at, name, event = self._reports.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Missed(f"{what}: still waiting for {sorted(missing)} after {PATIENCE:.0f} s") from None
            self.say(name, TELL[event["event"]](event), at)
            if event["event"] == "error" or (event["event"] == "gone" and name not in self._killed):
                raise Missed(f"{what}: {name}: {event.get('text', 'process ended')}")
            if event["event"] == "ready":
                self.addresses[name] = event["address"]
            missing.discard(see(name, event))
        return at

    def say(self, name: str, text: str, at: float | None = None) -> None:
        """Print one line of the timeline."""
        print(f"{(at or time.monotonic()) - self.began:7.3f} s  {name:<6}  {text}", flush=True)

    def close(self) -> None:
        """End all processes."""
        for actor in self._actors.values():
            assert actor.stdin is not None
            try:
                actor.stdin.close()
            except OSError:
                pass
        for actor in self._actors.values():
            try:
                actor.wait(timeout=3)
            except subprocess.TimeoutExpired:
                actor.kill()
                actor.wait()

    def _listen(self, name: str, actor: subprocess.Popen[str]) -> None:
        assert actor.stdout is not None
        for line in actor.stdout:
            self._reports.put((time.monotonic(), name, json.loads(line)))
        self._reports.put((time.monotonic(), name, {"event": "gone"}))


TELL: dict[str, Callable[[Report], str]] = {
    "ready": lambda r: f"gossips on {r['address']}, speaks QUIC on port {r['quic']}",
    "answer": lambda r: f"asked {r['sender']} for squares: {r['answer']}",
    "parcel": lambda r: f"receives {r['size']:,} bytes from {r['sender']} over QUIC",
    "delivered": lambda r: f"knows after {r['seconds']:.2f} s that {r['size']:,} bytes are in the inbox",
    "ended": lambda r: f"hears why its request ends: {r['text']}",
    "joined": lambda r: "has joined" if r["reached"] else "has reached nobody",
    "join": lambda r: f"sees {r['node']} join",
    "left": lambda r: f"sees {r['node']} leave",
    "failed": lambda r: f"declares {r['node']} failed",
    "update": lambda r: f"sees {r['node']}'s metadata become '{r['meta']}'",
    "message": lambda r: f"receives '{r['text'].strip()}', {r['size']:,} bytes",
    "members": lambda r: f"is in a cluster of {len(r['names'])}: {', '.join(r['names'])}",
    "error": lambda r: r["text"],
    "gone": lambda r: "process has ended",
}


# -- the chapters ------------------------------------------------------------------------


def form_cluster(stage: Stage) -> None:
    """Three processes become one cluster."""
    for name in NAMES:
        stage.enter(name)
    stage.wait("start", {("ready", name) for name in NAMES}, lambda name, r: (r["event"], name))
    first, *others = NAMES
    began = time.monotonic()
    for name in others:
        stage.order(name, "join", address=stage.addresses[first])
    everyone = {("join", name, other) for name in NAMES for other in NAMES if name != other}
    done = stage.wait("joining", everyone, lambda name, r: (r["event"], name, r.get("node")))
    stage.findings.append(f"three nodes knew each other after {done - began:.2f} s")


def exchange_messages(stage: Stage) -> None:
    """User messages: one datagram, then 100 kB over TCP."""
    stage.order("alice", "send", to="bob", text="hello over UDP", size=14, reliable=False)
    stage.wait("best effort message", {("message", "bob", 14)}, lambda name, r: (r["event"], name, r.get("size")))
    stage.order("bob", "send", to="carol", text="hello over TCP", size=100_000, reliable=True)
    stage.wait("reliable message", {("message", "carol", 100_000)}, lambda name, r: (r["event"], name, r.get("size")))
    stage.findings.append("messages arrived over UDP and TCP")


def speak_quic(stage: Stage) -> None:
    """Requests and large messages over QUIC, at ports that the metadata tells."""
    began = stage.order("alice", "request", to="bob", numbers=[1, 2, 3])
    done = stage.wait(
        "request", {("answer", "alice", (1, 4, 9))}, lambda name, r: (r["event"], name, tuple(r.get("answer", ())))
    )
    stage.order("alice", "parcel", to="carol", size=32_000_000)
    expected = {("parcel", "carol", 32_000_000), ("delivered", "alice", 32_000_000)}
    stage.wait("parcel", expected, lambda name, r: (r["event"], name, r.get("size")))
    stage.findings.append(f"a first request over QUIC took {done - began:.2f} s, handshake and proof included")


def update_metadata(stage: Stage) -> None:
    """What a node says about itself reaches all."""
    began = stage.order("carol", "meta", meta="role=cache")
    expected = {("update", name, "carol", "role=cache") for name in ("alice", "bob")}
    done = stage.wait("metadata", expected, lambda name, r: (r["event"], name, r.get("node"), r.get("meta")))
    stage.findings.append(f"metadata was everywhere in {done - began:.2f} s")


def notice_a_crash(stage: Stage) -> None:
    """One process is killed; the others find out by themselves, and calls to it end."""
    stage.order("alice", "wait", to="bob")
    stage.order("alice", "request", to="bob", numbers=[5])
    stage.wait("request", {("answer", "alice", (25,))}, lambda name, r: (r["event"], name, tuple(r.get("answer", ()))))
    began = stage.kill("bob")
    expected = {("failed", name, "bob") for name in ("alice", "carol")} | {("ended", "alice", "bob")}
    done = stage.wait("crash", expected, lambda name, r: (r["event"], name, r.get("node")))
    stage.findings.append(f"a crash was noticed by all in {done - began:.1f} s")


def notice_a_leave(stage: Stage) -> None:
    """A node that says goodbye is not taken for a failed one."""
    stage.order("carol", "leave")
    stage.wait("leave", {("left", "alice", "carol")}, lambda name, r: (r["event"], name, r.get("node")))
    stage.order("alice", "members")
    stage.wait("members", {("members", "alice", 1)}, lambda name, r: (r["event"], name, len(r.get("names", ()))))
    stage.findings.append("a goodbye was told from a crash")


CHAPTERS = (form_cluster, exchange_messages, speak_quic, update_metadata, notice_a_crash, notice_a_leave)


def direct() -> int:
    """Play all chapters; return the exit code."""
    stage = Stage()
    try:
        for chapter in CHAPTERS:
            print(f"\n{chapter.__doc__}")
            chapter(stage)
    except Missed as error:
        print(f"\nFAILED: {error}")
        return 1
    finally:
        stage.close()
    print(f"\nOK: {', '.join(stage.findings)}.")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--node"]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the director's matter; it closes stdin
        play(sys.argv[2])
    else:
        try:
            sys.exit(direct())
        except KeyboardInterrupt:
            sys.exit(130)
