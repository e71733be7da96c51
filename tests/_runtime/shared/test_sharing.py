"""What an agent shares, on the gossip thread: pushes to members, their repair, and who waits. Without a thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mycorrizal._replica.outputs import SyncDone
from mycorrizal._replica.share import PREFIX
from mycorrizal._runtime.shared import sharing as sharing_module
from mycorrizal._runtime.shared.sharing import (
    _BATCH_BYTES,
    _BATCH_MESSAGES,
    _FETCH,
    _LANE_BUSY,
    _LANE_MAX,
    _LANE_SECONDS,
    _PUSH,
    _REPAIR_LATEST,
    _REPAIR_SECONDS,
    _ROUND_SECONDS,
    STALLED,
    _Lane,
)
from mycorrizal._runtime.threads import clock
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._swim import events as swim
from mycorrizal._wire.meta import AgentMeta, agent_meta
from mycorrizal._wire.values import decode_packed, encode_value
from mycorrizal.config import RESERVED
from mycorrizal.delegates import BaseDelegate
from mycorrizal.exceptions import MycorrizalError, NotRunningError, PeerUnreachable, QueueFull
from mycorrizal.types import Node, NodeState

from .alone import Alone, sharing_of

Done = Callable[[bytes | None, MycorrizalError | None], None]


class FakeCarrier:
    """Keeps what is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, float, Done]] = []

    def ask(self, node: str, payload: bytes, timeout: float, done: Done) -> None:
        self.asked.append((node, payload, timeout, done))

    def pushes(self) -> list[Done]:
        return [done for _, payload, _, done in self.asked if payload[:1] == _PUSH]


