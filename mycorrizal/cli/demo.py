"""The play of ``mycorrizal demo`` and tools/demo: what three processes do, and what each must see.

This process is the director. It starts one process per node (this module
again, with ``--node``), gives orders through each agent's control plane as any
tool may, and prints what the nodes report on their stdout as a timeline. A
*chapter* is a function that gives orders and waits for what must follow;
``CHAPTERS`` is the whole play. Neither click nor rich is needed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from .._runtime.host.processes import Children
from .._runtime.host.rundir import RuntimeDir
from .._runtime.threads import clock
from .._runtime.threads.deadline import Deadline
from .._runtime.threads.waits import pause
from ..agent import Agent
from ..cache import Cache
from ..control import ControlClient
from ..dataconfig import DataConfig
from ..events import AgentEvent, ChangesLost, MemberFailed, MemberJoined, MemberLeft, SettingChange, UserEvent
from ..exceptions import MycorrizalError, NotRunningError, OperationTimeout
from ..types import Message, Request
from .values import visible

__all__ = ["CHAPTERS", "Missed", "Stage", "direct", "play"]

NAMES = ("alice", "bob", "carol")
PATIENCE = 25.0
"""Seconds to wait for anything that must happen."""
PARCEL = 32_000_000
ENTRIES = 1000
ELSEWHERE = "carol"
"""Who speaks QUIC with the others, as if it were on another host."""
CALLS = 300

_Report = dict[str, Any]


# -- a node: one process ----------------------------------------------------------------------------


def play(name: str, cluster: str) -> None:
    """Be node `name` until the director ends it, or is gone itself."""
    director = os.getppid()
    ways = DataConfig(same_host=name != ELSEWHERE)
    with (
        Agent(name, cluster=cluster, config_file=False, data_config=ways) as agent,
        agent.settings.watch() as settings,
    ):
        _offer(agent, agent.cache("demo"))
        host, port = agent.address
        _report("ready", address=f"{host}:{port}", quic=agent.quic_port)
        with agent.events() as events:
            for member in agent.members():
                _report("join", node=member.name)
            while os.getppid() == director:
                try:
                    _tell(_take(events.get, 0.02))
                    _tell(_take(settings.get, 0))
                    _tell(_take(agent.receive, 0))
                except NotRunningError:
                    return


def _offer(agent: Agent, cache: Cache) -> None:
    """What the others, and the director, may ask this node for."""

    @agent.on_request("square")
    def square(request: Request) -> list[int]:
        return [number * number for number in request.value]

    @agent.on_request("ponder")
    def ponder(request: Request) -> None:
        with agent.subscribe("never") as never:
            _take(never.get, request.deadline or PATIENCE)

    @agent.on_request("deliver")
    def deliver(request: Request) -> float:
        began = clock.now()
        agent.send(request.value, bytes(PARCEL), timeout=PATIENCE)
        return clock.now() - began

    @agent.on_request("compare")
    def compare(request: Request) -> dict[str, float]:
        rates = {}
        for node in request.value:
            began = clock.now()
            for _ in range(CALLS):
                agent.request(node, "square", [1], timeout=PATIENCE)
            (carrier,) = (peer.carrier for peer in agent.peers() if peer.name == node)
            rates[carrier] = CALLS / (clock.now() - began)
        return rates

    @agent.on_request("wait for")
    def wait_for(request: Request) -> None:
        agent.request_async(request.value, "ponder", timeout=60).add_done_callback(_ended)

    @agent.on_request("remember")
    def remember(request: Request) -> dict[str, int]:
        cache.synced(PATIENCE)
        cache.set_many({str(number): number * number for number in range(ENTRIES)}, timeout=PATIENCE)
        return {name: numbers["entries"] for name, numbers in sorted(cache.stats().items()) if numbers}

    @agent.on_request("recall")
    def recall(request: Request) -> int:
        found = cache.get_many(map(str, range(ENTRIES)), timeout=PATIENCE)
        return sum(value == int(key) ** 2 for key, value in found.items())


def _ended(call: Any) -> None:
    """Report how a call that takes a minute came to its end."""
    _report("ended", text=str(call.exception()))


def _take(get: Callable[[float], Any], seconds: float) -> Any:
    """Return what `get` has, None if nothing came in time."""
    try:
        return get(seconds)
    except OperationTimeout:
        return None


def _tell(what: AgentEvent | SettingChange | Message | ChangesLost | None) -> None:
    """Report what happened, if it is worth it."""
    match what:
        case MemberJoined(node=node):
            _report("join", node=node.name)
        case MemberLeft(node=node):
            _report("left", node=node.name)
        case MemberFailed(node=node):
            _report("failed", node=node.name)
        case UserEvent(topic=topic, value=value, sender=sender):
            _report("told", topic=topic, value=value, sender=sender)
        case SettingChange(key=key, value=value, writer=writer):
            _report("setting", key=key, value=value, writer=writer)
        case Message(value=value, sender=sender):
            _report("parcel", size=len(value), sender=sender)


def _report(event: str, **fields: Any) -> None:
    """Tell the director; one write, so that lines of two threads do not mix."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


