"""NumPy arrays as RFC 8746 typed arrays over raw memory, without importing NumPy until one arrives.

A type that the RFC has no tag for (bool, complex, datetime64, timedelta64, S,
U) travels with the text of its dtype. Fortran order travels as it lies in
memory (tag 1040), other strides are copied once. What arrives is writable and
shares its memory with nothing. Subclasses of arrays and scalars mean something
that would be lost, and are refused; ``memmap`` is only about where memory lies.

A receiver without NumPy gets a ``memoryview`` of the same format and shape.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import cbor2

from ..exceptions import RemoteProtocolError, ValueDecodeError
from ..types import find_numpy
from .value_guard import (
    BUFFER_MIN,
    BUFFERS_MAX,
    DIMENSIONS_MAX,
    TAG_ARRAY,
    TAG_ARRAY_F,
    TAG_BUFFER,
    TAG_DTYPE,
    TAG_SCALAR,
    TYPED,
)

__all__ = [
    "Buffers",
    "Unfit",
    "canonical_array",
    "decoders",
    "encode_array",
    "find_numpy",
    "is_integer",
    "is_numpy",
    "shaped",
    "single",
    "typed",
]


Buffers = list[tuple[memoryview, int]]
"""What goes beside the header: a view of bytes, and its length as it travels."""


class Unfit(Exception):
    """A value that cannot be sent: the reason, and what to do instead."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint
        self.path: list[str] = []


