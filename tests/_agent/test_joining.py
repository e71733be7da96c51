"""What an agent that could not join says of each seed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal import JoinError, OperationTimeout, RemoteProtocolError
from mycorrizal._agent import joining

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


@pytest.mark.parametrize(("itself", "tries"), [(True, 1), (False, 3)])
def test_who_is_a_seed_itself_does_not_wait_for_the_others(
    monkeypatch: pytest.MonkeyPatch, itself: bool, tries: int
) -> None:
    monkeypatch.setattr(joining, "pause", lambda seconds: None)
    ends, asked = Ends(3), []

    def join(entries: list[str], timeout: float) -> Any:
        ends.left -= 1
        asked.append(entries)
        return SimpleNamespace(failures={SEED: OperationTimeout("none")}, itself=itself)

    seeds = SimpleNamespace(failures={}, addresses=lambda timeout: [SEED, "10.0.0.1:7946"])
    members = SimpleNamespace(join=join, config=SimpleNamespace(tcp_timeout=1.0), num_members=lambda: 1)
    parts: Any = SimpleNamespace(
        seeds=seeds, members=members, name="alice", settings=SimpleNamespace(join_timeout=10.0)
    )
    if itself:
        joining._join_seeds(parts, ends)  # type: ignore[arg-type]
    else:
        with pytest.raises(JoinError, match="join_retry= goes on asking"):
            joining._join_seeds(parts, ends)  # type: ignore[arg-type]
    assert len(asked) == tries
