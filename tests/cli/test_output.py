"""What the command line prints, whatever others call themselves and send: printable, JSON that is JSON, and no key."""

from __future__ import annotations

import ast
import base64
import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import mycorrizal.cli
from mycorrizal import Node, NodeState
from mycorrizal.cli import demo, output
from mycorrizal.cli.app import app
from mycorrizal.cli.watch import told
from mycorrizal.control import ControlClient, ControlEvent
from mycorrizal.exceptions import ControlError
from tests._control.fake import FakeAgent, FakeMember

from .conftest import Run

Start = Callable[..., FakeAgent]

VALUE = "\x1b\x07\x7f\x85\x9b\u061c\u202e\u2066\u2028[bold]x[/bold] :smile:"
KEY = base64.b64encode(bytes(range(7, 39))).decode()
HEX = bytes(range(7, 39)).hex()


def printable(text: str) -> bool:
    return text.replace("\n", "").isprintable()


# -- nothing steers a terminal -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("members",), ("request", "bob", "echo", "x"), ("settings", "list"), ("settings", "get", "k"), ("health",),
        ("cache", "get", "features", "k"), ("cache", "keys", "features"), ("services", "list"), ("metrics",),
    ],
)  # fmt: skip
def test_what_an_agent_answers(run: Run, monkeypatch: pytest.MonkeyPatch, start: Start, arguments: Any) -> None:
    start("alice")
    answer: Any = {"members": [{"name": VALUE, "tags": {VALUE: VALUE}}], "services": [{"name": VALUE, "meta": [VALUE]}]}
    found = answer.get(arguments[0], VALUE if arguments[1:] and arguments[1] != "list" else {VALUE: [VALUE]})
    if arguments[:2] == ("cache", "keys"):
        found = {"keys": [VALUE], "more": False}
    monkeypatch.setattr(ControlClient, "call", lambda *given, **more: found)
    people, program = run(*arguments), run(*arguments, "--json")
    assert people.exit_code == program.exit_code == 0
    assert printable(people.stdout) and printable(program.stdout)
    assert "[bold]x[/bold] :smile:" in people.stdout
    assert json.loads(program.stdout) == (found["keys"] if "more" in found else found)


@pytest.mark.parametrize("topic", ["event.user.x", "event.member_joined"])
def test_events(topic: str) -> None:
    value = {"sender": VALUE, "topic": VALUE, "value": VALUE, "node": {"name": VALUE}, VALUE: VALUE}
    text = output.shown(told(ControlEvent(topic + VALUE, value, 1, 1, "", 3)))
    assert text.isprintable() and "[bold]" in text


def test_errors_of_others_are_printable_and_begin_no_line(
    run: Run, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("alice")

    def fail(*given: object, **more: object) -> None:
        raise ControlError("failed", f"bob: {VALUE}\nError: do this\nTraceback")

    monkeypatch.setattr(ControlClient, "call", fail)
    done = run("members")
    assert done.exit_code == 1 and printable(done.stderr)
    assert [text[:2] for text in done.stderr.splitlines()[1:]] == ["  "] * (len(done.stderr.splitlines()) - 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("dan\x1bce",), ("members", "--no\x9b"), ("members", "extra\x1b\u202e"), ("members", "--wait", "\x1b[2J"),
        ("keygen", "--bytes", "\x7f"), ("tags", "\x1b"), ("agent", "--key-file", "/\x1b\u2028"), ("completion", "\x85"),
        ("keygen", "--out", "/no/\x1b\u202e"), ("agent", "--name", "a/\x1b"), ("agent", "--bind", "\x9b"),
    ],
)  # fmt: skip
def test_errors_about_arguments(run: Run, start: Start, arguments: Any) -> None:
    start("alice")
    done = run(*arguments)
    assert done.exit_code in (1, 2) and "Error: " in done.stderr
    assert printable(done.stderr) and done.stdout == ""


def test_line_of_the_demo_is_printable() -> None:
    said: list[str] = []
    stage = demo.Stage(said.append)
    stage.say("alice", demo.TELL["told"]({"sender": VALUE, "topic": VALUE, "value": VALUE}))
    stage.close()
    assert said[0].isprintable() and "[bold]" in said[0]


