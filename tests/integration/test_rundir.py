"""Several processes and one runtime directory: they race, are killed, fork, or are another user's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mycorrizal import ConfigError, NameInUse
from mycorrizal._runtime.host import rundir
from mycorrizal._runtime.host.agentrecord import AgentRecord
from mycorrizal._runtime.host.rundir import RuntimeDir
from tests.needs import lacks

from .conftest import NOBODY, ROOT, until

PRELUDE = """
import os, sys, time
from mycorrizal import ConfigError, NameInUse
from mycorrizal._runtime.host import rundir
from mycorrizal._runtime.host.agentrecord import AgentRecord
from mycorrizal._runtime.host.rundir import RuntimeDir
def record(name="a"):
    return AgentRecord(name, "c", pid=os.getpid(), host="127.0.0.1", port=1)
def say(*words):
    print(*words, flush=True)
"""


class Process:
    """A script in a process of its own, which is told to go on by a line and answers with lines."""

    def __init__(self, script: str, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT), "MYCORRIZAL_RUNTIME_DIR": str(path)},
        )

    def read(self) -> str:
        """Return the next line it writes."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Kill it, whatever it does."""
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def spawned() -> Iterator[list[Process]]:
    """A list of processes that are killed at the end."""
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.end()


def test_one_of_many_that_race_for_a_name_gets_it(path: Path, spawned: list[Process]) -> None:
    script = """
    place = RuntimeDir()
    say("ready")
    for line in sys.stdin:
        try:
            claim = place.claim("c", "a")
            claim.publish(record())
            say("mine", place.shared_key("c").hex())
        except NameInUse as error:
            say("taken by", error.pid)
    """
    spawned.extend(Process(script, path) for _ in range(6))
    assert [process.read() for process in spawned] == ["ready"] * 6
    rest = list(spawned)
    for _ in range(3):  # each time the winner is killed, and the others race again
        for process in rest:
            process.go()
        answers = {process: process.read() for process in rest}
        [winner] = [process for process, answer in answers.items() if answer.startswith("mine")]
        holder = f"taken by {winner.process.pid}"
        assert [answer for answer in answers.values() if answer != answers[winner]] == [holder] * (len(rest) - 1)
        assert [found.pid for found in RuntimeDir(path).agents()] == [winner.process.pid]
        assert answers[winner] == f"mine {RuntimeDir(path).shared_key('c').hex()}"
        winner.process.send_signal(signal.SIGKILL)
        winner.process.wait(10)
        rest.remove(winner)


def test_a_key_is_the_same_for_all_that_begin_at_once(path: Path, spawned: list[Process]) -> None:
    script = """
    place = RuntimeDir()
    say("ready")
    sys.stdin.readline()
    say(*(place.shared_key(str(number)).hex() for number in range(50)))
    """
    spawned.extend(Process(script, path) for _ in range(6))
    assert [process.read() for process in spawned] == ["ready"] * 6
    for process in spawned:
        process.go()
    answers = {process.read() for process in spawned}
    assert len(answers) == 1
    assert len(set(answers.pop().split())) == 50
    assert len(os.listdir(path)) == 50


def test_sigkill_frees_the_name_at_once(path: Path, spawned: list[Process]) -> None:
    script = """
    import socket
    claim = RuntimeDir().claim("c", "a")
    claim.publish(record())
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(claim.socket_path("control"))
    say("ready")
    time.sleep(60)
    """
    process = Process(script, path)
    spawned.append(process)
    assert process.read() == "ready"
    place = RuntimeDir(path)
    with pytest.raises(NameInUse) as caught:
        place.claim("c", "a")
    assert caught.value.pid == process.process.pid
    assert [found.pid for found in place.agents()] == [process.process.pid]
    process.process.send_signal(signal.SIGSTOP)  # one that stands still has its name all the same
    with pytest.raises(NameInUse):
        place.claim("c", "a")
    assert len(place.agents()) == 1
    process.end()
    with place.claim("c", "a") as claim:
        assert not os.path.exists(claim.socket_path("control"))
    assert os.listdir(path) == []


