"""Frames and series arrive as they were, or are refused with a way out."""

from __future__ import annotations

import datetime as dt
import pickle
from decimal import Decimal
from operator import attrgetter
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mycorrizal import Codecs, ValueDecodeError, ValueEncodeError, codecs
from mycorrizal._packs.tables import pack_array
from mycorrizal._wire.canonical import digest, equal
from mycorrizal._wire.values import decode_packed, encode_value
from tests._packs.same import CODECS, round_trip, same

ZONE = ZoneInfo("Europe/Berlin")
DAYS = pd.date_range("2024-03-30", periods=3, freq="D", tz=ZONE)

COLUMNS: dict[str, Any] = {
    "int": [1, 2, 3],
    "int8": np.array([1, -2, 3], "int8"),
    "uint64": np.array([1, 2, 2**64 - 1], "uint64"),
    "big endian": pd.Series(np.array([1, 2, 3], ">i4")),
    "float": [0.0, -0.0, float("nan")],
    "float16": np.array([1, 2, 3], "float16"),
    "float32": np.array([1, float("nan"), 3], "float32"),
    "complex": [1j, complex(float("nan"), 0), 2],
    "bool": [True, False, True],
    "date": pd.to_datetime(["2024-01-01", None, "2024-01-03"]),
    "date in s": pd.Series(np.array(["2024-01-01", "NaT", "1000-01-03"], "M8[s]")),
    "date in ms": pd.Series(np.array(["2024-01-01", "NaT", "9999-01-03"], "M8[ms]")),
    "date in ns": pd.Series(np.array(["2024-01-01", "NaT", "2024-01-03"], "M8[ns]")),
    "zone": DAYS,
    "zone of an offset": DAYS.tz_convert(dt.timezone(dt.timedelta(hours=-3))),
    "utc": pd.Series(DAYS.tz_convert("UTC")).dt.as_unit("s"),
    "twice": pd.Series(pd.to_datetime(["2024-10-27 00:30", "2024-10-27 01:30", None], utc=True)).dt.tz_convert(ZONE),
    "delta": pd.to_timedelta([1, None, 3], unit="s"),
    "delta in s": pd.Series(np.array([1, "NaT", 3], "m8[s]")),
    "text": pd.Series(["a", None, "ä\0"], dtype=object),
    "text and nan": pd.Series(["a", np.nan, ""], dtype=object),
    "text and NA": pd.Series(["a", pd.NA, "c"], dtype=object),
    "text and NaT": pd.Series(["a", pd.NaT, "c"], dtype=object),
    "all None": pd.Series([None, None, None], dtype=object),
    "all nan": pd.Series([np.nan, np.nan, np.nan], dtype=object),
    "all missing": pd.Series([np.nan, None, pd.NA], dtype=object),
    "string": pd.Series(["a", None, "c"], dtype="string"),
    "string[python]": pd.Series(["a", None, "c"], dtype="string[python]"),
    "string[pyarrow]": pd.Series(["a", None, "c"], dtype="string[pyarrow]"),
    "str": pd.Series(["a", None, "c"], dtype="str"),
    "objects": pd.Series([1, "b", 2.5], dtype=object),
    "text and a number": pd.Series(["a", 1.5, np.nan], dtype=object),
    "missing of all kinds": pd.Series(["a", None, np.nan], dtype=object),
    "plain": pd.Series([Decimal("1.50"), UUID(int=7), dt.date(2024, 1, 1)], dtype=object),
    "containers": pd.Series([[1, (2, {"a": frozenset({3})})], {"b": {1, 2}}, ()], dtype=object),
    "arrays": pd.Series([np.arange(3), np.float32(1), np.zeros((2, 2))], dtype=object),
    "times": pd.Series([pd.Timestamp(1), pd.Timedelta(1), dt.timedelta(1)], dtype=object),
    "bytes": pd.Series([b"a", b"", None], dtype=object),
    "bools": pd.Series([True, None, False], dtype=object),
    "integers": pd.Series([2**70, 1, -1], dtype=object),
    "Int64": pd.array([1, None, 2**63 - 1], "Int64"),
    "UInt8": pd.array([1, None, 255], "UInt8"),
    "Float32": pd.array([1.5, None, 3], "Float32"),
    "boolean": pd.array([True, None, False], "boolean"),
    "category": pd.Categorical(["a", None, "b"], categories=["b", "a", "unused"]),
    "ordered": pd.Categorical([3, 1, 3], categories=[3, 1], ordered=True),
    "dates as categories": pd.Categorical(DAYS),
    "range as categories": pd.Categorical.from_codes([0, 1, -1], pd.RangeIndex(3)),
    "period": pd.period_range("2024-01", periods=3, freq="M"),
    "weeks": pd.period_range("2024-01", periods=3, freq="W-WED"),
    "interval": pd.interval_range(0, 3),
    "dates as intervals": pd.interval_range(pd.Timestamp("2024"), periods=3, closed="both"),
    "arrow": pd.array([[1], None, [2, 3]], pd.ArrowDtype(pa.list_(pa.int64()))),
    "arrow decimal": pd.array([Decimal("1.5"), None, 2], pd.ArrowDtype(pa.decimal128(5, 2))),
    "arrow of nothing": pd.array([None, None, None], pd.ArrowDtype(pa.null())),
}
INDEXES: dict[str, Any] = {
    "range": pd.RangeIndex(5, -1, -2, name="r"),
    "numbers": pd.Index([3, 1, 3], dtype="int16"),
    "floats": pd.Index([0.5, float("nan"), -0.0], name=("a", 1)),
    "text": pd.Index(["a", "b", None], name="t"),
    "objects": pd.Index(["a", 1, None], dtype=object),
    "tuples in one level": pd.Index([("a", 1), ("b",), ()], tupleize_cols=False),
    "days": DAYS,
    "days of a file": pd.DatetimeIndex(["2024-01-01", "2024-01-05", None]),
    "business days": pd.bdate_range("2024-01-01", periods=3, name="day"),
    "steps": pd.timedelta_range("1s", periods=3, freq="90min"),
    "months": pd.period_range("2024-01", periods=3, freq="Q-FEB"),
    "intervals": pd.interval_range(0.0, 1.5, periods=3, closed="left"),
    "categories": pd.CategoricalIndex(["a", "b", "a"], ordered=True, name="c"),
    "Int64": pd.Index([1, None, 3], dtype="Int64"),
    "string": pd.Index(["a", None, "c"], dtype="string"),
    "multi": pd.MultiIndex.from_arrays([["a", "a", "b"], DAYS, [1, None, 3]], names=["x", None, ("y", 2)]),
    "multi with what is unused": pd.MultiIndex.from_product([["a", "b"], [1, 2]])[[0, 1, 3]],
    "one level": pd.MultiIndex.from_arrays([[1, 2, 2]]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_arrives_as_it_was(name: str) -> None:
    series = pd.Series(COLUMNS[name], name=name)
    same(round_trip(series), series)
    for frame in (pd.DataFrame({name: series}), pd.DataFrame({name: series, "b": [1, 2, 3], "c": series})):
        same(round_trip(frame), frame)
        same(round_trip(frame.iloc[1:1]), frame.iloc[1:1])
        same(round_trip(frame.iloc[::-2]), frame.iloc[::-2])


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_arrives_as_it_was(name: str) -> None:
    index = INDEXES[name]
    same(round_trip(index), index)
    same(round_trip(index[:0]), index[:0])
    for frame in (pd.DataFrame({"a": [1, 2, 3]}, index), pd.DataFrame([[1, "a", 2.5]], columns=index)):
        same(round_trip(frame), frame)


def test_all_of_them_at_once() -> None:
    frame = pd.DataFrame({name: pd.Series(column) for name, column in COLUMNS.items()})
    same(round_trip(frame), frame)


FRAMES: dict[str, Any] = {
    "nothing": pd.DataFrame(),
    "no columns": pd.DataFrame(index=[1, 2, 3]),
    "no rows": pd.DataFrame({"a": np.zeros(0, "int8"), "b": pd.Series([], dtype="string")}),
    "no rows of objects": pd.DataFrame({"a": pd.Series([], dtype=object)}),
    "names of nothing": pd.DataFrame(columns=pd.Index([], name="n"), index=pd.RangeIndex(0, name="m")),
    "block": pd.DataFrame(np.arange(12.0).reshape(3, 4)),
    "block by columns": pd.DataFrame(np.arange(12.0).reshape(3, 4, order="F")),
    "block of dates": pd.DataFrame(np.arange(4).reshape(2, 2).astype("M8[s]")),
    "duplicate names": pd.DataFrame([[1, "a", 2.0]], columns=["x", "x", "x"]),
    "duplicate rows": pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}, index=["i", "i"]),
    "other names": pd.DataFrame([[1, 2.5, "a", 4]], columns=[1, None, (1, "b"), pd.Timestamp("2024")]),
    "names of a multi": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_product([["a"], [1, 2]], names=["u", None])),
    "wide": pd.DataFrame(np.zeros((2, 5000), "float32")),
    "large": pd.DataFrame({"a": np.arange(5000), "b": np.arange(5000).astype(str), "c": np.arange(5000) / 7}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_arrives_as_it_was(name: str) -> None:
    same(round_trip(FRAMES[name]), FRAMES[name])


def test_what_a_frame_has_besides_its_values() -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    frame.attrs = {"source": ("a", [1, {"deep": None}]), 7: b"x", "array": np.arange(3)}
    frame.attrs["frame"] = pd.DataFrame({"b": [1]})
    arrived = round_trip(frame)
    same(arrived.attrs.pop("frame"), frame.attrs.pop("frame"))
    same(arrived, frame)
    strict = pd.DataFrame({"a": [1, 2]}).set_flags(allows_duplicate_labels=False)
    assert round_trip(strict).flags.allows_duplicate_labels is False
    series = pd.Series([1.5], name=("a", 1)).set_flags(allows_duplicate_labels=False)
    series.attrs = {"unit": "m"}
    same(round_trip(series), series)


SINGLE: list[Any] = [
    pd.Timestamp("2024-01-01 12:00:00.123456789"),
    pd.Timestamp("1500-01-01").as_unit("s"),
    pd.Timestamp("2024-10-27 00:30", tz="UTC").tz_convert(ZONE),
    pd.Timestamp("2024-10-27 01:30", tz="UTC").tz_convert(ZONE),
    pd.Timestamp("2024-01-01", tz=dt.timezone(dt.timedelta(minutes=-90))),
    pd.Timedelta(1),
    pd.Timedelta(days=-3).as_unit("s"),
    pd.Period("2024-01", "M"),
    pd.Period("2024-01-03", "3D"),
    pd.Interval(0, 1.5, closed="neither"),
    pd.Interval(pd.Timestamp("2024"), pd.Timestamp("2025")),
    pd.NaT,
    pd.NA,
    1 + 2j,
    dt.timedelta(days=-1, microseconds=7),
]


@pytest.mark.parametrize("value", SINGLE, ids=repr)
def test_a_single_value_arrives_as_it_was(value: Any) -> None:
    same(round_trip(value), value)
    same(round_trip({"in": [value]}), {"in": [value]})


class Frame(pd.DataFrame):
    """One that means something else."""


class Text(str):
    """One that would arrive as plain text."""


class Zone(dt.tzinfo):
    """One that is nowhere else."""

    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=1)

    def dst(self, when: dt.datetime | None) -> None:
        return None

    def tzname(self, when: dt.datetime | None) -> str:
        return "mine"


