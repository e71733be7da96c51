"""Nodes in one process over real sockets: joining, messages, metadata, leaving."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mycorrizal import (
    BasePingDelegate,
    JoinError,
    JoinResult,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    MergeRefused,
    MetaTooLarge,
    NameConflict,
    Node,
    NodeState,
    NoPingResponse,
    OperationTimeout,
    PeerUnreachable,
    RemoteProtocolError,
    UdpBlocked,
)
from tests.keys import key_of

from .conftest import Recorder, Start, address_of, names, until

KEY = bytes(range(32))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"wire": "msgpack"},
        {"secret_key": KEY, "label": "blue"},
        {"bind_addr": "::1"},
        {"enable_compression": False, "protocol_version": 5},
    ],
    ids=["plain", "msgpack", "key and label", "IPv6", "uncompressed"],
)
def test_two_nodes_join_talk_and_leave(start: Start, settings: dict[str, Any]) -> None:
    heard = {name: Recorder() for name in "ab"}
    a = start("a", delegate=heard["a"], **settings)
    b = start("b", delegate=heard["b"], **settings)
    host, port = a.local_node.address
    assert b.join([f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]) == JoinResult(1, {})
    assert names(a) == names(b) == {"a", "b"}
    assert b.num_members() == 2
    a.send_best_effort("b", b"packet")
    b.send_reliable(a.local_node, b"stream" * 50000)
    until(lambda: heard["b"].messages == [b"packet"] and heard["a"].messages == [b"stream" * 50000])
    assert 0 < a.ping("b") < 1
    b.leave()
    until(lambda: names(a) == {"a"})
    assert [(node.name, node.state) for node in a.members(all=True)] == [("a", NodeState.ALIVE), ("b", NodeState.LEFT)]
    assert b.local_node.state == NodeState.LEFT


def test_protocol_one_has_one_port_for_all(start: Start) -> None:
    heard = Recorder()
    settings: dict[str, Any] = {"protocol_version": 1, "secret_key": KEY, "wire": "msgpack"}
    a = start("a", **settings)
    b = start("b", bind_addr="127.0.0.2", bind_port=a.config.bind_port, delegate=heard, **settings)
    b.join(["127.0.0.1"])
    a.send_best_effort("b", b"padded")
    until(lambda: heard.messages == [b"padded"])
    assert b.ping("a") > 0


def test_three_nodes_see_each_other_soon(start: Start) -> None:
    a = start("a")
    b = start("b", seed=a)
    c = start("c", seed=a)
    until(lambda: all(names(node) == {"a", "b", "c"} for node in (a, b, c)), 5)


def test_several_seeds_count_and_failures_are_named(start: Start) -> None:
    a, b, c = start("a"), start("b"), start("c")
    nowhere = "127.0.0.1:1"
    result = c.join([address_of(a), nowhere, "/bad", address_of(b)])
    assert result.reached == 2
    assert set(result.failures) == {nowhere, "/bad"}
    assert isinstance(result.failures[nowhere], PeerUnreachable)
    assert c.join([]) == JoinResult(0, {})
    assert c.join(address_of(a)).reached == 1


def test_meta_state_and_updates_travel(start: Start) -> None:
    seen = {name: Recorder(meta=name.encode(), state=b"state of " + name.encode()) for name in "ab"}
    a = start("a", delegate=seen["a"], events=seen["a"])
    stream = a.events()
    b = start("b", delegate=seen["b"], events=seen["b"], seed=a)
    assert {member.name: member.meta for member in a.members()} == {"a": b"a", "b": b"b"}
    until(lambda: seen["a"].states == [b"state of b"] and seen["b"].states == [b"state of a"])
    seen["b"].meta = b"new"
    b.update_node()
    until(lambda: ("update", "b") in seen["a"].events)
    versions, port = b.local_node.versions, b.config.bind_port
    assert stream.get(5) == MemberJoined(Node("b", b"\x7f\0\0\1", port, b"b", versions=versions, incarnation=1))
    event = stream.get(5)
    assert isinstance(event, MemberUpdated)
    assert event.node.meta == b"new"
    b.leave()
    assert isinstance(stream.get(5), MemberLeft)
    until(lambda: ("leave", "b") in seen["a"].events)
    assert seen["a"].events == [("join", "a"), ("join", "b"), ("update", "b"), ("leave", "b")]


class Slow(Recorder):
    """Looks at each member for as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.inside: Callable[[], object] = lambda: None

    def notify_join(self, node: Node) -> None:
        assert self.gate.wait(10)
        super().notify_join(node)
        self.inside()


