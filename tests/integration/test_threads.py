"""Who may call what on which thread, and that slow or broken delegates hurt nobody else."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mycorrizal import (
    BaseDelegate,
    BaseEventDelegate,
    BasePingDelegate,
    BindError,
    Config,
    EventsLost,
    Memberlist,
    Node,
    NotRunningError,
    OperationTimeout,
    ReentrantCallError,
    ServiceCrashed,
)
from tests.keys import WEAK, key_of

from .conftest import Recorder, Start, address_of, fast, names, until


class Everything(BaseDelegate, BaseEventDelegate, BasePingDelegate):
    """Implements every delegate method by calling `act` with its name."""

    def __init__(self, act: Callable[[str], object]) -> None:
        self.act = act

    def node_meta(self, limit: int) -> bytes:
        self.act("node_meta")
        return b"m"

    def notify_msg(self, data: bytes) -> None:
        self.act("notify_msg")

    def get_broadcasts(self, overhead: int, limit: int) -> Sequence[bytes]:
        self.act("get_broadcasts")
        return ()

    def local_state(self, join: bool) -> bytes:
        self.act("local_state")
        return b"s"

    def merge_remote_state(self, buf: bytes, join: bool) -> None:
        self.act("merge_remote_state")

    def notify_join(self, node: Node) -> None:
        self.act("notify_join")

    def notify_leave(self, node: Node) -> None:
        self.act("notify_leave")

    def notify_update(self, node: Node) -> None:
        self.act("notify_update")

    def notify_merge(self, peers: Sequence[Node]) -> None:
        self.act("notify_merge")

    def notify_alive(self, node: Node) -> None:
        self.act("notify_alive")

    def ack_payload(self) -> bytes:
        self.act("ack_payload")
        return b""

    def notify_ping_complete(self, node: Node, rtt: float, payload: bytes) -> None:
        self.act("notify_ping_complete")

    def hooks(self) -> dict[str, Any]:
        """Return it as every delegate."""
        return dict.fromkeys(("delegate", "events", "merge", "ping", "alive"), self)


SUPPLY = {"node_meta", "get_broadcasts", "local_state", "notify_merge", "notify_alive", "ack_payload"}
OBSERVE = {"notify_msg", "merge_remote_state", "notify_join", "notify_leave", "notify_update", "notify_ping_complete"}


def exercise(start: Start, act: Callable[[str], object]) -> Memberlist:
    """Run a cluster in which every delegate method of node ``a`` is called; return that node."""
    every = Everything(act)
    holder: list[Memberlist] = []
    every.act = lambda name: act(name) if holder else None
    a = start("a", **every.hooks())
    holder.append(a)
    recorder = Recorder(meta=b"1", state=b"state")
    b = start("b", delegate=recorder)
    b.join([address_of(a)])
    b.send_reliable("a", b"x")
    recorder.meta = b"2"
    b.update_node()
    a.update_node()
    until(lambda: a.ping("b") and b.ping("a"))
    b.leave()
    until(lambda: names(a) == {"a"})
    return a


def test_reads_work_inside_every_callback(start: Start) -> None:
    seen: dict[str, object] = {}
    nodes: list[Memberlist] = []

    def look(name: str) -> None:
        one = nodes[0] if nodes else None
        if one is None:
            return
        try:
            seen[name] = (one.members(), one.num_members(), one.local_node, one.health_score, one.metrics())
            one.events().close()
            one.send_to_address(("127.0.0.1", 9), b"x")
        except Exception as exc:
            seen[name] = exc

    every = Everything(look)
    nodes.append(start("a", **every.hooks()))
    a = nodes[0]
    recorder = Recorder(meta=b"1", state=b"state")
    b = start("b", delegate=recorder, seed=a)
    b.send_reliable("a", b"x")
    recorder.meta = b"2"
    b.update_node()
    a.update_node()
    b.ping("a")
    until(lambda: "notify_ping_complete" in seen)
    b.leave()
    until(lambda: seen.keys() >= SUPPLY | OBSERVE)
    assert not [value for value in seen.values() if isinstance(value, Exception)], seen


def test_blocking_calls_are_refused_on_the_gossip_thread_only(start: Start) -> None:
    seen: dict[str, list[object]] = {}
    nodes: list[Memberlist] = []

    def call(name: str) -> None:
        if not nodes or name in seen:
            return
        one = nodes[0]
        results = seen.setdefault(name, [])
        for blocking in (
            lambda: one.join([]), lambda: one.ping("b", timeout=2), lambda: one.send_reliable("b", b"x", timeout=2),
            lambda: one.update_node(timeout=2), lambda: one.events().get(0),
        ):  # fmt: skip
            try:
                results.append(blocking())
            except Exception as exc:
                results.append(exc)

    every = Everything(call)
    a = start("a", **every.hooks())
    nodes.append(a)
    recorder = Recorder(meta=b"1", state=b"state")
    b = start("b", delegate=recorder, seed=a)
    b.send_reliable("a", b"x")
    until(lambda: seen.keys() >= {"local_state", "notify_alive", "notify_merge", "notify_join", "notify_msg"})
    until(lambda: all(len(results) == 5 for results in seen.values()))
    for name, results in seen.items():
        if name in SUPPLY:
            assert all(isinstance(result, ReentrantCallError) for result in results), (name, results)
        else:
            assert not any(isinstance(result, ReentrantCallError) for result in results), (name, results)


def test_leave_is_refused_on_the_gossip_thread(start: Start) -> None:
    errors: list[Exception] = []
    nodes: list[Memberlist] = []

    def act(name: str) -> None:
        if name == "local_state" and nodes:
            try:
                nodes[0].leave()
            except Exception as exc:
                errors.append(exc)

    nodes.append(start("a", **Everything(act).hooks()))
    start("b", seed=nodes[0])
    assert isinstance(errors[0], ReentrantCallError)


def test_delegate_that_sleeps_delays_no_ack(start: Start) -> None:
    asleep, release = threading.Event(), threading.Event()

    def act(name: str) -> None:
        if name in OBSERVE and not release.is_set():
            asleep.set()
            release.wait(30)

    a = start("a", **Everything(act).hooks())
    stream = a.events()
    b = start("b", seed=a)
    assert asleep.wait(10)
    deadline = time.monotonic() + 3  # many probe intervals
    while time.monotonic() < deadline:
        assert b.ping("a") < 0.5
        time.sleep(0.1)
    assert names(a) == names(b) == {"a", "b"}
    assert b.health_score == 0
    assert stream.get(0).kind == "join"  # events() does not wait for delegates
    release.set()


def test_slow_supply_is_named_and_counted(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    a = start("a", **Everything(lambda name: time.sleep(0.03 if name == "local_state" else 0)).hooks())
    start("b", seed=a)
    until(lambda: a.metrics().get("delegate.slow.local_state"))
    assert "local_state took" in caplog.text


def test_raising_delegates_are_counted_and_the_node_goes_on(start: Start) -> None:
    nodes: list[Memberlist] = []

    def act(name: str) -> None:
        if nodes and name not in ("notify_alive", "notify_merge"):
            raise KeyError(name)

    nodes.append(start("a", **Everything(act).hooks()))
    a = nodes[0]
    b = start("b", delegate=Recorder(state=b"s"), seed=a)
    b.send_best_effort("a", b"x")
    a.update_node()
    until(lambda: a.metrics()["delegate.faults"] >= 4)
    assert names(a) == names(b) == {"a", "b"}
    assert b.ping("a") > 0
    assert a.local_node.meta == b"m"


@pytest.mark.parametrize("method", sorted(SUPPLY | OBSERVE))
def test_shutdown_inside_any_callback(start: Start, method: str) -> None:
    done = threading.Event()
    nodes: list[Memberlist] = []

    def act(name: str) -> None:
        if name == method and nodes:
            nodes[0].shutdown()
            done.set()

    nodes.append(start("a", **Everything(act).hooks()))
    a = nodes[0]
    recorder = Recorder(meta=b"1", state=b"s")
    b = start("b", delegate=recorder, tcp_timeout=1)

    def update() -> None:
        recorder.meta = b"2"
        b.update_node()

    for step in (
        lambda: b.join([address_of(a)]), lambda: b.send_reliable("a", b"x"), update, a.update_node,
        lambda: method == "notify_leave" or done.wait(2), b.leave,
    ):  # fmt: skip
        try:
            step()
        except Exception:
            assert a._running.stopped
    assert done.wait(10)
    a.shutdown()
    assert not a._running.gossip.service.alive
    with pytest.raises(NotRunningError):
        a.join([])


def test_shutdown_from_many_threads_and_twice(start: Start) -> None:
    a = start("a")
    threads = [threading.Thread(target=a.shutdown) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    a.shutdown()
    assert a.num_members() == 1  # the last state
    for call in (lambda: a.ping("a"), a.leave, a.update_node, lambda: a.send_best_effort("a", b"")):
        with pytest.raises(NotRunningError):
            call()
    assert list(a.events()) == []


def test_pending_calls_end_with_the_node(start: Start) -> None:
    import socket

    a = start("a")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Timer(0.2, a.shutdown).start()
        with pytest.raises(NotRunningError):
            a.join([f"127.0.0.1:{listener.getsockname()[1]}"], timeout=None)


def test_timeouts_are_kept(start: Start) -> None:
    a = start("a", gossip_interval=0, probe_interval=0)  # so that nothing is ever gossiped out
    start("b", seed=a)
    for call in (a.update_node, a.leave):
        began = time.monotonic()
        with pytest.raises(OperationTimeout) as caught:
            call(timeout=0.2)
        assert 0.15 < time.monotonic() - began < 2
        assert caught.value.indeterminate


def test_machine_that_breaks_is_not_silent(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    a = start("a")
    start("b", seed=a)
    stream = a.events()

    def broken(now: float) -> None:
        raise ZeroDivisionError("planted")

    a._running.mailbox.tell(broken)
    until(lambda: not a._running.gossip.service.alive)
    for call in (a.members, lambda: a.ping("b"), lambda: a.join([]), lambda: a.health_score, lambda: list(stream)):
        with pytest.raises(ServiceCrashed) as caught:
            call()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "mycorrizal-gossip died" in caplog.text


def test_slow_subscriber_gets_the_list(start: Start) -> None:
    recorder = Recorder()
    a = start("a", event_queue_depth=3)
    b = start("b", delegate=recorder, seed=a)
    stream = a.events()
    for index in range(8):
        recorder.meta = b"%d" % index
        b.update_node()
    until(lambda: a.members()[1].meta == b"7")
    until(lambda: len(stream) == 3)
    lost = stream.get(0)
    assert isinstance(lost, EventsLost)
    assert lost.count + 3 <= 8
    assert {node.name for node in lost.members} == {"a", "b"}


def test_port_in_use_says_what_to_do(start: Start) -> None:
    a = start("a")
    with pytest.raises(BindError, match=rf"127\.0\.0\.1:{a.config.bind_port}.*bind_port"):
        Memberlist(fast("b", bind_port=a.config.bind_port))


def test_open_network_without_key_is_warned_about(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    start("a", bind_addr="0.0.0.0", advertise_addr="127.0.0.1")
    assert "listening on 0.0.0.0 without a key" in caplog.text
    caplog.clear()
    start("b", bind_addr="0.0.0.0", advertise_addr="127.0.0.1", secret_key=key_of("k"))
    start("c")
    assert "without a key" not in caplog.text
    with caplog.at_level(logging.INFO, "mycorrizal.memberlist"):
        start("d")
        start("e", bind_addr="::1")
    assert caplog.text.count("without a key: every user of this host can join, read and forge") == 2


@pytest.mark.parametrize(("key", "why"), WEAK.values(), ids=WEAK)
def test_weak_key_of_a_go_cluster_is_warned_about(
    start: Start, caplog: pytest.LogCaptureFixture, key: bytes, why: str
) -> None:
    start("a", wire="msgpack", secret_key=key_of("k"), keys=(key,))
    assert [record.getMessage() for record in caplog.records if why in record.getMessage()] != []
    assert repr(key)[2:-1] not in caplog.text


def test_connections_outside_the_networks_are_refused(start: Start) -> None:
    import socket

    a = start("a", cidrs_allowed=("127.0.0.0/30",))
    with socket.create_connection(a.local_node.address, source_address=("127.0.0.9", 0)) as sock:
        assert sock.recv(1) == b""
    assert a.metrics()["tcp.address_refused"] == 1
    start("b", seed=a)


def memory() -> int:
    """Return the resident bytes of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_opening_and_closing_200_times_leaks_nothing() -> None:
    def cycle(count: int) -> None:
        for index in range(count // 2):
            a = Memberlist(fast(f"a{index % 7}"), delegate=Recorder(), events=Recorder())
            b = Memberlist(fast("b"))
            b.join([address_of(a)])
            assert a.num_members() == 2
            for node in (a, b):
                node.shutdown()

    def held() -> tuple[int, int, int, int]:
        gc.collect()
        return len(gc.get_objects()), memory(), threading.active_count(), len(os.listdir("/proc/self/fd"))

    cycle(40)
    objects, resident, threads, descriptors = held()
    cycle(200)
    objects_after, resident_after, threads_after, descriptors_after = held()
    assert (threads_after, descriptors_after) == (threads, descriptors)
    assert objects_after - objects < 400
    assert resident_after - resident < 4 << 20


def test_context_manager_leaves(start: Start) -> None:
    a = start("a")
    stream = a.events()
    with Memberlist(Config.local(name="b", bind_addr="127.0.0.1", bind_port=0)) as b:
        b.join([address_of(a)])
    assert [stream.get(5).kind for _ in range(2)] == ["join", "leave"]
    with pytest.raises(NotRunningError), b:
        b.leave()