def with_attrs(data: Any, attrs: dict[Any, Any]) -> Any:
    data.attrs = attrs
    return data


def itself() -> list[Any]:
    cell: list[Any] = []
    cell.append(cell)
    return cell


WEEKS = pd.PeriodDtype(pd.offsets.Week())
DAY_OFF = pd.offsets.CustomBusinessDay(holidays=["2024-01-02"])
REFUSED: dict[str, tuple[Any, str, str]] = {
    "objects": (pd.Series([object()]), r"\[0\]: object cannot be sent", "plain values"),
    "functions": (pd.DataFrame({"a": [1, len]}), r"\['a'\]\[1\]: a builtin_function", "code does not travel"),
    "texts of a class": (pd.Series([Text("a"), 1], dtype=object), "Text would arrive as another type", "a codec"),
    "dates with a zone": (
        pd.Series([dt.datetime(2024, 1, 1, tzinfo=ZONE), 1], dtype=object), "named time zone", "pandas.Timestamp"
    ),
    "bytearrays": (pd.Series([bytearray(b"x")]), "bytearray would arrive", "plain values"),
    "sparse": (pd.Series(pd.arrays.SparseArray([0, 1])), "sparse", "to_dense"),
    "surrogates": (pd.Series(["\ud800"], dtype=object), "surrogates", "surrogateescape"),
    "longdouble": (pd.Series(np.zeros(1, "longdouble")), "an array of .*float", "float64"),
    "subclass": (Frame({"a": [1]}), "Frame cannot be sent", "register a codec"),
    "attrs": (with_attrs(pd.Series([1]), {"x": bytearray(b"y")}), "bytearray would arrive", "plain"),
    "holidays": (pd.Series([1, 2], pd.date_range("2024", periods=2, freq=DAY_OFF)), "frequency", ".freq to None"),
    "what holds itself": (pd.Series([itself()], dtype=object), "holds itself", "levels"),
    "name": (pd.Series([1], name=Text("a")), "Text would arrive", "codec"),
    "offset with a name": (pd.Timestamp(0, tz=dt.timezone(dt.timedelta(0), "mine")), "the time zone", "tz_convert"),
    "zone of a class": (pd.Series(DAYS.tz_convert(Zone())), "the time zone", "tz_convert"),
    "weeks of no day": (pd.Series(pd.arrays.PeriodArray(np.zeros(1, "i8"), dtype=WEEKS)), "periods of", "to_timestamp"),
    "huge range": (pd.Series(pd.Categorical.from_codes([0], pd.RangeIndex(1 << 30))), "range of", "int64"),
}

