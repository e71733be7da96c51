"""A SQLite file that keeps an agent's settings, deletions too, over a restart of the whole cluster.

Written by a thread of its own, a moment after each change, so that a slow disk
delays nobody; what was set in the last moment before a crash of every agent at
once may be lost. Several agents must not share one file: it is locked.

SQLite opens the file, and the two or three beside it, by name, so the names
must be nobody else's to change. They are looked at and not opened: to close a
file drops every lock that this process has on it, SQLite's too.
"""

from __future__ import annotations

import math
import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import suppress

from ..._keylike import file_name
from ..._replica.outputs import Kept
from ..._wire.text import logger
from ...exceptions import ConfigError
from ..host.filepaths import exposed
from ..threads import clock, platform
from ..threads.deadline import Deadline
from ..threads.service import Service
from ..threads.shortage import exhausted, note, spare_descriptors
from ..threads.waits import pause

__all__ = ["SettingsFile"]

log = logger("mycorrizal.settings")

_DELAY = 0.1  # seconds in which changes gather for one transaction
_AGAIN = 10.0  # seconds until what could not be written is tried again
_PATIENCE, _POLL = 1.0, 0.02  # seconds in which another agent may end; SQLite itself would see no Ctrl-C meanwhile
_VERSION = 1
_SCHEMA = "CREATE TABLE settings (key TEXT PRIMARY KEY, data BLOB NOT NULL, at REAL NOT NULL)"
_BESIDE = ("-journal", "-wal", "-shm")  # SQLite's; it makes them with the mode of the file, and takes them for its own
_NEW_NAME = "name a file that does not exist yet"
_ANEW = "move it away to begin anew"
_SQLITE_OPENS = 4
"""Files that SQLite may have open at a time for one database."""
_HINTS = {
    sqlite3.SQLITE_BUSY: "another agent has it: one file for each",
    sqlite3.SQLITE_NOTADB: _NEW_NAME,
    sqlite3.SQLITE_CORRUPT: _ANEW,
}


class SettingsFile:
    """One agent's file. ``changed`` is called on the gossip thread, the rest on any.

    Args:
        path: is made if it does not exist, for this user alone.
        read: returns what is to be kept of some keys; called on this file's thread.

    Attributes:
        failures: how often it could not be written; the changes wait, and are tried again.
        failing: whether that is so now.

    Raises:
        ConfigError: it cannot be opened, is no such file, another agent has it, or another user could change it.
        ResourcesExhausted: the disk is full, or no descriptor is left.
    """

    def __init__(self, path: str, node: str, read: Callable[[list[str]], dict[str, Kept]]) -> None:
        self._node = node
        self._read = read
        self._changed: set[str] = set()
        self._wake = threading.Condition()
        self._closing = False
        self.failures = 0
        self.failing = False
        try:
            self._path = os.path.abspath(path)  # also of ":memory:", which SQLite would keep nowhere
            _guard(self._path)
            self._database = _open_patiently(self._path)
        except ConfigError:
            raise
        except (OSError, ValueError, sqlite3.Error) as exc:  # ValueError: text that no file system has
            reason = exc.strerror or type(exc).__name__ if isinstance(exc, OSError) else str(exc)
            code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
            short = exhausted(_cause(exc), f"settings cannot be kept in {file_name(path)}")
        else:
            self._service = Service("mycorrizal-settings", node, self._run, self._ended)
            return
        # Outside of the handlers: what they caught holds the path, which may be a key.
        hint = _HINTS.get(code, "a file in a directory that you can write")
        raise short or ConfigError("settings_file", f"{file_name(path)}: {reason}", hint=hint)

    def load(self) -> list[Kept]:
        """Return what was kept. Before ``start``.

        Raises:
            ConfigError: it cannot be read.
        """
        wall = clock.now() + clock.wall_offset()
        try:
            rows = self._database.execute("SELECT data, at FROM settings").fetchall()
        except sqlite3.Error as exc:
            raise ConfigError("settings_file", f"{file_name(self._path)}: {exc}", hint=_ANEW) from exc
        if not all(isinstance(data, bytes) and isinstance(at, float) and math.isfinite(at) for data, at in rows):
            raise ConfigError("settings_file", f"{file_name(self._path)} holds what is no setting", hint=_ANEW)
        return [Kept(data, max(0.0, wall - at)) for data, at in rows]

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
            log.warning("%s: %s is still being written", self._node, self._path)

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
            note(exc)
            log.error("%s: settings could not be written to %s: %s", self._node, self._path, exc)
            with suppress(sqlite3.Error):
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
            return False
        return True

    def _ended(self) -> None:
        self._database.close()


def _guard(path: str) -> None:
    """Make the file if it is missing, and refuse what another user has a hand in.

    Raises:
        ConfigError, OSError
    """
    why = exposed(os.path.dirname(path), group=False)
    if why is not None:
        hint = "a file below directories that only you and root can write"
        raise ConfigError("settings_file", f"others could replace {path}: {why}", hint=hint)
    # A journal that appears before SQLite looks counts.
    if platform.open_to_others(os.stat(os.path.dirname(path)), stat.S_IWOTH):
        hint = "a file in a directory where only you can make files"
        raise ConfigError("settings_file", f"anybody may put a forged journal beside {path}", hint=hint)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | platform.CLOEXEC, 0o600))
    except FileExistsError:
        pass
    for name in (path, *(path + ending for ending in _BESIDE)):
        try:
            found = os.lstat(name)
        except FileNotFoundError:
            continue
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no regular file"
            raise ConfigError("settings_file", f"{name} is {what}", hint=_NEW_NAME)
        if not platform.ours(found):
            raise ConfigError("settings_file", f"{name} belongs to user {found.st_uid}", hint=_NEW_NAME)
        if platform.open_to_others(found, 0o022):
            raise ConfigError("settings_file", f"others can write {name} (mode {mode:04o})", hint=f"chmod 600 {name}")


def _cause(error: Exception) -> Exception:
    """Return why `error`: SQLite says only that it could not open the file, its journal or its directory."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN:
        try:
            spare_descriptors(_SQLITE_OPENS)
        except OSError as exc:
            return exc
    return error


def _open_patiently(path: str) -> sqlite3.Connection:
    """Return the file opened and locked; another agent that is just ending gets a moment. Raises as ``_open``."""
    patience = Deadline(_PATIENCE)
    while True:
        try:
            return _open(path)
        except sqlite3.OperationalError as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or patience.passed:
                raise
        pause(_POLL)


def _open(path: str) -> sqlite3.Connection:
    """Return the file opened and locked, ours and new or as we left it; nothing is written to another one.

    Raises:
        ConfigError, sqlite3.Error
    """
    database = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        version = int(database.execute("PRAGMA user_version").fetchone()[0])
        schema = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
        if (version, schema) == (0, []):
            database.execute(_SCHEMA)
            database.execute(f"PRAGMA user_version={_VERSION}")
        elif (version, schema) != (_VERSION, [_SCHEMA]):
            text = f"{path} is the database of another program, or of another version of this one"
            raise ConfigError("settings_file", text, hint=_NEW_NAME)
        database.execute("COMMIT")
        database.execute("PRAGMA journal_mode=WAL")
    except BaseException:
        database.close()
        raise
    return database
