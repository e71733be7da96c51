"""The codec: what goes out comes in again, and nothing else gets through."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import ConfigError, RemoteProtocolError, ValueTooLarge
from mycorrizal._replica import messages
from mycorrizal._replica.clock import COUNTER_MAX, WALL_MAX, Stamp
from mycorrizal._replica.limits import NUMBER_MAX
from mycorrizal._replica.messages import Batch, Event, Have, Highest, LastBatch, Sender, Service, Setting, State, Want

names = st.text(min_size=1, max_size=60).filter(lambda text: len(text.encode("utf-8", "replace")) <= 255)
names = names.filter(lambda text: text.encode("utf-8", "ignore").decode() == text)
agents = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=60)
boots = st.binary(min_size=8, max_size=8)
senders = st.builds(Sender, agents, boots)
stamps = st.builds(Stamp, st.integers(0, WALL_MAX - 1), st.integers(0, COUNTER_MAX - 1), agents, boots)
numbers = st.integers(1, NUMBER_MAX - 1)
values = st.one_of(st.none(), st.binary(max_size=100))
one_message = st.one_of(
    st.builds(Setting, names, values, stamps),
    st.builds(Service, names, values, stamps),
    st.builds(Event, senders, numbers, names, st.binary(max_size=100)),
    st.builds(Highest, senders, numbers, st.integers(0, 254)),
    st.builds(Batch, senders, numbers, st.lists(st.binary(max_size=50), min_size=1, max_size=5).map(tuple)),
    st.builds(LastBatch, senders, numbers, st.integers(0, 254)),
)
one_header = st.one_of(
    st.builds(Want, senders, st.lists(st.tuples(numbers, numbers), min_size=1, max_size=32).map(tuple)),
    st.builds(Have, senders, st.integers(0, NUMBER_MAX - 1)),
    st.builds(
        State,
        st.binary(min_size=16, max_size=16),
        *[st.lists(st.tuples(senders, st.integers(0, NUMBER_MAX - 1)), max_size=5).map(tuple)] * 2,
    ),
)


@given(one_message)
def test_messages_come_back(message: Any) -> None:
    assert messages.decode(message.encode()) == message


@given(one_header, st.lists(st.tuples(st.binary(max_size=50), st.integers(0, 10**6))))
def test_packs_come_back_with_ages_that_grow(header: Any, content: list[tuple[bytes, int]]) -> None:
    data = messages.pack(header, content)
    found, at = messages.decode_header(data)
    assert found == header
    ages = [(raw, age + 1 if age else 0) for raw, age in content]
    assert list(messages.items(data, at, 1000)) == ages


@given(st.binary(max_size=200))
def test_anything_is_read_or_refused(data: bytes) -> None:
    for read in (messages.decode, messages.decode_header, lambda d: list(messages.items(d, 0, 10))):
        try:
            read(data)
        except RemoteProtocolError:
            pass


@given(one_message, st.data())
def test_a_broken_message_is_read_or_refused(message: Any, data: st.DataObject) -> None:
    raw = bytearray(message.encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        messages.decode(bytes(raw))
    except RemoteProtocolError:
        pass


def test_fields_of_a_later_version_are_passed_over() -> None:
    later = cbor2.dumps([4, "a", b"bootboot", 7, 1, "more"])
    assert messages.decode(later) == Highest(Sender("a", b"bootboot"), 7, 1)


def test_a_state_of_an_earlier_version_has_no_batches() -> None:
    raw = cbor2.dumps([7, b"x" * 16, []])
    assert messages.decode_header(len(raw).to_bytes(4, "big") + raw)[0] == State(b"x" * 16, ())


GOOD = [1, "key", b"value", 5, 0, "writer", b"bootboot"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 99), (0, True), (0, "1"), (1, ""), (1, b"key"), (1, "x" * 256), (1, "é" * 128), (2, "text"), (2, 3),
        (3, -1), (3, WALL_MAX), (3, 5.0), (3, None), (3, 1 << 70), (4, COUNTER_MAX), (4, True), (5, ""), (5, 7),
        (6, b"short"), (6, "bootboot"), (6, b"far too long"),
    ],
)  # fmt: skip
def test_each_field_is_checked(place: int, value: object) -> None:
    fields = list(GOOD)
    assert messages.decode(cbor2.dumps(fields)) == Setting("key", b"value", Stamp(5, 0, "writer", b"bootboot"))
    fields[place] = value
    with pytest.raises(RemoteProtocolError):
        messages.decode(cbor2.dumps(fields))


@pytest.mark.parametrize(
    "fields",
    [
        [], {}, "text", 5, None, [1, "key"], [2, "id", None, 1], [3, "a", b"bootboot", 0, "t", b""],
        [3, "a", b"bootboot", NUMBER_MAX, "t", b""], [3, "a", b"bootboot", 1, "", b""],
        [3, "a", b"bootboot", 1, "t", "x"], [4, "a", b"bootboot", 1, 255],
        [4, "a", b"bootboot", 1, -1], [8, "a", b"bootboot", 1, []], [8, "a", b"bootboot", 1, b"raw"],
        [8, "a", b"bootboot", 1, ["raw"]], [8, "a", b"bootboot", 1, [b"raw"] * 256], [8, "a", b"bootboot", 0, [b"raw"]],
        [9, "a", b"bootboot", 0, 1], [9, "a", b"bootboot", 1, 255], [9, "a", b"bootboot", 1],
        [5, "a", b"bootboot", [1, 2]],
    ],
)  # fmt: skip
def test_strange_messages_are_refused(fields: object) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.decode(cbor2.dumps(fields))


@pytest.mark.parametrize(
    "header",
    [
        [5, "a", b"bootboot", []], [5, "a", b"bootboot", [1]], [5, "a", b"bootboot", [0, 1]], [5, "a", b"bootboot", 7],
        [5, "a", b"bootboot", [1, 1] * 33], [6, "a", b"bootboot", -1], [6, "a", b"bootboot"], [7, b"short", []],
        [7, b"x" * 16, 7], [7, b"x" * 16, [["a", b"bootboot"]]], [7, b"x" * 16, [7]], [7, b"x" * 16, [["a", b"b", 1]]],
        [7, b"x" * 16, [], 7], [7, b"x" * 16, [], [["a", b"bootboot", -1]]],
        [1, "key", b"value", 5, 0, "writer", b"bootboot"],
    ],
)  # fmt: skip
def test_strange_headers_are_refused(header: object) -> None:
    raw = cbor2.dumps(header)
    with pytest.raises(RemoteProtocolError):
        messages.decode_header(len(raw).to_bytes(4, "big") + raw)


def test_packs_that_are_cut_off_are_refused() -> None:
    header = Have(Sender("a", b"bootboot"), 3)
    data = messages.pack(header, [(b"event", 0.0)])
    _, at = messages.decode_header(data)
    for end in range(at):
        with pytest.raises(RemoteProtocolError):
            messages.decode_header(data[:end])
    for end in range(at + 1, len(data)):
        with pytest.raises(RemoteProtocolError):
            list(messages.items(data[:end], at, 10))
    with pytest.raises(RemoteProtocolError, match="too many"):
        list(messages.items(data, at, 0))


def test_own_names_are_checked() -> None:
    messages.check_text("é" * 127, "key")
    with pytest.raises(ConfigError, match="empty"):
        messages.check_text("", "key")
    with pytest.raises(ConfigError, match="surrogates"):
        messages.check_text("\udc80", "key")
    with pytest.raises(ValueTooLarge):
        messages.check_text("é" * 128, "key")


def test_a_name_may_have_255_bytes() -> None:
    for name in ("x" * 255, "é" * 127 + "x"):
        messages.check_text(name, "key")
        assert messages.decode(cbor2.dumps([1, name, *GOOD[2:]])) == Setting(name, b"value", Stamp(*GOOD[3:]))  # type: ignore[arg-type]
    for name in ("x" * 256, "é" * 128):
        with pytest.raises(ValueTooLarge):
            messages.check_text(name, "key")


@pytest.mark.parametrize(("count", "taken"), [(messages.SENDERS_MAX, True), (messages.SENDERS_MAX + 1, False)])
def test_the_senders_of_a_state_are_bounded(count: int, taken: bool) -> None:
    raw = cbor2.dumps([7, b"x" * 16, [["a", b"bootboot", 1]] * count])
    data = len(raw).to_bytes(4, "big") + raw
    if taken:
        header, _ = messages.decode_header(data)
        assert isinstance(header, State)
    else:
        with pytest.raises(RemoteProtocolError, match="too many"):
            messages.decode_header(data)
