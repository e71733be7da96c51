"""Draws a report's plot as PNG. The only file here that needs matplotlib (extra ``plot``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .report import Report

__all__ = ["draw"]


def draw(report: Report, path: Path) -> None:
    """Write `report`'s plot to `path`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    plot = report.plot
    if plot is None:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = [f"C{number}" for number in range(10)]
    for number, series in enumerate(plot.series):
        style = {"linestyle": "--", "marker": ""} if series.formula else {"linestyle": "-", "marker": "o"}
        axes.plot(series.x, series.y, label=series.label, color=colours[number % 10], markersize=4, **style)
    axes.set_title(plot.title)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    if plot.log_x:
        axes.set_xscale("log")
    if plot.log_y:
        axes.set_yscale("symlog" if any(min(series.y, default=1) <= 0 for series in plot.series) else "log")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})