@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_arrive_as_it_is_is_refused(name: str) -> None:
    value, why, hint = REFUSED[name]
    with pytest.raises(ValueEncodeError, match=why) as caught:
        encode_value(value, CODECS)
    assert hint in str(caught.value)


def test_a_receiver_without_the_codecs_gets_an_error_in_the_values_place() -> None:
    packed = encode_value({"f": pd.DataFrame({"a": ["x"]})}, CODECS).pack()
    with pytest.raises(ValueDecodeError, match="'pandas.DataFrame', which is not registered here"):
        decode_packed(packed, Codecs())


NUMBERS, OTHERS = np.arange(3), pack_array(pa.array([1, 2, 3]))
RANGE, ONE = ["range", 0, 3, 1, None], ["range", 0, 1, 1, None]
NOBODY_PACKS: list[Any] = [
    *(None, 7, "numpy", [], ["numpy"], ["numpy", [1]], ["numpy", np.array(["a"])], ["numpy", np.zeros((2, 2))]),
    *(["cells", 7], ["texts", "?", OTHERS], ["texts", "None", OTHERS], ["string", "pyarrow", True, OTHERS]),
    *(["string", "elsewhere", True, OTHERS], ["masked", "Int8", OTHERS], ["masked", "int64", OTHERS], ["arrow", 7]),
    *(["zoned", NUMBERS, None], ["zoned", NUMBERS.astype("M8[D]"), ["zone", "UTC"]]),
    *(["zoned", NUMBERS.astype(">M8[s]"), ["zone", "UTC"]], ["zoned", NUMBERS.astype("M8[s]"), None]),
    *(["zoned", NUMBERS.astype("M8[s]"), ["zone", "../../etc/passwd"]]),
    *(["zoned", NUMBERS.astype("M8[s]"), ["pytz", "Nowhere/At All"]], ["zoned", NUMBERS.astype("M8[s]"), 7]),
    *(["period", "no", NUMBERS], ["period", "D", NUMBERS.astype("i4")], ["interval", "both", RANGE, [7]]),
    *(["interval", "left", ["range", 1, 4, 1, None], RANGE], ["category", False, NUMBERS + 1, RANGE]),
    *(["category", False, NUMBERS, ["range", 0, 1 << 40, 1, None]], ["category", False, NUMBERS, 7]),
    *(["category", False, NUMBERS, ["index", ["numpy", np.zeros(3)], None, None]], ["unknown", 7]),
]
NO_INDEX: list[Any] = [
    *(None, [], ["range", 0, 3], ["range", 0, 3, 0, None], ["multi", [RANGE], [NUMBERS + 1], [None]]),
    *(["multi", [RANGE], [NUMBERS], [None, None]], ["multi", [RANGE], [], [None]], ["multi", RANGE, NUMBERS, None]),
    *(["index", ["numpy", NUMBERS], None, "D"], ["index", ["numpy", NUMBERS.astype("M8[s]")], None, "no"]),
    *(["index", ["numpy", NUMBERS.astype("M8[s]")], None, "D"], ["index", ["numpy", NUMBERS], [1], None]),
]
NO_FRAME: list[Any] = [
    *([RANGE, RANGE, np.zeros((3, 2)), {}, False], [RANGE, RANGE, np.zeros(9), {}, False], [RANGE, RANGE, [], {}, 0]),
    *([RANGE, RANGE, np.full((3, 3), "a"), {}, False], [RANGE, ONE, [["numpy", np.zeros(2)]], {}, 0]),
    *([["range", 0, 1 << 62, 1, None], ONE, [["numpy", np.zeros(2)]], {}, False], None, [RANGE]),
    [RANGE, ["index", ["cells", ["a", "a", "b"]], None, None], np.zeros((3, 3)), {}, True],
]