def test_logs_that_nobody_else_prints_are_printable(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--version")
    assert logging.lastResort is not None
    record = logging.LogRecord("other", logging.WARNING, "", 0, "! %s", (VALUE,), None)
    logging.lastResort.handle(record)
    assert printable(capsys.readouterr().err)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_terminal_that_does_not_have_all_letters(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: list[Callable[[str], None]] = [output.say_json, output.line, lambda text: output.pairs({text: text}, False)]
    for print_it in ways:
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, newline="\n"))
        print_it("日本 é\x9b")
        text = raw.getvalue().decode("utf-8" if encoding == "ascii" else encoding)
        assert printable(text)
        assert print_it is not output.say_json or json.loads(text) == "日本 é\x9b"


def test_table_with_columns_of_all_states(run: Run, start: Start) -> None:
    agent = start()
    agent.everyone = [FakeMember(VALUE, tags={VALUE: VALUE}, state=NodeState.SUSPECT, node=Node("x", b"", 1))]
    done = run("members")
    assert printable(done.stdout) and len(done.stdout.splitlines()) == 2


def test_every_line_goes_through_the_two_that_print() -> None:
    """Whatever prints besides ``say`` and ``say_json`` is named here, with the reason."""
    allowed = {
        ("output.py", "click.echo"): "they are defined there",
        ("output.py", "console.print"): "into a buffer",
        ("demo.py", "sys.stdout.write"): "JSON in ASCII, which the director reads",
        ("app.py", "error.show"): "into a buffer",
        ("keyfiles.py", "file.write"): "a key into its file",
    }
    found = set()
    for path in Path(mycorrizal.cli.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name.rpartition(".")[2] in ("echo", "secho", "print", "write", "writelines", "show"):
                    found.add((path.name, name))
    assert found == set(allowed)


# -- no key in what is printed -----------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, HEX, KEY.rstrip("=")])
@pytest.mark.parametrize(
    "arguments",
    [
        ("agent", "--key-file", "{}"), ("agent", "--config-file", "{}"), ("keys", "add", "--key-file", "{}"),
        ("keygen", "--out", "{}"), ("keygen", "--out", "/no/such/{}"), ("keys", "add", "{}"), ("keys", "{}"), ("{}",),
        ("keys", "add", "--key={}"), ("agent", "--key", "{}"), ("agent", "{}"), ("agent", "--port", "{}"),
        ("agent", "--bind", "{}"), ("agent", "--advertise", "{}"), ("agent", "--wire", "{}"), ("tags", "={}"),
        ("agent", "--{}"), ("members", "--wait", "{}"), ("keygen", "--bytes", "{}"), ("agent", "--name", "/{}"),
        ("agent", "--join", "{}://x"), ("agent", "--tag", "={}"), ("agent", "--join-timeout", "{}"),
    ],
)  # fmt: skip
def test_key_as_an_argument_is_not_printed(
    run: Run, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "keys" in arguments or "members" in arguments or "tags" in arguments:
        start("alice")
    done = run(*(text.format(key) for text in arguments))
    assert done.exit_code in (1, 2) and "Error: " in done.stderr
    assert key[:12] not in done.output, done.output
    assert not any(key[:12] in path.name for path in tmp_path.iterdir())


def test_what_went_wrong_with_a_key_is_said(run: Run, start: Start) -> None:
    start("alice")
    for arguments in (("agent", "--key-file", KEY), ("keys", "use", "--key-file", HEX), ("keygen", "--out", KEY)):
        done = run(*arguments)
        assert done.exit_code == 2 and "a key may have been put where the name of a file belongs" in done.stderr
    done = run("keys", "add", KEY)
    assert "(not shown: it may be a key)" in done.stderr and "others can read a command line" in done.stderr
    assert "missing.key' does not exist" in run("agent", "--key-file", "missing.key").stderr


def test_agent_whose_name_is_a_uuid_is_named(run: Run, start: Start) -> None:
    name = "0f8fad5bd9cb469fa16570867728950e"
    start(name)
    start("alice")
    assert f"--agent {name}" in run("info").stderr
    assert f"--agent {name}" in run("members", "--agent", "bob").stderr


def test_nothing_in_the_help_is_taken_for_a_key(run: Run) -> None:
    def walk(command: click.Command, *path: str) -> None:
        assert "not shown" not in run(*path, "--nonsense").stderr
        for name, more in getattr(command, "commands", {}).items():
            walk(more, *path, name)

    walk(app)
    assert "not shown" not in run().output
