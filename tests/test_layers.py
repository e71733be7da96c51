"""The architecture as a test: who may import whom, and where the world outside may be touched.

Imports point downward only, the machines know no thread, socket, clock or
global random, and the simulator is just another owner of them: it never
imports the runtime. Reads the source with ``ast`` and imports nothing. A
module that appears in no layer fails, so a new one has to take its place here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "mycorrizal"

LAYERS: dict[str, tuple[int, str]] = {
    # first name under mycorrizal: (layer, kind of code)
    **dict.fromkeys(["exceptions", "types", "delegates", "events"], (0, "values")),
    **dict.fromkeys(["_endings", "_histogram", "_keylike", "_build"], (0, "values")),
    **dict.fromkeys(["config", "dataconfig", "agentconfig"], (0, "values")),
    "_wire": (1, "wire"),
    **dict.fromkeys(["_swim", "_replica", "_cache", "_control", "_serf", "_data", "_tasks"], (2, "machine")),
    "_packs": (2, "wire"),
    "_runtime": (3, "runtime"),
    "simulation": (3, "simulation"),
    **dict.fromkeys(["memberlist", "serf", "dataplane", "control", "codecs"], (4, "facade")),
    **dict.fromkeys(["cache", "leadership", "leases", "mapping", "memo", "services", "settings"], (4, "facade")),
    **dict.fromkeys(["executor", "worker"], (4, "facade")),
    **dict.fromkeys(["agent", "_agent", "discovery"], (5, "facade")),
    **dict.fromkeys(["cli", "__main__"], (6, "shell")),
    "": (9, "shell"),  # the package itself re-exports
}

ROOMS: dict[str, set[str]] = {
    # room of the runtime: rooms that its modules may import, besides their own
    "threads": set(),
    "net": {"threads"},
    "host": {"threads", "net"},
    "swim": {"threads", "net"},
    "serf": {"threads", "host", "swim"},
    "quic.trust": {"threads", "net", "host"},
    "quic": {"threads", "net", "quic.trust"},
    "local": {"threads", "net", "host", "quic", "quic.trust", "data"},
    "data": {"threads", "net", "host", "quic", "quic.trust"},
    "cache": {"threads", "quic", "data"},
    "tasks": {"threads", "quic", "data"},
    "shared": {"threads", "host", "swim", "data"},
    "control": {"threads"},
    "web": {"threads"},
}

THREADS = {"threading", "_thread", "queue", "concurrent", "multiprocessing", "subprocess", "signal", "sched"}
SOCKETS = {"socket", "socketserver", "select", "selectors", "ssl", "asyncio", "zmq", "aioquic", "http", "urllib"}
CLOCKS = {"time", "datetime"}
RANDOM = {"random", "secrets", "uuid"}
FILES = {"os", "pathlib", "io", "shutil", "tempfile", "glob", "fcntl", "mmap"}
IO_WORLD = THREADS | SOCKETS | CLOCKS | RANDOM | FILES | {"logging"}

FORBIDDEN: dict[str, set[str]] = {
    "values": IO_WORLD,
    "wire": IO_WORLD,
    "machine": IO_WORLD - {"logging"},
    "simulation": THREADS | SOCKETS | CLOCKS | RANDOM | FILES,
    "facade": THREADS | SOCKETS | CLOCKS | RANDOM | FILES,
    "runtime": set(),
    "shell": THREADS | SOCKETS | RANDOM,
}
ALLOWED_NAMES: dict[str, set[str]] = {
    # single names out of a forbidden module that carry none of its power
    "wire": {"io.BytesIO", "datetime.date", "datetime.datetime", "datetime.datetime.fromisoformat", "uuid.UUID"},
    "machine": {"random.Random"},
    "simulation": {"random.Random", "pathlib.Path"},
    "facade": {"concurrent.futures.Executor", "concurrent.futures.Future"},
    "shell": set(),
}
EXEMPT = {
    # one line each, with the reason
    ("exceptions", "concurrent.futures.CancelledError"): "a cancelled call is also the builtin it is",
    ("config", "socket.gethostname"): "the default name of a node is the host's, as in memberlist",
    ("_wire.text", "logging.getLogger"): "the one door to a logger: what goes through it is one printable line",
    ("_wire.text", "logging.Logger"): "as above",
    ("_wire.text", "logging.LogRecord"): "as above",
    ("_wire.text", "logging.LoggerAdapter"): "as above",
    ("_wire.text", "logging.Handler"): "as above; shows what the user's handler raised, as logging does",
    ("_wire.text", "logging.makeLogRecord"): "as above",
    ("_wire.text", "logging.raiseExceptions"): "as above",
    ("types", "pathlib.Path"): "says where a received file is; nothing is done with it",
    ("_packs.classes", "datetime.timedelta"): "a type that travels, not a clock",
    ("_packs.zones", "datetime.timedelta"): "as above",
    ("_packs.zones", "datetime.timezone"): "as above",
    ("_packs.exact", "datetime.timezone"): "as above",
    ("codecs", "datetime.timedelta"): "as above",
    ("_packs.classes", "pathlib.PurePath"): "a text; nothing is done with it",
    ("_runtime.threads.clock", "time"): "the one clock",
}
RUNTIME_ONLY_IN = {"time": {"_runtime.threads.clock"}}
"""Inside ``_runtime`` the clock is read in one module, so that it can be replaced there."""

BUILTINS_OF_FILES = {"open", "input", "print", "breakpoint"}


def module_name(path: Path, root: Path = PACKAGE) -> str:
    """Return a file's name below the package: ``_wire.codec``, ``""`` for the package itself."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def violations(name: str, source: str, *, is_package: bool = False) -> list[str]:
    """Return what `source`, as module `name` below the package, may not do; empty if nothing."""
    head = name.partition(".")[0]
    if head not in LAYERS:
        return [f"{name}: {head} is in no layer; give it one in tests/test_layers.py"]
    tree = ast.parse(source)
    found = [*_imports_upward(name, head, tree, is_package), *_touches_world(name, LAYERS[head][1], tree)]
    return [f"mycorrizal.{name}".rstrip(".") + f":{line}: {text}" for line, text in found]