class Liar:
    """Sends what nobody packs."""

    def __init__(self, sent: Any) -> None:
        self.sent = sent


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        *(("pandas.Series", [RANGE, None, sent, {}, False]) for sent in NOBODY_PACKS),
        *(("pandas.Index", sent) for sent in NO_INDEX),
        *(("pandas.DataFrame", sent) for sent in NO_FRAME),
        *(("pandas.Timestamp", sent) for sent in (7, [7, None], [np.datetime64("NaT", "s"), None])),
        *((name, sent) for name in ("pandas.Timedelta", "pandas.Period", "pandas.Interval") for sent in (7, [], ["a"])),
    ],
)
def test_what_nobody_packs_is_an_error_in_the_values_place(name: str, sent: Any) -> None:
    lying = codecs.arrow()
    lying.register(Liar, "liar", attrgetter("sent"), Liar)
    lying.by_type[Liar] = lying.by_type[Liar]._replace(name=name)
    with pytest.raises(ValueDecodeError, match=f"the codec '{name}' could not read"):
        decode_packed(encode_value([Liar(sent)], lying).pack(), CODECS)


def test_a_registry_goes_to_a_worker_process() -> None:
    """As an argument of ``multiprocessing`` with ``spawn``."""
    found = pickle.loads(pickle.dumps(CODECS))
    frame = pd.DataFrame({"a": ["x", None], "b": [1, pd.NaT], "c": pd.array([1, None], "Int8")})
    same(decode_packed(encode_value([frame, frame.index, 1j], found).pack(), found), [frame, frame.index, 1j])


