"""``mycorrizal man``: the manual page, out of the same commands, options and sentences as ``--help``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version

import click

from .output import say

__all__ = ["COMMANDS", "page"]


@click.command("man")
@click.pass_context
def manual(context: click.Context) -> None:
    """Print the manual page: mycorrizal man > ~/.local/share/man/man1/mycorrizal.1"""
    say("\n".join(page(context.find_root())))


def page(root: click.Context) -> Iterator[str]:
    """Yield the lines of the manual page of the command of `root`."""
    assert isinstance(root.command, click.Group)
    number = _plain(version("mycorrizal"))
    yield f'.TH MYCORRIZAL 1 "" "mycorrizal {number}" "User Commands"'
    yield from (".SH NAME", r"mycorrizal \- talk to the agents of this host, or run one")
    yield from (".SH SYNOPSIS", ".B mycorrizal", r"[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGS\fR]...", ".SH DESCRIPTION")
    yield from _prose(root.command.help or "")
    yield from (".SH OPTIONS", *_options(root), ".SH COMMANDS")
    yield from _commands(root)


def _commands(above: click.Context) -> Iterator[str]:
    group = above.command
    assert isinstance(group, click.Group)
    for name, command in sorted(group.commands.items()):
        context = click.Context(command, info_name=name, parent=above)
        if isinstance(command, click.Group):
            yield from (".PP", *_prose(command.help or ""))
            yield from _commands(context)
            continue
        yield f'.SS "{_plain(" ".join([context.command_path, *command.collect_usage_pieces(context)]))}"'
        yield from _prose(command.help or "")
        yield from _options(context)


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None and "--help" not in parameter.opts:
            yield from (".TP", rf"\fB{_plain(record[0])}\fR", _plain(record[1]) or r"\&")


def _prose(text: str) -> Iterator[str]:
    r"""Yield paragraphs; one that begins with click's ``\b`` keeps its lines."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = [line.rstrip() for line in paragraph.splitlines()]
        kept = lines[0] == "\b"
        yield ".nf" if kept else ".PP"
        yield from (_plain(line if kept else line.strip()) for line in lines[kept:])
        if kept:
            yield ".fi"


def _plain(text: str) -> str:
    """Return `text` as one line that says nothing to roff."""
    text = text.replace("\n", " ").replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    return rf"\&{text}" if text.startswith((".", "'")) else text


COMMANDS = (manual,)
