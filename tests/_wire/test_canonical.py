"""Bytes that stand for equality: the same in every order, process and hash seed, for equal values and for no others."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing.value_exceptions import Colour, Level, same
from mycorrizal import ValueEncodeError
from mycorrizal._wire.canonical import canonical, digest, equal
from mycorrizal._wire.value_codecs import Codecs
from mycorrizal._wire.values import decode_packed, encode_value

from .strategies import brief, long
from .value_strategies import values


def shuffled(value: Any, chance: random.Random) -> Any:
    """Return an equal value that was made in another order, and of which arrays lie otherwise in memory."""
    if isinstance(value, dict):
        pairs = [(key, shuffled(item, chance)) for key, item in value.items()]
        chance.shuffle(pairs)
        return dict(pairs)
    if isinstance(value, set | frozenset):
        items = list(value)
        chance.shuffle(items)
        grown: set[Any] = set(range(-chance.randrange(200), 0))  # its table keeps the size
        grown.update(items)
        for number in [item for item in grown if item not in value]:
            grown.remove(number)
        return type(value)(grown | set(items))
    if isinstance(value, list | tuple):
        return type(value)([shuffled(item, chance) for item in value])
    if isinstance(value, np.ndarray):
        return np.array(value, order="F") if chance.random() < 0.5 else np.repeat(value[None], 2, axis=0)[1, ...]
    return value


@long
@given(values, st.integers(0, 1 << 32))
def test_equal_values_are_equal_in_any_order(value: Any, seed: int) -> None:
    other = shuffled(value, random.Random(seed))
    assert canonical(value) == canonical(other)
    assert equal(encode_value(value).pack(), encode_value(other).pack())
    arrived = decode_packed(encode_value(value).pack())
    assert canonical(arrived) == canonical(decode_packed(encode_value(other).pack()))


@long
@given(st.lists(values, min_size=2, max_size=2))
def test_values_that_differ_are_not_equal(pair: list[Any]) -> None:
    one, other = (decode_packed(encode_value(value).pack()) for value in pair)
    if canonical(one) == canonical(other):
        assert same(_plain(one), _plain(other))


def _plain(value: Any) -> Any:
    """Return `value` with its dicts in one order and its arrays in one memory order."""
    if isinstance(value, dict):
        return dict(sorted(((key, _plain(item)) for key, item in value.items()), key=lambda pair: repr(pair[0])))
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return np.ascontiguousarray(value).reshape(value.shape) if isinstance(value, np.ndarray) else value


@brief
@given(st.sets(st.integers() | st.text(st.characters(codec="utf-8")), max_size=30), st.randoms())
def test_sets_of_any_history_are_the_same_bytes(items: set[Any], chance: random.Random) -> None:
    items = {item for item in items if not isinstance(item, int) or abs(item) < 1 << 63}
    assert encode_value(items).header == encode_value(shuffled(items, chance)).header


def test_types_count() -> None:
    ones: list[Any] = [1, 1.0, True, "1", b"1", [1], (1,), {1}, {1: 1}, np.ones(1), np.ones((1, 1)), np.float32(1)]
    ones += [np.ones(1, "f4"), np.ones(1, ">f8"), None, Decimal(1), Decimal("1.0"), 0.0, -0.0, [], [[]], {}, [1, []]]
    assert len({canonical(one) for one in ones}) == len(ones)


def test_what_arrives_as_a_plain_type_is_equal_to_it() -> None:
    pairs: list[tuple[Any, Any]] = [
        (Colour.RED, "red"),
        (Level.LOW, 1),
        (OrderedDict(b=1, a=2), {"a": 2, "b": 1}),
        (frozenset({1}), {1}),
        (bytearray(b"a"), b"a"),
        ({np.int64(1): 1}, {1: 1}),
        (np.array([0, 2, 255], "u1").view(bool), np.array([False, True, True])),
        (np.array([[0, 2], [255, 1]], "u1").view(bool).T, np.array([[False, True], [True, True]])),
        ({np.float64(1), Level.LOW + 1, Colour.RED}, {1.0, 2, "red"}),
    ]
    for one, other in pairs:
        assert canonical([one]) == canonical([other])


def test_codecs_have_a_say() -> None:
    codecs = Codecs()
    codecs.register(Fraction, "fraction", lambda f: {"n": f.numerator, "d": f.denominator}, lambda d: Fraction(**d))
    assert canonical([Fraction(1, 2)], codecs) == canonical([Fraction(2, 4)], codecs)
    assert canonical(Fraction(1, 2), codecs) != canonical({"n": 1, "d": 2}, codecs)
    with pytest.raises(ValueEncodeError, match=r"value\[0\]: Fraction"):
        canonical([Fraction(1, 2)])


def test_two_types_whose_codecs_write_the_same_are_two() -> None:
    codecs = Codecs()
    codecs.register(Fraction, "fraction", lambda f: f.numerator, Fraction)
    codecs.register(SimpleNamespace, "space", lambda s: s.n, lambda n: SimpleNamespace(n=n))
    assert canonical(Fraction(1), codecs) != canonical(SimpleNamespace(n=1), codecs)


def test_what_cannot_be_read_is_equal_to_the_same_bytes_only() -> None:
    codecs = Codecs()
    codecs.register(Fraction, "fraction", lambda f: f.numerator, Fraction)
    data = encode_value(Fraction(1), codecs).pack()
    assert equal(data, data) and not equal(data, encode_value({}).pack()) and not equal(b"", data)


def test_every_process_with_every_hash_seed_writes_the_same() -> None:
    script = """
        from mycorrizal._wire.canonical import digest
        from mycorrizal._wire.values import encode_value
        words = {f"word{n}" for n in range(100)} | {b"b%d" % n for n in range(50)} | {None, 1.5}
        print(digest({"a": words, "b": [frozenset(words)]}), encode_value([words, frozenset(words)]).pack().hex())
    """
    outputs = set()
    for seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", textwrap.dedent(script)]
        outputs.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(outputs) == 1


def test_digest_is_what_it_was() -> None:
    """It is part of keys that other versions of Python look up."""
    assert digest({"b": [1, {2, 3}], "a": (None, 1.5)}) == "964ea6e99a6bcdcd3bc83606fe1a02da"
