"""Arrow tables as Arrow's own stream format, in one piece of memory that is neither compressed nor trusted.

A stream of a peer is looked through before Arrow reads it: a compressed buffer
could grow to any size, so there is none. What Arrow then reads are views of
the memory that came, each within its bounds; ``validate(full=True)`` looks at
every offset, index and text in them before anybody uses them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from .._wire.arrays import Unfit
from .._wire.value_codecs import Codecs
from ..types import find_numpy

__all__ = ["add_arrow", "pack_array", "pack_table", "unpack_array", "unpack_table"]

_MESSAGES_MAX = 1 << 14
"""Messages of one stream: a table in more pieces is joined first."""

_PICKLED = "arrow.py_extension_type"
"""Of pyarrow before 14.0.1, which unpickled what stands behind that name."""


def add_arrow(codecs: Codecs) -> None:
    """Register Arrow's tables."""
    codecs.register(pa.Table, "pyarrow.Table", pack_table, unpack_table)


def pack_table(table: Any) -> list[Any]:
    """Return `table` as a value that travels: names of its extension types, and its bytes. One copy. Any thread."""
    names = sorted(_extensions(table.schema))
    if any(name.endswith(_PICKLED) for name in names):
        raise Unfit("a column of a pickled extension type cannot be sent", "cast it to its storage type")
    if sum(column.num_chunks for column in table.columns) > _MESSAGES_MAX // 4:
        table = table.combine_chunks()
    size = pa.MockOutputStream()
    _write(table, size)
    memory = pa.allocate_buffer(size.size())
    _write(table, pa.FixedSizeBufferWriter(memory))
    numpy = find_numpy()
    return [names, memoryview(memory) if numpy is None else numpy.frombuffer(memory, numpy.uint8)]


def unpack_table(sent: Any) -> Any:
    """Return the table; it shares the memory that came.

    Raises:
        ValueError, pyarrow.ArrowInvalid: it is none, is compressed, or has extension types that are not known here.
    """
    names, data = sent
    buffer = pa.py_buffer(data)
    for number, message in enumerate(pa.ipc.MessageReader.open_stream(buffer)):
        if number >= _MESSAGES_MAX:
            raise ValueError("a table in too many pieces")
        if message.type == "schema":
            if _PICKLED.encode() in message.metadata.to_pybytes():
                raise ValueError("a pickled extension type")
        elif message.type not in ("record batch", "dictionary") or _compressed(message):
            raise ValueError("a table that is compressed, or is none")
    table = pa.ipc.open_stream(buffer, options=_OPTIONS).read_all()
    table.validate(full=True)
    if sorted(_extensions(table.schema)) != names:
        raise ValueError(f"extension types that are not registered here as there: {names!a}")
    return table


def pack_array(array: Any) -> list[Any]:
    """Return an array, chunked or not, as a value that travels."""
    return pack_table(pa.table({"": array}).combine_chunks())


def unpack_array(sent: Any) -> Any:
    """Return the array, in one chunk."""
    table = unpack_table(sent)
    if table.num_columns != 1:
        raise ValueError(f"{table.num_columns!a} columns for one")
    column = table.column(0)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which would copy a single one too


def _write(table: Any, sink: Any) -> None:
    options = pa.ipc.IpcWriteOptions(compression=None)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)


_OPTIONS = pa.ipc.IpcReadOptions()
if hasattr(_OPTIONS, "ensure_alignment"):  # from pyarrow 19 on; views of a cache's memory begin anywhere
    _OPTIONS.ensure_alignment = pa.ipc.Alignment.DataTypeSpecific


def _extensions(schema: Any) -> Iterator[str]:
    """Yield the names of extension types, those that are known here and those that are not."""
    fields = list(schema)
    while fields:
        field = fields.pop()
        kind = field.type
        name = (field.metadata or {}).get(b"ARROW:extension:name")
        if name is not None:
            yield "?" + name.decode("utf-8", "replace")
        while isinstance(kind, pa.BaseExtensionType):
            yield kind.extension_name
            kind = kind.storage_type
        if isinstance(kind, pa.DictionaryType):
            kind = kind.value_type
        fields += [kind.field(number) for number in range(kind.num_fields)]


def _compressed(message: Any) -> bool:
    """Return whether a message with a record batch says that its buffers are compressed (Arrow's ``Message.fbs``)."""
    data = message.metadata.to_pybytes()
    header = _table(data, _field(data, _table(data, 0), 2))
    if message.type == "dictionary":
        header = _table(data, _field(data, header, 1))
    return _field(data, header, 3) != 0


def _table(data: bytes, at: int) -> int:
    """Return where the table stands that the offset at `at` means. Arrow has verified it before."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Return where a field of a table stands, 0 if it is not there."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    if 4 + 2 * number >= int(struct.unpack_from("<H", data, vtable)[0]):
        return 0
    offset = int(struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0])
    return table + offset if offset else 0
