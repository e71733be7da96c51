"""The project's own virtual environment: made, reused and entered by the tools.

``python = ensure("dev")`` returns the interpreter of ``.venv`` in the
repository's root with mycorrizal (editable) and the named extra installed. It
installs only when setup.cfg, setup.py, the interpreter or the place of the tree
has changed since; a stamp in ``.venv`` remembers. Two tools that start together
take turns. Standard library only, and old enough in syntax that a Python that
is too old gets a sentence instead of a SyntaxError.
"""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LATEST = ROOT / ".venv-latest"
STAMP = VENV / "mycorrizal-stamp.json"
OLDEST = (3, 11)
COVERS = {
    "": {""},
    "test": {"", "test"},
    "plot": {"", "plot"},
    "bench": {"", "plot", "bench"},
    "docs": {"", "docs"},
    "dev": {"", "test", "plot", "dev"},
}


def start() -> None:
    """Make the calling script independent of how it was started.

    Re-executes it under a newer Python if this one is too old, opens a closed
    stdin (a file opened later would become file descriptor 0) and writes lines
    as they come.
    """
    if sys.version_info < OLDEST:
        _newer_python()
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - stays open like any stdin
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)


def ensure(extra: str = "") -> str:
    """Return the path of ``.venv``'s Python, with mycorrizal and `extra` installed; exits on failure."""
    with _turn():
        stamp = _read_stamp()
        inputs = _inputs()
        extras = stamp.extras if stamp.inputs == inputs else set()
        if COVERS[extra] <= extras and PYTHON.exists():
            return str(PYTHON)
        if stamp.python != _interpreter() or not PYTHON.exists():
            _say(f"making {VENV.name} with Python {sys.version.split()[0]}")
            _make()
        STAMP.unlink(missing_ok=True)
        target = f".[{extra}]" if extra else "."
        _say(f"installing {target} (a minute on a slow line)")
        _pip("install", "--editable", target)
        extras = extras | COVERS[extra]
        STAMP.write_text(json.dumps({"inputs": inputs, "python": _interpreter(), "extras": sorted(extras)}))
        return str(PYTHON)


def other(wanted: str) -> str:
    """Return the Python of ``.venv-X``, made with another interpreter, with everything for the tests installed.

    Args:
        wanted: ``3.13``, ``3.14t`` (free-threaded), or the path of an interpreter. Exits where there is none.
    """
    interpreter = find(wanted)
    if interpreter is None:
        sys.exit(f"[setup] no Python {wanted} is here; {_HOW.format(wanted)}")
    name = _about(interpreter)
    venv = ROOT / f".venv-{name}"
    python, stamp = venv / "bin" / "python", venv / STAMP.name
    inputs = f"{_inputs()} {os.path.realpath(interpreter)}"
    with _turn():
        if python.exists() and stamp.exists() and stamp.read_text() == inputs:
            return str(python)
        _say(f"making {venv.name} with {interpreter}")
        _make(venv, interpreter)
        _say("installing .[dev] (a minute on a slow line)")
        _pip("install", "--editable", ".[dev]", python=python)
        stamp.write_text(inputs)
    return str(python)


