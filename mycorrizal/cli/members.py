"""``mycorrizal members``: who is there, once there are so many, and who is gone."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from ..control import ControlClient
from .choose import as_json, choosing, timed
from .output import table

__all__ = ["COMMANDS"]

_MEMBERS = ("name", "host", "port", "quic_port", "state", "tags")


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


COMMANDS = (members,)
