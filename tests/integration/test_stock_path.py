"""An agent in a process where aioquic has lost a private name: it starts, says so, and everything works.

The name is taken away as a new release would do it: another one stands in its
place throughout aioquic, which works as before.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import Agent
from mycorrizal._runtime.quic.fast.aio import _PRIVATE

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures

RENAMED = str(Path(__file__).with_name("renamed.py"))
LIMIT = 120.0
"""For a process that does all there is, on a machine that is busy with other tests."""


EVERYTHING = ["request", "large", "answered", "message", "sent", "stream", "file", "cache"]


def child(*arguments: str) -> dict[str, Any]:
    """Run ``renamed.py`` and return what it found."""
    env = {name: value for name, value in os.environ.items() if name != "MYCORRIZAL_PACKET_PATH"}
    done = subprocess.run(
        [sys.executable, RENAMED, *arguments], env=env, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def serve(here: Agent, folder: Path) -> None:
    """Be the agent that the other one talks to."""

    def inbox(request: Any) -> Any:
        here.send(request.sender, "from here", timeout=60)
        return here.receive(60).value

    def echo(stream: Any) -> None:
        stream.write(stream.read())

    here.cache("shared")
    here.on_request("double")(lambda request: 2 * request.value)
    here.on_request("call back")(lambda request: here.request(request.sender, "triple", request.value, timeout=60))
    here.on_request("inbox")(inbox)
    here.on_request("file")(lambda request: here.receive_file(folder, 60).path.stat().st_size)
    here.on_request("cache")(lambda request: here.cache("shared").get(request.value))
    here.on_stream("echo")(echo)


# A name of a connection and one of a stream, as after a release that has renamed it, and one that is deleted outright.
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("_close_at", "QuicConnection._close_at"),
        ("_buffer_start", "QuicStreamSender._buffer_start"),
        ("aioquic.quic.congestion.base:register_congestion_control", "register_congestion_control"),
    ],
)
def test_an_agent_without_a_private_name_does_everything(
    agents: Make, name: str, told: str, tmp_path: Path  # noqa: F811
) -> None:
    here = agents("here")
    (tmp_path / "got").mkdir()
    serve(here, tmp_path / "got")
    found = child("agent", name, str(tmp_path))
    assert found["path"] == "stock" and found["metric"] == 1
    assert len(found["warnings"]) == 1 and told in found["warnings"][0]
    assert found["problems"] == [found["warnings"][0]] == [found["problem"]]
    assert found["done"] == EVERYTHING


NOT_RENAMED = {
    "_buffer",  # is also the name of a module that is no Python
    "_remote_max_data",  # aioquic makes it out of "_remote_" and the name of a parameter, and would work no more itself
}
EVERY_NAME = sorted({name for names in _PRIVATE.values() for name in names.split() if name[0] == "_"} - NOT_RENAMED)


@pytest.mark.skipif(os.environ.get("MYCORRIZAL_PACKET_PATH") != "stock", reason="two minutes: `tools/test --all`")
@pytest.mark.parametrize("name", EVERY_NAME)
def test_every_private_name_that_is_gone_is_noticed(name: str) -> None:
    found = child("check", name)
    assert found["path"] == "stock" and re.search(rf"\b{name}\b", found["problem"])
