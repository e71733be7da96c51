"""Whom an agent dials, and what one that could not join says of each seed."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal import JoinError, OperationTimeout, PeerRefused, RemoteProtocolError
from mycorrizal._agent import joining
from mycorrizal._runtime.host.agentrecord import AgentRecord
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal.types import JoinResult

SEED = "10.0.0.2:7946"


class Ends:
    """A deadline with `tries` tries left."""

    def __init__(self, tries: int) -> None:
        self.left = tries

    def remaining(self) -> float:
        return 10.0 * self.left

    def capped(self, seconds: float) -> float:
        return seconds


@pytest.mark.parametrize("by_finder", [False, True])
def test_the_reason_is_that_of_a_try_that_had_its_time(monkeypatch: pytest.MonkeyPatch, by_finder: bool) -> None:
    mirror, late = RemoteProtocolError("what was sent came back"), OperationTimeout("has not answered in time")
    monkeypatch.setattr(joining, "pause", lambda seconds: None)
    ends = Ends(3)
    seeds = SimpleNamespace(failures={})

    def addresses(timeout: float) -> list[str]:
        ends.left -= 1
        seeds.failures = {SEED: late} if by_finder and not ends.left else {}
        return [] if seeds.failures else [SEED]

    def join(entries: list[str], timeout: float) -> Any:
        if not entries:
            return SimpleNamespace(failures={}, itself=False)
        raise JoinError("none", failures={SEED: mirror if ends.left else late})

    seeds.addresses = addresses
    members = SimpleNamespace(join=join, config=SimpleNamespace(tcp_timeout=1.0), num_members=lambda: 1)
    parts: Any = SimpleNamespace(
        seeds=seeds, members=members, name="alice", settings=SimpleNamespace(join_timeout=10.0)
    )
    with pytest.raises(JoinError, match="came back") as caught:
        joining._join_seeds(parts, ends)  # type: ignore[arg-type]
    assert caught.value.failures == {SEED: mirror}


@pytest.mark.parametrize(("itself", "members", "tries"), [(True, 1, 1), (False, 2, 1), (False, 1, 3)])
def test_who_is_a_seed_itself_or_has_joined_one_does_not_wait_for_the_others(
    monkeypatch: pytest.MonkeyPatch, itself: bool, members: int, tries: int
) -> None:
    monkeypatch.setattr(joining, "pause", lambda seconds: None)
    ends, asked = Ends(3), []

    def join(entries: list[str], timeout: float) -> Any:
        ends.left -= 1
        asked.append(entries)
        return SimpleNamespace(failures={SEED: OperationTimeout("none")}, itself=itself)

    seeds = SimpleNamespace(failures={}, addresses=lambda timeout: [SEED, "10.0.0.1:7946"])
    seen = SimpleNamespace(join=join, config=SimpleNamespace(tcp_timeout=1.0), num_members=lambda: members)
    parts: Any = SimpleNamespace(
        seeds=seeds, members=seen, name="alice", settings=SimpleNamespace(join_timeout=10.0)
    )
    if tries == 1:
        joining._join_seeds(parts, ends)  # type: ignore[arg-type]
    else:
        with pytest.raises(JoinError, match="join_retry= goes on asking"):
            joining._join_seeds(parts, ends)  # type: ignore[arg-type]
    assert len(asked) == tries


# -- neighbours on this host ---------------------------------------------------------------------


class Host:
    """Agents of one host: groups of those that know each other, of which some do not answer."""

    def __init__(self, *groups: list[str], failing: dict[str, Exception] | None = None) -> None:
        self.groups = groups
        self.failing = failing or {}
        self.dials: list[list[str]] = []
        self.patience: list[float] = []
        self.known = ["newcomer"]
        names = [name for group in groups for name in group]
        records = [
            AgentRecord(name, "c", 1, "127.0.0.1", 1000 + n, boot=f"{n * 7919 % 256:016x}", started=float(n))
            for n, name in enumerate(names)
        ]
        self.parts: Any = SimpleNamespace(
            name="newcomer", settings=SimpleNamespace(cluster="c"), members=self,
            identity=SimpleNamespace(boot=bytes(range(8))), rundir=SimpleNamespace(agents=lambda cluster: records),
        )  # fmt: skip

    def join(self, entries: list[str], timeout: float) -> JoinResult:
        names = [entry.partition("/")[0] for entry in entries]
        self.dials.append(names)
        self.patience.append(timeout)
        reached = [name for name in names if name not in self.failing]
        for group in self.groups:
            if set(group) & set(reached):
                self.known += [name for name in group if name not in self.known]
        failures = {e: self.failing[n] for e, n in zip(entries, names, strict=True) if n in self.failing}
        if not reached:
            raise JoinError("none", failures=failures)
        return JoinResult(len(reached), failures)

    def members(self) -> list[Any]:
        return [SimpleNamespace(name=name) for name in self.known]

    def num_members(self) -> int:
        return len(self.known)

    def come(self) -> list[list[str]]:
        joining._join_neighbours(self.parts, Deadline(10))
        return self.dials


LATE = OperationTimeout("no answer")
MANY = [f"a{n}" for n in range(60)]


def test_a_newcomer_dials_one_of_many_who_know_each_other() -> None:
    assert Host().come() == []
    assert Host(["a0"]).come() == [["a0"]]
    assert Host(MANY).come() == [["a0"]], "the oldest: all who begin at once meet there"


def test_in_a_burst_where_nobody_knows_anybody_it_dials_four() -> None:
    burst = Host(*([name] for name in MANY))
    first, more = burst.come()
    assert first == ["a0"] and len(more) == 3
    other = Host(*([name] for name in MANY))
    other.parts.identity.boot = bytes([255] * 8)
    assert set(other.come()[1]) != set(more), "each newcomer others"
    assert Host(["a0", *MANY[2:]], ["a1"]).come() == [["a0"], ["a1"]], "nor does it leave out who is not known yet"


def test_further_ones_are_dialled_only_if_those_fail(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    frozen = Host(MANY, failing={"a0": LATE})
    assert [len(dialled) for dialled in frozen.come()] == [1, 3]
    assert [r.levelname for r in caplog.records] == ["INFO"], "all is well"
    alone = Host(["a0"], MANY[1:], failing=dict.fromkeys(MANY[:59], LATE))
    dials = alone.come()
    assert [name for dialled in dials for name in dialled].count("a59") == 1 and len(alone.known) > 1
    caplog.clear()
    slow = Host(MANY[:2], failing=dict.fromkeys(MANY, LATE))
    slow.come()
    assert slow.patience == [0.5, pytest.approx(3.0, abs=0.5)], "the last is given all the time that is left"
    caplog.clear()
    nobody = Host(MANY[:9], failing=dict.fromkeys(MANY, LATE))
    assert sorted(name for dialled in nobody.come() for name in dialled) == MANY[:9]
    assert [r.levelname for r in caplog.records] == ["WARNING"] * 9
    caplog.clear()
    Host(["a0", "a2"], ["a1"], failing={"a1": PeerRefused("no key of ours")}).come()
    assert [r.levelname for r in caplog.records] == ["WARNING"], "that will not pass"


@pytest.mark.parametrize(("retry", "starts"), [(None, None), (5.0, 5.0), (math.inf, None)])
def test_without_join_retry_a_join_that_fails_is_an_error(
    monkeypatch: pytest.MonkeyPatch, retry: float | None, starts: float | None
) -> None:
    """With it the agent begins alone, and goes on asking for so long."""
    begun: list[float | None] = []

    def none(parts: Any, deadline: Any) -> None:
        raise JoinError("nobody", failures={})

    monkeypatch.setattr(joining, "_join_seeds", none)
    monkeypatch.setattr(joining, "Seeking", lambda *_: SimpleNamespace(alone=True, start=begun.append))
    members = SimpleNamespace(_running=None, join=None)
    seeds = SimpleNamespace(addresses=None)
    parts: Any = SimpleNamespace(
        name="alice", settings=SimpleNamespace(join_retry=retry), members=members, seeds=seeds, seeking=None
    )
    if retry is None:
        with pytest.raises(JoinError):
            joining._seek(parts, Deadline(1.0))
        assert parts.seeking is None
    else:
        joining._seek(parts, Deadline(1.0))
        assert begun == [starts]


@pytest.mark.parametrize(
    ("answers", "asked"), [([True], ["a"]), ([False, True], ["a", "b"]), ([False] * 9, list("abcdefghi"))]
)
def test_one_state_is_enough(answers: list[bool], asked: list[str]) -> None:
    tried: list[str] = []

    def sync(name: str, deadline: Deadline) -> None:
        tried.append(name)
        if not answers[len(tried) - 1]:
            raise OperationTimeout("no state")

    parts: Any = SimpleNamespace(
        name="alice", others=lambda: list("abcdefghi"), sharing=SimpleNamespace(sync=sync)
    )
    joining._sync(parts, Deadline(1.0))
    assert tried == asked[: joining._SYNC_TRIES]
