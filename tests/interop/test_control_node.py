"""The client in JavaScript that docs/control.md shows, run by Node against an agent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import cbor2
import pytest

from mycorrizal import Agent
from mycorrizal._control.messages import decode_request, encode_reply
from mycorrizal._runtime.host.rundir import RuntimeDir
from mycorrizal.control import CODES, COMMANDS
from tests.needs import lacks

from .control_samples import SAMPLES, table

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "control.md"
PACKAGES = {"zeromq": "6.8.0", "cbor-x": "1.6.9", "cbor": "10.0.11"}
"""Versions that were tried; they bring their binaries, so no script of theirs has to run."""


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


READ = """
import fs from "fs"
import { Encoder } from "cbor-x"
import cbor from "cbor"
const options = { useRecords: false, variableMapSize: true, int64AsNumber: true }
const x = new Encoder(options)
const kind = (value) => {
  if (value === null) return "null"
  if (typeof value !== "object") return typeof value
  const name = value.constructor.name
  return name === "Tagged" ? "Tag" : name
}
const found = []
for (const hex of JSON.parse(fs.readFileSync(0))) {
  const data = Buffer.from(hex, "hex")
  found.push([kind(x.decode(data).result), kind(cbor.decodeFirstSync(data).result)])
}
const when = new Date(1764583054500)
const sent = [Date.now(), 2 ** 40, 7].map((id) => ({ id, command: "ping", arguments: { when } }))
console.log(JSON.stringify({ found, sent: sent.map((one) => x.encode(one).toString("hex")) }))
"""


def test_every_value_is_read_by_others(modules: Path, need_peer: Callable[[str], str]) -> None:
    script = modules / "read.mjs"
    script.write_text(READ)
    replies = json.dumps([encode_reply(1, sample.value).hex() for sample in SAMPLES])
    done = subprocess.run(
        [need_peer("node"), str(script)], input=replies, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["found"] == [[sample.x, sample.npm] for sample in SAMPLES]
    for data in map(bytes.fromhex, told["sent"]):
        request = decode_request(data)
        assert cbor2.loads(encode_reply(request.id, None))["id"] == cbor2.loads(data)["id"]
        assert str(request.arguments["when"]) == "2025-12-01 09:57:34.500000+00:00"


def test_the_page_has_the_table_of_values() -> None:
    assert table() in PAGE.read_text("utf-8")
    for sample in SAMPLES:
        assert cbor2.loads(encode_reply(1, sample.value))["ok"] is True, sample.what
