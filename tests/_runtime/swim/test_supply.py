"""The user's supply delegates: timed, and harmless."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import pytest

from mycorrizal import Node
from mycorrizal._runtime.swim.supply import AliveGate, MergeGate, PingSupply, Supply, Timed
from mycorrizal._runtime.threads import clock
from mycorrizal._runtime.threads.counters import Counters
from mycorrizal.delegates import BaseDelegate, BasePingDelegate

NODE = Node("bob", b"\x7f\0\0\1", 1)


class User(BaseDelegate, BasePingDelegate):
    """Does what the test wants."""

    answer: object = b""
    error: BaseException | None = None

    def _give(self) -> object:
        if self.error is not None:
            raise self.error
        return self.answer

    def node_meta(self, limit: int) -> bytes:
        return self._give()  # type: ignore[return-value]

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        return self._give()  # type: ignore[return-value]

    def local_state(self, join: bool) -> bytes:
        return self._give()  # type: ignore[return-value]

    def ack_payload(self) -> bytes:
        return self._give()  # type: ignore[return-value]

    def notify_alive(self, node: Node) -> None:
        self._give()

    def notify_merge(self, peers: Sequence[Node]) -> None:
        self._give()


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def timed(counters: Counters) -> Timed:
    return Timed("alice", counters)


def test_what_the_delegate_gives_passes(timed: Timed) -> None:
    user = User()
    supply = Supply(user, timed)
    user.answer = bytearray(b"x")
    assert supply.node_meta(512) == b"x"
    assert isinstance(supply.local_state(False), bytes)
    assert PingSupply(user, timed).ack_payload() == b"x"
    user.answer = (memoryview(b"a"), b"b")
    assert supply.get_broadcasts(3, 1000) == [b"a", b"b"]
    user.answer = None
    assert supply.get_broadcasts(3, 1000) == ()
    assert supply.local_state(True) == b""


def test_exceptions_become_counted_defaults(timed: Timed, counters: Counters, caplog: pytest.LogCaptureFixture) -> None:
    user = User()
    supply = Supply(user, timed)
    user.answer = b"first"
    supply.node_meta(512)
    user.error = KeyError("boom")
    assert supply.node_meta(512) == b"first"  # not an empty one: the others would see a change
    assert supply.local_state(False) == b""
    assert supply.get_broadcasts(3, 100) == ()
    assert PingSupply(user, timed).ack_payload() == b""
    assert counters["delegate.faults"] == 4
    assert counters["delegate.faults.local_state"] == 1
    assert "delegate method node_meta: KeyError: 'boom'" in caplog.text


def test_exit_and_wrong_types_are_faults_too(timed: Timed, counters: Counters) -> None:
    user = User()
    supply = Supply(user, timed)
    user.error = SystemExit()
    assert supply.local_state(False) == b""
    user.error = None
    user.answer = "text"
    assert supply.local_state(False) == b""
    assert supply.get_broadcasts(3, 100) == ()
    assert counters["delegate.faults"] == 3


def test_too_long_meta_is_passed_on_once_and_not_remembered(timed: Timed) -> None:
    user = User()
    supply = Supply(user, timed)
    user.answer = b"good"
    supply.node_meta(512)
    user.answer = bytes(600)
    assert len(supply.node_meta(512)) == 600  # the machine says what is wrong with it
    user.error = KeyError()
    assert supply.node_meta(512) == b"good"


def test_a_refusal_passes_through(timed: Timed, counters: Counters) -> None:
    user = User()
    AliveGate(user, timed).notify_alive(NODE)
    MergeGate(user, timed).notify_merge([NODE])
    user.error = ValueError("not you")
    with pytest.raises(ValueError, match="not you"):
        AliveGate(user, timed).notify_alive(NODE)
    user.error = SystemExit()
    with pytest.raises(RuntimeError, match="SystemExit"):
        MergeGate(user, timed).notify_merge([NODE])
    assert counters["delegate.faults"] == 0


def test_slow_call_is_named_and_counted(
    timed: Timed, counters: Counters, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    times = iter([1.0, 1.2, 2.0, 2.0, 2.005])
    monkeypatch.setattr(clock, "now", lambda: next(times))
    assert timed.call("local_state", lambda: 1) == 1
    assert timed.call("local_state", lambda: 2) == 2
    assert counters["delegate.slow"] == counters["delegate.slow.local_state"] == 1
    assert "local_state took 200 ms" in caplog.text


def test_leaving_is_there_only_if_the_user_has_it(timed: Timed, counters: Counters) -> None:
    class Leaver(User):
        words: ClassVar[list[Any]] = [None, bytearray(b"bye")]

        def leaving(self) -> Any:
            return self.words.pop(0)

    assert not hasattr(Supply(User(), timed), "leaving")
    leaving = getattr(Supply(Leaver(), timed), "leaving")  # noqa: B009
    assert [leaving(), leaving(), leaving()] == [b"", b"bye", b""]
    assert counters["delegate.faults.leaving"] == 1, "the last one raised"


def test_methods_may_be_missing(timed: Timed, counters: Counters) -> None:
    class Hears:
        def notify_msg(self, data: bytes) -> None: ...

    supply = Supply(Hears(), timed)  # type: ignore[arg-type]
    assert supply.node_meta(512) == supply.local_state(True) == b""
    assert supply.get_broadcasts(3, 100) == ()
    assert PingSupply(Hears(), timed).ack_payload() == b""  # type: ignore[arg-type]
    assert counters["delegate.faults"] == 0
