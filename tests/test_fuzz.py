"""The fuzzer, for a moment: every decoder meets its invariant on some hundred inputs, and a planted fault is found."""

from __future__ import annotations

import collections
import random

import pytest

from fuzzing import run as fuzz_run
from fuzzing import targets as fuzz_targets
from mycorrizal import RemoteProtocolError


@pytest.mark.parametrize("target", list(fuzz_targets.TARGETS))
def test_target_meets_its_invariant(target: str) -> None:
    make, _ = fuzz_targets.TARGETS[target]
    rng = random.Random(f"suite/{target}")
    run = make(rng)
    outcomes: collections.Counter[str] = collections.Counter()
    for _ in range(300):
        data = fuzz_targets.mutate(rng, target)
        try:
            outcomes[run(data)] += 1
        except RemoteProtocolError as error:
            outcomes[type(error).__name__] += 1
    assert len(outcomes) > 1, "all inputs took the same way"


def test_same_block_is_the_same_twice() -> None:
    first, second = (fuzz_run.run_block(("cbor", 0, "suite"), inputs=200) for _ in range(2))
    assert first.outcomes == second.outcomes
    assert first.finding == ""


@pytest.mark.parametrize(
    ("fault", "block", "expected"),
    [
        (lambda data: str(data[10_000]), 0, "IndexError"),
        (lambda data: str(bytearray(50 << 20)[0]), 1, "allocated"),
        (lambda data: str(sum(range(3_000_000))), 0, "took"),
    ],
    ids=["exception", "allocation", "time"],
)
def test_planted_fault_is_found(
    fault: fuzz_targets.Target, block: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_run, "SLOW", 0.01)
    monkeypatch.setitem(fuzz_targets.TARGETS, "cbor", (lambda rng: fault, 2 << 20))
    result = fuzz_run.run_block(("cbor", block, "suite"), inputs=3)
    assert expected in result.finding
    assert "input 0 of the block" in result.finding
