"""Files that another user of this host, or another process, has a hand in; root becomes that user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mycorrizal import ConfigError
from mycorrizal._replica.outputs import Kept
from mycorrizal._runtime.host.settings_sources import load
from mycorrizal._runtime.shared.settingsfile import SettingsFile
from mycorrizal._runtime.threads.deadline import Deadline

from .conftest import NOBODY, ROOT

WAIT = 10.0


def opened(path: Path) -> SettingsFile:
    """Return a settings file that keeps each key as its value."""
    return SettingsFile(str(path), "alice", lambda keys: {key: Kept(key.encode(), 0.0) for key in keys})


@pytest.mark.usefixtures("need_root")
@pytest.mark.parametrize("ending", ["", "-wal", "-journal", "-shm"])
def test_settings_file_with_a_part_that_is_another_user_s_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "settings"
    opened(path).close(Deadline(WAIT))
    part = Path(f"{path}{ending}")
    part.touch(0o600)
    os.chown(part, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=f"settings_file: {part} belongs to user {NOBODY} .name a file"):
        opened(path)
    part.unlink()
    opened(path).close(Deadline(WAIT))


@pytest.mark.usefixtures("need_root")
def test_settings_file_below_a_directory_of_another_user_is_refused(theirs: Path) -> None:
    (theirs / "ours").mkdir(0o700)
    with pytest.raises(ConfigError, match=f"others could replace .*: {theirs} belongs to user {NOBODY}"):
        opened(theirs / "ours" / "settings")
    assert os.listdir(theirs / "ours") == []


def test_lock_outlasts_a_second_try_of_the_same_process(tmp_path: Path) -> None:
    """The kernel takes all locks of a process off a file when the process closes the file anywhere."""
    path = tmp_path / "settings"
    file = opened(path)
    with pytest.raises(ConfigError, match="locked .another agent has it: one file for each"):
        opened(path)
    code = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('SELECT * FROM settings')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "database is locked" in done.stderr
    file.close(Deadline(WAIT))


def test_what_a_killed_process_wrote_is_there(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    script = f"""
import os, signal
from tests.integration.test_other_users import Path, opened
assert opened(Path({str(path)!r}))._write(["a", "b"])
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, timeout=60)
    assert sorted(os.listdir(tmp_path)) == ["settings", "settings-wal"]
    file = opened(path)
    assert [kept.data for kept in file.load()] == [b"a", b"b"]
    file.close(Deadline(WAIT))


@pytest.mark.usefixtures("need_root")
def test_another_user_s_settings_in_the_working_directory_are_left_alone(
    theirs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(theirs.parent)
    path = theirs.parent / "mycorrizal.toml"
    path.write_text('[agent]\nname = "stranger"')
    os.chown(path, NOBODY, NOBODY)
    assert load({}, {}).name is None
    assert f"{path} is left alone, since it belongs to user {NOBODY}" in caplog.text
