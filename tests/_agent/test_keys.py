"""The rings of both planes: what is added to one is added to the other, or to none."""

from __future__ import annotations

import errno
import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import ConfigError, NotRunningError, ResourcesExhausted
from mycorrizal._agent.keys import Keys, Rings, derivation
from mycorrizal._agent.keytable import KeyTable
from mycorrizal._endings import TABLE, Ending, error, for_call
from mycorrizal._runtime.host.rundir import RuntimeDir
from mycorrizal._wire.security import Keyring
from mycorrizal.dataplane import Results
from tests.keys import WEAK, key_of


def rings(wire: str) -> tuple[Rings, Keyring, Keyring]:
    """Return the rings of an agent with this wire."""
    derive = derivation(wire, "c")
    data = Keyring(primary=key_of("a"), allow_weak=wire == "msgpack")
    gossip = Keyring(primary=derive(key_of("a")), allow_weak=wire == "msgpack")
    return Rings(data, gossip, derive, None), data, gossip


@pytest.mark.parametrize(("key", "why"), WEAK.values(), ids=WEAK)
def test_weak_key_is_refused_or_beside_go_peers_warned_about(
    key: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    ours, data, gossip = rings("cbor")
    with pytest.raises(ConfigError, match=why):
        ours.change("add", key)
    assert (len(data.keys()), len(gossip.keys())) == (1, 1)
    assert caplog.records == []
    mixed, data, gossip = rings("msgpack")
    mixed.change("add", key_of("b"))
    assert caplog.records == []
    mixed.change("add", key)
    assert why in caplog.text and repr(key)[2:-1] not in caplog.text
    mixed.change("use", key)
    mixed.change("remove", key_of("a"))
    assert data.keys() == gossip.keys() == (key, key_of("b"))
    mixed.change("use", key_of("b"))
    mixed.change("remove", key)
    assert len(caplog.records) == 1


def kept_rings(keep: Any, name: str = "n") -> tuple[Rings, Keyring, Keyring]:
    """Return rings whose key in use is given to `keep`, with a second key."""
    derive = derivation("cbor", "c")
    data, gossip = Keyring(primary=key_of("a")), Keyring(primary=derive(key_of("a")))
    ours = Rings(data, gossip, derive, keep, name=name)
    ours.change("add", key_of("b"))
    return ours, data, gossip


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_key_that_cannot_be_kept_changes_nothing_and_leaves_no_draft(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "run"
    rundir = RuntimeDir(place)
    key = rundir.shared_key("c")
    ours, data, gossip = kept_rings(partial(rundir.keep_key, "c"))
    before, files = (data.keys(), gossip.keys(), ours.table), sorted(place.iterdir())

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(ResourcesExhausted, match="No space left"):
                ours.change("use", key_of("b"))
        assert (data.keys(), gossip.keys(), ours.table) == before
        assert sorted(place.iterdir()) == files and rundir.shared_key("c") == key
    ours.change("use", key_of("b"))
    assert rundir.shared_key("c") == data.keys()[0] == key_of("b")
    assert sorted(place.iterdir()) == files


@pytest.mark.parametrize("error", [ConfigError("runtime_dir", "full"), ResourcesExhausted("full")])
def test_the_failure_of_this_agent_is_in_the_results_and_the_others_are_asked(error: Exception) -> None:
    def full(_: bytes) -> None:
        raise error

    ours, data, _ = kept_rings(full, "alice")
    other, _, _ = kept_rings(None, "bob")
    other.take(ours.table)

    def ask(value: list[Any], timeout: float | None) -> Results:
        results = Results()
        other.take(KeyTable.unpack(value))
        results.update({"bob": other.table.pack(), "alice": True})
        return results

    results = Keys(ours, ask, lambda operation: None, "alice").use(key_of("b"))
    assert dict(results) == {"bob": True} and "full" in str(results.errors["alice"])
    assert other.keys()[0] == key_of("b") and data.keys()[0] == key_of("a")


def test_an_agent_that_is_closed_changes_nothing() -> None:
    ours, data, _ = kept_rings(None)

    def closed(operation: str) -> None:
        raise NotRunningError("closed")

    with pytest.raises(NotRunningError) as caught:
        Keys(ours, lambda *_: Results(), closed, "n").use(key_of("b"))
    assert caught.value.operation == "keys.use"
    assert data.keys()[0] == key_of("a")


def test_a_change_that_a_later_one_came_before_is_an_error() -> None:
    ours, _, _ = kept_rings(None, "alice")
    later = ours.table.changed("use", key_of("a"), (1 << 60, "bob"))

    def ask(value: list[Any], timeout: float | None) -> Results:
        results = Results()
        results.update({"bob": KeyTable.unpack(value).merged(later).pack(), "alice": True})
        return results

    keys = Keys(ours, ask, lambda operation: None, "alice")
    results = keys.use(key_of("b"))
    assert set(results.errors) == {"alice", "bob"} and not results
    assert "a later change" in str(results.errors["bob"]) and ours.keys()[0] == key_of("a")
    assert not keys.use(key_of("a")).errors, "and the next one comes after it"


@pytest.mark.parametrize("ending", Ending)
def test_the_errors_of_the_others_are_the_changes_own(ending: Ending) -> None:
    ours, _, _ = kept_rings(None, "alice")
    lost = for_call(error(ending, "text"), True, node="bob", operation="request_all")

    def ask(value: list[Any], timeout: float | None) -> Results:
        results = Results()
        results.errors["bob"] = lost
        return results

    keys = Keys(ours, ask, lambda operation: None, "alice")
    for change in (keys.add, keys.use, keys.remove):
        mine = change(key_of("a" if change == keys.remove else "b")).errors["bob"]
        assert (type(mine), mine.ending) == (TABLE[ending].kind, ending.name)
        assert (mine.node, mine.operation) == ("bob", f"keys.{change.__name__}")
        assert (mine.indeterminate, mine.retriable) == (True, TABLE[ending].retriable)
    assert lost.operation == "request_all"


def test_rings_never_part_when_threads_change_them_at_once() -> None:
    derive = derivation("cbor", "c")
    agents = [kept_rings(lambda key: os.sched_yield(), name) for name in ("x", "y", "z")]
    names = [key_of("a"), key_of("b")]
    for ours, _, _ in agents:
        for other, _, _ in agents:
            ours.take(other.table)

    def rotate(number: int) -> None:
        for turn in range(8):
            table = agents[number][0].change("use", names[(turn + number) % 2])
            for ours, _, _ in agents:
                ours.take(table)

    threads = [threading.Thread(target=rotate, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    ends = {ours.keys() for ours, _, _ in agents}
    assert len(ends) == 1
    for ours, data, gossip in agents:
        assert gossip.keys() == tuple(map(derive, data.keys())) == tuple(map(derive, ours.keys()))


def test_a_ctrl_c_in_a_change_leaves_it_whole() -> None:
    began, go = threading.Event(), threading.Event()

    def slow(_: bytes) -> None:
        began.set()
        assert go.wait(20)

    ours, data, gossip = kept_rings(slow)
    main = threading.get_ident()

    def send() -> None:
        assert began.wait(20)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=send).start()
    with pytest.raises(KeyboardInterrupt):
        ours.change("use", key_of("b"))
    go.set()
    ours.take(ours.table.merged(ours.plan("use", key_of("b"))))  # behind the one that was left alone
    assert data.keys()[0] == key_of("b") and gossip.keys()[0] == derivation("cbor", "c")(key_of("b"))


def test_one_ring_that_refuses_keeps_the_other_from_changing() -> None:
    derive = derivation("cbor", "c")
    data, gossip = Keyring(primary=key_of("a")), Keyring(primary=derive(key_of("a")))
    ours = Rings(data, gossip, lambda key: bytes(32) if key == key_of("b") else derive(key), None)
    with pytest.raises(ConfigError):
        ours.change("add", key_of("b"))
    with pytest.raises(ConfigError):
        ours.take(ours.table.changed("add", key_of("b"), (5, "x")))
    assert len(data.keys()) == len(gossip.keys()) == len(ours.table.keys()) == 1


def test_the_key_in_use_is_kept_for_agents_that_start_later_and_no_other() -> None:
    kept: list[bytes] = []
    ours, data, gossip = rings("cbor")
    ours._keep = kept.append
    ours.change("add", key_of("b"))
    assert kept == []
    ours.change("use", key_of("b"))
    assert kept == [key_of("b")] == [data.primary]
    assert gossip.primary == derivation("cbor", "c")(key_of("b"))
    ours.change("remove", key_of("a"))
    assert kept == [key_of("b")]


def test_what_is_told_late_undoes_nothing_and_a_change_comes_after_all_that_is_known() -> None:
    ours, data, gossip = kept_rings(None)
    early = ours.table
    ours.change("add", key_of("c"))
    ours.change("use", key_of("c"))
    now = ours.table
    ours.take(early)
    assert ours.table == now and data.keys()[0] == key_of("c") and len(data.keys()) == len(gossip.keys()) == 3
    ours.take(now.changed("use", key_of("a"), (1 << 50, "z")))  # of an agent whose clock is ahead
    ours.change("use", key_of("b"))
    assert data.keys()[0] == key_of("b") == ours.table.keys()[0]


def test_rings_are_changed_on_a_thread_that_no_signal_ends() -> None:
    names: list[str] = []
    ours, _, _ = kept_rings(lambda key: names.append(threading.current_thread().name))
    ours.change("use", key_of("b"))
    assert names == ["mycorrizal-keys"]
