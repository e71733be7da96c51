"""The fence around aioquic: what it does not document is used in ``_runtime/quic/fast`` alone.

Reads the source with ``ast`` and runs none of it. What aioquic documents is on
its page "QUIC API"; private is an attribute with an underscore that aioquic
itself has, a module or a name that its page does not have, and a field of
``QuicConfiguration`` below "not guaranteed to be stable".
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mycorrizal"
FAST = PACKAGE / "_runtime" / "quic" / "fast"
DOCUMENTED = {
    # module: names; None: all that have no underscore
    "aioquic": {"__version__"},
    "aioquic.quic.configuration": {"QuicConfiguration"},
    "aioquic.quic.connection": {"QuicConnection"},
    "aioquic.quic.events": None,
    "aioquic.quic.logger": {"QuicLogger"},
}
BY_NAME = {"getattr", "setattr", "hasattr", "delattr"}


def _aioquic() -> Path:
    spec = importlib.util.find_spec("aioquic")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def _private_names() -> set[str]:
    """Return every name with one underscore that occurs in aioquic."""
    found: set[str] = set()
    for path in _aioquic().rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = getattr(node, "attr", None) or getattr(node, "name", None)
            if isinstance(name, str) and re.match(r"_[^_]", name):
                found.add(name)
    return found


def _unstable_fields() -> set[str]:
    source = (_aioquic() / "quic" / "configuration.py").read_text("utf-8")
    _, _, rest = source.partition("not guaranteed to be stable")
    return set(re.findall(r"^    (\w+): ", rest.partition("    def ")[0], re.MULTILINE))


PRIVATE = _private_names()
UNSTABLE = _unstable_fields()


def breaches(source: str, *, in_quic: bool) -> Iterator[tuple[int, str]]:
    """Yield ``(line, what)`` for each use of what aioquic does not document."""
    tree = ast.parse(source)
    own = _own_names(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.split(".")[0] == "aioquic" and alias.name not in DOCUMENTED:
                        yield node.lineno, f"module {alias.name}"
            case ast.ImportFrom(module=str(module), level=0, names=names) if module.split(".")[0] == "aioquic":
                known = DOCUMENTED.get(module, set())
                for name in (alias.name for alias in names):
                    if name not in known if known is not None else name.startswith("_"):
                        yield node.lineno, f"{module}.{name}"
            case ast.Attribute(attr=attr) if in_quic and attr in PRIVATE - own:
                yield node.lineno, attr
            case ast.Call(func=ast.Name(id=name), args=[_, ast.Constant(value=str(attr)), *_]) if name in BY_NAME:
                if in_quic and attr in PRIVATE - own:
                    yield node.lineno, f'{name}(…, "{attr}")'
            case ast.Attribute(attr=attr, ctx=ast.Store(), value=value) if in_quic and attr in UNSTABLE:
                if not (isinstance(value, ast.Name) and value.id == "self"):
                    yield node.lineno, f"QuicConfiguration.{attr}"
            case ast.Call(func=ast.Name(id="QuicConfiguration"), keywords=keywords):
                yield from ((node.lineno, f"QuicConfiguration.{k.arg}") for k in keywords if k.arg in UNSTABLE)


def _own_names(tree: ast.Module) -> set[str]:
    """Return the attributes that classes of this module give themselves, and its functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name):
                found.add(name)
            case ast.Attribute(attr=attr, ctx=ast.Store(), value=ast.Name(id="self")):
                found.add(attr)
    return found


def _modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if FAST not in path.parents]


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_outside_uses_what_aioquic_does_not_document(path: Path) -> None:
    source = path.read_text("utf-8")
    in_quic = "quic" in path.parts or "aioquic" in source
    assert list(breaches(source, in_quic=in_quic)) == []


def test_aioquic_is_imported_by_the_transport_alone() -> None:
    found = {
        str(path.parent.relative_to(PACKAGE))
        for path in _modules()
        if re.search(r"^\s*(from|import) aioquic", path.read_text("utf-8"), re.MULTILINE)
    }
    assert found <= {"_runtime/quic"}


def test_the_fence_has_one_door() -> None:
    found = {
        path.name
        for path in _modules()
        if re.search(r"^\s*(from|import) \S*\bfast\b", path.read_text("utf-8"), re.MULTILINE)
    }
    assert found == {"choice.py"}


@pytest.mark.parametrize(
    "source",
    [
        "import aioquic.quic.packet",
        "import aioquic._buffer",
        "from aioquic.quic.packet import pull_quic_header",
        "from aioquic.quic.connection import QuicReceiveContext",
        "from aioquic.quic.retry import QuicRetryTokenHandler",
        "from aioquic.buffer import Buffer",
        "from aioquic.quic.events import _secret",
        "def f(quic): return quic._close_at",
        "def f(conn): conn.quic._loss._cc = 1",
        "class C(QuicConnection):\n    def f(self): return self._streams",
        'def f(quic): return getattr(quic, "_close_at", None)',
        "def f(c): c.certificate = 1",
        "QuicConfiguration(initial_rtt=0.1)",
    ],
)
def test_breaches_are_found(source: str) -> None:
    assert list(breaches(source, in_quic=True))


@pytest.mark.parametrize(
    "source",
    [
        "import aioquic\naioquic.__version__",
        "from aioquic.quic.connection import QuicConnection",
        "from aioquic.quic.events import StreamReset",
        "class C:\n    def __init__(self): self._streams = {}\n    def f(self): return self._streams",
        "QuicConfiguration(is_client=True, max_data=1)",
        "def f(tls): return tls.certificate",
    ],
)
def test_what_is_documented_is_free(source: str) -> None:
    assert not list(breaches(source, in_quic=True))


def test_the_names_are_found() -> None:
    assert {"_close_at", "_loss", "_cc", "_events"} <= PRIVATE
    assert {"certificate", "private_key", "cadata", "verify_mode", "initial_rtt"} <= UNSTABLE
    assert "token" not in UNSTABLE
