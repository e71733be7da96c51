"""How a module marks its handlers, and what ``mycorrizal worker`` says of one that does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mycorrizal
from mycorrizal import Codecs, ConfigError, Request
from mycorrizal.worker import codecs_of, handlers_of, processes_of


def module_of(**names: Any) -> ModuleType:
    module = ModuleType("scores")
    vars(module).update(names)
    return module


def test_marked_functions_are_found_and_stay_what_they_are() -> None:
    @mycorrizal.handler("score", processes=3)
    def score(request: Request) -> int:
        return int(request.value)

    @mycorrizal.handler("other")
    def other(request: Request) -> None: ...

    codecs = Codecs()
    module = module_of(score=score, again=score, other=other, number=3, Request=Request, CODECS=codecs, print=print)
    assert handlers_of(module) == {"score": score, "other": other}
    assert (processes_of(score), processes_of(other), processes_of(print), processes_of(3)) == (3, None, None, None)
    assert score(Request("score", 7, "bob", None)) == 7
    assert codecs_of(module) is codecs and codecs_of(module_of(CODECS=3)).by_name == {}


def test_two_of_one_name_are_refused() -> None:
    module = module_of(a=mycorrizal.handler("x")(lambda request: 1), b=mycorrizal.handler("x")(lambda request: 2))
    with pytest.raises(ConfigError, match="scores has two handlers 'x'"):
        handlers_of(module)


def test_what_cannot_be_a_handler_is_refused() -> None:
    with pytest.raises(ConfigError, match="a decorator takes it in parentheses"):
        mycorrizal.handler(print)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be called"):
        mycorrizal.handler("x")(3)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="cannot be marked"):
        mycorrizal.handler("x")(print)

    async def later(request: Request) -> None: ...

    with pytest.raises(ConfigError, match="coroutine"):
        mycorrizal.handler("x")(later)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("nothing_here", "there is no module nothing_here"),
        ("json.nothing", "there is no module json.nothing"),
        ("some/file.py", "is no module's name"),
        ("json", "json marks no handler"),
        ("needs_more", "No module named 'more_of_it'"),
    ],
)
def test_the_command_says_what_is_wrong_with_a_module(module: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "needs_more.py").write_text("import more_of_it\n")
    command = [sys.executable, "-m", "mycorrizal", "worker", module]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (1 if module == "needs_more" else 2) and text in done.stderr
