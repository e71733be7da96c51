"""Commands about what a cluster shares: services, settings and keys."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Any

import click

from .._keylike import MISPLACED, file_name, masked
from .._runtime.host.settings_sources import read_key
from ..agentconfig import parse_key
from ..config import weakness
from ..control import ControlClient
from ..exceptions import ConfigError
from .ask import value_of
from .choose import FileName, as_json, as_text, choosing, timed
from .errors import FAILED
from .output import line, pairs, result, say, say_json, table

__all__ = ["COMMANDS", "key_from"]

_SERVICES = ("name", "node", "host", "port", "healthy", "meta", "id")


# -- services ---------------------------------------------------------------------------------------


@click.group()
def services() -> None:
    """Services that agents have registered."""


@services.command("list")
@click.argument("name", required=False)
@choosing
@as_json
@click.option("--healthy", is_flag=True, help="Only those whose check passes.")
def list_services(client: ControlClient, name: str | None, healthy: bool, as_json: bool) -> None:
    """List the services called NAME, or all."""
    table(client.call("services.list", name=name, healthy=healthy), _SERVICES, "no services", as_json)


@services.command()
@click.argument("name")
@choosing
@click.option("--id", "number", metavar="ID", help="Unique at the agent; NAME if not given.")
@click.option("--port", type=click.IntRange(1, 65535), help="Where it listens.")
@click.option("--meta", metavar="VALUE", help="Whatever else there is to know.")
@timed(10.0)
def register(
    client: ControlClient, name: str, number: str | None, port: int | None, meta: str | None, timeout: float
) -> None:
    """Register a service at the agent. It goes when the agent does."""
    more = {"id": number, "port": port, "meta": value_of(meta, False), "timeout": timeout}
    client.call("services.register", name=name, **more)


@services.command()
@click.argument("number", metavar="ID")
@choosing
@timed(10.0)
def deregister(client: ControlClient, number: str, timeout: float) -> None:
    """Withdraw what was registered at the agent with this command line."""
    client.call("services.deregister", id=number, timeout=timeout)


# -- settings ---------------------------------------------------------------------------------------


@click.group()
def settings() -> None:
    """Small values that the whole cluster shares."""


@settings.command("list")
@choosing
@as_json
def list_settings(client: ControlClient, as_json: bool) -> None:
    """List all settings."""
    found = dict(sorted(client.call("settings.list").items()))
    if found or as_json:
        pairs(found, as_json)
    else:
        say("no settings", err=True)


@settings.command("get")
@click.argument("key")
@choosing
@as_json
def get_setting(client: ControlClient, key: str, as_json: bool) -> None:
    """Print the value of a setting: text as it is, anything else as JSON."""
    result(client.call("settings.get", key=key), as_json)


@settings.command("set")
@click.argument("key")
@click.argument("value")
@choosing
@as_text
@timed(10.0)
def set_setting(client: ControlClient, key: str, value: str, as_text: bool, timeout: float) -> None:
    """Set a setting for the whole cluster."""
    client.call("settings.set", key=key, value=value_of(value, as_text), timeout=timeout)


@settings.command("delete")
@click.argument("key")
@choosing
@timed(10.0)
def delete_setting(client: ControlClient, key: str, timeout: float) -> None:
    """Delete a setting for the whole cluster."""
    client.call("settings.delete", key=key, timeout=timeout)


# -- keys -------------------------------------------------------------------------------------------


@click.command()
@click.option("--bytes", "size", type=click.Choice(["16", "24", "32"]), default="32", show_default=True)
@click.option("--out", type=FileName(), help="Write it to a new file that only you can read.")
def keygen(size: str, out: str | None) -> None:
    """Make a key for a new cluster."""
    while weakness(drawn := os.urandom(int(size))) is not None:
        pass  # text by chance: it would be refused
    key = base64.b64encode(drawn).decode()
    if out is None:
        say(key)
        return
    if masked(out) != out:
        raise click.UsageError(f"--out: {MISPLACED}")  # else the name of the new file would show it
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise click.UsageError(f"{file_name(out)} is there already; a key that is overwritten is lost") from None
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(key + "\n")


def key_from(key_file: str | None, prompt: bool) -> bytes | None:
    """Return the key of a file or, hidden, of whoever types it; None if neither is asked for.

    Raises:
        ConfigError: it is none, or the file is open to others.
    """
    if key_file is not None:
        return read_key(key_file)
    if prompt:
        return parse_key(str(click.prompt("Key", hide_input=True, err=True)))
    return None


def _which(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name a key. Never an argument: others see those in the process list."""
    options = (
        click.option("--key-file", type=FileName(exists=True), help="The file that holds the key."),
        click.option("--prompt", is_flag=True, help="Ask for the key."),
    )
    for option in options:
        function = option(function)
    return function


@click.group()
def keys() -> None:
    """Keys of the cluster: add the new one, use it, remove the old one."""


def _report(found: dict[str, Any], as_json: bool) -> None:
    """Print an outcome for each node; exit 1 if one failed."""
    failed = {node: told["text"] for node, told in found.items() if isinstance(told, dict) and "error" in told}
    pairs(found if as_json else {node: failed.get(node, "done") for node in found}, as_json)
    if failed:
        click.get_current_context().exit(FAILED)


@keys.command("list")
@choosing
@as_json
def list_keys(client: ControlClient, as_json: bool) -> None:
    """List fingerprints of the agent's keys, the one in use first."""
    found = client.call("keys.list")
    if as_json:
        say_json(found)
        return
    for number in found:
        line(number)
    if not found:
        say("no keys", err=True)


def _changer(verb: str, about: str) -> click.Command:
    @keys.command(verb, help=about)
    @choosing
    @_which
    @as_json
    @timed(10.0)
    def change(client: ControlClient, key_file: str | None, prompt: bool, as_json: bool, timeout: float) -> None:
        key = key_from(key_file, prompt)
        if key is None:
            raise ConfigError("key", "is missing", hint="give --key-file FILE, or --prompt")
        _report(client.call(f"keys.{verb}", key=key, timeout=timeout), as_json)

    return change


_changer("add", "Install a key on every node; nobody encrypts with it yet.")
_changer("use", "Have every node encrypt with a key that all have.")
_changer("remove", "Have every node forget a key that nobody encrypts with.")

COMMANDS = (services, settings, keygen, keys)
