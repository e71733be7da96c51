"""``mycorrizal worker package.module``: an agent that serves the handlers of a module until it is stopped."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import click

from .._runtime.threads.signals import StopSignals
from ..exceptions import NotRunningError, OperationTimeout
from .choose import FileName
from .keyfiles import key_from
from .made import tags_of
from .output import line, say, shown

if TYPE_CHECKING:
    from ..agent import Agent

__all__ = ["COMMANDS"]

LOOK_SECONDS = 0.2
"""How soon a signal is noticed."""


@click.command()
@click.argument("module")
@click.option("--name", help="Unique in the cluster; host name and process number if not given.")
@click.option("--cluster", metavar="NAME", help="Agents of different clusters do not see each other.")
@click.option("--join", multiple=True, metavar="SEED", help="HOST, HOST:PORT, dns://NAME ...; more than once.")
@click.option("--bind", metavar="ADDRESS", help="Where to listen; loopback without a key.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="What it says of itself; more than once.")
@click.option("--key-file", type=FileName(exists=True), help="The file that holds the cluster's key.")
@click.option("--config-file", type=FileName(exists=True), help="TOML, see docs/agent-settings.md.")
def worker(
    module: str,
    name: str | None,
    cluster: str | None,
    join: tuple[str, ...],
    bind: str | None,
    tags: tuple[str, ...],
    key_file: str | None,
    config_file: str | None,
) -> None:
    """Serve the handlers of MODULE until Ctrl-C or SIGTERM, and leave the cluster then.

    MODULE is named as in an import, and looked for in the present folder
    too. Its handlers are the functions marked in it:

    \b
        @mycorrizal.handler("score", processes=4)
        def score(request): ...

    A second Ctrl-C ends the worker at once. Settings that have no option
    here come from MYCORRIZAL_BIND and so on, and from mycorrizal.toml.
    """
    from ..agent import Agent  # late: it brings aioquic
    from ..worker import codecs_of, handlers_of

    served = _imported(module)
    handlers = handlers_of(served)
    if not handlers:
        text = f'{shown(module)} marks no handler; put @mycorrizal.handler("name") above a function of it'
        raise click.BadParameter(text, param_hint="MODULE")
    with (
        StopSignals() as stop,
        Agent(
            name, cluster=cluster, join=list(join) or None, bind=bind, tags=tags_of(tags) or None,
            key=key_from(key_file, False), config_file=config_file, handlers=handlers, codecs=codecs_of(served),
        ) as agent,
    ):  # fmt: skip
        line(f"{agent.name} in cluster {agent.cluster} serves {', '.join(sorted(handlers))}")
        for problem in agent.health().problems:
            say(f"Warning: {shown(problem)}", err=True)
        _wait(agent, stop)


def _imported(name: str) -> ModuleType:
    """Return the module; what it raises at its import is shown as Python shows it.

    Raises:
        BadParameter: there is none.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        text = f"{shown(name)} is no module's name; it is named as in an import, without .py"
        raise click.BadParameter(text, param_hint="MODULE")
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # one that it needs
        text = f"there is no module {shown(name)}; it is named as in an import, without .py"
        raise click.BadParameter(text, param_hint="MODULE") from None


def _wait(agent: Agent, stop: StopSignals) -> None:
    """Return when a signal has come, or the agent was shut down."""
    with agent.events() as events:
        while stop.received is None:
            try:
                events.get(LOOK_SECONDS)
            except OperationTimeout:
                continue
            except NotRunningError:
                return


COMMANDS = (worker,)
