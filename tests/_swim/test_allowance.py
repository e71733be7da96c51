"""One datagram buys little: at most four, less than five times its bytes, whatever is in it and whoever plays it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mycorrizal import BasePingDelegate
from mycorrizal._swim.allowance import Allowance
from mycorrizal._swim.machine import Swim
from mycorrizal._wire.messages import AckResp, Alive, Dead, IndirectPing, Message, NackResp, Ping, Suspect, User
from mycorrizal.types import Address, pack_host
from tests._swim.harness import VSN, alive, drain, host_for, make, run_timers, sent, tell
from tests.golden import cases
from tests.keys import key_of

STRANGER: Address = ("203.0.113.9", 5555)
VICTIM = pack_host("198.51.100.7")
PEER: Address = (host_for("peer"), 7946)
RELAYED = 12
"""Pings on others' behalf that wait for an answer when the datagram comes."""


class Talkative(BasePingDelegate):
    """A delegate that always has something to say."""

    def node_meta(self, limit: int) -> bytes:
        return bytes(limit)

    def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
        return [b"x"] * max(0, limit // (overhead + 1))

    def local_state(self, join: bool) -> bytes:
        return b""

    def ack_payload(self) -> bytes:
        return bytes(1000)


def crowded(*, left: bool = False, **options: Any) -> Swim:
    """Return a machine that has much to tell, much under way, and takes its time with suspects."""
    talks = Talkative()
    swim = make(
        "self", delegates={"delegate": talks, "ping": talks}, suspicion_min_timeout=60.0, suspicion_min_nodes=50,
        gossip_verify_incoming=False, **options,
    )  # fmt: skip
    if left:
        swim.leave(0.0)
        swim._core.queue.reset()  # the farewell is work of its own, once
    for name in ("peer", "other", "third", "fourth"):
        tell(swim, alive(name, incarnation=5, meta=bytes(512)))
    tell(swim, alive("lost"), Dead(1, "lost", "peer"))
    for number in range(RELAYED):
        tell(swim, IndirectPing(number, VICTIM, 7946, "asker", False, VICTIM, 7946, "asker"))
    drain(swim)
    return swim


def bought(swim: Swim, datagram: bytes, sender: Address, now: float) -> list[tuple[bytes, Address]]:
    """Return all that was sent on account of a datagram, also later."""
    swim.receive_datagram(datagram, sender, now)
    run_timers(swim, now + 2.0)
    return swim.datagrams_to_send()


names = st.sampled_from(["", "self", "peer", "other", "third", "lost", "stranger", "n" * 255])
hosts = st.sampled_from([b"", VICTIM, pack_host(PEER[0]), pack_host("10.0.0.1"), bytes(16)])
ports = st.sampled_from([0, 1, 53, 7946])
incarnations = st.integers(0, 7)
metas = st.sampled_from([None, b"", bytes(512)])
numbers = st.integers(0, RELAYED + 2)
sources = st.tuples(hosts, ports, names)
messages = st.one_of(
    st.builds(lambda n, name, s: Ping(n, name, *s), numbers, st.sampled_from(["", "self"]), sources),
    st.builds(
        lambda n, to, port, name, nack, s: IndirectPing(n, to, port, name, nack, *s),
        numbers, hosts, ports, names, st.booleans(), sources,
    ),
    st.builds(AckResp, numbers, metas),
    st.builds(NackResp, numbers),
    st.builds(Suspect, incarnations, names, names),
    st.builds(Dead, incarnations, names, names),
    st.builds(Alive, incarnations, names, hosts, ports, metas, st.just(VSN)),
    st.builds(User, st.sampled_from([b"", b"\x05\x80", b"\x06\x80", b"text"])),
)  # fmt: skip


def test_an_allowance_is_used_up_to_the_last_byte_and_datagram() -> None:
    whole = Allowance(100)
    assert whole.room == 499 and not whole.take(500) and whole.take(499) and whole.room == 0
    several = Allowance(100)
    assert not several.take(250, 2) and several.take(200, 2) and several.room == 99
    assert not several.take(1, 3) and several.take(1) and several.take(1) and several.room == 0
    assert not several.take(0)
    few = Allowance(100)
    kept = few.aside(100, 2)
    assert kept is not None and (kept.room, few.room) == (200, 299)
    assert kept.take(50) and kept.take(50) and not kept.take(50) and kept.room == 0
    assert few.aside(200, 2) is None and few.room == 299


def test_half_of_what_is_bought_is_left_for_the_next_answer() -> None:
    swim = crowded(enable_compression=False)
    codec = swim._core.codec
    pings = [codec.encode(Ping(number, "self", pack_host(PEER[0]), 7946, "peer")) for number in (1, 2)]
    [datagram] = codec.seal(pings, crc=False)
    swim.receive_datagram(datagram, PEER, 0.0)
    answers = sent(swim)
    assert sorted(message.seq_no for message, _ in answers if isinstance(message, AckResp)) == [1, 2]
    assert any(not isinstance(message, AckResp) for message, _ in answers), "and something is told beside them"


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
@pytest.mark.parametrize("secret_key", [None, key_of("a", 16)], ids=["keyless", "sealed"])
@settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate, Phase.shrink])
@given(
    contents=st.lists(messages, min_size=1, max_size=40), sender=st.sampled_from([STRANGER, PEER, ("10.0.0.1", 7946)]),
    compress=st.booleans(), left=st.booleans(), repeat=st.integers(1, 2), label=st.sampled_from(["", "cluster"]),
)  # fmt: skip
def test_one_datagram_buys_little(
    wire: str, secret_key: bytes | None, contents: list[Message], sender: Address, compress: bool, left: bool,
    repeat: int, label: str,
) -> None:  # fmt: skip
    swim = crowded(wire=wire, secret_key=secret_key, enable_compression=compress, left=left, label=label)
    first = swim._core._sequence - RELAYED  # so that acknowledgements are those that are waited for
    moved = [_moved(message, first) for message in contents * repeat]
    codec = swim._core.codec
    for datagram in codec.seal([codec.encode(message) for message in moved], crc=False):
        for play in range(2):
            out = bought(swim, datagram, sender, 3.0 * play)
            assert len(out) <= 4
            assert sum(len(data) for data, _ in out) < 5 * len(datagram)


