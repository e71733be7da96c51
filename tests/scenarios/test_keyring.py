"""Go's ``keyring_test.go``."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

import pytest

from mycorrizal._wire import security
from mycorrizal._wire.security import Keyring, decrypt_payload, encrypt_payload
from mycorrizal.exceptions import ConfigError, DecryptError

KEYS = (bytes(range(16)), bytes(range(15, -1, -1)), bytes(range(8, 24)))
NONCE = bytes(12)


def test_Keyring_EmptyRing() -> None:
    ring = Keyring()
    assert ring.keys() == ()
    assert ring.primary is None
    assert not ring


def test_Keyring_PrimaryOnly() -> None:
    ring = Keyring((), KEYS[0])
    assert ring.keys() == (KEYS[0],)
    assert ring


def test_Keyring_GetPrimaryKey() -> None:
    assert Keyring(KEYS, KEYS[1]).primary == KEYS[1]
    assert sorted(Keyring(KEYS, KEYS[1]).keys()) == sorted(KEYS)


def test_Keyring_AddRemoveUse() -> None:
    ring = Keyring((), KEYS[1])
    with pytest.raises(ConfigError):
        ring.use(KEYS[2])

    ring.add(KEYS[2])
    assert ring.keys() == (KEYS[1], KEYS[2])
    assert ring.primary == KEYS[1]

    ring.use(KEYS[2])
    assert ring.primary == KEYS[2]
    assert set(ring.keys()) == {KEYS[1], KEYS[2]}

    with pytest.raises(ConfigError):
        ring.remove(KEYS[2])
    ring.remove(KEYS[1])
    assert ring.keys() == (KEYS[2],)


def test_KeyRing_MultiKeyEncryptDecrypt() -> None:
    text, more = b"this is a plain text message", b"random data to authenticate"
    ring = Keyring(KEYS, KEYS[0])
    under_primary = encrypt_payload(1, KEYS[0], text, more, NONCE)
    under_second = encrypt_payload(1, KEYS[1], text, more, NONCE)
    assert decrypt_payload(ring.keys(), under_primary, more) == text
    assert decrypt_payload(ring.keys(), under_second, more) == text

    ring.remove(KEYS[1])

    assert decrypt_payload(ring.keys(), under_primary, more) == text
    with pytest.raises(DecryptError):
        decrypt_payload(ring.keys(), under_second, more)


@pytest.mark.parametrize("moment", range(0, 40, 3))
def test_Keyring_AddConcurrentKeys(moment: int) -> None:
    """Another thread adds a key while this one is in the middle of it, at any instruction."""
    ring = Keyring((), KEYS[0])
    other = threading.Thread(target=ring.add, args=(KEYS[2],), daemon=True)
    steps = 0

    def tracer(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal steps
        if frame.f_code.co_filename != security.__file__:
            return None
        frame.f_trace_opcodes = True
        steps += 1
        if steps > moment and other.ident is None:
            other.start()
            other.join(0.2)
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        ring.add(KEYS[1])
    finally:
        sys.settrace(before)
    if other.ident is None:
        other.start()
    other.join(10)
    assert set(ring.keys()) == set(KEYS)


def test_readers_see_whole_states_only() -> None:
    """While the owner adds keys, every reader sees one state after the other."""
    rings = [Keyring((), KEYS[0]) for _ in range(200)]
    seen: list[list[tuple[bytes, ...]]] = [[] for _ in rings]
    started = threading.Event()

    def read() -> None:
        started.set()
        for n, ring in enumerate(rings):
            while len(keys := ring.keys()) < 3:
                seen[n].append(keys)
            seen[n].append(keys)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        reader = threading.Thread(target=read)
        reader.start()
        started.wait(10)
        for ring in rings:
            ring.add(KEYS[1])
            ring.add(KEYS[2])
        reader.join(30)
    finally:
        sys.setswitchinterval(interval)
    assert not reader.is_alive()
    states = [KEYS[:1], KEYS[:2], KEYS]
    for each in seen:
        assert each[-1] == KEYS
        assert [states.index(keys) for keys in each] == sorted(states.index(keys) for keys in each)


def test_earlier_answers_do_not_change() -> None:
    """Go's ``Remove`` edits an array that earlier results share."""
    ring = Keyring(KEYS, KEYS[0])
    before = ring.keys()
    ring.remove(KEYS[1])
    assert before == KEYS
