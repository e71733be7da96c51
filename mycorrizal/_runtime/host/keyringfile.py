"""Serf's keyring file: a JSON list of keys in base64, the one in use first. Every change writes it anew.

``serf agent -keyring-file`` reads what is written here, and the other way round.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
from pathlib import Path

from ..._keylike import file_name
from ...agentconfig import parse_key
from ...exceptions import ConfigError
from ..threads.shortage import exhausted
from ..threads.waits import Exclusive
from .filepaths import path_text
from .reading import read
from .rundir import _draft, _settle, _unlink

__all__ = ["KeyringFile"]

SETTING = "keyring_file"
MOST_BYTES = 1 << 16


class KeyringFile:
    """One file. Any thread.

    Raises:
        ConfigError: `path` is no path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path_text(SETTING, path)).absolute()
        self._gate = Exclusive()
        self._known: tuple[bytes, ...] | None = None  # what is in it

    def load(self) -> tuple[bytes, ...]:
        """Return the keys in the file, the one in use first; none if there is no file yet.

        Raises:
            ConfigError: it cannot be read, is open to others, or holds no list of keys.
        """
        if not self._path.exists():
            return ()
        shown = file_name(str(self._path))
        data, private = read(str(self._path), str(self._path), MOST_BYTES, SETTING)
        if private is not None:
            hint = f"chmod 600 {shlex.quote(str(self._path))}"
            raise ConfigError(SETTING, f"{shown} holds keys and {private}", hint=hint)
        try:
            listed = json.loads(data)
            if not isinstance(listed, list) or not all(isinstance(key, str) for key in listed):
                raise ValueError("no list of texts")
            keys = tuple(dict.fromkeys(parse_key(key) for key in listed))
        except (ValueError, RecursionError):  # a ConfigError too; none of them shows a key
            keys = ()
        if not keys:
            raise ConfigError(SETTING, f"{shown} is no JSON list of keys in base64", hint="as serf agent writes it")
        self._known = keys
        return keys

    def save(self, keys: tuple[bytes, ...]) -> None:
        """Write `keys`, the one in use first, if they are not what is there. Blocks on the disk.

        Raises:
            ConfigError: it cannot be written; the old file stays.
            ResourcesExhausted: there is no room, or no descriptor.
        """
        with self._gate:
            if keys == self._known or not keys:
                return
            text = json.dumps([base64.b64encode(key).decode() for key in keys], indent=2)
            try:
                draft = _draft(self._path, text.encode())
                try:
                    os.replace(draft, self._path)
                except BaseException:
                    _unlink(draft)
                    raise
            except OSError as exc:
                shown = file_name(str(self._path))
                short = exhausted(exc, f"cannot write {shown}")
                raise short or ConfigError(SETTING, f"cannot write {shown}: {exc.strerror or exc}") from exc
            _settle(self._path.parent)
            self._known = keys
