"""One sample of every value that an agent's control plane sends, and as what two decoders of JavaScript read it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

__all__ = ["SAMPLES", "table"]


class Sample(NamedTuple):
    """One row: what it is, a value, how it is written, and as what ``cbor-x`` and npm ``cbor`` read it."""

    what: str
    value: Any
    written: str
    x: str
    npm: str


_DTYPE = "0xED64 [dtype, bytes]"
_SCALAR = "0xED73 of an array"

SAMPLES = (
    Sample("None", None, "null", "null", "null"),
    Sample("bool", True, "true", "boolean", "boolean"),
    Sample("int below 2**32", 5, "integer", "number", "number"),
    Sample("int from 2**32 on", 1 << 40, "integer", "number", "number"),
    Sample("int from 2**64 on", -(1 << 70), "tags 2, 3", "bigint", "bigint"),
    Sample("float, NumPy scalar", np.float32(1.5), "float", "number", "number"),
    Sample("NumPy integer", np.int64(5), "integer", "number", "number"),
    Sample("text, NumPy text", np.str_("a"), "text", "string", "string"),
    Sample("bytes", b"a", "bytes", "Buffer", "Buffer"),
    Sample("list, tuple", [1], "array", "Array", "Array"),
    Sample("dict with text keys", {"a": 1}, "map", "Object", "Object"),
    Sample("dict with other keys", {1: 2}, "map", "Object", "Map"),
    Sample("set", {1, "a"}, "tag 258", "Set", "Set"),
    Sample("datetime with a zone", datetime(2026, 1, 1, tzinfo=UTC), "tag 0", "Date", "Date"),
    Sample("datetime without one", datetime(2026, 1, 1), "0xED74 text", "Tag", "Tag"),  # noqa: DTZ001
    Sample(
        "datetime with seconds in its offset", datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=17))),
        "0xED74 text", "Tag", "Tag",
    ),
    Sample("date", date(2026, 1, 1), "tag 1004 text", "Tag", "Tag"),
    Sample("Decimal", Decimal("1.5"), "tag 4", "number", "Tag"),
    Sample("infinite Decimal, NaN", Decimal("Infinity"), "float", "number", "number"),
    Sample("negative zero as a Decimal", Decimal("-0.0"), "0xED65 text", "Tag", "Tag"),
    Sample("UUID", UUID(int=5), "tag 37", "Tag", "Tag"),
    Sample("array of integers, floats", np.ones(2), "tags 64 to 86", "Float64Array", "Float64Array"),
    Sample("array of float16", np.ones(2, "f2"), "tags 80, 84", "Tag", "Tag"),
    Sample("array of several dimensions", np.ones((2, 2)), "tag 40, in Fortran order 1040", "Tag", "Tag"),
    Sample("array of bool, text or bytes", np.array(["a", "bc"]), "array", "Array", "Array"),
    Sample("array of complex, datetime64, timedelta64", np.array(["2026"], "M8[D]"), _DTYPE, "Tag", "Tag"),
    Sample("datetime64, timedelta64, complex64", np.timedelta64(5, "s"), _SCALAR, "Tag", "Tag"),
)  # fmt: skip


def table() -> str:
    """Return the table as the page has it."""
    rows = [f"| {one.what} | {one.written} | {one.x} | {one.npm} |" for one in SAMPLES]
    return "\n".join(["| value | CBOR | `cbor-x` | npm `cbor` |", "|---|---|---|---|", *rows])
