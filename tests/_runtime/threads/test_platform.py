"""What some systems lack, taken away one by one; locks and processes as Windows has them, by stand-ins."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal._runtime.threads import platform


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "lock"
    found.write_bytes(b"12345\n")
    return found


def test_a_lock_is_one_descriptors(file: Path) -> None:
    first, second = (os.open(file, os.O_RDWR) for _ in range(2))
    platform.lock(first)
    for shared in (False, True):
        with pytest.raises(BlockingIOError):
            platform.lock(second, shared=shared)
    os.close(first)
    platform.lock(second, shared=True)
    os.close(second)


class Windows:
    """``msvcrt``, with one lock on each byte of each file."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.held: set[tuple[int, int]] = set()

    def locking(self, descriptor: int, mode: int, size: int) -> None:
        place = os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR)
        assert mode == self.LK_NBLCK and size == 1
        if place in self.held:
            raise OSError(errno.EACCES, "Permission denied")
        self.held.add(place)


def test_locks_of_windows_hide_nothing_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = Windows()
    monkeypatch.setattr(platform, "fcntl", None)
    monkeypatch.setattr(platform, "msvcrt", windows)
    first, second = (os.open(file, os.O_RDWR) for _ in range(2))
    platform.lock(first)
    with pytest.raises(BlockingIOError):
        platform.lock(second)
    ((_, place),) = windows.held
    assert place > file.stat().st_size, "there a locked byte cannot be read"
    assert os.read(second, 16) == b"12345\n", "nothing has moved"
    platform.lock(second, shared=True)
    for descriptor in (first, second):
        os.close(descriptor)


def test_without_any_locks_nothing_is_locked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "fcntl", None)
    monkeypatch.setattr(platform, "msvcrt", None)
    descriptor = os.open(file, os.O_RDWR)
    platform.lock(descriptor)
    os.close(descriptor)
    with pytest.raises(OSError, match="ioctl"):
        platform.ioctl(0, 0, b"")


def test_users_and_modes_say_nothing_where_there_are_none(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.chmod(0o666)
    found = file.stat()
    assert platform.ours(found) and platform.open_to_others(found) == 0o066
    assert platform.open_to_others(found, stat.S_IWOTH) == stat.S_IWOTH and platform.user() == os.geteuid()
    monkeypatch.setattr(platform, "USERS", False)
    other: Any = SimpleNamespace(st_uid=12345, st_mode=found.st_mode)
    assert platform.ours(other) and platform.open_to_others(other) == 0 and platform.user() == 0


def test_a_process_is_alive_where_nobody_can_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert platform.alive(os.getpid()) and not platform.alive(2**22 + 1) and platform.alive(1)
    assert platform.alive(2**80), "no system has such a number; it is not ours to say"
    monkeypatch.delattr(os, "kill")
    assert platform.alive(2**22 + 1)


def test_nothing_is_sent_to_a_process_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """There signal 0 is Ctrl-C, and any other number the end."""
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    monkeypatch.setattr(signal, "raise_signal", lambda number: sent.append(-number))
    monkeypatch.setattr(os, "name", "nt")
    assert platform.alive(2**22 + 1), "there is no kernel32 to ask here"
    platform.signal_self(15)
    assert sent == [-15]


def test_without_forks_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(os, "register_at_fork", lambda **calls: given.update(calls))
    platform.at_fork(after_in_child=print)
    assert given == {"after_in_child": print}
    monkeypatch.delattr(os, "register_at_fork")
    platform.at_fork(before=print)
    assert given == {"after_in_child": print}


def test_a_system_without_unix_sockets_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    platform.unix_socket().close()
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(OSError, match="no Unix sockets") as caught:
        platform.unix_socket()
    assert caught.value.errno == errno.EAFNOSUPPORT


def test_on_windows_a_port_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    sock: Any = SimpleNamespace(setsockopt=lambda level, option, value: asked.append(option))
    platform.reuse_address(sock)
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    platform.reuse_address(sock)
    assert asked == [socket.SO_REUSEADDR, -5]
