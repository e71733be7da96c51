"""Queries: what stands on the wire, against bytes of Debian's ``serf agent``, and the rules."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mycorrizal._serf import queries as rules
from mycorrizal._serf.asking import (
    ACK,
    NO_BROADCAST,
    Query,
    QueryResponse,
    Relay,
    decode_query_message,
    encode_filters,
    encode_query_message,
    pack_conflict,
    pack_key,
    pack_key_answer,
    passes,
    read_conflict,
    read_key,
)
from mycorrizal._serf.machine import Kind, SerfMachine
from mycorrizal._wire import msgpack
from mycorrizal.exceptions import ConfigError, QueueFull, RemoteProtocolError
from mycorrizal.types import Node, Versions
from tests._serf import seen

HERE = (bytes((127, 0, 0, 1)), 7946)
ASKING: dict[str, Any] = {"nodes": (), "tags": {}, "relays": 0, "timeout": 2.0, "limit": 1024}


def a_query(ltime: int = 1, number: int = 1, **changes: Any) -> Query:
    fields: dict[str, Any] = {
        "addr": HERE[0], "port": 7001, "source": "s1", "filters": (), "flags": ACK, "relays": 0,
        "timeout": 2 * 10**9, "name": "load", "payload": b"",
    }  # fmt: skip
    return Query(ltime, number, **{**fields, **changes})


def a_machine(*others: str, known: bool = True, **options: Any) -> SerfMachine:
    machine = SerfMachine("py", rng=random.Random(1), known=lambda *_: known, tags=lambda: {"role": "web"}, **options)
    for name in others:
        machine.node_joined(name, 0.0)
    return machine


def hear(machine: SerfMachine, message: Query | QueryResponse | Relay, now: float = 0.0) -> None:
    machine.receive_message(encode_query_message(message), now)


def gossiped(machine: SerfMachine) -> list[bytes]:
    return [out.message for out in machine.messages_to_send() if out.kind is Kind.QUERY]


class TestMessages:
    @pytest.mark.parametrize("data", [seen.SEEN_QUERY, seen.SEEN_ACK, seen.SEEN_RELAY, seen.SEEN_KEY_LIST])
    def test_seen_bytes(self, data: bytes) -> None:
        message = decode_query_message(data)
        assert message is not None
        assert encode_query_message(message) == data

    def test_seen_values(self) -> None:
        query = decode_query_message(seen.SEEN_QUERY)
        assert query == Query(1, 0xF4B007E, HERE[0], 22001, "s1", (), ACK, 0, 10**9, "q1", b"hello")
        assert decode_query_message(seen.SEEN_RELAY) == Relay(HERE[0], 35485, "py", seen.SEEN_ACK)
        assert decode_query_message(seen.SEEN_EVENT) is None

    def test_conflicts(self) -> None:
        node = Node("s1", HERE[0], 0x8787, b"\xff\x81\xa4role\xa3web", versions=Versions(1, 5, 2, 2, 5, 5))
        assert pack_conflict(node, 1) == seen.SEEN_CONFLICT
        assert read_conflict(seen.SEEN_CONFLICT) == (HERE[0], 0x8787)
        assert pack_conflict(None, 0) == seen.SEEN_NO_CONFLICT
        assert read_conflict(seen.SEEN_NO_CONFLICT) is None

    def test_keys(self) -> None:
        listing = decode_query_message(seen.SEEN_KEY_LIST)
        assert isinstance(listing, Query)
        assert (listing.payload, read_key(listing.payload)) == (pack_key(b""), b"")
        assert pack_key_answer(False, "key size must be 16, 24 or 32 bytes") == seen.SEEN_KEY_FAULT
        assert pack_key_answer(True) == seen.SEEN_KEY_DONE
        for junk in (b"", b"\x07", b"\x08\x80", b"\x07\x05", b"\x07" + msgpack.pack({"Key": 5})):
            with pytest.raises(RemoteProtocolError):
                read_key(junk)

    @pytest.mark.parametrize(
        "change",
        [
            {"ID": -1}, {"ID": 1 << 32}, {"Port": 0}, {"Port": 1 << 16}, {"Addr": b"abc"}, {"Addr": None},
            {"RelayFactor": 256}, {"Timeout": -5}, {"Timeout": 1.5}, {"Filters": 5}, {"Filters": [5]},
            {"Filters": [b"\x00\x90"] * 65}, {"Name": "n" * 9217}, {"SourceNode": "n" * 256}, {"Flags": True},
            {"LTime": "x"},
        ],
    )  # fmt: skip
    def test_refused(self, change: dict[str, object]) -> None:
        body, _ = msgpack.unpack(seen.SEEN_QUERY, 1)
        body = {key.decode(): value for key, value in body.items()}
        assert decode_query_message(b"\x04" + msgpack.pack(body)) is not None
        with pytest.raises(RemoteProtocolError):
            decode_query_message(b"\x04" + msgpack.pack({**body, **change}))

    def test_longer_than_any_message(self) -> None:
        with pytest.raises(RemoteProtocolError, match="Serf message of"):
            decode_query_message(seen.SEEN_RELAY + bytes(40_000))

    def test_filters(self) -> None:
        filters = encode_filters(["py", "s1"], {"role": "^we"})
        assert filters == (b"\x00\x92\xa2py\xa2s1", b"\x01\x82\xa4Expr\xa3^we\xa3Tag\xa4role")
        query = a_query(filters=filters)
        assert passes(query, "py", {"role": "web"})
        assert not passes(query, "s2", {"role": "web"})
        assert not passes(query, "py", {"role": "db"})
        assert not passes(query, "py", {})
        assert passes(a_query(filters=encode_filters((), {"absent": "^$"})), "py", {})
        with pytest.raises(ConfigError, match="no expression"):
            encode_filters((), {"role": "("})
        with pytest.raises(ConfigError, match="at most 64"):
            encode_filters(["n"] * 65, {})
        for bad in (b"\x07\x80", b"\x00\x05", b"\x01\x90", b"\x01" + msgpack.pack({"Tag": "a", "Expr": "("})):
            with pytest.raises((RemoteProtocolError, ConfigError)):
                passes(a_query(filters=(bad,)), "py", {})


    def test_filters_are_bounded_together(self) -> None:
        long = b"\x01" + msgpack.pack({"Tag": "role", "Expr": ".?" * 300})
        assert passes(a_query(filters=(long,)), "py", {"role": "web" * 20})
        for filters, value in (((long,) * 60, "web"), ((long,), "web" * 60)):
            with pytest.raises(RemoteProtocolError, match="too long"):
                passes(a_query(filters=filters), "py", {"role": value})


class TestPassingOn:
    def test_once_unread_and_to_the_next_by_name(self) -> None:
        machine = a_machine("s1", "qa", "zz", "aa", fanout=2)
        data = seen.SEEN_QUERY
        machine.receive_message(data, 0.0)
        machine.receive_message(data, 0.0)
        assert gossiped(machine) == [data]
        assert [d.name for d in machine.queries.to_send() if d.message == data] == ["qa", "zz"]
        assert (machine.counters["queries"], machine.counters["duplicates"]) == (1, 1)
        assert machine.clocks[2] == 2

    def test_never_more_than_the_fanout(self) -> None:
        machine = a_machine(*(f"n{n:03}" for n in range(100)), fanout=255)
        hear(machine, a_query(flags=0))
        assert len(machine.queries.to_send()) == rules.FANOUT

    def test_not_if_the_sender_says_so(self) -> None:
        machine = a_machine("s1", "s2", fanout=9)
        hear(machine, a_query(flags=NO_BROADCAST))
        assert gossiped(machine) == [] and machine.queries.to_send() == []
        assert len(machine.queries.asked()) == 1

    def test_one_time_may_have_several(self) -> None:
        machine = a_machine()
        for number in range(rules.MAX_QUERIES_PER_TICK + 1):
            hear(machine, a_query(number=number))
        assert len(gossiped(machine)) == rules.MAX_QUERIES_PER_TICK
        assert machine.counters["overflowed"] == 1

    def test_what_is_512_ticks_behind_is_old(self) -> None:
        machine = a_machine()
        hear(machine, a_query(1000))
        hear(machine, a_query(1001 - rules.QUERY_BUFFER))
        hear(machine, a_query(1000 - rules.QUERY_BUFFER))
        assert (len(gossiped(machine)), machine.counters["old_queries"]) == (2, 1)
        hear(machine, a_query(5000))
        assert set(machine.queries._seen) == {5000}, "nobody remembers the old ones"

    def test_what_nobody_pulls_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rules, "MAX_WAITING", 2)
        machine = a_machine()
        for number in range(3):
            hear(machine, a_query(number=number))
        assert len(machine.queries.asked()) == 2
        assert machine.counters["overflowed"] == 1


class TestAnswering:
    def test_an_acknowledgement_and_an_answer(self) -> None:
        machine = a_machine("s1")
        hear(machine, a_query(7, 8), now=100.0)
        (asked,) = machine.queries.asked()
        assert asked.deadline == 102.0
        machine.queries.answer(asked.query, b"0.5", 101.0, 1024)
        sent = machine.queries.to_send()
        assert [(d.name, d.address) for d in sent] == [("s1", (HERE[0], 7001))] * 2
        assert [decode_query_message(d.message) for d in sent] == [
            QueryResponse(7, 8, "py", ACK),
            QueryResponse(7, 8, "py", 0, b"0.5"),
        ]

    @pytest.mark.parametrize("flags", [0, NO_BROADCAST])
    def test_no_acknowledgement_that_nobody_asked_for(self, flags: int) -> None:
        machine = a_machine("s1")
        hear(machine, a_query(flags=flags))
        assert machine.queries.to_send() == []

    def test_whom_it_is_not_for_passes_it_on_and_says_nothing(self) -> None:
        machine = a_machine("s1")
        hear(machine, a_query(number=1, filters=encode_filters(["s2"], {})))
        hear(machine, a_query(number=2, filters=encode_filters((), {"role": "^w.b$"})))
        hear(machine, a_query(number=3, filters=(b"\x63",)))
        assert len(gossiped(machine)) == 3
        assert [asked.query.id for asked in machine.queries.asked()] == [2]
        assert machine.counters["bad_filters"] == 1

    def test_relays(self) -> None:
        machine = a_machine("s1", "a", "b", "c")
        hear(machine, a_query(relays=2))
        first, *relayed = machine.queries.to_send()
        assert first.address == (HERE[0], 7001)
        assert len({d.name for d in relayed}) == 2 and {d.name for d in relayed} <= {"a", "b", "c"}
        assert {d.address for d in relayed} == {None}
        assert [decode_query_message(d.message) for d in relayed] == [Relay(HERE[0], 7001, "s1", first.message)] * 2
        hear(machine, a_query(number=2, relays=4))
        assert len(machine.queries.to_send()) == 1, "too few others for that"

    def test_a_relay_is_sent_on_as_it_is(self) -> None:
        machine = a_machine("s1")
        machine.receive_message(seen.SEEN_RELAY, 0.0)
        (sent,) = machine.queries.to_send()
        assert (sent.name, sent.address, sent.message) == ("py", (HERE[0], 35485), seen.SEEN_ACK)

    def test_strangers_get_few_answers(self) -> None:
        machine = a_machine(known=False)
        for number in range(100):
            hear(machine, a_query(number=number))
        hear(machine, Relay(HERE[0], 9, "x", b"anything"))
        assert len(machine.queries.to_send()) == rules.STRANGERS
        assert machine.counters["answers_withheld"] == 101 - rules.STRANGERS
        hear(machine, a_query(number=101), now=rules.STRANGERS_SECONDS)
        assert len(machine.queries.to_send()) == 1, "a new while"

    def test_too_large_an_answer(self) -> None:
        machine = a_machine("s1")
        with pytest.raises(ConfigError, match="limit is 100"):
            machine.queries.answer(a_query(), bytes(100), 0.0, 100)


class TestAsking:
    def test_our_own(self) -> None:
        machine = a_machine("s1", "s2", fanout=1)
        query, message = machine.queries.ask("load", b"x", HERE, 5.0, **{**ASKING, "nodes": ["py", "s1"], "relays": 3})
        machine.query(message)
        assert gossiped(machine) == [message] == [encode_query_message(query)]
        assert [d.name for d in machine.queries.to_send()] == ["s1"]
        assert (query.ltime, machine.clocks[2], query.source, query.flags) == (1, 2, "py", ACK)
        (asked,) = machine.queries.asked()
        machine.queries.answer(asked.query, b"mine", 5.0, 1024)
        assert machine.queries.to_send() == [], "to ourselves nothing is sent"
        for _ in range(2):
            hear(machine, QueryResponse(query.ltime, query.id, "s1", ACK))
            hear(machine, QueryResponse(query.ltime, query.id, "s1", 0, b"its"))
        answers = machine.queries.answers(query)
        assert (answers.acks, answers.responses) == ({"py", "s1"}, {"py": b"mine", "s1": b"its"})
        assert machine.counters["duplicates"] == 1
        machine.queries.close(query)
        hear(machine, QueryResponse(query.ltime, query.id, "s2", 0, b"late"))
        assert machine.counters["late_responses"] == 1
        hear(machine, query)
        assert gossiped(machine) == [], "our own comes back"

    def test_each_has_a_time_of_its_own(self) -> None:
        machine = a_machine()
        first, second = (machine.queries.ask("a", b"", HERE, 0.0, **ASKING)[0] for _ in range(2))
        assert (first.ltime, second.ltime) == (1, 2)

    def test_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = a_machine()
        with pytest.raises(ConfigError, match="the limit is 1024"):
            machine.queries.ask("a", bytes(1024), HERE, 0.0, **ASKING)
        monkeypatch.setattr(rules, "MAX_OPEN", 1)
        query, _ = machine.queries.ask("a", b"", HERE, 0.0, **ASKING)
        with pytest.raises(QueueFull, match="wait for answers"):
            machine.queries.ask("a", b"", HERE, 0.0, **ASKING)
        monkeypatch.setattr(rules, "MAX_ANSWER_BYTES", 5)
        hear(machine, QueryResponse(query.ltime, query.id, "a", 0, b"12345"))
        hear(machine, QueryResponse(query.ltime, query.id, "b", 0, b"1"))
        monkeypatch.setattr(rules, "MAX_ANSWERS", 1)
        hear(machine, QueryResponse(query.ltime, query.id, "c", 0))
        hear(machine, QueryResponse(query.ltime, query.id, "c", ACK))
        assert set(machine.queries.answers(query).responses) == {"a"}
        assert machine.counters["overflowed"] == 2
