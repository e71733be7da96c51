"""Random nonces for AES-GCM, counted for each key that they are used with.

Random nonces of 96 bits may be drawn 2**32 times under one key, by all nodes
together, until the chance of two equal ones is more than NIST SP 800-38D §8.3
allows. A node knows what it drew itself; ``agent.health()`` makes an estimate of that.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from ..._wire.security import NONCE_BYTES, Keyring

__all__ = ["Nonces"]

_KEYS_MAX = 64  # that are counted; the one longest not used is forgotten


class Nonces:
    """A source of nonces. Any thread.

    Args:
        keyring: its primary key is the one that a nonce is drawn for.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._lock = threading.Lock()
        self._drawn: OrderedDict[bytes, int] = OrderedDict()

    def __call__(self) -> bytes:
        """Return 12 random bytes."""
        key = self._keyring.primary
        if key is not None:
            with self._lock:
                self._drawn[key] = self._drawn.get(key, 0) + 1
                self._drawn.move_to_end(key)
                if len(self._drawn) > _KEYS_MAX:
                    self._drawn.popitem(last=False)
        return os.urandom(NONCE_BYTES)

    @property
    def drawn(self) -> int:
        """How many were drawn for the present primary key, since this process began to use it; 0 without a key."""
        key = self._keyring.primary
        return 0 if key is None else self._drawn.get(key, 0)

    def __repr__(self) -> str:
        return f"<Nonces, {self.drawn} drawn>"  # never a key
