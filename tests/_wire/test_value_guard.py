"""The guard before cbor2: every trap of the format and the library, and the price of the worst that passes."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import cbor2
import pytest

from mycorrizal import RemoteProtocolError
from mycorrizal._wire import value_guard
from mycorrizal._wire.value_guard import CONTAINERS_MAX, DEPTH_MAX, ITEMS_MAX, scan
from mycorrizal._wire.values import decode_packed, decode_parts, encode_value


def head(major: int, number: int) -> bytes:
    return bytes([major << 5 | 27]) + struct.pack(">Q", number)


def refused(data: bytes, match: str | None = None, *buffers: bytes | bytearray) -> None:
    with pytest.raises(RemoteProtocolError, match=match):
        decode_parts(data, buffers)


# -- what the library would do something with ----------------------------------------------

TRAPS = {
    "a regular expression": "d8236428612b29",
    "shared references that make a cycle": "d81c81d81d00",
    "a shared reference": "d81d00",
    "a namespace of strings": "d901008161" + "61",
    "a reference to a string": "d81900",
    "a MIME message": "d82461" + "61",
    "a fraction": "d81e820102",
    "a complex number": "d9a7f882fb3ff0000000000000fb4000000000000000",
    "an IP address": "d9010444c00a0a01",
    "an address prefix": "d83483" + "1818" + "41c0" + "f6",
    "epoch time that overflows": "c1fb7ff0000000000000",
    "epoch time as text": "c16130",
    "epoch time with a tag": "c1c100",
    "days since 1970": "d86400",
    "a date that is a number": "d903ec00",
    "a time that is a number": "c000",
    "a time that is too short": "c06161",
    "a time that is none": "c074" + b"2026-13-45T00:00:00Z".hex(),
    "a date that is none": "d903ec6a" + b"2026-99-01".hex(),
    "a bigfloat": "c5821b7fffffffffffffff01",
    "a decimal whose exponent overflows": "c4821b7fffffffffffffff01",
    "a decimal with a large exponent": "c482192710" + "01",
    "a decimal with a small exponent": "c4823a000fffff01",
    "a decimal with a float": "c482f93c0001",
    "a decimal of three": "c483010203",
    "a decimal with a list": "c482018101",
    "a decimal with a long number": "c48201c2" + "590201" + "ff" * 513,
    "a big number of text": "c26161",
    "a big number of a number": "c201",
    "a big number that is too big": "c2590201" + "ff" * 513,
    "a negative one": "c3590201" + "ff" * 513,
    "a UUID of 15 bytes": "d8254f" + "00" * 15,
    "a UUID of text": "d82570" + "61" * 16,
    "an unknown tag": "d9ffff00",
    "a tag of 64 bits": "dbffffffffffffffff00",
    "the tag that means CBOR": "d9d9f700",
    "a reserved tag head": "dc00",
    "an indefinite tag": "df00",
    "a map of indefinite length": "bf6178f5ff",
    "an array of indefinite length": "9fff",
    "bytes of indefinite length": "5f4161ff",
    "text of indefinite length": "7f6178ff",
    "a key of indefinite length": "a17f6178ff01",
    "a break": "ff",
    "undefined": "f7",
    "a simple value": "f820",
    "simple value 0": "e0",
    "reserved heads": "1c",
    "reserved negative": "3d",
    "a reserved length": "5e",
    "a reserved count": "9c",
    "a reserved special": "fc",
    "text that is not UTF-8": "62c328",
    "a key that is not UTF-8": "a162c32801",
    "text that ends in a surrogate": "63eda080",
    "an array as key": "a18001",
    "a map as key": "a1a001",
    "a float as key": "a1f93c0001",
    "a bool as key": "a1f501",
    "null as key": "a1f601",
    "a tag as key": "a1c24101" + "01",
    "a big number as key": "a1c249" + "ff" * 9 + "00",
    "a long byte string as key": "a1590100" + "00" * 256 + "01",
    "a duplicate key": "a2617801617802",
    "a duplicate key below": "81a1" + "6179" + "a2617801617802",
    "a duplicate integer in another length": "a2010218010" + "3",
    "a duplicate text in another length": "a2617801" + "78017802",
    "a set that is a map": "d90102a0",
    "a set of lists": "d901028180",
    "a set of big numbers": "d9010281c249" + "ff" * 9,
    "a set of sets": "d9010281d9010280",
    "text with a longer head than it needs": "780161",
    "a tag with a longer head than it needs": "d802" + "4101",
    "a list with a longer head than it needs": "9800",
    "the longest text for a head of one byte, with two": "7817" + "61" * 23,
    "the longest text for a head of two bytes, with three": "7900ff" + "61" * 255,
    "the longest text for a head of three bytes, with five": "7a0000ffff" + "61" * 65535,
    "trailing bytes": "0000",
    "nothing": "",
    "a number that is cut": "1900",
    "text that is cut": "6261",
    "long text that is cut": "780561",
    "a list that is cut": "8201",
    "a map that is cut": "a16161",
    "a head that is cut": "9a0000",
    "a tag that is cut": "d9",
    "a tag without content": "c2",
}


@pytest.mark.parametrize("hexed", TRAPS.values(), ids=TRAPS)
def test_traps_are_refused(hexed: str) -> None:
    for wrapped in (hexed, "81" + hexed, "a16161" + hexed):
        refused(bytes.fromhex(wrapped))


@pytest.mark.parametrize("hexed", TRAPS.values(), ids=TRAPS)
def test_traps_are_refused_inside_a_codec(hexed: str) -> None:
    refused(bytes.fromhex("d9ed63826161" + hexed))


OURS = {
    "a buffer that is not there": ("d9ed6200", []),
    "a buffer twice": ("82d9ed6200d9ed6200", [b"x"]),
    "buffers out of order": ("82d9ed6201d9ed6200", [b"x", b"y"]),
    "a buffer of an array as bytes": ("d9ed6200", [bytearray(8)]),
    "a buffer of bytes as an array": ("d856d9ed6200", [bytes(8)]),
    "a buffer nobody asks for": ("00", [b"x"]),
    "a negative buffer": ("d9ed6220", [b"x"]),
    "a buffer named by text": ("d9ed626161", [b"x"]),
    "a buffer as key": ("a1d9ed620001", [b"x"]),
    "a buffer in a set": ("d9010281d9ed6200", [b"x"]),
    "text that is not in a buffer": ("d9ed754161", []),
    "text that is not UTF-8": ("d9ed75d9ed6200", [b"\xff"]),
    "text in an array's buffer": ("d9ed75d9ed6200", [bytearray(b"a")]),
    "a codec without a list": ("d9ed6361" + "61", []),
    "a codec of three": ("d9ed6383616161" + "6161", []),
    "a codec without a name": ("d9ed63820102", []),
    "a codec that is cut": ("d9ed63826161", []),
    "a codec with a long name": ("d9ed6382790100" + "61" * 256 + "01", []),
    "a scalar of two": ("d9ed73d84842" + "0102", []),
    "a scalar of none": ("d9ed73d84840", []),
    "a scalar that is a number": ("d9ed7301", []),
    "a scalar of a scalar": ("d9ed73d9ed73d8484101", []),
    "a typed array of numbers": ("d8568101", []),
    "a typed array that does not divide": ("d8564101", []),
    "clamped bytes": ("d8444101", []),
    "the reserved type": ("d84c4101", []),
    "128-bit floats": ("d85350" + "00" * 16, []),
    "more 128-bit floats": ("d85750" + "00" * 16, []),
    "a shape without an array": ("d82882800" + "0", []),
    "a shape that is too small": ("d828828102d84843010203", []),
    "a shape that is too large": ("d828828104d84843010203", []),
    "a shape that overflows": ("d8288283" + "1bffffffffffffffff" * 2 + "00" + "d84840", []),
    "a negative shape": ("d828828120d8484101", []),
    "a shape of floats": ("d8288281f93c00d8484101", []),
    "33 dimensions": ("d828829821" + "01" * 33 + "d8484101", []),
    "an array of an array": ("d828828101d828828101d8484101", []),
    "a shape alone": ("d8288101", []),
    "a shape that is no list": ("d82882" + "01" + "d8484101", []),
    "objects": ("d9ed6482627c4f48" + "00" * 8, []),
    "a dtype that is a record": ("d9ed64826569342c69344400000000", []),
    "a dtype without size": ("d9ed6482637c533040", []),
    "a dtype that is no text": ("d9ed6482014101", []),
    "a dtype with odd units": ("d9ed6482683c4d385b6f6f5d" + "48" + "00" * 8, []),
    "a dtype of no units": ("d9ed6482693c4d385b30445d2048" + "00" * 8, []),
    "bool that is 2": ("d9ed6482637c62314102", []),
    "characters beyond Unicode": ("d9ed6482633c553144ffffffff", []),
    "a decimal that tag 4 holds": ("d9ed6563312e35", []),
    "a decimal that is long": ("d9ed657821" + "39" * 33, []),
    "a decimal that is none": ("d9ed656361" + "6263", []),
    "a naive time with a zone": ("d9ed74781a" + b"2026-01-01T00:00:00.0+00:00"[:26].hex(), []),
    "a naive time that is none": ("d9ed7470" + "39" * 16, []),
    "a naive time that is a number": ("d9ed7400", []),
}


@pytest.mark.parametrize(("hexed", "buffers"), OURS.values(), ids=OURS)
def test_misuse_of_our_own_tags_is_refused(hexed: str, buffers: list[bytes | bytearray]) -> None:
    data = bytes.fromhex(hexed)
    refused(data, None, *buffers)
    refused(b"\x81" + data, None, *buffers)


def test_what_is_refused_does_not_stand_in_the_error() -> None:
    """Nothing of a payload gets into logs."""
    for data in (
        cbor2.dumps(cbor2.CBORTag(0, "secret-secret-secret")),
        bytes.fromhex("a2 66736563726574 01 66736563726574 02"),
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            decode_parts(data, [])
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("major", range(2, 7))
@pytest.mark.parametrize("number", [1 << 20, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1])
def test_huge_declared_lengths_cost_nothing(major: int, number: int) -> None:
    began = time.process_time()
    for prefix in (b"", b"\x81", b"\xa1\x61a", b"\xa1", b"\xd9\x01\x02", b"\xc2", b"\xd8\x40", b"\xd8\x28\x82"):
        refused(prefix + head(major, number))
        refused(prefix + head(major, number) + bytes(100))
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("inner", [b"\x81", b"\xa1\x61a", b"\xd9\xed\x63\x82\x61a"])
def test_deep_nesting_is_refused(inner: bytes) -> None:
    assert scan(inner * DEPTH_MAX + b"\x00") in (True, False)
    for depth in (DEPTH_MAX + 1, 100_000):
        refused(inner * depth + b"\x00", "nested too deep")
    for tag in (b"\xd9\x01\x02\x81", b"\xc2", b"\xd8\x28\x82", b"\xd9\xed\x73"):
        refused(tag * 100_000 + b"\x00")


def test_counts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mycorrizal._wire.value_guard.ITEMS_MAX", 3000)
    monkeypatch.setattr("mycorrizal._wire.value_guard.CONTAINERS_MAX", 1000)
    assert scan(b"\x99" + struct.pack(">H", 3000) + bytes(3000)) is False
    refused(b"\x99" + struct.pack(">H", 3001) + bytes(3001), "too many items")
    refused(b"\xb9" + struct.pack(">H", 1501) + bytes(3002), "too many items")
    refused(b"\xd9\x01\x02\x99" + struct.pack(">H", 3001) + bytes(3001), "a set with too many")
    assert scan(b"\x99" + struct.pack(">H", 999) + b"\x80" * 999) is False
    refused(b"\x99" + struct.pack(">H", 1000) + b"\x80" * 1000, "too many items")
    assert (ITEMS_MAX, CONTAINERS_MAX) == (1 << 22, 1 << 20)


# -- what passes, and what the worst of it costs -------------------------------------------


def test_special_floats_pass() -> None:
    for hexed, text in (("f97e00", "nan"), ("fb7ff0000000000000", "inf"), ("f9fc00", "-inf"), ("f98000", "-0.0")):
        assert repr(decode_parts(bytes.fromhex(hexed), [])) == text
    assert decode_parts(bytes.fromhex("fa3fc00000"), []) == 1.5


def test_many_not_a_numbers_in_a_set_are_many() -> None:
    got = decode_parts(b"\xd9\x01\x02\x99\x27\x10" + b"\xf9\x7e\x00" * 10_000, [])
    assert isinstance(got, set)


def colliding() -> dict[str, Callable[[int], list[int]]]:
    """Integers of 64 bits whose hashes agree as long as 64 bits allow.

    A dict looks at the lowest bits of the hash first, and at 5 higher ones
    with each further try; equal hashes are equal modulo 2**61 - 1.
    """
    prime = (1 << 61) - 1
    return {
        "equal hashes": lambda n: [i % 997 + prime * (i % 8) for i in range(n)],
        "equal low bits": lambda n: [i << 44 for i in range(n)],
        "equal low bits, below zero": lambda n: [-(i << 40) - 2 for i in range(n)],
        "equal from bit 20 on": lambda n: [(i & 0xF) | (i >> 4 << 43) for i in range(n)],
    }


@pytest.mark.parametrize("make", colliding().values(), ids=colliding())
@pytest.mark.parametrize("kind", ["map", "set"])
def test_colliding_integers_of_64_bits_are_harmless(make: Callable[[int], list[int]], kind: str) -> None:
    """Those of more bits are refused: 20,000 of them, equal modulo 2**61 - 1, hold the GIL for seconds."""
    numbers = list(dict.fromkeys(make(200_000)))
    data = encode_value(dict.fromkeys(numbers) if kind == "map" else set(numbers)).pack()
    began = time.process_time()
    got = decode_packed(data)
    spent = time.process_time() - began
    assert isinstance(got, dict | set) and len(got) == len(numbers)
    assert spent < 2, f"{spent:.2f} s for {len(numbers)} numbers"


def test_colliding_big_numbers_would_be_costly_and_are_refused() -> None:
    prime = (1 << 61) - 1
    table = {prime * (i + 1) << 10: None for i in range(2000)}
    refused(cbor2.dumps(table), "where a key should be")
    refused(cbor2.dumps(set(table)), "no place in a set")


def test_the_worst_headers_take_bounded_time() -> None:
    """Not a benchmark: the bound is far above what is measured, and far below what a trap would take."""
    count = 1 << 16
    worst = {
        "empty lists": b"\x80",
        "empty sets": b"\xd9\x01\x02\x80",
        "decimals": b"\xc4\x82\x19\x27\x0f\x01",
        "times": b"\xc0\x74" + b"2026-01-01T00:00:00Z",
        "small arrays": b"\xd8\x28\x82\x81\x00\xd8\x40\x40",
        "small maps": b"\xa2\x00\x00\x01\x00",
        "texts": b"\x78\x18" + b"x" * 24,
        "big numbers": b"\xc2\x59\x02\x00" + b"\xff" * 512,
    }
    for what, data in worst.items():
        began = time.process_time()
        decode_parts(b"\x9a" + struct.pack(">I", count) + data * count, [])
        spent = time.process_time() - began
        assert spent < 2, f"{what}: {spent:.2f} s"


def test_tags_of_ours_mean_nothing_else_to_others() -> None:
    """cbor-x, for one, takes two ranges for Packed CBOR."""
    ours = [value for name, value in vars(value_guard).items() if name.startswith("TAG_") and value > 1040]
    assert len(ours) == 7
    assert not any(27647 <= tag <= 28671 or 28704 <= tag <= 32767 for tag in ours)
