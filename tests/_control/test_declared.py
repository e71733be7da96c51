"""A command is declared once: the page, the command line and the checks are what the table says."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click
import pytest

from mycorrizal._control.arguments import KINDS, Parameter
from mycorrizal._control.commands import COMMANDS, Command
from mycorrizal.cli import made
from mycorrizal.cli.app import app

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "control.md"

WITHOUT_A_LINE = {
    "ping": "for programs",
    "commands": "for programs",
    "subscribe": "`mycorrizal events` begins with it",
    "members": "`mycorrizal members`, which is written by hand: it waits too",
    "wait": "`mycorrizal members --wait`",
}
BY_HAND = {"agent", "demo", "members", "keygen", "events", "completion", "man", "status", "worker"}
FRAME = {"agent_name", "cluster", "as_json", "as_text", "key_file", "prompt"}
"""What a subcommand takes beside its command's arguments."""
LINES = {name: command for name, command in COMMANDS.items() if command.line is not None}


def argument(one: Parameter) -> str:
    """Return an argument as the page has it, with its default if that says something."""
    if one.kind == "key":
        return f"`{one.name}` (bytes or base64)"
    if one.required or one.name == "timeout" or one.default in (None, False):
        return f"`{one.name}`"
    return f"`{one.name}` ({str(one.default).lower() if one.default is True else format(one.default, ',')})"


def row(command: Command) -> str:
    """Return the line of the page about `command`."""
    arguments = ", ".join(map(argument, command.parameters))
    return f"| `{command.name}` | {arguments} | {command.result} |".replace("|  |", "| |")


def test_the_page_is_made_from_the_table() -> None:
    wanted = "\n".join(["| command | arguments | result |", "|---|---|---|", *map(row, COMMANDS.values())])
    text = PAGE.read_text("utf-8")
    begins = text.index("| command | arguments | result |")
    assert text[begins : text.index("\n\n", begins)] == wanted, f"docs/control.md should have:\n{wanted}"


def test_every_command_has_a_line_or_a_reason() -> None:
    assert set(COMMANDS) - set(LINES) == set(WITHOUT_A_LINE)


def subcommands(group: click.Group, before: str = "") -> dict[str, click.Command]:
    """Return the commands of the command line by their words."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found |= subcommands(command, f"{name} ") if isinstance(command, click.Group) else {before + name: command}
    return found


def test_the_command_line_is_the_table_and_what_is_written_by_hand() -> None:
    words = [" ".join(made._words(command.line.usage)) for command in LINES.values() if command.line]
    assert sorted(subcommands(app)) == sorted([*words, *BY_HAND])


@pytest.mark.parametrize("name", LINES)
def test_subcommand_takes_what_its_command_does(name: str) -> None:
    command = LINES[name]
    assert command.line is not None
    found = subcommands(app)[" ".join(made._words(command.line.usage))]
    taken = {one.name: one for one in found.params}
    shown = {one.name for one in command.parameters if one.kind != "key"}
    assert set(taken) - FRAME == shown - FRAME
    assert {"key_file", "prompt"} <= set(taken) or all(one.kind != "key" for one in command.parameters)
    assert set(command.line.options) <= {key for key, one in taken.items() if isinstance(one, click.Option)}
    assert command.line.show == "nothing" or command.line.show in made._SHOWN
    for one in command.parameters:
        if one.name in taken:
            assert taken[one.name].required == one.required or one.kind == "tags"  # none are tags too
    line = [one.name for one in found.params if isinstance(one, click.Argument)]
    typed = [word.strip("[]").lower() for word in command.line.usage.split() if not word.islower()]
    assert line == typed  # the usage names each, in this order


@pytest.mark.parametrize("name", COMMANDS)
def test_defaults_are_values_that_may_be_given(name: str) -> None:
    """Else a client that sends what ``commands`` tells would be refused."""
    for one in COMMANDS[name].parameters:
        if not one.required and one.default is not None:
            assert KINDS[one.kind].check(one.default) == one.default


@pytest.mark.parametrize("name", COMMANDS)
def test_what_runs_takes_what_is_checked(name: str) -> None:
    taken: dict[str, Any] = dict(inspect.signature(COMMANDS[name].run).parameters)
    assert list(taken)[1:] == [one.name for one in COMMANDS[name].parameters]
    assert all(one.kind in KINDS for one in COMMANDS[name].parameters)


def test_used_kinds_are_all_there_are() -> None:
    assert {one.kind for command in COMMANDS.values() for one in command.parameters} == set(KINDS)
