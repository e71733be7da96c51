"""Text of strangers: one printable line, of bounded length, the same after a second pass; and the loggers' door."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal._wire.text import ARGUMENT_MAX, TRACEBACK_LINES_MAX, logger, printable

log = logger("mycorrizal.tests")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain text, größer, 你好, 🙂", "plain text, größer, 你好, 🙂"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("\x1b[2J\x7f", r"\x1b[2J\x7f"),
        ("\x85\x9b31m", r"\x85\x9b31m"),  # C1: a line end, and the start of a command in one character
        ("a\u202eb\u2066c\u200f", r"a\u202eb\u2066c\u200f"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("bob\u200b\u200d\ufeff\u2060\u00ad", r"bob\u200b\u200d\ufeff\u2060\xad"),
        ("bob\ufe0f\u3164\u2800\u034f\U000e0101", r"bob\ufe0f\u3164\u2800\u034f\U000e0101"),
        ("\U000e0041\ue000\u0378", r"\U000e0041\ue000\u0378"),  # a tag, private, not assigned
        ("\ud800\udcff", r"\ud800\udcff"),
        (r"a\nb", r"a\nb"),
        (b"a\xff\n\xc3\xa9", r"a\udcff\né"),
        (b"\x9b", r"\udc9b"),
    ],
)
def test_what_is_shown(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


@given(st.one_of(st.text(st.characters()), st.binary()), st.integers(1, 40))
def test_it_is_printable_short_and_the_same_twice(text: str | bytes, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    assert printable(shown, limit) == shown
    whole = printable(text, 10_000)
    assert shown == whole if len(whole) <= limit else shown.endswith("…") and whole.startswith(shown[:-1])


def test_its_end_is_marked_and_an_escape_stays_whole() -> None:
    assert printable("x" * 201) == "x" * 199 + "…"
    assert printable("x\n\n", 4) == r"x\n…"
    assert printable("é".encode() * 300) == "é" * 199 + "…"
    assert len(printable("\0" * (40 << 20))) <= 200


class Odd:
    """Its text and its repr have several lines."""

    def __str__(self) -> str:
        return "one\ntwo"

    def __repr__(self) -> str:
        return "three\nfour"


def test_a_record_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mycorrizal")
    log.info("%s %r %s %r %d %.1f %-6s|", "a\nb", "c\nd", Odd(), Odd(), 7, 1.5, "e")
    log.info("%(who)s of %(count)d", {"who": "\x1b[2J", "count": 3})
    log.info("made too early: %s" % "\u202e")  # noqa: G002
    log.info("%s", "x" * 5000)
    assert [record.getMessage() for record in caplog.records] == [
        r"a\nb 'c\nd' one\ntwo three\nfour 7 1.5 e     |",
        r"\x1b[2J of 3",
        r"made too early: \u202e",
        "x" * (ARGUMENT_MAX - 1) + "…",
    ]


def test_no_line_of_a_traceback_passes_for_a_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mycorrizal")
    try:
        raise ValueError("no such thing\nERROR forged \x1b[2J")
    except ValueError:
        log.exception("it failed")
    log.debug("and again", exc_info=ValueError("x\n" * 10_000))
    first, second = (logging.Formatter().format(record) for record in caplog.records)
    assert first.startswith("it failed\n") and r"  ERROR forged \x1b[2J" in first and "raise ValueError" in first
    assert all(line.startswith("  ") and line.isprintable() for line in first.split("\n")[1:])
    assert second.count("\n") == TRACEBACK_LINES_MAX + 1 and second.endswith("lines")
