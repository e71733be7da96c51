"""Files between two planes of this process, over loopback."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mycorrizal._runtime.data import files
from mycorrizal._runtime.data.files import safe_name
from mycorrizal._runtime.data.streams import open_stream
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._runtime.threads.futures import Waiter
from mycorrizal.dataconfig import DataConfig
from mycorrizal.dataplane import DataPlane
from mycorrizal.exceptions import (
    ConfigError,
    NotRunningError,
    OperationTimeout,
    PeerBusy,
    PeerUnreachable,
    RemoteError,
    ValueTooLarge,
)
from mycorrizal.types import ReceivedFile

from .couple import KEY, MIB, SECONDS, Pair, Task, left_open, until


@pytest.fixture
def pair() -> Iterator[Pair]:
    config = DataConfig(stall_timeout=SECONDS)
    with DataPlane("alice", key=KEY) as alice, DataPlane("bob", key=KEY, config=config) as bob:
        alice.add_peer("bob", bob.address)
        yield Pair(alice, bob)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where files are received."""
    path = tmp_path / "in"
    path.mkdir()
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sending(pair: Pair, *args: Any, **options: Any) -> Task:
    options.setdefault("timeout", SECONDS)
    return Task(lambda: pair.alice.send_file("bob", *args, **options))


def waiting(plane: DataPlane, count: int = 1) -> Callable[[], bool]:
    return lambda: plane.metrics()["files.waiting"] == count


def test_round_trip_with_progress(pair: Pair, tmp_path: Path, folder: Path) -> None:
    blob = os.urandom(MIB) * 16
    source = tmp_path / "Pilz ☂.bin"
    source.write_bytes(blob)
    sent: list[tuple[int, int]] = []
    got: list[tuple[int, int]] = []
    task = sending(pair, source, progress=lambda *step: sent.append(step))
    found = pair.bob.receive_file(folder, SECONDS, lambda *step: got.append(step))
    assert task.result() == len(blob)
    assert found == ReceivedFile(folder / source.name, source.name, "alice", len(blob))
    assert found.path.read_bytes() == blob
    assert names(folder) == [source.name]
    for told in (sent, got):
        assert told[-1] == (len(blob), len(blob))
        assert told == sorted(told)
    until(lambda: left_open(pair.bob) == (0, 0))


def test_no_file_is_overwritten(pair: Pair, folder: Path) -> None:
    (folder / "notes.txt").write_bytes(b"old")
    for number in (2, 3):
        task = sending(pair, io.BytesIO(b"new %d" % number), name="notes.txt")
        found = pair.bob.receive_file(str(folder), SECONDS)
        assert task.result() == 5
        assert found.name == "notes.txt"
        assert found.path.read_bytes() == b"new %d" % number
    assert names(folder) == ["notes (2).txt", "notes (3).txt", "notes.txt"]
    assert (folder / "notes.txt").read_bytes() == b"old"


def test_empty_file_and_files_of_unknown_size(pair: Pair, folder: Path) -> None:
    task = sending(pair, io.BytesIO(b""))
    assert pair.bob.receive_file(folder, SECONDS).size == 0
    assert task.result() == 0

    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe, os.fdopen(write, "wb") as other:
        other.write(b"through a pipe")
        other.close()
        told: list[tuple[int, int]] = []
        task = sending(pair, pipe, name="pipe", progress=lambda *step: told.append(step))
        found = pair.bob.receive_file(folder, SECONDS)
        assert task.result() == 14
    assert told[-1] == (14, 14)
    assert found.path.read_bytes() == b"through a pipe"
    assert names(folder) == ["file", "pipe"]


