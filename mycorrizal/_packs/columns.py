"""One column or index of pandas as a value that travels, by its dtype.

What lies in NumPy's memory goes as the array that it is, uncopied. Text, and
what is missing beside numbers, goes as an Arrow array. Cells of a column of
objects go one by one, each as exactly what it is, or are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from .._wire.arrays import Unfit
from .._wire.value_codecs import Codecs
from .exact import exact
from .tables import pack_array, unpack_array
from .zones import pack_zone, unpack_zone

__all__ = ["INNER_MAX", "NUMBERS", "pack_column", "pack_freq", "pack_index", "unpack_column", "unpack_index"]

INNER_MAX = 1 << 24
"""Longest ``RangeIndex`` inside something else, where pandas may write it out: 128 MiB for a few bytes of a peer's."""

NUMBERS = frozenset("biufcmM")
_NAMED_MISSING: dict[str, Any] = {"None": None, "NA": pd.NA, "NaT": pd.NaT, "nan": np.nan}
_MISSING_NAMES: dict[type[Any], str] = {type(value): name for name, value in _NAMED_MISSING.items()}
_MASKED = {
    str(dtype): dtype
    for dtype in (
        *(pd.Int8Dtype(), pd.Int16Dtype(), pd.Int32Dtype(), pd.Int64Dtype(), pd.BooleanDtype()),
        *(pd.UInt8Dtype(), pd.UInt16Dtype(), pd.UInt32Dtype(), pd.UInt64Dtype(), pd.Float32Dtype(), pd.Float64Dtype()),
    )
}
_TIMES = frozenset(np.dtype(f"M8[{unit}]").str for unit in ("s", "ms", "us", "ns"))
_REGULAR = (pd.DatetimeIndex, pd.TimedeltaIndex)
_INDEXES = frozenset(
    {pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex, pd.PeriodIndex, pd.IntervalIndex, pd.CategoricalIndex}
)


def pack_column(data: Any, codecs: Codecs) -> list[Any]:
    """Return the values of a Series or a flat Index. Any thread.

    Raises:
        Unfit: something in it would not arrive as it is.
    """
    dtype = data.dtype
    if isinstance(dtype, np.dtype):
        if dtype.kind == "O":
            return _pack_objects(data.to_numpy(), codecs)
        return ["numpy", data.to_numpy()]
    pack = _PACK.get(type(dtype))
    if pack is not None:
        return pack(data.array, dtype, codecs)
    if str(dtype) in _MASKED and type(dtype) is type(_MASKED[str(dtype)]):
        return ["masked", str(dtype), pack_array(_arrow(data.array))]
    if isinstance(dtype, pd.SparseDtype):
        raise Unfit("a sparse column cannot be sent", "send .sparse.to_dense() of it")
    raise Unfit(f"a column of {dtype} cannot be sent", "convert it with .astype()")


def unpack_column(sent: Any) -> Any:
    """Return the values as an array of NumPy or pandas. Raises ValueError and its like for what nobody packs."""
    match sent:
        case ["numpy", np.ndarray(ndim=1) as array] if array.dtype.kind in NUMBERS:
            return array
        case ["cells", list(cells)]:
            return _objects(cells)
        case ["texts", str(missing), arrow]:
            return _unpack_texts(_NAMED_MISSING[missing], unpack_array(arrow))
        case ["string", str(storage), bool(nan), arrow]:
            dtype = pd.StringDtype(storage, na_value=np.nan if nan else pd.NA)
            return dtype.__from_arrow__(_typed(unpack_array(arrow), pa.large_string()))
        case ["masked", str(name), arrow]:
            dtype = _MASKED[name]
            return dtype.__from_arrow__(_typed(unpack_array(arrow), pa.from_numpy_dtype(dtype.numpy_dtype)))
        case ["arrow", arrow]:
            return pd.arrays.ArrowExtensionArray(unpack_array(arrow))
        case ["zoned", np.ndarray(ndim=1) as array, zone] if array.dtype.str in _TIMES:
            dtype = pd.DatetimeTZDtype(np.datetime_data(array.dtype)[0], unpack_zone(zone))
            return pd.Series(array.view("i8"), copy=False).astype(dtype).array  # of UTC, and not copied
        case ["period", str(freq), np.ndarray(ndim=1) as ordinals] if ordinals.dtype == np.int64:
            return pd.arrays.PeriodArray(ordinals, dtype=pd.PeriodDtype(freq))
        case ["interval", str(closed), left, right]:
            sides = unpack_index(left, INNER_MAX), unpack_index(right, INNER_MAX)
            return pd.arrays.IntervalArray.from_arrays(*sides, closed=closed)
        case ["category", bool(ordered), np.ndarray(ndim=1) as codes, categories] if codes.dtype.kind == "i":
            return pd.Categorical.from_codes(codes, unpack_index(categories, INNER_MAX), ordered=ordered)
    raise ValueError("a column that is none")


