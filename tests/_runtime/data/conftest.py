"""Two planes of this process that know each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mycorrizal.dataplane import DataPlane
from tests._runtime.local.meeting import folder, meet

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
        for plane in (alice, bob):
            found = plane.metrics()
            used = {way for way in ("quic", "host") if found.get(f"{way}.accepted")}
            assert used <= {carrier}, "another carrier than the one that is tested"
