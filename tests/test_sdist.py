"""An sdist holds the whole tree, so that what README.md names is in it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from .needs import lacks

ROOT = Path(__file__).resolve().parent.parent
NOT_OURS = {
    line.strip().rstrip("/") for line in (ROOT / ".gitignore").read_text("utf-8").splitlines()
}


def ours(folder: Path) -> set[str]:
    """Return the files below `folder` that are not made by tools, and not by a build."""
    found: set[str] = set()
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not made(name)]
        found |= {str((Path(place) / name).relative_to(folder)) for name in files if not made(name)}
    return found


def made(name: str) -> bool:
    """Return whether a tool makes what has this name."""
    if any(fnmatch(name, pattern) for pattern in NOT_OURS):
        return True
    return name == ".git" or name.endswith((".egg-info", ".pyc")) or name.startswith(".coverage")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], Path]:
    """Return the files of the tree, and the folder that the sdist of a copy of it was unpacked to. No network."""
    if importlib.util.find_spec("setuptools") is None:
        lacks("setuptools, which builds the sdist: pip install setuptools")
    folder = tmp_path_factory.mktemp("sdist")
    tree, here = folder / "tree", ours(ROOT)
    for name in here:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    command = [sys.executable, "setup.py", "--quiet", "sdist", "--formats=tar", "--dist-dir", str(folder / "dist")]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = (folder / "dist").iterdir()
    with tarfile.open(archive) as file:
        file.extractall(folder / "out", filter="data")
    (found,) = (folder / "out").iterdir()
    return here, found


def test_sdist_holds_every_file_of_the_tree_and_nothing_else(unpacked: tuple[set[str], Path]) -> None:
    here, found = unpacked
    assert {"README.md", "CONTRIBUTING.md", "docs/agent.md", "tools/demo", "tests/test_sdist.py"} <= here
    assert ours(found) == here | {"PKG-INFO", "mycorrizal/_build.py"}


def test_commands_of_an_sdist_can_be_run(unpacked: tuple[set[str], Path]) -> None:
    _, found = unpacked
    for name in ("test", "demo", "mutants", "chaos"):
        assert (found / "tools" / name).stat().st_mode & 0o100