def test_numbers_are_lent_not_copied() -> None:
    """What the array path does for an array it does for the memory of a frame."""
    block = np.arange(100_000.0).reshape(-1, 4)
    mixed = pd.DataFrame({"a": np.arange(10_000), "b": np.arange(10_000) / 3})
    for frame in (pd.DataFrame(block, copy=False), mixed):
        memory = [np.frombuffer(view, np.uint8) for view in encode_value(frame, CODECS).buffers]
        assert sum(view.nbytes for view in memory) == frame.to_numpy().nbytes
        for view in memory:
            assert any(np.shares_memory(view, frame.iloc[:, n].to_numpy()) for n in range(frame.shape[1]))


# -- anything ------------------------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=5), st.just(pd.NA),
    st.just(pd.NaT),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-99, max_value=99), st.dates(),
    st.tuples(st.integers(), st.text()), st.lists(st.integers(), max_size=3), st.timedeltas(),
)  # fmt: skip
LABELS = st.one_of(
    st.text(max_size=3), st.integers(-9, 9), st.none(), st.tuples(st.integers(0, 2), st.text(max_size=1)),
    st.booleans(), st.sampled_from([pd.Timestamp(5), pd.Timedelta(5), 2.5]),
)  # fmt: skip
DTYPES = ["int64", "uint8", "float32", "complex64", "bool", "M8[ns]", "M8[s]", "m8[ms]"]
EXTENSIONS = ["Int8", "UInt32", "Float64", "boolean"]


@st.composite
def columns(draw: st.DrawFn, rows: int) -> Any:
    """A column of some dtype."""
    kind = draw(st.sampled_from(["numpy", "objects", "texts", "extension", "category", "zoned", "string"]))
    if kind == "numpy":
        raw = draw(st.binary(min_size=16 * rows, max_size=16 * rows))
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        whole = np.frombuffer(raw, "uint8" if dtype.kind == "b" else dtype)[:rows]
        return pd.Series(whole > 99 if dtype.kind == "b" else whole.copy())
    some = st.lists(st.one_of(st.none(), st.text(max_size=4)), min_size=rows, max_size=rows)
    if kind == "objects":
        cells = np.empty(rows, object)
        for number in range(rows):
            cells[number] = draw(CELLS)
        return pd.Series(cells, dtype=object)
    if kind == "extension":
        numbers = st.one_of(st.none(), st.integers(0, 1))
        cells_ = draw(st.lists(numbers, min_size=rows, max_size=rows))
        return pd.Series(pd.array(cells_, draw(st.sampled_from(EXTENSIONS))))
    if kind == "zoned":
        seconds = draw(st.lists(st.integers(-(2**40), 2**33), min_size=rows, max_size=rows))
        zone = draw(st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "-07:30"]))
        return pd.Series(pd.to_datetime(seconds, unit="s", utc=True)).dt.tz_convert(zone)
    dtype_ = {"category": "category", "texts": object, "string": draw(st.sampled_from(["string", "str"]))}[kind]
    return pd.Series(draw(some), dtype=dtype_)