TAG_OF_DTYPE = {
    **{"|u1": 64, ">u2": 65, ">u4": 66, ">u8": 67, "<u2": 69, "<u4": 70, "<u8": 71},
    **{"|i1": 72, ">i2": 73, ">i4": 74, ">i8": 75, "<i2": 77, "<i4": 78, "<i8": 79},
    **{">f2": 80, ">f4": 81, ">f8": 82, "<f2": 84, "<f4": 85, "<f8": 86},
}
DTYPE_OF_TAG = {tag: text for text, tag in TAG_OF_DTYPE.items()}
_OTHER = re.compile(r"\|b1|[<>]c(?:8|16)|[<>][mM]8(?:\[\d{0,9}[a-zA-Zμ]{1,2}\])?|\|S[1-9]\d{0,8}|[<>]U[1-9]\d{0,7}")
_FORMATS = {"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "i1": "b", "i2": "h", "i4": "i", "i8": "q"}
_FORMATS |= {"f4": "f", "f8": "d", "b1": "?"}
_NATIVE = "<" if sys.byteorder == "little" else ">"


def _import_numpy() -> Any:
    """Return NumPy, or None if it is not installed."""
    try:
        import numpy
    except Exception:  # or it cannot be loaded: a broken installation says so in many ways
        return None
    return numpy


def is_numpy(value: object) -> bool:
    """Return whether `value` is a NumPy array, or a scalar such as ``float32(1)``."""
    numpy = find_numpy()
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def is_integer(value: object) -> bool:
    """Return whether `value` is an integer of Python or NumPy, and no truth value."""
    if isinstance(value, int):
        return type(value) is not bool
    numpy = find_numpy()
    return numpy is not None and isinstance(value, numpy.integer)


def encode_array(value: Any, buffers: Buffers) -> cbor2.CBORTag:
    """Return what stands for an array or NumPy scalar in the header; large memory joins `buffers`, uncopied.

    Raises:
        Unfit: a dtype that does not travel.
    """
    numpy = find_numpy()
    _check_kind(numpy, value)
    _check_dtype(value)
    array = numpy.asarray(value)
    if not array.dtype.itemsize:  # of an empty text, to which NumPy gives one character in an array
        array = array.astype(array.dtype.char + "1")
    fault = _odd_elements(numpy, array)
    if fault and fault != "bool":
        raise Unfit(f"an array of {fault} cannot be sent", "send .view('uint8')")
    text = array.dtype.str
    tag, lies = TAG_ARRAY, array
    flags = array.flags
    if not flags.c_contiguous:
        if flags.f_contiguous:
            tag, lies = TAG_ARRAY_F, array.T
        else:
            lies = numpy.ascontiguousarray(array)
    if fault:
        lies = lies.view(numpy.uint8) != 0  # NumPy reads any byte as True
    raw = memoryview(lies.reshape(-1).view(numpy.uint8)) if array.size else memoryview(b"")
    content: Any
    if raw.nbytes < BUFFER_MIN or len(buffers) >= BUFFERS_MAX:
        content = raw.tobytes()
    else:
        content = cbor2.CBORTag(TAG_BUFFER, len(buffers))
        buffers.append((raw, raw.nbytes))
    number = TAG_OF_DTYPE.get(text)
    flat = cbor2.CBORTag(TAG_DTYPE, [text, content]) if number is None else cbor2.CBORTag(number, content)
    if isinstance(value, numpy.generic):
        return cbor2.CBORTag(TAG_SCALAR, flat)
    return flat if array.ndim == 1 else cbor2.CBORTag(tag, [list(array.shape), flat])


def _check_kind(numpy: Any, value: Any) -> None:
    """Refuse what would arrive as less than it is."""
    kind, dtype = type(value), value.dtype
    if isinstance(value, numpy.ma.MaskedArray):
        raise Unfit("a masked array cannot be sent", "send .data and .mask, or .filled()")
    if dtype.names is not None:
        hint = "send its fields as a dict of arrays, such as {name: array[name] for name in array.dtype.names}"
        raise Unfit("a structured array cannot be sent", hint)
    if isinstance(value, numpy.ndarray):
        if kind is not numpy.ndarray and kind is not numpy.memmap:
            hint = "send numpy.asarray() of it, and beside that what else it means"
            raise Unfit(f"{kind.__qualname__}, a kind of array of its own, cannot be sent", hint)
        if not dtype.itemsize:
            raise Unfit(f"an array of {dtype.str} cannot be sent", f"convert it with .astype('{dtype.char}1')")
    elif kind is not dtype.type:
        raise Unfit(f"{kind.__qualname__}, a kind of number of its own, cannot be sent", "send .item()")
    elif dtype.kind in "SU" and value[-1:] in ("\0", b"\0"):
        text = "str" if dtype.kind == "U" else "bytes"
        raise Unfit(f"{kind.__qualname__} that ends with NUL cannot be sent: NumPy drops it", f"send {text}() of it")


def _check_dtype(value: Any) -> None:
    """Refuse what does not travel."""
    dtype = value.dtype
    if dtype.kind == "T":
        raise Unfit(f"an array of {dtype} cannot be sent", "send .tolist()")
    if dtype.hasobject:
        hint = "convert it with .astype() if all are numbers, or send .tolist()"
        raise Unfit("an array of Python objects cannot be sent", hint)
    if value.ndim > DIMENSIONS_MAX:
        hint = f"{DIMENSIONS_MAX} are the most; send .ravel() and .shape"
        raise Unfit(f"an array of {value.ndim} dimensions cannot be sent", hint)
    if dtype.itemsize and dtype.str not in TAG_OF_DTYPE and not _OTHER.fullmatch(dtype.str):
        wider = {"f": "convert it with .astype('float64')", "c": "convert it with .astype('complex128')"}
        raise Unfit(f"an array of {dtype} cannot be sent", wider.get(dtype.kind, "send .tobytes() and its dtype"))


def _odd_elements(numpy: Any, array: Any) -> str | None:
    """Return what is wrong with elements that NumPy itself would never make, and trips over later."""
    kind = array.dtype.kind
    if kind == "b" and array.size and array.view(numpy.uint8).max() > 1:
        return "bool"
    if kind == "U" and array.size:
        points = numpy.ascontiguousarray(array).reshape(-1).view(array.dtype.byteorder.replace("=", _NATIVE) + "u4")
        if points.max() > sys.maxunicode:
            return "text with other characters than Unicode has"
    return None


def canonical_array(value: object) -> list[bytes] | None:
    """Return dtype, shape and elements of an array, however its memory is laid out; None for anything else."""
    numpy = find_numpy()
    if numpy is None or not isinstance(value, numpy.ndarray):
        return None
    elements = value.view(numpy.uint8) != 0 if _odd_elements(numpy, value) == "bool" else value  # as encode_array
    return [value.dtype.str.encode(), repr(value.shape).encode(), elements.tobytes()]


# -- decoding: called for each tag, from the inside out -----------------------------------------------------------


def typed(text: str, raw: bytes | bytearray | memoryview) -> Any:
    """Return the one-dimensional array in `raw`, over its memory if that is writable.

    Raises:
        RemoteProtocolError: not a dtype that travels, or bytes that do not fit it.
        ValueDecodeError: NumPy is missing here, and it takes that.
    """
    if text not in TAG_OF_DTYPE and not _OTHER.fullmatch(text):
        raise RemoteProtocolError(f"an array of {text[:32]!r}")
    memory = bytearray(raw) if isinstance(raw, bytes) else raw
    numpy = _import_numpy()
    if numpy is None:
        return _plain(text, memory)
    dtype = numpy.dtype(text)
    if len(memory) % dtype.itemsize:
        raise RemoteProtocolError(f"{len(memory)} bytes for an array of {text}")
    if not memory:
        return numpy.empty(0, dtype)
    array = numpy.frombuffer(memory, dtype)
    fault = _odd_elements(numpy, array)
    if fault:
        raise RemoteProtocolError("an array of bool with other values" if fault == "bool" else f"an array of {fault}")
    return array


def shaped(shape: list[int] | tuple[int, ...], flat: Any, *, fortran: bool) -> Any:
    """Return `flat` in another shape.

    Raises:
        RemoteProtocolError: the shape holds another number of elements.
    """
    count = 1
    for dim in shape:
        count *= dim
    if count != len(flat):
        raise RemoteProtocolError(f"{len(flat)} elements for an array of shape {shape}")
    if isinstance(flat, memoryview):
        return _plain_shaped(shape, flat, fortran=fortran)
    try:
        return flat.reshape(shape, order="F" if fortran else "C")
    except (ValueError, OverflowError) as error:  # such as (2**40, 2**40, 0)
        raise RemoteProtocolError(f"an array of shape {shape}: {error}") from None


def single(flat: Any) -> Any:
    """Return the one element of `flat`.

    Raises:
        RemoteProtocolError: there is another number of them.
    """
    if len(flat) != 1:
        raise RemoteProtocolError(f"{len(flat)} elements for one number")
    return flat[0]


_INSTALL = "install numpy where it is to be read"


def _plain(text: str, memory: bytearray | memoryview) -> memoryview:
    """Return a one-dimensional view where NumPy is missing."""
    kind = _FORMATS.get(text[1:])
    if kind is None:
        raise ValueDecodeError(f"an array of {text}, and NumPy is missing here", hint=_INSTALL)
    view = memoryview(memory)
    size = int(text[2:])
    if len(memory) % size:
        raise RemoteProtocolError(f"{len(memory)} bytes for an array of {text}")
    if size > 1 and text[0] != _NATIVE:
        swapped = bytearray(len(memory))
        for i in range(size):
            swapped[i::size] = memory[size - 1 - i :: size]
        view = memoryview(swapped)
    return view.cast(kind)  # type: ignore[call-overload, no-any-return]


def _plain_shaped(shape: list[int] | tuple[int, ...], flat: memoryview, *, fortran: bool) -> memoryview:
    if len(shape) < 2 or not flat.nbytes:
        return flat
    if fortran:
        raise ValueDecodeError("an array in Fortran order, and NumPy is missing here", hint=_INSTALL)
    return flat.cast("B").cast(flat.format, shape)  # type: ignore[call-overload, no-any-return]


_Decoder = Callable[[Any], Any]


def decoders() -> dict[int, _Decoder]:
    """Return the function for the content of each tag of arrays."""

    def for_tag(text: str) -> _Decoder:
        return lambda content: typed(text, content)

    return {
        **{tag: for_tag(text) for tag, text in DTYPE_OF_TAG.items() if tag in TYPED},
        TAG_ARRAY: lambda content: shaped(*content, fortran=False),
        TAG_ARRAY_F: lambda content: shaped(*content, fortran=True),
        TAG_DTYPE: lambda content: typed(*content),
        TAG_SCALAR: single,
    }
