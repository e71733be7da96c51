"""Go's ``security_test.go``."""

from __future__ import annotations

import pytest

from mycorrizal._wire.security import decrypt_payload, encrypt_payload, encrypted_length
from mycorrizal.exceptions import DecryptError

KEY = bytes(range(16))
NONCE = bytes(range(12))
AAD = b"additional data"


def test_PKCS7() -> None:
    for size in range(256):
        text = bytes(size % 7 for _ in range(size))
        sealed = encrypt_payload(0, KEY, text, AAD, NONCE)
        padding = 16 - size % 16
        assert len(sealed) == size + padding + 29, "padded to whole blocks, and by a whole block if it is one already"
        assert decrypt_payload((KEY,), sealed, AAD) == text


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 39, 1400])
def test_EncryptDecrypt_V0(size: int) -> None:
    round_trip(0, size)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 39, 1400])
def test_EncryptDecrypt_V1(size: int) -> None:
    round_trip(1, size)


def round_trip(version: int, size: int) -> None:
    text = b"x" * size
    sealed = encrypt_payload(version, KEY, text, AAD, NONCE)
    assert len(sealed) == encrypted_length(version, size)
    assert decrypt_payload((KEY,), sealed, AAD) == text
    with pytest.raises(DecryptError):
        decrypt_payload((KEY,), sealed, AAD + b"!")
    with pytest.raises(DecryptError):
        decrypt_payload((KEY,), sealed[:-1] + bytes((sealed[-1] ^ 1,)), AAD)
