"""NumPy arrays: every dtype and order, no copy on the way out, and what happens without NumPy."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from mycorrizal import RemoteProtocolError, ValueDecodeError, ValueEncodeError
from mycorrizal._wire import arrays
from mycorrizal._wire.values import DEFAULT, decode_packed, encode_value

from .strategies import brief
from .value_strategies import arrays as any_arrays
from .value_strategies import same, scalars


def arrive(value: object) -> Any:
    return decode_packed(encode_value(value).pack(), DEFAULT)


@brief
@given(any_arrays())
def test_arrays_arrive_writable_and_in_their_order(array: Any) -> None:
    got = arrive(array)
    assert same(array, got)
    assert got.flags.writeable
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        assert got.flags.f_contiguous


@brief
@given(scalars())
def test_scalars_arrive_as_scalars(scalar: Any) -> None:
    assert same(scalar, arrive([scalar])[0])


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_arrays_are_sent_from_their_own_memory(order: Any) -> None:
    array = np.zeros((100, 50), order=order)
    encoded = encode_value({"a": array, "b": array[0:1].copy()})
    assert [view.nbytes for view in encoded.buffers] == [array.nbytes]
    array[0, 0] = 1.0
    assert np.shares_memory(np.frombuffer(encoded.buffers[0], np.uint8), array)
    assert decode_packed(encoded.pack())["a"][0, 0] == 1.0  # type: ignore[index]


def test_received_arrays_share_memory_with_nothing() -> None:
    packed = encode_value([np.zeros(500), np.zeros(5)]).pack()
    first: Any = decode_packed(packed)
    for array in first:
        array[:] = 7
    second: Any = decode_packed(packed)
    assert not second[0].any() and not second[1].any()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5000)[::3],
        np.arange(6000).reshape(20, 30, 10).transpose(1, 0, 2),
        np.broadcast_to(np.float32(3), (40, 50)),
        np.zeros((3, 0, 2)),
        np.zeros((0,), "M8[us]"),
        np.array(7, ">i4"),
        np.array([["a", "bc"], ["", "ü"]]),
        np.array([b"", b""]),
        np.array(["NaT", "2026-01-01"], "M8[25s]"),
        np.arange(400, dtype=">f8").reshape(20, 20),
        np.zeros((1,) * 32),
        np.arange(10).view(np.memmap),
        np.array([0, 255, 1, 2] * 1000, "u1").view(bool),
        np.arange(24, dtype="u1").view(bool).reshape(2, 3, 4).T[::2],
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_odd_arrays(array: Any) -> None:
    assert same(np.asarray(array), arrive(array))


def test_standard_tags_and_shapes() -> None:
    assert encode_value(np.array([1, 2], "<u2")).header.hex() == "d845" + "44" + "01000200"
    assert encode_value(np.array([[1], [2]], "|i1")).header.hex() == "d828" + "82" + "820201" + "d848" + "42" + "0102"
    assert encode_value(np.float32(1)).header.hex() == "d9ed73" + "d855" + "44" + "0000803f"
    fortran = np.asfortranarray(np.array([[1, 2], [3, 4]], "|u1"))
    assert encode_value(fortran).header.hex() == "d90410" + "82" + "820202" + "d840" + "44" + "01030204"
    assert encode_value(np.array([True])).header.hex() == "d9ed64" + "82" + "637c6231" + "41" + "01"


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([object()]), r"^value\['x'\]: an array of Python objects cannot be sent \(convert it"),
        (np.zeros(3, "i4,f8"), "a structured array cannot be sent .*dict of arrays"),
        (np.ma.array([1, 2], mask=[False, True]), "a masked array cannot be sent .*filled"),
        (np.zeros(3, np.longdouble), "an array of float128 cannot be sent .*astype"),
        (np.zeros(3, np.clongdouble), "an array of complex256 cannot be sent"),
        (np.zeros(3, "V5"), "cannot be sent"),
        (np.array(["a"], np.dtypes.StringDType()), "cannot be sent"),
        (np.zeros((1,) * 33), "an array of 33 dimensions"),
        (np.dtype("f8"), "cannot be sent"),
        (np.arange(10).view(np.matrix), "matrix, a kind of array of its own, .*asarray"),
        (np.array([0x110000], "u4").view("U1"), "other characters than Unicode has"),
        (np.ndarray((2,), "U0"), r"astype\('U1'\)"),
        (np.str_("a\0"), r"ends with NUL .*str\(\)"),
        ({np.bool_(1): 2}, "bool cannot be a key"),
        ({np.float32(1)}, "float32 in a set"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_sent(array: Any, text: str) -> None:
    with pytest.raises(ValueEncodeError, match=text):
        encode_value({"x": array})


# -- without NumPy -------------------------------------------------------------------------


@pytest.fixture
def no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_import_numpy", lambda: None)


@pytest.mark.usefixtures("no_numpy")
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<i4"),
        np.arange(6, dtype=">i4"),
        np.arange(4000, dtype=">f8").reshape(50, 80),
        np.arange(24, dtype="u2").reshape(2, 3, 4),
        np.array([True, False]),
        np.zeros(0, "f4"),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_a_receiver_without_numpy_gets_a_view(array: Any) -> None:
    got = arrive(array)
    assert type(got) is memoryview
    assert got.tolist() == array.tolist()
    assert not got.nbytes or got.shape == array.shape
    assert not got.readonly


@pytest.mark.usefixtures("no_numpy")
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4", ">f8"])
def test_without_numpy_an_array_has_whole_elements_too(dtype: str) -> None:
    for size in (1, 7, 9):
        with pytest.raises(RemoteProtocolError, match=f"{size} bytes for an array of"):
            arrays.typed(dtype, bytes(size))


@pytest.mark.usefixtures("no_numpy")
def test_without_numpy_scalars_are_plain_and_the_rest_is_refused() -> None:
    assert arrive(np.float32(1.5)) == 1.5
    assert arrive(np.zeros((0, 3))).nbytes == 0
    strange = [np.zeros(3, "M8[s]"), np.array(["a"]), np.zeros(3, "c8"), np.zeros(3, "f2")]
    for array in (*strange, np.asfortranarray(np.zeros((3, 4)))):
        with pytest.raises(ValueDecodeError, match="install numpy"):
            arrive(array)


def test_numpy_is_imported_by_arrays_only() -> None:
    code = (
        "import sys\n"
        "from mycorrizal._wire.values import DEFAULT, decode_packed, encode_value\n"
        "decode_packed(encode_value({'a': [1, 2.5, b'x' * 9000]}).pack())\n"
        "assert 'numpy' not in sys.modules\n"
        f"got = decode_packed(bytes.fromhex({encode_value(np.arange(3.0)).pack().hex()!r}))\n"
        "assert 'numpy' in sys.modules and got.tolist() == [0, 1, 2]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
