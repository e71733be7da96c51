"""Real agents for the tests: in this process, or each in one of its own; with a runtime directory of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mycorrizal import Agent, Config

from .conftest import FAST

__all__ = ["QUICK", "QUICK_IN_SCRIPTS", "Make", "agents", "meeting_place", "runtime_dir"]

Make = Callable[..., Agent]

_SETTINGS = {**FAST, "suspicion_min_timeout": 3.0}  # who is gone has no use of it, who is slow on a busy machine has
QUICK = Config.local(bind_addr="127.0.0.1", bind_port=0, **_SETTINGS)
"""For tests that wait until somebody is given up, and do not ask how long an agent's own settings take to that."""
QUICK_IN_SCRIPTS = f"config = Config.local(bind_addr='127.0.0.1', bind_port=0, **{_SETTINGS!r})"
"""The line that makes the same in a script of ``spawn``."""


@contextlib.contextmanager
def meeting_place() -> Iterator[str]:
    """Make a runtime directory, tell it to this process and its children, and remove it at the end.

    Not below pytest's own directory: the paths of sockets must be short.
    """
    before = os.environ.get("MYCORRIZAL_RUNTIME_DIR")
    path = tempfile.mkdtemp(prefix="myc-")
    os.environ["MYCORRIZAL_RUNTIME_DIR"] = path
    try:
        yield path
    finally:
        if before is None:
            del os.environ["MYCORRIZAL_RUNTIME_DIR"]
        else:
            os.environ["MYCORRIZAL_RUNTIME_DIR"] = before
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def runtime_dir() -> Iterator[str]:
    """A runtime directory for one test."""
    with meeting_place() as path:
        yield path


@pytest.fixture
def agents(runtime_dir: str) -> Iterator[Make]:
    """Return a function that starts an agent: ``agents("alice", tags={...})``; all are closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(name: str | None = None, **options: Any) -> Agent:
            agent = Agent(name, **options)
            stack.callback(agent.close)
            return agent

        yield make
