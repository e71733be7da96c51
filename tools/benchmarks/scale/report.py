"""Table and plots of ``tools/bench scale``, from what was found in each round."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.data.report import aligned

Found = dict[str, tuple[float, str]]
"""Row to figure and unit."""

Rounds = dict[str, dict[str, list[tuple[float, str]]]]
"""What was measured, row, one figure a round."""

_TARGETS = (
    ("burst of 60: processor of all until calm", 40.0, 20.0),
    ("one agent joins 30 with 1,000 settings: bytes in", 30.0, 15.0),
    ("50 caches on 9 agents at once: processor of all", 6.0, 3.0),
    ("1,000 settings on one of 30, until the last has all", 3.0, 1.5),
    ("Agent() in a burst of 30, median", 0.7, 0.4),
    ("simulation, 1,000 members with churn / real time", 1.5, 3.0),
)
_GOALS = {name: (floor, aim) for name, floor, aim in _TARGETS}
_RESTS = {
    "memory (PSS)": "memory (PSS), MB", "processor": "processor, % of a core", "packets sent": "packets a second",
    "dials": "dials a second",
}  # fmt: skip


def _figure(figures: list[tuple[float, str]]) -> str:
    value = statistics.median(number for number, _ in figures)
    return f"{value:,.4g} {figures[-1][1]}".strip()


def table(found: Rounds) -> list[str]:
    """Return the lines of the table: the issue's rows with floor and aim, then the others."""
    rows = list(dict.fromkeys(row for figures in found.values() for row in figures if not row.startswith("rest of ")))
    rows.sort(key=lambda row: row not in _GOALS)
    lines = []
    for row in rows:
        told = [_figure(figures[row]) if row in figures else "failed" for figures in found.values()]
        lines.append([row, *told, *(f"{goal:g}" for goal in _GOALS.get(row, ())), *([""] * (row not in _GOALS) * 2)])
    return aligned(["", *found, "floor", "aim"], lines)


def _sizes(figures: dict[str, list[tuple[float, str]]]) -> list[int]:
    return sorted({int(row.split()[2].rstrip(":")) for row in figures if row.startswith("rest of ")})


def _rests(figures: dict[str, list[tuple[float, str]]], what: str) -> list[tuple[int, float]]:
    found = []
    for size in _sizes(figures):
        row = figures.get(f"rest of {size}: {what}")
        if row:
            found.append((size, statistics.median(value for value, _ in row)))
    return found


def rest_lines(found: Rounds) -> list[str]:
    """Return the lines of the table of what an agent costs at rest, by the number of agents."""
    lines: list[str] = []
    for name, figures in found.items():
        sizes, rows = _sizes(figures), []
        for what, label in _RESTS.items():
            known = dict(_rests(figures, what))
            rows.append([label, *(f"{known[size]:.3g}" if size in known else "" for size in sizes)])
        if sizes:
            lines += aligned([f"an agent at rest, {name}", *(f"N = {size}" for size in sizes)], rows)
    return lines


def plot_rest(found: Rounds, path: Path) -> None:
    """Draw what an agent costs at rest by N."""
    plt = _plots()
    figure, axes = plt.subplots(1, len(_RESTS), figsize=(14, 3.5))
    for axis, (what, label) in zip(axes, _RESTS.items(), strict=True):
        for name, figures in found.items():
            points = _rests(figures, what)
            if points:
                axis.plot(*zip(*points, strict=True), "o-", label=name)
        axis.set(xlabel="agents on the host", ylabel=label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def slope(points: list[tuple[float, float]]) -> float:
    """Return how much a line through `points` rises a unit, by least squares; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    x, y = statistics.fmean(at for at, _ in points), statistics.fmean(value for _, value in points)
    return sum((at - x) * (value - y) for at, value in points) / sum((at - x) ** 2 for at, _ in points)


def _mean(sample: dict[str, Any], key: str) -> float:
    return statistics.fmean(agent[key] for agent in sample["agents"])


def churn_lines(samples: list[dict[str, Any]]) -> list[str]:
    """Return what grew in the second half, for an agent that stayed."""
    later = samples[len(samples) // 2 :]
    calls: dict[str, int] = {}
    for agent in samples[-1]["agents"]:
        for what, count in agent["calls"].items():
            calls[what] = calls.get(what, 0) + count
    lines = [f"{samples[-1]['seen']} names in {samples[-1]['at'] / 60:.1f} minutes; calls: {calls}"]
    for key, unit in (("rss", " MB"), ("descriptors", ""), ("threads", ""), ("names", "")):
        rise = slope([(sample["at"] / 60, _mean(sample, key)) for sample in later])
        first, middle, last = (_mean(sample, key) for sample in (samples[0], later[0], samples[-1]))
        lines.append(f"{key}: {first:.1f}, half way {middle:.1f}, {last:.1f}{unit}; {rise:+.3f}{unit} a minute at last")
    return lines


def plot_churn(samples: list[dict[str, Any]], path: Path) -> None:
    """Draw memory and names of those that stayed."""
    plt = _plots()
    figure, axis = plt.subplots(figsize=(8, 3.5))
    minutes = [sample["at"] / 60 for sample in samples]
    for number in range(len(samples[0]["agents"])):
        axis.plot(minutes, [sample["agents"][number]["rss"] for sample in samples], alpha=0.6)
    axis.set(xlabel="minutes of churn", ylabel="resident memory of who stays, MB")
    axis.set_ylim(bottom=0)
    names = axis.twinx()
    names.plot(minutes, [sample["seen"] for sample in samples], "k--", label="names so far")
    names.set(ylabel="names so far")
    names.legend(loc="lower right")
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _plots() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