# -- the director -----------------------------------------------------------------------------------


class Missed(Exception):
    """Something that must happen did not."""


class Stage:
    """The processes, their reports, and the clock of the timeline."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.began = clock.now()
        self.cluster = f"demo-{os.getpid()}"
        self.findings: list[str] = []
        self._say = say
        self._children = Children()
        self._killed: set[str] = set()

    def enter(self, name: str) -> None:
        """Start the process of a node."""
        mine = {key: value for key, value in os.environ.items() if not key.startswith("MYCORRIZAL_")}
        where = {key: os.environ[key] for key in ("MYCORRIZAL_RUNTIME_DIR",) if key in os.environ}
        command = [sys.executable, "-m", "mycorrizal.cli.demo", "--node", name, self.cluster]
        self._children.start(name, command, mine | where)

    def ask(self, name: str, command: str, /, **arguments: Any) -> Any:
        """Have the agent `name` carry out a command of its control plane."""
        for record in RuntimeDir(create=False).agents(self.cluster):
            if record.name == name and record.control is not None:
                with ControlClient(record.control, PATIENCE) as client:
                    return client.call(command, **arguments)
        raise Missed(f"{command}: the agent {name} is not there")

    def kill(self, name: str) -> float:
        """Kill a node: no goodbye, no closing of sockets by the library. Returns the time."""
        self._killed.add(name)
        self.say(name, f"killed (SIGKILL, pid {self._children.kill(name)})")
        return clock.now()

    def wait(self, what: str, expected: set[tuple[Any, ...]], *fields: str) -> float:
        """Wait until the reports have covered `expected`, tuples of (node, event, *fields); return when."""
        missing, deadline, at = set(expected), Deadline(PATIENCE), clock.now()
        while missing:
            try:
                at, name, told = self._children.get(deadline)
            except OperationTimeout:
                raise Missed(f"{what}: still waiting for {sorted(missing)} after {PATIENCE:.0f} s") from None
            event = str(told.get("event"))
            self.say(name, TELL.get(event, TELL["text"])(told), at)
            if event == "gone" and name not in self._killed:
                raise Missed(f"{what}: the process of {name} has ended")
            missing.discard((name, event, *(told.get(field) for field in fields)))
        return at

    def say(self, name: str, text: str, at: float | None = None) -> None:
        """Print one line of the timeline."""
        self._say(visible(f"{(at or clock.now()) - self.began:7.3f} s  {name:<6}  {text}"))

    def expect_end(self, name: str) -> None:
        """Let a node's process end without that being a failure."""
        self._killed.add(name)

    def close(self) -> None:
        """End all processes."""
        self._children.close()


TELL: dict[str, Callable[[_Report], str]] = {
    "ready": lambda r: f"gossips on {r['address']}, speaks QUIC on port {r['quic']}",
    "join": lambda r: f"sees {r['node']}",
    "left": lambda r: f"sees {r['node']} leave",
    "failed": lambda r: f"declares {r['node']} failed",
    "told": lambda r: f"hears from {r['sender']}: {r['topic']} {r['value']}",
    "setting": lambda r: f"has the setting {r['key']} = {r['value']} of {r['writer']}",
    "parcel": lambda r: f"receives {r['size']:,} bytes from {r['sender']}",
    "ended": lambda r: f"hears why its request ends: {r['text']}",
    "gone": lambda r: "process has ended",
    "text": lambda r: str(r.get("text", r)),
}


# -- the chapters -----------------------------------------------------------------------------------


def _form_cluster(stage: Stage) -> None:
    """Three processes of one user find each other, without an address."""
    for name in NAMES:
        stage.enter(name)
    everyone = {(name, "join", other) for name in NAMES for other in NAMES}
    done = stage.wait("joining", everyone, "node")
    stage.findings.append(f"three nodes knew each other {done - stage.began:.1f} s after their processes began")


def _talk(stage: Stage) -> None:
    """Requests and large messages, here over QUIC as between hosts: encrypted, with a key that the three share."""
    began = clock.now()
    squares = stage.ask("alice", "request", node="carol", name="square", value=[1, 2, 3])
    if squares != [1, 4, 9]:
        raise Missed(f"request: carol answered {squares}")
    stage.say("alice", f"asked carol for squares: {squares}")
    took = clock.now() - began
    seconds = stage.ask("alice", "request", node="alice", name="deliver", value="carol", timeout=PATIENCE)
    stage.wait("parcel", {("carol", "parcel", PARCEL)}, "size")
    stage.say("alice", f"knew after {seconds:.2f} s that {PARCEL:,} bytes were in carol's inbox")
    stage.findings.append(f"a first request took {took:.2f} s, handshake and proof included")


