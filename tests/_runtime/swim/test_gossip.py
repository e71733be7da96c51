"""The gossip thread around a machine that does nothing but what the test tells it."""

from __future__ import annotations

import errno
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal import Config, Node, NodeState, NotRunningError, PeerUnreachable, ServiceCrashed, events
from mycorrizal._runtime.net import sockets
from mycorrizal._runtime.swim import gossip, places
from mycorrizal._runtime.swim.conversation import Heard
from mycorrizal._runtime.swim.exchanges import ExchangePool, Lane
from mycorrizal._runtime.swim.gossip import Gossip
from mycorrizal._runtime.swim.layer import Ground, Layer
from mycorrizal._runtime.swim.reach import PATIENCE
from mycorrizal._runtime.threads.counters import Counters
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._runtime.threads.mailbox import Mailbox
from mycorrizal._runtime.threads.subscribers import EventStream, Subscribers
from mycorrizal._swim import events as swim
from mycorrizal._wire.messages import AckResp, Message, Ping
from mycorrizal.types import Address

NODE = Node("bob", b"\x7f\0\0\1", 1)


class Machine:
    """Stands in for ``Swim``: notes its inputs, gives out what was put in."""

    def __init__(self) -> None:
        self.inputs: list[tuple[Any, ...]] = []
        self.outbox: list[tuple[bytes, Address]] = []
        self.requests: list[swim.ExchangeRequested] = []
        self.events: deque[swim.Event] = deque()
        self.timer: float | None = None
        self.node_version = 0
        self.health_score = 0
        self.counters: dict[str, int] = {}
        self.gauges: dict[str, int] = {}
        self.local_node = NODE
        self.on_start: Callable[[], None] = lambda: None
        self.seen = threading.Condition()

    def note(self, *what: Any) -> None:
        with self.seen:
            self.inputs.append(what)
            self.seen.notify_all()

    def wait_for(self, kind: str, count: int = 1) -> list[tuple[Any, ...]]:
        def found() -> list[tuple[Any, ...]]:
            return [one for one in self.inputs if one[0] == kind]

        with self.seen:
            assert self.seen.wait_for(lambda: len(found()) >= count, 10), self.inputs
            return found()

    def start(self, now: float) -> None:
        self.on_start()

    def members(self) -> tuple[Node, ...]:
        return (NODE,)

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> None:
        self.note("datagram", data, addr)

    def handle_timer(self, now: float) -> None:
        self.timer = None
        self.note("timer")

    def exchange_answered(self, exchange_id: int, message: Message | None, now: float) -> None:
        self.note("answered", exchange_id, message)

    def exchange_failed(self, exchange_id: int, error: Exception, now: float) -> None:
        self.note("failed", exchange_id, error)

    def write_failed(self, addr: Address, now: float) -> None:
        self.note("write_failed", addr)

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        taken, self.outbox = self.outbox, []
        return taken

    def exchanges_to_start(self) -> list[swim.ExchangeRequested]:
        taken, self.requests = self.requests, []
        return taken

    def next_event(self) -> swim.Event | None:
        return self.events.popleft() if self.events else None

    def get_timer(self) -> float | None:
        return self.timer

    def stood_still(self, now: float) -> float:
        return 0.0 if self.timer is None else now - self.timer


class Reader:
    """Stands in for ``StreamReader``: anything is a message."""

    held = 0

    def hold(self, data: memoryview) -> bool:
        return True

    def close(self) -> None:
        return None


class Rig:
    """A gossip thread with its surroundings."""

    def __init__(self, **settings: Any) -> None:
        self.machine = Machine()
        self.sockets = sockets.bind("127.0.0.1", 0)
        self.address = ("127.0.0.1", self.sockets.port)
        self.mailbox = Mailbox()
        self.counters = Counters()
        self.pool = ExchangePool(2, 2, "alice")
        self.told: list[swim.Event] = []
        self.held: Callable[..., Message | None] = lambda *args: None
        self.subscribers: Subscribers[events.MemberEvent] = Subscribers(self.stream)
        talk = SimpleNamespace(hold=lambda *args: self.held(*args), reader=Reader, advance=self.advance, dialled=None)
        self.gossip = Gossip(
            Config.local(name="alice", **settings), self.machine, self.sockets, self.mailbox, self.pool, talk,  # type: ignore[arg-type]
            SimpleNamespace(put=self.told.append, stop=lambda: None), self.subscribers, self.counters,  # type: ignore[arg-type]
        )  # fmt: skip

    def stream(self) -> EventStream[events.MemberEvent]:
        over = NotRunningError("")
        return EventStream(100, lambda n: events.EventsLost(n, ()), lambda op: None, lambda: over, self.counters)

    def advance(self, reader: Reader, address: Address, deadline: Deadline) -> Heard:
        self.machine.note("connection", address)
        return Heard()

    def go(self) -> Rig:
        self.gossip.service.start()
        self.gossip.started.result(10)
        return self

    def do(self, command: Callable[[], object]) -> None:
        """Run `command` on the thread, then let it pull the outputs."""
        self.mailbox.post(lambda now: command()).result(10)
        self.mailbox.post(lambda now: None).result(10)

    def end(self) -> None:
        self.gossip.stop()
        if self.gossip.service._thread.ident is not None:
            assert self.gossip.service.join(Deadline(10))
        else:
            self.gossip.close_descriptors()
        self.pool.close()
        self.pool.join(Deadline(10))