def test_a_fork_does_not_keep_the_name(path: Path, spawned: list[Process]) -> None:
    script = """
    place = RuntimeDir()
    claim = place.claim("c", "a")
    claim.publish(record())
    if os.fork() == 0:
        say("child", claim.held, len([fd for fd in os.listdir("/proc/self/fd") if fd > "2"]))
        claim.release()      # not the child's to give
        time.sleep(60)
    say("parent", claim.held)
    time.sleep(60)
    """
    process = Process(script, path)
    spawned.append(process)
    lines = sorted([process.read(), process.read()])
    assert lines == ["child False 1", "parent True"]  # 1: the listing's own
    place = RuntimeDir(path)
    with pytest.raises(NameInUse):
        place.claim("c", "a")
    process.process.kill()
    process.process.wait(10)
    place.claim("c", "a").release()  # although the child lives on


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # of Python 3.12 and later: that is the point
def test_a_fork_amid_a_claim_does_not_keep_the_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread has the lock and has not noted it when the process forks: the child must know all the same."""
    place = RuntimeDir(path)
    locked = threading.Event()
    lock = rundir._lock

    def slow(file: Path, *, create: bool) -> int | None:
        descriptor = lock(file, create=create)
        locked.set()
        time.sleep(0.2)
        return descriptor

    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(rundir, "_lock", slow)
        claim = pool.submit(place.claim, "c", "a")
        locked.wait(10)
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        try:
            claim.result(10).abandon()  # as if the parent were killed
            until(lambda: _can_be_had(place))  # the child closes its copy as soon as it runs
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _can_be_had(place: RuntimeDir) -> bool:
    try:
        place.claim("c", "a").release()
    except NameInUse:
        return False
    return True


def test_looking_disturbs_nobody_who_claims(path: Path, spawned: list[Process]) -> None:
    """One process looks without pause, finds what is stale and removes it; the name is to be had all the time."""
    looking = Process(
        """
        place = RuntimeDir()
        say("ready")
        while True:
            place.agents()
        """,
        path,
    )
    spawned.append(looking)
    assert looking.read() == "ready"
    place = RuntimeDir(path)
    for number in range(300):
        claim = place.claim("c", "a")
        claim.publish(AgentRecord("a", "c", pid=os.getpid(), host="127.0.0.1", port=1))
        if number % 3 == 0:
            assert len(place.agents()) == 1
        end = claim.abandon if number % 2 else claim.release
        end()
    until(lambda: os.listdir(path) == [])


@pytest.mark.usefixtures("need_root")
def test_another_user_gets_nothing() -> None:
    place = RuntimeDir(f"/tmp/mycorrizal-test-{os.getpid()}")
    script = f"""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    for attempt in (lambda: RuntimeDir(), lambda: RuntimeDir({str(place.path)!r}, create=False)):
        try:
            attempt()
        except ConfigError as error:
            say(error)
    del os.environ["MYCORRIZAL_RUNTIME_DIR"]
    say(RuntimeDir().path)
    os.rmdir(RuntimeDir().path)
    """
    process = Process(script, place.path)
    try:
        place.shared_key("c")
        assert [process.read() for _ in range(3)] == [
            f"runtime_dir: {place.path} belongs to user 0 (set MYCORRIZAL_RUNTIME_DIR to a directory of your own)",
            f"runtime_dir: {place.path} belongs to user 0 (set MYCORRIZAL_RUNTIME_DIR to a directory of your own)",
            "/tmp/mycorrizal-65534",
        ]
        os.chown(place.path, 65534, 65534)  # what somebody else has put there is not used
        with pytest.raises(ConfigError, match="belongs to user 65534"):
            RuntimeDir(place.path)
    finally:
        process.end()
        os.chown(place.path, 0, 0)
        for name in os.listdir(place.path):
            os.unlink(place.path / name)
        os.rmdir(place.path)


# -- below what others have -------------------------------------------------------------------------


@pytest.mark.usefixtures("need_root")
@pytest.mark.parametrize("variable", ["MYCORRIZAL_RUNTIME_DIR", "XDG_RUNTIME_DIR", "TMPDIR"])
def test_place_below_a_directory_of_another_user_is_refused(
    theirs: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MYCORRIZAL_RUNTIME_DIR", "XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)
    own = theirs / "ours"
    own.mkdir(mode=0o700)
    monkeypatch.setenv(variable, str(own))
    with pytest.raises(ConfigError, match=f"others could replace .*: {theirs} belongs to user {NOBODY}"):
        RuntimeDir()
    os.chown(theirs, 0, 0)
    assert RuntimeDir().agents() == []


@pytest.mark.usefixtures("need_root")
def test_link_of_another_user_is_refused(theirs: Path, tmp_path: Path) -> None:
    link = theirs.parent / "link"
    link.symlink_to(tmp_path)
    RuntimeDir(link / "run")
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(ConfigError, match=f"{link} belongs to user {NOBODY}"):
        RuntimeDir(link / "run")


@pytest.mark.usefixtures("need_root")
def test_user_namespace_whose_root_directory_is_nobody_s(spawned: list[Process], theirs: Path) -> None:
    """All that belongs to the host's users shows as nobody's there, / and /tmp as well."""
    script = """
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    os.setgroups([])
    os.setgid(4242)
    os.setuid(4242)
    libc.prctl(4, 1, 0, 0, 0)       # dumpable: what is below /proc/self is ours again
    if libc.unshare(0x10000000):    # CLONE_NEWUSER
        say("lacks", os.strerror(ctypes.get_errno()))
    with open("/proc/self/uid_map", "w") as file:
        file.write("1000 4242 1")
    say("fine", os.geteuid(), os.stat("/").st_uid, os.stat("/tmp").st_uid)
    try:
        say(RuntimeDir().path)
    except ConfigError as error:
        say(error)
    """
    os.chown(theirs, 4242, 4242)
    process = Process(script, theirs / "run")
    spawned.append(process)
    state, _, rest = process.read().partition(" ")
    if state == "lacks":
        lacks(f"no permission to make a user namespace: {rest}")
    assert (state, rest) == ("fine", f"1000 {NOBODY} {NOBODY}")
    assert process.read() == f"{theirs}/run"