def _imports_upward(name: str, head: str, tree: ast.AST, is_package: bool) -> Iterator[tuple[int, str]]:
    level, kind = LAYERS[head]
    for line, target in _own_imports(name, tree, is_package):
        other = target.partition(".")[0]
        if other == head == "_runtime":
            yield from ((line, text) for text in _through_walls(name, target, is_package))
        if other == head:
            continue
        if other not in LAYERS:
            yield line, f"imports {target}, which is in no layer"
            continue
        other_level, other_kind = LAYERS[other]
        if kind == "simulation" and other_kind == "runtime":
            yield line, "the simulator must do without _runtime"
        elif kind == "machine" and other_kind == "machine":
            yield line, f"machines must not know each other: {target}"
        elif other_level > level or (other_level == level and kind not in ("values", "facade", "shell")):
            yield line, f"imports upward: {target} (layer {other_level}) from layer {level}"


def _through_walls(name: str, target: str, is_package: bool) -> Iterator[str]:
    """Yield what is wrong with an import within ``_runtime``: its rooms have an order too."""
    mine, its = _room(f"{name}.__init__" if is_package else name), _room(target)
    if mine is None:
        yield "stands in no room of _runtime; give it one in tests/test_layers.py"
    elif its != mine and its not in ROOMS[mine]:
        yield f"imports room _runtime.{its} from room _runtime.{mine}"