def _moved(message: Message, by: int) -> Message:
    if isinstance(message, (AckResp, NackResp)):
        payload = (message.payload,) if isinstance(message, AckResp) else ()
        return type(message)((message.seq_no + by) & 0xFFFFFFFF, *payload)
    return message


def test_what_a_datagram_bought_without_the_bound() -> None:
    swim = crowded(limit_answers=False)
    codec = swim._core.codec
    [datagram] = codec.seal([codec.encode(Ping(1, "", VICTIM, 53, ""))] * 50, crc=False)
    out = bought(swim, datagram, STRANGER, 0.0)
    assert len(out) == 50
    assert sum(len(data) for data, _ in out) > 20 * len(datagram)


def test_what_was_withheld_is_counted() -> None:
    swim = crowded()
    codec = swim._core.codec
    [datagram] = codec.seal([codec.encode(Ping(1))] * 5, crc=False)
    before = swim.counters.get("answers_withheld", 0)
    assert [m for m, _ in sent_after(swim, datagram)] == [AckResp(1, None)] * 4, "the payload would be too much"
    assert swim.counters["answers_withheld"] == before + 6, "four payloads, and twice the fifth"


def sent_after(swim: Swim, datagram: bytes, sender: Address = STRANGER) -> list[tuple[Message, Address]]:
    swim.receive_datagram(datagram, sender, 0.0)
    return sent(swim)


# -- what honest traffic needs -------------------------------------------------------------------


@pytest.mark.parametrize("source", [(b"", 0, ""), (VICTIM, 7946, "stranger"), (VICTIM, 7946, "peer")])
def test_a_stranger_gets_its_acknowledgement_and_nothing_beside(source: tuple[bytes, int, str]) -> None:
    swim = make()
    tell(swim, alive("peer"))
    assert len(swim._core.queue)
    swim.datagrams_to_send()
    tell(swim, Ping(7, "self", *source), sender=STRANGER)
    to = ("198.51.100.7", 7946) if source[0] else STRANGER
    assert sent(swim) == [(AckResp(7, None), to)]


