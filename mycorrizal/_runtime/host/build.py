"""Which build this is: two commits of one version are told apart by it, also where there is no git.

A package that was built has it in ``_build.py``, which setup.py writes into
the wheel and the sdist and never into the tree. In a tree of git it is the
commit; anywhere else, a digest of the sources. setup.py runs this file by
its path, so it imports the standard library alone.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

__all__ = ["FILE", "build", "text_of"]

FILE = "_build.py"
PACKAGE = Path(__file__).resolve().parents[2]
_SECONDS = 5.0
_DIGITS = 12


def build(package: Path = PACKAGE) -> str:
    """Return ``1a2b3c4d5e6f``, with ``-changed`` behind it if the tree is; ``source-`` and a digest without git."""
    return _written(package) or _commit(package) or _digest(package)


def text_of(name: str) -> str:
    """Return the content of ``_build.py`` for a build of that name."""
    return f'"""Made by setup.py: which build this is."""\n\nBUILD = "{name}"\n'


def _written(package: Path) -> str | None:
    try:
        found = re.search(r'^BUILD = "([\w-]+)"$', (package / FILE).read_text("utf-8"), re.MULTILINE)
    except OSError:
        return None
    return found[1] if found else None


def _commit(package: Path) -> str | None:
    top = package.parent
    if not (top / ".git").exists():  # a tree within somebody else's is not theirs
        return None
    commit = _git(top, "rev-parse", f"--short={_DIGITS}", "HEAD")
    if not commit:
        return None
    return f"{commit}-changed" if _git(top, "status", "--porcelain", "--untracked-files=no", "--", ".") else commit


def _git(top: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(top), *words], capture_output=True, text=True, check=True, timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _digest(package: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.name != FILE:
            data = path.read_bytes()
            digest.update(f"{path.relative_to(package).as_posix()}\0{len(data)}\0".encode() + data)
    return f"source-{digest.hexdigest()[:_DIGITS]}"
