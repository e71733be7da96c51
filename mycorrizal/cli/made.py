"""Subcommands made from the table of commands: what each takes from a line, asks an agent, and prints.

What is required stands on the line, what is not is an option; the table's
usage says what stands there all the same. What a kind of argument looks like on
a line, and how a kind of result is printed, is said here once.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click

from .._control.arguments import Parameter
from .._control.commands import COMMANDS, Command, Line
from ..control import ControlClient
from ..exceptions import ConfigError
from .choose import as_json, as_text, choosing, complete_nodes, timed
from .errors import FAILED
from .keyfiles import key_from, key_options
from .output import line, pairs, result, say, say_json, table
from .values import from_text

__all__ = ["groups", "tags_of", "value_of"]

_GROUPS = {
    "services": "Services that agents have registered.",
    "settings": "Small values that the whole cluster shares.",
    "cache": """Caches that agents hold together.

    An agent that does not have the cache yet opens it, and from then on holds a part of it. A program has opened it
    before, or `mycorrizal cache create`.
    """,
    "keys": "Keys of the cluster: add the new one, use it, remove the old one.",
}

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# -- what is typed ------------------------------------------------------------------------------------


def value_of(text: str | None, as_text: bool) -> Any:
    """Return the value an argument stands for; ``-`` reads it from standard input."""
    if text is None:
        return None
    if text == "-":
        text = sys.stdin.read()
    return text if as_text else from_text(text)


def tags_of(given: tuple[str, ...]) -> dict[str, str]:
    """Return ``NAME=VALUE`` arguments as a map."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.UsageError(f"a tag is NAME=VALUE, not {text!r}")
        found[name] = value
    return found


_ARGUMENTS: dict[str, dict[str, Any]] = {
    "tags": {"nargs": -1, "required": False, "metavar": "NAME=VALUE..."},
    "texts": {"nargs": -1},
}
"""How a kind that stands on the line is taken, where not as one word."""

_OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "count": lambda: {"type": click.IntRange(1, 1_000_000), "metavar": "N"},
    "size": lambda: {"type": click.IntRange(1), "metavar": "N"},
    "port": lambda: {"type": click.IntRange(1, 65535), "metavar": None},
    "ttl": lambda: {"type": click.FloatRange(0), "metavar": "SECONDS"},
    "value": lambda: {"metavar": "VALUE"},
}
"""How a kind that is an option is taken."""


def _typed(parameter: Parameter, usage: str, help: str | None) -> Iterator[_Decorator]:  # noqa: A002
    """Yield what gives a subcommand one argument of its command."""
    name, kind, default = parameter.name, parameter.kind, parameter.default
    if kind == "key":  # never on the line: others see that in the process list
        yield key_options
    elif name == "timeout":
        yield timed(default)
    elif re.search(rf"\b{name.upper()}\b", usage):
        complete = complete_nodes if name == "node" else None
        more = {"required": parameter.required, "shell_complete": complete, **_ARGUMENTS.get(kind, {})}
        yield click.argument(name, **more)
        if kind == "value":
            yield as_text
    elif kind == "boolean":
        switch = f"--{name}/--no-{name}" if default else f"--{name}"
        yield click.option(switch, name, is_flag=True, default=default, show_default=bool(default), help=help)
    else:
        more = {"metavar": name.upper(), **_OPTIONS.get(kind, dict)()}
        switch = "--" + name.replace("_", "-")
        yield click.option(switch, name, default=default, show_default=default is not None, help=help, **more)


def _asked(parameter: Parameter, given: Mapping[str, Any]) -> Any:
    """Return an argument of a command as it is asked, from what was typed."""
    typed = given.get(parameter.name)
    match parameter.kind:
        case "key":
            key = key_from(given["key_file"], given["prompt"])
            if key is None:
                raise ConfigError("key", "is missing", hint="give --key-file FILE, or --prompt")
            return key
        case "value":
            return value_of(typed, given.get("as_text", False))
        case "tags":
            return tags_of(typed or ())
        case "texts":
            return list(typed or ())
    return typed


# -- what is printed ------------------------------------------------------------------------------------


def _sorted(found: Any, as_json: bool, how: Line) -> None:
    if found or as_json:
        pairs(dict(sorted(found.items())), as_json)
    else:
        say(how.empty, err=True)


def _health(found: Any, as_json: bool, how: Line) -> None:
    pairs(found, as_json)
    if found.get("problems"):
        click.get_current_context().exit(FAILED)


def _done(found: Any, as_json: bool, how: Line) -> None:
    """Print an outcome for each node; exit 1 if one failed."""
    failed = {node: told["text"] for node, told in found.items() if isinstance(told, dict) and "error" in told}
    pairs(found if as_json else {node: failed.get(node, "done") for node in found}, as_json)
    if failed:
        click.get_current_context().exit(FAILED)


def _lines(found: Any, as_json: bool, how: Line) -> None:
    if as_json:
        say_json(found)
        return
    for text in found:
        line(text)
    if not found:
        say(how.empty, err=True)


def _some(found: Any, as_json: bool, how: Line) -> None:
    _lines(found["keys"], as_json, how)
    if found["more"]:
        say(f"there are more than {len(found['keys'])}; --limit asks for them", err=True)


def _nodes(found: Any, as_json: bool, how: Line) -> None:
    rows = [{"node": node, **(numbers or {})} for node, numbers in sorted(found.items())]
    if as_json:
        say_json(found)
    else:
        table(rows, how.columns, how.empty, as_json)


_SHOWN: dict[str, Callable[[Any, bool, Line], None]] = {
    "value": lambda found, as_json, how: result(found, as_json),
    "pairs": lambda found, as_json, how: pairs(found, as_json),
    "table": lambda found, as_json, how: table(found, how.columns, how.empty, as_json),
    **{"sorted": _sorted, "health": _health, "done": _done, "lines": _lines, "keys": _some, "nodes": _nodes},
}
"""How each kind of result is printed; one that is ``nothing`` is not."""

# -- the subcommands ------------------------------------------------------------------------------------


def _made(command: Command) -> click.Command:
    """Return the subcommand that `command` is on a line."""
    how = command.line
    assert how is not None
    tell = _SHOWN.get(how.show)

    def ask(client: ControlClient, as_json: bool = False, **given: Any) -> None:
        arguments = {one.name: _asked(one, given) for one in command.parameters}
        found = client.call(command.name, **arguments)
        if tell is not None:
            tell(found, as_json, how)

    chosen = functools.partial(choosing, shared=how.shared)
    decorators: list[_Decorator] = [chosen] if tell is None else [chosen, as_json]
    for one in command.parameters:
        decorators += _typed(one, how.usage, how.options.get(one.name))
    for decorate in reversed(decorators):
        ask = decorate(ask)
    return click.command(_words(how.usage)[-1], help=how.about)(ask)


def _words(usage: str) -> list[str]:
    return [word for word in usage.split() if word.islower()]


def groups() -> list[click.Command]:
    """Return every subcommand that is made from the table, those of two words in groups."""
    found: dict[str, click.Command] = {}
    for command in COMMANDS.values():
        if command.line is None:
            continue
        made = _made(command)
        first, *second = _words(command.line.usage)
        if not second:
            found[first] = made
            continue
        group = found.setdefault(first, click.Group(first, help=_GROUPS[first]))
        assert isinstance(group, click.Group)
        group.add_command(made)
    return list(found.values())