def test_only_the_rest_of_an_open_file_is_sent(pair: Pair, tmp_path: Path, folder: Path) -> None:
    source = tmp_path / "log.txt"
    source.write_bytes(b"head and tail")
    with source.open("rb") as file:
        file.seek(9)
        task = sending(pair, file)
        found = pair.bob.receive_file(folder, SECONDS)
        assert task.result() == 4
    assert (found.name, found.path.read_bytes()) == ("log.txt", b"tail")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain.txt", "plain.txt"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("..\\..\\boot.ini", ".._.._boot.ini"),
        ("/etc/shadow", "_etc_shadow"),
        (".", "file"),
        ("..", "file"),
        ("...", "file"),
        ("", "file"),
        ("  ", "file"),
        ("a\0b\nc\x1b[2J\x7f", "a_b_c_[2J_"),
        ("right\u202eto\u200bleft", "right_to_left"),
        ("x" * 500 + ".tar", "x" * 196 + ".tar"),
        ("☂" * 200, "☂" * 66),
        ("e\u0301", "\u00e9"),
        ("name.", "name"),
        ("a." + "y" * 300, "a." + "y" * 198),
    ],
)
def test_names_are_made_safe(name: str, expected: str) -> None:
    assert safe_name(name) == expected
    assert safe_name(expected) == expected
    assert len(safe_name(name).encode()) <= files.NAME_MAX


def test_nasty_name_stays_in_its_directory(pair: Pair, tmp_path: Path, folder: Path) -> None:
    for name in ("../escaped", "..", "/tmp/x\0y", "\udce9"):
        task = sending(pair, io.BytesIO(b"x"), name=name)
        found = pair.bob.receive_file(folder, SECONDS)
        assert task.result() == 1
        assert found.path.parent == folder
    assert sorted(names(tmp_path)) == ["in"]
    assert len(names(folder)) == 4


class Faulty(io.BytesIO):
    """A file that cannot be read to its end."""

    def __init__(self, data: bytes, error: Exception | None) -> None:
        super().__init__(data)
        self.error = error
        self.reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > 2:
            if self.error is not None:
                raise self.error
            return b""
        return super().read(size)


@pytest.mark.parametrize("error", [ZeroDivisionError(), None])
def test_sender_aborts_midway(pair: Pair, folder: Path, error: Exception | None) -> None:
    task = sending(pair, Faulty(bytes(8 * MIB), error), name="part")
    with pytest.raises(PeerUnreachable, match="gave the stream up"):
        pair.bob.receive_file(folder, SECONDS)
    with pytest.raises(OSError if error is None else ZeroDivisionError):
        task.result()
    assert names(folder) == []
    task = sending(pair, io.BytesIO(b"whole"), name="whole")
    assert pair.bob.receive_file(folder, SECONDS).size == 5
    task.result()
    assert pair.bob.metrics().get("offences", 0) == 0


def test_plane_of_the_sender_closes_midway(pair: Pair, folder: Path) -> None:
    def tell(received: int, total: int) -> None:
        pair.alice.close(timeout=0)

    task = sending(pair, io.BytesIO(bytes(64 * MIB)), name="x")
    with pytest.raises(PeerUnreachable):
        pair.bob.receive_file(folder, SECONDS, tell)
    with pytest.raises(NotRunningError):
        task.result()
    assert names(folder) == []


def test_receiver_gives_up_midway(pair: Pair, folder: Path) -> None:
    def tell(received: int, total: int) -> None:
        raise ZeroDivisionError

    task = sending(pair, io.BytesIO(bytes(64 * MIB)), name="x")
    with pytest.raises(ZeroDivisionError):
        pair.bob.receive_file(folder, SECONDS, tell)
    with pytest.raises(PeerUnreachable, match="gave the stream up"):
        task.result()
    assert names(folder) == []


