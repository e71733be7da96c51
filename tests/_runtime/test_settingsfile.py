"""A settings file whose disk, or whose agent, does not do what it should."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from mycorrizal import ConfigError
from mycorrizal._replica.outputs import Kept
from mycorrizal._runtime import settingsfile
from mycorrizal._runtime.deadline import Deadline
from mycorrizal._runtime.settingsfile import SettingsFile

WAIT = 10.0


class Source:
    """What an agent has; the first `failing` questions for it fail."""

    def __init__(self, failing: int = 0) -> None:
        self.failing = failing
        self.asked: list[list[str]] = []
        self.answered = threading.Event()
        self.refused = threading.Event()

    def __call__(self, keys: list[str]) -> dict[str, Kept]:
        self.asked.append(keys)
        if self.failing:
            self.failing -= 1
            self.refused.set()
            raise OSError("no space left on device")
        self.answered.set()
        return {key: Kept(key.encode(), 0.0) for key in keys}


def stored(path: Path) -> list[bytes]:
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT data FROM settings ORDER BY key").fetchall()
    database.close()
    return [row[0] for row in rows]


def test_what_could_not_be_written_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settingsfile, "_AGAIN", 0.01)
    path, source = tmp_path / "settings", Source(failing=1)
    file = SettingsFile(str(path), "alice", source)
    file.start()
    file.changed("a")
    assert source.refused.wait(WAIT)
    file.changed("b")
    assert source.answered.wait(WAIT)
    file.close(Deadline(WAIT))
    assert (file.failures, file.failing) == (1, False)
    assert stored(path) == [b"a", b"b"]


def test_close_ends_though_nothing_can_be_written(tmp_path: Path) -> None:
    file = SettingsFile(str(tmp_path / "settings"), "alice", Source(failing=100))
    file.start()
    file.changed("a")
    file.close(Deadline(WAIT))
    assert file.join(Deadline(0)) and file.failing and file.failures <= 2


def test_file_that_never_was_begun_is_let_go(tmp_path: Path) -> None:
    path = str(tmp_path / "settings")
    first = SettingsFile(path, "alice", Source())
    with pytest.raises(ConfigError, match="locked"):
        SettingsFile(path, "bob", Source())
    first.close(Deadline(WAIT))
    SettingsFile(path, "bob", Source()).close(Deadline(WAIT))
