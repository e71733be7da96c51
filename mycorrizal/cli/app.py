"""The command ``mycorrizal``: its subcommands, and how each ends."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any, NoReturn

import click
from click.shell_completion import get_completion_class

from .._keylike import file_name, masked
from .._runtime.host.build import build
from ..exceptions import MycorrizalError
from . import keyfiles, made, manual, members, run, watch, work
from .errors import FAILED, INTERRUPTED, USAGE, NoAgent, SeveralAgents, exit_code
from .output import PrintableLogs, say, shown
from .values import lines

__all__ = ["App", "app"]

_HELP = """Talk to the agents of this host, or run one.

An agent of yours that runs here is found by itself; --agent and --cluster
choose among several. Values are JSON; a bare word is text, - reads standard
input.

\b
Exit codes:
  0    done
  1    it failed; the text on standard error says how
  2    wrong usage
  3    no such agent runs on this host
  4    not done in time
  130  interrupted
"""


_ON_A_COMMAND_LINE = "If it was a key: others can read a command line, so make another one with: mycorrizal keygen"


class App(click.Group):
    """A group whose every end is one sentence on standard error and a code."""

    def main(self, *args: Any, **more: Any) -> NoReturn:
        """Run, and end the process with one of the documented codes."""
        more["standalone_mode"] = False
        if logging.lastResort is not None:
            logging.lastResort.setFormatter(PrintableLogs())
        try:
            code = super().main(*args, **more)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except click.ClickException as error:
            say(_told(error), err=True)
            sys.exit(error.exit_code)
        except MycorrizalError as error:
            # What a peer wrote goes on below the first line, and never begins one as we do.
            say(lines(f"Error: {error}").replace("\n", "\n  "), err=True)
            sys.exit(exit_code(error))
        except OSError as error:
            say(f"Error: {_about(error)}", err=True)
            sys.exit(FAILED)
        sys.exit(code if isinstance(code, int) else 0)


def _told(error: click.ClickException) -> str:
    """Return what click would print: usage and error, but nothing that steers a terminal, and no key."""
    buffer = io.StringIO()
    error.show(buffer)
    text = lines(buffer.getvalue().rstrip("\n"))
    if isinstance(error, NoAgent | SeveralAgents):  # they list names, which may be anything
        return masked(text, names=True)
    return text if masked(text) == text else f"{masked(text)}\n{_ON_A_COMMAND_LINE}"


def _about(error: OSError) -> str:
    if error.strerror is None:
        return shown(masked(str(error)))
    name = error.filename
    return shown(error.strerror if name is None else f"{error.strerror}: {file_name(str(name))}")


def _version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib import metadata  # late: no other command needs it

        say(f"mycorrizal, version {metadata.version('mycorrizal')} (build {build()})")
        context.exit()


@click.group(cls=App, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version,
    help="Show the version and which build it is, and exit.",
)  # fmt: skip
def app() -> None:
    """Talk to the agents of this host, or run one."""


@app.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes this command in a shell.

    \b
    bash: eval "$(mycorrizal completion bash)"     in ~/.bashrc
    zsh:  eval "$(mycorrizal completion zsh)"      in ~/.zshrc
    fish: mycorrizal completion fish | source      in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        say(f"no completion for {shell}", err=True)
        sys.exit(USAGE)
    say(kind(app, {}, "mycorrizal", "_MYCORRIZAL_COMPLETE").source())


for _module in (run, work, members, keyfiles, watch, manual):
    for _command in _module.COMMANDS:
        app.add_command(_command)
for _command in made.groups():
    app.add_command(_command)
