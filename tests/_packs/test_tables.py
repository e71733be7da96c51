"""Arrow tables: all types, nothing compressed, nothing trusted."""

from __future__ import annotations

import datetime as dt
import decimal
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mycorrizal import ValueDecodeError, ValueEncodeError
from mycorrizal._packs import tables
from mycorrizal._packs.tables import pack_table, unpack_table
from mycorrizal._wire.values import decode_held, decode_packed, encode_value
from tests._packs.same import CODECS

WHEN = dt.datetime(2024, 1, 2, 3, 4, 5, 678, dt.UTC)
ARRAYS: dict[str, Any] = {
    "null": pa.nulls(3),
    "bool": pa.array([True, None, False]),
    "int8": pa.array([1, None, 3], pa.int8()),
    "uint64": pa.array([1, None, 2**64 - 1], pa.uint64()),
    "float16": pa.array(np.array([1, 2, 3], "float16")),
    "double": pa.array([0.5, None, -0.0]),
    "decimal": pa.array([decimal.Decimal("1.50"), None, None], pa.decimal128(10, 2)),
    "decimal256": pa.array([decimal.Decimal("1.50"), None, None], pa.decimal256(60, 2)),
    "date": pa.array([WHEN.date(), None, None]),
    "time": pa.array([WHEN.time(), None, None]),
    "timestamp": pa.array([WHEN, None, None], pa.timestamp("us", "Europe/Berlin")),
    "duration": pa.array([1, None, 3], pa.duration("ns")),
    "months": pa.array([(1, 2, 3), None, None], pa.month_day_nano_interval()),
    "text": pa.array(["a", None, "ä"]),
    "large text": pa.array(["a", None, "ä"], pa.large_string()),
    "text view": pa.array(["a", None, "longer than twelve bytes"], pa.string_view()),
    "binary": pa.array([b"a", None, b""]),
    "fixed binary": pa.array([b"ab", None, b"cd"], pa.binary(2)),
    "list": pa.array([[1], None, [2, None]]),
    "large list": pa.array([[1], None, []], pa.large_list(pa.int8())),
    "list view": pa.array([[1], None, []], pa.list_view(pa.int8())),
    "fixed list": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
    "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
    "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int8())),
    "union": pa.UnionArray.from_sparse(
        pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]
    ),
    "dense union": pa.UnionArray.from_dense(
        pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()), [pa.array([1, 2]), pa.array(["a"])]
    ),
    "dictionary": pa.array(["a", None, "a"]).dictionary_encode(),
    "dictionary in a list": pa.array([["a"], None, ["b"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"])),
    "uuid": pa.array([bytes(16), None, bytes(range(16))], pa.uuid()),
}


def arrived(table: Any) -> Any:
    packed = encode_value(table, CODECS).pack()
    found: Any
    for found in (decode_packed(packed, CODECS), decode_held(packed, CODECS)):
        found.validate(full=True)
        assert type(found) is pa.Table and found.schema.equals(table.schema, check_metadata=True)
        assert found.equals(table, check_metadata=True)
    return found


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_each_type_arrives_in_its_table(name: str) -> None:
    table = pa.table({name: ARRAYS[name], "n": [1, 2, 3]})
    arrived(table)
    arrived(table.slice(1, 1))
    arrived(table.slice(3))
    arrived(pa.concat_tables([table, table.slice(1)]))


def test_tables_of_other_shapes() -> None:
    arrived(pa.table({}))
    arrived(pa.schema([("a", pa.int8())]).empty_table())
    arrived(pa.table([[1], ["x"]], names=["a", "a"]))
    described = pa.schema([pa.field("a", pa.int8(), False, {"unit": "m"})], {"source": "here"})
    arrived(pa.table([pa.array([1], pa.int8())], schema=described))
    arrived(pa.table({"a": pa.chunked_array([[1], [2, 3]])}))


def test_a_part_of_a_large_table_does_not_take_the_rest_along() -> None:
    whole = pa.table({"a": np.arange(100_000), "s": [str(number) for number in range(100_000)]})
    assert encode_value(whole.slice(500, 10), CODECS).size < 2000


def test_a_table_in_many_pieces_is_joined() -> None:
    pieces = pa.chunked_array([[number] for number in range(tables._MESSAGES_MAX // 4 + 1)])
    assert arrived(pa.table({"a": pieces})).column(0).num_chunks == 1


def test_the_bytes_lie_beside_the_header_and_are_not_copied_again() -> None:
    encoded = encode_value(pa.table({"a": np.arange(100_000)}), CODECS)
    assert len(encoded.header) < 200 and [view.nbytes > 800_000 for view in encoded.buffers] == [True]
    data = encoded.pack()
    held: Any = decode_held(data, CODECS)
    column = held.column(0)
    address = column.chunk(0).buffers()[1].address
    memory = pa.py_buffer(data)
    inside = memory.address <= address < memory.address + memory.size
    assert inside or address % 8 == 0, "a view of the entry, or a copy where that does not begin at a multiple of eight"


# -- what no honest peer sends -------------------------------------------------------------------------------------


def stream(table: Any, **options: Any) -> Any:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("name", ["plain", "dictionary"])
def test_what_is_compressed_is_refused_before_it_grows(codec: str, name: str) -> None:
    zeros = pa.array(np.zeros(10_000_000, "uint8"))
    found = {"plain": zeros, "dictionary": pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), zeros)}[name]
    data = stream(pa.table({"a": found}), compression=codec)
    before = pa.total_allocated_bytes()
    peak = pa.default_memory_pool().max_memory()
    with pytest.raises(ValueError, match="compressed"):
        unpack_table([[], data])
    assert pa.total_allocated_bytes() == before and pa.default_memory_pool().max_memory() == peak


def test_what_is_no_table_is_refused() -> None:
    good = stream(pa.table({"a": [1]}))
    for data in (b"", b"x" * 100, good[:-1][:50], bytes(8), struct.pack("<II", 0xFFFFFFFF, 1 << 30)):
        with pytest.raises((ValueError, OSError, EOFError)):
            unpack_table([[], data])
    sent: Any
    for sent in (None, 7, [[], "text"], [[], None], [[1], good], [["x"], good], [good]):
        with pytest.raises((ValueError, TypeError)):
            unpack_table(sent)


def test_texts_and_indices_are_looked_at() -> None:
    """Offsets beyond the memory, indices beyond the dictionary, and text that is none."""
    good = stream(pa.table({"a": pa.array(["abcdefgh", "ijklmnop"])}))
    at = good.index(b"abcdefgh")
    with pytest.raises(ValueError, match="UTF8"):
        unpack_table([[], good[:at] + b"\xff" + good[at + 1 :]])
    offsets = good.index(struct.pack("<3i", 0, 8, 16))
    with pytest.raises(ValueError, match="ffset"):
        unpack_table([[], good[: offsets + 8] + struct.pack("<i", 1 << 30) + good[offsets + 12 :]])
    indices = pa.DictionaryArray.from_arrays(pa.array([1, 1, 1, 1, 1, 1, 1, 1], pa.int8()), ["a", "b"])
    coded = stream(pa.table({"a": indices}))
    where = coded.rindex(bytes([1] * 8))
    with pytest.raises(ValueError, match="out of bounds"):
        unpack_table([[], coded[:where] + b"\x7f" + coded[where + 1 :]])


def test_too_many_pieces_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = stream(pa.table({"a": pa.chunked_array([[1], [2], [3]])}))
    assert unpack_table([[], data]).num_rows == 3
    monkeypatch.setattr(tables, "_MESSAGES_MAX", 3)
    with pytest.raises(ValueError, match="too many pieces"):
        unpack_table([[], data])


class Marked(pa.ExtensionType):
    """A type that only one side has registered."""

    def __init__(self) -> None:
        super().__init__(pa.int64(), "tests.marked")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Marked:
        return cls()


def test_a_type_that_is_known_at_one_side_only_is_no_silent_loss() -> None:
    table = pa.table({"a": pa.ExtensionArray.from_storage(Marked(), pa.array([1, 2]))})
    packed = encode_value({"t": table}, CODECS).pack()
    with pytest.raises(ValueDecodeError, match="tests.marked"):
        decode_packed(packed, CODECS)
    pa.register_extension_type(Marked())
    try:
        arrived(table)
    finally:
        pa.unregister_extension_type("tests.marked")


def test_what_would_be_unpickled_by_an_old_pyarrow_is_neither_sent_nor_read() -> None:
    marked = pa.field("a", pa.int8(), metadata={"ARROW:extension:name": "arrow.py_extension_type"})
    table = pa.table([pa.array([1], pa.int8())], schema=pa.schema([marked]))
    with pytest.raises(ValueError, match="pickled"):
        unpack_table([["?arrow.py_extension_type"], stream(table)])
    with pytest.raises(ValueEncodeError, match="pickled"):
        encode_value(table, CODECS)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_bytes_that_were_tampered_with_are_an_error_or_a_table(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(ARRAYS)))
    names, memory = pack_table(pa.table({"a": ARRAYS[name], "s": ["x", None, "z"]}))
    raw = bytearray(memory)
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        table = unpack_table([names, bytes(raw)])
    except (ValueError, TypeError, KeyError, OSError, NotImplementedError, MemoryError, struct.error):
        return
    table.validate(full=True)
    assert table.nbytes <= 16 * len(raw) + 1024
