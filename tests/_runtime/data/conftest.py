"""Two planes of this process that know each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mycorrizal.dataplane import DataPlane
from tests._runtime.local.meeting import assert_carrier, folder, meet

from .couple import KEY, Pair


@pytest.fixture(params=["quic", "host"])
def carrier(request: pytest.FixtureRequest) -> str:
    """How the bytes travel: each test of the data plane runs on both."""
    name: str = request.param
    return name


@pytest.fixture
def pair(carrier: str) -> Iterator[Pair]:
    """alice, who knows where bob is."""
    with folder() as path, DataPlane("alice", key=KEY) as alice, DataPlane("bob", key=KEY) as bob:
        alice.add_peer("bob", bob.address)
        if carrier == "host":
            meet(path, alice, bob)
        yield Pair(alice, bob)
        assert_carrier(carrier, alice, bob)
