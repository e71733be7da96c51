"""``tools/test --python``: which interpreter is found, and what is said where there is none."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import _venv

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def interpreter(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    monkeypatch.setenv("PYENV_ROOT", f"{tmp_path}/pyenv")
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", f"{tmp_path}/uv")


def test_a_path_is_taken_if_it_runs(tmp_path: Path) -> None:
    assert _venv.find(sys.executable) == sys.executable
    assert _venv.find(str(tmp_path / "nothing")) is None
    assert _venv.find(str(interpreter(tmp_path, "broken", "exit 1"))) is None


@pytest.mark.parametrize("where", ["bin", "pyenv/versions/9.9.1/bin", "uv/cpython-9.9.1-linux/bin"])
def test_a_version_is_found_where_it_may_be(tmp_path: Path, where: str) -> None:
    path = interpreter(tmp_path / where, "python9.9", "echo 9.9")
    assert _venv.find("9.9") == str(path)
    assert _venv.find("9.8") is None


def test_a_shim_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    interpreter(tmp_path / "bin", "python9.9", "echo 'pyenv: python9.9: command not found' >&2; exit 127")
    interpreter(tmp_path / "pyenv/versions/9.9.0/bin", "python9.9", "echo 9.8")
    path = interpreter(tmp_path / "pyenv/versions/9.9.0t/bin", "python9.9t", "echo 9.9t")
    assert _venv.find("9.9") is None and _venv.find("9.9t") == str(path)


def test_where_to_get_one_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _venv.other("9.9")
    assert "no Python 9.9 is here" in str(ended.value) and "uv python install 9.9" in str(ended.value)


def test_this_interpreter_says_what_it_is() -> None:
    assert _venv._about(sys.executable).rstrip("t") == HERE
    assert _venv._about(os.devnull) == ""
