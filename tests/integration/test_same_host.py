"""Real agents in two processes of one host: which carrier they take, and what becomes of it when one dies."""

# ruff: noqa: F811 - tests that take them

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from mycorrizal import Agent, DataConfig, OperationTimeout, PeerUnreachable

from .agents import QUICK, QUICK_IN_SCRIPTS, Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until
from .planes import spawn

SAME = DataConfig(same_host=True)
SECONDS = 30.0

BOB = f"""
    {QUICK_IN_SCRIPTS}
    bob = Agent("bob", config=config, data_config=DataConfig(same_host=WANTED))
    ran = []

    @bob.on_request("echo")
    def echo(request):
        return request.value

    @bob.on_request("note")
    def note(request):
        ran.append(request.value)
        return len(ran)

    say(os.getpid())
    for line in sys.stdin:
        say(eval(line))
"""


def carrier(agent: Agent, node: str) -> tuple[str, str]:
    """Return how `agent` is connected with `node`, and why."""
    (peer,) = [peer for peer in agent.peers() if peer.name == node]
    return peer.carrier, peer.why


def watches(agent: Agent, node: str) -> bool:
    """Whether `agent` has a connection by which it would see the end of `node`."""
    return any((peer.name, peer.carrier) == (node, "host") for peer in agent.peers())


def knows(agent: Agent, name: str, boot: bytes) -> bool:
    """Whether the membership of `agent` knows this process by that name."""
    return agent._running.data._started.process(name) == boot


def left_in(folder: str) -> list[str]:
    return sorted(name.rpartition(".")[2] for name in os.listdir(folder))


def test_two_processes_of_one_host_use_a_socket(agents: Make, runtime_dir: str) -> None:
    alice = agents("alice", config=QUICK, data_config=SAME)
    with spawn(BOB.replace("WANTED", "True")) as bob:
        bob.read(SECONDS)
        until(lambda: len(alice.members()) == 2, SECONDS)
        data = os.urandom(3 << 20)
        assert alice.request("bob", "echo", data, timeout=SECONDS) == data
        assert carrier(alice, "bob") == ("host", "the same host")
        assert bob.ask("[(peer.carrier, peer.why) for peer in bob.peers()]", SECONDS) == "[('host', 'the same host')]"
        found = alice.metrics()
        assert not found.get("quic.accepted") and found.get("host.accepted", 0) + found.get("host.dialled", 0) == 1
        cache = alice.cache("numbers")
        cache.set("a", 1)
        assert cache.get("a") == 1
        os.kill(bob.process.pid, signal.SIGKILL)
        bob.process.wait()
        with pytest.raises(PeerUnreachable):
            alice.request("bob", "echo", 1, timeout=SECONDS)
    alice.close()
    assert left_in(runtime_dir) in (["key"], ["agent", "control", "data", "events", "key", "lock"])


@pytest.mark.parametrize("same", [False, True])
def test_one_that_does_not_want_to_is_reached_by_quic(agents: Make, same: bool) -> None:
    alice = agents("alice", config=QUICK, data_config=DataConfig(same_host=not same))
    with spawn(BOB.replace("WANTED", str(same))) as bob:
        bob.read(SECONDS)
        until(lambda: len(alice.members()) == 2, SECONDS)
        assert alice.request("bob", "echo", 1, timeout=SECONDS) == 1
        why = "same_host=False" if same else "it does not take connections of this host"
        way = carrier(alice, "bob")
        assert way in (("quic", why), ("quic", "the peer dialled it"))


