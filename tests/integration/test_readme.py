"""README.md word for word: every block, in the order in which it stands, with real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .agents import runtime_dir  # noqa: F401 - a fixture
from .conftest import ROOT

SECONDS = 120
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def host(need_network_namespace: str) -> Iterator[list[str]]:
    """What runs a command on a host whose address is the one that the README has."""
    ip, name = need_network_namespace, f"myc-readme-{os.getpid()}"
    subprocess.run([ip, "netns", "add", name], check=True)
    try:
        begin = ["link set lo up", "link add v0 type veth peer name v1", "addr add 10.0.0.5/24 dev v0"]
        for words in (*begin, "link set v0 up", "link set v1 up"):
            subprocess.run([ip, "-n", name, *words.split()], check=True)
        yield [ip, "netns", "exec", name]
    finally:
        subprocess.run([ip, "netns", "delete", name], check=True)


def files() -> dict[str, str]:
    """Return the programs of the README by the name in their first line."""
    return {block.split("\n", 1)[0].removeprefix("# "): block for language, block in BLOCKS if language == "python"}


def test_every_block_says_what_it_is() -> None:
    assert [language for language, _ in BLOCKS] == ["python", "python", "sh", "python", "python", "sh", "python"]
    assert list(files()) == ["worker.py", "caller.py", "scores.py", "sweep.py", "host.py"]


def run(folder: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONWARNINGS": "error", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("runtime_dir")
def test_the_readme_runs(tmp_path: Path, host: list[str]) -> None:
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    shells = [block for language, block in BLOCKS if language == "sh"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "worker.py"], cwd=tmp_path, env=env, stdout=subprocess.PIPE) as worker:
        try:
            said = run(tmp_path, sys.executable, "caller.py")
            assert "name='bob'" in said and said.splitlines()[-2:] == ["2.0", "7"]
            said = run(tmp_path, "bash", "-e", "-u", "-c", shells[0])
            assert re.search(r"alice .*left|left.* alice", said) and "2.0" in said and "1000000.0" in said
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(SECONDS) == -signal.SIGTERM
            assert worker.stdout is not None
            heard = worker.stdout.read().decode().splitlines()
        finally:
            worker.kill()
    assert [line.split()[1] for line in heard] == ["1", "2"]
    with subprocess.Popen([sys.executable, "-m", "mycorrizal", "worker", "scores"], cwd=tmp_path, env=env) as worker:
        try:
            assert run(tmp_path, sys.executable, "sweep.py") == "83000416500\n"
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(SECONDS) == 0
        finally:
            worker.kill()
    run(tmp_path, "bash", "-e", "-u", "-c", shells[1])
    said = run(tmp_path, *host, sys.executable, "host.py")
    assert said == "<Agent 'alice' of 'default' on 10.0.0.5 port 7946, 1 member>\n"
