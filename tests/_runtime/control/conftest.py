"""A control plane over real sockets, its agent that is none, and clients of it with and without manners."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from mycorrizal._runtime.control.server import ControlService
from mycorrizal.control import ControlClient
from tests._control.fake import FakeAgent

from .raw_control import Raw


@pytest.fixture
def agent() -> Iterator[FakeAgent]:
    agent = FakeAgent()
    yield agent
    agent.gate.set()


@pytest.fixture
def plane(agent: FakeAgent, tmp_path: Path) -> Iterator[ControlService]:
    made = ControlService(
        agent, commands=f"ipc://{tmp_path}/c", events=f"ipc://{tmp_path}/e", facts={"version": "9", "pid": os.getpid()}
    )
    yield made
    agent.gate.set()
    made.close()
    assert not made._service.alive
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def client(plane: ControlService) -> Iterator[ControlClient]:
    with ControlClient(plane.commands) as made:
        yield made


@pytest.fixture
def raw(plane: ControlService) -> Iterator[Callable[..., Raw]]:
    made: list[Raw] = []

    def make(kind: int = zmq.DEALER, **options: Any) -> Raw:
        made.append(Raw(plane.commands, kind, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
