"""Tables and plots of ``tools/bench data``, from what was found in each round.

A ratio is the median of the rounds' own ratios: two peers measured within the
same minute share whatever else the machine did then.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.data.peers import BULK, MANY, ONE, PEERS

# peer -> part -> one entry a round, None where it failed
Found = dict[str, dict[str, list[dict[str, float] | None]]]

_TITLES = {
    ONE: "request/response, 64 bytes, 1 caller",
    MANY: "request/response, 64 bytes, 16 callers",
    BULK: "bulk, {size} MiB one way",
}
_KEYS = {ONE: "per_second", MANY: "per_second", BULK: "mb_per_second"}
_BASES = (("tls", "x TLS"), ("aioquic", "x aioquic"))


def values(found: Found, peer: str, part: str, key: str) -> list[float]:
    """Return the figure of every round that has it."""
    return [entry[key] for entry in found.get(peer, {}).get(part, []) if entry is not None]


def ratios(found: Found, peer: str, base: str, part: str) -> list[float]:
    """Return each round's throughput of `peer` over that of `base`."""
    key = _KEYS[part]
    pairs = zip(found.get(peer, {}).get(part, []), found.get(base, {}).get(part, []), strict=False)
    return [mine[key] / other[key] for mine, other in pairs if mine is not None and other is not None]


def middle(numbers: list[float], form: str) -> str:
    return format(statistics.median(numbers), form) if numbers else "-"


def _ratio(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:.1f}"


def table(found: Found, part: str, size: int) -> list[str]:
    """Return the lines of one part's table, fastest first."""
    unit = "MB/s" if part == BULK else "per s"
    columns = [unit, *(title for _, title in _BASES), "rounds, x TLS"]
    columns += ["RSS snd", "RSS rcv"] if part == BULK else ["p50 us", "p99 us"]
    rows = []
    ranked = [name for name in found if values(found, name, part, _KEYS[part])]
    ranked.sort(key=lambda name: -statistics.median(values(found, name, part, _KEYS[part])))
    for name in ranked:
        row = [PEERS[name].label, middle(values(found, name, part, _KEYS[part]), ",.0f")]
        for base, _ in _BASES:
            each = ratios(found, name, base, part)
            row.append(_ratio(statistics.median(each)) if each else "-")
        each = ratios(found, name, "tls", part)
        row.append(f"{_ratio(min(each))}..{_ratio(max(each))}" if each else "-")
        if part == BULK:
            row += [middle(values(found, name, part, key), ".2f") for key in ("rss_sender", "rss_receiver")]
        else:
            row += [middle(values(found, name, part, key), ",.0f") for key in ("p50", "p99")]
        rows.append(row)
    return [_TITLES[part].format(size=size >> 20), *aligned(["", *columns], rows), ""]


def aligned(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table as lines: the first column to the left, the others to the right."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  " + "  ".join(cells))
    return lines


def report(found: Found, size: int) -> list[str]:
    """Return the tables of all parts that were measured, and what their columns mean."""
    lines: list[str] = []
    for part in (ONE, MANY, BULK):
        if any(values(found, name, part, _KEYS[part]) for name in found):
            lines += table(found, part, size)
    lines += ["  x: median of the rounds' ratios. RSS: peak above what the process had before, per byte sent;"]
    lines += ["  a receiver that keeps the value has 1.00. Notes:"]
    lines += [f"    {PEERS[name].label}: {PEERS[name].note}" for name in found if PEERS[name].note]
    return lines


def ours(extras: list[dict[str, Any]]) -> list[str]:
    """Return the lines about what only ours does: one entry of `extras` a round."""
    if not extras:
        return []
    rate, p50, p99 = (
        middle([round_["sends"][key] for round_ in extras], ",.0f") for key in ("per_second", "p50", "p99")
    )
    lines = ["", "mycorrizal alone"]
    lines.append(
        f"  send, 64 bytes, 1 caller   {rate} per s until the receiver has all; a call p50 {p50}, p99 {p99} us"
    )
    pairs = [pair for round_ in extras for pair in round_["arrays"]]
    if pairs:
        ratio = [pair["array"]["seconds"] / pair["bytes"]["seconds"] for pair in pairs]
        lines.append(
            f"  NumPy array / raw bytes    {middle(ratio, '.2f')} of the time ({min(ratio):.2f}..{max(ratio):.2f}, "
            f"{len(pairs)} pairs of {pairs[0]['size'] / 1e6:.0f} MB)"
        )
    for kind in ("bytes", "array") if pairs else ():
        sender, receiver = ([pair[kind][side] for pair in pairs] for side in ("rss_sender", "rss_receiver"))
        lines.append(
            f"  peak RSS, {kind:5}            sender +{statistics.median(sender):.2f} (worst {max(sender):.2f}), "
            f"receiver +{statistics.median(receiver):.2f} (worst {max(receiver):.2f}) of the value's size"
        )
    sides = [round_["trouble"][side] for round_ in extras for side in ("server", "client")]
    signs = [sign for side in sides for sign in suspicion(side)]
    stalls = sum(side.get("stalls", 0) for side in sides)
    lines.append(
        f"  membership beside it       {sum(side['probes'] for side in sides)} probes, "
        f"{'no suspicion' if not signs else 'DISTURBED: ' + ', '.join(signs)}, {stalls} stalls"
    )
    return lines


