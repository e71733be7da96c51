"""Calls with odd arguments, in odd states, and handlers that do odd things. Two planes in one process."""

from __future__ import annotations

import io
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from mycorrizal import (
    Codecs,
    ConfigError,
    DataConfig,
    DataPlane,
    NestedTooDeep,
    NotRunningError,
    OperationTimeout,
    PeerBusy,
    RemoteError,
    Request,
)

from .couple import KEY, SECONDS, Pair, until


class Mute(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class Stuttering(str):
    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        raise LookupError(encoding)


class Odd(BaseException):
    def __str__(self) -> str:
        return Stuttering("text")


@pytest.mark.parametrize("error", [SystemExit(3), Mute(), Odd(), RecursionError(), Exception("\ud800" * 100_000)])
def test_whatever_a_handler_raises_is_answered(pair: Pair, error: BaseException) -> None:
    alice, bob = pair

    @bob.on_request("fail")
    def fail(request: Request) -> None:
        raise error

    with pytest.raises(RemoteError) as caught:
        alice.request("bob", "fail", timeout=SECONDS)
    assert caught.value.type == type(error).__name__
    assert bob.metrics().get("handlers.faults", 0) == 0


def test_one_peer_does_not_fill_the_queue_of_the_handlers(pair: Pair) -> None:
    alice, _ = pair
    go = threading.Event()
    with DataPlane("busy", key=KEY, config=DataConfig(handlers=1, handler_queue=8)) as busy:
        busy.on_request("slow")(lambda request: go.wait(SECONDS))
        with DataPlane("greedy", key=KEY, peers={"busy": busy.address}) as greedy:
            alice.add_peer("busy", busy.address)
            many = [greedy.request_async("busy", "slow", timeout=SECONDS) for _ in range(20)]
            refused = [future for future in many[9:] if isinstance(future.exception(SECONDS), PeerBusy)]
            assert len(refused) == 11
            late = alice.request_async("busy", "slow", timeout=SECONDS)
            alice.connect(busy.address)
            go.set()
            assert late.result(SECONDS) is True
            # 6 wait in three quarters of the queue; the thread has one, if it was awake before they came, or two.
            assert sum(future.exception(SECONDS) is None for future in many) in (6, 7, 8)


def test_several_names_of_one_address_do_not_fill_the_queue_of_the_handlers(pair: Pair) -> None:
    alice, _ = pair
    go = threading.Event()
    with ExitStack() as stack:
        busy = stack.enter_context(DataPlane("busy", key=KEY, config=DataConfig(handlers=1, handler_queue=16)))
        busy.on_request("slow")(lambda request: go.wait(8 * SECONDS))
        alice.add_peer("busy", busy.address)
        many = []
        for number in range(5):
            name = DataPlane(f"name {number}", bind="127.0.0.2", key=KEY, peers={"busy": busy.address})
            stack.enter_context(name)
            many += [name.request_async("busy", "slow", timeout=4 * SECONDS) for _ in range(7)]
        until(lambda: sum(future.done() for future in many) >= len(many) - 16)
        assert all(isinstance(future.exception(0), PeerBusy) for future in many if future.done())
        late = alice.request_async("busy", "slow", timeout=4 * SECONDS)
        alice.connect(busy.address)
        go.set()
        assert late.result(SECONDS) is True
        assert sum(future.exception(SECONDS) is None for future in many) >= 14


FEW = DataConfig(handlers=1, handler_spares=3)


def countdown(plane: DataPlane, to: str) -> None:
    """Let `plane` answer requests by asking `to` until the number in them is 0."""

    @plane.on_request("down")
    def down(request: Request) -> int:
        left = request.value[0]
        return 1 + plane.request(to, "down", [left - 1, request.value[1]], timeout=SECONDS) if left else 0


@pytest.mark.parametrize("size", [0, 100_000])
def test_requests_nested_deeper_than_threads_end_at_once(size: int) -> None:
    with DataPlane("a", key=KEY, config=FEW) as a, DataPlane("b", key=KEY, config=FEW) as b:
        a.add_peer("b", b.address)
        b.add_peer("a", a.address)
        countdown(a, "b")
        countdown(b, "a")
        assert a.request("b", "down", [7, bytes(size)], timeout=SECONDS) == 7  # four threads each
        for depth in (8, 9, 50):
            with pytest.raises(NestedTooDeep, match="b: down: as many handlers.*handler_spares=") as caught:
                a.request("b", "down", [depth, bytes(size)], timeout=SECONDS)
        assert caught.value.node == "b" and caught.value.operation == "request" and not caught.value.retriable
        assert b.metrics()["requests.too_deep"] == 3 and "requests.raised" not in a.metrics()
        assert a.request_async("b", "down", [7, b""], timeout=SECONDS).result(SECONDS) == 7
        with pytest.raises(NestedTooDeep):
            a.request_async("b", "down", [8, b""], timeout=SECONDS).result(SECONDS)
        assert isinstance(a.request_all(["b"], "down", [8, b""], timeout=SECONDS).errors["b"], NestedTooDeep)


def test_a_handler_that_asks_its_own_node_without_an_end() -> None:
    with DataPlane("a", key=KEY, config=FEW) as a:
        countdown(a, "a")
        assert a.request("a", "down", [3, b""], timeout=SECONDS) == 3
        with pytest.raises(NestedTooDeep):
            a.request("a", "down", [4, b""], timeout=SECONDS)
        assert a.request("a", "down", [3, b""], timeout=SECONDS) == 3  # nobody waits any more


def test_request_all_asks_each_node_once_and_leaves_nothing_open(pair: Pair) -> None:
    alice, bob = pair
    asked = itertools.count(1)
    bob.on_request("count")(lambda request: next(asked))
    assert alice.request_all(["bob"] * 5, "count", timeout=SECONDS) == {"bob": 1}
    assert alice.request_all([], "count") == {}
    go = threading.Event()
    bob.on_request("slow")(lambda request: go.wait(SECONDS))

    def names() -> Iterator[str]:
        yield "bob"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        alice.request_all(names(), "slow", timeout=None)
    assert alice.peers()[0].calls == 0
    go.set()


@pytest.mark.parametrize("node", [None, 5, b"bob", ["bob"]])
def test_what_is_no_name_is_the_callers_error_only(pair: Pair, node: Any) -> None:
    alice, _ = pair
    calls: list[Callable[[], object]] = [
        lambda: alice.send(node, 1),
        lambda: alice.send_async(node, 1),
        lambda: alice.request(node, "id"),
        lambda: alice.request_async(node, "id"),
        lambda: alice.request_all([node], "id"),
        lambda: alice.open_stream(node, "id"),
        lambda: alice.send_file(node, io.BytesIO()),
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
    alice.send("bob", 1, timeout=SECONDS)
    assert [peer.name for peer in alice.peers()] == ["bob"]


def test_handlers_that_would_not_run_are_refused(pair: Pair) -> None:
    _, bob = pair

    async def coroutine(given: object) -> int:
        return 1

    def generator(given: object) -> Iterator[int]:
        yield 1

    for handler in (coroutine, generator, partial(coroutine), 3, None):
        for register in (bob.on_request("id"), bob.on_stream("id")):
            with pytest.raises(ConfigError, match=r"handler: .*(cannot be called|would not run)"):
                register(handler)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="must be text, not function.*in parentheses"):
        bob.on_request(lambda request: 1)  # type: ignore[arg-type]


def test_one_name_is_not_several_nodes(pair: Pair) -> None:
    with pytest.raises(TypeError, match=r"such as \['bob'\]"):
        pair[0].request_all("bob", "id")


@pytest.mark.parametrize("timeout", [float("-inf"), -1e308, -1, 0])
def test_time_that_is_up_already(pair: Pair, timeout: float) -> None:
    alice, bob = pair
    bob.on_request("id")(lambda request: request.value)
    alice.send("bob", "before", timeout=SECONDS)
    with pytest.raises(OperationTimeout):
        alice.request("bob", "id", 1, timeout=timeout)
    with pytest.raises(OperationTimeout):
        alice.send("bob", 1, timeout=timeout)
    with pytest.raises(OperationTimeout):
        alice.receive(timeout)
    patience: Any = Decimal(SECONDS)
    assert alice.request("bob", "id", 2, timeout=patience) == 2


def test_send_said_to_be_unsent_never_arrives(pair: Pair) -> None:
    alice, bob = pair
    alice.send("bob", -1, timeout=SECONDS)
    unsent = set()
    for number in range(100):
        try:
            alice.send("bob", number, timeout=0)
        except OperationTimeout as error:
            if not error.indeterminate:
                unsent.add(number)
    alice.send("bob", 100, timeout=SECONDS)
    arrived = {message.value for message in itertools.takewhile(lambda m: m.value != 100, bob.messages())}
    assert unsent and not unsent & arrived


def test_message_that_could_not_be_handed_over_is_the_next() -> None:
    codecs = Codecs()
    interrupts: list[BaseException] = [KeyboardInterrupt()]

    def decode(value: object) -> complex:
        if interrupts:
            raise interrupts.pop()
        return 1j

    def refuse(done: int, total: int) -> None:
        raise ZeroDivisionError

    codecs.register(complex, "complex", lambda z: 0, decode)
    with DataPlane("carol", key=KEY, codecs=codecs) as carol:
        carol.send("carol", 1j)
        carol.send("carol", bytes(1 << 20))
        with pytest.raises(KeyboardInterrupt):
            carol.receive(SECONDS)
        assert carol.receive(SECONDS).value == 1j
        with pytest.raises(ZeroDivisionError):
            carol.receive(SECONDS, progress=refuse)
        assert carol.receive(SECONDS).value == bytes(1 << 20)
        assert carol.metrics()["inbox.bytes"] == 0


def test_codec_that_ends_threads_is_answered() -> None:
    codecs = Codecs()
    codecs.register(complex, "complex", lambda z: 0, lambda value: sys.exit())
    with DataPlane("carol", key=KEY, codecs=codecs) as carol:
        carol.on_request("id")(lambda request: request.value)
        with pytest.raises(RemoteError) as caught:
            carol.request("carol", "id", 1j, timeout=SECONDS)
        assert caught.value.type == "SystemExit"


def test_interrupted_close_closes_all_the_same(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = pair
    alice.send("bob", 1, timeout=SECONDS)

    def interrupted(deadline: object) -> None:
        raise KeyboardInterrupt

    class Following:
        closed = False

        def close(self, deadline: object) -> None:
            self.closed = True

    following = Following()
    monkeypatch.setattr(bob, "_follower", following)
    monkeypatch.setattr(bob._started, "_drain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bob.close()
    with pytest.raises(NotRunningError):
        bob.send("alice", 1)
    assert following.closed
    bob.close()
    assert not bob._started.loop.service.alive


def test_close_by_a_signal_handler_amid_close() -> None:
    plane = DataPlane("carol", key=KEY)

    def work() -> None:
        with plane._started._closed:  # where the signal finds this thread
            plane.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive() and not plane._started.loop.service.alive
