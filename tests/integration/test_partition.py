"""Four hosts, cut in two for longer than the dead are remembered: they find each other again without a join."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from chaos_lossy import PORT, Host

from tests.netlab import Lab

from .conftest import FAST

HOSTS = 4


def seen(nodes: list[Host], gauge: str) -> list[int]:
    """Return what each node's metrics say."""
    return [node.usage()["metrics"].get(gauge, 0) for node in nodes]


def wait_for(what: str, condition: Callable[[], bool], seconds: float) -> None:
    """Wait until `condition()`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("heals", [True, False], ids=["healing", "switched off"])
def test_halves_meet_again_by_themselves(need_network_namespace: None, heals: bool) -> None:
    settings: dict[str, Any] = {
        **FAST,
        "bind_port": PORT,
        "gossip_to_the_dead_time": 1.0,
        "tcp_timeout": 1.0,  # a connection that was being dialled when the cut came must not outlive it
        "push_pull_interval": 1.0,
        "reconnect_interval": 1.0 if heals else 0,
    }
    with Lab(HOSTS) as lab:
        nodes = [Host(lab, number) for number in range(HOSTS)]
        for number, node in enumerate(nodes):
            node.open(f"h{number}", HOSTS, **{**settings, "bind_addr": lab.address(number)})
        for node in nodes:
            node.opened()
        for node in nodes[1:]:
            node.tell(do="join", seed=f"{lab.address(0)}:{PORT}", again=20)
        wait_for("whole before", lambda: seen(nodes, "members") == [4] * HOSTS, 20)

        lab.partition([0, 1], [2, 3])
        wait_for("two clusters", lambda: seen(nodes, "members") == [2] * HOSTS, 20)
        # Not even as dead ones are the others known any more, so gossip to the dead cannot be what heals.
        wait_for("forgotten", lambda: seen(nodes, "nodes") == [2] * HOSTS, 20)
        assert lab.stats()["cut"] > 0

        lab.partition()
        if heals:
            wait_for("whole again", lambda: seen(nodes, "members") == [4] * HOSTS, 20)
            assert all(node.usage()["metrics"]["nodes"] == 4 for node in nodes)
        else:
            time.sleep(4)
            assert seen(nodes, "members") == [2] * HOSTS, "this test would not notice if healing did nothing"