def _compare(stage: Stage) -> None:
    """The same requests over QUIC, and between two agents of one host over a Unix socket."""
    rates = stage.ask("alice", "request", node="alice", name="compare", value=["carol", "bob"], timeout=PATIENCE)
    if set(rates) != {"quic", "host"}:
        raise Missed(f"carriers: {rates} are not both")
    stage.say("alice", f"asks carol {rates['quic']:,.0f} times a second over QUIC")
    stage.say("alice", f"asks bob {rates['host']:,.0f} times a second over a Unix socket")
    stage.findings.append(f"a socket of the host was {rates['host'] / rates['quic']:.1f} times as fast as QUIC")


def _share(stage: Stage) -> None:
    """What all share: an event, a setting, a service."""
    began = clock.now()
    stage.ask("carol", "broadcast", topic="deploy", value=7)
    stage.ask("bob", "settings.set", key="limit", value=5)
    expected = {(name, "told", "deploy", None) for name in NAMES} | {(name, "setting", None, "limit") for name in NAMES}
    done = stage.wait("sharing", expected, "topic", "key")
    stage.ask("bob", "services.register", name="api", port=8080)
    _until(stage, "the service", lambda: _services(stage, "carol") == ["bob"])
    stage.say("carol", "finds the service api at bob")
    stage.findings.append(f"an event and a setting were everywhere in {done - began:.2f} s")


def _remember(stage: Stage) -> None:
    """A cache that the three hold together, each entry on two of them."""
    began = clock.now()
    held = stage.ask("alice", "request", node="alice", name="remember", timeout=PATIENCE)
    stage.say("alice", f"wrote {ENTRIES:,} entries; now " + ", ".join(f"{name} holds {n}" for name, n in held.items()))
    if sum(held.values()) != 2 * ENTRIES:
        raise Missed(f"cache: {held} are not two copies of {ENTRIES} entries")
    _recall(stage)
    stage.findings.append(f"{ENTRIES:,} cache entries were written and read in {clock.now() - began:.2f} s")


def _recall(stage: Stage) -> None:
    found = stage.ask("carol", "request", node="carol", name="recall", timeout=PATIENCE)
    stage.say("carol", f"reads {found:,} of them")
    if found != ENTRIES:
        raise Missed(f"cache: carol found {found} of {ENTRIES} entries")


def _notice_a_crash(stage: Stage) -> None:
    """One process is killed; the others find out by themselves, and calls to it end."""
    stage.ask("alice", "request", node="alice", name="wait for", value="bob")
    began = stage.kill("bob")
    expected = {("alice", "failed", "bob"), ("carol", "failed", "bob"), ("alice", "ended", None)}
    done = stage.wait("crash", expected, "node")
    _until(stage, "the service to go", lambda: _services(stage, "carol") == [])
    stage.say("carol", "finds no service api any more")
    _recall(stage)
    stage.findings.append(f"a crash was noticed by all in {done - began:.1f} s, and no cache entry was lost by it")


def _notice_a_leave(stage: Stage) -> None:
    """A node that says goodbye is not taken for a failed one."""
    stage.expect_end("carol")
    stage.ask("carol", "shutdown")
    stage.wait("leave", {("alice", "left", "carol")}, "node")
    names = [member["name"] for member in stage.ask("alice", "members")]
    if names != ["alice"]:
        raise Missed(f"members: alice still sees {names}")
    stage.findings.append("a goodbye was told from a crash")


def _services(stage: Stage, name: str) -> list[str]:
    return [service["node"] for service in stage.ask(name, "services.list", name="api")]


def _until(stage: Stage, what: str, holds: Callable[[], bool]) -> None:
    deadline = Deadline(PATIENCE)
    while not holds():
        if deadline.passed:
            raise Missed(f"{what}: not within {PATIENCE:.0f} s")
        pause(0.02)


CHAPTERS: tuple[Callable[[Stage], None], ...] = (
    _form_cluster, _talk, _compare, _share, _remember, _notice_a_crash, _notice_a_leave,
)  # fmt: skip


def direct(say: Callable[[str], None] = print) -> int:
    """Play all chapters; return the exit code."""
    stage = Stage(say)
    try:
        for chapter in CHAPTERS:
            say(f"\n{chapter.__doc__}")
            chapter(stage)
    except (Missed, MycorrizalError) as error:
        say(f"\nFAILED: {visible(str(error))}")
        return 1
    finally:
        stage.close()
    say(f"\nOK: {', '.join(map(visible, stage.findings))}.")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--node"]:
        play(*sys.argv[2:4])
    else:
        try:
            sys.exit(direct())
        except KeyboardInterrupt:
            sys.exit(130)
