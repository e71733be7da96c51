"""``tools/test`` itself: what happens to tests that fail among all the others."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PASSES = "def test_passes() -> None: ...\n"
FAILS = "def test_{name}() -> None: raise AssertionError\n"
ONCE = """
from pathlib import Path

def test_{name}():
    seen = Path(__file__).with_suffix(".{name}")
    again = seen.exists()
    seen.touch()
    assert again
"""


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that runs a project of so many tests, and gives the names of the steps that failed."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    loader = SourceFileLoader("tool_test", str(ROOT / "tools" / "test"))
    spec = spec_from_loader("tool_test", loader)
    assert spec is not None
    tool: ModuleType = module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(tool)
    monkeypatch.setattr(tool._venv, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(pure: str, real: str) -> list[str]:
        for folder in (*tool.REAL_TIME, "tests/pure"):
            (tmp_path / folder).mkdir(parents=True)
        shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
        shutil.copy(ROOT / "tests" / "needs.py", tmp_path / "tests")
        (tmp_path / "tests" / "__init__.py").touch()
        (tmp_path / "tests" / "pure" / "test_pure.py").write_text(PASSES + pure)
        (tmp_path / "tests" / "integration" / "test_real.py").write_text(PASSES + real)
        failed: list[str] = []
        env = {name: value for name, value in os.environ.items() if name != "TEST_FAILURES_FILE"}  # not ours
        tool._everything(failed, env, sys.executable)
        return failed

    return run


def test_nothing_fails(everything: Callable[..., list[str]]) -> None:
    assert everything("", "") == []


def test_who_passes_alone_is_named(everything: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]) -> None:
    assert everything(ONCE.format(name="pure"), ONCE.format(name="real")) == []
    told = capfd.readouterr().out.partition("failed among the others:")[2].split()
    assert sorted(told) == ["tests/integration/test_real.py::test_real", "tests/pure/test_pure.py::test_pure"]


def test_who_fails_twice_has_failed(everything: Callable[..., list[str]]) -> None:
    assert everything(ONCE.format(name="pure"), FAILS.format(name="real")) == ["failed tests alone"]


def test_many_failures_are_not_run_again(everything: Callable[..., list[str]]) -> None:
    many = "".join(ONCE.format(name=f"number{index}") for index in range(4))
    assert everything("", many) == ["tests in real time"]


def test_what_cannot_be_collected_has_failed(everything: Callable[..., list[str]]) -> None:
    assert everything("import nothing_of_this_name\n", ONCE.format(name="real")) == ["failed tests alone"]
