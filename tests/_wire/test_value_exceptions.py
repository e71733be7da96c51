"""What comes out is what went in, but for a short list of exceptions that the docs tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given

from fuzzing.value_exceptions import EXCEPTIONS, Word, arriving, same, table
from mycorrizal import ValueEncodeError, ValueTooLarge
from mycorrizal._wire.values import decode_held, decode_packed, encode_value

from .strategies import long
from .value_strategies import anything

PAGE = Path(__file__).parents[2] / "docs" / "data-plane.md"


def arrive(value: object) -> Any:
    return decode_packed(encode_value(value).pack())


@long
@given(anything)
def test_whatever_is_taken_arrives_as_it_was(value: Any) -> None:
    try:
        packed = encode_value(value).pack()
    except (ValueEncodeError, ValueTooLarge) as error:
        assert str(error).startswith("value") and error.hint
        event("refused")
        return
    event("taken")
    assert same(value, decode_packed(packed))
    assert same(value, decode_held(packed))


def test_page_shows_all_exceptions() -> None:
    assert table() in PAGE.read_text("utf-8")


@pytest.mark.parametrize("row", EXCEPTIONS, ids=lambda row: row.sent[:30])
def test_examples_of_exceptions_are_some(row: Any) -> None:
    examples = row.example if isinstance(row.example, list) else [row.example]
    for example in examples:
        assert row.applies(example), example
        assert same(example, arrive(example)) and same(arriving(example), arrive(example))
        others = [other for other in EXCEPTIONS if other is not row]
        assert row.sent.startswith("NaN") or _differs(example, arrive(example)) or others


def _differs(sent: Any, got: Any) -> bool:
    return type(sent) is not type(got) or repr(sent) != repr(got)


@pytest.mark.parametrize(
    ("value", "way_out"),
    [
        (np.array(["a", "bcd"], np.dtypes.StringDType()), lambda v: v.tolist()),
        (np.array([1, "a", None], object), lambda v: v.tolist()),
        (np.array([1, 2.5], object), lambda v: v.astype(float)),
        (np.zeros(3, "i4,f8"), lambda v: {name: v[name] for name in v.dtype.names}),
        (np.ma.array([1, 2], mask=[False, True]), lambda v: [v.data, v.mask]),
        (np.ma.array([1, 2], mask=[False, True]), lambda v: v.filled()),
        (np.arange(3).view(np.matrix), np.asarray),
        (np.zeros(3, "V5"), lambda v: [v.tobytes(), str(v.dtype)]),
        (np.zeros(3, "g"), lambda v: v.astype("float64")),
        (np.longdouble(3), lambda v: v.astype("float64")),
        (np.zeros(3, "G"), lambda v: v.astype("complex128")),
        (np.ndarray((2,), "U0"), lambda v: v.astype("U1")),
        (np.zeros((1,) * 33), lambda v: [v.ravel(), v.shape]),
        (np.str_("a\0"), str),
        (np.bytes_(b"a\0"), bytes),
        (np.array([0x110000], "u4").view("U1"), lambda v: v.view("uint8")),
        ({Word("a"): 1, Word("a"): 2}, lambda v: list(v.items())),
        ({Word("a"), Word("a")}, list),
    ],
)
def test_ways_out_that_errors_tell_help(value: Any, way_out: Any) -> None:
    with pytest.raises(ValueEncodeError) as caught:
        encode_value([value])
    assert caught.value.hint
    encode_value([way_out(value)])
