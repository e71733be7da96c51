"""Bytes that stand for equality: the same for two values exactly if those are equal by a written rule.

The rule: two values are equal if they are of the same type and hold the same.
The order of a dict or a set does not count, nor how the memory of an array is
laid out; dtype, shape and elements do. 1, 1.0 and True are three values, so are
0.0 and -0.0, a list and a tuple, and two Decimals of the same number with other
digits. NaN equals NaN. What arrives as a plain type (an instance of a subclass
of str, a bytearray, a frozenset) is equal to that.

Nothing of it travels or is stored but as a digest, and no process, hash seed or
version of Python has a say in it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ..exceptions import RemoteProtocolError, ValueDecodeError, ValueEncodeError, ValueTooLarge
from .arrays import canonical_array
from .value_codecs import Codecs
from .value_walk import as_element, as_key
from .values import DEFAULT, decode_held, encode_value

__all__ = ["canonical", "digest", "equal"]


def canonical(value: object, codecs: Codecs = DEFAULT) -> bytes:
    """Return what two values have in common exactly if they are equal. Any thread.

    Raises:
        ValueEncodeError, ValueTooLarge: `value` does not travel; the text names the place.
    """
    encode_value(value, codecs)
    return _walk(value, codecs)


def digest(value: object, codecs: Codecs = DEFAULT) -> str:
    """Return 128 bits of ``canonical`` as hexadecimal text. Any thread. Raises as ``canonical``."""
    return hashlib.blake2b(canonical(value, codecs), digest_size=16).hexdigest()


def equal(one: bytes, other: bytes, codecs: Codecs = DEFAULT) -> bool:
    """Return whether two whole wire forms hold equal values. Any thread.

    What cannot be read here is equal to the same bytes only.
    """
    if one == other:
        return True
    try:
        return canonical(decode_held(one, codecs), codecs) == canonical(decode_held(other, codecs), codecs)
    except (RemoteProtocolError, ValueDecodeError, ValueEncodeError, ValueTooLarge):
        return False


def _walk(value: Any, codecs: Codecs) -> bytes:
    codec = codecs.by_type.get(type(value))
    if codec is not None:
        return _joined(b"c", [codec.name.encode(), _walk(codec.encode(value), codecs)])
    if isinstance(value, dict):
        pairs = ((_walk(as_key(key), codecs), _walk(item, codecs)) for key, item in dict.items(value))
        return _joined(b"d", [part for pair in sorted(pairs) for part in pair])
    if isinstance(value, list | tuple):
        return _joined(b"l" if isinstance(value, list) else b"t", [_walk(item, codecs) for item in value])
    if isinstance(value, set | frozenset):
        return _joined(b"s", sorted(_walk(as_element(item), codecs) for item in value))
    array = canonical_array(value)
    if array is not None:
        return _joined(b"a", array)
    leaf = encode_value(value, codecs)
    return _joined(b"v", [leaf.header, *leaf.buffers])


def _joined(kind: bytes, parts: Any) -> bytes:
    """Return `parts` in one, each behind its length, so that no two lists of parts look alike."""
    whole = [kind, len(parts).to_bytes(8, "big")]
    for part in parts:
        whole += [len(part).to_bytes(8, "big"), part]
    return b"".join(whole)
