"""What the parts share: the budget of packets, the bounds of the queue, and who is not sent to."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mycorrizal._swim import core
from mycorrizal._wire.messages import AckResp, Dead, Ping, Suspect, User
from mycorrizal.delegates import BaseDelegate
from tests._swim.harness import alive, drain, host_for, make, sent, tell


def test_the_queue_is_bounded_by_the_table() -> None:
    swim = make(max_nodes=20)
    for n in range(0, 1000, 10):
        tell(swim, *(m for k in range(n, n + 10) for m in (alive(f"p{k}"), Dead(1, f"p{k}", "x"))), now=float(n))
        swim._prober._reap(n + 31.0)
        drain(swim)
    assert len(swim._core.queue) <= 2 * 20


def test_a_ping_that_cannot_be_answered_uses_no_broadcasts_up() -> None:
    swim = make()
    tell(swim, alive("peer"))
    before = [b.transmits for b in swim._core.queue.broadcasts()]
    for number in range(50):
        tell(swim, Ping(number, "self", b"\x01\x02\x03", 7946, "x"))
    assert sent(swim) == []
    assert swim.counters["udp.undialable_dropped"] == 50
    assert [b.transmits for b in swim._core.queue.broadcasts()] == before

    swim = make(require_node_names=True)
    tell(swim, alive("peer"), Ping(1, "self", b"\x0a\0\0\2", 7946, ""))
    assert sent(swim) == []
    assert swim.counters["udp.unnamed_dropped"] == 1
    assert [b.transmits for b in swim._core.queue.broadcasts()] == before
    tell(swim, Ping(1, "self", b"\x0a\0\0\2", 7946, "x"))
    assert AckResp(1, None) in [m for m, _ in sent(swim)]


def test_a_stranger_named_by_its_address_gets_a_checksum() -> None:
    """memberlist looks the destination of an answer up by the text of its address."""
    swim = make()
    tell(swim, alive("10.0.0.9", "10.0.0.9"))
    drain(swim)
    tell(swim, Ping(1, "self"), sender=("10.0.0.9", 7946))
    [(data, _)] = swim.datagrams_to_send()
    assert data[0] == 12


def test_an_accusation_is_gossiped_once_for_each_new_voice() -> None:
    swim = make()
    tell(swim, *(alive(f"peer{n}") for n in range(4)))
    swim._core.queue.reset()
    tell(swim, *(Suspect(1, "peer0", f"peer{n}") for n in (1, 1, 2, 2, 3)))
    assert len(swim._core.queue) == 1


def test_ping_numbers_wrap() -> None:
    swim = make()
    swim._core._sequence = 0xFFFFFFFE
    assert [swim._core.next_sequence() for _ in range(3)] == [0xFFFFFFFF, 0, 1]


class Offers(BaseDelegate):
    """Has these to say, whatever room there is."""

    def __init__(self, *messages: bytes) -> None:
        self.messages = messages

    def get_broadcasts(self, overhead: int, limit: int) -> tuple[bytes, ...]:
        return self.messages


def test_a_broadcast_too_long_costs_those_that_fit_nothing() -> None:
    swim = make(delegates={"delegate": Offers(b"one", bytes(5000), b"two", bytes(5000), b"three")})
    parts = swim._core.fetch(2, 100)
    assert [part[1:] for part in parts if part[0] == 8] == [b"one", b"two", b"three"]
    assert swim.counters["delegate.broadcasts_dropped"] == 2


def test_broadcasts_fill_a_packet_to_the_last_byte_and_no_further() -> None:
    for room, taken in ((2 * (2 + 1 + 10), 2), (2 * (2 + 1 + 10) - 1, 1)):
        swim = make(delegates={"delegate": Offers(bytes(10), bytes(10))})
        swim._core.queue.reset()
        assert len(swim._core.fetch(2, room)) == taken


def test_a_ping_with_broadcasts_is_one_compound() -> None:
    """A compound counts its parts in one byte: beside the ping there is room for 254."""
    swim = make(udp_buffer_size=60_000, delegates={"delegate": Offers(*[b""] * 600)})
    tell(swim, alive("peer"))
    drain(swim)
    swim._core.send_with_piggyback(Ping(1, "peer"), (host_for("peer"), 7946), name="peer")
    [(datagram, _)] = swim.datagrams_to_send()
    assert len(swim._core.codec.open(datagram).messages) == 255


def test_members_are_told_directly_in_as_few_packets_as_there_may_be() -> None:
    swim = make(udp_buffer_size=1400)
    tell(swim, alive("one"), alive("two"), alive("gone"), Dead(1, "gone", "x"))
    drain(swim)
    messages = [b"%03d" % n + bytes(97) for n in range(30)]  # 13 of them fit
    swim.send_users(messages, ["one", "gone", "unknown", "two"], 0.0)
    out = swim.datagrams_to_send()
    assert [to[0] for _, to in out] == [host_for("one")] * 3 + [host_for("two")] * 3
    assert max(len(data) for data, _ in out) <= 1400
    opened = [m for data, _ in out[:3] for m in swim._core.codec.open(data).messages]
    assert opened == [User(message) for message in messages], "in order, and unnumbered as in gossip"
    swim.send_users([b""] * 300, ["one"], 0.0)
    assert [len(swim._core.codec.open(data).messages) for data, _ in swim.datagrams_to_send()] == [255, 45]


def test_what_all_are_told_is_sealed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compression and encryption are most of what a packet costs; all get the same bytes."""
    swim = make(udp_buffer_size=1400, secret_key=bytes(range(16)))
    tell(swim, *(alive(f"m{number}") for number in range(20)))
    drain(swim)
    sealed: list[int] = []
    seal = swim._core.codec.seal

    def noted(parts: Sequence[bytes], *, crc: bool) -> list[bytes]:
        sealed.append(len(parts))
        return seal(parts, crc=crc)

    monkeypatch.setattr(swim._core.codec, "seal", noted)
    swim.send_users([bytes(300)] * 8, [f"m{number}" for number in range(20)], 0.0)
    out = swim.datagrams_to_send()
    assert (len(out), sealed) == (40, [4, 4])
    assert len({data for data, _ in out}) == 2 and len({to for _, to in out}) == 20


def test_a_state_of_the_users_that_no_receiver_takes_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(BaseDelegate):
        size = 100

        def local_state(self, join: bool) -> bytes:
            return bytes(self.size)

    monkeypatch.setattr(core, "USER_BYTES_SENT_MAX", 100)
    large = Large()
    swim = make(delegates={"delegate": large})
    assert swim._core.local_state(True) == bytes(100)
    large.size = 101
    assert swim._core.local_state(True) == b""
    assert swim.counters["delegate.faults"] == swim.counters["delegate.faults.local_state"] == 1
