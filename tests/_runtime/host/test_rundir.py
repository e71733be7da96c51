"""The directory where one user's agents meet: what it refuses, who has a name, what is left out."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import ConfigError, NameInUse, NotRunningError, ResourcesExhausted
from mycorrizal._runtime.host import rundir
from mycorrizal._runtime.host.agentrecord import RECORD_MAX_BYTES, AgentRecord
from mycorrizal._runtime.host.rundir import AGENTS_MAX, RuntimeDir, default_path


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Make directories as most users do: not for the group to write."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def place(tmp_path: Path) -> RuntimeDir:
    return RuntimeDir(tmp_path / "run")


def record(name: str = "a", cluster: str = "c", **more: Any) -> AgentRecord:
    fields = {"pid": os.getpid(), "host": "127.0.0.1", "port": 7946, "started": 1.5, "boot": "0f", **more}
    return AgentRecord(name, cluster, **fields)


def files(place: RuntimeDir) -> list[str]:
    return sorted(os.listdir(place.path))


# -- where it is, and whose ---------------------------------------------------------------------


def test_it_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYCORRIZAL_RUNTIME_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_path() == tmp_path / "mine"
    monkeypatch.setenv("MYCORRIZAL_RUNTIME_DIR", "")
    assert default_path() == tmp_path / "mycorrizal"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert default_path() == tmp_path / f"mycorrizal-{os.geteuid()}"


@pytest.mark.parametrize("session", ["relative", "/nowhere/at/all", "/proc/1/root"])
def test_a_session_directory_of_somebody_else_is_left_alone(
    session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MYCORRIZAL_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", session)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert default_path() == tmp_path / "mycorrizal-12345"


def test_where_there_is_no_temporary_directory_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    for name in ("MYCORRIZAL_RUNTIME_DIR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(ConfigError, match="no temporary directory.*set MYCORRIZAL_RUNTIME_DIR"):
        default_path()


def test_it_is_made_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        place = RuntimeDir(tmp_path / "run")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(place.path).st_mode) == 0o700
    assert RuntimeDir(tmp_path / "run").agents() == []


def test_what_is_missing_has_no_agents_and_is_not_made(tmp_path: Path) -> None:
    place = RuntimeDir(tmp_path / "run", create=False)
    assert place.agents() == []
    assert not place.path.exists()


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_one_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "run"
    path.mkdir()
    path.chmod(mode)
    for create in (True, False):
        with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 700") as caught:
            RuntimeDir(path, create=create)
        assert caught.value.field == "runtime_dir"


def test_links_and_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "file").write_bytes(b"")
    for name, why in (("link", "symbolic link"), ("dangling", "symbolic link"), ("file", "no directory")):
        with pytest.raises(ConfigError, match=why):
            RuntimeDir(tmp_path / name)
    with pytest.raises(ConfigError, match="cannot use.*No such file"):
        RuntimeDir(tmp_path / "a" / "b")


def test_one_of_another_user_is_refused(place: RuntimeDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="belongs to user"):
        RuntimeDir(place.path)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("mode", "who"), [(0o777, "anybody"), (0o775, "its group")])
def test_a_parent_where_anybody_may_rename_is_refused(tmp_path: Path, depth: int, mode: int, who: str) -> None:
    """Nor one further up, nor one where a group may."""
    parent = tmp_path / "open"
    path = parent.joinpath(*"xyz"[: depth - 1], "run")
    path.parent.mkdir(parents=True)
    before = RuntimeDir(path)  # there is one already: it is refused all the same
    parent.chmod(mode)
    text = f"others could replace {path}: {who} may write {parent} .mode {mode:04o}.*MYCORRIZAL_RUNTIME_DIR"
    for create in (True, False):
        with pytest.raises(ConfigError, match=text):
            RuntimeDir(path, create=create)
    before.path.rmdir()
    with pytest.raises(ConfigError, match=text):
        RuntimeDir(path)
    assert not path.exists()  # nor is anything made there
    parent.chmod(mode | 0o1000)
    RuntimeDir(path)


def test_link_on_the_way_is_followed_and_judged(tmp_path: Path) -> None:
    (tmp_path / "open" / "mine").mkdir(parents=True)
    (tmp_path / "link").symlink_to("open/mine")
    RuntimeDir(tmp_path / "link" / "run")
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match=f"anybody may write {tmp_path}/open"):
        RuntimeDir(tmp_path / "link" / "run")


@pytest.mark.parametrize("variable", ["MYCORRIZAL_RUNTIME_DIR", "XDG_RUNTIME_DIR", "TMPDIR"])
def test_every_way_to_name_it_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("MYCORRIZAL_RUNTIME_DIR", "XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "open" / "mine").mkdir(parents=True)
    (tmp_path / "open" / "mine").chmod(0o700)
    monkeypatch.setenv(variable, str(tmp_path / "open" / "mine"))
    assert str(RuntimeDir().path).startswith(str(tmp_path))
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match=f"runtime_dir: .*anybody may write {tmp_path}/open"):
        RuntimeDir()


# -- the shared key ------------------------------------------------------------------------------


def test_the_key_is_made_once_for_each_cluster(place: RuntimeDir) -> None:
    key = place.shared_key("c")
    assert len(key) == 32
    assert RuntimeDir(place.path).shared_key("c") == key
    assert place.shared_key("other") != key
    assert [stat.S_IMODE(path.stat().st_mode) for path in place.path.iterdir()] == [0o600, 0o600]


def test_who_comes_second_takes_the_key_of_the_first(place: RuntimeDir, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link
    others: list[bytes] = []

    def late(source: object, target: object) -> None:
        monkeypatch.setattr(os, "link", link)
        others.append(RuntimeDir(place.path).shared_key("c"))  # another process, between our look and our link
        os.link(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", late)
    assert place.shared_key("c") == others[0]
    assert len(files(place)) == 1


def test_another_key_is_kept_whole_and_private(place: RuntimeDir) -> None:
    before, new = place.shared_key("c"), bytes(range(32))
    assert before != new
    for key in (new, new, before):
        place.keep_key("c", key)
        assert place.shared_key("c") == key
    assert [stat.S_IMODE(path.stat().st_mode) for path in place.path.iterdir()] == [0o600]
    with pytest.raises(ConfigError, match="32 bytes, not 16"):
        place.keep_key("c", bytes(16))
    with pytest.raises(ConfigError, match="keep the key"):
        RuntimeDir(place.path / "gone", create=False).keep_key("c", new)
    assert place.shared_key("c") == before


@pytest.mark.parametrize("damage", ["short", "long", "open"])
def test_a_key_that_is_none_is_an_error_without_the_key(place: RuntimeDir, damage: str) -> None:
    place.shared_key("c")
    [path] = place.path.iterdir()
    if damage == "open":
        path.chmod(0o640)
    else:
        path.write_bytes(b"x" * (31 if damage == "short" else 33))
    with pytest.raises(ConfigError, match="not a private file of 32 bytes.*remove") as caught:
        place.shared_key("c")
    assert "xxx" not in str(caught.value)


def test_a_key_that_is_a_link_is_an_error(place: RuntimeDir) -> None:
    place.shared_key("c")
    [path] = place.path.iterdir()
    path.rename(place.path / "elsewhere")
    path.symlink_to("elsewhere")
    with pytest.raises(ConfigError, match="cannot use the key"):
        place.shared_key("c")


# -- names ----------------------------------------------------------------------------------------


def test_a_name_is_had_once_for_each_cluster(place: RuntimeDir) -> None:
    claim = place.claim("c", "a")
    with pytest.raises(NameInUse, match="this process runs the agent 'a' of cluster 'c'") as caught:
        place.claim("c", "a")
    assert (caught.value.node, caught.value.pid) == ("a", os.getpid())
    others = [place.claim("c", "b"), place.claim("d", "a")]
    claim.release()
    claim.release()
    again = place.claim("c", "a")
    assert (claim.held, again.held) == (False, True)
    for other in (again, *others):
        other.release()
    assert files(place) == []


def test_names_and_clusters_do_not_run_into_each_other(place: RuntimeDir) -> None:
    for cluster, name in (("a/b", "c"), ("a", "b/c"), ("é", "名前" * 40), ("x" * 255, "y" * 255)):
        place.claim(cluster, name).abandon()
    assert len([name for name in files(place) if name.endswith(".lock")]) == 4
    assert max(len(name) for name in files(place)) < 40
    for cluster in ("", "x" * 256, "\ud800"):
        with pytest.raises(ConfigError, match="cluster"):
            place.claim(cluster, "a")


def test_another_process_is_named(place: RuntimeDir) -> None:
    claim = place.claim("c", "a")
    [lock] = place.path.iterdir()
    lock.write_bytes(b"1\n")  # the first process: alive, and not ours
    with pytest.raises(NameInUse, match=r"process 1 runs the agent 'a'.*stop that agent, or give"):
        place.claim("c", "a")
    claim.release()


def test_whoever_does_not_say_who_it_is_gets_a_moment(place: RuntimeDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "_PATIENCE_WITH_THE_DEAD", 0.15)
    claim = place.claim("c", "a")
    [lock] = place.path.iterdir()
    for text in (b"", b"x", b"-1", b"9" * 30, b"999999999"):  # the last: a process that is gone
        lock.write_bytes(text)
        with pytest.raises(NameInUse) as caught:
            place.claim("c", "a")
        assert caught.value.pid != os.getpid()
    claim.release()


def test_what_a_dead_agent_left_is_taken_over(place: RuntimeDir) -> None:
    claim = place.claim("c", "a")
    claim.publish(record())
    Path(claim.socket_path("control")).write_bytes(b"")
    left = files(place)
    claim.abandon()  # as the kernel does when the process is killed
    assert files(place) == left
    again = place.claim("c", "a")
    assert [name for name in files(place) if not name.endswith(".lock")] == []
    again.release()
    assert files(place) == []


def test_a_lock_of_a_file_that_was_unlinked_means_nothing(place: RuntimeDir, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock
    stolen: list[Path] = []

    def flock(descriptor: int, how: int) -> None:
        if not stolen:
            stolen.append(place.path / next(iter(files(place))))
            stolen[0].unlink()  # another process found it stale, between our open and our lock
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    claim = place.claim("c", "a")
    assert stolen[0].exists()
    with pytest.raises(NameInUse):
        place.claim("c", "a")
    claim.release()


def test_a_claim_keeps_the_directory_from_being_cleaned(place: RuntimeDir) -> None:
    claim = place.claim("c", "a")
    directory = os.open(place.path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    claim.release()
    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    place.claim("c", "a").release()  # and one who cleans keeps nobody from starting
    os.close(directory)


def test_a_directory_that_is_gone_is_said(place: RuntimeDir) -> None:
    place.path.rmdir()
    with pytest.raises(ConfigError, match="cannot claim a name in .*No such file"):
        place.claim("c", "a")
    assert place.agents() == []


def test_no_descriptor_is_left(place: RuntimeDir, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/dev/fd"))
    with place.claim("c", "a") as claim:
        with pytest.raises(NameInUse):
            place.claim("c", "a")
        claim.publish(record())
        assert [found.name for found in place.agents()] == ["a"]
    place.claim("c", "b").abandon()
    assert place.agents() == []
    monkeypatch.setattr(os, "ftruncate", lambda *args: os.close(-1))
    with pytest.raises(ConfigError, match="cannot claim"):
        place.claim("c", "a")
    assert len(os.listdir("/dev/fd")) == before
    assert files(place) == []


# -- records -----------------------------------------------------------------------------------------


def test_live_agents_are_found_with_all_that_they_tell(place: RuntimeDir) -> None:
    first = record("a", started=2.0, quic_port=1, control="ipc:///x", events="ipc:///y", boot="00ff")
    second = record("b", started=1.0)
    third = record("é", "other", host="::1", started=3.0)
    claims = [place.claim(found.cluster, found.name) for found in (first, second, third)]
    assert place.agents() == []  # claimed, not yet published
    for claim, found in zip(claims, (first, second, third), strict=True):
        claim.publish(found)
    assert place.agents() == [second, first, third]
    assert place.agents("c") == [second, first]
    assert [found.entry for found in place.agents()] == ["b/127.0.0.1:7946", "a/127.0.0.1:7946", "é/[::1]:7946"]
    moved = record("a", port=1)
    claims[0].publish(moved)
    assert moved in place.agents("c")
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in place.path.iterdir())
    for claim in claims:
        claim.release()
    assert place.agents() == []
    assert place.counters["rundir.broken"] == 0


def test_what_the_dead_left_is_removed_by_whoever_looks(place: RuntimeDir) -> None:
    for name in "abc":
        claim = place.claim("c", name)
        claim.publish(record(name))
        Path(claim.socket_path("events")).write_bytes(b"")
        if name != "b":
            claim.abandon()
    assert [found.name for found in place.agents()] == ["b"]
    assert len(files(place)) == 3
    assert place.counters["rundir.stale"] == 2


BROKEN = {
    "empty": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"name": "\xff"}',
    "a list": b"[]",
    "deep": b"[" * RECORD_MAX_BYTES,
    "large": json.dumps({"name": "x" * RECORD_MAX_BYTES}).encode(),
    "fields missing": b'{"name": "a", "cluster": "c"}',
    "of another agent": record("b").pack(),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_record_is_left_out_and_counted(
    place: RuntimeDir, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = place.claim("c", "good"), place.claim("c", "a")
    good.publish(record("good"))
    bad.publish(record("a"))
    path = next(path for path in place.path.glob("*.agent") if b'"a"' in path.read_bytes())
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "mycorrizal.rundir"):
        assert [found.name for found in place.agents()] == ["good"]
        assert [found.name for found in place.agents()] == ["good"]
    assert place.counters["rundir.broken"] == 2
    assert len(caplog.records) == 1
    good.release()
    bad.release()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a/b"), ("name", 7), ("cluster", ""), ("cluster", None), ("pid", 0), ("pid", True), ("pid", "1"),
        ("host", ""), ("host", None), ("host", "x" * 2000), ("port", 0), ("port", 65536), ("quic_port", -1),
        ("control", 1), ("events", b""), ("boot", "XY"), ("boot", None), ("started", "now"),
        ("started", float("nan")), ("started", -1.0), ("started", True),
    ],
)  # fmt: skip
def test_a_record_holds_only_what_an_agent_can_be(field: str, value: object) -> None:
    good = json.loads(record().pack())
    assert AgentRecord.unpack(json.dumps({**good, "of a newer version": 1}).encode()) == record()
    with pytest.raises(ConfigError, match=field):
        AgentRecord(**{**good, field: value})
    with pytest.raises(ValueError, match=field):
        AgentRecord.unpack(json.dumps({**good, field: value if value != b"" else 0}).encode())


def test_a_record_that_would_not_be_read_is_not_written(place: RuntimeDir) -> None:
    with pytest.raises(ConfigError, match="takes .* bytes"):
        record("\U0001f600" * 60, "\x01" * 255, host="x" * 1000, control="y" * 1000, events="z" * 1000).pack()
    with place.claim("c", "a") as claim:
        with pytest.raises(ConfigError, match="is of 'b' in 'c', not of 'a'"):
            claim.publish(record("b"))
        place.path.rename(place.path.with_name("moved"))
        with pytest.raises(ConfigError, match="cannot write"):
            claim.publish(record())
        place.path.with_name("moved").rename(place.path)


def test_more_agents_than_are_looked_at(place: RuntimeDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "AGENTS_MAX", 3)
    assert AGENTS_MAX == 1024
    claims = [place.claim("c", name) for name in "abcde"] + [place.claim("d", "a")]
    for claim in claims:
        claim.publish(record(claim.name, claim.cluster))
    assert len(place.agents()) == 3
    assert place.counters["rundir.crowded"] == 1
    assert len(place.agents("d")) == 1
    assert place.counters["rundir.crowded"] == 1
    for claim in claims:
        claim.release()


# -- sockets --------------------------------------------------------------------------------------------


def test_socket_paths_fit_or_say_what_to_do(tmp_path: Path) -> None:
    with RuntimeDir(tmp_path / "s").claim("c" * 200, "n" * 200) as claim:
        path = claim.socket_path("control")
        assert os.path.dirname(path) == str(tmp_path / "s")
        assert len(path) - len(str(tmp_path / "s")) == 25
        assert claim.socket_path("events") != path
        with pytest.raises(ValueError, match="no kind of socket"):
            claim.socket_path("other")
    with pytest.raises(NotRunningError):
        claim.socket_path("control")
    with pytest.raises(NotRunningError):
        claim.publish(record("n" * 200, "c" * 200))
    deep = tmp_path / ("d" * (103 - len(str(tmp_path)) - 26 + 1))
    with RuntimeDir(deep).claim("c", "a") as claim:
        assert len(claim.socket_path("events")) == 103
        with pytest.raises(ConfigError, match="has 104 bytes.*MYCORRIZAL_RUNTIME_DIR"):
            claim.socket_path("control")


def test_what_cannot_be_read_or_written_leaves_no_descriptor_and_no_draft(
    place: RuntimeDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = place.claim("c", "a")
    stem = next(name for name in files(place) if name.endswith(".lock"))[:-5]
    (place.path / f"{stem}.agent").mkdir()  # opens, and then is no file
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert place.agents() == []
    assert set(os.listdir("/proc/self/fd")) == before
    (place.path / f"{stem}.agent").rmdir()
    claim.release()

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def cut(path: Path, *flags: Any) -> None:
        path.write_bytes(b"")  # there is room for the name and not for the content
        full()

    for module, name in ((os, "replace"), (os, "link"), (rundir, "opened")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, cut if module is rundir else full)
            with pytest.raises(ResourcesExhausted, match="free room"):
                place.keep_key("c", bytes(32)) if name == "replace" else place.shared_key("c")
        assert files(place) == []
