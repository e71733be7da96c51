"""Threads, sockets and machine put together, and taken apart when that fails."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from mycorrizal import (
    Config,
    JoinError,
    JoinResult,
    MycorrizalError,
    NotRunningError,
    OperationTimeout,
    PeerUnreachable,
    QueueFull,
)
from mycorrizal._endings import Ending, error
from mycorrizal._runtime.net import addresses
from mycorrizal._runtime.swim import joining, membership
from mycorrizal._runtime.swim.membership import Delegates, Membership
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._runtime.threads.mailbox import Posted
from mycorrizal._wire.security import Keyring
from mycorrizal.delegates import BaseDelegate, BaseEventDelegate
from mycorrizal.types import Address
from tests.keys import key_of


def make(delegates: Delegates | None = None, **settings: Any) -> Membership:
    config = Config.local(**{"name": "alice", "bind_addr": "127.0.0.1", "bind_port": 0, **settings})
    return Membership(config, delegates or Delegates())


def end(*memberships: Membership) -> None:
    for one in memberships:
        one.stop()
        assert one.join(Deadline(10))


@pytest.fixture
def alice() -> Iterator[Membership]:
    one = make()
    yield one
    end(one)


def test_delegate_thread_exists_only_for_observers() -> None:
    plain, observed = make(), make(Delegates(events=BaseEventDelegate()))
    assert plain.dispatcher is None
    assert observed.dispatcher is not None
    assert observed.dispatcher.service.alive
    end(plain, observed)
    assert not observed.dispatcher.service.alive


def test_wait_gives_results_and_the_operation_s_own_timeout(alice: Membership) -> None:
    future: Future[int] = Future()
    with pytest.raises(OperationTimeout, match=r"test\(\) was not done") as caught:
        alice.wait(future, Deadline(0), "test")
    assert caught.value.indeterminate
    assert future.cancelled()
    own: Future[int] = Future()
    own.set_exception(OperationTimeout("its own"))
    with pytest.raises(OperationTimeout, match="its own"):
        alice.wait(own, Deadline(0), "test")


def test_what_was_given_up_before_it_began_has_no_effect(alice: Membership) -> None:
    posted: Posted[int] = Posted()
    with pytest.raises(OperationTimeout) as caught:
        alice.wait(posted, Deadline(0), "test")
    assert (caught.value.ending, caught.value.indeterminate) == ("TIMEOUT", False)
    begun: Posted[int] = Posted()
    assert begun.set_running_or_notify_cancel()
    with pytest.raises(OperationTimeout) as caught:
        alice.wait(begun, Deadline(0), "test")
    assert (caught.value.ending, caught.value.indeterminate) == ("TIMEOUT", True)


@pytest.mark.parametrize("ending", Ending)
@pytest.mark.parametrize("sent", [False, True])
def test_the_error_of_a_wait_is_a_copy_that_names_the_call(alice: Membership, ending: Ending, sent: bool) -> None:
    plain = error(ending, "why", sent=sent, cause=ValueError("boom"))
    future: Future[int] = Future()
    future.set_exception(plain)
    with pytest.raises(type(plain), match="why") as caught:
        alice.wait(future, Deadline(None), "test")
    mine = caught.value
    assert isinstance(mine, MycorrizalError) and mine is not plain and plain.operation is None
    assert vars(mine) == {**vars(plain), "operation": "test"} and mine.__cause__ is plain.__cause__


@pytest.mark.parametrize("begun", [False, True])
def test_the_end_of_the_program_ends_a_wait_as_a_close(
    alice: Membership, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(future: Future[int], deadline: Deadline) -> bool:
        raise error(Ending.CLOSED, "the program ends")

    monkeypatch.setattr(membership, "settled", ends)
    future: Posted[int] = Posted()
    assert not begun or future.set_running_or_notify_cancel()
    with pytest.raises(NotRunningError) as caught:
        alice.wait(future, Deadline(None), "test")
    assert (caught.value.ending, caught.value.operation, caught.value.indeterminate) == ("CLOSED", "test", begun)
    assert future.cancelled() is not begun


def test_interrupted_wait_cancels(alice: Membership, monkeypatch: pytest.MonkeyPatch) -> None:
    future: Future[int] = Future()

    def interrupt(self: Future[int], timeout: float | None = None) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "exception", interrupt)
    with pytest.raises(KeyboardInterrupt):
        alice.wait(future, Deadline(None), "test")
    assert future.cancelled()


def test_run_reports_and_is_refused_after_the_end(alice: Membership) -> None:
    assert alice.run(lambda: 42).result(10) == 42
    assert isinstance(alice.run(lambda: 1 // 0).exception(10), ZeroDivisionError)
    alice.stop()
    with pytest.raises(NotRunningError):
        alice.run(lambda: 42)


@pytest.mark.parametrize("failing", ["mycorrizal-gossip", "mycorrizal-delegates"])
def test_thread_that_cannot_start_leaves_nothing_open(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start
    before = threading.active_count()

    def start(thread: threading.Thread) -> None:
        if thread.name == failing:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        make(Delegates(events=BaseEventDelegate()))
    gc.collect()  # an open socket would be a ResourceWarning here
    for thread in threading.enumerate():
        if thread.name == "mycorrizal-delegates":
            thread.join(10)
    assert threading.active_count() == before


def test_keyring_may_be_changed_by_several_threads() -> None:
    ring = Keyring((), key_of("first", 16))
    threads = [threading.Thread(target=ring.add, args=(key_of(str(index), 16),)) for index in range(1, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ring.keys()) == 30
    ring.use(key_of("7", 16))
    ring.remove(key_of("first", 16))
    assert ring.primary == key_of("7", 16)


# -- join ---------------------------------------------------------------------------------


def test_a_name_counts_each_of_its_addresses(alice: Membership, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = [make(name=f"n{index}") for index in range(12)]
    found: list[Address] = [("127.0.0.1", peer.config.bind_port) for peer in peers]
    monkeypatch.setattr(addresses, "resolve", lambda host, port: [*found, ("127.0.0.1", 1)])
    assert joining.join(alice, ["seeds.example"], Deadline(20)) == JoinResult(12, {})
    assert {member.name for member in alice.view().members} == {"alice", *(f"n{index}" for index in range(12))}
    end(*peers)


def test_name_without_address_is_one_failure_among_others(alice: Membership, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int) -> list[Address]:
        raise PeerUnreachable(f"cannot resolve {host!r}")

    monkeypatch.setattr(addresses, "resolve", resolve)
    result = joining.join(alice, ["nowhere", f"127.0.0.1:{alice.config.bind_port}"], Deadline(20))
    assert result.reached == 1
    assert isinstance(result.failures["nowhere"], PeerUnreachable)
    with pytest.raises(JoinError, match=r"(?s)none of the 2 seeds.*nowhere: cannot resolve.*else: cannot resolve"):
        joining.join(alice, ["nowhere", "else"], Deadline(20))


def test_resolver_that_hangs_does_not_hold_the_join(alice: Membership, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(addresses, "resolve", lambda host, port: release.wait(10))
    with pytest.raises(JoinError, match="within the timeout"):
        joining.join(alice, ["slow"], Deadline(0.05))
    release.set()


def test_error_that_is_not_ours_keeps_its_name(alice: Membership, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "resolve", lambda host, port: 1 // 0)
    with pytest.raises(JoinError, match="ZeroDivisionError: ") as caught:
        joining.join(alice, ["broken"], Deadline(20))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_shutdown_meanwhile_is_said_as_such(alice: Membership, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alice, "resolve", lambda host, port: _failed(NotRunningError("stopped")))
    with pytest.raises(NotRunningError):
        joining.join(alice, ["seed"], Deadline(20))


def _failed(error: Exception) -> Future[list[Address]]:
    future: Future[list[Address]] = Future()
    future.set_exception(error)
    return future


def test_a_hook_that_nobody_would_call_is_refused() -> None:
    for role in ("delegate", "events", "conflict", "merge", "ping", "alive"):
        with pytest.raises(TypeError, match=f"{role}: object has none of the methods"):
            Delegates(**dict[str, Any]({role: object()}))
        with pytest.raises(TypeError, match=rf"{role} must be an instance: BaseDelegate\(\)"):
            Delegates(**dict[str, Any]({role: BaseDelegate}))


def test_a_goodbye_waits_for_room(alice: Membership, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def operation(begin: object) -> Future[int]:
        tried.append(begin)
        if len(tried) % 3:
            raise QueueFull("too many wait")
        future: Future[int] = Future()
        future.set_result(7)
        return future

    monkeypatch.setattr(alice.gossip, "operation", operation)
    assert alice.operate(lambda now: 1, Deadline(60), "leave") == 7 and len(tried) == 3
    with pytest.raises(QueueFull):
        alice.operate(lambda now: 1, Deadline(0), "leave")
    assert len(tried) == 4
