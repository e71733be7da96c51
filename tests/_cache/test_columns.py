"""Columns: what is packed is read as it was, and a lie about one of them is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mycorrizal._cache.columns import (
    VERSION,
    pack_batch,
    pack_found,
    pack_outcomes,
    pack_records,
    parse_batch,
    parse_found,
    parse_outcomes,
    parse_records,
)
from mycorrizal._cache.messages import OP_MAX, Record, Reply, decode_reply
from mycorrizal._cache.operations import Batch, Kind, Result
from mycorrizal._cache.shard import Outcome
from mycorrizal._cache.versions import VERSION_MAX
from mycorrizal.exceptions import RemoteProtocolError
from tests._cache.harness import arrived

KEYS = st.binary(min_size=1, max_size=300)
VALUES = st.one_of(st.binary(max_size=300), st.integers(4000, 9000).map(bytes))
VERSIONS = st.integers(0, VERSION_MAX)
IDS = st.integers(0, OP_MAX)
SIGNED = st.integers(-(1 << 63), (1 << 63) - 1)
RESULTS = st.builds(
    Result, st.integers(0, 255), st.none() | VALUES, VERSIONS, st.integers(0, 1 << 53), st.just(0), VERSIONS
)
RECORDS = st.builds(
    Record, KEYS, st.none() | VALUES, st.integers(1, VERSION_MAX), st.just(float("inf")), IDS, st.integers(0, 255),
    SIGNED,
)  # fmt: skip


def travelled(body: list[Any]) -> list[Any]:
    return decode_reply(arrived(Reply(0, 0, body))).body


@given(st.lists(st.tuples(KEYS, VALUES, IDS), min_size=1, max_size=20), st.integers(0, 1 << 53))
def test_a_batch_of_writes_arrives(rows: list[tuple[bytes, bytes, int]], ttl: int) -> None:
    keys, values, ids = map(list, zip(*rows, strict=True))
    sent = Batch(Kind.SET, keys, values, ttl, ids)
    left, batch = parse_batch(travelled(pack_batch(sent, 1500)[0]))
    assert left == 1.5 and batch._replace(ids=list(batch.ids)) == sent


@given(st.lists(KEYS, min_size=1, max_size=20))
def test_a_batch_of_reads_arrives(keys: list[bytes]) -> None:
    assert parse_batch(travelled(pack_batch(Batch(Kind.GET, keys), 1)[0]))[1].keys == keys


@given(st.lists(RESULTS, min_size=1, max_size=20))
def test_results_arrive(results: list[Result]) -> None:
    assert parse_found(travelled(pack_found(results)[0]), len(results)) == results


@given(st.lists(RECORDS, max_size=20))
def test_records_arrive(records: list[Record]) -> None:
    assert parse_records(travelled([pack_records(records, 5.0)[0]])[0], 5.0) == records


def test_records_have_as_long_to_live_where_they_arrive() -> None:
    records = [Record(b"%d" % index, b"v", 1, 10.0 + index) for index in range(9)]
    found = parse_records(pack_records(records, 5.0)[0], 100.0)
    assert [record.expires for record in found] == [105.0 + index for index in range(9)]
    (gone, *_) = parse_records(pack_records([records[0]] * 9, 50.0)[0], 100.0)
    assert 100.0 < gone.expires < 100.1, "what is over has a moment left, not for ever"


@given(
    st.dictionaries(IDS, st.builds(Outcome, st.integers(0, 255), SIGNED, VERSIONS, st.just(2.0)), max_size=20)
)
def test_outcomes_arrive(outcomes: dict[int, Outcome]) -> None:
    since, found = parse_outcomes(travelled([pack_outcomes(1.0, outcomes, 3.0)])[0], 3.0)
    assert since == 1.0 and found == outcomes


BODIES: dict[str, tuple[list[Any], Any]] = {
    "batch": (pack_batch(Batch(Kind.SET, [b"a", b"bc"], [b"v", b"w"], 0, [5, 7]), 9)[0], parse_batch),
    "large": (pack_batch(Batch(Kind.SET, [b"a", b"bc"], [b"v", bytes(5000)], 0, [5, 7]), 9)[0], parse_batch),
    "found": (pack_found([Result(0, b"v", 5, 6, 0, 7), Result(1)])[0], lambda body: parse_found(body, 2)),
    "records": (pack_records([Record(b"a", None, 5, 9.0, 6, 1, -7)] * 5, 1.0)[0], lambda it: parse_records(it, 1.0)),
    "outcomes": (pack_outcomes(1.0, {7: Outcome(1, -2, 3, 2.0)}, 3.0), lambda body: parse_outcomes(body, 3.0)),
}
ODD: list[Any] = [
    None, 1.5, -1, 1 << 64, True, "x", b"\0", b"\xff" * 16, b"\xff" * 8, bytes(8), [], [1, 2], [b"", None], {},
]  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_lie_in_a_column_is_refused_or_read_as_something_whole(name: str) -> None:
    body, parse = BODIES[name]
    parse(body)
    refused = 0
    for place in range(len(body)):
        for odd in ODD:
            try:
                parse([*body[:place], odd, *body[place + 1 :]])
            except RemoteProtocolError:
                refused += 1
    assert refused > len(body) * len(ODD) * 0.8
    for cut in range(len(body)):
        with pytest.raises(RemoteProtocolError):
            parse([None, *body[:cut]])


@pytest.mark.parametrize("name", BODIES)
def test_another_version_is_refused(name: str) -> None:
    body, parse = BODIES[name]
    place = body.index(VERSION)
    with pytest.raises(RemoteProtocolError, match="version 2"):
        parse([*body[:place], VERSION + 1, *body[place + 1 :]])


def test_what_no_column_may_hold() -> None:
    whole = pack_batch(Batch(Kind.SET, [b"a"], [b"v"], 0, [5]), 9)[0]
    for place, odd in ((2, Kind.INCR), (2, Kind.CLEAR), (4, b""), (4, bytes(4)), (5, b""), (5, b"ab"), (8, [None])):
        with pytest.raises(RemoteProtocolError):
            parse_batch([*whole[:place], odd, *whole[place + 1 :]])
    for key in (b"", b"k" * 4097):
        with pytest.raises(RemoteProtocolError):
            parse_batch(pack_batch(Batch(Kind.GET, [key]), 9)[0])


@settings(max_examples=200)
@given(st.lists(st.one_of(st.integers(0, 1 << 64), st.binary(max_size=40), st.none(), st.lists(st.binary(max_size=9)))))
def test_anything_else_is_refused(body: list[Any]) -> None:
    for parse in (parse_batch, lambda it: parse_found(it, 3), lambda it: parse_outcomes(it, 0.0)):
        with pytest.raises(RemoteProtocolError):
            parse(body)
