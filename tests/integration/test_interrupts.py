"""Ctrl-C ends every call that waits within 100 ms, also where another thread of the process takes the signal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .agents import runtime_dir
from .conftest import ROOT
from .interrupted import GROUPS

__all__ = ["runtime_dir"]

PROMISED = 0.1
BUSY = 0.1
"""Seconds for a machine that has more to do than this: the least of three tries is what counts."""


@pytest.mark.parametrize("group", GROUPS)
def test_ctrl_c_that_another_thread_takes_ends_every_wait(group: str, runtime_dir: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.interrupted", group, str(tmp_path)], cwd=ROOT, timeout=90,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    late = {line["call"]: line["seconds"] for line in lines if not (line["seconds"] or 9) <= PROMISED + BUSY}
    assert (late, done.returncode) == ({}, 0), done.stderr[-3000:]
    assert lines