def _room(name: str) -> str | None:
    """Return the room of a module below ``_runtime``, None if it is in none."""
    parts = name.split(".")[1:]
    rooms = [".".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
    return next((room for room in rooms if room in ROOMS), None)


def _own_imports(name: str, tree: ast.AST, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, module below the package) of each import of our own; ``TYPE_CHECKING`` ones count too."""
    here = name.split(".") if name else []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "mycorrizal":
                    yield node.lineno, alias.name.partition(".")[2]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = here[: len(here) - node.level + is_package]
                base = base + (node.module.split(".") if node.module else [])
            elif node.module and node.module.partition(".")[0] == "mycorrizal":
                base = node.module.split(".")[1:]
            else:
                continue
            if base[:1] == ["_runtime"]:  # whose names may be modules: their room counts
                yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)
            elif base:
                yield node.lineno, ".".join(base)
            else:
                yield from ((node.lineno, alias.name) for alias in node.names)


def _touches_world(name: str, kind: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    forbidden = FORBIDDEN[kind]
    allowed = ALLOWED_NAMES.get(kind, set())
    if kind == "runtime":
        forbidden = {module for module, homes in RUNTIME_ONLY_IN.items() if name not in homes}
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if node.module.partition(".")[0] in forbidden and full not in allowed and (name, full) not in EXEMPT:
                    yield node.lineno, f"{kind} code must not use {full}"
    used: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        dotted = _dotted(node, aliases)
        module = dotted.partition(".")[0]
        used.add(module)
        if module in forbidden and dotted not in allowed and (name, dotted) not in EXEMPT:
            yield node.lineno, f"{kind} code must not use {dotted}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                if top in forbidden and top not in used:
                    yield node.lineno, f"{kind} code must not import {alias.name}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in BUILTINS_OF_FILES and kind not in ("runtime", "shell"):
                yield node.lineno, f"{kind} code must not call {node.func.id}()"
            if node.func.id in ("hash", "id") and kind in ("machine", "wire", "simulation"):
                yield node.lineno, f"{node.func.id}() differs from run to run; {kind} code must be reproducible"


def _dotted(node: ast.Attribute, aliases: dict[str, str]) -> str:
    """Return ``module.name`` for an attribute of an imported module, else ``""``."""
    names = [node.attr]
    value = node.value
    while isinstance(value, ast.Attribute):
        names.append(value.attr)
        value = value.value
    if not isinstance(value, ast.Name) or value.id not in aliases:
        return ""
    return ".".join([aliases[value.id], *reversed(names)])


# -- the tests ----------------------------------------------------------------------

FILES_OF_PACKAGE = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES_OF_PACKAGE, ids=lambda path: module_name(path) or "__init__")
def test_module_keeps_to_its_layer(path: Path) -> None:
    found = violations(module_name(path), path.read_text("utf-8"), is_package=path.name == "__init__.py")
    assert not found, "\n".join(found)


PLANTED = [
    ("_swim.machine", "import threading\nlock = threading.Lock()", "threading.Lock"),
    ("_swim.machine", "from threading import Lock", "threading.Lock"),
    ("_swim.machine", "import random\nx = random.random()", "random.random"),
    ("_swim.machine", "from random import choice", "random.choice"),
    ("_swim.probe", "def f() -> float:\n    import time\n    return time.monotonic()", "time.monotonic"),
    ("_swim.probe", "import time as t\nt.sleep(1)", "time.sleep"),
    ("_swim.probe", "import socket", "import socket"),
    ("_swim.probe", "x = hash('a')", "hash()"),
    ("_swim.machine", "from .._runtime.gossip import Gossip", "upward"),
    ("_swim.machine", "from mycorrizal import memberlist", "upward"),
    ("_swim.machine", "from .._cache.store import Store", "machines must not know each other"),
    ("_wire.codec", "import logging\nlog = logging.getLogger()", "logging"),
    ("_wire.security", "import os\nnonce = os.urandom(12)", "os.urandom"),
    ("_wire.values", "from datetime import datetime\nx = datetime.now()", "datetime.datetime.now"),
    ("_wire.values", "import uuid\nx = uuid.uuid4()", "uuid.uuid4"),
    ("_wire.codec", "from .._swim.events import Event", "upward"),
    ("_wire.codec", "from ..memberlist import Memberlist", "upward"),
    ("_wire.codec", "data = open('x').read()", "open()"),
    ("types", "from ._wire.messages import Ping", "upward"),
    ("simulation.cluster", "from .._runtime.clock import now", "without _runtime"),
    ("simulation.cluster", "import typing\nif typing.TYPE_CHECKING:\n    from .. import _runtime", "without _runtime"),
    ("simulation.cluster", "import threading\nthreading.Thread()", "threading.Thread"),
    ("memberlist", "import socket\nsocket.socket()", "socket.socket"),
    ("memberlist", "import threading\nthreading.Thread()", "threading.Thread"),
    ("_runtime.swim.gossip", "import time\ntime.monotonic()", "time.monotonic"),
    ("_runtime.swim.gossip", "from ...memberlist import Memberlist", "upward"),
    ("_runtime.net.sockets", "from ..swim.gossip import Gossip", "room _runtime.swim from room _runtime.net"),
    ("_runtime.quic.loop", "from ..data import core", "room _runtime.data from room _runtime.quic"),
    ("_runtime.quic.trust.keys", "from ..loop import Loop", "room _runtime.quic from room _runtime.quic.trust"),
    ("_runtime.somewhere.x", "from ..threads import clock", "no room"),
    ("strange", "x = 1", "no layer"),
]


@pytest.mark.parametrize(("name", "source", "expected"), PLANTED)
def test_planted_fault_is_caught(name: str, source: str, expected: str) -> None:
    assert any(expected in text for text in violations(name, source)), violations(name, source)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("_swim.machine", "import random\ndef f(rng: random.Random) -> float:\n    return rng.random()"),
        ("_swim.machine", "from random import Random"),
        ("_swim.machine", "import logging\nlog = logging.getLogger('x')"),
        ("_swim.machine", "from .._wire.packet import PacketCodec\nfrom ..types import Node\nfrom . import events"),
        ("_runtime.swim.gossip", "import threading, socket\nfrom ..._swim.machine import Swim\nthreading.Lock()"),
        ("_runtime.threads.clock", "import time\nnow = time.monotonic"),
        ("simulation.cluster", "from random import Random\nfrom .._swim.machine import Swim"),
        ("memberlist", "from concurrent.futures import Future\nfrom ._runtime.gossip import Gossip"),
        ("config", "import socket\nname = socket.gethostname"),
    ],
)
def test_what_is_allowed_passes(name: str, source: str) -> None:
    assert violations(name, source) == []


def test_relative_imports_of_a_package_are_resolved() -> None:
    assert violations("_swim", "from .machine import Swim\nfrom .._wire import codec", is_package=True) == []
    assert violations("_swim", "from .._runtime import gossip", is_package=True)
    assert violations("", "from .memberlist import Memberlist\nfrom .types import Node", is_package=True) == []


TOOLS = PACKAGE.parent / "tools"
FOLDERS: dict[str, set[str]] = {
    # folder of tools/: folders that its modules may import, besides their own
    "lab": set(),
    "simulated": set(),
    "experiments": set(),
    "documenting": set(),
    "fuzzing": set(),
    "planted": set(),
    "benchmarks": {"lab"},
    "campaigns": {"lab", "simulated"},
}


@pytest.mark.parametrize("path", sorted(TOOLS.glob("*/**/*.py")), ids=lambda path: str(path.relative_to(TOOLS)))
def test_tool_imports_neither_tests_nor_its_neighbours(path: Path) -> None:
    mine = path.relative_to(TOOLS).parts[0]
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    named |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    tops = {name.partition(".")[0] for name in named}
    assert not (tops & {*FOLDERS, "tests"}) - FOLDERS[mine] - {mine}
    assert not any(isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path" for node in nodes)
