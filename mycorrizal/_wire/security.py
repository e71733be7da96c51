"""The keyring, and AES-GCM in memberlist's two payload versions.

A payload is a version byte, a 12-byte nonce, the ciphertext and a 16-byte tag.
Version 0 pads the plaintext to whole blocks first, version 1 does not. What is
authenticated beside it (label, stream header) is the caller's matter, and so
is the nonce: nothing here draws random numbers. ``cryptography`` is imported
when the first key is used, so that a cluster without keys never loads it.

From: memberlist-protocol §2.6, §9.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from ..config import Config, check_key
from ..exceptions import ConfigError, DecryptError, LocalProtocolError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = [
    "ENCRYPTION_VERSION_MAX",
    "NONCE_BYTES",
    "Keyring",
    "decrypt_payload",
    "encrypt_payload",
    "encrypted_length",
    "encryption_overhead",
    "encryption_version",
]

NONCE_BYTES = 12
ENCRYPTION_VERSION_MAX = 1

_TAG_BYTES = 16
_BLOCK_BYTES = 16
_FRAME_BYTES = 1 + NONCE_BYTES + _TAG_BYTES


class Keyring:
    """Installed keys in order; the first one encrypts, all of them decrypt. Any thread.

    It needs no lock: each change is one operation on a dict or one assignment,
    so changes made at once on two threads are both kept.
    """

    def __init__(
        self, keys: Iterable[bytes] = (), primary: bytes | None = None, *, allow_weak: bool = False
    ) -> None:
        """Install `primary` first, then `keys`; duplicates count once.

        Args:
            allow_weak: whether passphrases and the like are taken too, now and later: a Go cluster may have such a key.

        Raises:
            ConfigError: a key of a wrong length, a weak one, or keys without a primary.
        """
        self._allow_weak = allow_weak
        others = tuple(keys)
        if others and not primary:
            raise ConfigError("keys", "given without secret_key", hint="secret_key is the one that encrypts")
        ring = (primary, *others) if primary else ()
        self._keys = dict.fromkeys(map(self._checked, ring))
        self._primary = next(iter(self._keys), None)
        self._watchers: dict[Callable[[], None], None] = {}

    def __reduce__(self) -> tuple[Callable[..., Keyring], tuple[tuple[bytes, ...], bytes | None]]:
        """Let a copy have the keys, and watchers of its own."""
        return partial(Keyring, allow_weak=self._allow_weak), (self.keys(), self._primary)

    @classmethod
    def of(cls, config: Config) -> Keyring:
        """Return the keys of `config`, which are checked; weak ones may stand beside Go peers, now and later."""
        return cls(config.keys, config.secret_key or None, allow_weak=config.wire == "msgpack")

    def _checked(self, key: bytes) -> bytes:
        return check_key("secret_key", key, allow_weak=self._allow_weak)

    def __bool__(self) -> bool:
        """Whether encryption is on: it is as soon as there is a key."""
        return self._primary is not None

    @property
    def primary(self) -> bytes | None:
        """The key that encrypts."""
        return self._primary

    def keys(self) -> tuple[bytes, ...]:
        """Return all keys, the primary first."""
        primary = self._primary
        if primary is None:
            return ()
        return (primary, *(key for key in tuple(self._keys) if key != primary))

    def add(self, key: bytes) -> None:
        """Install `key`; the first key of an empty ring becomes primary. A known key is no error.

        Raises:
            ConfigError: it is of a wrong length, or weak.
        """
        key = self._checked(key)
        before = self.keys()
        self._keys.setdefault(key)
        if self._primary is None:
            self._primary = key
        self._tell(before)

    def use(self, key: bytes) -> None:
        """Make an installed `key` the primary.

        Raises:
            ConfigError: it is not installed.
        """
        if key not in self._keys:
            raise ConfigError("keyring", "this key is not installed", hint="add it on every node before you use it")
        before = self.keys()
        self._primary = bytes(key)
        self._tell(before)

    def remove(self, key: bytes) -> None:
        """Remove `key`; an absent key is no error.

        Raises:
            ConfigError: it is the primary.
        """
        if key == self._primary:
            raise ConfigError("keyring", "the primary key cannot be removed", hint="use another key first")
        before = self.keys()
        self._keys.pop(key, None)
        self._tell(before)

    def check(self, key: bytes) -> None:
        """Raise ``ConfigError`` if `key` could not be installed: it is of a wrong length, or weak."""
        self._checked(key)

    def replace(self, keys: Iterable[bytes]) -> None:
        """Have these keys and no others, the first as primary. A reader finds the old primary or the new, installed.

        Raises:
            ConfigError: a key of a wrong length, or a weak one; nothing is changed.
        """
        ring = dict.fromkeys(map(self._checked, keys))
        before = self.keys()
        self._keys = {**self._keys, **ring}
        self._primary = next(iter(ring))
        self._keys = ring
        self._tell(before)

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each change, on the thread that made it; it must be short and must not raise."""
        self._watchers[callback] = None

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Call it no longer; one that does not watch is no error."""
        self._watchers.pop(callback, None)

    def _tell(self, before: tuple[bytes, ...]) -> None:
        if self.keys() != before:
            for callback in tuple(self._watchers):
                callback()

    def __repr__(self) -> str:
        return f"<Keyring of {len(self._keys)}>"  # never a key


def encryption_version(protocol_version: int) -> int:
    """Return the payload version that a node of `protocol_version` writes; it reads both."""
    return 0 if protocol_version == 1 else 1


def encryption_overhead(version: int) -> int:
    """Return how many bytes encryption adds at most."""
    return _FRAME_BYTES + (_BLOCK_BYTES if version == 0 else 0)


def encrypted_length(version: int, size: int) -> int:
    """Return the payload length of a plaintext of `size` bytes."""
    padding = _BLOCK_BYTES - size % _BLOCK_BYTES if version == 0 else 0
    return size + padding + _FRAME_BYTES


def encrypt_payload(version: int, key: bytes, plaintext: bytes, aad: bytes, nonce: bytes) -> bytes:
    """Return the payload for `plaintext`."""
    if not 0 <= version <= ENCRYPTION_VERSION_MAX or len(nonce) != NONCE_BYTES:
        raise LocalProtocolError("an unknown encryption version, or a nonce that is not 12 bytes")
    if version == 0:
        padding = _BLOCK_BYTES - len(plaintext) % _BLOCK_BYTES
        plaintext += bytes((padding,)) * padding
    return bytes((version,)) + nonce + _cipher(key).encrypt(nonce, plaintext, aad)


def decrypt_payload(keys: Iterable[bytes], payload: bytes, aad: bytes) -> bytes:
    """Return the plaintext of `payload`, trying `keys` in order.

    Raises:
        DecryptError: it is none, or no key opens it. The texts are memberlist's,
            because a stream tells them to the other side.
    """
    if not payload:
        raise DecryptError("cannot decrypt empty payload")
    version = payload[0]
    if version > ENCRYPTION_VERSION_MAX:
        raise DecryptError(
            f"unsupported encryption version {version}", hint="the sender seems not to encrypt: compare secret_key"
        )
    # An empty plaintext of version 0 is one block of padding.
    if len(payload) < encryption_overhead(version):
        raise DecryptError(f"payload is too small to decrypt: {len(payload)}")
    nonce, sealed = payload[1 : 1 + NONCE_BYTES], memoryview(payload)[1 + NONCE_BYTES :]  # 20 MiB are not copied
    for key in keys:
        plaintext = _opened(key, nonce, sealed, aad)
        if plaintext is not None:
            return _unpadded(plaintext) if version == 0 else plaintext
    raise DecryptError(
        "no installed keys could decrypt the message", hint="all nodes need the same secret_key and label"
    )


def _opened(key: bytes, nonce: bytes, sealed: memoryview, aad: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    try:
        return _cipher(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        return None


def _unpadded(plaintext: bytes) -> bytes:
    # Differs from memberlist: the padding is checked. Go trusts the last byte and would crash on a bad one.
    padding = plaintext[-1] if plaintext else 0
    if not 1 <= padding <= _BLOCK_BYTES or not plaintext.endswith(bytes((padding,)) * padding):
        raise DecryptError("the padding of an encrypted message is wrong")
    return plaintext[:-padding]


@lru_cache(maxsize=16)
def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
