"""Sealed packets and streams of our own two nodes, recorded on loopback and sent again, as they are."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mycorrizal import Agent, Memberlist, UserEvent
from mycorrizal._replica.machine import Replica
from mycorrizal._runtime.threads.nonces import Nonces

from .agents import QUICK, Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import Recorder, fast, until

KEY = bytes(range(32))
DAY = 86_400.0


class Tap:
    """Stands before a node's port, UDP and TCP; passes all on, and keeps what it has seen come in."""

    def __init__(self) -> None:
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.port = self.udp.getsockname()[1]
        self.tcp = socket.create_server(("127.0.0.1", self.port))
        self.behind = 0  # the node's own port, once it is known
        self.recording = True
        self.packets: list[bytes] = []
        self.streams: list[bytearray] = []
        for run in (self._relay_packets, self._relay_streams):
            threading.Thread(target=run, daemon=True).start()

    def replay(self, times: int = 3) -> int:
        """Send all that was recorded to the node again, straight; return how many packets and streams there were."""
        packets, streams = list(self.packets), [bytes(one) for one in self.streams if one]
        for _ in range(times):
            for packet in packets:
                self.udp.sendto(packet, ("127.0.0.1", self.behind))
            for stream in streams:
                with socket.create_connection(("127.0.0.1", self.behind), timeout=5) as sock:
                    sock.sendall(stream)
                    sock.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(OSError):
                        while sock.recv(65536):
                            pass
        return times * (len(packets) + len(streams))

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()

    def _relay_packets(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                packet = self.udp.recv(65536)
                if self.recording:
                    self.packets.append(packet)
                self.udp.sendto(packet, ("127.0.0.1", self.behind))

    def _relay_streams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._relay, args=(self.tcp.accept()[0],), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        seen = bytearray()
        if self.recording:
            self.streams.append(seen)
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.behind)) as node:
            threading.Thread(target=_pipe, args=(node, client, bytearray()), daemon=True).start()
            _pipe(client, node, seen)
            node.settimeout(5)
            while node.recv(65536, socket.MSG_PEEK):
                pass  # until the other direction has ended


def _pipe(source: socket.socket, target: socket.socket, seen: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            seen += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def seed(agent: Agent) -> str:
    host, port = agent.address
    return f"{host}:{port}"


def value(event: object) -> object:
    assert isinstance(event, UserEvent)
    return event.value


@pytest.fixture
def tap() -> Iterator[Tap]:
    with contextlib.closing(Tap()) as one:
        yield one


@pytest.mark.parametrize("numbered", [True, False])
def test_a_recorded_user_message_is_delivered_once(tap: Tap, numbered: bool) -> None:
    inbox = Recorder()
    options: dict[str, Any] = {"secret_key": KEY, "number_messages": numbered}
    with (
        Memberlist(fast("alice", **options)) as alice,
        Memberlist(fast("bob", advertise_addr="127.0.0.1", advertise_port=tap.port, **options), delegate=inbox) as bob,
    ):
        tap.behind = bob.config.bind_port
        bob.join([f"127.0.0.1:{alice.local_node.port}"])
        until(lambda: alice.num_members() == 2)
        alice.send_best_effort("bob", b"packet")
        alice.send_reliable("bob", b"stream")
        until(lambda: sorted(inbox.messages) == [b"packet", b"stream"])
        before = bob.metrics()["msg.user"]
        assert before == 2
        tap.replay()
        until(lambda: bob.metrics()["msg.user"] >= before + 6)
        bob.ping("alice")  # a turn later all of it has been handed on
        if numbered:
            assert sorted(inbox.messages) == [b"packet", b"stream"]
            assert bob.metrics()["user.replayed"] >= 6
        else:  # memberlist's rule, and that the recorder records
            until(lambda: len(inbox.messages) == 8)
        assert alice.num_members() == bob.num_members() == 2


def test_what_agents_share_is_not_brought_back_by_a_recording(agents: Make, tap: Tap) -> None:  # noqa: F811
    bob = agents("bob", config=QUICK, advertise=f"127.0.0.1:{tap.port}", key=KEY)
    tap.behind = bob._parts.members.config.bind_port  # type: ignore[union-attr]
    alice = agents("alice", config=QUICK, join=[f"127.0.0.1:{tap.port}"], key=KEY)
    bob.wait_for(2, timeout=10)
    events = bob.subscribe("news")
    alice.settings["key"] = "old"
    for number in range(3):
        alice.broadcast("news", number)
    assert [value(events.get(timeout=5)) for _ in range(3)] == [0, 1, 2]
    until(lambda: bob.settings.get("key") == "old")
    until(lambda: len(alice._parts.sharing.replica._spread) == 0)  # type: ignore[union-attr]
    tap.recording = False
    del alice.settings["key"]
    until(lambda: "key" not in bob.settings)
    assert alice.metrics()["key.sealed"] > 0

    tap.replay()  # within the day the tombstone holds
    assert list(bob.settings) == []

    def a_day_later(replica: Replica, now: float) -> None:
        replica._table.drop("key")
        replica.set_wall(replica._clock.offset + DAY + 60.0)

    for agent in (alice, bob):
        sharing = agent._parts.sharing  # type: ignore[union-attr]
        sharing.post(lambda now, replica=sharing.replica: a_day_later(replica, now)).result(5)
    replayed = tap.replay()
    until(lambda: bob.metrics().get("share.settings.old", 0) >= 1)
    assert replayed > 0
    assert list(bob.settings) == []
    with pytest.raises(TimeoutError):
        events.get(timeout=0.5)
    alice.broadcast("news", 3)
    assert value(events.get(timeout=5)) == 3


def test_health_says_when_a_key_has_served_long_enough(agents: Make, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    alice, bob = agents("alice", config=QUICK, key=KEY), agents("bob", config=QUICK, key=KEY)
    bob.wait_for(2, timeout=10)
    alice.wait_for(2, timeout=10)
    assert 0 < alice.metrics()["key.sealed"] < 10_000
    assert not [problem for problem in alice.health().problems if "rotate" in problem]
    monkeypatch.setattr(Nonces, "drawn", property(lambda self: 1 << 30))  # a quarter here, as much at bob's
    assert [problem for problem in alice.health().problems if "rotate it with agent.keys" in problem]


def test_old_settings_reach_an_agent_that_was_dialled_when_it_dials_back(agents: Make) -> None:  # noqa: F811
    """Who comes back with settings from more than a day ago (a file, a long partition) is still believed."""
    alice = agents("alice", config=QUICK, key=KEY, discover=False)
    bob = agents("bob", config=QUICK, key=KEY, discover=False)
    alice.settings["key"] = "old"
    bob.settings["other"] = "old"
    for agent in (alice, bob):
        sharing = agent._parts.sharing  # type: ignore[union-attr]
        sharing.post(lambda now, one=sharing.replica: one.set_wall(one._clock.offset + DAY)).result(5)
    alice.join([seed(bob)])
    assert alice.settings["other"] == "old"  # there when a join returns
    assert bob.metrics()["share.settings.old"] >= 1
    until(lambda: dict(bob.settings) == dict(alice.settings) == {"key": "old", "other": "old"})
    carol = agents("carol", config=QUICK, key=KEY, join=[seed(alice)])
    assert dict(carol.settings) == dict(alice.settings)
