"""Admission: what members, strangers and floods get. Pure."""

from __future__ import annotations

from collections import Counter

import pytest

from mycorrizal._runtime.quic.trust.admission import Admission, Bucket, Verdict, WaitingRoom


def offer(
    gate: Admission, now: float, host: str = "192.0.2.1", knock: bytes | None = None, validated: bool = False
) -> Verdict:
    verdict = gate.decide(host, knock=knock, validated=validated, now=now)
    if verdict is Verdict.ACCEPT:
        gate.opened(member=knock is not None)
    return verdict


def test_bucket() -> None:
    bucket = Bucket(10, 3, 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(0.05) and bucket.take(0.1) and not bucket.take(0.1)
    assert bucket.level(100.0) == 3
    assert not Bucket(1, 0, 5.0).take(1.0)  # a clock that went back


def test_stranger_is_let_in_when_it_is_quiet() -> None:
    gate = Admission(64, 16, knocking=True, now=0.0)
    assert offer(gate, 0.0) is Verdict.ACCEPT
    assert gate.unproven == gate.strangers == 1
    gate.settled(member=False)
    assert gate.unproven == 0


def test_retry_above_the_threshold_and_above_the_rate() -> None:
    gate = Admission(64, 2, knocking=True, now=0.0)
    assert [offer(gate, 0.0) for _ in range(3)] == [Verdict.ACCEPT, Verdict.ACCEPT, Verdict.RETRY]
    assert offer(gate, 0.0, validated=True) is Verdict.ACCEPT
    gate = Admission(64, 64, knocking=True, now=0.0)
    verdicts = Counter(offer(gate, 0.0, host=f"192.0.2.{i}") for i in range(30))
    assert verdicts[Verdict.RETRY] == 20


def test_strangers_leave_room_for_members() -> None:
    gate = Admission(8, 100, knocking=True, now=0.0)
    for i in range(100):
        offer(gate, float(i), host=f"192.0.2.{i}", validated=True)
    assert gate.strangers == 4
    assert offer(gate, 100.0, validated=True) is Verdict.STRANGERS
    assert [offer(gate, 100.0, knock=bytes([i])) for i in range(5)] == [Verdict.ACCEPT] * 4 + [Verdict.FULL]


def test_a_flood_buys_few_handshakes_and_members_all_of_theirs() -> None:
    gate = Admission(64, 16, knocking=True, now=0.0)
    strangers: Counter[Verdict] = Counter()
    members: Counter[Verdict] = Counter()
    for tick in range(2000):  # 10 s of 200 a second, each answered and given up at once
        now = tick / 200
        verdict = offer(gate, now, host=f"203.0.113.{tick % 200}", validated=tick % 2 == 0)
        strangers[verdict] += 1
        if verdict is Verdict.ACCEPT:
            gate.settled(member=False)
        if tick % 100 == 0:
            members[offer(gate, now, knock=b"%d" % tick)] += 1
            gate.settled(member=True)
    assert strangers[Verdict.ACCEPT] <= 130
    assert members == {Verdict.ACCEPT: 20}


def test_one_address_cannot_take_all() -> None:
    gate = Admission(1000, 64, knocking=False, now=0.0)
    verdicts = Counter(offer(gate, 0.0, validated=True) for _ in range(200))
    assert verdicts == {Verdict.ACCEPT: 100, Verdict.SOURCE: 100}
    gate = Admission(1000, 64, knocking=True, now=0.0)
    for i in range(100):
        offer(gate, 0.0, host=f"2001:db8:0:1::{i:x}", validated=True)
    assert offer(gate, 0.0, host="2001:db8:0:1::ffff", validated=True) is Verdict.SOURCE
    assert offer(gate, 1.0, host="2001:db8:0:2::1", validated=True) is Verdict.ACCEPT
    gate = Admission(1000, 64, knocking=False, now=0.0)  # a prefix that is written shorter is no less one
    verdicts = Counter(offer(gate, 0.0, host=f"2001:db8::{i:x}", validated=True) for i in range(1, 201))
    assert verdicts == {Verdict.ACCEPT: 100, Verdict.SOURCE: 100}


SUBSCRIBERS = {
    "compressed": [*(f"2001:db8::{i:x}" for i in range(1, 9)), "2001:db8:0:0:9::", "2001:DB8::1:2:3:4", "2001:db8::%1"],
    "the first of all": ["::2", "::1:2", "::1:2:3:4", "0:0:0:0:1:2:3:4", "::5%eth0", "0::6", "::ABCD", "::7:0"],
    "link-local": [f"fe80::{i}%{zone}" for i in range(1, 5) for zone in ("eth0", "eth1", "2")],
    "one IPv4": ["192.0.2.7", "::ffff:192.0.2.7", "::FFFF:192.0.2.7", "::ffff:c000:207", "0:0:0:0:0:ffff:c000:0207"],
}


@pytest.mark.parametrize("hosts", SUBSCRIBERS.values(), ids=SUBSCRIBERS)
def test_a_source_is_one_however_its_address_is_spelt(hosts: list[str]) -> None:
    gate = Admission(1000, 64, knocking=True, now=0.0)  # 10 for each source
    verdicts = [offer(gate, 0.0, host=hosts[i % len(hosts)], validated=True) for i in range(12)]
    assert verdicts == [Verdict.ACCEPT] * 10 + [Verdict.SOURCE] * 2
    others = ["2001:db8:0:1::1", "192.0.2.8", "::1:0:0:0:1", "fe80:0:0:1::1"]
    assert [offer(gate, 1.0, host=host, validated=True) for host in others] == [Verdict.ACCEPT] * 4


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::1%lo"])
def test_loopback_is_not_rationed_where_there_are_no_members(host: str) -> None:
    gate = Admission(1000, 0, knocking=False, now=0.0)
    assert {offer(gate, 0.0, host=host) for _ in range(500)} == {Verdict.ACCEPT}


def test_a_knock_that_was_overheard_is_soon_worth_nothing() -> None:
    gate = Admission(1000, 0, knocking=True, now=0.0)
    verdicts = Counter(offer(gate, 0.0, knock=b"same") for _ in range(100))
    assert verdicts == {Verdict.ACCEPT: 16, Verdict.RETRY: 84}
    assert offer(gate, 0.0, knock=b"other") is Verdict.ACCEPT


def test_tables_are_bounded() -> None:
    gate = Admission(1 << 16, 1 << 16, knocking=True, now=0.0)
    for i in range(20_000):
        gate.decide(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", knock=None, validated=True, now=0.0)
        gate.decide("10.0.0.1", knock=b"%d" % i, validated=False, now=0.0)
    assert len(gate._sources) <= 4096 and len(gate._knocks) <= 8192
    gate.decide("10.0.0.1", knock=b"late", validated=False, now=1000.0)
    assert len(gate._knocks) == 1


def test_without_knocks_this_host_is_not_rationed() -> None:
    gate = Admission(1000, 1000, knocking=False, now=0.0)
    assert Counter(offer(gate, 0.0, host="127.0.0.1") for _ in range(500)) == {Verdict.ACCEPT: 500}
    assert offer(gate, 0.0, host="::1") is Verdict.ACCEPT


def test_waiting_room_is_first_come_bounded_and_forgets() -> None:
    room: WaitingRoom[str] = WaitingRoom(most=2, seconds=3.0)
    assert room.take(0.0) is None and not room
    room.put(b"a", "a", 0.0)
    room.put(b"b", "b", 1.0)
    room.put(b"c", "c", 1.0)
    room.put(b"a", "again", 1.5)
    assert len(room) == 2
    assert [room.take(2.0), room.take(2.0), room.take(2.0)] == ["again", "b", None]
    room.put(b"d", "d", 10.0)
    assert room.take(14.0) is None and not room
