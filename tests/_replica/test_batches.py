"""More at once than gossip carries: told to each in batches, in few packets, without QUIC; what is lost is found."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from mycorrizal._replica import messages
from mycorrizal._replica.batches import _BYTES, _ROUNDS, Batches
from mycorrizal._replica.limits import Limits
from mycorrizal._replica.messages import Batch, LastBatch, Sender
from mycorrizal._replica.outputs import MessageRejected

from .harness import Net, boot, drain, exchange, of, replica

MANY = 1000


def write(net: Net, name: str, count: int = MANY, *, first: int = 0, at_once: int = 100) -> None:
    """Write settings, `at_once` within each turn."""
    for number in range(first, first + count):
        net[name].set_setting(f"key-{number}", b"x" * 20, net.now)
        if number % at_once == at_once - 1:
            net.run(0.1)


def has(net: Net, count: int = MANY) -> dict[str, bool]:
    return {name: len(one.settings) == count for name, one in net.replicas.items()}


def test_a_thousand_settings_come_in_few_packets_and_each_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net("a", "b", "c", "d", direct=True)
    decoded: list[bytes] = []
    decode = messages.decode

    def noted(raw: bytes) -> Any:
        decoded.append(raw)
        return decode(raw)

    monkeypatch.setattr(messages, "decode", noted)
    write(net, "a")
    assert all(has(net).values()), "nobody waits for a round of repairs"
    assert net["a"].counters.get("spread.pushed", 0) == 0 and net.fetches == [], "nothing needs QUIC"
    batches = net["a"].counters["spread.batched"] * 80 // _BYTES
    for name in "bcd":
        assert net[name].counters["batches"] <= batches
    assert sum(raw[1] == messages.Kind.SETTING for raw in decoded) == 3 * MANY
    net.run(12.0)
    assert net.fetches == [], "all knew that they had all"


def test_what_gossip_brings_again_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = replica("a"), replica("b")
    other.set_setting("key", b"1", 0.0)
    other.register("web", b"80", 0.0)
    raws = [other.settings_entries()[0].data, other.service_message("web")]
    for raw in raws:
        one.receive(raw, 0.0)
    monkeypatch.setattr(messages, "decode", lambda raw: pytest.fail("it is known"))
    for raw in raws * 3:
        one.receive(raw, 0.0)
    assert one.counters["duplicates"] == 6


def test_a_batch_that_is_lost_comes_with_one_comparison_of_states() -> None:
    net = Net("a", "b", "c", "d", direct=True)
    write(net, "a", 500)
    net.lose = lambda what, source, target: target == "c" and what in ("direct", "gossip")
    write(net, "a", 100, first=500)
    net.lose = lambda what, source, target: False
    write(net, "a", 400, first=600)
    assert has(net) == {"a": True, "b": True, "c": False, "d": True}
    net.run(3.0)
    assert all(has(net).values())
    assert net.fetches == [("c", "a")]
    net.run(20.0)
    assert len(net.fetches) == 1


def test_the_latest_batch_is_missed_too_and_others_have_it_if_its_sender_cannot_be_asked() -> None:
    net = Net("a", "b", "c", "d", direct=True)
    write(net, "a", 900)
    net.lose = lambda what, source, target: "c" in (source, target) and "a" in (source, target)
    write(net, "a", 100, first=900)
    assert not has(net)["c"]
    net.run(10.0)
    assert all(has(net).values())
    assert net.fetches[0] == ("c", "a") and net.fetches[1][0] == "c" and net.fetches[1][1] in "bd"


def test_who_comes_in_the_middle_has_the_batches_of_before_in_its_state() -> None:
    net = Net("a", "b", direct=True)
    write(net, "a", 500)
    new = net.add("c", joined=False)
    exchange(new, net["b"], net.now)
    new.joined(net.now)
    write(net, "a", 500, first=500)
    net.run(12.0)
    assert all(has(net).values()) and net.fetches == []


def test_more_than_buffers_hold_is_pushed_and_a_moment_later_there_is_room_again() -> None:
    net = Net("a", "b", direct=True, limits=Limits(batch_bytes=4000, batch_seconds=2.0))
    write(net, "a", 300, at_once=400)
    pushed = net["a"].counters["spread.pushed"]
    assert net["a"].counters["spread.batched"] < 4000 // 40 and pushed > 50
    net.run(5.0)
    assert all(has(net, 300).values())
    write(net, "a", 130, first=300, at_once=400)
    assert net["a"].counters["spread.pushed"] == pushed


@pytest.mark.parametrize(("limits", "gossip"), [(Limits(direct_peers=2), True), (Limits(), False)])
def test_among_many_and_beside_go_there_are_no_batches(limits: Limits, gossip: bool) -> None:
    net = Net("a", "b", "c", "d", direct=True, gossip=gossip, limits=limits)
    write(net, "a", 300)
    assert net["a"].counters["spread.pushed"] > 100 and "spread.batched" not in net["a"].counters
    net.run(10.0)
    assert all(has(net, 300).values())


def test_what_is_refused_in_a_batch_spoils_nothing_else_and_is_not_passed_on() -> None:
    one, other = replica("a"), replica("b")
    one.member_up("b", other.boot, 0.0)
    one.joined(0.0)
    other.set_setting("key", b"1", 0.0)
    other.register("web", b"80", 0.0)
    sender = Sender("b", other.boot)
    good = (other.settings_entries()[0].data, other.service_message("web"))
    bad = (b"", b"\xff", messages.Event(sender, 1, "t", b"").encode(), Batch(sender, 2, good).encode())
    one.receive(Batch(sender, 1, (*bad, *good)).encode(), 0.0)
    assert one.settings["key"].value == b"1" and one.services == {("b", "web"): b"80"}
    assert len(of(drain(one), MessageRejected)) == len(bad) and one.gauges["queue"] == 0
    one.receive(Batch(sender, 1, good).encode(), 0.0, pushed=True)
    assert one.counters["rejected"] == len(bad)


def test_a_state_may_hold_no_batch() -> None:
    one, sender = replica("a"), Sender("b", boot("b"))
    state = messages.pack(messages.State(b"x" * 16, ()), [(LastBatch(sender, 1, 1).encode(), 0.0)])
    one.merge_state(state, False, 0.0)
    assert one.counters["states.items_refused"] == 1


# -- alone ---------------------------------------------------------------------------------------

LIFE = Sender("b", boot("b"))


class Alone:
    """The batches of one node, and whom it asks."""

    def __init__(self, *up: Sender, **limits: Any) -> None:
        self.up = [LIFE, *up]
        self.asked: list[str] = []
        self.ends: list[Any] = []
        self.counted: list[str] = []
        self.full = False
        self.batches = Batches(
            Sender("a", boot("a")), Limits(**limits), Random(1), is_up=lambda life: life in self.up,
            peers=lambda: [life.name for life in self.up], full=lambda: self.full, ask=self.ask,
            count=self.counted.append,
        )  # fmt: skip
        self.batches.ready = True

    def ask(self, name: str, now: float, ended: Any) -> None:
        self.asked.append(name)
        self.ends.append(ended)


def test_batches_fit_into_packets_and_are_told_again() -> None:
    one = Alone()
    packed = one.batches.packed([bytes(90)] * 25 + [bytes(900)] + [b"x"] * 300, 0.0)
    found = [messages.decode(raw) for raw in packed]
    assert [(it.number, len(it.content)) for it in found if isinstance(it, Batch)] == [
        (1, 10), (2, 10), (3, 5), (4, 1 + 24), (5, 250), (6, 26)
    ]  # fmt: skip
    assert max(map(len, packed)) <= _BYTES + 30
    rounds = []
    while (due := one.batches.due()) is not None:
        rounds.append((due, one.batches.to_announce(due)))
    assert rounds == [(1.0, (6, 1)), (3.0, (6, 2)), (9.0, (6, 3))]


def test_a_hole_that_closes_by_itself_is_asked_for_by_nobody() -> None:
    one = Alone()
    for number in (1, 3, 4, 2):
        one.batches.came(LIFE, number, 0.0)
    assert one.batches.due() is None
    assert one.batches.seen() == ((LIFE, 4),)


def test_comparisons_come_one_after_the_other_and_end() -> None:
    other = Sender("c", boot("c"))
    one = Alone(other)
    for life in (LIFE, other):
        assert one.batches.heard(life, 5, 1, 0.0)
        assert not one.batches.heard(life, 5, 1, 0.0)
    assert one.batches.due() is not None
    one.batches.run(2.0)
    assert one.asked == ["b"] and one.batches.due() is None, "the first may bring what the second lacks"
    one.full = True
    one.ends[-1](2.0)
    assert one.batches.due() is None
    one.full = False
    one.batches.in_state([(other, 5)], 2.0)
    for now in range(3, 60):
        one.batches.run(float(now))
        if len(one.ends) > 1:
            one.ends.pop()(float(now))
    assert one.asked == ["b", "c", "b", "c"][:_ROUNDS] and "batches.given_up" in one.counted
    assert one.batches.due() is None


def test_of_who_is_no_member_and_of_ourselves_nothing_is_kept_but_what_a_state_says() -> None:
    stranger, me = Sender("x", boot("x")), Sender("a", boot("a"))
    one = Alone(senders=2)
    for life in (stranger, me):
        one.batches.came(life, 7, 0.0)
        assert not one.batches.heard(life, 9, 1, 0.0)
    assert one.batches.due() is None and one.batches.seen() == ()
    one.batches.in_state([(me, 9), *((Sender("x", bytes((n,)) * 8), 7) for n in range(5))], 0.0)
    assert len(one.batches._logs) == 2
    one.batches.came(LIFE, 1, 0.0)
    one.batches.member_down(LIFE)
    assert len(one.batches._logs) == 2


def test_what_is_remembered_of_one_sender_is_bounded() -> None:
    one = Alone(held=3)
    for number in range(3, 20):
        one.batches.came(LIFE, number, 0.0)
    assert len(one.batches._logs[LIFE].ahead) == 3
    one.batches.in_state([(LIFE, 19)], 0.0)
    assert one.batches.due() is None and not one.batches._logs[LIFE].ahead


def test_before_the_join_is_done_what_was_earlier_is_not_missed() -> None:
    one = Alone()
    one.batches.ready = False
    one.batches.came(LIFE, 7, 0.0)
    other = Sender("c", boot("c"))
    one.up.append(other)
    assert one.batches.heard(other, 3, 1, 0.0)
    assert one.batches.due() is None