@pytest.fixture
def rig() -> Iterator[Rig]:
    one = Rig()
    yield one
    one.end()


def test_datagrams_go_in_and_out(rig: Rig) -> None:
    rig.go()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(10)
        for data in (b"one", b"", b"two"):
            peer.sendto(data, rig.address)
        found = rig.machine.wait_for("datagram", 2)
        assert [one[1:] for one in found] == [(b"one", peer.getsockname()), (b"two", peer.getsockname())]
        rig.do(lambda: rig.machine.outbox.append((b"reply", peer.getsockname())))
        assert peer.recvfrom(100) == (b"reply", rig.address)
    assert rig.counters["udp.packets_sent"] == 1
    assert rig.counters["udp.sent"] == 5
    assert rig.counters["udp.received"] == 6


def test_what_arrived_is_seen_before_the_timer(rig: Rig) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for index in range(600):  # more than one batch
            peer.sendto(b"%d" % index, rig.address)
    rig.mailbox.tell(lambda now: rig.machine.note("command"))
    rig.machine.timer = 0.0  # long overdue: this process was stalled
    rig.go()
    rig.machine.wait_for("timer")
    kinds = [one[0] for one in rig.machine.inputs]
    assert kinds.index("timer") > kinds.index("command") > 0
    assert kinds.count("datagram") == kinds.index("command") == 600


@pytest.mark.parametrize(("still", "seen"), [(0.0, 6), (3.0, 26)])
def test_a_thread_that_is_behind_does_what_is_due_between_datagrams(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, still: float, seen: int
) -> None:
    """Each datagram takes 20 ms here."""
    time = [100.0]
    monkeypatch.setattr(gossip, "clock", SimpleNamespace(now=lambda: time[0]))
    machine = rig.machine
    machine.timer = 99.0
    machine.stood_still = lambda now: still  # type: ignore[method-assign]

    def receive(data: bytes, addr: Address, now: float) -> None:
        machine.note("datagram")
        time[0] += 0.02

    machine.receive_datagram = receive  # type: ignore[method-assign]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(100):
            peer.sendto(b"x", rig.address)
    rig.go()
    machine.wait_for("datagram", 100)
    kinds = [one[0] for one in machine.inputs]
    assert kinds.index("timer") in (seen, seen + 1)
    late = 0.0 if still else pytest.approx(1.14, abs=0.03)
    assert rig.gossip.late(time[0]) == late, "a stall is told otherwise"
    assert rig.gossip.late(time[0] + 31) == 0.0


def test_failed_sends_are_told_to_the_machine_but_a_full_buffer_is_not(rig: Rig) -> None:
    real = rig.sockets.udp

    class Full:
        family = socket.AF_INET

        def sendto(self, data: bytes, address: Address) -> None:
            if data != b"fine":
                raise OSError(errno.ENOBUFS, "full") if data == b"full" else OSError(errno.ENETUNREACH, "no route")

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    rig.go()
    rig.gossip._sockets = SimpleNamespace(udp=Full(), tcp=rig.sockets.tcp, close=rig.sockets.close)  # type: ignore[assignment]
    rig.do(lambda: rig.machine.outbox.extend([(b"full", ("10.0.0.1", 1)), (b"x", ("10.0.0.2", 1)), (b"6", ("::1", 1))]))
    assert [one[1] for one in rig.machine.wait_for("write_failed", 2)] == [("10.0.0.2", 1), ("::1", 1)]
    assert rig.counters["udp.send_dropped"] == 1
    assert (rig.counters["udp.packets_sent"], rig.counters["udp.sent"]) == (0, 0)
    rig.do(lambda: rig.machine.outbox.extend([(data, ("10.0.0.1", 1)) for data in (b"fine", b"full", b"fine")]))
    assert (rig.counters["udp.packets_sent"], rig.counters["udp.sent"]) == (2, 8)