@st.composite
def indexes(draw: st.DrawFn, size: int) -> Any:
    """Labels of rows or columns."""
    kind = draw(st.sampled_from(["range", "labels", "dates", "multi"]))
    name = draw(LABELS)
    if kind == "range":
        start, step = draw(st.integers(-5, 5)), draw(st.sampled_from([1, 2, -3]))
        return pd.RangeIndex(start, start + size * step, step, name=name)
    if kind == "dates":
        freq = draw(st.sampled_from(["D", "3h", "ME", "W-TUE", "B"]))
        return pd.date_range("2020-02-28", periods=size, freq=freq, tz=draw(st.sampled_from([None, "UTC"])), name=name)
    labels = st.lists(LABELS, min_size=size, max_size=size)
    if kind == "multi" and size:
        parts = st.lists(st.sampled_from(["a", "b", "c"]), min_size=size, max_size=size)
        return pd.MultiIndex.from_arrays([draw(parts), draw(parts)], names=[name, draw(LABELS)])
    return pd.Index(draw(labels), name=name, tupleize_cols=False, dtype=object)


@st.composite
def frames(draw: st.DrawFn) -> Any:
    """A frame of anything."""
    rows, width = draw(st.integers(0, 5)), draw(st.integers(0, 4))
    frame = pd.DataFrame({number: draw(columns(rows)) for number in range(width)}, index=range(rows))
    frame.index, frame.columns = draw(indexes(rows)), draw(indexes(width))
    frame.attrs = draw(st.dictionaries(st.text(max_size=3), CELLS, max_size=2))
    return frame


@settings(max_examples=100, deadline=None)
@given(frames())
def test_any_frame_arrives_as_it_was(frame: Any) -> None:
    same(round_trip(frame), frame)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_frame_that_was_tampered_with_is_an_error_or_a_frame(data: st.DataObject) -> None:
    """Whatever bytes come: no crash, no other exception than those of values, and nothing that cannot be looked at."""
    packed = bytearray(encode_value(TAMPERED[data.draw(st.integers(0, len(TAMPERED) - 1))], CODECS).pack())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(packed) - 1))
        packed[at] = data.draw(st.integers(0, 255))
    try:
        arrived = decode_packed(bytes(packed), CODECS)
    except (ValueDecodeError, ValueError):
        return
    with np.errstate(all="ignore"):
        repr(arrived)


TAMPERED = [
    pd.DataFrame({"a": ["x", None, "zz"], "b": pd.array([1, None, 2], "Int8"), "c": pd.Categorical(["u", "v", "u"])}),
    pd.DataFrame({"a": [1, 2]}, pd.date_range("2024", periods=2, freq="D", tz="Europe/Berlin")),
    pd.DataFrame([[1.5, 2.5]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
    pd.DataFrame({"a": pd.array([[1], None], pd.ArrowDtype(pa.list_(pa.int64())))}, pd.period_range("2024", periods=2)),
]


def test_equal_frames_are_one_key_whatever_their_layout() -> None:
    """For ``memoize`` and ``compare_and_set``."""
    frame = pd.DataFrame({"a": [1.5, 2.5], "b": [3.5, 4.5]})
    again = pd.DataFrame(np.array([[1.5, 3.5], [2.5, 4.5]]), columns=["a", "b"], copy=False)
    assert digest(frame, CODECS) == digest(again, CODECS) != digest(frame.astype("float32"), CODECS)
    texts = pd.DataFrame({"a": ["x", None]})
    assert digest(texts, CODECS) == digest(pd.concat([texts[:1], texts[1:]]), CODECS)
    packed, other = (encode_value(value, CODECS).pack() for value in (frame, again))
    assert equal(packed, other, CODECS) and not equal(packed, other, Codecs())
