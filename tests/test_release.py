"""``tools/release``: what it refuses, and that what is built knows which commit it is of."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import HeaderParser
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from mycorrizal import __version__

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The tool as a module."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    loader = SourceFileLoader("tool_release", str(ROOT / "tools" / "release"))
    spec = spec_from_loader("tool_release", loader)
    assert spec is not None
    found = module_from_spec(spec)
    loader.exec_module(found)
    sys.dont_write_bytecode = before
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree that agrees with itself: version, changelog, tag, nothing changed."""
    (tmp_path / "mycorrizal").mkdir()
    (tmp_path / "mycorrizal" / "__init__.py").write_text('"""Doc."""\n\n__version__ = "1.2.3"\n')
    sections = "## [1.2.3] - 2026-12-01\n\n- x\n\n## [1.2.2] - 2026-11-01\n"
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\nText.\n\n{sections}")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    git(tmp_path, "tag", "v1.2.3")
    return tmp_path


def git(tree: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(tree), *who, *words], check=True, capture_output=True)


def test_a_tree_that_agrees_is_a_release(tool: ModuleType, tree: Path) -> None:
    assert tool.disagreements(tree) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        ("CHANGELOG.md", "## [1.2.3]", "## [Unreleased]", "newest section of CHANGELOG.md is Unreleased, not 1.2.3"),
        ("CHANGELOG.md", " - 2026-12-01", "", "has no date"),
        ("CHANGELOG.md", "2026-12-01", "soon", "has no date"),
        ("mycorrizal/__init__.py", "1.2.3", "1.2.4", "not 1.2.4"),
    ],
)
def test_what_does_not_agree_is_refused(tool: ModuleType, tree: Path, path: str, old: str, new: str, said: str) -> None:
    text = (tree / path).read_text()
    (tree / path).write_text(text.replace(old, new))
    problems = tool.disagreements(tree)
    assert any(said in problem for problem in problems) and any("not committed" in problem for problem in problems)
    git(tree, "commit", "-q", "-a", "-m", "two")
    problems = tool.disagreements(tree)
    assert any(said in problem for problem in problems)
    assert any("HEAD has the tags none" in problem for problem in problems)


def test_a_tree_without_git_is_no_release(tool: ModuleType, tree: Path, tmp_path: Path) -> None:
    (tree / ".git").rename(tmp_path / "elsewhere")
    assert any("tags none" in problem for problem in tool.disagreements(tree))


@pytest.mark.parametrize("names", [["mycorrizal/simulation/experiments/s1.py"], ["tests/x.py"], ["mycorrizal/a.py"]])
def test_a_wheel_with_what_users_do_not_need_is_refused(tool: ModuleType, tmp_path: Path, names: list[str]) -> None:
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        for name in names:
            archive.writestr(name, "")
    with pytest.raises(tool.Refused, match="the wheel (holds|lacks)"):
        tool.look_into(tmp_path / "x.whl")


def test_package_describes_itself(tmp_path: Path) -> None:
    """What an index page shows: made by setup.py, without the network."""
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    about = HeaderParser().parsestr((tmp_path / "mycorrizal.egg-info" / "PKG-INFO").read_text("utf-8"))
    assert about["Name"] == "mycorrizal" and about["Version"] == __version__ and about["Author"]
    urls = dict(line.split(", ", 1) for line in about.get_all("Project-URL") or ())
    assert {"Documentation", "Source", "Issues", "Changelog", "Security"} <= set(urls)
    assert "Operating System :: POSIX :: Linux" in (about.get_all("Classifier") or ())
    page = about.get_payload() or about["Description"]
    assert isinstance(page, str)
    pages = f"{about['Home-page']}/blob/v{__version__}/"
    assert f"]({pages}docs/agent.md)" in page and f"]({pages}CHANGELOG.md)" in page
    assert "](docs/" not in page and "](https://github.com/hashicorp/memberlist)" in page
