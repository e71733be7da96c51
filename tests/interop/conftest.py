"""Fixtures for tests against real peers. Without the peers the tests skip, or fail with ``CI=true``."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import Config, Memberlist

from .peers import GoPeer, PythonNode, SerfAgent

SOURCES = Path(__file__).resolve().parent / "gopeer"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test opened, the latest first, also when it fails."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def gopeer_program(need_peer: Callable[[str], str]) -> Path:
    """Build gopeer once for each state of its sources, offline, from Debian's packages."""
    go = need_peer("memberlist")
    digest = hashlib.sha256()
    for source in sorted(SOURCES.glob("*.go")):
        digest.update(source.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"mycorrizal-gopeer-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    program = folder / f"gopeer-{digest.hexdigest()[:16]}"
    if not program.exists():
        environment = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": ""}
        unfinished = folder / f"{program.name}.{os.getpid()}"
        command = [go, "build", "-o", str(unfinished), "."]
        built = subprocess.run(command, cwd=SOURCES, env=environment, capture_output=True, text=True, check=False)
        assert built.returncode == 0, f"gopeer does not build:\n{built.stderr}"
        unfinished.rename(program)  # two runs at once never see half a file
    return program


@pytest.fixture
def go_peer(stack: ExitStack, gopeer_program: Path) -> Callable[..., GoPeer]:
    """Start Go nodes: ``go_peer("g1", "-quic-port", "9000")``."""
    return lambda name, *flags, **options: stack.enter_context(GoPeer(gopeer_program, name, *flags, **options))


@pytest.fixture
def serf_agent(stack: ExitStack, need_peer: Callable[[str], str]) -> Callable[..., SerfAgent]:
    """Start agents: ``serf_agent("s1", tags={"a": "b"})``."""
    serf = need_peer("serf")
    return lambda name, **options: stack.enter_context(SerfAgent(serf, name, **options))


@pytest.fixture
def python_node(stack: ExitStack) -> Callable[..., PythonNode]:
    """Start Python nodes in processes of their own, to be killed."""
    return lambda name, join, **options: stack.enter_context(PythonNode(name, join, **options))


@pytest.fixture
def member(stack: ExitStack) -> Iterator[Callable[..., Memberlist]]:
    """Start a Memberlist in this process: keywords are settings, or delegates of ``Memberlist``.

    At the end none of its delegates may have raised.
    """
    started: list[Memberlist] = []

    def start(name: str, *, config: Config | None = None, **options: Any) -> Memberlist:
        roles = {"delegate", "events", "conflict", "merge", "ping", "alive"}
        delegates = {role: options.pop(role) for role in roles & options.keys()}
        base = config or Config.local(wire="msgpack", bind_addr="127.0.0.1", bind_port=0, name=name)
        started.append(stack.enter_context(Memberlist(base.replace(name=name, **options), **delegates)))
        return started[-1]

    yield start
    assert [node.metrics()["delegate.faults"] for node in started] == [0] * len(started)
