"""``serf keys`` on this node: the queries by which the keys of all members are listed and changed."""

from __future__ import annotations

import base64
from typing import Protocol

from ..._serf import Asked, pack_key_answer, read_key
from ..._wire.security import Keyring
from ..._wire.text import logger
from ...config import weakness
from ...exceptions import ConfigError, MycorrizalError, RemoteProtocolError
from ..host.keyringfile import KeyringFile
from ..swim.layer import Ground
from ..threads.waits import Exclusive
from .asking import INTERNAL

__all__ = ["KEY_QUERIES", "KeyDesk", "Keys", "RingKeys"]

log = logger("mycorrizal.serf")

MOST_KEYS = 16
"""Keys that are installed at a time; a rotation needs two."""
LIST = INTERNAL + "list-keys"
_CHANGES = {"install-key": "add", "use-key": "use", "remove-key": "remove"}
KEY_QUERIES = frozenset((LIST, *(INTERNAL + name for name in _CHANGES)))
_MESSAGE_MAX = 200
_ANSWER_ROOM = 200  # bytes of an answer around the keys


class Keys(Protocol):
    """The keys that are changed."""

    def keys(self) -> tuple[bytes, ...]:
        """Return all of them, the one in use first."""

    def change(self, operation: str, key: bytes) -> object:
        """Change them: ``add``, ``use``, ``remove``. May block."""


class RingKeys:
    """The keys of a ``Memberlist`` without an agent."""

    def __init__(self, ring: Keyring) -> None:
        self._ring = ring

    def keys(self) -> tuple[bytes, ...]:
        """Return all of them, the one in use first."""
        return self._ring.keys()

    def change(self, operation: str, key: bytes) -> None:
        """Change them.

        Raises:
            ConfigError: what the ring refuses, or too many keys.
        """
        if operation == "add":
            known = self._ring.keys()
            if len(known) >= MOST_KEYS and key not in known:
                raise ConfigError("key", f"more than {MOST_KEYS} keys at a time", hint="remove one that is not needed")
            self._ring.add(key)
            if (why := weakness(key)) is not None:
                log.warning("a key was added that %s; give the cluster another one", why)
        elif operation == "use":
            self._ring.use(key)
        else:
            self._ring.remove(key)


class KeyDesk:
    """Answers queries about keys. Any thread; ``answer`` and ``save`` block on the disk.

    Args:
        allowed: whether Serf may list and change them; who asks is told if not.
        file: where the keys are kept, if anywhere.
        limit: most bytes of an answer.
    """

    def __init__(self, allowed: bool, file: KeyringFile | None, limit: int) -> None:
        self._allowed = allowed
        self._file = file
        self._limit = limit
        self._gate = Exclusive()
        self._ground: Ground | None = None
        self._name = ""
        self._keys: Keys | None = None

    def attached(self, ground: Ground, name: str) -> None:
        """Know the node whose keys these are, by its name.

        Raises:
            ConfigError, ResourcesExhausted: the file cannot be written.
        """
        self._ground, self._name = ground, name
        self.manage(RingKeys(ground.keyring))
        ground.keyring.watch(self._changed)

    def manage(self, keys: Keys) -> None:
        """Change these from now on: an agent has those of both of its planes."""
        self._keys = keys
        self.save()

    def _changed(self) -> None:
        if self._ground is not None and self._file is not None:
            self._ground.aside(self._save_quietly)

    def _save_quietly(self) -> None:
        try:
            self.save()
        except MycorrizalError as error:
            log.warning("%s: the keys are not kept: %s", self._name, error)

    def answer(self, asked: Asked) -> bytes:
        """Do what is asked, and return the answer."""
        query = asked.query
        keys = () if self._keys is None else self._keys.keys()
        if not self._allowed:
            return pack_key_answer(False, "this node's keys are not for Serf to list or change (change_keys=False)")
        if not keys or self._keys is None:
            return pack_key_answer(False, "No keyring (encryption not enabled)")
        if query.name == LIST:
            return self._listed(keys)
        operation = _CHANGES[query.name.removeprefix(INTERNAL)]
        try:
            with self._gate:
                self._keys.change(operation, read_key(query.payload))
                self.save()
        except (MycorrizalError, RemoteProtocolError) as error:
            log.warning("%s: keys: %s of %s failed: %s", self._name, operation, query.source, error)
            return pack_key_answer(False, str(error)[:_MESSAGE_MAX])
        log.info("%s: keys: %s, asked for by %s", self._name, operation, query.source)
        return pack_key_answer(True)

    def save(self) -> None:
        """Have the file hold the keys.

        Raises:
            ConfigError, ResourcesExhausted: it cannot be written.
        """
        if self._file is not None and self._keys is not None:
            self._file.save(self._keys.keys())

    def _listed(self, keys: tuple[bytes, ...]) -> bytes:
        texts = [base64.b64encode(key).decode() for key in keys]
        room = self._limit - _ANSWER_ROOM - len(texts[0])  # the first stands there twice
        shown, size = [], 0
        for text in texts:
            size += len(text) + 3
            if size > room:
                break
            shown.append(text)
        left_out = f"the first {len(shown)} of {len(texts)} keys" if len(shown) < len(texts) else ""
        return pack_key_answer(True, left_out, shown)
