"""The command ``mycorrizal``: its subcommands, and how each ends."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click
from click.shell_completion import get_completion_class

from ..exceptions import MycorrizalError
from . import ask, caches, run, state, watch
from .errors import FAILED, INTERRUPTED, USAGE, exit_code
from .output import shown

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


class App(click.Group):
    """A group whose every end is one sentence on standard error and a code."""

    def main(self, *args: Any, **more: Any) -> NoReturn:
        """Run, and end the process with one of the documented codes."""
        more["standalone_mode"] = False
        try:
            code = super().main(*args, **more)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except MycorrizalError as error:
            click.echo(f"Error: {_lines(error)}", err=True)
            sys.exit(exit_code(error))
        except OSError as error:
            click.echo(f"Error: {shown(str(error))}", err=True)
            sys.exit(FAILED)
        sys.exit(code if isinstance(code, int) else 0)


def _lines(error: Exception) -> str:
    return "\n".join(shown(text) for text in str(error).splitlines())


@click.group(cls=App, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="mycorrizal", prog_name="mycorrizal")
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
        click.echo(f"no completion for {shell}", err=True)
        sys.exit(USAGE)
    click.echo(kind(app, {}, "mycorrizal", "_MYCORRIZAL_COMPLETE").source())


for _module in (run, ask, state, caches, watch):
    for _command in _module.COMMANDS:
        app.add_command(_command)
