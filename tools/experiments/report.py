"""What an experiment hands back: a table, bands it must fall into, series to plot. No drawing here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Band", "Plot", "Report", "Series"]


@dataclass(frozen=True, slots=True)
class Band:
    """One figure, what it should be, and the range in which it passes."""

    what: str
    expected: str
    measured: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        return self.low <= self.measured <= self.high

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "FAIL"
        return (
            f"{verdict} {self.what}: {self.measured:.4g}, expected {self.expected}, "
            f"passes in {self.low:.4g} .. {self.high:.4g}"
        )


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot; ``formula`` lines are dashed, measured ones have markers."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    formula: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log_x: bool = False
    log_y: bool = False


@dataclass(slots=True)
class Report:
    """The outcome of one experiment."""

    key: str
    title: str
    source: str
    seed: object
    columns: Sequence[str]
    rows: list[Sequence[object]] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plot: Plot | None = None

    @property
    def passed(self) -> bool:
        """Whether every figure is in its band."""
        return all(band.passed for band in self.bands)

    def __str__(self) -> str:
        cells = [[str(column) for column in self.columns], *([_cell(value) for value in row] for row in self.rows)]
        widths = [max(len(row[index]) for row in cells) for index in range(len(self.columns))]
        lines = [f"{self.key}: {self.title}", f"    after {self.source}; seed {self.seed!r}", ""]
        for row in cells:
            lines.append("    " + "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))
        lines += ["", *(f"    {band}" for band in self.bands), *(f"    note: {note}" for note in self.notes)]
        return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
