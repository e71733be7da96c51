"""Every command against a fake agent behind a real control plane: output, JSON, exit codes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from mycorrizal import Node, NodeState, __version__
from mycorrizal._runtime.control import client as control_client
from mycorrizal._runtime.host.build import build
from mycorrizal.cli.app import app
from mycorrizal.control import ControlClient
from tests._control.fake import FakeAgent, FakeMember

from .conftest import Run

Start = Callable[..., FakeAgent]

# -- which agent ------------------------------------------------------------------------------------


def test_no_agent_is_exit_3_and_says_how_to_start_one(run: Run) -> None:
    done = run("members")
    assert done.exit_code == 3
    assert done.stderr == "Error: No agent of yours runs on this host; start one with: mycorrizal agent\n"


def test_version_says_which_build_it_is(run: Run) -> None:
    done = run("--version")
    assert done.exit_code == 0 and f"version {__version__} (build {build()})" in done.stdout


def test_one_agent_needs_no_option(run: Run, start: Start) -> None:
    start("alice")
    assert run("members").exit_code == 0


def test_members_that_are_gone(run: Run, start: Start) -> None:
    agent = start("alice")
    agent.gone = [FakeMember("carol", state=NodeState.DEAD, since=1.5e9)]
    done = run("members", "--all")
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("carol")]
    assert "dead" in row and row.endswith("2017-07-14 02:40:00Z")
    assert "GONE SINCE" in done.stdout
    assert "carol" not in run("members").stdout
    told = json.loads(run("members", "--all", "--json").stdout)
    assert [(one["name"], one["since"]) for one in told] == [("alice", None), ("bob", None), ("carol", 1.5e9)]


def test_several_agents_are_listed_as_what_to_type(run: Run, start: Start) -> None:
    start("alice", "one")
    start("alice", "two")
    done = run("members")
    assert done.exit_code == 2
    assert "  --agent alice --cluster one\n  --agent alice --cluster two\n" in done.stderr
    assert run("members", "--agent", "alice").exit_code == 2
    assert run("members", "--cluster", "two").exit_code == 0
    assert json.loads(run("info", "--json", "--cluster", "two").stdout)["cluster"] == "two"


ABOUT_ONE_AGENT = [
    ["info"], ["status"], ["health"], ["metrics"], ["peers"], ["keys", "list"], ["send", "bob", "1"],
    ["broadcast", "x"], ["services", "register", "web"], ["services", "deregister", "web"], ["tags", "a=b"],
    ["join", "h"], ["leave"], ["shutdown"], ["cache", "create", "c"],
]  # fmt: skip


def test_any_agent_of_a_cluster_answers_what_all_know(
    run: Run, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = [start("bob", "one"), start("alice", "one", control=False), start("carol", "one")]
    for arguments in (["members"], ["settings", "list"], ["cache", "list"], ["services", "list"]):
        assert run(*arguments).exit_code == 0
    assert run("settings", "set", "a", "1").exit_code == 0
    assert agents[0].settings == {"a": 1}  # by name, of those that have a control plane
    for arguments in ABOUT_ONE_AGENT:
        done = run(*arguments)
        assert done.exit_code == 2 and "--agent carol --cluster one" in done.stderr
    monkeypatch.setenv("MYCORRIZAL_AGENT", "carol")
    assert json.loads(run("info", "--json").stdout)["name"] == "carol"
    assert json.loads(run("info", "--json", "--agent", "bob").stdout)["name"] == "bob"
    assert run("settings", "set", "b", "2").exit_code == 0
    assert agents[2].settings == {"b": 2}
    monkeypatch.setenv("MYCORRIZAL_AGENT", "")
    assert run("members").exit_code == 0
    start("dave", "two")
    assert run("members").exit_code == 2


def test_status_tells_all_in_short(run: Run, start: Start) -> None:
    agent = start("alice")
    agent.services.register("web", port=80)
    agent.settings["a"] = 1
    found = json.loads(run("status", "--json").stdout)
    assert found["members"] == {"alive": 2} and found["caches"] == ["features"]
    assert (found["services"], found["services_ill"], found["settings"], found["problems"]) == (1, [], 1, [])
    done = run("status")
    assert done.exit_code == 0 and done.stdout.endswith("\nall is well\n")
    assert "members       2 alive\n" in done.stdout
    agent.problems = ("no answer lately from bob",)
    done = run("status")
    assert done.exit_code == 1 and done.stdout.endswith("problems\n  1  no answer lately from bob\n")


def test_members_are_printed_anew_when_they_change(
    run: Run, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = start("alice")
    looks = []
    real = ControlClient.call

    def call(self: ControlClient, command: str, /, **arguments: object) -> object:
        looks.append(command)
        if looks.count("members") == 3:
            agent.everyone.append(FakeMember("carol"))
        if looks.count("members") == 5:
            raise KeyboardInterrupt
        return real(self, command, **arguments)

    monkeypatch.setattr(ControlClient, "call", call)
    monkeypatch.setattr("mycorrizal.cli.members.WATCH_SECONDS", 0.0)
    done = run("members", "--watch", "--json")
    assert done.exit_code == 130
    assert [[one["name"] for one in json.loads(line)] for line in done.stdout.splitlines()] == [
        ["alice", "bob"],
        ["alice", "bob", "carol"],
    ]


def test_manual_page_has_every_command_and_option(run: Run, tmp_path: Path) -> None:
    done = run("man")
    assert done.exit_code == 0
    assert all(len(line) < 400 and (line[:1] != "'") for line in done.stdout.splitlines())
    text = done.stdout.replace("\\-", "-")

    def walk(context: click.Context) -> None:
        assert isinstance(context.command, click.Group)
        for name, command in context.command.commands.items():
            below = click.Context(command, info_name=name, parent=context)
            if isinstance(command, click.Group):
                walk(below)
                continue
            assert f'.SS "{below.command_path}' in text
            for parameter in command.params:
                if isinstance(parameter, click.Option):
                    assert parameter.opts[0] in text

    walk(click.Context(app, info_name="mycorrizal"))
    if (groff := shutil.which("groff")) is not None:
        page = tmp_path / "mycorrizal.1"
        page.write_text(done.stdout)
        command = [str(groff), "-man", "-Tascii", "-ww", "-z", str(page)]
        drawn = subprocess.run(command, capture_output=True, text=True, check=True)
        assert drawn.stderr == ""


def test_agent_that_is_not_there_is_exit_3_and_says_which_are(run: Run, start: Start) -> None:
    start("alice")
    done = run("members", "--agent", "bob", "--cluster", "x")
    assert done.exit_code == 3
    assert "No agent bob in cluster x runs on this host" in done.stderr and "--agent alice" in done.stderr


def test_agent_without_control_says_so(run: Run, start: Start) -> None:
    start("alice", control=False)
    done = run("members")
    assert done.exit_code == 3 and "control=False" in done.stderr


def test_agent_that_has_just_died_is_exit_3(run: Run, start: Start) -> None:
    agent = start("alice")
    folder = Path(os.environ["MYCORRIZAL_RUNTIME_DIR"])
    for path in folder.glob("*.control"):
        path.unlink()
    done = run("members")
    assert done.exit_code == 3 and "no agent answers" in done.stderr
    assert agent.calls == []


# -- asking ------------------------------------------------------------------------------------------


def test_members_as_table_and_as_json(run: Run, start: Start) -> None:
    start()
    done = run("members")
    assert done.stdout.splitlines() == [
        "NAME   HOST       PORT  QUIC PORT  STATE  TAGS",
        "alice  127.0.0.1  7946  9000       alive  role=web",
        "bob    127.0.0.1  7946  9000       alive",
    ]
    members = json.loads(run("members", "--json").stdout)
    assert [(one["name"], one["tags"]) for one in members] == [("alice", {"role": "web"}), ("bob", {})]


def test_names_of_others_cannot_steer_the_terminal(run: Run, start: Start) -> None:
    agent = start()
    evil = "e\x1b[2J[bold]\n"
    agent.everyone = [FakeMember(evil, tags={evil: evil}, state=NodeState.SUSPECT, node=Node(evil, b"", 1))]
    done = run("members")
    assert "\x1b" not in done.stdout and r"e\x1b[2J[bold]\n" in done.stdout
    assert len(done.stdout.splitlines()) == 2


def test_waiting_for_members(run: Run, start: Start) -> None:
    start()
    assert run("members", "--wait", "2").exit_code == 0
    done = run("members", "--wait", "9", "--timeout", "1")
    assert done.exit_code == 4 and "2 members, not 9" in done.stderr


def test_what_the_agent_tells_of_itself(run: Run, start: Start) -> None:
    agent = start()
    assert "name       alice" in run("info").stdout
    assert json.loads(run("health", "--json").stdout) == {"score": 0, "members": 2, "problems": []}
    assert run("health").stdout == "score     0\nmembers   2\nproblems  []\n"
    agent.problems = ("no answer lately from bob",)
    assert run("health").exit_code == 1
    assert json.loads(run("metrics", "--json").stdout) == {"events.lost": 0}
    assert json.loads(run("peers", "--json").stdout) == []
    done = run("peers")
    assert (done.stdout, done.stderr) == ("", "no connections\n")


def test_send_takes_json_text_and_stdin(run: Run, start: Start) -> None:
    agent = start()
    for arguments, text in (
        (["bob", '{"a": 1}'], None),
        (["bob", "hello"], None),
        (["bob", "5", "--text"], None),
        (["bob", "-"], "[1, 2]"),
    ):
        done = run("send", *arguments, text=text)
        assert (done.exit_code, done.stdout) == (0, "")
    assert [call[2] for call in agent.calls] == [{"a": 1}, "hello", "5", [1, 2]]
    assert run("send", "bob").exit_code == 2


def test_request_prints_the_answer(run: Run, start: Start) -> None:
    agent = start()
    assert run("request", "bob", "echo", "hello").stdout == "hello\n"
    assert run("request", "bob", "echo", "hello", "--json").stdout == '"hello"\n'
    assert json.loads(run("request", "bob", "echo", "[1, null]").stdout) == [1, None]
    assert run("request", "bob", "echo").stdout == "null\n"
    agent.handlers["raw"] = lambda value: b"\0"
    assert json.loads(run("request", "bob", "raw").stdout) == {"base64": "AA=="}
    done = run("request", "bob", "unknown")
    assert done.exit_code == 1 and done.stderr == "Error: bob has no handler 'unknown'\n"


def test_value_that_is_too_large_is_exit_1(run: Run, start: Start) -> None:
    start()
    done = run("send", "bob", "-", text="x" * (2 << 20))
    assert done.exit_code == 1 and "1048576 are the most" in done.stderr


def test_the_agent_itself(run: Run, start: Start) -> None:
    agent = start()
    assert run("tags", "role=db", "note=a=b").exit_code == 0
    assert run("tags", "role").exit_code == 2
    assert run("join", "10.0.0.1", "10.0.0.9").exit_code == 0
    done = run("join", "10.0.0.9")
    assert (done.exit_code, done.stderr) == (1, "Error: nobody there\n")
    assert run("leave").exit_code == 0
    assert [call[0] for call in agent.calls] == ["update_tags", "join", "join", "leave"]
    assert agent.calls[0][1] == {"role": "db", "note": "a=b"}
    assert run("shutdown", "--no-leave").exit_code == 0
    assert agent.closed.wait(10) and len(agent.calls) == 4


# -- shared state ------------------------------------------------------------------------------------


def test_services(run: Run, start: Start) -> None:
    start()
    assert run("services", "list").stderr == "no services\n"
    assert run("services", "register", "web", "--port", "80", "--meta", '{"v": 1}', "--id", "w1").exit_code == 0
    (found,) = json.loads(run("services", "list", "web", "--json").stdout)
    assert (found["id"], found["port"], found["meta"]) == ("w1", 80, {"v": 1})
    assert run("services", "list").stdout.splitlines()[1].startswith("web   alice  127.0.0.1  80    true     v=1")
    assert run("services", "deregister", "w1").exit_code == 0
    done = run("services", "deregister", "w1")
    assert done.exit_code == 1 and "no service 'w1'" in done.stderr


def test_settings(run: Run, start: Start) -> None:
    start()
    assert run("settings", "list").stderr == "no settings\n"
    assert json.loads(run("settings", "list", "--json").stdout) == {}
    run("settings", "set", "limit", "5")
    run("settings", "set", "mode", "fast")
    assert run("settings", "get", "limit").stdout == "5\n"
    assert run("settings", "get", "mode").stdout == "fast\n"
    assert run("settings", "list").stdout == "limit  5\nmode   fast\n"
    assert run("settings", "delete", "mode").exit_code == 0
    assert run("settings", "get", "mode").exit_code == 1


def test_key_comes_from_a_private_file_or_a_prompt_and_never_from_an_argument(
    run: Run, start: Start, tmp_path: Path
) -> None:
    agent = start()
    path = tmp_path / "key"
    assert run("keygen", "--out", str(path)).stdout == ""
    assert path.stat().st_mode & 0o777 == 0o600
    key = base64.b64decode(path.read_text())
    assert run("keygen", "--out", str(path)).exit_code == 2
    done = run("keys", "add", "--key-file", str(path))
    assert done.exit_code == 1  # bob did not answer
    assert done.stdout == "alice  done\nbob    no answer from bob\n"
    done = run("keys", "use", "--prompt", "--json", text=path.read_text())
    assert json.loads(done.stdout) == {"alice": True} and path.read_text().strip() not in done.output
    assert agent.keys.calls == [("add", key), ("use", key)]
    assert run("keys", "remove").exit_code == 2
    assert run("keys", "remove", path.read_text()).exit_code == 2
    path.chmod(0o644)
    done = run("keys", "remove", "--key-file", str(path))
    assert done.exit_code == 2 and "chmod 600" in done.stderr
    assert run("keys", "list").stdout.split() == json.loads(run("keys", "list", "--json").stdout)


def test_weak_key_is_the_agent_s_to_judge_so_that_it_can_be_removed(run: Run, start: Start, tmp_path: Path) -> None:
    agent = start()
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(b"correct horse battery staple 123")
    assert run("keys", "remove", "--key-file", str(path)).exit_code == 0
    assert agent.keys.calls == [("remove", b"correct horse battery staple 123")]


def test_keygen_draws_again_what_would_be_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [b"text by chance!!", bytes(range(16))]
    monkeypatch.setattr(os, "urandom", lambda size: drawn.pop(0))
    assert base64.b64decode(run("keygen", "--bytes", "16").stdout) == bytes(range(16))


@pytest.mark.parametrize("size", [16, 24, 32])
def test_keygen_makes_another_key_each_time(run: Run, size: int) -> None:
    made = {run("keygen", "--bytes", str(size)).stdout for _ in range(3)}
    assert len(made) == 3
    assert {len(base64.b64decode(key)) for key in made} == {size}


# -- events ------------------------------------------------------------------------------------------


def test_events_as_json_lines_and_for_people(
    run: Run, start: Start, in_background: Callable[[Callable[[], object]], threading.Thread]
) -> None:
    agent = start()
    stop = threading.Event()

    def tell() -> None:
        while not stop.wait(0.01):
            agent.tell_join("carol")
            agent.broadcast("deploy", {"v": 1})

    teller = in_background(tell)
    done = run("events", "--json", "--count", "4")
    words = run("events", "user.deploy", "--count", "2")
    people = run("events", "member", "--count", "1")
    stop.set()
    teller.join(10)
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    assert {one["topic"] for one in lines} == {"event.member_joined", "event.user.deploy"}
    assert set(lines[0]) == {"topic", "value", "sequence", "topic_sequence", "publisher", "lost"}
    assert [text.split("  ", 1)[1] for text in words.stdout.splitlines()] == ["alice tells deploy: v=1"] * 2
    assert people.stdout.strip().endswith("member_joined carol")


def test_events_end_when_the_agent_does(
    run: Run,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    in_background: Callable[[Callable[[], object]], threading.Thread],
) -> None:
    agent = start()
    monkeypatch.setattr(control_client, "LOOK_SECONDS", 0.1)

    def end() -> None:
        while not agent.plane.metrics()["control.subscribers"]:
            pass
        agent.plane.close()

    in_background(end)
    done = run("events")
    assert done.exit_code == 3 and "has ended" in done.stderr


# -- the frame ---------------------------------------------------------------------------------------


def test_help_tells_the_exit_codes(run: Run) -> None:
    done = run("--help")
    assert done.exit_code == 0
    assert "3    no such agent runs on this host" in done.stdout
    assert run("dance").exit_code == 2
    assert run("members", "--nonsense").exit_code == 2
    assert "mycorrizal, version" in run("--version").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(run: Run, shell: str) -> None:
    done = run("completion", shell)
    assert done.exit_code == 0 and "_MYCORRIZAL_COMPLETE" in done.stdout


def completed(words: str, folder: Path) -> list[str]:
    """Return what bash would offer after `words`."""
    env = {**os.environ, "_MYCORRIZAL_COMPLETE": "bash_complete", "COMP_WORDS": words}
    env["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    done = subprocess.run(
        [sys.executable, "-m", "mycorrizal"], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_completion_knows_commands_agents_and_nodes(start: Start, folder: Path) -> None:
    start("alice", "prod")
    assert completed("mycorrizal mem", folder) == ["members"]
    assert completed("mycorrizal members --agent ", folder) == ["alice"]
    assert completed("mycorrizal members --cluster p", folder) == ["prod"]
    assert completed("mycorrizal send b", folder) == ["bob"]


def test_completion_without_agents_is_silent(folder: Path) -> None:
    assert completed("mycorrizal send b", folder) == []


def test_interruption_is_exit_130(run: Run, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = start()

    def interrupt(value: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ControlClient, "call", lambda *args, **more: interrupt(agent))
    assert run("members").exit_code == 130


WITHOUT = """
import sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name in ("click", "rich"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Gone())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in ("click", "rich") else real(name, *more)
sys.argv = ["mycorrizal", "members"]
import runpy
runpy.run_module("mycorrizal", run_name="__main__")
"""


def test_without_the_extra_one_sentence_says_how_to_get_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "The command line is an extra: pip install 'mycorrizal[cli]'\n"
