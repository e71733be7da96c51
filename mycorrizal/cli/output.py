"""What the command line prints: JSON for programs, tables and lines for people.

Names, tags and values come from other machines, so whatever would steer a
terminal is made visible, and rich's own markup is off.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from .values import to_json

__all__ = ["line", "pairs", "result", "shown", "table"]

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
    return "".join(one if one.isprintable() else one.encode("unicode_escape", "replace").decode() for one in text)


def result(value: Any, as_json: bool) -> None:
    """Print the value of a command: JSON, or for people a text as it is."""
    if as_json or not isinstance(value, str):
        click.echo(to_json(value))
    else:
        line(value)


def line(text: str) -> None:
    """Print one line now."""
    click.echo(shown(text))
    sys.stdout.flush()


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str, as_json: bool) -> None:
    """Print `rows`: JSON, or for people under the names of `columns`; the sentence `empty` if there are none."""
    if as_json:
        click.echo(to_json(rows))
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
        click.echo(empty, err=True)
        return
    console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    with console.capture() as captured:
        console.print(made)
    click.echo("\n".join(text.rstrip() for text in captured.get().rstrip("\n").split("\n")))


def pairs(values: Mapping[str, Any], as_json: bool) -> None:
    """Print names and values: JSON, or for people one pair a line."""
    if as_json:
        click.echo(to_json(values))
        return
    width = max((len(shown(name)) for name in values), default=0)
    for name, value in values.items():
        click.echo(f"{shown(name):<{width}}  {shown(value)}")
