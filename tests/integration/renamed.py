"""A process in which aioquic has lost a name, run by ``test_stock_path``.

``renamed.py check NAME``: print which packet path is taken. ``renamed.py agent NAME FOLDER``: be an agent, use all
of the data plane with the agent "here", and print what worked.

``NAME`` is a word that another stands for throughout aioquic, which works as before, as after a release that has
renamed it; or ``module:name``, which is deleted.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any


class Renaming(SourceFileLoader):
    """Compiles a module with another word for ``word``."""

    word = ""

    def get_code(self, fullname: str) -> CodeType:
        """Return what the module would be compiled to."""
        source = re.sub(rf"\b{self.word}\b", f"{self.word}_of_now", Path(self.path).read_text("utf-8"))
        compiled: CodeType = compile(source, self.path, "exec", dont_inherit=True)
        return compiled


class Finder:
    """Finds the modules of aioquic."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return a spec with our loader."""
        if name.split(".", maxsplit=1)[0] != "aioquic":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Renaming(spec.loader.name, spec.loader.path)
        return spec


class Warnings(logging.Handler):
    """Keeps what is logged of the transport as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.found.append(record.getMessage())


def take_away(name: str) -> None:
    """Have aioquic lack `name`."""
    module, _, attribute = name.partition(":")
    if attribute:
        importlib.import_module("aioquic.quic.connection")  # which has taken it by then
        delattr(importlib.import_module(module), attribute)
    else:
        Renaming.word = name
        sys.meta_path.insert(0, Finder)


def check() -> dict[str, object]:
    """Return the path, and what is said of the other."""
    from mycorrizal._runtime.quic.choice import packet_path

    found = packet_path()
    return {"path": found.path.name, "problem": found.problem}


def agent(folder: str) -> dict[str, object]:
    """Use everything."""
    from mycorrizal import Agent, Config, DataConfig

    warnings = Warnings()
    logging.getLogger("mycorrizal.quic").addHandler(warnings)
    config = Config.local(bind_addr="127.0.0.1", bind_port=0)
    with Agent("away", config=config, data_config=DataConfig(same_host=False)) as away:
        away.on_request("triple")(lambda request: 3 * request.value)
        away.wait_for(2, 60)
        done = use(away, Path(folder))
        health = away.health()
        return {
            **check(),
            "metric": away.metrics()["quic.stock_path"],
            "problems": [problem for problem in health.problems if "aioquic" in problem],
            "warnings": warnings.found,
            "done": done,
        }


def use(away: Any, folder: Path) -> list[str]:
    """Return what worked, in order; what did not raises."""
    done = []

    def works(what: str, found: object, wanted: object) -> None:
        assert found == wanted, (what, found)
        done.append(what)

    ask = away.request
    works("request", ask("here", "double", 21, timeout=60), 42)
    works("large", len(ask("here", "double", bytes(3_000_000), timeout=60)), 6_000_000)
    works("answered", ask("here", "call back", 5, timeout=60), 15)
    away.send("here", ["a", "message"], timeout=60)
    works("message", ask("here", "inbox", None, timeout=60), ["a", "message"])
    works("sent", away.receive(60).value, "from here")
    with away.open_stream("here", "echo", 60) as stream:
        stream.write(b"x" * 500_000)
        stream.close_write()
        works("stream", len(stream.read()), 500_000)
    (folder / "given").write_bytes(bytes(range(256)) * 4000)
    taken = away.request_async("here", "file", None, timeout=60)
    away.send_file("here", folder / "given", timeout=60)
    works("file", taken.result(60), 1_024_000)
    cache = away.cache("shared")
    cache.set("key", {"of": "both"}, timeout=60)
    works("cache", ask("here", "cache", "key", timeout=60), {"of": "both"})
    return done


if __name__ == "__main__":
    take_away(sys.argv[2])
    print(json.dumps(check() if sys.argv[1] == "check" else agent(sys.argv[3])))
