"""The label header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import LabelMismatch, LocalProtocolError
from mycorrizal._wire.label import add_label, check_label, label_bytes, label_overhead, peel_label

from .strategies import brief


@brief
@given(st.binary(max_size=255), st.binary(max_size=50))
def test_round_trip(label: bytes, packet: bytes) -> None:
    sent = add_label(label, packet)
    assert len(sent) == len(packet) + label_overhead(label)
    if label or packet[:1] != b"\xf4":
        assert peel_label(sent) == (label, packet)


@brief
@given(st.binary(max_size=10))
def test_any_bytes_peel_or_are_refused(packet: bytes) -> None:
    try:
        label, rest = peel_label(b"\xf4" + packet)
    except LabelMismatch:
        return
    assert label
    assert add_label(label, rest) == b"\xf4" + packet


def test_the_longest_label_goes_out_and_comes_back() -> None:
    assert peel_label(add_label(b"x" * 255, b"rest")) == (b"x" * 255, b"rest")


def test_a_label_that_is_too_long_is_our_own_mistake() -> None:
    assert label_bytes("ä") == b"\xc3\xa4"
    with pytest.raises(LocalProtocolError):
        add_label(b"x" * 256, b"")


def test_comparison() -> None:
    check_label(b"a", b"a", skip=False)
    check_label(b"", b"", skip=False)
    check_label(b"", b"a", skip=True)
    for received, configured, skip in ((b"", b"a", False), (b"b", b"a", False), (b"a", b"", False), (b"a", b"a", True)):
        with pytest.raises(LabelMismatch, match="label"):
            check_label(received, configured, skip=skip)
