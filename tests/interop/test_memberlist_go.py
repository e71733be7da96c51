"""Python nodes in a cluster with Go nodes on Debian's memberlist 0.2.2 (the program in gopeer/)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import pytest

from mycorrizal import (
    BaseDelegate,
    BaseEventDelegate,
    BasePingDelegate,
    JoinError,
    MemberLeft,
    Memberlist,
    Node,
    NodeState,
)

from .peers import GoPeer, PythonNode, wait_until

GoMaker = Callable[..., GoPeer]
MemberMaker = Callable[..., Memberlist]
NodeMaker = Callable[..., PythonNode]


class Recorder(BaseDelegate, BaseEventDelegate, BasePingDelegate):
    """All delegates in one: supplies what it is told to, keeps what it is given."""

    def __init__(self, meta: bytes = b"", state: bytes = b"", ack: bytes = b"") -> None:
        self.meta, self.state, self.ack = meta, state, ack
        self.broadcasts: list[bytes] = []
        self.messages: list[bytes] = []
        self.states: list[tuple[bytes, bool]] = []
        self.updates: list[tuple[str, bytes]] = []
        self.conflicts: list[tuple[str, str]] = []
        self.pings: list[tuple[str, float, bytes]] = []

    def node_meta(self, limit: int) -> bytes:
        return self.meta

    def notify_msg(self, data: bytes) -> None:
        self.messages.append(data)

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        taken, self.broadcasts = self.broadcasts, []
        return taken

    def local_state(self, join: bool) -> bytes:
        return self.state

    def merge_remote_state(self, buf: bytes, join: bool) -> None:
        self.states.append((buf, join))

    def notify_update(self, node: Node) -> None:
        self.updates.append((node.name, node.meta))

    def notify_conflict(self, existing: Node, other: Node) -> None:
        self.conflicts.append((existing.name, f"{other.host}:{other.port}"))

    def ack_payload(self) -> bytes:
        return self.ack

    def notify_ping_complete(self, node: Node, rtt: float, payload: bytes) -> None:
        self.pings.append((node.name, rtt, payload))


def address(members: Memberlist) -> str:
    return f"127.0.0.1:{members.local_node.port}"


def names(members: Memberlist) -> set[str]:
    return {node.name for node in members.members()}


def find(members: Memberlist, name: str) -> Node:
    return next(node for node in members.members() if node.name == name)


def recorded(member: MemberMaker, name: str, recorder: Recorder, **settings: object) -> Memberlist:
    roles = dict.fromkeys(("delegate", "events", "conflict", "ping"), recorder)
    return member(name, **roles, **settings)


@pytest.mark.parametrize("key", [None, os.urandom(16)], ids=["plain", "encrypted"])
@pytest.mark.parametrize("joiner", ["python", "go"])
def test_one_cluster_whoever_joins(go_peer: GoMaker, member: MemberMaker, joiner: str, key: bytes | None) -> None:
    go = go_peer("go", "-quic-port", "9001", key=key)
    recorder = Recorder(meta=(9000).to_bytes(2, "big"))
    node = recorded(member, "py", recorder, secret_key=key)
    if joiner == "python":
        assert node.join([go.address]).reached == 1
    else:
        assert go.do("join", addrs=[address(node)])["count"] == 1
    wait_until(lambda: names(node) == {"py", "go"}, "Python sees both")
    wait_until(lambda: set(go.members()) == {"py", "go"}, "Go sees both")
    # The first two bytes of meta are the QUIC port.
    assert int.from_bytes(go.members()["py"]["meta"], "big") == 9000
    assert int.from_bytes(find(node, "go").meta, "big") == 9001
    assert go.members()["py"]["vsn"] == [1, 5, 2, 0, 0, 0]


@pytest.mark.parametrize("key", [None, os.urandom(16)], ids=["plain", "encrypted"])
def test_a_seeds_name_is_asked_of_go_and_a_join_again_is_no_echo(
    go_peer: GoMaker, member: MemberMaker, key: bytes | None
) -> None:
    go, node = go_peer("go", key=key), member("py", secret_key=key)
    with pytest.raises(JoinError, match="is not 'other'"):
        node.join([f"other/{go.address}"])
    assert (names(node), set(go.members())) == ({"py"}, {"go"})
    assert node.join([f"go/{go.address}"]).reached == 1
    wait_until(lambda: set(go.members()) == {"py", "go"}, "Go sees both")
    for _ in range(3):  # what Go knows is by now what we know: it acknowledges a ping
        assert node.join([go.address]).reached == 1
    assert names(node) == {"py", "go"}


def test_wrong_key(go_peer: GoMaker, member: MemberMaker) -> None:
    go = go_peer("go", key=os.urandom(32))
    node = member("py", secret_key=os.urandom(32))
    with pytest.raises(JoinError, match="key"):
        node.join([go.address], timeout=5)
    assert "error" in go.ask("join", addrs=[address(node)])
    assert (names(node), set(go.members())) == ({"py"}, {"go"})


def test_meta_updates_both_ways(go_peer: GoMaker, member: MemberMaker) -> None:
    go, recorder = go_peer("go", "-quic-port", "1"), Recorder(meta=b"\x00\x01")
    node = recorded(member, "py", recorder)
    node.join([go.address])
    wait_until(lambda: set(go.members()) == {"py", "go"}, "Go sees both")
    recorder.meta = (9000).to_bytes(2, "big")
    node.update_node(timeout=5)
    wait_until(lambda: go.members()["py"]["meta"] == b"\x23\x28", "Go sees our port")
    wait_until(lambda: [e["node"]["name"] for e in go.events("update")] == ["py"], "as an event")
    go.do("update_meta", data=(9001).to_bytes(2, "big"))
    wait_until(lambda: find(node, "go").meta == b"\x23\x29", "we see its port")
    wait_until(lambda: ("go", b"\x23\x29") in recorder.updates, "as an event")


def test_user_messages_both_ways(go_peer: GoMaker, member: MemberMaker) -> None:
    go, recorder = go_peer("go"), Recorder()
    node = recorded(member, "py", recorder)
    node.join([go.address])
    wait_until(lambda: set(go.members()) == {"py", "go"}, "Go sees both")
    big = os.urandom(200_000)
    to = find(node, "go")
    node.send_best_effort(to, b"fast \xff")
    node.send_reliable(to, big, timeout=5)
    node.send_to_address(to.address, b"by address")
    wait_until(lambda: sorted(go.data("msg")) == sorted([b"fast \xff", big, b"by address"]), "Go has all three")
    go.do("send_best_effort", to="py", data=b"fast \xfe")
    go.do("send_reliable", to="py", data=big)
    wait_until(lambda: sorted(recorder.messages) == sorted([b"fast \xfe", big]), "we have both")


def test_state_both_ways(go_peer: GoMaker, member: MemberMaker) -> None:
    go, recorder = go_peer("go"), Recorder(state=b"python" * 20_000)
    go.do("set_local_state", data=b"go" * 50_000)
    node = recorded(member, "py", recorder)
    node.join([go.address])
    wait_until(lambda: (b"go" * 50_000, True) in recorder.states, "we have its state")
    wait_until(lambda: b"python" * 20_000 in go.data("merge_state"), "it has ours")
    assert go.events("merge_state")[0]["join"] is True
    # The other way round: it dials us.
    recorder.state = b"second"
    go.do("set_local_state", data=b"two")
    go.do("join", addrs=[address(node)])
    wait_until(lambda: (b"two", True) in recorder.states and b"second" in go.data("merge_state"), "both again")


def test_broadcasts_both_ways(go_peer: GoMaker, member: MemberMaker) -> None:
    go, recorder = go_peer("go"), Recorder()
    node = recorded(member, "py", recorder)
    node.join([go.address])
    wait_until(lambda: set(go.members()) == {"py", "go"}, "Go sees both")
    recorder.broadcasts.append(b"from python")
    wait_until(lambda: go.data("msg") == [b"from python"], "Go has it")
    go.do("queue_broadcast", data=b"from go")
    wait_until(lambda: b"from go" in recorder.messages, "we have it")
    assert set(recorder.messages) == {b"from go"}


def test_pings_and_their_payload(go_peer: GoMaker, member: MemberMaker) -> None:
    go, recorder = go_peer("go", "-ack", "go's payload"), Recorder(ack=b"py's \x00 payload")
    node = recorded(member, "py", recorder, probe_interval=0.3)
    node.join([go.address])
    wait_until(lambda: set(go.members()) == {"py", "go"}, "Go sees both")
    assert 0 < node.ping(find(node, "go")) < 1
    # memberlist 0.2.2 takes the time after sending: an answer that is fast enough came "before".
    assert -0.1 < go.do("ping", to="py")["rtt"] < 1
    wait_until(lambda: any(name == "go" and payload == b"go's payload" for name, _, payload in recorder.pings), "its")
    wait_until(lambda: b"py's \x00 payload" in go.data("ping_complete"), "ours")


def test_name_conflict(go_peer: GoMaker, member: MemberMaker) -> None:
    go, recorder = go_peer("go"), Recorder()
    node = recorded(member, "same", recorder, name_takeover=False)
    node.join([go.address])
    wait_until(lambda: set(go.members()) == {"same", "go"}, "Go sees both")
    double = go_peer("same")
    double.ask("join", addrs=[go.address, address(node)])
    wait_until(lambda: [e["other"]["port"] for e in go.events("conflict")][:1] == [double.port], "Go reports it")
    wait_until(lambda: ("same", double.address) in recorder.conflicts, "we report it")
    assert go.members()["same"]["port"] == node.local_node.port


def test_leaves_both_ways(go_peer: GoMaker, member: MemberMaker) -> None:
    go, node = go_peer("go"), member("py")
    other = member("py2")
    for one in (node, other):
        one.join([go.address])
    wait_until(lambda: names(node) == set(go.members()) == {"py", "py2", "go"}, "all see all")
    other.leave(timeout=5)
    wait_until(lambda: "py2" not in go.members(), "Go sees the leave")
    with node.events() as events:
        go.do("leave")
        wait_until(lambda: names(node) == {"py"}, "we see both leaves")
        # py2's leave may still be on its way to us when Go has seen it.
        left = next(event.node for event in events if isinstance(event, MemberLeft) and event.node.name == "go")
    assert left.state == NodeState.LEFT


def test_ten_nodes_mixed_lose_one_of_each(go_peer: GoMaker, member: MemberMaker, python_node: NodeMaker) -> None:
    # Go repairs a lost alive message at the next push/pull only, every 15 s with the profile's own settings.
    flags = ("-delegate-versions", "2,5,5", "-push-pull", "2s")
    peers = [go_peer(f"go{i}", *flags) for i in range(5)]
    settings = {"delegate_protocol_min": 2, "delegate_protocol_max": 5, "delegate_protocol_version": 5}
    nodes = [member(f"py{i}", **settings) for i in range(4)]
    victim = python_node("py4", peers[0].address)
    for i, node in enumerate(nodes):
        node.join([peers[i % 2].address])
    for i, peer in enumerate(peers[1:]):
        peer.do("join", addrs=[address(nodes[i % 2])])
    everybody = {f"{kind}{i}" for kind in ("go", "py") for i in range(5)}

    def seen() -> dict[str, set[str]]:
        alive = [peer for peer in peers if peer.process.running]
        return {**{p.name: set(p.members()) for p in alive}, **{n.local_node.name: names(n) for n in nodes}}

    wait_until(lambda: all(view == everybody for view in seen().values()), "all see all", timeout=40)
    victim.kill()
    peers[4].kill()
    left = everybody - {"py4", "go4"}
    wait_until(lambda: all(view == left for view in seen().values()), "all notice both", timeout=40)
