"""Keys of a cluster, as the command line makes and reads them: from a file or a prompt, never as an argument."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from typing import Any

import click

from .._keylike import MISPLACED, file_name, masked
from .._runtime.host.settings_sources import read_key
from .._runtime.threads.platform import BINARY, CLOEXEC
from ..agentconfig import parse_key
from ..config import weakness
from .choose import FileName
from .output import say

__all__ = ["COMMANDS", "key_from", "key_options"]


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
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CLOEXEC | BINARY, 0o600)
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


def key_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a subcommand the options that name a key."""
    options = (
        click.option("--key-file", type=FileName(exists=True), help="The file that holds the key."),
        click.option("--prompt", is_flag=True, help="Ask for the key."),
    )
    for option in options:
        function = option(function)
    return function


COMMANDS = (keygen,)