def test_sender_hears_that_the_disk_is_full(pair: Pair, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_copy_in", full)
    task = sending(pair, io.BytesIO(bytes(16 * MIB)), name="x")
    with pytest.raises(OSError, match="No space"):
        pair.bob.receive_file(folder, SECONDS)
    with pytest.raises(RemoteError, match="No space left"):
        task.result()
    assert names(folder) == []


def test_nobody_receives(pair: Pair, folder: Path) -> None:
    with pytest.raises(OperationTimeout, match="has not taken") as caught:
        pair.alice.send_file("bob", io.BytesIO(b"x"), timeout=0.2)
    assert caught.value.operation == "send_file"
    waiting = pair.bob._started.files._waiting
    until(lambda: waiting and waiting[0].lost)
    with pytest.raises(OperationTimeout):  # what was given up is not received later
        pair.bob.receive_file(folder, 0.2)
    assert names(folder) == []


def test_few_files_wait_and_more_are_refused(pair: Pair, folder: Path) -> None:
    tasks = [sending(pair, io.BytesIO(b"%d" % number), name=str(number)) for number in range(files.WAITING_MAX)]
    until(waiting(pair.bob, files.WAITING_MAX))
    with pytest.raises(PeerBusy):
        pair.alice.send_file("bob", io.BytesIO(b"x"), timeout=SECONDS)
    found = [pair.bob.receive_file(folder, SECONDS) for _ in tasks]
    assert {task.result() for task in tasks} == {1}
    assert sorted(file.name for file in found) == names(folder) == ["0", "1", "2", "3"]


def test_a_file_waits_for_a_limited_time(folder: Path) -> None:
    config = DataConfig(stall_timeout=0.2)
    with DataPlane("alice", key=KEY) as alice, DataPlane("bob", key=KEY, config=config) as bob:
        alice.add_peer("bob", bob.address)
        with pytest.raises(PeerBusy):
            alice.send_file("bob", io.BytesIO(bytes(8 * MIB)))
        assert bob.metrics()["files.waiting"] == 0
        assert bob.metrics()["files.expired"] == 1


@pytest.mark.parametrize("path", [5, None, b"x", "a\0b", True, ["x"]])
def test_what_is_no_path_is_said_before_anything_is_sent_or_taken(pair: Pair, path: Any) -> None:
    with pytest.raises(ConfigError, match="file: must be a path or a file opened for reading bytes|holds a NUL"):
        pair.alice.send_file("bob", path)
    with pytest.raises(ConfigError, match="directory: must be a path, not|holds a NUL"):
        pair.bob.receive_file(path, 0)
    with pytest.raises(ConfigError, match="name: must be text, not int"):
        pair.alice.send_file("bob", io.BytesIO(b"x"), name=5)  # type: ignore[arg-type]
    assert pair.bob.metrics()["files.waiting"] == 0


def test_path_of_bytes_that_the_system_gave_is_taken(pair: Pair, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    [entry] = [entry for entry in os.scandir(os.fsencode(tmp_path)) if entry.name == b"source"]
    task = sending(pair, entry)
    assert pair.bob.receive_file(folder, SECONDS).name == "source"
    assert task.result() == 1


def test_bad_calls(pair: Pair, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pair.alice.send_file("bob", tmp_path / "missing")
    with pytest.raises(NotADirectoryError):
        pair.bob.receive_file(tmp_path / "missing")
    with pytest.raises(OperationTimeout):
        pair.bob.receive_file(folder, 0)
    task = Task(lambda: pair.bob.receive_file(folder, 1.0))
    with pytest.raises((TypeError, PeerUnreachable)):
        pair.alice.send_file("bob", io.StringIO("text"), timeout=SECONDS)  # type: ignore[arg-type]
    with pytest.raises((PeerUnreachable, OperationTimeout)):
        task.result()


def test_header_that_is_none_is_an_offence_and_the_next_file_comes(pair: Pair, folder: Path) -> None:
    task = Task(lambda: pair.bob.receive_file(folder, SECONDS))
    with open_stream(pair.alice._started, "bob", files.FILE, SECONDS, ours=True) as stream:
        stream.timeout = SECONDS
        with pytest.raises(PeerUnreachable, match="cannot be decoded"):
            stream.read(stream.write(b"\0\0\0\1\xff"))
    assert pair.alice.send_file("bob", io.BytesIO(b"good"), name="good", timeout=SECONDS) == 4
    assert task.result().name == "good"
    assert pair.bob.metrics()["offences"] >= 1


def test_wrong_size_leaves_nothing(pair: Pair, folder: Path) -> None:
    for size in (3, 9):
        task = Task(lambda: pair.bob.receive_file(folder, SECONDS))
        with open_stream(pair.alice._started, "bob", files.FILE, SECONDS, ours=True) as stream:
            files._put(stream, ["x", size], Deadline(SECONDS))
            stream.write(b"12345")
            stream.close_write()
            with pytest.raises(ValueError, match="came with"):
                task.result()
    assert names(folder) == []


def test_close_ends_receive_file(pair: Pair, folder: Path) -> None:
    task = Task(lambda: pair.bob.receive_file(folder))
    until(lambda: pair.bob._started.files._takers)
    pair.bob.close()
    with pytest.raises(NotRunningError):
        task.result()
    with pytest.raises(NotRunningError):
        pair.bob.receive_file(folder)


def test_several_receivers(pair: Pair, folder: Path) -> None:
    barrier = threading.Barrier(4)

    def receive() -> ReceivedFile:
        barrier.wait(SECONDS)
        return pair.bob.receive_file(folder, SECONDS)

    receivers = [Task(receive) for _ in range(4)]
    senders = [sending(pair, io.BytesIO(bytes([n]) * MIB), name="same.bin") for n in range(4)]
    assert {task.result() for task in senders} == {MIB}
    assert {task.result().name for task in receivers} == {"same.bin"}
    assert names(folder) == ["same (2).bin", "same (3).bin", "same (4).bin", "same.bin"]
    assert {path.read_bytes()[0] for path in folder.iterdir()} == {0, 1, 2, 3}


class Interrupted(Waiter):
    """A wait that Ctrl-C ends, at the worst moment: when something has just been handed over, or the time is up."""

    def wait(self, deadline: Deadline) -> bool:
        super().wait(deadline)
        raise KeyboardInterrupt


def interrupted(plane: DataPlane, folder: Path, seconds: float = SECONDS) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "Waiter", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            plane.receive_file(folder, seconds)


def test_file_that_was_offered_to_an_interrupted_receiver_is_the_next_ones(pair: Pair, folder: Path) -> None:
    task = sending(pair, io.BytesIO(b"whole"), name="x")
    interrupted(pair.bob, folder)
    assert pair.bob.metrics()["files.waiting"] == 1
    assert pair.bob.receive_file(folder, SECONDS).size == 5
    assert task.result() == 5


def test_file_of_an_interrupted_receiver_goes_to_who_waits_already(pair: Pair, folder: Path) -> None:
    arrivals = pair.bob._started.files
    first = Waiter()
    arrivals._takers.append(first)
    task = sending(pair, io.BytesIO(b"whole"), name="x")
    until(lambda: first.done)
    second = Task(lambda: pair.bob.receive_file(folder, SECONDS))
    until(lambda: len(arrivals._takers) == 1)
    arrivals._give_back(first)
    assert second.result().size == task.result() == 5


def test_file_that_was_given_back_waits_for_a_limited_time(folder: Path) -> None:
    config = DataConfig(stall_timeout=0.2)
    with DataPlane("alice", key=KEY) as alice, DataPlane("bob", key=KEY, config=config) as bob:
        alice.add_peer("bob", bob.address)
        task = Task(lambda: alice.send_file("bob", io.BytesIO(bytes(8 * MIB)), timeout=SECONDS))
        interrupted(bob, folder)
        with pytest.raises(PeerBusy):
            task.result()
        assert bob.metrics()["files.waiting"] == 0


def test_receivers_that_give_up_leave_no_place_behind(pair: Pair, folder: Path) -> None:
    arrivals = pair.bob._started.files
    for _ in range(10):
        interrupted(pair.bob, folder, 0.001)
        with pytest.raises(OperationTimeout):
            pair.bob.receive_file(folder, 0.001)
        assert not arrivals._takers and not arrivals._waiting


class Endless(io.RawIOBase):
    """Says nothing of its size."""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return bytes(size)


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_above_the_limit_is_refused_on_both_sides(pair: Pair, folder: Path, announced: bool) -> None:
    task = sending(pair, io.BytesIO(bytes(3 * MIB)) if announced else Endless(), name="large")
    with pytest.raises(ValueTooLarge, match="1000000 are the most") as caught:
        pair.bob.receive_file(folder, SECONDS, limit=1_000_000)
    assert caught.value.node == "alice" and names(folder) == []
    with pytest.raises(RemoteError, match="1000000 are the most"):
        task.result()
    with pytest.raises(ConfigError, match="limit"):
        pair.bob.receive_file(folder, 0, limit=-1)