# -- objects -------------------------------------------------------------------------------------------------------


def _pack_objects(values: Any, codecs: Codecs) -> list[Any]:
    cells = values.tolist()
    missing = set(map(type, cells)) - {str}
    if len(cells) and _one_kind(cells, missing):
        name = _MISSING_NAMES[missing.pop()] if missing else "None"
        return ["texts", name, pack_array(_texts(values))]
    return ["cells", [_cell(at, cell, codecs) for at, cell in enumerate(cells)]]


def _one_kind(cells: list[Any], missing: set[type[Any]]) -> bool:
    """Return whether what is no text in `cells` is missing, and all in one way."""
    if missing == {float}:
        return all(isnan(cell) for cell in cells if type(cell) is float)
    return len(missing) <= 1 and missing <= _MISSING_NAMES.keys()


def _cell(at: int, cell: Any, codecs: Codecs) -> Any:
    try:
        return exact(cell, codecs)
    except Unfit as error:
        error.path.append(f"[{at}]")
        raise


def _texts(values: Any) -> Any:
    try:
        return pa.array(values, pa.large_string(), from_pandas=True)  # of an array, not a list: seven times as fast
    except UnicodeEncodeError:
        hint = "use .str.encode('utf-8', 'surrogateescape') and send bytes"
        raise Unfit("text with lone surrogates cannot be sent", hint) from None


def _unpack_texts(missing: Any, arrow: Any) -> Any:
    values = _typed(arrow, pa.large_string()).to_numpy(zero_copy_only=False)
    if values.dtype != object:  # all are missing
        values = np.full(len(arrow), None, dtype=object)
    if missing is not None and arrow.null_count:
        values[arrow.is_null().to_numpy(zero_copy_only=False)] = missing
    return values


def _objects(cells: list[Any]) -> Any:
    values = np.empty(len(cells), dtype=object)
    for at, cell in enumerate(cells):  # NumPy would look into lists
        values[at] = cell
    return values


# -- pandas' own arrays --------------------------------------------------------------------------------------------


def _arrow(array: Any, kind: Any = None) -> Any:
    try:
        return pa.array(array, kind)
    except UnicodeEncodeError:
        hint = "use .str.encode('utf-8', 'surrogateescape') and send bytes"
        raise Unfit("text with lone surrogates cannot be sent", hint) from None


def _typed(arrow: Any, kind: Any) -> Any:
    if arrow.type != kind:
        raise ValueError(f"an array of {str(arrow.type)!a} for one of {str(kind)!a}")
    return arrow


def _pack_string(array: Any, dtype: Any, codecs: Codecs) -> list[Any]:
    nan = dtype.na_value is not pd.NA
    return ["string", dtype.storage, nan, pack_array(_arrow(array, pa.large_string()))]


def _pack_zoned(array: Any, dtype: Any, codecs: Codecs) -> list[Any]:
    return ["zoned", np.asarray(array.tz_convert(None)), pack_zone(dtype.tz)]


def _pack_period(array: Any, dtype: Any, codecs: Codecs) -> list[Any]:
    return ["period", pack_freq(dtype), array.asi8]


