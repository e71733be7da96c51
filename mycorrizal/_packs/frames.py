"""Frames, series, indexes and single values of pandas."""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from .._wire.arrays import Unfit
from .._wire.value_codecs import Codecs
from .columns import NUMBERS, pack_column, pack_freq, pack_index, unpack_column, unpack_index
from .exact import exact
from .zones import pack_zone, unpack_zone

__all__ = ["add_pandas"]

_INDEXES = (
    *(pd.Index, pd.RangeIndex, pd.MultiIndex, pd.DatetimeIndex, pd.TimedeltaIndex, pd.PeriodIndex, pd.IntervalIndex),
    pd.CategoricalIndex,
)


def add_pandas(codecs: Codecs) -> None:
    """Register pandas' types, with functions that can be pickled: worker processes are given the registry."""
    codecs.register(pd.DataFrame, "pandas.DataFrame", partial(_pack_frame, codecs=codecs), _unpack_frame)
    codecs.register(pd.Series, "pandas.Series", partial(_pack_series, codecs=codecs), _unpack_series)
    for kind in _INDEXES:
        codecs.register(kind, f"pandas.{kind.__name__}", partial(pack_index, codecs=codecs), unpack_index)
    codecs.register(pd.Timestamp, "pandas.Timestamp", _pack_timestamp, _unpack_timestamp)
    codecs.register(pd.Timedelta, "pandas.Timedelta", attrgetter("asm8"), _unpack_timedelta)
    codecs.register(pd.Period, "pandas.Period", _pack_period, _unpack_period)
    codecs.register(pd.Interval, "pandas.Interval", attrgetter("left", "right", "closed"), _unpack_interval)
    codecs.register(type(pd.NaT), "pandas.NaT", _nothing, _nat)
    codecs.register(type(pd.NA), "pandas.NA", _nothing, _na)


# -- frames --------------------------------------------------------------------------------------------------------


def _pack_frame(frame: Any, codecs: Codecs) -> list[Any]:
    """One block if all columns are of one of NumPy's dtypes; else each column."""
    dtypes = set(frame.dtypes)
    body: Any
    if len(dtypes) == 1 and isinstance(dtype := dtypes.pop(), np.dtype) and dtype.kind != "O":
        body = frame.to_numpy()
    else:
        body = [_within(label, column, codecs) for label, column in frame.items()]
    return [pack_index(frame.index, codecs), pack_index(frame.columns, codecs), body, *_about(frame, codecs)]


def _within(label: Any, column: Any, codecs: Codecs) -> list[Any]:
    try:
        return pack_column(column, codecs)
    except Unfit as error:
        error.path.append(f"[{label!r:.80}]")
        raise


def _unpack_frame(sent: Any) -> Any:
    rows, names, body, attrs, unique = sent
    index, columns = unpack_index(rows), unpack_index(names)
    if isinstance(body, np.ndarray):
        if body.dtype.kind not in NUMBERS or body.ndim != 2 or body.shape != (len(index), len(columns)):
            raise ValueError(f"{body.shape!a} values for {len(index)} rows and {len(columns)} columns")
        frame = pd.DataFrame(body, index, columns, copy=False)
    else:
        if len(body) != len(columns):
            raise ValueError(f"{len(body)} columns for {len(columns)} labels")
        made = {number: _series(column, index) for number, column in enumerate(body)}
        frame = pd.DataFrame(made, index, copy=False)
        frame.columns = columns
    return _told(frame, attrs, unique)


def _pack_series(series: Any, codecs: Codecs) -> list[Any]:
    name = exact(series.name, codecs)
    return [pack_index(series.index, codecs), name, pack_column(series, codecs), *_about(series, codecs)]


def _unpack_series(sent: Any) -> Any:
    rows, name, column, attrs, unique = sent
    series = _series(column, unpack_index(rows))
    series.name = name
    return _told(series, attrs, unique)


def _series(column: Any, index: Any) -> Any:
    values = unpack_column(column)
    if len(values) != len(index):
        raise ValueError(f"{len(values)} values for {len(index)} rows")
    return pd.Series(values, index, dtype=values.dtype, copy=False)


def _about(data: Any, codecs: Codecs) -> list[Any]:
    """Return what a frame or series has besides its values."""
    return [exact(data.attrs, codecs), not data.flags.allows_duplicate_labels]


def _told(data: Any, attrs: Any, unique: Any) -> Any:
    if attrs:
        data.attrs = attrs
    if unique:
        data.flags.allows_duplicate_labels = False
    return data


# -- single values ---------------------------------------------------------------------------------------------------


def _pack_timestamp(time: Any) -> list[Any]:
    return [time.asm8, pack_zone(time.tz)]


def _unpack_timestamp(sent: Any) -> Any:
    at, zone = sent
    time = pd.Timestamp(_scalar(at, "M"))
    return time if zone is None else time.tz_localize("UTC").tz_convert(unpack_zone(zone))


def _unpack_timedelta(time: Any) -> Any:
    return pd.Timedelta(_scalar(time, "m"))


def _unpack_interval(sides: Any) -> Any:
    return pd.Interval(*sides)


def _nothing(value: Any) -> None:
    return None


def _nat(sent: Any) -> Any:
    return pd.NaT


def _na(sent: Any) -> Any:
    return pd.NA


def _scalar(time: Any, kind: str) -> Any:
    if not isinstance(time, np.generic) or time.dtype.kind != kind or np.isnat(time):
        raise ValueError("a time that is none")
    return time


def _pack_period(period: Any) -> list[Any]:
    return [pack_freq(pd.PeriodDtype(period.freq)), period.ordinal]


def _unpack_period(sent: Any) -> Any:
    freq, ordinal = sent
    return pd.Period(ordinal=ordinal, freq=freq)