def test_another_network_of_this_host_is_reached_by_quic(need_network_namespace: str) -> None:
    """The path of the socket is the same in both: the record says that the network is another one."""
    script = "from mycorrizal._runtime.local.place import here; print(here())"
    name = f"mycorrizal-place-{os.getpid()}"
    ip = need_network_namespace
    subprocess.run([ip, "netns", "add", name], check=True)
    try:
        here = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        there = subprocess.run(
            [ip, "netns", "exec", name, sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout
    finally:
        subprocess.run([ip, "netns", "delete", name], check=True)
    assert here.count("/") == 3 and here != there and here.split("/")[0] == there.split("/")[0]


_RELAY = """
    import socket, threading
    path = hear()
    os.rename(path, path + ".real")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    say(os.getpid())
    def copy(one, other):
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
                say(len(data))
        except OSError:
            pass
        other.close()
    near, _ = listener.accept()
    far = socket.socket(socket.AF_UNIX)
    far.connect(path + ".real")
    threading.Thread(target=copy, args=(far, near), daemon=True).start()
    copy(near, far)
    hear()
"""


def test_a_relay_by_a_process_of_this_user_carries_nothing(agents: Make, runtime_dir: str) -> None:
    """It even forges bob's record, so that its number stands there."""
    with spawn(BOB.replace("WANTED", "True")) as bob, spawn(_RELAY) as relay:
        bob.read(SECONDS)
        (path,) = Path(runtime_dir).glob("*.data")
        relay.tell(path)
        number = relay.read(SECONDS)
        (record,) = Path(runtime_dir).glob("*.agent")
        text = record.read_text().replace(f'"pid": {bob.process.pid},', f'"pid": {number},')
        assert f'"pid": {number},' in text
        record.write_text(text)
        alice = agents("alice", config=QUICK, data_config=SAME)
        until(lambda: len(alice.members()) == 2, SECONDS)
        assert alice.request("bob", "echo", "secret", timeout=SECONDS) == "secret"
        way, why = carrier(alice, "bob")
        assert way == "quic"
        assert int(relay.read(SECONDS)) > 0, "the relay was not in between"
        if why != "the peer dialled it":
            assert "proof" in why


def test_a_process_that_was_killed_and_comes_again_is_met_by_socket_again(agents: Make) -> None:
    alice = agents("alice", config=QUICK, data_config=SAME)
    for life in range(3):
        with spawn(BOB.replace("WANTED", "True")) as bob:
            bob.read(SECONDS)
            boot = bytes.fromhex(bob.ask("bob.boot.hex()", SECONDS))
            until(partial(knows, alice, "bob", boot), SECONDS)
            assert alice.request("bob", "note", life, timeout=SECONDS) == 1
            assert carrier(alice, "bob") == ("host", "the same host")
            assert bob.ask("ran", SECONDS) == f"[{life}]"
            bob.kill()


_ENDS = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "while a forked child lives on": "os.fork() and os.kill(os.getpid(), signal.SIGKILL) or time.sleep(60)",
    "exec": "os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(60)'])",
}


@pytest.mark.parametrize("end", _ENDS)
def test_all_hear_at_once_of_a_process_that_has_ended(agents: Make, end: str) -> None:
    """Nothing was said between them: each has a connection to the next ones of its host."""
    config = QUICK.replace(probe_interval=60.0)
    alice, carol = (agents(name, config=config, data_config=SAME) for name in ("alice", "carol"))
    with spawn(BOB.replace("WANTED", "True")) as bob:
        bob.read(SECONDS)
        for agent in (alice, carol):
            until(lambda agent=agent: len(agent.members()) == 3, SECONDS)
        until(lambda: any(watches(agent, "bob") for agent in (alice, carol)), SECONDS)
        bob.tell(_ENDS[end])
        for agent in (alice, carol):
            until(lambda agent=agent: "bob" not in agent.members().names, SECONDS)
        assert sum(agent.metrics().get("processes_ended", 0) for agent in (alice, carol)) > 0
        assert not any(agent.metrics().get("suspicions_expired", 0) for agent in (alice, carol))
        bob.kill()


def test_who_is_frozen_or_closes_is_not_said_to_have_ended(agents: Make) -> None:
    alice = agents("alice", config=QUICK, data_config=SAME)
    with spawn(BOB.replace("WANTED", "True")) as bob:
        bob.read(SECONDS)
        until(lambda: len(alice.members()) == 2, SECONDS)
        assert alice.request("bob", "echo", 1, timeout=SECONDS) == 1
        bob.process.send_signal(signal.SIGSTOP)
        with pytest.raises(OperationTimeout):
            alice.request("bob", "echo", 1, timeout=1.0)
        bob.process.send_signal(signal.SIGCONT)
        until(lambda: alice.request("bob", "echo", 1, timeout=SECONDS) == 1, SECONDS)
        bob.tell("bob.close()")
        until(lambda: len(alice.members()) == 1, SECONDS)
        assert not alice.metrics().get("processes_ended")


_INTERRUPTED = f"""
    {QUICK_IN_SCRIPTS}
    alice = Agent("alice", config=config, data_config=DataConfig(same_host=True))
    alice.wait_for(2)
    alice.request("bob", "echo", 0)
    armed = []

    def interrupt(number, frame):
        if armed:  # once in each call, and not while the last one is dealt with
            armed.clear()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    say("ready")
    asked = answered = interrupted = 0
    while answered < 1000 or interrupted < 20:
        asked += 1
        try:
            armed.append(True)
            assert alice.request("bob", "echo", [asked, bytes(asked % 3000)])[0] == asked
            armed.clear()
            answered += 1
        except KeyboardInterrupt:
            interrupted += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    say("over")
    found = alice.metrics()
    (bob,) = alice.peers()
    say(found["host.dialled"], found.get("offences", 0), bob.carrier, bob.calls, alice.request("bob", "echo", "whole"))
    alice.close()
    say("closed")
"""


def test_ctrl_c_in_the_middle_of_a_send_leaves_the_connection_whole(agents: Make) -> None:
    bob = agents("bob", config=QUICK, data_config=SAME)
    bob.on_request("echo")(lambda request: request.value)
    with spawn(_INTERRUPTED) as alice:
        assert alice.read(SECONDS) == "ready"
        assert alice.process.stdout is not None
        while not select.select([alice.process.stdout], [], [], 0.005)[0]:
            alice.interrupt()
        assert alice.read(SECONDS) == "over"
        assert alice.read(SECONDS) == "1 0 host 0 whole"
        assert alice.read(SECONDS) == "closed"
    assert bob.metrics().get("offences", 0) == 0
