"""This tree and an older revision of it, to be measured in one run."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lab.child import ROOT

__all__ = ["trees"]


@contextlib.contextmanager
def trees(against: str | None) -> Iterator[dict[str, Path]]:
    """Yield what is measured, by name: this tree, and `against` in a worktree of its own.

    Both compiled, as what is installed is: compiling takes longer than all the rest of an agent's start.
    """
    _compile(ROOT)
    if against is None:
        yield {"this tree": ROOT}
        return
    with tempfile.TemporaryDirectory(prefix="mycorrizal-against-") as name:
        place = Path(name) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        try:
            subprocess.run([*git, "add", "--detach", str(place), against], check=True, capture_output=True, text=True)
        except FileNotFoundError:
            sys.exit("--against needs git")
        except subprocess.CalledProcessError as error:
            sys.exit(f"--against {against}: {error.stderr.strip()}")
        _compile(place)
        try:
            yield {"this tree": ROOT, against: place}
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=False, capture_output=True)


def _compile(tree: Path) -> None:
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(tree / "mycorrizal")], check=True)
