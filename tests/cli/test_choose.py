"""Completion of agents, clusters and nodes; never an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from mycorrizal.cli.app import app
from tests._control.fake import FakeAgent

Start = Callable[..., FakeAgent]


def completed(*words: str) -> list[str]:
    """Return what would be offered for the last of `words`."""
    shell = ShellComplete(app, {}, "mycorrizal", "_MYCORRIZAL_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


def test_agents_clusters_and_nodes(start: Start) -> None:
    start("alice", "prod")
    assert completed("members", "--agent", "") == ["alice"]
    assert completed("members", "--cluster", "pr") == ["prod"]
    assert completed("members", "--cluster", "x") == []
    assert completed("send", "") == ["alice", "bob"]
    assert completed("request", "--agent", "alice", "b") == ["bob"]
    start("dave", "test")
    assert completed("send", "") == []  # which one is meant is not known
    assert completed("send", "--cluster", "prod", "b") == ["bob"]
    assert completed("members", "--agent", "") == ["alice", "dave"]


def test_without_agents_nothing_is_offered(folder: Path) -> None:
    assert completed("members", "--agent", "") == completed("send", "") == []


def test_directory_that_is_refused_offers_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    assert completed("members", "--agent", "") == completed("send", "") == []


def test_every_command_has_help() -> None:
    def walk(command: click.Command) -> None:
        assert command.help, command.name
        for more in getattr(command, "commands", {}).values():
            walk(more)

    walk(app)