def test_a_member_gets_broadcasts_with_its_acknowledgement() -> None:
    swim = make()
    tell(swim, alive("peer"))
    drain(swim)
    tell(swim, Ping(7, "self", pack_host(PEER[0]), 7946, "peer"), sender=PEER)
    (ack, to), *rest = sent(swim)
    assert (ack, to) == (AckResp(7, None), PEER)
    assert rest and all(isinstance(m, Alive) and at == PEER for m, at in rest)


def test_three_pings_in_one_packet_are_answered() -> None:
    swim = make()
    codec = swim._core.codec
    parts = [codec.encode(Ping(n, "self", VICTIM, 53, "test")) for n in range(3)]
    drain(swim)
    for datagram in codec.seal(parts, crc=False):
        assert [m for m, _ in sent_after(swim, datagram)] == [AckResp(n, None) for n in range(3)]


def test_the_farewell_goes_to_everybody_though_an_answer_let_it_go() -> None:
    swim = make(retransmit_mult=1)
    peers = [f"p{n}" for n in range(9)]
    tell(swim, *(alive(name) for name in peers))
    swim._core.queue.reset()
    swim.leave(0.0)
    told: set[Address] = set()
    for _ in range(3):  # each relayed ping takes the broadcast along, the last of them lets the farewell go
        drain(swim)
        host = pack_host(host_for("p0"))
        tell(swim, IndirectPing(1, host, 7946, "p0", False, host, 7946, "p0"))
        told |= {to for message, to in sent(swim) if isinstance(message, Dead)}
    assert len(told) == len(peers)


def test_a_nack_is_sent_though_the_ping_took_what_it_could_and_brings_no_more_than_is_left() -> None:
    swim = crowded()
    peer = pack_host(PEER[0])
    codec = swim._core.codec
    request = codec.encode(IndirectPing(1, peer, 7946, "peer", True, peer, 7946, "peer"))
    [datagram] = codec.seal([request, codec.encode(Ping(2, "self", peer, 7946, "peer"))], crc=False)
    out = bought(swim, datagram, PEER, 0.0)
    assert NackResp(1) in [m for data, _ in out for m in codec.open(data).messages]
    assert sum(len(data) for data, _ in out) < 5 * len(datagram)


def test_a_probe_that_another_one_held_up_is_no_answer() -> None:
    swim = make()
    tell(swim, alive("peer"), alive("other"))
    swim._core.config.__dict__.update(probe_interval=1.0)
    member = swim._core.table.get("peer")
    assert member is not None
    swim._prober.probe_member(member, 0.0)
    swim._prober._missed_tick = True
    drain(swim)
    tell(swim, AckResp(swim._core._sequence, None), now=0.1)
    assert sent(swim) == []
    assert swim.get_timer() == 0.1
    swim.handle_timer(0.1)
    assert [type(m) for m, _ in sent(swim) if isinstance(m, Ping)] == [Ping]


def test_a_claim_that_may_not_be_looked_into_takes_nobodys_name() -> None:
    swim = make()
    tell(swim, *(alive(f"peer{n}") for n in range(20)))
    drain(swim)
    codec = swim._core.codec
    claims = [codec.encode(alive(f"peer{n}", "10.66.0.1", 2)) for n in range(20)]
    for datagram in codec.seal(claims, crc=False):
        assert len([m for m, _ in sent_after(swim, datagram) if isinstance(m, Ping)]) <= 2
    run_timers(swim, 5.0)
    moved = [node.name for node in swim.members() if node.host == "10.66.0.1"]
    assert len(moved) == 2, "the two whose old address was asked, and was silent"


@pytest.mark.parametrize("case", cases("ping.handling"), ids=lambda case: case["note"][:40])
def test_pings_that_Go_answers_are_answered_alike_within_the_bound(case: dict[str, Any]) -> None:
    swim = make(probe_timeout=0.08, require_node_names="RequireNodeNames" in case["note"], refuse_echoes=False)
    swim._core.queue.reset()
    drain(swim)
    swim.receive_datagram(bytes.fromhex(case["input"]["packet_hex"]), ("192.0.2.9", 5555), 0.0)
    run_timers(swim, 0.13)
    went = [f"{to[0]}:{to[1]}" for _, to in swim.datagrams_to_send()]
    assert went == [s["to_addr"] for s in case["output"]["sent"]]
    assert "answers_withheld" not in swim.counters
