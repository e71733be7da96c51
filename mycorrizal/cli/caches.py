"""Commands about caches: one key, all keys, numbers."""

from __future__ import annotations

from typing import Any

import click

from ..control import ControlClient
from .ask import value_of
from .choose import as_json, as_text, choosing, timed
from .output import line, result, say, say_json, table

__all__ = ["COMMANDS"]

_STATS = ("node", "entries", "bytes", "primary_entries", "gets", "hits", "writes", "evicted", "expired")


@click.group()
def cache() -> None:
    """Caches that agents hold together.

    An agent that does not have the cache yet opens it, and from then on holds a part of it. Some agent must have
    opened it before, since the settings of a cache are not the command line's to say.
    """


@cache.command()
@click.argument("cache")
@click.argument("key")
@choosing
@as_json
@timed(10.0)
def get(client: ControlClient, cache: str, key: str, as_json: bool, timeout: float) -> None:
    """Print the value of KEY: text as it is, anything else as JSON. Exit code 1 if it is not there."""
    result(client.call("cache.get", cache=cache, key=key, timeout=timeout), as_json)


@cache.command("set")
@click.argument("cache")
@click.argument("key")
@click.argument("value")
@choosing
@as_text
@click.option("--ttl", type=click.FloatRange(0), metavar="SECONDS", help="How long it lives; 0 is for ever.")
@timed(10.0)
def set_key(
    client: ControlClient, cache: str, key: str, value: str, as_text: bool, ttl: float | None, timeout: float
) -> None:
    """Write KEY; done when all its copies have it."""
    client.call("cache.set", cache=cache, key=key, value=value_of(value, as_text), ttl=ttl, timeout=timeout)


@cache.command()
@click.argument("cache")
@click.argument("key")
@choosing
@timed(10.0)
def delete(client: ControlClient, cache: str, key: str, timeout: float) -> None:
    """Delete KEY. Exit code 1 if it is not there."""
    client.call("cache.delete", cache=cache, key=key, timeout=timeout)


@cache.command()
@click.argument("cache")
@choosing
@as_json
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="No more than that.")
@timed(10.0)
def keys(client: ControlClient, cache: str, as_json: bool, limit: int, timeout: float) -> None:
    """List the keys of CACHE."""
    found = client.call("cache.keys", cache=cache, limit=limit, timeout=timeout)
    if as_json:
        say_json(found["keys"])
    else:
        for key in found["keys"]:
            line(key)
    if found["more"]:
        say(f"there are more than {limit}; --limit asks for them", err=True)
    elif not found["keys"] and not as_json:
        say("no keys", err=True)


@cache.command()
@click.argument("cache")
@choosing
@as_json
@timed(10.0)
def stats(client: ControlClient, cache: str, as_json: bool, timeout: float) -> None:
    """Tell what every agent holds of CACHE, and what it was asked as primary."""
    found: dict[str, Any] = client.call("cache.stats", cache=cache, timeout=timeout)
    if as_json:
        say_json(found)
    else:
        rows = [{"node": node, **(numbers or {})} for node, numbers in sorted(found.items())]
        table(rows, _STATS, "nobody holds it", as_json)


COMMANDS = (cache,)
