"""Campaigns against the cache: several seeds of each kind, and faults planted in the machine that must be found."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mycorrizal.simulation.cache_campaign import KINDS, run_cache_campaign


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_campaign(kind: str, seed: int) -> None:
    report = run_cache_campaign(seed, kind=kind, duration=6.0)
    print(report)  # shown when it fails, and with -s
    assert report.operations > 100 and not report.undecided
    assert report.synced_after


def test_the_same_seed_is_the_same_campaign() -> None:
    one, other = (run_cache_campaign("again", duration=3.0) for _ in range(2))
    assert one == other


def test_no_hash_order_matters() -> None:
    program = "from mycorrizal.simulation.cache_campaign import *; print(run_cache_campaign(5, duration=3.0).digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True, timeout=120,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1
