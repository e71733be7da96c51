"""The data plane called from everywhere at once: threads, handlers, callbacks, delegates, an event loop."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import as_completed, wait

import pytest

from mycorrizal import (
    BaseDelegate,
    BaseEventDelegate,
    DataConfig,
    Message,
    Node,
    OperationCancelled,
    OperationTimeout,
    PeerBusy,
    ReentrantCallError,
    RemoteError,
    Request,
    UnknownHandler,
)
from mycorrizal._runtime.threads import reentry
from mycorrizal.dataplane import DataPlane

from .conftest import Start, until
from .planes import Task, each_carrier, mesh, together  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("each_carrier")


def test_every_blocking_call_from_32_threads_at_once() -> None:
    with mesh("a", "b") as (a, b):
        a.on_request("double")(lambda request: request.value * 2)
        b.on_request("double")(lambda request: request.value * 2)
        received: list[Message] = []
        guard = threading.Lock()

        def work(number: int) -> int:
            me, other = (a, b) if number % 2 else (b, a)
            for step in range(10):
                value = number * 100 + step
                assert me.request(other.name, "double", value) == 2 * value
                assert me.request_async(other.name, "double", value).result(10) == 2 * value
                me.send(other.name, value)
                message = me.receive(10)
                with guard:
                    received.append(message)
                assert me.peers()[0].name == other.name
                assert me.request_all([other.name], "double", 1) == {other.name: 2}
            return 10

        assert together(32, work) == [10] * 32
        assert sorted(m.value for m in received) == sorted(n * 100 + s for n in range(32) for s in range(10))
        assert {m.sender for m in received if m.value // 100 % 2} == {"a"}
        assert len(a.peers()) == len(b.peers()) == 1
        assert a.peers()[0].calls == a.peers()[0].serving == a.peers()[0].messages == 0


def test_handlers_that_call_back_do_not_take_each_others_threads() -> None:
    config = DataConfig(handlers=4)
    with mesh("a", "b", config=config) as (a, b):
        deep = itertools.count()
        for me, other in ((a, b), (b, a)):

            def there(request: Request, me: DataPlane = me, other: DataPlane = other) -> int:
                if request.value == 0:
                    return next(deep)
                return int(me.request(other.name, "there", request.value - 1)) * 0 + 1

            me.on_request("there")(there)

        def call(number: int) -> object:
            me, other = (a, b) if number % 2 else (b, a)
            return me.request(other.name, "there", 2, timeout=15)  # there, back, and there again

        assert together(64, call) == [1] * 64
        assert next(deep) == 64
        until(lambda: a.metrics()["handlers.busy"] == b.metrics()["handlers.busy"] == 0)
        most = config.handlers + config.handler_spares
        assert 1 <= a.metrics()["handlers.threads"] <= most
        assert 1 <= b.metrics()["handlers.threads"] <= most


def test_done_callbacks_may_call_and_may_not_wait_for_futures() -> None:
    with mesh("a", "b") as (a, b):
        release = threading.Event()
        b.on_request("echo")(lambda request: request.value)
        b.on_request("late")(lambda request: release.wait(10))
        found: list[object] = []
        done = threading.Event()
        late = a.request_async("b", "late")

        def back(future: object) -> None:
            found.append(threading.current_thread().name)
            found.append(a.request("b", "echo", "inside"))
            a.send("b", "sent inside")
            for wait_for in (late.result, late.exception):
                try:
                    wait_for()
                except Exception as error:
                    found.append(type(error))
            try:
                late.result(0)  # this does not wait
            except Exception as error:
                found.append(type(error))
            done.set()

        a.request_async("b", "echo", 1).add_done_callback(back)
        assert done.wait(10)
        assert found == ["mycorrizal-futures", "inside", ReentrantCallError, ReentrantCallError, OperationTimeout]
        assert b.receive(10).value == "sent inside"
        release.set()
        assert late.result(10) is True


def test_futures_work_with_the_standard_librarys_tools() -> None:
    with mesh("a", "b") as (a, b):
        release = threading.Event()
        b.on_request("square")(lambda request: request.value**2)
        b.on_request("hang")(lambda request: release.wait(20))
        futures = [a.request_async("b", "square", number) for number in range(50)]
        assert sorted(future.result() for future in as_completed(futures, 10)) == [n * n for n in range(50)]
        hanging = a.request_async("b", "hang", timeout=None)
        assert wait([hanging], 0.05).not_done == {hanging}
        assert hanging.cancel()
        assert wait([hanging], 10).done == {hanging}
        with pytest.raises(OperationCancelled):
            hanging.result()
        until(lambda: a.peers()[0].calls == 0)
        until(lambda: b.metrics().get("requests.cancelled") == 1)
        release.set()
        late = threading.Event()
        b.on_request("late")(lambda request: late.wait(10))
        expired = a.request_async("b", "late", timeout=0.1)
        error = expired.exception(5)  # a future ends by itself, whoever waits for it
        late.set()
        assert isinstance(error, OperationTimeout)
        assert error.indeterminate


class Delegate(BaseDelegate, BaseEventDelegate):
    """Calls the data plane of ``a`` from delegates: node_meta runs on the gossip thread, notify_join does not."""

    def __init__(self) -> None:
        self.plane: DataPlane | None = None
        self.supplied: list[object] = []
        self.observed: list[object] = []

    def node_meta(self, limit: int) -> bytes:
        if self.plane is not None:
            calls: tuple[Callable[[DataPlane], object], ...] = (
                lambda plane: plane.request("b", "echo", 1), lambda plane: plane.send("b", 1),
                lambda plane: plane.receive(1), lambda plane: plane.peers(),
                lambda plane: plane.request_all(["b"], "echo"), lambda plane: plane.connect(("127.0.0.1", 9)),
            )  # fmt: skip
            for call in calls:
                try:
                    self.supplied.append(call(self.plane))
                except Exception as error:
                    self.supplied.append(type(error))
            future = self.plane.request_async("b", "echo", "from node_meta")
            self.supplied.append(future)
            try:
                future.result(5)
            except Exception as error:
                self.supplied.append(type(error))
        return b"meta" if self.plane is None else b"met2"

    def notify_join(self, node: Node) -> None:
        if self.plane is not None:
            self.observed.append(self.plane.request("b", "echo", f"{node.name} joined"))


def test_delegates_that_supply_may_not_wait_and_those_that_observe_may(start: Start) -> None:
    with mesh("a", "b") as (a, b):
        gate = threading.Event()

        @b.on_request("echo")
        def echo(request: Request) -> object:
            if request.value == "from node_meta":
                assert gate.wait(10)
            return request.value

        delegate = Delegate()
        member = start("m1", delegate=delegate, events=delegate)
        delegate.plane = a
        other = start("m2", seed=member)
        until(lambda: "m2 joined" in delegate.observed)
        member.update_node()
        gate.set()
        *refused, future, refused_too = delegate.supplied[:8]
        assert refused == [ReentrantCallError] * 6
        assert refused_too is ReentrantCallError
        assert future.result(10) == "from node_meta"  # type: ignore[attr-defined]
        until(lambda: any(node.meta == b"met2" for node in other.members()))


def test_the_loop_thread_may_not_wait_for_itself() -> None:
    """User code gets there only by accident: a finalizer, a logging handler."""
    with mesh("a", "b") as (a, b):
        b.on_request("echo")(lambda request: request.value)
        core = a._core
        assert core is not None
        found: list[object] = []
        done = threading.Event()

        def inside(now: float) -> None:
            for call in (lambda: a.request("b", "echo", 1), lambda: a.send("b", 1), lambda: a.receive(1), a.peers):
                try:
                    found.append(call())
                except Exception as error:
                    found.append(type(error))
            done.set()

        core.submit(inside)
        assert done.wait(10)
        assert found == [ReentrantCallError] * 4
        assert a.request("b", "echo", 2) == 2
    assert reentry._owners._names.keys() <= {thread.ident for thread in threading.enumerate()}


def test_a_node_may_talk_to_itself() -> None:
    with mesh("a") as (a,):

        @a.on_request("twice")
        def twice(request: Request) -> object:
            assert request.sender == "a"
            return [request.value, a.request("a", "once", request.value)]

        a.on_request("once")(lambda request: request.value)
        assert a.request("a", "twice", {"x": b"y"}) == [{"x": b"y"}, {"x": b"y"}]
        for number in range(200):  # more than a window
            a.send_async("a", number)
        assert [a.receive(10) for _ in range(200)] == [Message("a", number) for number in range(200)]
        value = [1, 2]
        a.send("a", value)
        received = a.receive(10).value
        assert received == value and received is not value  # the receiver's own
        with pytest.raises(UnknownHandler):
            a.request("a", "nobody")
        assert a.peers() == []
        assert a.metrics()["connections"] == 0
        a.on_request("raise")(lambda request: request.value["x"])
        with pytest.raises(RemoteError, match="KeyError"):
            a.request("a", "raise", {})


def test_a_full_pool_says_so_at_once_and_nothing_ran() -> None:
    with mesh("a", "b", config=DataConfig(handlers=2, handler_queue=3)) as (a, b):
        release, ran = threading.Event(), itertools.count()

        @b.on_request("slow")
        def slow(request: Request) -> object:
            next(ran)
            return release.wait(20)

        held = [a.request_async("b", "slow", timeout=15)]
        until(lambda: b.metrics()["handlers.busy"] == 1)  # a thread that starts takes its job out of the queue
        held.append(a.request_async("b", "slow", timeout=15))
        until(lambda: b.metrics()["handlers.busy"] == 2)
        held += [a.request_async("b", "slow", timeout=15) for _ in range(3)]
        until(lambda: b.metrics()["handlers.queued"] == 3)
        began = time.monotonic()
        with pytest.raises(PeerBusy) as caught:
            a.request("b", "slow")
        assert time.monotonic() - began < 2
        assert caught.value.retriable and not caught.value.indeterminate and caught.value.node == "b"
        assert b.metrics()["requests.busy"] == 1
        release.set()
        assert [future.result(15) for future in held] == [True] * 5
        assert next(ran) == 5
        assert a.request("b", "slow") is True


def test_a_handlers_own_requests_end_with_the_one_it_serves() -> None:
    with mesh("a", "b", "c") as (a, b, c):
        release = threading.Event()
        nested: list[tuple[BaseException, float]] = []
        deadlines: list[float | None] = []

        @b.on_request("relay")
        def relay(request: Request) -> object:
            deadlines.append(request.deadline)
            began = time.monotonic()
            try:
                return b.request("c", "hang", timeout=60)
            except OperationTimeout as error:
                nested.append((error, time.monotonic() - began))
                raise

        @c.on_request("hang")
        def hang(request: Request) -> object:
            deadlines.append(request.deadline)
            return release.wait(20)

        try:
            with pytest.raises((OperationTimeout, RemoteError)):  # b's word of its own timeout may be the quicker one
                a.request("b", "relay", timeout=0.5)
            until(lambda: nested)
        finally:
            release.set()
        assert nested[0][1] < 2.0
        assert all(deadline is not None and 0 < deadline <= 0.5 for deadline in deadlines)
        assert len(deadlines) == 2
        b.on_request("free")(lambda request: b.request("c", "echo", timeout=30))
        c.on_request("echo")(lambda request: request.deadline)
        assert 25 < a.request("b", "free", timeout=None) <= 30  # without an end outside, the inner one counts


def test_a_request_whose_time_is_up_never_starts() -> None:
    with mesh("a", "b", config=DataConfig(handlers=1)) as (a, b):
        release = threading.Event()
        ran: list[object] = []
        b.on_request("hold")(lambda request: release.wait(20))
        b.on_request("late")(lambda request: ran.append(request.value))
        held = a.request_async("b", "hold", timeout=15)
        until(lambda: b.metrics()["handlers.busy"] == 1)
        with pytest.raises(OperationTimeout) as caught:
            a.request("b", "late", "too late", timeout=0.2)
        assert caught.value.indeterminate  # for all the caller knows
        until(lambda: b.metrics()["handlers.queued"] == 1)
        in_time = a.request_async("b", "late", "in time", timeout=15)
        release.set()
        assert held.result(15) is True
        in_time.result(15)
        assert ran == ["in time"]


def test_errors_of_handlers_arrive_and_hurt_nobody() -> None:
    with mesh("a", "b") as (a, b):

        class Odd(BaseException):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        b.on_request("exit")(lambda request: sys.exit(3))
        b.on_request("odd")(lambda request: (_ for _ in ()).throw(Odd()))
        b.on_request("value")(lambda request: object())
        b.on_request("cut")(lambda request: "\ud800")
        for name, kind in (("exit", "SystemExit"), ("odd", "Odd"), ("value", "ValueEncodeError"), ("cut", "")):
            with pytest.raises(RemoteError) as caught:
                a.request("b", name)
            assert kind in caught.value.type
            assert caught.value.node == "b"
        b.on_request("fine")(lambda request: 1)
        assert a.request("b", "fine") == 1
        errors = together(8, lambda number: Task(a.request, "b", "missing").error())
        assert len({id(error) for error in errors}) == 8  # one's traceback is not another's
        assert all(isinstance(error, UnknownHandler) for error in errors)


def test_blocking_calls_inside_a_running_event_loop() -> None:
    async def cell() -> list[object]:
        with mesh("a", "b") as (a, b):
            b.on_request("echo")(lambda request: request.value)
            found = [a.request("b", "echo", "blocking")]
            a.send("b", 1)
            found.append(b.receive(10).value)
            found.append(await asyncio.wrap_future(a.request_async("b", "echo", "awaited")))
            found.append(await asyncio.to_thread(a.request, "b", "echo", "in a thread"))
            results = await asyncio.gather(*(asyncio.wrap_future(a.request_async("b", "echo", n)) for n in range(20)))
            return [*found, results]

    assert asyncio.run(cell(), debug=True) == ["blocking", 1, "awaited", "in a thread", list(range(20))]