def test_delegates_know_when_join_returns_or_it_says_that_they_do_not(start: Start) -> None:
    seed = start("seed", delegate=Recorder(state=b"state"))
    start("other").join([address_of(seed)])
    until(lambda: names(seed) == {"seed", "other"})
    for number in range(5):
        here = Recorder()
        node = start(f"n{number}", delegate=here, events=here)
        assert not node.join([address_of(seed)]).delegates_pending
        assert here.states == [b"state"]
        assert set(here.events) >= {("join", "seed"), ("join", "other")}
    slow = Slow()
    late = start("late", events=slow)
    asked: list[JoinResult] = []
    slow.inside = lambda: asked.append(late.join([address_of(seed)], timeout=5))
    result = late.join([address_of(seed)], timeout=1)
    assert (result.reached, result.delegates_pending) == (1, True)
    slow.gate.set()
    until(lambda: bool(asked))
    assert asked[0].reached == 1, "on the delegate thread it does not wait for itself"
    slow.inside = lambda: None
    assert not late.join([address_of(seed)]).delegates_pending


def test_too_much_meta_is_refused_and_the_node_goes_on(start: Start) -> None:
    with pytest.raises(MetaTooLarge, match="600 bytes"):
        start("x", delegate=Recorder(meta=bytes(600)))
    recorder = Recorder(meta=b"good")
    a = start("a", delegate=recorder)
    b = start("b", seed=a)
    recorder.meta = bytes(600)
    with pytest.raises(MetaTooLarge):
        a.update_node()
    assert a.local_node.meta == b"good"
    assert a.ping("b") > 0
    assert b.num_members() == 2


