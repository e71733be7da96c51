"""``mycorrizal events``: what happens, line by line, until Ctrl-C."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import click

from ..control import ControlClient, ControlEvent
from .choose import as_json, choosing
from .output import line, say_json, shown

__all__ = ["COMMANDS", "told"]


def told(event: ControlEvent) -> str:
    """Return an event as a line for people."""
    value = event.value
    if event.topic.startswith("event.user."):
        text = f"{value.get('sender', '?')} tells {value.get('topic', '?')}: {shown(value.get('value'))}"
    else:
        node: Any = value.get("node")
        name = node.get("name") if isinstance(node, dict) else node
        more = {key: item for key, item in value.items() if key not in ("node", "members", "since")}
        text = " ".join(shown(part) for part in (event.topic.removeprefix("event."), name, more or None) if part)
    return f"({event.lost} lost) {text}" if event.lost else text


@click.command()
@click.argument("topics", nargs=-1)
@choosing
@as_json
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after that many events.")
def events(client: ControlClient, topics: tuple[str, ...], as_json: bool, count: int | None) -> None:
    """Print events as they happen, until Ctrl-C.

    TOPICS choose: member_joined, member_failed, user.deploy ...; a beginning
    will do. With --json, each line is one object: topic, value, sequence,
    topic_sequence, publisher, lost.
    """
    wanted = [topic if topic.startswith("event.") else f"event.{topic}" for topic in topics] or ["event."]
    with client.events(wanted) as stream:
        while count is None or count > 0:
            event = stream.get()
            if as_json:
                say_json(dataclasses.asdict(event), indent=None)
            else:
                line(f"{datetime.datetime.now().astimezone():%H:%M:%S}  {told(event)}")
            if count is not None:
                count -= 1


COMMANDS = (events,)
