"""Whose socket has ended without a goodbye, and whose lock is free, is dead; and somebody has such a socket."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mycorrizal._runtime.host.rundir import Claim, RuntimeDir
from mycorrizal._runtime.local.deaths import LOOKS, NEXT, Company, Deaths, is_local

CLUSTER = "mycorrizal"
BOOT = b"12345678"


class Peer:
    def __init__(self) -> None:
        self.links: list[object] = []
        self.dialling: object = None
        self.dials = 0

    def dial(self, now: float) -> None:
        self.dials += 1


class FakeCore:
    """A loop in virtual time, counters, and peers that are dialled."""

    def __init__(self, name: str = "b") -> None:
        self.name = name
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[float], object]]] = []
        self.counted: list[str] = []
        self.peers: dict[str, Peer] = {}
        self.names: list[str] = []
        self.loop = self.machine = self

    def call_at(self, when: float, call: Callable[[float], object]) -> None:
        self.timers.append((when, call))

    def count(self, name: str) -> None:
        self.counted.append(name)

    def peer(self, name: str) -> Peer:
        return self.peers.setdefault(name, Peer())

    def members(self) -> list[str]:
        return self.names

    def fire(self) -> None:
        """Let the next timer come."""
        self.now, call = self.timers.pop(0)
        call(self.now)


@pytest.fixture
def rundir(tmp_path: Path) -> RuntimeDir:
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    return RuntimeDir(path)


def deaths(core: Any, rundir: RuntimeDir) -> tuple[Deaths, list[tuple[str, bytes]]]:
    told: list[tuple[str, bytes]] = []
    return Deaths(core, rundir, CLUSTER, lambda name, boot: told.append((name, boot))), told


def test_who_has_no_lock_is_dead_at_once(rundir: RuntimeDir) -> None:
    core = FakeCore()
    found, told = deaths(core, rundir)
    found.ended("a", BOOT, 0.0)
    assert told == [("a", BOOT)] and core.counted == ["host.deaths"] and not core.timers


def test_who_keeps_its_lock_is_not_accused(rundir: RuntimeDir) -> None:
    core = FakeCore()
    found, told = deaths(core, rundir)
    with rundir.claim(CLUSTER, "a"):
        found.ended("a", BOOT, 0.0)
        while core.timers:
            core.fire()
        assert not told and core.now == pytest.approx(sum(LOOKS))


def test_a_lock_that_the_kernel_gives_back_a_moment_later_counts(rundir: RuntimeDir) -> None:
    core = FakeCore()
    found, told = deaths(core, rundir)
    claim = rundir.claim(CLUSTER, "a")
    found.ended("a", BOOT, 0.0)
    core.fire()
    assert not told
    claim.release()
    core.fire()
    assert told == [("a", BOOT)] and not core.timers


def test_to_look_takes_no_name_from_anybody(rundir: RuntimeDir) -> None:
    """A new process takes the name while others look whether the old one is dead."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            rundir.vacant(CLUSTER, "a")

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(50):
            rundir.claim(CLUSTER, "a").release()
    finally:
        stop.set()
        looker.join()
    assert rundir.vacant(CLUSTER, "a")


def test_what_the_dead_left_stays_for_who_takes_its_name(rundir: RuntimeDir) -> None:
    claim = rundir.claim(CLUSTER, "a")
    lock = next(rundir.path.glob("*.lock"))
    assert not rundir.vacant(CLUSTER, "a")
    abandon(claim)
    assert rundir.vacant(CLUSTER, "a") and lock.exists()
    lock.unlink()
    assert rundir.vacant(CLUSTER, "a")


def abandon(claim: Claim) -> None:
    """Do what the end of a process does."""
    claim.abandon()


def test_a_forked_child_that_lives_on_has_neither_the_lock(rundir: RuntimeDir) -> None:
    claim = rundir.claim(CLUSTER, "a")
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        claim.abandon()
        assert rundir.vacant(CLUSTER, "a")
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
        for fd in (*ready, *done):
            os.close(fd)


def test_a_directory_of_another_host_gets_no_word(tmp_path: Path) -> None:
    device = os.stat(tmp_path).st_dev
    mounts = tmp_path / "mountinfo"
    for kind, local in (("ext4", True), ("tmpfs", True), ("nfs4", False), ("fuse.sshfs", False), ("cifs", False)):
        mounts.write_text(
            f"22 1 254:77 / /other rw - ext4 /dev/x rw\n"
            f"23 1 {os.major(device)}:{os.minor(device)} / {tmp_path} rw,relatime shared:1 - {kind} somewhere rw\n"
        )
        assert is_local(tmp_path, str(mounts)) is local, kind
    assert not is_local(tmp_path, str(tmp_path / "missing")) and not is_local(tmp_path / "missing")


# -- who has such a socket ----------------------------------------------------------------------------


def company(core: Any, here: str = "abcdef", reached: str = "abcdef") -> Company:
    core.names = list("abcdefxyz")
    return Company(core, lambda name, now: name in reached, lambda names: [name for name in names if name in here])


def test_the_next_two_of_this_host_are_dialled_the_greater_first() -> None:
    core = FakeCore("e")
    company(core).look(0.0)
    assert {name: peer.dials for name, peer in core.peers.items()} == {"f": 1}
    core.fire()
    assert core.peers["a"].dials == 1 and len(core.peers) == NEXT, "in a ring"


def test_who_is_connected_or_cannot_be_is_left_alone() -> None:
    core = FakeCore("b")
    core.peer("c").links.append("link")
    core.peer("d").dialling = "link"
    company(core).look(0.0)
    assert not any(peer.dials for peer in core.peers.values())
    core = FakeCore("b")
    company(core, reached="").look(0.0)
    assert not core.peers and core.timers
    core = FakeCore("b")
    company(core, reached="ef").look(0.0)
    assert {name: peer.dials for name, peer in core.peers.items()} == {"e": 1, "f": 1}, "the next that can be"
    core = FakeCore("b")
    company(core, here="").look(0.0)
    assert not core.peers and core.timers
