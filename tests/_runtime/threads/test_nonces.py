"""Nonces: random, and counted for the key that encrypts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mycorrizal._runtime.threads import nonces
from mycorrizal._runtime.threads.nonces import Nonces
from mycorrizal._wire.security import Keyring
from tests.keys import key_of

ONE, TWO = key_of("1"), key_of("2")


def test_each_key_has_a_count_that_goes_on_when_it_comes_back() -> None:
    ring = Keyring((), ONE)
    draw = Nonces(ring)
    assert len({draw() for _ in range(100)}) == 100
    assert all(len(nonce) == 12 for nonce in (draw(), draw()))
    assert draw.drawn == 102
    ring.add(TWO)
    ring.use(TWO)
    assert draw.drawn == 0
    draw()
    assert draw.drawn == 1
    ring.use(ONE)
    assert draw.drawn == 102
    ring.use(TWO)
    ring.remove(ONE)
    ring.add(ONE)
    ring.use(ONE)
    assert draw.drawn == 102


def test_without_a_key_nothing_is_counted() -> None:
    draw = Nonces(Keyring())
    draw()
    assert draw.drawn == 0


def test_threads_lose_no_count() -> None:
    draw = Nonces(Keyring((), ONE))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(lambda: [draw() for _ in range(2_000)])
    assert draw.drawn == 16_000


def test_counted_keys_are_bounded() -> None:
    ring = Keyring((), ONE)
    draw = Nonces(ring)
    draw()
    for number in range(nonces._KEYS_MAX):
        key = key_of(f"n{number}")
        ring.add(key)
        ring.use(key)
        draw()
    assert len(draw._drawn) == nonces._KEYS_MAX
    ring.use(ONE)
    assert draw.drawn == 0


def test_no_key_is_shown() -> None:
    draw = Nonces(Keyring((), ONE))
    draw()
    assert repr(draw) == "<Nonces, 1 drawn>"


def test_of_many_keys_the_one_longest_not_used_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonces, "_KEYS_MAX", 3)
    keys = [key_of(str(number)) for number in range(5)]
    ring = Keyring(tuple(keys[1:]), keys[0])
    draw = Nonces(ring)
    for key in (keys[0], keys[1], keys[0], keys[2], keys[0], keys[3]):
        ring.use(key)
        draw()
    assert len(draw._drawn) == 3
    ring.use(keys[0])
    assert draw.drawn == 3
    ring.use(keys[1])
    assert draw.drawn == 0
