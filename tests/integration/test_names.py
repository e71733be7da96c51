"""Real agents, and a name that two processes claim: the one that membership knows has it, on the data plane too."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mycorrizal import Agent, DataConfig, OperationTimeout, PeerUnreachable
from mycorrizal.dataplane import DataPlane

from .agents import QUICK, QUICK_IN_SCRIPTS, Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until
from .planes import KEY, Task, spawn

pytestmark = pytest.mark.usefixtures("runtime_dir")

FORGETFUL = DataConfig(idle_timeout=0.3, same_host=False)  # so that no connection stands for long
WIRES = pytest.mark.parametrize("wire", ["cbor", "msgpack"])


@contextlib.contextmanager
def impostor(name: str, **peers: Any) -> Iterator[DataPlane]:
    """Yield a holder of the key, but no member, that takes a name of another's and answers whatever it is asked."""
    with DataPlane(name, key=KEY, peers=peers, config=FORGETFUL) as plane:
        heard: list[Any] = []
        for handler in ("who", "mycorrizal.cache", "mycorrizal.cache.notice", "mycorrizal.share", "mycorrizal.history"):
            plane._started.handlers[handler] = heard.append
        yield plane
        assert heard == []
        with pytest.raises(OperationTimeout):
            plane.receive(0.1)


def unconnected(agent: Agent) -> bool:
    return agent.metrics()["connections"] == 0


@WIRES
def test_who_claims_a_members_name_gets_nothing_of_what_is_its(agents: Make, wire: str) -> None:  # noqa: F811
    """Neither by dialling, nor by answering where it is dialled; messages, requests, the cache, or what is shared."""
    options = {"wire": wire, "key": KEY, "bind": "127.0.0.1", "data_config": FORGETFUL}
    alice, bob = agents("alice", **options), agents("bob", **options)
    bob.on_request("who")(lambda request: "bob")
    alice.wait_for(2), bob.wait_for(2)
    ours, theirs = alice.cache("c"), bob.cache("c")
    with impostor("bob", alice=("127.0.0.1", alice.quic_port)) as other:
        until(lambda: unconnected(alice))
        claim = Task(other.send, "alice", "lie", timeout=30)
        until(lambda: alice.metrics().get("quic.other_process", 0) > 0)
        assert any("claims the name bob" in problem for problem in alice.health().problems)
        for number in range(20):
            alice.send("bob", number)
            assert alice.request("bob", "who") == "bob"
            ours.set(str(number), "ours")
        alice.settings["k"] = "ours"
        assert [bob.receive(5).value for _ in range(20)] == list(range(20))
        assert all(theirs.get(str(number)) == "ours" for number in range(20))
        until(lambda: bob.settings.get("k") == "ours")
        with pytest.raises((PeerUnreachable, OperationTimeout)):
            other.request("alice", "mycorrizal.share", b"\x01", timeout=2)
        # Now it sits where bob is looked for.
        until(lambda: unconnected(alice), 20)
        plane = alice._running.data
        plane.add_peer("bob", other.address)
        calls: list[Any] = [plane.request, plane.send, plane.open_stream]
        for call in calls:
            with pytest.raises(OperationTimeout, match="membership of alice knows another process as bob") as caught:
                call("bob", "who", timeout=1.5)
            assert caught.value.retriable and not caught.value.indeterminate
        waiting = Task(alice.send, "bob", "in the end", timeout=20)
        plane.add_peer("bob", ("127.0.0.1", bob.quic_port))
        waiting.result()
        assert bob.receive(5).value == "in the end"
    assert claim.error(30) is not None
    with pytest.raises(OperationTimeout):
        alice.receive(0.1)


BOB = f"""
    {QUICK_IN_SCRIPTS}
    wire, port, gossip = hear().split()
    with Agent("bob", key=KEY, bind="127.0.0.1", wire=wire, quic_port=int(port), port=int(gossip),
               config=config if wire == "cbor" else config.replace(wire=wire)) as agent:
        agent.on_request("who")(lambda request: os.getpid())
        agent.send("alice", ["hello", os.getpid()], timeout=15)
        say(agent.quic_port, agent.address[1])
        while True:
            message = agent.receive()
            say(message.sender, message.value)
"""


@WIRES
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same address", "new gossip address"])
def test_a_restarted_process_gets_its_messages(agents: Make, wire: str, elsewhere: bool) -> None:  # noqa: F811
    """It is killed, and comes back under its name and at its data port, before or after membership knows."""
    config = QUICK.replace(wire=wire)
    alice = agents("alice", key=KEY, bind="127.0.0.1", wire=wire, config=config, data_config=FORGETFUL)
    with spawn(BOB) as first, spawn(BOB) as second:
        first.tell(f"{wire} 0 0")
        port, gossip = first.words()
        assert alice.receive(10).value == ["hello", first.process.pid]
        alice.send("bob", "one")
        assert first.read() == "alice one"
        until(lambda: unconnected(alice), 20)
        first.kill()
        second.tell(f"{wire} {port} {0 if elsewhere else gossip}")
        sent = 0
        tasks = []
        while second.process.poll() is None and sent < 60:
            tasks.append(Task(_insist, alice, sent))
            sent += 1
            tasks[-1].join(0.05)
        for task in tasks:
            task.result(40)
        second.words(20)
        heard = sorted(int(second.words()[1]) for _ in range(sent))
        assert heard == list(range(sent))
        assert alice.receive(10).value == ["hello", second.process.pid]
        assert alice.request("bob", "who") == second.process.pid


def _insist(agent: Agent, number: int) -> None:
    """Send until it has arrived; what may have arrived is not sent again."""
    while True:
        try:
            agent.send("bob", number, timeout=15)
            return
        except PeerUnreachable as error:
            assert error.retriable and not error.indeterminate
            time.sleep(0.05)
