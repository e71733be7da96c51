"""``mycorrizal members``: who is there, and who is gone. ``mycorrizal status``: all in short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import click

from ..control import ControlClient
from ..exceptions import OperationTimeout
from .choose import as_json, choosing, timed
from .errors import FAILED
from .output import pairs, say, say_json, table

__all__ = ["COMMANDS"]

_MEMBERS = ("name", "host", "port", "quic_port", "state", "tags")
WATCH_SECONDS = 5.0
"""How often `--watch` looks, if nothing happens before."""
NAMES_SHOWN = 20


@click.command()
@partial(choosing, shared=True)
@as_json
@click.option("--wait", "count", type=click.IntRange(1), metavar="N", help="Until there are that many.")
@click.option("--all", "gone", is_flag=True, help="Those that left or failed within a day too.")
@click.option("--watch", is_flag=True, help="Print them anew whenever they change, until Ctrl-C.")
@timed(30.0)
def members(client: ControlClient, as_json: bool, count: int | None, gone: bool, watch: bool, timeout: float) -> None:
    """List the members of the cluster, as the agent sees them now."""
    found = [] if count is None else client.call("wait", members=count, timeout=timeout)
    if count is None or gone or watch:
        found = client.call("members", all=gone)
    if not watch:
        _show(found, gone, as_json)
        return
    shown = None
    with client.events(["event."]) as stream:
        while True:
            if found != shown:
                click.clear()  # nothing, where there is no terminal
                _show(found, gone, as_json, lines=True)
                shown = found
            try:
                stream.get(WATCH_SECONDS)
            except OperationTimeout:
                pass
            found = client.call("members", all=gone)


def _show(found: Sequence[dict[str, Any]], gone: bool, as_json: bool, *, lines: bool = False) -> None:
    if as_json:
        say_json(found, indent=None if lines else 2)
        return
    if gone:
        found = [{**row, "gone_since": _moment(row.get("since"))} for row in found]
    table(found, (*_MEMBERS, "gone_since") if gone else _MEMBERS, "no members", False)


def _moment(since: float | None) -> str | None:
    return None if since is None else f"{datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S}Z"


@click.command()
@choosing
@as_json
def status(client: ControlClient, as_json: bool) -> None:
    """Tell in short how the agent and its cluster are; exit code 1 if something is not well."""
    info, health = client.call("info"), client.call("health")
    states = Counter(str(one["state"]) for one in client.call("members", all=True))
    services, peers = client.call("services.list"), client.call("peers")
    caches = [one["name"] for one in client.call("cache.list")]
    found = {
        "agent": info["name"],
        "cluster": info["cluster"],
        "address": f"{info['host']}:{info['port']}",
        "pid": info["pid"],
        "version": info["version"],
        "members": dict(sorted(states.items())),
        "caches": caches,
        "services": len(services),
        "services_ill": [one["id"] for one in services if not one["healthy"]],
        "settings": len(client.call("settings.list")),
        "connections": dict(sorted(Counter(str(one["carrier"]) for one in peers if one["carrier"]).items())),
        "problems": health["problems"],
    }
    if as_json:
        say_json(found)
    else:
        _say_status(found)
    if health["problems"]:
        click.get_current_context().exit(FAILED)


def _say_status(found: dict[str, Any]) -> None:
    short = {name: value for name, value in found.items() if name != "problems"}
    for name in ("caches", "services_ill"):
        names = short[name]
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        short[name] = ", ".join(names[:NAMES_SHOWN]) + more or None
    for name in ("members", "connections"):
        short[name] = ", ".join(f"{count} {state}" for state, count in short[name].items()) or None
    pairs({name.replace("_", " "): value for name, value in short.items()}, False)
    if found["problems"]:
        say("problems")
        pairs({f"  {number}": text for number, text in enumerate(found["problems"], 1)}, False)
    else:
        say("all is well")


COMMANDS = (members, status)
