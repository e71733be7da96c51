"""Which of this user's agents on this host a command is for, and the options that say so."""

from __future__ import annotations

import functools
import os
import re
import shlex
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from .._keylike import MISPLACED, may_be_key
from .._runtime.host.agentrecord import AgentRecord
from .._runtime.host.rundir import RuntimeDir
from ..control import ControlClient
from ..exceptions import MycorrizalError, PeerUnreachable
from .errors import NoAgent, SeveralAgents
from .values import visible

__all__ = ["FileName", "as_json", "as_text", "choosing", "complete_nodes", "connect", "find", "timed"]

_COMPLETION_SECONDS = 0.5
_OFFERED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@%+:/-]*")
"""What completion offers. Shells insert it as it is, and run what they find in it at the next ENTER; so: nothing that
any shell reads as more than text, and nothing that a command reads as an option."""
_START = "start one with: mycorrizal agent"


def find(name: str | None, cluster: str | None, *, shared: bool = False) -> AgentRecord:
    """Return the one agent that is meant; if what is asked is `shared`, any one of its cluster.

    Raises:
        NoAgent: there is none. SeveralAgents: which one was not said.
    """
    everyone = RuntimeDir(create=False).agents()
    if not everyone:
        raise NoAgent(f"No agent of yours runs on this host; {_START}")
    found = [one for one in everyone if name in (None, one.name) and cluster in (None, one.cluster)]
    if len(found) == 1:
        return found[0]
    if shared and len({one.cluster for one in found}) == 1:
        return min(found, key=lambda one: (one.control is None, one.name))
    options = "\n".join(f"  --agent {_word(one.name)} --cluster {_word(one.cluster)}" for one in found or everyone)
    if not found:
        wanted = " ".join(part for part in (name, cluster and f"in cluster {cluster}") if part)
        raise NoAgent(f"No agent {visible(wanted)} runs on this host; there are:\n{options}")
    raise SeveralAgents(f"Several agents run on this host; add one of:\n{options}")


def _word(name: str) -> str:
    """Return `name` as it can be copied into a shell."""
    return shlex.quote(visible(name))


def connect(
    name: str | None, cluster: str | None, timeout: float | None = 10.0, *, shared: bool = False
) -> ControlClient:
    """Return a client of the agent that is meant; raises as ``find`` does."""
    record = find(name, cluster, shared=shared)
    if record.control is None:
        raise NoAgent(f"Agent {record.name} has no control plane; it was started with control=False")
    return ControlClient(record.control, timeout)


def choosing(function: Callable[..., Any], *, shared: bool = False) -> Callable[..., Any]:
    """Give a command ``--agent`` and ``--cluster``, and call it with a client of that agent first.

    Of several agents of one cluster any is asked for what is `shared`: all of them know it.
    """

    @click.option(
        "--agent", "agent_name", metavar="NAME", envvar="MYCORRIZAL_AGENT", shell_complete=_complete_agents,
        help="Which local agent; or MYCORRIZAL_AGENT.",
    )
    @click.option("--cluster", metavar="NAME", shell_complete=_complete_clusters, help="Of which cluster.")
    @functools.wraps(function)
    def run(agent_name: str | None, cluster: str | None, **arguments: Any) -> Any:
        with connect(agent_name or None, cluster, shared=shared) as client:
            try:
                return function(client, **arguments)
            except PeerUnreachable as error:  # of our own connection: what an agent cannot reach is a ControlError
                raise NoAgent(str(error)) from error

    return run


def as_json(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def as_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--text``."""
    return click.option("--text", "as_text", is_flag=True, help="VALUE is text, whatever it looks like.")(function)


def timed(seconds: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command ``--timeout``."""
    return click.option(
        *("--timeout", "timeout"),
        type=click.FloatRange(0, 3600),
        default=seconds,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait.",
    )


class FileName(click.Path):
    """A file; one that cannot be is not shown where it may be a key."""

    def __init__(self, *, exists: bool = False) -> None:
        super().__init__(exists=exists, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            if not may_be_key(os.fsdecode(value)):
                raise
        raise click.BadParameter(f"is no file that can be used; {MISPLACED}", ctx, param)


# -- completion: never an error, never long ---------------------------------------------------------


def _complete_agents(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    return _items({one.name: one.cluster for one in _records()}, begun)


def _complete_clusters(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    return _items({one.cluster: "" for one in _records()}, begun)


def complete_nodes(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a member, as the agent that is meant knows them."""
    try:
        chosen = context.params
        with connect(chosen.get("agent_name"), chosen.get("cluster"), _COMPLETION_SECONDS, shared=True) as client:
            members = client.call("members")
            return _items({str(one["name"]): str(one["state"]) for one in members}, begun)
    except (MycorrizalError, click.ClickException):
        return []


def _records() -> list[AgentRecord]:
    try:
        return RuntimeDir(create=False).agents()
    except MycorrizalError:
        return []


def _items(found: dict[str, str], begun: str) -> list[CompletionItem]:
    """Return what goes on as `begun`; names that a shell could take for more than names have to be typed."""
    safe = {name: more for name, more in sorted(found.items()) if _OFFERED.fullmatch(name) and name.startswith(begun)}
    return [CompletionItem(name, help=more if _OFFERED.fullmatch(more) else None) for name, more in safe.items()]
