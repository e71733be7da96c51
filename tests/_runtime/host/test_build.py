"""Which build this is: by git, by what a build has written down, and by the sources where there is neither."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from mycorrizal._runtime.host.build import FILE, build, text_of


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of two modules in a tree of its own, not of git."""
    folder = tmp_path / "tree" / "mycorrizal"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("x = 1\n")
    (folder / "sub" / "a.py").write_text("y = 1\n")
    return folder


def git(package: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(package.parent), *who, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_without_git_the_sources_tell(package: Path) -> None:
    first = build(package)
    assert re.fullmatch(r"source-[0-9a-f]{12}", first) and build(package) == first
    (package / "sub" / "a.py").write_text("y = 2\n")
    second = build(package)
    (package / "sub" / "a.py").rename(package / "sub" / "b.py")
    assert len({first, second, build(package)}) == 3


def test_with_git_the_commit_tells(package: Path) -> None:
    git(package, "init", "-q")
    assert build(package).startswith("source-"), "there is no commit yet"
    git(package, "add", ".")
    git(package, "commit", "-q", "-m", "one")
    first = build(package)
    assert git(package, "rev-parse", "HEAD").startswith(first)
    (package / "__init__.py").write_text("x = 2\n")
    assert build(package) == f"{first}-changed"
    git(package, "commit", "-q", "-a", "-m", "two")
    assert build(package) != first and "-" not in build(package)


def test_a_tree_within_somebody_elses_repository_is_not_theirs(package: Path) -> None:
    outside = package.parent.parent
    subprocess.run(["git", "init", "-q", str(outside)], check=True)
    assert build(package).startswith("source-")


def test_what_a_build_wrote_down_counts(package: Path) -> None:
    before = build(package)
    (package / FILE).write_text(text_of("1a2b3c4d5e6f"))
    assert build(package) == "1a2b3c4d5e6f"
    compile((package / FILE).read_text(), FILE, "exec")
    (package / FILE).write_text("nothing of ours\n")
    assert build(package) == before
