"""What went wrong, as one sentence and an exit code."""

from __future__ import annotations

import click

from ..exceptions import ConfigError, ControlError, MycorrizalError, OperationTimeout

__all__ = ["FAILED", "INTERRUPTED", "NO_AGENT", "TIMEOUT", "USAGE", "NoAgent", "SeveralAgents", "exit_code"]

FAILED = 1
USAGE = 2
NO_AGENT = 3
TIMEOUT = 4
INTERRUPTED = 130


class NoAgent(click.ClickException):
    """No agent runs on this host, or none of the given name."""

    exit_code = NO_AGENT


class SeveralAgents(click.UsageError):
    """Several agents run on this host, and which one is meant was not said."""


def exit_code(error: MycorrizalError) -> int:
    """Return what the process ends with for `error`."""
    if isinstance(error, ControlError):
        if error.code == "timeout":
            return TIMEOUT
        return USAGE if error.code in ("bad_arguments", "unknown_command") else FAILED
    if isinstance(error, OperationTimeout):
        return TIMEOUT
    return USAGE if isinstance(error, ConfigError) else FAILED
