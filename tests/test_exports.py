"""What a module offers is what its ``__all__`` says: complete, unique, importable."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

import mycorrizal

SHELLS = {"mycorrizal.__main__"}
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(mycorrizal.__path__, "mycorrizal.") if module.name not in SHELLS
)
PUBLIC = [name for name in MODULES if not any(part.startswith("_") for part in name.split("."))]


def exported(module: ModuleType) -> list[str]:
    """Return a module's ``__all__``; internal modules need not have one."""
    return list(getattr(module, "__all__", ()))


@pytest.mark.parametrize("name", ["mycorrizal", *MODULES])
def test_every_name_in_all_exists_and_stands_once(name: str) -> None:
    module = importlib.import_module(name)
    names = exported(module)
    assert len(names) == len(set(names))
    missing = [entry for entry in names if not hasattr(module, entry)]
    assert not missing


@pytest.mark.parametrize("name", PUBLIC)
def test_public_module_names_all_that_it_defines(name: str) -> None:
    module = importlib.import_module(name)
    assert set(_defined(module)) <= set(exported(module))


def test_package_exports_each_public_error_type_and_delegate() -> None:
    for name in ("exceptions", "delegates"):
        module = importlib.import_module(f"mycorrizal.{name}")
        assert set(exported(module)) <= set(mycorrizal.__all__)
    assert {"Memberlist", "Config", "Node", "NodeState", "JoinResult"} <= set(mycorrizal.__all__)


def test_package_exports_nothing_without_saying_so() -> None:
    found = {name for name, value in vars(mycorrizal).items() if not isinstance(value, ModuleType)}
    public = {name for name in found if not name.startswith("_")} - {"annotations"}
    assert public <= set(mycorrizal.__all__)


def test_version_stands_in_one_place() -> None:
    root = Path(__file__).resolve().parent.parent
    assert "version = attr: mycorrizal.__version__" in (root / "setup.cfg").read_text()
    assert mycorrizal.__version__ in (root / "CHANGELOG.md").read_text()


def test_import_is_lean() -> None:
    """A process that is only a member pays for no QUIC, no ZeroMQ, no event loop, no cipher."""
    heavy = {"aioquic", "zmq", "asyncio", "cryptography", "OpenSSL", "matplotlib", "numpy"}
    assert heavy & imported("import mycorrizal") == set()
    assert heavy & imported("import mycorrizal; mycorrizal.Memberlist, mycorrizal.Config.lan()") == set()


def test_the_command_line_starts_lean() -> None:
    """A command that asks an agent pays for no member, no QUIC, and for tables only if it prints one."""
    heavy = {"mycorrizal.memberlist", "mycorrizal.serf", "mycorrizal._swim", "aioquic", "cryptography", "rich"}
    assert heavy & imported("import mycorrizal.cli.app") == set()


def test_an_agent_without_peers_starts_lean() -> None:
    """QUIC comes with the first peer to be met over it; Serf, tables, files and finders with who asks for them."""
    heavy = {
        "aioquic", "asyncio", "OpenSSL", "ssl", "cryptography.x509", "numpy", "zmq", "sqlite3", "tomllib", "difflib",
        "importlib.metadata", "html", "mycorrizal.serf", "mycorrizal._serf", "mycorrizal._control",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        agent = "mycorrizal.Agent('a', cluster='lean', control=False, config_file=False, discover=False)"
        code = f"import os; os.environ['MYCORRIZAL_RUNTIME_DIR'] = {place!r}; import mycorrizal; {agent}.close()"
        assert heavy & imported(code) == set()


def test_an_agent_answers_commands_without_libzmq() -> None:
    """libzmq ends the whole process where something is refused: docs/design.md."""
    server = "from mycorrizal._runtime.control.server import ControlService"
    assert "zmq" not in imported(f"{server}; import mycorrizal.agent")


def imported(code: str) -> set[str]:
    """Return the names of all modules after `code`, in a process of its own."""
    code = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def _defined(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
