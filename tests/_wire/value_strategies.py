"""Values of all kinds, those that travel and those that do not, for Hypothesis."""

from __future__ import annotations

from array import array
from collections import OrderedDict, defaultdict
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID, SafeUUID

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fuzzing.value_exceptions import Colour, Level, Number, Pair, Raw, Real, Sequence, Unit, Word, same

__all__ = ["anything", "arrays", "plain_values", "same", "scalars", "values"]

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


# -- what a sender may have in its hands, whether it travels or not -----------------------------------------------

_offsets = st.timedeltas(-timedelta(hours=23, minutes=59), timedelta(hours=23, minutes=59)).map(timezone)
_coarse = st.integers(-86399, 86399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
_memory = st.binary(min_size=8, max_size=64).map(lambda data: np.frombuffer(data[: len(data) // 8 * 8], "u1"))
_views = st.sampled_from(["?", "S1", "S4", "U1", "U2", "<f2", ">f4", "<c8", "V4", "M8[s]", "m8", "i4,f4", "M8[7D]"])
_odd_arrays = st.one_of(
    st.tuples(_memory, _views).map(lambda pair: pair[0].view(pair[1])),
    st.tuples(_memory, st.sampled_from(["?", "S2", "q", ">c8"])).map(lambda pair: pair[0].view(pair[1])[0]),
    _memory.map(lambda array: array.view(Unit)),
    _memory.map(lambda array: array.view(np.matrix)),
    _memory.map(lambda array: array.view(np.memmap)),
    _memory.map(lambda array: array.view(np.ma.MaskedArray)),
    _memory.map(lambda array: array.astype("g")),
    st.lists(_texts, max_size=3).map(lambda texts: np.array(texts, np.dtypes.StringDType())),
    st.lists(st.integers() | _texts, max_size=3).map(lambda items: np.array(items, object)),
    st.sampled_from([np.ndarray((2,), "U0"), np.rec.array([(1,)], "i4,"), np.longlong(1), np.void(b"ab")]),
    st.sampled_from([np.empty((1 << 62, 0), bool), np.empty((0, 3)).T, np.zeros((1,) * 33), np.str_(), np.bytes_()]),
    st.text("a\0", max_size=4).map(np.str_),
    st.text("a\0", max_size=4).map(lambda text: np.bytes_(text.encode())),
)
_odd = st.one_of(
    st.sampled_from([Colour.RED, Level.LOW, ..., 1j, Colour, UUID(int=5, is_safe=SafeUUID.safe), range(3), "\ud800"]),
    st.datetimes(timezones=_offsets | _coarse),
    st.datetimes().map(lambda time: time.replace(fold=1)),
    _texts.map(Word),
    st.integers().map(Number),
    st.floats().map(Real),
    st.binary(max_size=5000).map(Raw),
    st.binary(max_size=5000).map(bytearray),
    st.binary(max_size=5000).map(lambda data: memoryview(data)[::2]),
    st.lists(st.floats(), min_size=1, max_size=9).map(lambda numbers: memoryview(array("d", numbers))),
    st.decimals(allow_nan=True) | st.integers(-10001, 10001).map(lambda exponent: Decimal((0, (1,), exponent))),
    _odd_arrays,
)
_hashable = st.one_of(
    keys, st.none(), st.floats(), st.booleans(), st.integers(), _texts.map(Word), _texts.map(np.str_),
    st.integers(-9, 9).map(np.int64), st.floats().map(np.float64), st.integers(-9, 9).map(Number),
    st.sampled_from([Colour.RED, Level.LOW, np.True_, np.float32(0.1), Raw(b"a"), (1,), frozenset(), "\ud800"]),
)  # fmt: skip


def _odd_containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        _containers(inner),
        st.dictionaries(_hashable, inner, max_size=4),
        st.sets(_hashable, max_size=4) | st.frozensets(_hashable, max_size=4),
        st.dictionaries(_texts, inner, max_size=4).map(OrderedDict),
        st.dictionaries(_texts, inner, max_size=4).map(lambda items: defaultdict(list, items)),
        st.lists(inner, max_size=3).map(Sequence),
        st.tuples(inner, inner).map(lambda pair: Pair(*pair)),
    )


anything = st.recursive(atoms | rarer | arrays() | scalars() | _odd, _odd_containers, max_leaves=8)
"""Values that travel, and values that do not."""
