"""The commands of ``mycorrizal`` as they are declared to click, as the site shows them in docs/command-line.md."""

from __future__ import annotations

from collections.abc import Iterator

import click

from mycorrizal.cli.app import app


def sections() -> Iterator[str]:
    """Yield a section for each command that does something, groups opened."""
    for name, command, context in _commands("mycorrizal", app, None):
        pieces = " ".join([name, *command.collect_usage_pieces(context)])
        yield f"## `{name}`\n\n```text\n{pieces}\n```\n\n{_plain(command.help)}\n\n{_table(command)}"


def _commands(
    name: str, command: click.Command, parent: click.Context | None
) -> Iterator[tuple[str, click.Command, click.Context]]:
    context = click.Context(command, info_name=name, parent=parent)
    if not isinstance(command, click.Group):
        yield name, command, context
        return
    for each in sorted(command.list_commands(context)):
        below = command.get_command(context, each)
        if below is not None and not below.hidden:
            yield from _commands(f"{name} {each}", below, context)


def _table(command: click.Command) -> str:
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if not options:
        return ""
    rows = [f"| {_names(option)} | {_cell(option.help)} |" for option in options]
    return "\n".join(["| option | what it does |", "|---|---|", *rows]) + "\n"


def _names(option: click.Option) -> str:
    named = [f"`{name}{_value(option)}`" for name in option.opts]
    return ", ".join([*named, *(f"`{name}`" for name in option.secondary_opts)])


def _value(option: click.Option) -> str:
    """Return what follows the name of an option; click's own text for it differs from release to release."""
    if option.is_flag or option.count:
        return ""
    if isinstance(option.type, click.Choice):
        return " [" + "\\|".join(map(str, option.type.choices)) + "]"
    if option.metavar is None and isinstance(option.type, click.IntRange):
        return " NUMBER"
    return f" {option.metavar or option.type.name.upper()}"


def _plain(text: str | None) -> str:
    """Return a help text without click's marks, as one paragraph for each of its paragraphs."""
    paragraphs = (text or "").replace("\b\n", "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _cell(text: str | None) -> str:
    return _plain(text).replace("|", "\\|")
