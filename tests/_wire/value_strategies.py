"""Values of all kinds that travel, and whether what arrived is what was sent."""

from __future__ import annotations

import math
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

__all__ = ["arrays", "plain_values", "same", "scalars", "values"]

_texts = st.text(st.characters(codec="utf-8"), max_size=40)
_decimals = st.decimals(allow_nan=True).filter(lambda d: not d.is_snan()) | st.just(Decimal("-0.00"))
_zones = st.timezones()

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(1 << 4000), 1 << 4000),
    st.floats(),
    _texts,
    st.binary(max_size=40),
    st.binary(min_size=4090, max_size=4100),
    st.sampled_from([1 << 63, -(1 << 63), 1 << 64, -(1 << 64), (1 << 64) - 1]),
)
rarer = st.one_of(
    st.datetimes(),
    st.datetimes(timezones=_zones),
    st.dates(),
    _decimals,
    st.uuids(),
    st.sets(st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.floats() | _texts | st.binary()),
    st.frozensets(_texts),
)
keys = st.one_of(_texts, st.integers(-(1 << 64), (1 << 64) - 1), st.binary(max_size=60))

_dtypes = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(),
    npst.unsigned_integer_dtypes(),
    npst.floating_dtypes(sizes=(16, 32, 64)),
    npst.complex_number_dtypes(sizes=(64, 128)),
    npst.datetime64_dtypes(),
    npst.timedelta64_dtypes(),
    npst.byte_string_dtypes(min_len=1),
    npst.unicode_string_dtypes(min_len=1),
)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """Return arrays of every dtype that travels, in C or Fortran order, strided or read-only."""
    shape = draw(npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12))
    array: Any = draw(npst.arrays(draw(_dtypes), shape))
    for _ in range(draw(st.integers(0, 2))):
        match draw(st.integers(0, 3)):
            case 0:
                array = np.asfortranarray(array)
            case 1:
                array = array.T
            case 2 if array.ndim:
                array = array[:: draw(st.sampled_from([2, -1, -2]))]
            case _:
                array.setflags(write=False)
    return array


def scalars() -> st.SearchStrategy[Any]:
    """Return NumPy scalars."""
    return _dtypes.flatmap(lambda dtype: npst.arrays(dtype, (1,))).map(lambda array: array[0])


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=6),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=6),
        st.lists(st.integers() | st.floats() | st.none(), min_size=30, max_size=70),
    )


plain_values = st.recursive(atoms | rarer, _containers, max_leaves=12)
"""Values without NumPy."""

values = st.recursive(atoms | rarer | arrays() | scalars(), _containers, max_leaves=8)
"""Values of every kind."""


def same(sent: Any, got: Any) -> bool:
    """Return whether `got` is what `sent` arrives as."""
    if isinstance(sent, np.ndarray | np.generic):
        return (
            type(got) is (type(sent) if isinstance(sent, np.generic) else np.ndarray)
            and got.dtype == sent.dtype
            and got.shape == sent.shape
            and got.tobytes() == sent.tobytes()
        )
    if isinstance(sent, list | tuple):
        return type(got) is list and len(got) == len(sent) and all(map(same, sent, got))
    if isinstance(sent, dict):
        return type(got) is dict and list(got) == list(sent) and all(map(same, sent.values(), got.values()))
    if isinstance(sent, set | frozenset):
        if any(item != item for item in sent):  # noqa: PLR0124
            return type(got) is set and len(got) == len(sent)
        return type(got) is set and got == sent
    if isinstance(sent, float):
        return type(got) is float and (math.isnan(got) if math.isnan(sent) else repr(got) == repr(sent))
    if isinstance(sent, Decimal):
        return type(got) is Decimal and got.as_tuple() == sent.as_tuple()
    if isinstance(sent, datetime):
        return (
            type(got) is datetime
            and got.replace(tzinfo=None) == sent.replace(tzinfo=None, fold=0)
            and (got.utcoffset() == sent.utcoffset())
        )
    if isinstance(sent, bytearray | memoryview):
        return type(got) is bytes and got == bytes(sent)
    assert isinstance(sent, bool | int | str | bytes | date | UUID | None)
    return type(got) is type(sent) and got == sent
