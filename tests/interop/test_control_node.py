"""The client in JavaScript that docs/control.md shows, run by Node against an agent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mycorrizal import Agent
from mycorrizal._runtime.rundir import RuntimeDir
from mycorrizal.control import CODES, COMMANDS
from tests.needs import lacks

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "control.md"
PACKAGES = {"zeromq": "6.8.0", "cbor-x": "1.6.9"}
"""Versions that were tried; both bring their binaries, so no script of theirs has to run."""


def example() -> str:
    """Return the program on the page."""
    (found,) = re.findall(r"```js\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return str(found)


@pytest.fixture(scope="session")
def modules(need_peer: Callable[[str], str]) -> Path:
    """Return a directory with the packages, installed once."""
    npm = need_peer("npm")
    folder = Path(tempfile.gettempdir()) / f"mycorrizal-npm-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    wanted = json.dumps({"name": "watch", "private": True, "dependencies": PACKAGES})
    done = folder / "installed.json"
    if done.exists() and done.read_text() == wanted:
        return folder
    (folder / "package.json").write_text(wanted)
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    try:
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=150)
        trouble = made.stderr if made.returncode else ""
    except subprocess.TimeoutExpired:
        trouble = "npm install took too long"
    if trouble:
        lacks(f"npm cannot install what the page needs; is there a network? {trouble[-300:]}")
    done.write_text(wanted)
    return folder


def test_the_example_does_what_the_page_says(
    modules: Path, need_peer: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = modules / "watch.mjs"
    script.write_text(example())
    with tempfile.TemporaryDirectory(prefix="myc-") as folder:
        monkeypatch.setenv("MYCORRIZAL_RUNTIME_DIR", f"{folder}/run")
        with Agent("alice", config_file=False) as agent:
            (record,) = RuntimeDir(create=False).agents()
            assert record.control is not None
            command = [need_peer("node"), str(script), record.control]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            port = agent.address[1]
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"alice is alive at 127.0.0.1:{port}",
        "limit is 5",
        "not_found: there is no setting 'nothing' (settings.list tells which there are)",
        'event.user.deploy #1 {"topic":"deploy","value":{"version":7},"sender":"alice","number":1}',
    ]


def test_the_page_has_every_command_and_code() -> None:
    text = PAGE.read_text("utf-8")
    rows = set(re.findall(r"`([a-z_.]+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    assert set(COMMANDS) <= rows
    assert {f"| `{code}` | {meaning} |" for code, meaning in CODES.items()} <= set(text.splitlines())