def test_read_error_of_an_earlier_packet_is_counted(rig: Rig) -> None:
    answers = deque([OSError(errno.ECONNREFUSED, "refused")])

    class Refused:
        family = socket.AF_INET

        def recvfrom_into(self, buffer: bytearray) -> tuple[int, Address]:
            raise answers.popleft() if answers else BlockingIOError

    rig.gossip._sockets = SimpleNamespace(udp=Refused())  # type: ignore[assignment]
    rig.gossip._receive(10, float("inf"))
    assert rig.counters["udp.read_errors"] == 1
    rig.gossip._sockets = rig.sockets


def request(number: int) -> swim.ExchangeRequested:
    return swim.ExchangeRequested(number, ("127.0.0.1", 1), "bob", Ping(), True, 1e12)


def test_exchanges_come_back_either_way(rig: Rig) -> None:
    def hold(address: Address, message: Message, expects_reply: bool, deadline: Deadline) -> Message | None:
        if failing:
            raise ConnectionRefusedError
        return AckResp(7, None)

    rig.held = hold
    failing = False
    rig.go()
    rig.do(lambda: rig.machine.requests.append(request(1)))
    assert rig.machine.wait_for("answered") == [("answered", 1, AckResp(7, None))]
    failing = True
    rig.do(lambda: rig.machine.requests.append(request(2)))
    assert isinstance(rig.machine.wait_for("failed")[0][2], ConnectionRefusedError)


def test_exchange_without_a_thread_fails_at_once(rig: Rig) -> None:
    release = threading.Event()
    rig.held = lambda *args: release.wait(10)  # type: ignore[assignment]
    rig.go()
    rig.do(lambda: rig.machine.requests.extend(map(request, range(6))))
    assert rig.machine.wait_for("failed")
    assert rig.counters["tcp.dials_dropped"] >= 1
    release.set()


def test_connections_are_handed_on_and_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.go()
    with socket.create_connection(rig.address) as sock:
        sock.sendall(b"x")
        assert rig.machine.wait_for("connection") == [("connection", sock.getsockname())]
    monkeypatch.setattr(places, "PLACES_MAX", 0)
    with socket.create_connection(rig.address) as sock:
        assert sock.recv(1) == b""
    monkeypatch.undo()
    rig.pool.close()
    with socket.create_connection(rig.address) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b""
    assert rig.counters["tcp.crowded"] == 2
    assert rig.pool.join(Deadline(10))
    assert rig.pool.busy(Lane.ACCEPTED) == 0


def test_connection_from_elsewhere_is_closed() -> None:
    rig = Rig(cidrs_allowed=("10.0.0.0/8",))
    rig.go()
    with socket.create_connection(rig.address) as sock:
        assert sock.recv(1) == b""
    assert rig.counters["tcp.address_refused"] == 1
    rig.end()


def test_failing_accept_backs_off_and_recovers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rig.sockets.tcp
    errors = deque([errno.ECONNABORTED, errno.EMFILE, errno.EMFILE])

    class Listener:
        def accept(self) -> Any:
            if errors:
                raise OSError(errors.popleft(), "trouble")
            return real.accept()

        def fileno(self) -> int:
            return real.fileno()

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    rig.gossip._selector.unregister(real)
    rig.gossip.lobby._listener = Listener()  # type: ignore[assignment]
    rig.gossip._selector.register(rig.gossip.lobby._listener, selectors.EVENT_READ)
    rig.go()
    with socket.create_connection(rig.address) as sock:
        sock.sendall(b"x")
        rig.machine.wait_for("connection")
    assert rig.counters["tcp.accept_errors"] == 2
    assert rig.gossip.lobby._delay == 0


