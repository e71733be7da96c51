"""The published experiments, reduced, with their bands; ``tools/simulate`` runs them in full."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from experiments import (
    Band,
    Report,
    convergence,
    first_detection,
    heal,
    infection,
    lifeguard,
    lossy,
    message_load,
    sleepers,
    speed,
    stall,
)
from experiments.s2_detection import LIMIT, round_robin
from experiments.s3_infection import logistic
from experiments.s7_convergence import serf_rounds
from tests.needs import lacks


def passed(report: Report) -> None:
    print(report)
    failed = [str(band) for band in report.bands if not band.passed]
    assert not failed
    assert report.bands


def test_s1_message_load() -> None:
    passed(message_load(1, sizes=(8, 28, 56), periods=40))


def test_s2_first_detection() -> None:
    passed(first_detection(1, sizes=(8, 16, 32), samples=150))


def test_s3_infection() -> None:
    passed(infection(1, sizes=(8, 32, 56), runs=10))


def test_s5_lifeguard() -> None:
    passed(lifeguard(1, members=16, concurrent=(3,), seconds=50.0))


def test_s7_convergence() -> None:
    passed(convergence(1, sizes=(30, 100), samples=1000, target=0.99))


def test_lossy() -> None:
    passed(lossy(1, losses=(0.3,), runs=2))


def test_heal() -> None:
    passed(heal(1, dead=(0, 200), orders=("before", "both"), runs=5))


def test_sleepers() -> None:
    report = sleepers(1, sizes=(3, 8), runs=20, halves=16, heals=3)
    passed(report)
    assert report.rows[0][2] == 2, "without the setting they tell of who is gone, as in memberlist"


def test_s9_stall() -> None:
    report = stall(1, sizes=(2, 3, 6), stalls=(6.0, 12.0, 20.0), work=12)
    passed(report)
    kills = [band for band in report.bands if "kill" in band.what]
    assert len(kills) == 2
    assert all(4 < band.measured < 8 for band in kills)
    dead = {row[:3]: row[4:7] for row in report.rows}
    assert dead[2, 0.0, 0.0][1:] == dead[3, 0.0, 0.0][1:] == dead[6, 0.0, 12.0][1:] == (100, 100), "memberlist's window"
    assert dead[2, 0.0, 12.0] == dead[3, 0.0, 12.0] == (0, 0, 100), "the floor is no longer than that"


def test_formulas_against_published_figures() -> None:
    # Serf's simulator: seconds to 99.99 % at 0.2 s a round.
    figures = {(30, 0.0): 1.8, (100, 0.0): 2.0, (1000, 0.0): 2.2, (10000, 0.0): 2.6, (30, 0.3): 2.6, (1000, 0.3): 3.2}
    for (size, loss), seconds in figures.items():
        assert -(-serf_rounds(size, loss) // 1) * 0.2 == pytest.approx(seconds, abs=0.21)
    assert round_robin(300) == pytest.approx(LIMIT, rel=0.01)
    assert logistic(50, 0.0) == pytest.approx(1.0)
    assert logistic(50, 20.0) == pytest.approx(50.0)


def test_speed_reports_a_ratio_from_the_clock_it_is_given() -> None:
    ticks = iter(range(100))
    report = speed(lambda: float(next(ticks)), members=20, wave=2)
    assert [row[0] for row in report.rows] == ["idle", "crashes and joins", "first push/pulls"]
    assert report.rows[0][3] == 10.0
    assert report.passed


def test_a_report_says_what_failed() -> None:
    report = Report("x", "title", "source", 7, ("a", "bb"), [(1, 2.34567)])
    report.bands += [Band("good", "1", 1.0, 0.5, 1.5), Band("bad", "1", 2.0, 0.5, 1.5)]
    assert not report.passed
    text = str(report)
    assert "2.346" in text
    assert "ok   good" in text
    assert "FAIL bad: 2, expected 1" in text


def test_a_plot_is_written(tmp_path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        lacks("matplotlib is not installed; pip install -e '.[dev]'")
    from experiments.plot import draw

    report = message_load(1, sizes=(4, 8), periods=3)
    draw(report, tmp_path / "s1.png")
    assert (tmp_path / "s1.png").read_bytes().startswith(b"\x89PNG")
    report.plot = None
    draw(report, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
