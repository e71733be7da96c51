"""The facade: arguments, errors and views of one node on loopback, without waiting for anybody."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

import mycorrizal
from mycorrizal import (
    BaseDelegate,
    BindError,
    Config,
    ConfigError,
    JoinError,
    JoinResult,
    LocalProtocolError,
    Memberlist,
    MetaTooLarge,
    Node,
    NodeState,
    NotRunningError,
    OperationTimeout,
    PeerUnreachable,
)
from tests.keys import key_of


def config(**settings: Any) -> Config:
    return Config.local(**{"name": "alice", "bind_addr": "127.0.0.1", "bind_port": 0, **settings})


@pytest.fixture
def alice() -> Iterator[Memberlist]:
    node = Memberlist(config(delegate_protocol_version=3, delegate_protocol_min=2, delegate_protocol_max=4))
    yield node
    node.shutdown()


def test_a_new_node_is_its_own_only_member(alice: Memberlist) -> None:
    (member,) = alice.members()
    assert member == alice.local_node
    assert alice.num_members() == 1
    assert (member.name, member.host, member.port) == ("alice", "127.0.0.1", alice.config.bind_port)
    assert member.state == NodeState.ALIVE
    assert member.incarnation == 1
    assert member.versions == mycorrizal.Versions(1, 5, 2, 2, 4, 3)
    assert alice.health_score == 0
    assert alice.protocol_version == 2
    assert alice.keyring.keys() == ()
    assert repr(alice) == f"<Memberlist 'alice' on 127.0.0.1 port {alice.config.bind_port}, 1 member>"


def test_metrics_are_there_from_the_start(alice: Memberlist) -> None:
    metrics = alice.metrics()
    assert all(isinstance(value, int) for value in metrics.values())
    assert metrics["members"] == metrics["nodes"] == 1
    for name in (
        "udp.sent", "udp.received", "tcp.sent", "tcp.received", "packets_rejected", "tcp.rejected", "delegate.slow",
        "delegate.faults", "dropped.notify_msg", "events.lost", "stalls", "health.score", "queue.broadcasts",
        "queue.delegates", "queue.commands", "queue.events", "exchanges.threads",
    ):  # fmt: skip
        assert name in metrics
        documented = name if not name.startswith("dropped.") else "dropped.<method>"
        assert documented in (Memberlist.metrics.__doc__ or ""), f"{name} is not documented"


def test_documented_metrics_of_one_word_exist(alice: Memberlist) -> None:
    import re

    named = set(re.findall(r"``([a-z_]+\.[a-z_]+)``", Memberlist.metrics.__doc__ or ""))
    known = set(alice.metrics()) | {"msg.alive", "msg.suspect", "msg.dead", "msg.user"}
    assert named - known == set()


def test_joining_nothing_and_oneself(alice: Memberlist) -> None:
    assert alice.join([]) == JoinResult(0, {})
    assert alice.join([f"127.0.0.1:{alice.config.bind_port}"]) == JoinResult(1, {}, itself=True)
    assert alice.num_members() == 1


def test_join_names_the_wrong_entry(alice: Memberlist) -> None:
    with pytest.raises(JoinError, match=r"(?s)the seed could not be joined:.*':80'.*no host") as caught:
        alice.join([":80"])
    assert isinstance(caught.value.failures[":80"], ConfigError)
    assert isinstance(caught.value, ConnectionError)
    with pytest.raises(JoinError, match="not text"):
        alice.join([7])  # type: ignore[list-item]


def test_alone_nothing_needs_waiting_for() -> None:
    with Memberlist(config()) as alice:
        alice.update_node(timeout=0.5)
        alice.leave(timeout=0.5)
        alice.leave(timeout=0.5)
        assert alice.local_node.state == NodeState.LEFT
        assert alice.members() == ()
        with pytest.raises(LocalProtocolError):
            alice.update_node()


def test_data_is_checked_before_anything_is_sent(alice: Memberlist) -> None:
    me = alice.local_node
    with pytest.raises(ConfigError, match="data: is empty"):
        alice.send_reliable(me, b"")
    with pytest.raises(ConfigError, match=r"19922945 bytes.*19 MiB"):
        alice.send_reliable(me, bytes((19 << 20) + 1))
    with pytest.raises(ConfigError, match="send_reliable"):
        alice.send_best_effort(me, bytes(65507))
    for send in (alice.send_reliable, alice.send_best_effort):
        with pytest.raises(TypeError, match="must be bytes"):
            send(me, "text")  # type: ignore[arg-type]
        with pytest.raises(PeerUnreachable, match="no member is named 'bob'"):
            send("bob", b"x")
        with pytest.raises(TypeError, match="Node or a name"):
            send(7, b"x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not an IP literal"):
        alice.send_to_address("example.org:1", b"x")


def test_largest_datagram_is_accepted() -> None:
    key = {"secret_key": key_of("k")}
    for settings in ({}, {"label": "x" * 255, **key}, {"protocol_version": 1, **key}):
        with Memberlist(config(**settings)) as alice:
            room = alice._running.datagram_room(alice._running.user(bytes(60_000), "alice"))
            alice.send_best_effort("alice", bytes(range(256)) * (room // 256))
            alice._running.mailbox.post(lambda now: None).result(5)
            assert alice.ping("alice") > 0
            assert alice.metrics()["udp.write_errors"] == 0


def test_names_are_required_where_configured() -> None:
    with Memberlist(config(require_node_names=True)) as alice:
        with pytest.raises(JoinError, match="names no node"):
            alice.join(["127.0.0.1:1"])
        with pytest.raises(ConfigError, match="name: is missing"):
            alice.send_to_address(("127.0.0.1", 9), b"x")
        alice.send_to_address(("127.0.0.1", 9), b"x", name="bob")
        alice.send_to_address("bob/127.0.0.1:9", b"x")


def test_only_a_config_configures() -> None:
    with pytest.raises(TypeError, match="Config"):
        Memberlist({"name": "x"})  # type: ignore[arg-type]


def test_construction_that_fails_leaves_nothing_open() -> None:
    class Big(BaseDelegate):
        def node_meta(self, limit: int) -> bytes:
            return bytes(limit + 1)

    class Nobody:
        def notify_alive(self, node: Node) -> None:
            raise ValueError("no")

    class Refuses(BaseDelegate):
        def starting(self, config: Config) -> None:
            raise ConfigError("wire", "not this one")

    with Memberlist(config()) as free:
        port = free.config.bind_port
    with pytest.raises(MetaTooLarge, match="513 bytes"):
        Memberlist(config(bind_port=port), delegate=Big())
    with pytest.raises(ConfigError, match="alive"):
        Memberlist(config(bind_port=port), alive=Nobody())
    with pytest.raises(ConfigError, match="cidrs_allowed"):
        Memberlist(config(bind_port=port, cidrs_allowed=("10.0.0.0/8",)))
    with pytest.raises(ConfigError, match="not this one"):
        Memberlist(config(bind_port=port), delegate=Refuses())
    with Memberlist(config(bind_port=port)), pytest.raises(BindError, match=str(port)):
        Memberlist(config(bind_port=port))


def test_hooks_beyond_the_protocol_are_called() -> None:
    calls: list[str] = []

    class Hooked(BaseDelegate):
        def starting(self, config: Config) -> None:
            calls.append(config.name)

        def leaving(self) -> None:
            calls.append("leaving")

    with Memberlist(config(), delegate=Hooked()) as alice:
        alice.leave()
        alice.leave()
    assert calls == ["alice", "leaving"]


def test_after_shutdown(alice: Memberlist) -> None:
    stream = alice.events()
    alice.shutdown()
    alice.shutdown(timeout=0)
    assert alice.num_members() == 1
    assert alice.metrics()["members"] == 1
    assert list(stream) == list(alice.events()) == []
    assert "stopped" in repr(alice)
    for call in (alice.leave, alice.update_node, lambda: alice.join([]), lambda: alice.ping("alice")):
        with pytest.raises(NotRunningError, match="alice: this Memberlist was shut down"):
            call()
    with pytest.raises(NotRunningError):
        alice.send_best_effort("alice", b"x")


def test_events_wait_no_longer_than_told(alice: Memberlist) -> None:
    with alice.events() as stream, pytest.raises(OperationTimeout):
        stream.get(timeout=0)


def test_object_that_failed_to_start_has_a_repr_and_dies_quietly() -> None:
    broken = Memberlist.__new__(Memberlist)
    broken._membership = None
    assert "not started" in repr(broken)
    broken.shutdown()
    with pytest.raises(NotRunningError):
        broken.members()


def test_logging_is_silent_by_default() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("mycorrizal").handlers)


def test_keys_never_show(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = b"\x80\x810123456789abcd"
    with Memberlist(config(secret_key=key)) as alice:
        alice.join([f"127.0.0.1:{alice.config.bind_port}"])
        alice.send_reliable("alice", b"payload that is private")
        shown = caplog.text + repr(alice) + repr(alice.config) + repr(alice.keyring)
    assert "0123456789abcd" not in shown
    assert key.hex() not in shown
    assert "payload that is private" not in shown


def test_wrong_timeout_has_no_effect(alice: Memberlist) -> None:
    for call in (alice.leave, alice.update_node):
        with pytest.raises(ValueError, match="timeout"):
            call(timeout=float("nan"))
        with pytest.raises(TypeError, match="timeout"):
            call(timeout="3")  # type: ignore[arg-type]
    assert alice.local_node.state == NodeState.ALIVE
    assert alice.num_members() == 1


def test_who_has_left_is_told_to_start_anew(alice: Memberlist) -> None:
    alice.leave()
    with pytest.raises(LocalProtocolError, match=r"has left.*create a new one"):
        alice.join(["127.0.0.1:1"])
    alice.shutdown()
    with pytest.raises(NotRunningError, match="shut down"):
        alice.send_best_effort("alice", b"x")


def test_a_node_is_not_copied(alice: Memberlist) -> None:
    import copy
    import pickle

    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            make(alice)
    assert pickle.loads(pickle.dumps(alice.members())) == alice.members()


def test_user_messages_are_numbered_among_ourselves_and_as_gos_otherwise() -> None:
    for settings, numbered in (({}, True), ({"wire": "msgpack"}, False), ({"number_messages": False}, False)):
        with Memberlist(config(**settings)) as alice:
            one, two = (alice._running.user(b"data", "bob") for _ in range(2))
            assert (one.number, two.number) == ((1, 2) if numbered else (0, 0))
            assert bool(one.boot) is numbered
            assert one.data == b"data"


def test_numbers_of_pings_begin_anywhere() -> None:
    firsts = []
    for _ in range(3):
        with Memberlist(config()) as alice:
            firsts.append(alice._running.machine._core._sequence)
    assert len(set(firsts)) == 3
    assert max(firsts) > 1_000_000


def test_packets_and_streams_are_counted_for_the_key_that_encrypts_them() -> None:
    with Memberlist(config()) as plain:
        plain.ping("alice")
        assert plain.metrics()["key.sealed"] == 0
    with Memberlist(config(secret_key=key_of("a"))) as alice:
        alice.ping("alice")
        packets = alice.metrics()["key.sealed"]
        assert packets >= 2  # the ping and the ack
        alice.send_reliable("alice", b"stream")
        assert alice.metrics()["key.sealed"] == packets + 1
