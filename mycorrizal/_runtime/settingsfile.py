"""A SQLite file that keeps an agent's settings, deletions too, over a restart of the whole cluster.

Written by a thread of its own, a moment after each change, so that a slow disk
delays nobody; what was set in the last moment before a crash of every agent at
once may be lost. Several agents must not share one file: it is locked.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable

from .._replica.outputs import Kept
from .._wire.text import logger
from ..exceptions import ConfigError
from . import clock
from .deadline import Deadline
from .service import Service

__all__ = ["SettingsFile"]

log = logger("mycorrizal.settings")

_DELAY = 0.1  # seconds in which changes gather for one transaction
_AGAIN = 10.0  # seconds until what could not be written is tried again
_VERSION = 1
_SCHEMA = "CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, data BLOB NOT NULL, at REAL NOT NULL)"


class SettingsFile:
    """One agent's file. ``changed`` is called on the gossip thread, the rest on any.

    Args:
        path: is made if it does not exist.
        read: returns what is to be kept of some keys; called on this file's thread.

    Attributes:
        failures: how often it could not be written; the changes wait, and are tried again.
        failing: whether that is so now.

    Raises:
        ConfigError: it cannot be opened, is no such file, or another agent has it.
    """

    def __init__(self, path: str, node: str, read: Callable[[list[str]], dict[str, Kept]]) -> None:
        self._path = path
        self._node = node
        self._read = read
        self._changed: set[str] = set()
        self._wake = threading.Condition()
        self._closing = False
        self.failures = 0
        self.failing = False
        self._database = self._open(path)
        self._service = Service("mycorrizal-settings", node, self._run, self._ended)

    def _open(self, path: str) -> sqlite3.Connection:
        try:
            if not os.path.exists(path):
                os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o600))
            database = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
            try:
                database.execute("PRAGMA locking_mode=EXCLUSIVE")
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("BEGIN EXCLUSIVE")
                found = int(database.execute("PRAGMA user_version").fetchone()[0])
                if found not in (0, _VERSION):
                    raise sqlite3.DatabaseError(f"version {found}, this library writes {_VERSION}")
                database.execute(_SCHEMA)
                database.execute(f"PRAGMA user_version={_VERSION}")
                database.execute("COMMIT")
            except BaseException:
                database.close()
                raise
        except (OSError, sqlite3.Error) as exc:
            hint = "one file for each agent, in a directory that it can write"
            raise ConfigError("settings_file", f"{path}: {exc}", hint=hint) from exc
        return database

    def load(self) -> list[Kept]:
        """Return what was kept. Before ``start``.

        Raises:
            ConfigError: it cannot be read.
        """
        wall = clock.now() + clock.wall_offset()
        try:
            rows = self._database.execute("SELECT data, at FROM settings").fetchall()
        except sqlite3.Error as exc:
            raise ConfigError("settings_file", f"{self._path}: {exc}", hint="move it away to begin anew") from exc
        return [Kept(bytes(data), max(0.0, wall - at)) for data, at in rows]

    def start(self) -> None:
        """Begin to write."""
        self._service.start()

    def changed(self, key: str) -> None:
        """Write what `key` is now, soon."""
        with self._wake:
            self._changed.add(key)
            self._wake.notify()

    def stop(self) -> None:
        """Write what is still to be written, and end; does not wait."""
        with self._wake:
            self._closing = True
            self._wake.notify()

    def join(self, deadline: Deadline) -> bool:
        """Wait until it has ended; False if the deadline passed."""
        return self._service.join(deadline)

    def close(self, deadline: Deadline) -> None:
        """Write what is still to be written, and end."""
        self.stop()
        if self.join(deadline):
            self._database.close()  # also of a file that never was begun
        else:
            log.warning("! %s: %s is still being written", self._node, self._path)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._changed and not self._closing:
                    self._wake.wait()
                self._wake.wait_for(lambda: self._closing, _AGAIN if self.failing else _DELAY)
                keys, self._changed = sorted(self._changed), set()
                closing = self._closing
            self.failing = bool(keys) and not self._write(keys)
            if closing and (self.failing or not keys):
                return
            if self.failing:
                with self._wake:
                    self._changed.update(keys)

    def _write(self, keys: list[str]) -> bool:
        wall = clock.now() + clock.wall_offset()
        try:
            kept = self._read(keys)
            self._database.execute("BEGIN")
            for key in keys:
                if key in kept:
                    row = (key, kept[key].data, wall - kept[key].age)
                    self._database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", row)
                else:
                    self._database.execute("DELETE FROM settings WHERE key = ?", (key,))
            self._database.execute("COMMIT")
        except Exception as exc:
            self.failures += 1
            log.error("! %s: settings could not be written to %s: %s", self._node, self._path, exc)
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            return False
        return True

    def _ended(self) -> None:
        self._database.close()
