"""Nothing that comes from elsewhere becomes code: no pickle, no evaluation, no import by a peer's word, no shell."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "mycorrizal").rglob("*.py"))
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "runpy"}
CALLS = {"eval", "exec", "compile", "__import__"}
CALLS_OF = {  # numpy's may unpickle; arrays are made of memory and a dtype that was checked
    "os": {"system", "popen"},
    "builtins": CALLS,
    "numpy": {"load", "fromfile", "memmap"},
}
WORDS = {"allow_pickle", "shell"}


def doubtful(source: str) -> list[str]:
    """Return what in `source` may make code of data."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [name for name in names if name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.Call):
            found += [word.arg for word in node.keywords if word.arg in WORDS]
            match node.func:
                case ast.Name(id=name) if name in CALLS:
                    found.append(name)
                case ast.Attribute(value=ast.Name(id=owner), attr=name) if name in CALLS_OF.get(owner, ()):
                    found.append(f"{owner}.{name}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_or_evaluated(path: Path) -> None:
    assert doubtful(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml as y",
        "def f(x):\n    import marshal",
        "eval(text)",
        "builtins.exec(text)",
        "numpy.load(file)",
        "f(data, allow_pickle=True)",
        "run(text, shell=True)",
        "os.system(x)",
        "__import__(name)",
        "compile(text, '', 'exec')",
    ],
)
def test_planted_fault_is_found(source: str) -> None:
    assert doubtful(source)


def test_what_is_harmless_passes() -> None:
    assert doubtful("import re, json\nre.compile('x')\njson.loads(text)\n'pickle'") == []
