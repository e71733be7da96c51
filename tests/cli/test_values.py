"""Values on their way in and out of the command line."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal.cli.output import shown
from mycorrizal.cli.values import from_text, lines, to_json, to_plain, visible


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hello", "hello"),
        ("hello world", "hello world"),
        ("5", 5),
        ("5.5", 5.5),
        ("null", None),
        ("true", True),
        ('"5"', "5"),
        ('{"a": [1, 2]}', {"a": [1, 2]}),
        ("{a: 1}", "{a: 1}"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_json_is_a_value_and_anything_else_is_text(text: str, value: Any) -> None:
    assert from_text(text) == value


@given(st.text())
def test_any_text_is_some_value(text: str) -> None:
    from_text(text)


def test_what_json_does_not_know_has_a_rule() -> None:
    moment = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
    value = {
        **{"bytes": b"\0\1", "set": {2, 1}, "nan": float("nan"), "inf": -float("inf"), "tuple": (1,)},
        **{"array": numpy.arange(4).reshape(2, 2), "scalar": numpy.float32(0.5), "when": moment},
        **{"day": moment.date(), "money": decimal.Decimal("1.10"), "id": uuid.UUID(int=1), 5: "key"},
        **{"most": 2**53 - 1, "more": 2**53, "least": 1 - 2**53, "less": -(2**53), "id64": 2**63},
    }
    assert json.loads(to_json(value)) == {
        **{"bytes": {"base64": "AAE="}, "set": [1, 2], "nan": "nan", "inf": "-inf", "tuple": [1]},
        **{"array": [[0, 1], [2, 3]], "scalar": 0.5, "when": "2026-01-02T03:04:00+00:00"},
        **{"day": "2026-01-02", "money": "1.10", "id": "00000000-0000-0000-0000-000000000001", "5": "key"},
        **{"most": 9007199254740991, "more": "9007199254740992", "least": -9007199254740991},
        **{"less": "-9007199254740992", "id64": "9223372036854775808"},
    }
    assert to_plain(memoryview(b"ab")) == {"base64": "YWI="}


def test_text_for_people_does_nothing_to_a_terminal() -> None:
    assert shown("a\x1b[31mb\r\n\u202e") == r"a\x1b[31mb\r\n\u202e"
    assert shown({"a": 1, "b": [True, None]}) == "a=1 b=[true, null]"
    assert shown(None) == "-"
    assert shown(0.123456789) == "0.123457"
    assert shown("\ud800") == r"\ud800"
    assert shown({"a": {"b\x9b": STEERING}}).isprintable()


STEERING = "".join(map(chr, (*range(32), *range(0x7F, 0xA0), 0x61C, *range(0x200E, 0x2010), *range(0x2028, 0x202F))))
STEERING += "\u2066\u2069\ufeff\ud800"
"""C0 and C1 controls, DEL, marks that turn the order of text, separators of lines, half a pair."""


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("value", [STEERING, {STEERING: [STEERING, {"e\U000e0041": "\U0001f600\n"}]}, [["\x9b"]]])
def test_json_is_printable_and_means_the_same(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = to_json(value, indent=indent, ascii_only=ascii_only)
    assert json.loads(text) == value
    assert text.replace("\n", "").isprintable() and (indent is not None or "\n" not in text)
    assert not ascii_only or text.isascii()


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_json_is_printable_and_means_the_same(value: Any) -> None:
    text = to_json(value)
    assert text.replace("\n", "").isprintable() and json.loads(text) == value


def test_what_people_read_stays_as_it_is() -> None:
    assert visible("Zoë 日本 😀 שלום") == "Zoë 日本 😀 שלום" == json.loads(to_json("Zoë 日本 😀 שלום"))
    assert "日本 😀" in to_json("日本 😀")
    assert lines("a\x85b\u2028\nc\r\n") == "a\\x85b\\u2028\nc\\r\n"
