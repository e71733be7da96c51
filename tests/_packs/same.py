"""What it means that a frame arrived as it was: nothing that pandas would forgive is forgiven."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mycorrizal import codecs
from mycorrizal._wire.values import decode_held, decode_packed, encode_value

__all__ = ["CODECS", "round_trip", "same"]

CODECS = codecs.arrow()


def round_trip(value: Any) -> Any:
    """Return what arrives, from a peer and out of a cache, which must be the same."""
    packed = encode_value(value, CODECS).pack()
    arrived = decode_packed(packed, CODECS)
    same(decode_held(packed, CODECS), arrived)
    return arrived


@np.errstate(invalid="ignore")  # NaN of any bits are compared with
def same(one: Any, other: Any) -> None:
    """Assert that two values are equal in all that can be told of them."""
    assert type(one) is type(other), (one, other)
    if isinstance(one, pd.DataFrame):
        _frames(one, other)
    elif isinstance(one, pd.Series):
        pd.testing.assert_series_equal(
            one, other, check_index_type="exact", check_exact=True, check_freq=True, check_flags=True
        )
        _values(one, other)
        same(one.index, other.index)
        same(one.name, other.name)
        same(one.attrs, other.attrs)
    elif isinstance(one, pd.Index):
        _indexes(one, other)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes(), "NaN by NaN, bit by bit"
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            same(mine, theirs)
    elif isinstance(one, dict):
        same(list(one.items()), list(other.items()))
    elif isinstance(one, pd.Timestamp):
        assert (one.asm8, one.unit) == (other.asm8, other.unit)
        _zones(one.tz, other.tz)
    else:
        assert one is other or one == other or (pd.isna(one) and repr(one) == repr(other)), (one, other)


def _frames(one: Any, other: Any) -> None:
    assert one.shape == other.shape
    pd.testing.assert_frame_equal(
        one, other, check_index_type="exact", check_column_type="exact", check_exact=True, check_freq=True,
        check_flags=True,
    )  # fmt: skip
    same(one.index, other.index)
    same(one.columns, other.columns)
    for number in range(one.shape[1]):
        _values(one.iloc[:, number], other.iloc[:, number])
    same(one.attrs, other.attrs)


def _values(one: Any, other: Any) -> None:
    """The values of two series or indexes."""
    assert one.dtype == other.dtype and type(one.dtype) is type(other.dtype) and str(one.dtype) == str(other.dtype)
    assert type(one.array) is type(other.array)
    if isinstance(one.dtype, np.dtype):
        mine, theirs = one.to_numpy(), other.to_numpy()
        same(mine.tolist(), theirs.tolist()) if one.dtype == object else same(mine, theirs)
    elif isinstance(one.dtype, pd.CategoricalDtype):
        same(one.array.codes, other.array.codes)
        same(one.dtype.categories, other.dtype.categories)
        assert one.dtype.ordered is other.dtype.ordered
    elif isinstance(one.dtype, pd.DatetimeTZDtype):
        _zones(one.dtype.tz, other.dtype.tz)
    elif isinstance(one.dtype, pd.StringDtype):
        assert one.dtype.storage == other.dtype.storage
        assert (one.dtype.na_value is pd.NA) == (other.dtype.na_value is pd.NA)
    assert (pd.isna(one) == pd.isna(other)).all()


def _indexes(one: Any, other: Any) -> None:
    same(list(one.names), list(other.names))
    if isinstance(one, pd.MultiIndex):
        same([level.rename(None) for level in one.levels], [level.rename(None) for level in other.levels])
        assert [list(codes) for codes in one.codes] == [list(codes) for codes in other.codes]
        return
    pd.testing.assert_index_equal(one, other, exact=True, check_exact=True)
    if isinstance(one, pd.RangeIndex):
        assert (one.start, one.stop, one.step) == (other.start, other.stop, other.step)
    else:
        _values(one, other)
    assert getattr(one, "freq", None) == getattr(other, "freq", None)


def _zones(one: Any, other: Any) -> None:
    assert type(one) is type(other) and str(one) == str(other)
