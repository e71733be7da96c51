"""Keyring and payload encryption. Go's own payloads are in the vectors."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal import Config, ConfigError, DecryptError, LocalProtocolError
from mycorrizal._wire.security import Keyring, _cipher, decrypt_payload, encrypt_payload, encrypted_length
from tests.keys import WEAK, key_of

from .strategies import brief, rough

A, B, C = key_of("a", 16), key_of("b", 24), key_of("c", 32)
NONCE = bytes(range(12))


# -- TestKeyring_* of memberlist ---------------------------------------------------------


def test_keyring_empty_ring() -> None:
    ring = Keyring()
    assert not ring
    assert ring.primary is None
    assert ring.keys() == ()
    assert not Keyring((), b"")


def test_keyring_primary_only() -> None:
    assert Keyring(primary=A).keys() == (A,)


def test_keyring_get_primary_key() -> None:
    ring = Keyring((A, B, C), B)
    assert ring.primary == B
    assert ring.keys() == (B, A, C)


def test_keyring_add_remove_use() -> None:
    ring = Keyring((), B)
    for key in (A, C, A):
        ring.add(key)
    before = ring.keys()
    assert before == (B, A, C)
    ring.use(C)
    assert ring.keys() == (C, B, A)
    with pytest.raises(ConfigError, match="primary key cannot be removed"):
        ring.remove(C)
    ring.remove(B)
    ring.remove(B)
    assert ring.keys() == (C, A)
    assert before == (B, A, C), "what a reader holds does not change"
    with pytest.raises(ConfigError, match="not installed"):
        ring.use(B)


def test_keyring_tells_of_changes_and_of_nothing_else() -> None:
    ring = Keyring((), A)
    one: list[tuple[bytes, ...]] = []
    two: list[tuple[bytes, ...]] = []

    def tell_one() -> None:
        one.append(ring.keys())

    ring.watch(tell_one)
    ring.watch(lambda: two.append(ring.keys()))
    ring.add(A)
    ring.use(A)
    ring.remove(B)
    assert one == two == []
    ring.add(B)
    ring.use(B)
    ring.unwatch(tell_one)
    ring.unwatch(tell_one)
    ring.remove(A)
    assert one == [(A, B), (B, A)]
    assert two == [(A, B), (B, A), (B,)]


@pytest.mark.parametrize(("key", "why"), WEAK.values(), ids=WEAK)
def test_a_key_that_can_be_guessed_comes_into_no_ring_but_a_go_cluster_s(key: bytes, why: str) -> None:
    ring = Keyring((), A)
    for attempt in (lambda: Keyring((), key), lambda: Keyring((key,), A), lambda: ring.add(key)):
        with pytest.raises(ConfigError, match=why):
            attempt()
    assert ring.keys() == (A,)
    config = Config(name="x", wire="msgpack", secret_key=key)
    for go in (Keyring.of(config), Keyring((), A, allow_weak=True)):
        go.add(key)
        go.use(key)
        assert go.primary == key
        with pytest.raises(ConfigError, match="31 bytes"):
            go.add(bytes(31))
    assert not Keyring.of(Config(name="x"))


def test_the_first_key_of_an_empty_ring_becomes_primary() -> None:
    ring = Keyring()
    ring.remove(A)
    ring.add(A)
    ring.add(B)
    assert ring
    assert ring.primary == A


@pytest.mark.parametrize("key", [b"", b"x" * 15, b"x" * 33, "x" * 16])
def test_keys_are_checked(key: bytes) -> None:
    for install in (lambda: Keyring((key,), A), lambda: Keyring((), A).add(key)):
        with pytest.raises(ConfigError, match="secret_key"):
            install()


def test_keys_need_a_primary() -> None:
    with pytest.raises(ConfigError, match="without secret_key"):
        Keyring((A,))


def test_a_key_is_never_shown() -> None:
    assert "aaa" not in repr(Keyring((), A))


# -- payloads ----------------------------------------------------------------------------


@brief
@given(st.sampled_from([0, 1]), st.sampled_from([A, B, C]), st.binary(max_size=100), st.binary(max_size=20))
def test_round_trip(version: int, key: bytes, plaintext: bytes, aad: bytes) -> None:
    payload = encrypt_payload(version, key, plaintext, aad, NONCE)
    assert len(payload) == encrypted_length(version, len(plaintext))
    assert decrypt_payload((A, B, C), payload, aad) == plaintext
    with pytest.raises(DecryptError):
        decrypt_payload((A, B, C), payload, aad + b"x")


valid = st.builds(lambda version, plain: encrypt_payload(version, A, plain, b"", NONCE), st.integers(0, 1), st.binary())


@brief
@given(rough(valid))
def test_any_bytes_decrypt_or_are_refused(payload: bytes) -> None:
    try:
        decrypt_payload((A, B), payload, b"")
    except DecryptError:
        pass


@pytest.mark.parametrize("tail", [b"\x00", b"\x11", b"\xff", b"\x03\x02\x03", b"\x02"])
def test_bad_padding_of_a_key_holder_is_refused(tail: bytes) -> None:
    plaintext = (b"\x09" * 16 + tail)[-16:]
    payload = b"\x00" + NONCE + _cipher(A).encrypt(NONCE, plaintext, b"")
    with pytest.raises(DecryptError, match="padding"):
        decrypt_payload((A,), payload, b"")


def test_an_empty_padded_plaintext_is_refused() -> None:
    # Too short for version 0 as it is; the length check comes before any key is tried.
    payload = b"\x00" + NONCE + _cipher(A).encrypt(NONCE, b"", b"")
    with pytest.raises(DecryptError, match="too small"):
        decrypt_payload((A,), payload, b"")


def test_misuse() -> None:
    with pytest.raises(LocalProtocolError):
        encrypt_payload(2, A, b"", b"", NONCE)
    with pytest.raises(LocalProtocolError):
        encrypt_payload(1, A, b"", b"", b"short")


def test_cryptography_is_not_imported_without_a_key() -> None:
    program = (
        "import sys; from mycorrizal._wire.security import Keyring; from mycorrizal._wire import packet, stream;"
        "Keyring(); sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_copy_of_a_ring_encrypts_with_the_same_key() -> None:
    ring = Keyring((key_of("b"), key_of("c")), key_of("a"))
    ring.use(key_of("c"))
    for twin in (copy.copy(ring), copy.deepcopy(ring), pickle.loads(pickle.dumps(ring))):
        assert (twin.primary, twin.keys()) == (ring.primary, ring.keys()) and twin is not ring
        twin.use(key_of("b"))
        assert ring.primary == key_of("c")
