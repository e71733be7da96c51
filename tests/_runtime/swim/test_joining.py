"""``join`` with several seeds: so many at a time, an error for each, and nothing left behind. Without a network."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal import (
    Config,
    JoinError,
    JoinResult,
    OperationTimeout,
    PeerUnreachable,
    QueueFull,
    ResourcesExhausted,
)
from mycorrizal._runtime.swim import joining
from mycorrizal._runtime.swim.joining import AT_ONCE, join
from mycorrizal._runtime.threads.deadline import Deadline


class Network:
    """Exchanges that end when a test says so."""

    def __init__(self, **config: Any) -> None:
        self.config = Config.local(name="me", **config)
        self.gossip = self
        self.machine = SimpleNamespace()
        self.dispatcher = None
        self.begun: list[Future[Any]] = []
        self.resolving: list[Future[Any]] = []

    def operation(self, command: Any) -> Future[Any]:
        self.begun.append(Future())
        return self.begun[-1]

    def is_own(self, address: Any) -> bool:
        return False

    def resolve(self, host: str, port: int) -> Future[Any]:
        self.resolving.append(Future())
        return self.resolving[-1]


def seeds(count: int) -> list[str]:
    return [f"10.0.0.{number}:7946" for number in range(1, count + 1)]


def test_a_few_are_joined_at_a_time_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network: Any = Network()
    most = 0

    def wait(pending: Any, timeout: float | None, when: str) -> Any:
        nonlocal most
        most = max(most, len(pending))
        pending[0].set_result(None)
        return SimpleNamespace(done={pending[0]})

    monkeypatch.setattr(joining, "wait", wait)
    result = join(network, seeds(3 * AT_ONCE), Deadline(None))
    assert (result.reached, result.failures) == (3 * AT_ONCE, {})
    assert most == AT_ONCE and len(network.begun) == 3 * AT_ONCE


def test_out_of_time_each_seed_has_its_error_and_what_was_begun_is_called_off() -> None:
    network: Any = Network()
    with pytest.raises(JoinError) as caught:
        join(network, [*seeds(AT_ONCE + 4), "some.name"], Deadline(0.0))
    assert list(caught.value.failures) == [*seeds(AT_ONCE + 4), "some.name"]
    assert {type(error) for error in caught.value.failures.values()} == {OperationTimeout}
    assert all(future.cancelled() for future in (*network.begun, *network.resolving))
    assert len(network.begun) == AT_ONCE


def test_who_interrupts_a_join_calls_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    network: Any = Network()

    def wait(pending: Any, timeout: float | None, when: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(joining, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        join(network, [*seeds(2), "some.name"], Deadline(None))
    assert len(network.begun) == 2
    assert all(future.cancelled() for future in (*network.begun, *network.resolving))


def test_a_seed_that_one_of_its_addresses_reached_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    network: Any = Network()
    outcomes: list[Exception | None] = [PeerUnreachable("gone"), None, PeerUnreachable("gone")]

    def wait(pending: Any, timeout: float | None, when: str) -> Any:
        if pending[0] in network.resolving:
            pending[0].set_result([("10.0.0.1", 1), ("10.0.0.2", 1)])
        elif (error := outcomes.pop(0)) is None:
            pending[0].set_result(None)
        else:
            pending[0].set_exception(error)
        return SimpleNamespace(done={pending[0]})

    monkeypatch.setattr(joining, "wait", wait)
    result = join(network, ["some.name", "10.0.0.9:1"], Deadline(None))
    assert result.reached == 1 and len(result.failures) == 1


def test_the_only_failure_is_the_cause_and_names_are_required_where_they_are() -> None:
    network: Any = Network(require_node_names=True)
    with pytest.raises(JoinError, match="names no node") as caught:
        join(network, ["10.0.0.1:7946"], Deadline(0.0))
    assert caught.value.__cause__ is caught.value.failures["10.0.0.1:7946"]
    assert network.begun == []
    with pytest.raises(JoinError, match="none of the 2") as caught:
        join(network, seeds(2), Deadline(0.0))
    assert caught.value.__cause__ is None


class Told:
    """Stands in for a ``Dispatcher`` with something queued."""

    def __init__(self, current: bool) -> None:
        self.service = SimpleNamespace(is_current=lambda: current)
        self.done: Future[None] = Future()

    def caught_up(self) -> Future[None]:
        return self.done

    def __len__(self) -> int:
        return 1


def result_with(told: Told, seconds: float) -> JoinResult:
    network: Any = Network()
    network.dispatcher = told
    return join(network, [], Deadline(seconds))


def test_a_join_waits_until_the_delegates_were_told() -> None:
    told = Told(False)
    told.done.set_result(None)
    assert not result_with(told, 5).delegates_pending
    late = Told(False)
    assert result_with(late, 0).delegates_pending
    assert late.done.cancelled(), "nobody looks at it any more"


def test_on_the_delegate_thread_it_does_not_wait() -> None:
    assert result_with(Told(True), 60).delegates_pending


def test_a_seed_that_cannot_even_be_asked_is_that_seeds_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    network: Any = Network()
    short = [QueueFull("too many wait"), ResourcesExhausted("no thread")]
    plain = network.operation

    def operation(command: Any) -> Future[Any]:
        if short:
            raise short.pop(0)
        future: Future[Any] = plain(command)
        future.set_result(None)
        return future

    network.operation = operation
    monkeypatch.setattr(joining, "wait", lambda pending, timeout, when: SimpleNamespace(done=set(pending)))
    result = join(network, seeds(3), Deadline(10.0))
    assert result.reached == 1
    assert [type(error) for error in result.failures.values()] == [QueueFull, ResourcesExhausted]