def find(wanted: str) -> str | None:
    """Return the path of an interpreter that runs and is the `wanted` one: on the PATH, of pyenv or of uv."""
    if os.sep in wanted:
        return wanted if _about(wanted) else None
    name, home = f"python{wanted}", Path.home()
    found = [path for path in (shutil.which(name),) if path]
    roots = [Path(os.environ.get("PYENV_ROOT", home / ".pyenv"), "versions")]
    roots.append(Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local" / "share" / "uv" / "python")))
    for root in roots:
        found += map(str, sorted(root.glob(f"*/bin/{name}"), reverse=True))
    # One of pyenv's on the PATH may be there and not run: it asks which version is chosen.
    return next((path for path in found if _about(path) == wanted), None)


_HOW = (
    "get it with `uv python install {0}`, `pyenv install {0}`, from python.org, or on Ubuntu from the PPA deadsnakes, "
    "and name its path if it is not on the PATH"
)
_ABOUT = (
    "import sys, sysconfig as s\n"
    "print('%d.%d' % sys.version_info[:2] + ('t' if s.get_config_var('Py_GIL_DISABLED') else ''))"
)


def _about(interpreter: str) -> str:
    """Return the version of an interpreter, as ``3.13`` or ``3.14t``; nothing if it does not run, or is no CPython."""
    command = [interpreter, "-I", "-c", _ABOUT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def newest() -> tuple[str, list[str]]:
    """Make ``.venv-latest`` anew, with the newest release of every dependency, whatever setup.cfg allows.

    Returns its Python, and a line for each dependency: the version, and what setup.cfg says of it where that is not
    so new.
    """
    with _turn():
        _say(f"making {LATEST.name} with the newest of everything")
        _make(LATEST)
        python = LATEST / "bin" / "python"
        wanted = _requirements()
        _pip("install", "--upgrade", *sorted(wanted), python=python)
        _pip("install", "--no-deps", "--editable", ".", python=python)
    return str(python), _versions(python, wanted)


def _requirements() -> dict[str, str]:
    """Return what setup.cfg asks for, extras and all but the benchmarks' peers: name and bounds."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].splitlines()
    for extra in COVERS["dev"] | {"arrow", "cli", "dask", "dns", "mdns", "numpy", "progress"}:
        lines += config["options.extras_require"].get(extra, "").splitlines()
    found = [re.match(r"([\w.-]+)\s*(.*)", line) for line in lines if line.strip()]
    return {match[1]: match[2] for match in found if match and match[1] != "mycorrizal"}


def _versions(python: Path, wanted: dict[str, str]) -> list[str]:
    """Return a line for each dependency that is installed there."""
    code = (
        "import sys, importlib.metadata as m\n"
        "from pip._vendor.packaging.specifiers import SpecifierSet as S\n"
        "for a in sys.argv[1:]:\n"
        "    name, _, bounds = a.partition(' ')\n"
        "    v = m.version(name)\n"
        "    print(f'{name} {v}' + ('' if v in S(bounds) else f', which setup.cfg does not allow ({bounds})'))"
    )
    arguments = [f"{name} {bounds}" for name, bounds in sorted(wanted.items())]
    done = subprocess.run([str(python), "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def run(*command: str, env: dict[str, str] | None = None) -> int:
    """Run a command in the repository's root with no stdin; return its exit code."""
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, env=env, check=False).returncode


def reexec(extra: str = "") -> None:
    """Continue the calling script under ``.venv``'s Python; returns once that is the case."""
    start()
    python = ensure(extra)
    if os.path.realpath(sys.prefix) != os.path.realpath(VENV):
        os.execv(python, [python, *sys.argv])


# -- private ------------------------------------------------------------------------


def _say(text: str) -> None:
    print(f"[setup] {text}", file=sys.stderr, flush=True)


def _interpreter() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]} {os.path.realpath(sys.base_prefix)}"


def _inputs() -> str:
    digest = hashlib.sha256(f"{ROOT}\0{_interpreter()}".encode())
    for name in ("setup.cfg", "setup.py", "tools/_venv.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


class _Stamp(NamedTuple):
    inputs: str = ""
    python: str = ""
    extras: set[str] = set()  # noqa: RUF012 - replaced, never changed


def _read_stamp() -> _Stamp:
    try:
        stamp = json.loads(STAMP.read_text())
        return _Stamp(stamp["inputs"], stamp["python"], set(stamp["extras"]))
    except (OSError, ValueError, TypeError, KeyError):
        return _Stamp()


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    with open(__file__, "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _say("waiting for another tool that is installing")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(venv: Path = VENV, interpreter: str = sys.executable) -> None:
    shutil.rmtree(venv, ignore_errors=True)
    # -I: what PYTHONPATH or a user site holds must not leak into how the environment is made.
    command = [interpreter, "-I", "-m", "venv", str(venv)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(venv, ignore_errors=True)
        sys.stderr.write(done.stdout + done.stderr)
        sys.exit("[setup] Python cannot make a virtual environment; on Debian: apt-get install python3-venv")


def _pip(*arguments: str, python: Path = PYTHON) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    # As environment, because a pip that does not know a setting ignores it there. Without PEP 517 an old pip
    # runs setup.py itself, with a deprecation warning. stderr is shown only when pip fails: its warnings
    # (old version, running as root) are not news to someone who only wants to see the demo.
    env |= {"PIP_USE_PEP517": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    done = subprocess.run(
        [str(python), "-m", "pip", "--quiet", *arguments],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        sys.exit(f"[setup] pip {' '.join(arguments)} failed (above); is the package index reachable?")


def _newer_python() -> None:
    for minor in range(20, OLDEST[1] - 1, -1):
        path = shutil.which(f"python3.{minor}")
        if path and os.path.exists(sys.argv[0]):
            os.execv(path, [path, *sys.argv])
    sys.exit(f"[setup] this needs Python {OLDEST[0]}.{OLDEST[1]} or newer; this one is {sys.version.split()[0]}")