def test_operations_end_with_their_event_or_their_error(rig: Rig) -> None:
    rig.go()
    good, bad = rig.gossip.operation(lambda now: 1), rig.gossip.operation(lambda now: 2)
    refused = rig.gossip.operation(lambda now: 1 // 0)
    assert isinstance(refused.exception(10), ZeroDivisionError)
    ends = [swim.OperationDone(1, "yes"), swim.OperationDone(2, None, KeyError("no"))]
    rig.do(lambda: rig.machine.events.extend(ends))
    assert good.result(10) == "yes"
    assert isinstance(bad.exception(10), KeyError)


def test_abandoned_operations_are_swept_and_their_end_ignored(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip, "_OPERATIONS_SWEEP", 3)
    rig.go()
    for number in range(3):
        future = rig.gossip.operation(lambda now, number=number: number)
        rig.do(lambda: None)
        future.cancel()
    rig.do(lambda: rig.machine.events.append(swim.OperationDone(0)))
    rig.do(lambda: rig.machine.events.append(swim.OperationDone(99)))
    rig.gossip.operation(lambda now: 3)
    rig.gossip.operation(lambda now: 4)
    rig.do(lambda: None)
    assert rig.gossip._operations.keys() <= {2, 3, 4}


def test_events_are_translated_for_subscribers(rig: Rig) -> None:
    rig.go()
    stream = rig.subscribers.subscribe()
    left, failed = (Node("bob", b"\x7f\0\0\1", 1, state=state) for state in (NodeState.LEFT, NodeState.DEAD))
    given: list[swim.Event] = [
        swim.NodeJoined(NODE), swim.NodeUpdated(NODE), swim.NodeLeft(left), swim.NodeLeft(failed),
        swim.NodeConflict(NODE, NODE), swim.Stalled(2.5), swim.UdpBlocked(NODE, 1, "inbound"),
        swim.UserMessage(b"x", None), swim.PacketRejected(("10.0.0.1", 1), ValueError("bad")),
        swim.DelegateFault("node_meta", "too long"), swim.MergeRejected(("10.0.0.1", 1), ValueError("no")),
    ]  # fmt: skip
    rig.do(lambda: rig.machine.events.extend(given))
    assert [stream.get(10) for _ in range(len(stream))] == [
        events.MemberJoined(NODE), events.MemberUpdated(NODE), events.MemberLeft(left), events.MemberFailed(failed),
        events.NameConflict(NODE, NODE), events.Stalled(2.5), events.UdpBlocked(NODE, 1, "inbound"),
    ]  # fmt: skip
    assert rig.told == given


def test_view_is_replaced_only_when_it_changed(rig: Rig) -> None:
    rig.go()
    first = rig.gossip.view
    rig.do(lambda: setattr(rig.machine, "counters", {"a": 1}))
    assert rig.gossip.view is first
    assert rig.gossip.machine_metrics == {"a": 1}
    rig.do(lambda: setattr(rig.machine, "node_version", 1))
    assert rig.gossip.view is not first


def test_failed_start_is_raised_and_everything_closed(rig: Rig) -> None:
    def fail() -> None:
        raise ValueError("meta")

    rig.machine.on_start = fail
    rig.gossip.service.start()
    assert isinstance(rig.gossip.started.exception(10), ValueError)
    assert rig.gossip.service.join(Deadline(10))
    assert rig.gossip.service.crashed is None
    assert rig.sockets.udp.fileno() == rig.sockets.tcp.fileno() == -1


def test_start_that_exits_is_a_crash(rig: Rig) -> None:
    def leave() -> None:
        raise SystemExit

    rig.machine.on_start = leave
    rig.gossip.service.start()
    assert isinstance(rig.gossip.started.exception(10), ServiceCrashed)


def test_the_end_leaves_nobody_waiting(rig: Rig) -> None:
    rig.go()
    pending = rig.gossip.operation(lambda now: 1)
    gone = rig.gossip.operation(lambda now: 2)
    rig.do(lambda: None)
    gone.cancel()
    rig.gossip.stop()
    assert isinstance(pending.exception(10), NotRunningError)
    assert rig.gossip.service.join(Deadline(10))
    with pytest.raises(NotRunningError):
        rig.gossip.operation(lambda now: 3)
    with pytest.raises(NotRunningError):
        rig.gossip.answer(Ping(), ("127.0.0.1", 1))


def test_member_that_cannot_be_dialled_is_told_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    stream = rig.subscribers.subscribe()
    error = PeerUnreachable("no route")
    for now in (0.0, 1.0, PATIENCE, PATIENCE + 1.0):
        rig.gossip._dialled(NODE.address, error, now)
        rig.gossip._dialled(("127.0.0.2", 9), error, now)  # no member: it is down
    assert stream.get(5) == events.TcpBlocked(NODE, 1, "outbound")
    assert rig.counters["tcp.blocked"] == 1
    assert ["cannot be dialled" in record.getMessage() for record in caplog.records] == [True]


class Above(Layer):
    """A layer that writes down what it hears, and may raise."""

    def __init__(self, error: Exception | None = None) -> None:
        self.heard: list[swim.Event] = []
        self.error = error

    def attached(self, ground: Ground) -> None:
        return None

    def observe(self, event: swim.Event, now: float) -> None:
        self.heard.append(event)
        if self.error is not None:
            raise self.error


def test_a_layer_observes_inline_and_before_anybody_is_told(rig: Rig) -> None:
    event = swim.UserMessage(b"x", None)
    layer = Above()
    rig.gossip.layer = layer
    rig.go()
    rig.do(lambda: rig.machine.events.append(event))
    assert layer.heard == rig.told == [event]


def test_a_layer_that_raises_is_counted_and_the_thread_goes_on(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.gossip.layer = Above(ValueError("bad\x1b"))
    rig.go()
    rig.do(lambda: rig.machine.events.append(swim.UserMessage(b"x", None)))
    rig.do(lambda: rig.machine.events.append(swim.UserMessage(b"y", None)))
    assert rig.counters["delegate.faults"] == 2
    assert len(rig.told) == 2
    assert "\x1b" not in caplog.text
