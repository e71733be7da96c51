"""A settings file whose disk, or whose agent, does not do what it should; files that are none, or others'."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mycorrizal import ConfigError
from mycorrizal._replica.outputs import Kept
from mycorrizal._runtime.shared import settingsfile
from mycorrizal._runtime.shared.settingsfile import SettingsFile
from mycorrizal._runtime.threads import clock
from mycorrizal._runtime.threads.deadline import Deadline

WAIT = 30.0


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


# -- what is no settings file ------------------------------------------------------------------------

OWN = "CREATE TABLE settings (key TEXT PRIMARY KEY, data BLOB NOT NULL, at REAL NOT NULL)"


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Have the umask take nothing away: what is private is so by itself."""
    before = os.umask(0)
    yield
    os.umask(before)


def database(*statements: str) -> Callable[[Path], None]:
    """Return a function that writes a database."""

    def write(path: Path) -> None:
        path.touch(0o600)
        with closing(sqlite3.connect(path)) as made:
            for statement in statements:
                made.execute(statement)
            made.commit()

    return write


def content(data: bytes, mode: int = 0o600) -> Callable[[Path], None]:
    """Return a function that writes a file."""

    def write(path: Path) -> None:
        path.write_bytes(data)
        path.chmod(mode)

    return write


def link(path: Path) -> None:
    """Make a link to an empty file, which could have been a settings file."""
    content(b"")(path.with_name("other"))
    path.symlink_to("other")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "directory": (Path.mkdir, "no regular file .*does not exist yet"),
    "pipe": (lambda path: os.mkfifo(path, 0o600), "no regular file"),
    "socket": (lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)), "no regular file"),
    "dangling link": (lambda path: path.symlink_to("elsewhere"), "is a symbolic link .*does not exist yet"),
    "link": (link, "is a symbolic link"),
    "anybody's": (content(b"", 0o666), r"others can write .*mode 0666.*chmod 600 .*/settings"),
    "a group's": (content(b"", 0o660), "others can write .*mode 0660"),
    "text": (content(b"hello"), "file is not a database .*does not exist yet"),
    "long text": (content(b"hello" * 1000), "file is not a database"),
    "another program's": (database("CREATE TABLE other (a)"), "database of another program.*does not exist yet"),
    "another program's version": (database("PRAGMA user_version=1"), "of another program"),
    "another's table of this name": (
        database("CREATE TABLE settings (key TEXT, value TEXT)", "PRAGMA user_version=1"), "of another program"
    ),
    "ours and more": (database(OWN, "CREATE TABLE more (a)", "PRAGMA user_version=1"), "of another program"),
    "a later version": (database(OWN, "PRAGMA user_version=2"), "of another version"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the socket, which only has to be bound
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_settings_file_is_refused_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make, why = REFUSED[what]
    make(tmp_path / "settings")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(ConfigError, match=f"settings_file: .*{why}") as caught:
        SettingsFile(str(tmp_path / "settings"), "alice", Source())
    assert caught.value.field == "settings_file" and caught.value.hint
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("beside", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("make", [content(b"", 0o666), Path.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_file_beside_it_that_others_have_a_hand_in_is_refused(
    tmp_path: Path, beside: str, make: Callable[[Path], object]
) -> None:
    SettingsFile(str(tmp_path / "settings"), "alice", Source()).close(Deadline(WAIT))
    make(tmp_path / f"settings{beside}")
    with pytest.raises(ConfigError, match=f"settings_file: .*settings{beside}"):
        SettingsFile(str(tmp_path / "settings"), "alice", Source())


def test_place_where_others_could_put_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "open" / "mine" / "settings"
    path.parent.mkdir(0o700, parents=True)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match=f"others could replace {path}: anybody may write {tmp_path}/open"):
        SettingsFile(str(path), "alice", Source())
    assert not path.exists()
    path.parent.chmod(0o1777)
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(ConfigError, match=f"anybody may put a forged journal beside {path} .a file in a directory"):
        SettingsFile(str(path), "alice", Source())
    assert not path.exists()
    path.parent.chmod(0o775)
    for mode in (0o1777, 0o775):  # a group may: many users have one of their own, and umask 002
        (tmp_path / "open").chmod(mode)
        SettingsFile(str(path), "alice", Source()).close(Deadline(WAIT))


@pytest.mark.parametrize("name", ["missing/settings", "x" * 300, "file/settings", "a\ud800"])
def test_path_that_leads_nowhere_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch(0o600)
    with pytest.raises(ConfigError, match="settings_file: .*(No such file|too long|Not a directory|surrogates)"):
        SettingsFile(str(tmp_path / name), "alice", Source())


def test_every_file_is_this_user_s_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "file:settings?mode=memory"):  # a name, and no more
        file = SettingsFile(name, "alice", Source())
        assert file._write(["a"])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir() if name in path.name}
        file.close(Deadline(WAIT))
        assert modes == {name: 0o600, f"{name}-wal": 0o600}
        assert stored(tmp_path / name) == [b"a"]


@pytest.mark.parametrize("row", ["1, 2.0", "x'00', 'soon'", "x'00', 9e999", "'text', 1.0", "1000000000000, 1.0"])
def test_row_that_is_no_setting_is_said(tmp_path: Path, row: str) -> None:
    database(OWN, "PRAGMA user_version=1", f"INSERT INTO settings VALUES ('a', {row})")(tmp_path / "settings")
    file = SettingsFile(str(tmp_path / "settings"), "alice", Source())
    with pytest.raises(ConfigError, match="holds what is no setting .move it away"):
        file.load()
    file.close(Deadline(WAIT))


def test_what_is_kept_no_more_goes_and_a_failed_write_blocks_not_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings"
    file = SettingsFile(str(path), "alice", lambda keys: {key: Kept(key.encode(), 0.0) for key in keys})
    assert file._write(["a", "b"])
    file._read = lambda keys: {"b": Kept(None, 0.0)}  # type: ignore[arg-type]
    assert not file._write(["a", "b"])  # begun, and then refused by the schema
    assert not file._database.in_transaction and file.failures == 1
    file._read = lambda keys: {"b": Kept(b"new", 0.0)}
    assert file._write(["a", "b"])
    file.close(Deadline(WAIT))
    assert stored(path) == [b"new"]


def test_a_clock_that_was_set_back_makes_nothing_younger_than_now(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    file = SettingsFile(str(path), "alice", Source())
    for key, ahead in (("a", 1000.0), ("b", -1000.0)):
        row = (key, key.encode(), clock.now() + clock.wall_offset() + ahead)
        file._database.execute("INSERT INTO settings VALUES (?, ?, ?)", row)
    ages = {kept.data: kept.age for kept in file.load()}
    assert ages[b"a"] == 0.0 and 999.0 < ages[b"b"] < 1100.0
    file.close(Deadline(WAIT))


def test_a_disk_that_is_full_is_tried_seldom(tmp_path: Path) -> None:
    file = SettingsFile(str(tmp_path / "settings"), "alice", Source())
    waits: list[float | None] = []

    def wait_for(condition: Callable[[], bool], timeout: float | None) -> bool:
        waits.append(timeout)
        file.failing = True  # as after a write that failed
        if len(waits) == 2:
            file._closing = True
        return True

    file._write = lambda keys: False  # type: ignore[method-assign]
    file._wake.wait_for = wait_for  # type: ignore[method-assign, assignment]
    file.changed("a")
    file._run()
    assert waits == [settingsfile._DELAY, settingsfile._AGAIN]
    file.close(Deadline(WAIT))
