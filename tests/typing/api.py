"""How the public API is used, for the type checker: this file is never run.

``tools/test`` checks it with ``mypy --strict``. Each public name appears at
least once, and ``assert_type`` fixes what a caller gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_type

import mycorrizal
from mycorrizal import (
    AliveDelegate,
    BaseDelegate,
    BaseEventDelegate,
    BasePingDelegate,
    Config,
    ConflictDelegate,
    ConnectionRefused,
    Delegate,
    EventDelegate,
    JoinError,
    JoinResult,
    Memberlist,
    MergeDelegate,
    MycorrizalError,
    Node,
    NodeState,
    PingDelegate,
    Versions,
)


class State(BaseDelegate):
    """Inherits no-ops and overrides what it needs."""

    def node_meta(self, limit: int) -> bytes:
        return b"\x1f\x90"[:limit]

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        return [b"x"]


class Everything:
    """Inherits nothing: the protocols are structural."""

    def node_meta(self, limit: int) -> bytes:
        return b""

    def notify_msg(self, data: bytes) -> None: ...

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        return ()

    def local_state(self, join: bool) -> bytes:
        return b""

    def merge_remote_state(self, buf: bytes, join: bool) -> None: ...

    def notify_join(self, node: Node) -> None: ...

    def notify_leave(self, node: Node) -> None: ...

    def notify_update(self, node: Node) -> None: ...

    def notify_conflict(self, existing: Node, other: Node) -> None: ...

    def notify_merge(self, peers: Sequence[Node]) -> None: ...

    def notify_alive(self, node: Node) -> None: ...

    def ack_payload(self) -> bytes:
        return b""

    def notify_ping_complete(self, node: Node, rtt: float, payload: bytes) -> None: ...


def delegates() -> None:
    """Bases and strangers satisfy the protocols."""
    all_in_one = Everything()
    d: Delegate = all_in_one
    e: EventDelegate = all_in_one
    c: ConflictDelegate = all_in_one
    m: MergeDelegate = all_in_one
    a: AliveDelegate = all_in_one
    p: PingDelegate = all_in_one
    d, e, p = State(), BaseEventDelegate(), BasePingDelegate()
    Memberlist(Config.lan(), delegate=d, events=e, conflict=c, merge=m, alive=a, ping=p).shutdown()


def configuration() -> None:
    """Profiles are constructors; a config is a value."""
    assert_type(Config.lan(name="a", secret_key=b"0" * 16, label="x", wire="msgpack"), Config)
    assert_type(Config.wan(bind_addr="::1"), Config)
    config = Config.local(name="a", bind_addr="127.0.0.1", bind_port=0, cidrs_allowed=("10.0.0.0/8",))
    assert_type(config.replace(gossip_nodes=4), Config)
    assert_type(config.probe_interval, float)
    assert_type(config.suspicion_min_timeout, float)
    assert_type(mycorrizal.__version__, str)


def membership() -> None:
    """A life of a node."""
    with Memberlist(Config.local(name="a", bind_addr="127.0.0.1", bind_port=0)) as cluster:
        assert_type(cluster, Memberlist)
        try:
            result = cluster.join(["127.0.0.1:7946", "bob/10.0.0.1:7946"], timeout=5.0)
        except JoinError as error:
            assert_type(error.failures["127.0.0.1:7946"], Exception)
            raise
        except ConnectionRefused as error:
            assert_type(error.node, str | None)
            raise
        assert_type(result, JoinResult)
        assert_type(result.reached, int)
        assert_type(cluster.members(), tuple[Node, ...])
        assert_type(cluster.num_members(), int)
        assert_type(cluster.local_node, Node)
        assert_type(cluster.health_score, int)
        assert_type(cluster.protocol_version, int)
        messages(cluster)
        cluster.update_node(timeout=None)
        assert_type(cluster.leave(timeout=5.0), None)


def messages(cluster: Memberlist) -> None:
    """Talking to one peer."""
    node = cluster.members()[0]
    assert_type(node.name, str)
    assert_type(node.address, tuple[str, int])
    assert_type(node.meta, bytes)
    assert_type(node.state is NodeState.ALIVE, bool)
    assert_type(node.versions, Versions)
    cluster.send_best_effort(node, b"data")
    cluster.send_reliable(node, b"data", timeout=1.0)
    cluster.send_to_address(("127.0.0.1", 7946), b"data")
    assert_type(cluster.ping(node), float)


def keys(cluster: Memberlist) -> None:
    """Rotation: add everywhere, use everywhere, remove everywhere."""
    cluster.keyring.add(b"1" * 32)
    cluster.keyring.use(b"1" * 32)
    cluster.keyring.remove(b"0" * 16)
    assert_type(cluster.keyring.keys(), tuple[bytes, ...])


def watching(cluster: Memberlist) -> None:
    """Events and counters."""
    with cluster.events() as events:
        for event in events:
            match event:
                case mycorrizal.MemberJoined(node) | mycorrizal.MemberUpdated(node):
                    assert_type(node, Node)
                case mycorrizal.MemberLeft(node) | mycorrizal.MemberFailed(node):
                    assert_type(node.state, NodeState)
                case mycorrizal.NameConflict(existing, other):
                    assert_type((existing, other), tuple[Node, Node])
                case mycorrizal.Stalled(seconds):
                    assert_type(seconds, float)
                case mycorrizal.UdpBlocked(node, port, direction) | mycorrizal.TcpBlocked(node, port, direction):
                    print(node.name, port, direction)
                case mycorrizal.EventsLost(count, members):
                    print(count, members)
    for name, value in cluster.metrics().items():
        print(name, value)


def failing() -> None:
    """Errors are also the builtins they are, and carry fields."""
    try:
        membership()
    except TimeoutError as error:
        print(error)
    except MycorrizalError as error:
        assert_type(error.node, str | None)
        assert_type(error.operation, str | None)
        assert_type(error.hint, str | None)
        assert_type(error.retriable, bool)
        assert_type(error.indeterminate, bool)
