"""The cluster's keys change on all agents alike: at once from several sides, on a full disk, and for who was away."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.keys import key_of
from tests.needs import lacks

from .agents import Make, agents, runtime_dir
from .conftest import until
from .interrupted import frozen, plane

__all__ = ["agents", "runtime_dir"]

OLD, A, B = key_of("old"), key_of("a"), key_of("b")


def test_rotations_from_two_sides_at_once_end_the_same_everywhere(agents: Make) -> None:
    three = [agents(name, key=OLD, bind="127.0.0.1") for name in ("alice", "bob", "carol")]
    for one in three:
        one.wait_for(3)
    for key in (A, B):
        assert not three[0].keys.add(key).errors
    for turn in range(5):
        start = threading.Barrier(2)

        def use(number: int, key: bytes, start: threading.Barrier = start) -> None:
            start.wait(20)
            three[number].keys.use(key)

        threads = [threading.Thread(target=use, args=pair) for pair in ((turn % 3, A), ((turn + 1) % 3, B))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len({one.keys.list() for one in three}) == 1
        for one in three:
            assert len(one._running.members.keyring.keys()) == 3
    three[0].send("bob", "still here")
    assert three[1].receive(10).value == "still here"


def test_who_missed_a_change_gets_it_with_the_next_or_when_it_joins(agents: Make) -> None:
    alice, bob = (agents(name, key=OLD, bind="127.0.0.1") for name in ("alice", "bob"))
    alice.wait_for(2)
    with frozen(plane(bob)):
        for step in (alice.keys.add, alice.keys.use):
            assert list(step(A, timeout=0.3).errors) == ["bob"]
    assert bob.keys.list() == (OLD,)
    assert not alice.keys.use(A).errors, "with what it missed before"
    assert bob.keys.list() == alice.keys.list() == (A, OLD)
    late = agents("late", key=A, bind="127.0.0.1", join=["{}:{}".format(*bob.address)])
    until(lambda: late.keys.list() == (A, OLD))
    assert not late.keys.remove(OLD).errors
    assert {one.keys.list() for one in (alice, bob, late)} == {(A,)}


@pytest.fixture
def small_disk(runtime_dir: str) -> Path:
    """A file system of 64 KiB in place of the runtime directory."""
    if os.geteuid() != 0:
        lacks("needs root, to mount a small file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", runtime_dir], capture_output=True, check=False
    )
    if done.returncode:
        lacks("needs the right to mount a small file system")
    return Path(runtime_dir)


def test_on_a_full_disk_no_key_changes_and_each_agent_says_so(small_disk: Path, agents: Make) -> None:
    try:
        alice, bob = agents("alice"), agents("bob")
        alice.wait_for(2)
        (old,) = alice.keys.list()
        assert not alice.keys.add(A).errors
        files = sorted(small_disk.iterdir())
        with contextlib.suppress(OSError), (small_disk / "fill").open("wb", buffering=0) as fill:
            while True:
                fill.write(bytes(512))
        for _ in range(2):
            results = alice.keys.use(A)
            assert sorted(results.errors) == ["alice", "bob"] and not results
            assert "No space left" in str(results.errors["alice"]) and "No space left" in str(results.errors["bob"])
            assert alice.keys.list() == bob.keys.list() == (old, A)
        (small_disk / "fill").unlink()
        assert sorted(small_disk.iterdir()) == files, "no draft"
        assert not alice.keys.use(A).errors
        assert alice.keys.list()[0] == bob.keys.list()[0] == next(small_disk.glob("*.key")).read_bytes() == A
    finally:
        for one in (alice, bob):
            one.close()
        subprocess.run(["umount", "-l", str(small_disk)], check=True)