def pack_freq(dtype: Any) -> str:
    """Return the frequency of periods as text.

    Raises:
        Unfit: that text is not all that there is to it.
    """
    freq = str(dtype).removeprefix("period[").removesuffix("]")
    if not _parses(pd.PeriodDtype, freq, dtype):
        raise Unfit(f"periods of {dtype.freq!r:.80} cannot be sent", "send .to_timestamp() of them")
    return freq


def _pack_interval(array: Any, dtype: Any, codecs: Codecs) -> list[Any]:
    left, right = (pack_index(side, codecs, INNER_MAX) for side in (array.left, array.right))
    return ["interval", dtype.closed, left, right]


def _pack_category(array: Any, dtype: Any, codecs: Codecs) -> list[Any]:
    return ["category", bool(dtype.ordered), array.codes, pack_index(dtype.categories, codecs, INNER_MAX)]


def _pack_arrow(array: Any, dtype: Any, codecs: Codecs) -> list[Any]:
    return ["arrow", pack_array(array.__arrow_array__())]


_PACK: dict[type[Any], Callable[[Any, Any, Codecs], list[Any]]] = {
    pd.StringDtype: _pack_string,
    pd.DatetimeTZDtype: _pack_zoned,
    pd.PeriodDtype: _pack_period,
    pd.IntervalDtype: _pack_interval,
    pd.CategoricalDtype: _pack_category,
    pd.ArrowDtype: _pack_arrow,
}


# -- indexes ---------------------------------------------------------------------------------------------------------


def pack_index(index: Any, codecs: Codecs, most: int | None = None) -> list[Any]:
    """Return an Index of any kind of pandas' own, its names, and the frequency that it has. Any thread.

    Args:
        most: the longest range that may be there, where it stands inside something else.

    Raises:
        Unfit: something in it would not arrive as it is.
    """
    if type(index) is pd.RangeIndex:
        if most is not None and len(index) > most:
            hint = "convert it with .astype('int64')"
            raise Unfit(f"a range of {len(index)} in place of values cannot be sent", hint)
        return ["range", index.start, index.stop, index.step, exact(index.name, codecs)]
    if type(index) is pd.MultiIndex:
        levels = [pack_index(level.rename(None), codecs, INNER_MAX) for level in index.levels]
        return ["multi", levels, [np.asarray(codes) for codes in index.codes], exact(list(index.names), codecs)]
    if type(index) not in _INDEXES:
        raise Unfit(f"{type(index).__qualname__}, an index of its own kind, cannot be sent", "make it a pandas.Index")
    return ["index", pack_column(index, codecs), exact(index.name, codecs), _index_freq(index)]


def _index_freq(index: Any) -> str | None:
    freq = index.freq if isinstance(index, _REGULAR) else None
    if freq is None:
        return None
    if not _parses(pd.tseries.frequencies.to_offset, freq.freqstr, freq):
        raise Unfit(f"an index with the frequency {freq!r:.80} cannot be sent", "set its .freq to None first")
    return str(freq.freqstr)


def _parses(parse: Callable[[str], Any], text: str, meant: object) -> bool:
    """Return whether the text of a frequency is all that there is to it."""
    try:
        return bool(parse(text) == meant)
    except ValueError:
        return False


def unpack_index(sent: Any, most: int | None = None) -> Any:
    """Return the index. Raises ValueError and its like for what nobody packs."""
    match sent:
        case ["range", int(start), int(stop), int(step), name]:
            index = pd.RangeIndex(start, stop, step, name=name)
            if most is not None and len(index) > most:
                raise ValueError("a range that is too long")
            return index
        case ["multi", list(levels), list(codes), list(names)]:
            made = [unpack_index(level, INNER_MAX) for level in levels]
            return pd.MultiIndex(made, codes, names=names, verify_integrity=True)
        case ["index", column, name, freq]:
            values = unpack_column(column)
            dtype = object if isinstance(values, np.ndarray) and values.dtype.kind == "O" else None
            index = pd.Index(values, dtype=dtype, name=name, copy=False, tupleize_cols=False)
            if freq is not None:
                if not isinstance(index, _REGULAR):
                    raise ValueError("a frequency of what has none")
                index.freq = pd.tseries.frequencies.to_offset(freq)
            return index
    raise ValueError("an index that is none")
