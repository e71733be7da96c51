"""Completion of agents, clusters and nodes; never an error."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from mycorrizal import Node
from mycorrizal.cli.app import app
from tests._control.fake import FakeAgent, FakeMember

from .conftest import Run

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


UNSAFE = [
    *(f"a{sign}b" for sign in "`;&| '\"\\><*?[]{}!#^=,()$~\t\n\x1b\x85\xa0\xe9\u202e\u2028"),
    *("a$(b)", "-a", "--help", "~a", "=a", "+a", "%1", "@a", ".a", ":a", "/a", "", "a\n"),
]


@pytest.mark.parametrize("name", UNSAFE)
def test_name_that_a_shell_may_take_for_more_than_a_name_is_not_offered(start: Start, name: str) -> None:
    agent = start("alice")
    agent.everyone = [FakeMember(name, node=Node(name or "x", b"\x7f\0\0\1", 1)), FakeMember("bob")]
    assert completed("send", "") == ["bob"]
    if name:
        start("dave", name)
        assert completed("members", "--cluster", "") == ["default"]
        shell = ShellComplete(app, {}, "mycorrizal", "_MYCORRIZAL_COMPLETE")
        helps = {item.value: item.help for item in shell.get_completions(["members", "--agent"], "")}
        assert helps == {"alice": "default", "dave": None}


@pytest.mark.parametrize("name", ["a", "Zoe.1", "a_b-c", "rack/1:2", "a@b", "a+b%c", "_x", "7"])
def test_safe_name_is_offered(start: Start, name: str) -> None:
    start("alice").everyone = [FakeMember(name)]
    assert completed("send", name[0]) == [name]


def test_list_of_agents_can_be_copied_into_a_shell(start: Start, run: Run) -> None:
    names = ["a$(touch b)", "d `touch e`", "it's;touch c", "plain"]
    for name in names:
        start(name, name)
    start("z", "z\n  --agent $(touch h)\x1b[2J\u202e")
    for done in (run("members"), run("members", "--agent", "nobody$(x)\x1b")):
        words = shlex.split(done.stderr.partition(":\n")[2])
        assert words[1:16:4] == words[3:16:4] == names
        assert words[16:] == ["--agent", "z", "--cluster", "z\\n  --agent $(touch h)\\x1b[2J\\u202e"]
        assert done.stderr.replace("\n", "").isprintable()


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
