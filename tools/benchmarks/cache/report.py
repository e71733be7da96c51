"""Table, targets and plot of ``tools/bench cache``, from what was found in each round.

A ratio is the median of the rounds' own ratios: what was measured within the
same minute shares whatever else the machine did then.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.data.report import aligned

# row -> part -> one figure a round, None where it failed
Found = dict[str, dict[str, list[float | None]]]

LABELS = {
    "here": "mycorrizal, held here",
    "there": "mycorrizal, held by the other agent",
    "pair": "mycorrizal, two copies, primary there",
    "plane": "(mycorrizal's data plane alone)",
    "redis": "Redis: redis-py + hiredis",
    "memcached": "memcached: pymemcache",
    "manager": "Manager().dict()",
    "diskcache": "diskcache",
    "ttlcache": "cachetools.TTLCache + Lock",
}
_PARTS = {
    "get1": "get", "set1": "set", "get16": "get, 16 thr.", "set16": "set, 16 thr.", "many": "set_many",
    "put": "MB/s in", "fetch": "MB/s out",
}  # fmt: skip
_TARGETS = (
    ("a local read / a GET of Redis", ("here", "get1"), ("redis", "get1"), 60.0),
    ("a local read / one of TTLCache behind a lock", ("here", "get1"), ("ttlcache", "get1"), 1.0),
    ("a remote get / a request of the data plane", ("there", "get1"), ("plane", "get1"), 0.7),
    ("a remote set / a request of the data plane", ("there", "set1"), ("plane", "set1"), 0.7),
    ("the same, get of 16 threads", ("there", "get16"), ("plane", "get16"), 0.7),
    ("the same, set of 16 threads", ("there", "set16"), ("plane", "set16"), 0.7),
    ("a set with two copies / a request of the data plane", ("pair", "set1"), ("plane", "set1"), None),
    ("set_many of 10,000 / a loop of set, one copy", ("there", "many"), ("there", "loop"), 10.0),
    ("set_many of 10,000 / a loop of set, two copies", ("pair", "many"), ("pair", "loop"), 10.0),
    ("a large array written / the data plane's bulk rate", ("there", "put"), ("plane", "put"), 0.8),
    ("a large array read / the data plane's bulk rate", ("there", "fetch"), ("plane", "fetch"), 0.8),
    ("a large array written to two copies / the bulk rate", ("pair", "put"), ("plane", "put"), None),
)


def values(found: Found, row: str, part: str) -> list[float]:
    """Return the figure of every round that has it."""
    return [figure for figure in found.get(row, {}).get(part, []) if figure is not None]


def ratios(found: Found, mine: tuple[str, str], other: tuple[str, str]) -> list[float]:
    """Return each round's ratio of two figures, given as row and part."""
    pairs = zip(found.get(mine[0], {}).get(mine[1], []), found.get(other[0], {}).get(other[1], []), strict=False)
    return [a / b for a, b in pairs if a is not None and b is not None]


def _number(figures: list[float]) -> str:
    return f"{statistics.median(figures):,.0f}" if figures else "-"


def report(found: Found) -> list[str]:
    """Return the table and what the issue asks for, met or not."""
    rows = [[LABELS[row], *(_number(values(found, row, part)) for part in _PARTS)] for row in found]
    lines = ["per second; 64 bytes and one caller unless said otherwise; medians of the rounds"]
    lines += [*aligned(["", *_PARTS.values()], rows), "", "ratios: median of the rounds' own (least..most)"]
    told = []
    for text, mine, other, floor in _TARGETS:
        each = ratios(found, mine, other)
        if each:
            middle = statistics.median(each)
            verdict = "" if floor is None else f">= {floor:g}: {'yes' if middle >= floor else 'NO'}"
            told.append([text, f"{middle:.2f}", f"{min(each):.2f}..{max(each):.2f}", verdict])
    lines += aligned(["", "", "", ""], told)[1:]
    for row in ("plane", "there", "pair"):
        if values(found, row, "rss_put"):
            parts = [f"{part.removeprefix('rss_')} +{max(values(found, row, part)):.2f}" for part in
                     ("rss_put", "rss_fetch", "rss_server")]  # fmt: skip
            lines.append(f"  peak memory of the large value, in its size, worst: {LABELS[row]}: {', '.join(parts)}")
    return lines


# -- plot -----------------------------------------------------------------------------------


def plot(found: Found, file: Path) -> None:
    """Draw rates of one caller and of sixteen, fastest first."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parts = {"get1": "get, 64 bytes, one caller", "set1": "set, 64 bytes, one caller",
             "many": "set_many of 10,000, values per second", "put": "100 MB written, MB/s"}  # fmt: skip
    figure, axes = plt.subplots(2, 2, figsize=(14, 7))
    for axis, (part, title) in zip(axes.flat, parts.items(), strict=True):
        _draw(axis, {row: values(found, row, part) for row in found if values(found, row, part)}, title)
    figure.tight_layout()
    figure.savefig(file, dpi=100)


def _draw(axis: Any, each: dict[str, list[float]], title: str) -> None:
    ranked = sorted(each, key=lambda row: statistics.median(each[row]))
    middles = [statistics.median(each[row]) for row in ranked]
    low = [middle - min(each[row]) for row, middle in zip(ranked, middles, strict=True)]
    high = [max(each[row]) - middle for row, middle in zip(ranked, middles, strict=True)]
    ours = {"here": "tab:orange", "there": "tab:orange", "pair": "tab:orange", "plane": "tab:gray"}
    axis.barh([LABELS[row] for row in ranked], middles, xerr=(low, high),
              color=[ours.get(row, "tab:blue") for row in ranked])  # fmt: skip
    for place, middle in enumerate(middles):
        axis.text(middle, place, f" {middle:,.0f}", va="center", fontsize=8)
    if middles:
        axis.set(xscale="log", title=title)
        axis.set_xlim(min(middles) / 2, max(middles) * 4)
    axis.grid(alpha=0.3, axis="x")
