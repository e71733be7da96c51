"""Two planes of this process that know each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mycorrizal.dataplane import DataPlane

from .couple import KEY, Pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    """alice, who knows where bob is."""
    with DataPlane("alice", key=KEY) as alice, DataPlane("bob", key=KEY) as bob:
        alice.add_peer("bob", bob.address)
        yield Pair(alice, bob)
