"""The pages of docs do what they say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import Agent, MemberLeft

from .agents import runtime_dir  # noqa: F401 - a fixture

DOCS = Path(__file__).parents[2] / "docs"


PAGES = [("guide.md", 7), ("data-plane.md", 10), ("agent.md", 9), ("cache.md", 9), ("from-redis.md", 2)]
PAGES += [("leadership.md", 6), ("frames.md", 5)]
PAGES += [("index.md", 1), ("tutorial.md", 9), ("events.md", 1)]
PAGES += [(f"how-to/{name}.md", least) for name, least in (("rolling-restart", 2), ("rotate-keys", 2))]
PAGES += [("how-to/join-go-serf-consul.md", 3)]
PAGES += [("sweeps.md", 4)]
PAGES += [("metrics.md", 2)]


@pytest.mark.parametrize(("page", "least"), PAGES)
@pytest.mark.usefixtures("runtime_dir")
def test_the_guide_runs(page: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= least
    if page == "agent.md":
        assert {language for language, _ in blocks} == {"python", "sh"}  # nothing is only to be looked at
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    try:
        for number, (language, block) in enumerate(blocks):
            if language == "python":
                exec(compile(block, f"{page}, block {number}", "exec"), names)
            elif language == "sh" and "/" not in page:  # how-to/ has commands for hosts of the reader's
                subprocess.run(["bash", "-e", "-u", "-c", block], check=True, capture_output=True, timeout=120)
    finally:
        for value in names.values():
            end = getattr(value, "shutdown", None) or getattr(value, "close", None)
            if type(value).__module__.startswith("mycorrizal.") and end is not None:
                end()


def program(page: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Write the one program of a page into `folder`; return the command that runs it, and its environment."""
    (text,) = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (folder / "program.py").write_text(text)
    return [sys.executable, str(folder / "program.py")], {**os.environ, "PYTHONPATH": str(DOCS.parent)}


@pytest.mark.usefixtures("runtime_dir")
def test_several_processes_of_one_host_meet(tmp_path: Path) -> None:
    command, env = program("how-to/several-processes.md", tmp_path)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "workers [0, 1]\n"), done.stderr


@pytest.mark.usefixtures("runtime_dir")
def test_a_program_that_is_stopped_leaves(tmp_path: Path) -> None:
    command, env = program("how-to/stop-in-order.md", tmp_path)
    started = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
    with Agent("watcher", cluster="stopping") as watcher, started as worker:
        try:
            watcher.wait_for(2, timeout=60)
            watcher.send("worker", "told", timeout=60)
            assert worker.stdout is not None and worker.stdout.readline() == b"told\n"  # it has set up its signals
            news = watcher.events()
            worker.terminate()
            while not isinstance(news.get(timeout=60), MemberLeft):
                pass
            assert worker.wait(60) == -signal.SIGTERM
        finally:
            worker.kill()