class Rig:
    """One agent's sharing, whose clock is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = clock.now()
        monkeypatch.setattr(clock, "now", lambda: self.now)
        monkeypatch.setattr(sharing_module, "pause", self.pass_time)
        self.membership = Alone()
        self.sharing = sharing_of(self.membership)
        self.carrier = FakeCarrier()
        self.sharing.carry(cast(Any, self.carrier))
        self.events: list[Any] = []
        self.sharing.on_event = self.events.append

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def join(self, name: str) -> None:
        self.sharing.observe(swim.NodeJoined(node(name)), self.now)

    def push(self, count: int = 1, target: str = "bob") -> None:
        for _ in range(count):
            self.sharing._push(target, _PUSH + b"x", 1, self.now)

    def counted(self, name: str) -> int:
        return self.sharing.counters[name]


def node(name: str) -> Node:
    return Node(name, b"\x7f\0\0\1", 7946, agent_meta(AgentMeta(1, name.encode().ljust(8)), None))


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    one = Rig(monkeypatch)
    yield one
    one.membership.close()


# -- pushes ------------------------------------------------------------------------------------


def test_pushes_on_their_way_to_one_member_are_bounded_and_what_is_dropped_is_repaired(rig: Rig) -> None:
    rig.join("bob")
    rig.push(_LANE_MAX + 3)
    assert len(rig.carrier.pushes()) == _LANE_MAX
    assert rig.counted("share.pushes_dropped") == 3
    assert rig.sharing._lost == {"bob": rig.now + _REPAIR_SECONDS}


def test_what_is_told_within_a_moment_is_pushed_together(rig: Rig) -> None:
    """A thousand settings are some payloads to each member, encoded once, and not a thousand."""
    sharing, now = rig.sharing, rig.now
    for name in ("bob", "eve"):
        rig.join(name)
    sharing.replica.set_setting("first", b"0", now)
    sharing.pump(now)
    assert len(rig.carrier.pushes()) == 2, "the first goes at once"
    for number in range(1000):
        sharing.replica.set_setting(f"k{number}", b"1", now)
        sharing.pump(now)
    assert len(rig.carrier.pushes()) == 2 and sharing.get_timer() == now + _ROUND_SECONDS
    sharing.pump(now + _ROUND_SECONDS)
    sent = [payload for _, payload, _, _ in rig.carrier.asked[2:]]
    assert len(sent) == 2 * math.ceil(1000 / _BATCH_MESSAGES) and len(set(map(id, sent))) == len(sent) // 2
    assert sharing._lanes["bob"].waiting == 1001
    other, answers = sharing_of(rig.membership), list[bytes]()
    for payload in sent:
        other.serve("me", payload, answers.append)
        rig.membership.mailbox.run()
    assert len(other.replica.settings) == 1000 and len(answers) == len(sent)


def test_what_is_large_does_not_wait_for_the_next_round(rig: Rig) -> None:
    sharing, now = rig.sharing, rig.now
    rig.join("bob")
    for size in (_BATCH_BYTES, _BATCH_BYTES, 20_000):
        sharing.replica.publish("t", bytes(size), now)
        sharing.pump(now)
    assert len(rig.carrier.pushes()) == 2
    sharing.pump(now + _ROUND_SECONDS)
    assert len(rig.carrier.pushes()) == 3


def test_who_leaves_waits_for_what_the_next_round_tells(rig: Rig) -> None:
    rig.join("bob")
    for number in range(2):
        rig.sharing.replica.set_setting(f"k{number}", b"1", rig.now)
        rig.sharing.pump(rig.now)
    answer = rig.carrier.ask

    def ask(node: str, payload: bytes, timeout: float, done: Done) -> None:
        answer(node, payload, timeout, done)
        done(b"", None)

    rig.carrier.ask = ask  # type: ignore[method-assign]
    rig.carrier.pushes()[0](b"", None)
    rig.sharing.settle(Deadline(10.0))
    assert len(rig.carrier.pushes()) == 2


def test_who_leaves_waits_for_the_round_that_tells_directly_too(rig: Rig) -> None:
    told: list[int] = []
    rig.membership.machine = SimpleNamespace(send_users=lambda what, names, now: told.append(len(what)))  # type: ignore[attr-defined]
    rig.sharing = sharing_of(rig.membership, gossip=True)
    rig.join("bob")
    for number in range(2):
        rig.sharing.replica.set_setting(f"k{number}", b"1", rig.now)
        rig.sharing.pump(rig.now)
    rig.sharing.settle(Deadline(10.0))
    assert told == [1, 1]


def test_more_than_gossip_carries_is_told_in_fewer_and_larger_rounds(rig: Rig) -> None:
    rounds: list[float] = []
    rig.membership.machine = SimpleNamespace(send_users=lambda what, names, now: rounds.append(now))  # type: ignore[attr-defined]
    rig.sharing = sharing_of(rig.membership, gossip=True)
    rig.join("bob")
    for number in range(500):
        rig.sharing.replica.set_setting(f"k{number}", b"1", rig.now)
        rig.sharing.pump(rig.now)
        rig.now += 0.001
    assert rig.sharing.replica.counters["spread.batched"] > 300
    assert len(rounds) < 8 + 370 / 50 + 2, "at first one in 20 ms, then one in 50"


def test_a_push_that_is_no_list_of_messages_is_refused(rig: Rig) -> None:
    answers: list[bytes] = []
    rig.sharing.serve("bob", _PUSH + b"rubbish", answers.append)
    assert answers == [b""] and rig.counted("share.rejected") == 1


def test_a_push_that_failed_is_over_counted_and_repaired(rig: Rig) -> None:
    rig.join("bob")
    rig.push(2)
    first, second = rig.carrier.pushes()
    first(b"", None)
    assert rig.sharing._lost == {}
    rig.now += 1.0
    second(None, PeerUnreachable("gone"))
    assert rig.counted("share.pushes_failed") == 1
    assert rig.sharing._lanes["bob"].waiting == 0
    rig.sharing.pump(rig.now)
    assert not [one for one in rig.carrier.asked if one[1][:1] == _FETCH]  # not at once
    rig.now += _REPAIR_SECONDS
    rig.sharing.pump(rig.now)
    assert [one[0] for one in rig.carrier.asked if one[1][:1] == _FETCH] == ["bob"]
    assert rig.counted("share.repairs") == 1 and rig.sharing._lost == {}


def test_a_repair_waits_for_a_moment_without_pushes_but_not_for_ever(rig: Rig) -> None:
    rig.join("bob")
    rig.push(2)
    rig.carrier.pushes()[0](None, PeerUnreachable("gone"))
    rig.now += _REPAIR_SECONDS + _REPAIR_LATEST - 0.1
    rig.sharing.pump(rig.now)
    assert rig.counted("share.repairs") == 0
    rig.now += 0.2
    rig.sharing.pump(rig.now)
    assert rig.counted("share.repairs") == 1


def test_who_is_no_member_any_more_is_neither_repaired_nor_waited_for(rig: Rig) -> None:
    rig.join("bob")
    rig.push(_LANE_BUSY + 1)
    rig.carrier.pushes()[0](None, PeerUnreachable("gone"))
    with pytest.raises(QueueFull):
        rig.sharing.check(rig.now)
    rig.sharing.observe(swim.NodeLeft(node("bob")), rig.now)
    rig.sharing.check(rig.now)
    rig.now += _REPAIR_SECONDS
    rig.sharing.pump(rig.now)
    assert rig.sharing._lost == {} and rig.counted("share.repairs") == 0


def test_who_is_behind_is_waited_for_as_long_as_it_answers() -> None:
    lane = _Lane(100.0)
    lane.begun = _LANE_BUSY - 1
    assert not lane.busy(100.0)
    lane.begun += 1
    assert lane.busy(100.0) and lane.busy(100.0 + _LANE_SECONDS - 0.01)
    assert not lane.busy(100.0 + _LANE_SECONDS)


def test_who_tells_waits_for_those_behind_and_who_only_asks_does_not(rig: Rig) -> None:
    rig.join("bob")
    rig.push(_LANE_BUSY)
    ran: list[float] = []
    with pytest.raises(QueueFull):
        rig.sharing.tell(ran.append, Deadline(0.0), "settings.set")
    rig.sharing.call(ran.append, Deadline(0.0), "settings.get")
    assert ran == [rig.now]


# -- calls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("retriable", [True, False])
def test_a_call_waits_for_room_unless_there_will_be_none(rig: Rig, retriable: bool) -> None:
    tries: list[float] = []

    def full(now: float) -> str:
        tries.append(now)
        if len(tries) < 3:
            raise QueueFull("full", retriable=retriable)
        return "done"

    if retriable:
        assert rig.sharing.call(full, Deadline(None), "broadcast") == "done"
    else:
        with pytest.raises(QueueFull):
            rig.sharing.call(full, Deadline(None), "broadcast")
        assert len(tries) == 1


def test_what_a_file_keeps_can_be_read_after_the_end_too(rig: Rig) -> None:
    rig.sharing.call(lambda now: rig.sharing.replica.set_setting("k", b"\xf6", now), Deadline(None), "set")
    before = rig.sharing.kept(["k", "other"])
    rig.membership.end()
    assert rig.sharing.kept(["k", "other"]) == before and list(before) == ["k"]


def test_payloads_of_unknown_kind_and_without_room_are_counted(rig: Rig) -> None:
    answers: list[bytes] = []
    rig.sharing.serve("bob", b"\x77what", answers.append)
    assert rig.counted("share.rejected") == 1 and answers == [b""]
    for _ in range(6):
        rig.sharing.serve("bob", _PUSH + encode_value([b"x"]).pack(), answers.append)
    # What had no room is not said to be here.
    assert rig.counted("share.dropped") == 2 and answers == [b""] * 5


def test_an_exchange_of_states_that_fails_is_an_error_of_its_caller(rig: Rig) -> None:
    good, bad = Future[None](), Future[None]()
    rig.sharing._syncs = {1: good, 2: bad}
    rig.sharing._synced(SyncDone(1))
    rig.sharing._synced(SyncDone(2, "no answer"))
    assert good.result(0) is None
    error = bad.exception(0)
    assert isinstance(error, PeerUnreachable) and error.operation == "join"
    assert rig.sharing._syncs == {}


def test_nobody_waits_after_the_end(rig: Rig) -> None:
    waiting, ended = Future[None](), []
    rig.sharing._syncs = {1: waiting}
    rig.sharing.on_end = lambda: ended.append(True)
    rig.sharing.ended()
    assert isinstance(waiting.exception(0), NotRunningError) and ended == [True]


def test_what_is_told_within_a_moment_shares_packets(rig: Rig) -> None:
    told: list[tuple[list[bytes], list[str]]] = []
    rig.membership.machine = SimpleNamespace(send_users=lambda what, names, now: told.append((what, names)))  # type: ignore[attr-defined]
    rig.sharing = sharing_of(rig.membership, gossip=True)
    rig.join("bob")
    rig.join("carol")
    for number in range(10):
        rig.sharing.replica.set_setting(f"k{number}", b"v", rig.now)
        rig.sharing.pump(rig.now)
    assert [(len(what), names) for what, names in told] == [(1, ["bob", "carol"])], "the first at once"
    due = rig.sharing.get_timer()
    assert due is not None and rig.now < due <= rig.now + 0.02
    rig.now = due
    rig.sharing.handle_timer(rig.now)
    rig.sharing.pump(rig.now)
    rig.sharing.pump(rig.now + 1.0)
    assert [len(what) for what, _ in told] == [1, 9]
    assert all(message.startswith(PREFIX) for what, _ in told for message in what)


# -- what membership says ------------------------------------------------------------------------


def test_rivals_are_of_this_name_and_bounded_the_latest_first(rig: Rig) -> None:
    for number in range(20):
        other = Node("me", bytes(4), number)
        rig.sharing.observe(swim.NodeConflict(Node("me", bytes(4), 7946), other), rig.now)
    rig.sharing.observe(swim.NodeConflict(Node("bob", bytes(4), 7946), Node("bob", bytes(4), 1)), rig.now)
    assert [rival.port for rival in rig.sharing.rivals] == list(range(19, 11, -1))


def test_a_stall_is_told(rig: Rig) -> None:
    rig.sharing.observe(swim.Stalled(2.5), rig.now)
    rig.sharing.pump(rig.now)
    assert [getattr(event, "topic", None) for event in rig.events] == [STALLED]


def test_stalls_in_a_row_are_told_together(rig: Rig) -> None:
    for _ in range(4):
        rig.sharing.observe(swim.Stalled(1.5), rig.now)
        rig.pass_time(0.5)
        rig.sharing.handle_timer(rig.now)
    due = rig.sharing.get_timer()
    assert due is not None and due <= rig.now + 3.0
    rig.pass_time(3.0)
    rig.sharing.handle_timer(rig.now)
    rig.sharing.handle_timer(rig.now + 60.0)
    rig.sharing.pump(rig.now)
    told = [decode_packed(cast(Any, event).value) for event in rig.events if getattr(event, "topic", None) == STALLED]
    assert told == [1.5, 4.5]


def test_a_delegate_that_has_a_last_word_is_asked_for_it(rig: Rig) -> None:
    class Leaver(BaseDelegate):
        def leaving(self) -> bytes:
            return b"bye"

    assert cast(Any, rig.sharing.supply(Leaver())).leaving() == b"bye"
    assert not hasattr(rig.sharing.supply(BaseDelegate()), "leaving")


# -- who announces caches ------------------------------------------------------------------------

HIDDEN = RESERVED + "x/1"


def test_whoever_asks_late_is_told_of_all_of_before_and_then_of_what_changes(rig: Rig) -> None:
    sharing, told = rig.sharing, cast("list[tuple[set[str], list[tuple[str, str]]]]", [])
    rig.join(sharing.replica.name)
    sharing.replica.register(HIDDEN, b"r", rig.now)
    sharing.pump(rig.now)
    sharing.on_view = lambda up, services: told.append(({*up}, [*services]))
    sharing.pump(rig.now)
    me = sharing.replica.name
    assert told == [({me}, [(me, HIDDEN)])]
    sharing.replica.register("api", b"r", rig.now)
    sharing.pump(rig.now)
    sharing.pump(rig.now)
    assert len(told) == 1, "a user's service is nobody's cache"
    sharing.replica.deregister(HIDDEN, rig.now)
    rig.join("bob")
    sharing.pump(rig.now)
    assert told[1:] == [({me, "bob"}, [(me, HIDDEN)])]


def test_nothing_is_pushed_to_who_has_gone_and_nothing_is_kept_of_it(rig: Rig) -> None:
    sharing = rig.sharing
    rig.join(sharing.replica.name)
    for number in range(20):
        rig.join(f"n{number}")
        sharing.replica.publish("t", bytes(20_000), rig.now)
        rig.now += _ROUND_SECONDS
        if number % 2:
            sharing.pump(rig.now)
        sharing.observe(swim.NodeLeft(node(f"n{number}")), rig.now)
        sharing.pump(rig.now)
    assert len(rig.carrier.pushes()) == 10 and sharing._lanes == {}


def test_a_member_that_is_suspect_does_not_tell_the_others(rig: Rig) -> None:
    names = [f"n{number}" for number in range(6)]
    for name in names:
        rig.join(name)
    rig.membership.members = tuple(replace(node(name), state=NodeState(name == "n0")) for name in names)
    rig.sharing._announcing._name = "zoe"
    rig.sharing._announcing.tell(b"x", lambda heard: None)
    assert [name for name, *_ in rig.carrier.asked] == ["n1"]