def test_wrong_settings_name_the_cause(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    seed = start("seed", secret_key=KEY, label="blue")
    for settings, words in (
        ({"secret_key": key_of("other"), "label": "blue"}, ["key"]),
        ({"label": "blue"}, ["encrypt"]),
        ({"secret_key": KEY, "label": "green"}, ["without a word", "label"]),
        ({"secret_key": KEY}, ["without a word", "label"]),
        ({"secret_key": KEY, "label": "blue", "wire": "msgpack"}, ["wire"]),
    ):
        stranger = start("stranger", **settings)
        with pytest.raises(JoinError) as caught:
            stranger.join([address_of(seed)])
        text = str(caught.value)
        assert address_of(seed) in text
        assert all(word in text for word in words), text
        assert stranger.num_members() == seed.num_members() == 1
        stranger.shutdown()
    assert "stream from 127.0.0.1" in caplog.text


def test_wire_mismatch_in_clear_names_the_setting(start: Start) -> None:
    seed = start("seed", wire="msgpack")
    with pytest.raises(JoinError, match="wire"):
        start("stranger", wire="cbor", seed=seed)


def test_wire_mismatch_in_a_packet_is_counted_and_said(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    a, b = start("a", wire="msgpack"), start("b", wire="cbor")
    b._running.gossip.operation(lambda now: b._running.machine.ping("a", a.local_node.address, now))
    until(lambda: a.metrics()["packets_rejected"])
    assert "wire" in caplog.text


def test_unreachable_seeds_name_each(start: Start) -> None:
    with pytest.raises(JoinError) as caught:
        start("a").join(["127.0.0.1:1", "127.0.0.1:80000", "no-such-host.invalid"], timeout=20)
    error = caught.value
    assert error.reached == 0
    assert set(error.failures) == {"127.0.0.1:1", "127.0.0.1:80000", "no-such-host.invalid"}
    assert "127.0.0.1:1: cannot connect" in str(error)
    assert "Connection refused" in str(error)


def test_silent_seed_ends_with_the_timeout(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        seed = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(JoinError) as caught:
            start("a", tcp_timeout=0.2).join([seed])
        assert isinstance(caught.value.failures[seed], OperationTimeout)
        with pytest.raises(JoinError) as caught:
            start("b").join([seed], timeout=0.1)
        assert isinstance(caught.value.failures[seed], OperationTimeout)


def test_merge_delegate_refuses_with_its_words(start: Start) -> None:
    class Gate:
        asked = 0

        def notify_merge(self, peers: object) -> None:
            self.asked += 1
            raise ValueError("custom veto")

    ours, theirs = Gate(), Gate()
    seed = start("seed", merge=theirs)
    node = start("node", merge=ours)
    with pytest.raises(JoinError, match="custom veto") as caught:
        node.join([address_of(seed)])
    assert isinstance(next(iter(caught.value.failures.values())), MergeRefused)
    assert ours.asked == theirs.asked == 1
    assert names(seed) == {"seed"}
    assert names(node) == {"node"}


def test_ping_delegate_gets_payload_and_round_trip(start: Start) -> None:
    got: list[tuple[str, float, bytes]] = []

    class Pings(BasePingDelegate):
        def ack_payload(self) -> bytes:
            return b"whatever"

        def notify_ping_complete(self, node: Node, rtt: float, payload: bytes) -> None:
            got.append((node.name, rtt, payload))

    a = start("a", ping=Pings())
    start("b", ping=Pings(), seed=a)
    until(lambda: {name for name, _, _ in got} == {"a", "b"})
    assert all(0 < rtt < 1 and payload == b"whatever" for _, rtt, payload in got)


def test_ping_and_sends_to_nobody(start: Start) -> None:
    a = start("a")
    b = start("b", seed=a)
    with pytest.raises(NoPingResponse):
        a.ping(Node("other", b"\x7f\0\0\1", b.config.bind_port))
    gone = b.local_node
    b.shutdown()
    with pytest.raises(PeerUnreachable, match="cannot connect"):
        a.send_reliable(gone, b"x")
    a.send_best_effort(gone, b"x")  # nobody can know


def test_send_to_address_and_names(start: Start) -> None:
    recorder = Recorder()
    a, b = start("a"), start("b", delegate=recorder)
    a.send_to_address(address_of(b), b"1")
    a.send_to_address(b.local_node.address, b"2", name="b")
    until(lambda: sorted(recorder.messages) == [b"1", b"2"])


def test_broadcasts_of_a_delegate_reach_everybody(start: Start) -> None:
    class Broadcaster(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.queue: list[bytes] = []

        def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
            taken, self.queue = self.queue[:10], self.queue[10:]
            return taken

    sender, receiver = Broadcaster(), Recorder()
    a = start("a", delegate=sender)
    start("b", delegate=receiver, seed=a)
    sender.queue = [b"%d" % index for index in range(256)]
    until(lambda: len(receiver.messages) == 256)
    assert set(receiver.messages) == {b"%d" % index for index in range(256)}


def test_many_join_one_seed_at_once(start: Start) -> None:
    seed = start("seed")
    nodes = [start(f"n{index}") for index in range(12)]
    threads = [threading.Thread(target=node.join, args=([address_of(seed)],)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: all(node.num_members() == 13 for node in [seed, *nodes]), 15)


def test_encryption_is_rolled_out_and_the_key_rotated_in_place(start: Start) -> None:
    new = bytes(reversed(KEY))
    a = start("a", secret_key=KEY, push_pull_interval=0.3)
    b = start("b", secret_key=KEY, push_pull_interval=0.3, seed=a)
    for node in (a, b):
        node.keyring.add(new)
    a.keyring.use(new)
    assert a.ping("b") > 0
    b.keyring.use(new)
    for node in (a, b):
        node.keyring.remove(KEY)
        assert node.keyring.keys() == (new,)
    assert b.ping("a") > 0
    b.send_reliable("a", b"x")
    with pytest.raises(JoinError, match="key"):
        start("late", secret_key=KEY, seed=a)


def test_the_key_of_three_nodes_is_rotated_while_they_talk(start: Start) -> None:
    new = bytes(reversed(KEY))
    heard = [Recorder() for _ in range(3)]
    nodes = [start("n0", delegate=heard[0], secret_key=KEY)]
    nodes += [start(f"n{i}", delegate=heard[i], secret_key=KEY, seed=nodes[0]) for i in (1, 2)]
    until(lambda: all(node.num_members() == 3 for node in nodes))
    streams = [node.events() for node in nodes]
    sent = 0

    def talk() -> None:
        nonlocal sent
        for node in nodes:
            for other in ("n0", "n1", "n2"):
                node.send_reliable(other, b"%d" % sent)
                assert node.ping(other) > 0
            sent += 1

    for step, key in (("add", new), ("use", new), ("remove", KEY)):
        for node in nodes:  # one by one: each step leaves the cluster mixed for a while
            getattr(node.keyring, step)(key)
            talk()
    expected = {b"%d" % number for number in range(sent)}
    until(lambda: all(set(one.messages) == expected for one in heard))
    assert [node.keyring.keys() for node in nodes] == [(new,)] * 3
    assert [node.metrics()["packets_rejected"] for node in nodes] == [0, 0, 0]
    assert [len(stream) for stream in streams] == [0, 0, 0], "nobody was failed, updated or taken for another"


def test_garbage_on_the_sockets_is_counted_and_harmless(start: Start) -> None:
    import random
    a = start("a")
    b = start("b", seed=a)
    rng = random.Random(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(300):
            sender.sendto(rng.randbytes(rng.randrange(200)), a.local_node.address)
    for _ in range(20):
        with socket.create_connection(a.local_node.address) as sock:
            sock.sendall(rng.randbytes(rng.randrange(1, 100)))
    until(lambda: a.metrics()["packets_rejected"] > 100 and a.metrics()["tcp.rejected"] > 0)
    assert b.ping("a") > 0
    assert issubclass(RemoteProtocolError, ValueError)


def test_host_names_join(start: Start) -> None:
    a, b = start("a"), start("b")
    assert b.join([f"localhost:{a.config.bind_port}"]).reached >= 1
    assert names(a) == names(b) == {"a", "b"}


def test_a_name_that_a_living_node_has_is_refused_and_told(start: Start) -> None:
    seed, first, second = start("seed"), start("same"), start("same")
    first.join([address_of(seed)])
    streams = {"seed": seed.events(), "second": second.events()}
    second.join([address_of(seed)])
    for name, stream in streams.items():
        event = stream.get(10)
        while not isinstance(event, NameConflict):
            event = stream.get(10)
        ports = [event.existing.port, event.other.port]
        ours, theirs = first.config.bind_port, second.config.bind_port
        assert ports == ([ours, theirs] if name == "seed" else [theirs, ours])
    assert {node.port for node in seed.members()} == {seed.config.bind_port, first.config.bind_port}


def test_a_node_published_over_tcp_only_is_named(start: Start) -> None:
    """As with a container whose TCP port was published and whose UDP port was forgotten."""
    with TcpOnly() as front:
        b = start("b", advertise_addr="127.0.0.1", advertise_port=front.port)
        front.target = b.local_node.host, b.config.bind_port
        a = start("a")
        heard = {"a": a.events(), "b": b.events()}
        assert a.join([f"127.0.0.1:{front.port}"]).reached == 1
        found = {}
        for name, stream in heard.items():
            event = stream.get(10)
            while not isinstance(event, UdpBlocked):
                event = stream.get(10)
            found[name] = event.node.name, event.port, event.direction
        assert found["a"] == ("b", front.port, "outbound")
        assert found["b"][0] == "a"
        assert names(a) == names(b) == {"a", "b"}, "TCP pings keep both alive"


class TcpOnly:
    """A port that passes TCP on to `target` and hears no UDP."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.target = ("127.0.0.1", 0)
        self.threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> TcpOnly:
        self.threads[0].start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            self.threads.append(threading.Thread(target=self._carry, args=(near, far), daemon=True))
            self.threads[-1].start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            ends = {near: far, far: near}
            while ready := select.select(list(ends), [], [], 5)[0]:
                for end in ready:
                    try:
                        data = end.recv(65536)
                        ends[end].sendall(data)
                    except OSError:
                        return
                    if not data:
                        return
