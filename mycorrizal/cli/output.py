"""What the command line prints: JSON for programs, tables and lines for people.

Names, tags, values and errors come from other machines, so whatever would
steer a terminal is made visible, and rich's own markup is off. Every line goes
through ``say`` or ``say_json``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from .values import lines, to_json, visible

__all__ = ["PrintableLogs", "line", "pairs", "result", "say", "say_json", "shown", "table"]

PIPE_WIDTH = 500
"""Columns where there is no terminal: whoever reads it there wants whole lines."""


def shown(value: Any) -> str:
    """Return `value` as text of one line that does nothing to a terminal."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        text = " ".join(f"{key}={shown(item)}" for key, item in value.items())
    elif isinstance(value, float):
        text = f"{value:.6g}"
    elif isinstance(value, str):
        text = value
    else:
        text = to_json(value, indent=None)
    return visible(text)


def say(text: str, *, err: bool = False) -> None:
    """Print `text` now, which is printable; what the terminal's encoding does not have is escaped."""
    try:
        click.echo(text, err=err)
    except UnicodeEncodeError:
        click.echo(text.encode("ascii", "backslashreplace").decode(), err=err)


def say_json(value: Any, *, indent: int | None = 2) -> None:
    """Print `value` as JSON now."""
    try:
        click.echo(to_json(value, indent=indent))
    except UnicodeEncodeError:
        click.echo(to_json(value, indent=indent, ascii_only=True))


def result(value: Any, as_json: bool) -> None:
    """Print the value of a command: JSON, or for people a text as it is."""
    if as_json or not isinstance(value, str):
        say_json(value)
    else:
        line(value)


def line(text: str) -> None:
    """Print one line now."""
    say(shown(text))


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str, as_json: bool) -> None:
    """Print `rows`: JSON, or for people under the names of `columns`; the sentence `empty` if there are none."""
    if as_json:
        say_json(rows)
        return
    # Here, because most commands print no table, and rich is a sixth of the time that a command takes to start.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column.replace("_", " ").upper(), overflow="fold")
    for row in rows:
        made.add_row(*(Text(shown(row.get(column))) for column in columns))
    if not made.row_count:
        say(empty, err=True)
        return
    console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    with console.capture() as captured:
        console.print(made)
    say("\n".join(text.rstrip() for text in captured.get().rstrip("\n").split("\n")))


def pairs(values: Mapping[str, Any], as_json: bool) -> None:
    """Print names and values: JSON, or for people one pair a line."""
    if as_json:
        say_json(values)
        return
    width = max((len(shown(name)) for name in values), default=0)
    for name, value in values.items():
        say(f"{shown(name):<{width}}  {shown(value)}")


class PrintableLogs(logging.Formatter):
    """Records as lines that do nothing to a terminal; other packages log what peers send too."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text."""
        return lines(super().format(record))
