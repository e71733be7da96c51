"""What must never come twice: two messages under one key and nonce would give both away."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal._runtime.data.core import Core
from mycorrizal._runtime.threads.nonces import Nonces
from mycorrizal._wire.security import NONCE_BYTES, Keyring

COUNT = 500


gossip_nonce = Nonces(Keyring([], bytes(range(16))))


def proof_nonce() -> bytes:
    core: Any = SimpleNamespace()
    return Core.nonce(core)


def drawn(draw: Callable[[], bytes]) -> list[bytes]:
    return [draw() for _ in range(COUNT)]


def drawn_by_a_child(draw: Callable[[], bytes]) -> list[bytes]:
    """Return what a forked child draws, which has all of this process's memory."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            with os.fdopen(writing, "wb") as out:
                out.write(b"".join(drawn(draw)))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    size = len(data) // COUNT
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(("draw", "size"), [(gossip_nonce, NONCE_BYTES), (proof_nonce, 32)], ids=["gossip", "proof"])
def test_no_nonce_comes_twice_not_even_after_a_fork(draw: Callable[[], bytes], size: int) -> None:
    found = drawn(draw)
    found += drawn_by_a_child(draw) + drawn_by_a_child(draw) + drawn(draw)
    assert len(found) == len(set(found)) == 4 * COUNT
    assert {len(nonce) for nonce in found} == {size}