def suspicion(side: dict[str, int]) -> list[str]:
    """Return the signs that a member was suspected; a stall of a process is none yet."""
    return [f"{name} {count}" for name, count in side.items() if name not in ("probes", "stalls")]


# -- plots ---------------------------------------------------------------------------------


def plot(found: Found, size: int, out: Path) -> list[Path]:
    """Draw the ratios and the latencies; return the files."""
    import matplotlib

    matplotlib.use("Agg")
    made = []
    for name, draw in (("data.png", _draw_ratios), ("data_latency.png", _draw_latencies)):
        figure = draw(found, size)
        if figure is not None:
            figure.tight_layout()
            figure.savefig(out / name, dpi=120)
            made.append(out / name)
    return made


def _color(name: str) -> str:
    return "tab:orange" if name.startswith("ours") else "tab:red" if name in ("aioquic", "facade") else "tab:blue"


def _plain_numbers(axis: Any) -> None:
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_formatter(lambda value, _: "")


def _draw_ratios(found: Found, size: int) -> Any:
    import matplotlib.pyplot as plt

    base = "tls" if any(found.get("tls", {}).values()) else "aioquic"
    parts = [part for part in (ONE, MANY, BULK) if any(ratios(found, name, base, part) for name in found)]
    if not parts:
        return None
    figure, axes = plt.subplots(1, len(parts), figsize=(5.5 * len(parts), 0.34 * len(found) + 1.6), squeeze=False)
    for axis, part in zip(axes[0], parts, strict=True):
        each = {name: ratios(found, name, base, part) for name in found}
        bars = sorted((statistics.median(some), name) for name, some in each.items() if some)
        middles = [bar[0] for bar in bars]
        low = [value - min(each[name]) for value, name in bars]
        high = [max(each[name]) - value for value, name in bars]
        axis.barh(
            [PEERS[name].label for _, name in bars], middles, xerr=(low, high), color=[_color(name) for _, name in bars]
        )
        for row, value in enumerate(middles):
            axis.text(value, row, f" {_ratio(value)}", va="center", fontsize=8)
        axis.axvline(1.0, color="black", linewidth=0.8)
        axis.set(xscale="log", title=_TITLES[part].format(size=size >> 20))
        axis.set_xlim(min(middles) / 2, max(middles) * 2.5)
        axis.set_xlabel(f"throughput / {PEERS[base].label}")
        _plain_numbers(axis)
        axis.grid(alpha=0.3, axis="x")
    return figure


def _draw_latencies(found: Found, size: int) -> Any:
    import matplotlib.pyplot as plt

    parts = [part for part in (ONE, MANY) if any(values(found, name, part, "p50") for name in found)]
    if not parts:
        return None
    figure, axes = plt.subplots(1, len(parts), figsize=(6.5 * len(parts), 0.34 * len(found) + 1.6), squeeze=False)
    for axis, part in zip(axes[0], parts, strict=True):
        names = [name for name in found if values(found, name, part, "p50")]
        names.sort(key=lambda name: -statistics.median(values(found, name, part, "p50")))
        labels = [PEERS[name].label for name in names]
        for key, color in (("p99", "lightsteelblue"), ("p50", "tab:blue")):
            axis.barh(labels, [statistics.median(values(found, name, part, key)) for name in names], color=color,
                      label=key)  # fmt: skip
        axis.set(xscale="log", xlabel="microseconds", title=_TITLES[part])
        _plain_numbers(axis)
        axis.legend()
        axis.grid(alpha=0.3, axis="x")
    return figure
