"""Keys for tests: they look random, as the library demands, and are the same each time."""

from __future__ import annotations

import base64
import hashlib

__all__ = ["WEAK", "key_of"]


def key_of(name: str, size: int = 32) -> bytes:
    """Return the key of `size` bytes that belongs to `name`."""
    return hashlib.sha256(name.encode()).digest()[:size]


WEAK: dict[str, tuple[bytes, str]] = {
    "zeros": (bytes(32), "has fewer than 5 different bytes"),
    "one byte": (b"\xf7" * 16, "has fewer than 5 different bytes"),
    "four bytes": (bytes([1, 200, 3, 255]) * 6, "has fewer than 5 different bytes"),
    "letters": (b"k" * 32, "has fewer than 5 different bytes"),
    "passphrase": (b"correct horse battery staple 123", "is text, as a passphrase is"),
    "short passphrase": (b"trustno1trustno1", "is text, as a passphrase is"),
    "lines": (b"a passphrase\n\tin\r\nlines\n", "is text, as a passphrase is"),
    "base64 of 16": (base64.b64encode(key_of("a", 16)), "is base64 text, not the bytes that it stands for: decode it"),
    "base64 of 24": (base64.b64encode(key_of("a", 24)), "is base64 text, not the bytes that it stands for: decode it"),
    "hex": (key_of("a", 8).hex().encode(), "is text, as a passphrase is"),
}
"""Keys that can be guessed, and what is said of them."""
