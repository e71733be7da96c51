"""What is short becomes an error of ours, a counter, a warning and a problem, once."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading

import pytest

from mycorrizal import BindError, MycorrizalError, ResourcesExhausted
from mycorrizal._runtime.threads import clock, shortage
from mycorrizal._runtime.threads.counters import Counters, QuietLog


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No shortage yet, and a clock that stands."""
    now = [1000.0]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    monkeypatch.setattr(shortage, "_last", {})
    monkeypatch.setattr(shortage, "_counters", Counters(*shortage.metrics()))
    monkeypatch.setattr(shortage, "_quiet", QuietLog(shortage.log, "this process"))
    return now


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "resource", "helps"),
    [
        (system(errno.EMFILE), "descriptors", "ulimit -n"),
        (system(errno.ENFILE), "descriptors", "ulimit -n"),
        (system(errno.ENOMEM), "memory", "ulimit -v"),
        (system(errno.ENOBUFS), "memory", "MemoryMax"),
        (MemoryError(), "memory", "ulimit -v"),
        (system(errno.ENOSPC), "disk", "free room"),
        (system(errno.EDQUOT), "disk", "quota"),
        (RuntimeError("can't start new thread"), "threads", "ulimit -u"),
    ],
)
def test_it_says_what_helps(
    error: BaseException, resource: str, helps: str, fresh: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    made = shortage.exhausted(error, "cannot write", node="alice", operation="join")
    assert isinstance(made, (OSError)) and isinstance(made, RuntimeError) and made.retriable
    assert (made.resource, made.node, made.operation) == (resource, "alice", "join")
    assert made.errno == getattr(error, "errno", None)
    assert str(made).startswith("cannot write: ") and helps in str(made)
    assert shortage.metrics()[f"starved.{resource}"] == 1
    assert helps in caplog.text
    [problem] = shortage.problems()
    assert helps in problem and "0 s ago" in problem
    assert shortage.exhausted(made, "again") is made  # and is counted once
    assert shortage.note(made) == resource
    assert sum(shortage.metrics().values()) == 1
    fresh[0] += shortage.RECENT_SECONDS
    assert shortage.problems() == []


@pytest.mark.parametrize(
    "error", [system(errno.EADDRINUSE), system(errno.EACCES), OSError("no number"), RuntimeError("else"), ValueError()]
)
def test_what_is_no_shortage_is_left_alone(error: Exception) -> None:
    assert shortage.exhausted(error, "cannot write") is None
    with pytest.raises(type(error)) as raised, shortage.as_ours("cannot write"):
        raise error
    assert raised.value is error
    assert not any(shortage.metrics().values()) and not shortage.problems()


def test_a_full_disk_below_sqlite() -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (x)")
    database.execute("PRAGMA max_page_count=2")
    with pytest.raises(ResourcesExhausted, match="free room"), shortage.as_ours("cannot keep it"):
        database.execute("INSERT INTO t VALUES (zeroblob(10000000))")
    database.close()


def test_a_block_turns_what_is_raised_in_it_and_keeps_its_cause() -> None:
    with pytest.raises(ResourcesExhausted) as raised, shortage.as_ours("no socket", node="bob"):
        raise system(errno.EMFILE)
    assert isinstance(raised.value.__cause__, OSError) and raised.value.node == "bob"
    known = BindError("taken")
    with pytest.raises(MycorrizalError) as other, shortage.as_ours("no socket"):
        raise known
    assert other.value is known


@pytest.mark.parametrize(
    ("text", "helps"),
    [("can't start new thread", "ulimit -u"), ("can't create new thread at interpreter shutdown", "is ending")],
)
def test_a_thread_that_is_refused(text: str, helps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ResourcesExhausted, match=helps) as raised:
        shortage.start_thread(threading.Thread(name="mycorrizal-test"))
    assert raised.value.resource == "threads" and "mycorrizal-test" in str(raised.value)
    assert shortage.metrics()["starved.threads"] == 1
