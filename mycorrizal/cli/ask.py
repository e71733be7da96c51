"""Commands that ask an agent one thing: who is there, how it does, a message, a request."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import click

from ..control import ControlClient
from .choose import as_json, as_text, choosing, complete_nodes, timed
from .errors import FAILED
from .output import pairs, result, table
from .values import from_text

__all__ = ["COMMANDS", "tags_of", "value_of"]

_MEMBERS = ("name", "host", "port", "quic_port", "state", "tags")
_PEERS = ("name", "state", "rtt", "mtu", "connections", "calls", "serving", "messages")


def value_of(text: str | None, as_text: bool) -> Any:
    """Return the value an argument stands for; ``-`` reads it from standard input."""
    if text is None:
        return None
    if text == "-":
        text = sys.stdin.read()
    return text if as_text else from_text(text)


_node = click.argument("node", shell_complete=complete_nodes)


@click.command()
@choosing
@as_json
@click.option("--wait", "count", type=click.IntRange(1), metavar="N", help="Until there are that many.")
@click.option("--all", "gone", is_flag=True, help="Those that left or failed within a day too.")
@timed(30.0)
def members(client: ControlClient, as_json: bool, count: int | None, gone: bool, timeout: float) -> None:
    """List the members of the cluster, as the agent sees them now."""
    found = [] if count is None else client.call("wait", members=count, timeout=timeout)
    if count is None or gone:
        found = client.call("members", all=gone)
    if gone and not as_json:
        found = [{**row, "gone_since": _moment(row.get("since"))} for row in found]
    table(found, (*_MEMBERS, "gone_since") if gone else _MEMBERS, "no members", as_json)


def _moment(since: float | None) -> str | None:
    return None if since is None else f"{datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S}Z"


@click.command()
@choosing
@as_json
def info(client: ControlClient, as_json: bool) -> None:
    """Tell who the agent is: name, cluster, addresses, process."""
    pairs(client.call("info"), as_json)


@click.command()
@choosing
@as_json
def health(client: ControlClient, as_json: bool) -> None:
    """Tell how well the agent is doing; exit code 1 if something is not well."""
    found = client.call("health")
    pairs(found, as_json)
    if found.get("problems"):
        click.get_current_context().exit(FAILED)


@click.command()
@choosing
@as_json
def metrics(client: ControlClient, as_json: bool) -> None:
    """List all counters and gauges of the agent."""
    pairs(dict(sorted(client.call("metrics").items())), as_json)


@click.command()
@choosing
@as_json
def peers(client: ControlClient, as_json: bool) -> None:
    """List the connections of the agent's data plane."""
    table(client.call("peers"), _PEERS, "no connections", as_json)


@click.command()
@_node
@click.argument("value")
@choosing
@as_text
@timed(10.0)
def send(client: ControlClient, node: str, value: str, as_text: bool, timeout: float) -> None:
    """Send VALUE to the inbox of NODE; done when it is there."""
    client.call("send", node=node, value=value_of(value, as_text), timeout=timeout)


@click.command()
@_node
@click.argument("name")
@click.argument("value", required=False)
@choosing
@as_json
@as_text
@timed(10.0)
def request(
    client: ControlClient, node: str, name: str, value: str | None, as_text: bool, timeout: float, as_json: bool
) -> None:
    """Ask the handler NAME of NODE, and print what it answers: text as it is, anything else as JSON."""
    result(client.call("request", node=node, name=name, value=value_of(value, as_text), timeout=timeout), as_json)


@click.command()
@click.argument("topic")
@click.argument("value", required=False)
@choosing
@as_text
@timed(10.0)
def broadcast(client: ControlClient, topic: str, value: str | None, as_text: bool, timeout: float) -> None:
    """Tell all agents an event of TOPIC; `mycorrizal events` shows it."""
    client.call("broadcast", topic=topic, value=value_of(value, as_text), timeout=timeout)


@click.command()
@click.argument("tags", nargs=-1, metavar="NAME=VALUE...")
@choosing
@timed(10.0)
def tags(client: ControlClient, tags: tuple[str, ...], timeout: float) -> None:
    """Have the agent announce these tags, and no others."""
    client.call("update_tags", tags=tags_of(tags), timeout=timeout)


def tags_of(given: tuple[str, ...]) -> dict[str, str]:
    """Return ``NAME=VALUE`` arguments as a map."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise click.UsageError(f"a tag is NAME=VALUE, not {text!r}")
        found[name] = value
    return found


@click.command()
@click.argument("addresses", nargs=-1, required=True)
@choosing
@timed(10.0)
def join(client: ControlClient, addresses: tuple[str, ...], timeout: float) -> None:
    """Have the agent join a cluster through one of ADDRESSES."""
    client.call("join", addresses=list(addresses), timeout=timeout)


@click.command()
@choosing
@timed(10.0)
def leave(client: ControlClient, timeout: float) -> None:
    """Have the agent leave the cluster; its process goes on."""
    client.call("leave", timeout=timeout)


@click.command()
@choosing
@click.option("--leave/--no-leave", default=True, show_default=True, help="Say goodbye to the others first.")
@timed(10.0)
def shutdown(client: ControlClient, leave: bool, timeout: float) -> None:
    """End the agent."""
    client.call("shutdown", leave=leave, timeout=timeout)


COMMANDS = (members, info, health, metrics, peers, send, request, broadcast, tags, join, leave, shutdown)
