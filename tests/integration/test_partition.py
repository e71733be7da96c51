"""Four hosts, cut in two for longer than the dead are remembered: they find each other again without a join.

On each host there are two nodes, of two clusters: one heals, in the other that is switched off. The network, the cut
and the time are the same for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from campaigns.lossy import PORT, Host
from lab.netlab import Lab

from .conftest import FAST

HOSTS = 4
SETTINGS: dict[str, Any] = {
    **FAST,
    "gossip_to_the_dead_time": 1.0,
    "tcp_timeout": 1.0,  # a connection that was being dialled when the cut came must not outlive it
    "push_pull_interval": 1.0,
}


def seen(nodes: list[Host], gauge: str) -> list[int]:
    """Return what each node's metrics say."""
    return [node.usage()["metrics"].get(gauge, 0) for node in nodes]


def wait_for(what: str, condition: Callable[[], bool], seconds: float) -> None:
    """Wait until `condition()`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def begin(lab: Lab, port: int, reconnect_interval: float) -> list[Host]:
    """Start a cluster, one node a host; they join in the background."""
    nodes = [Host(lab, number) for number in range(HOSTS)]
    for number, node in enumerate(nodes):
        where = {"bind_addr": lab.address(number), "bind_port": port}
        node.open(f"h{number}", HOSTS, **{**SETTINGS, **where, "reconnect_interval": reconnect_interval})
    return nodes


@pytest.mark.slow
def test_halves_meet_again_by_themselves(need_network_namespace: None) -> None:
    with Lab(HOSTS) as lab:
        clusters = {PORT: begin(lab, PORT, 1.0), PORT + 1: begin(lab, PORT + 1, 0)}
        healing, switched_off = clusters.values()
        for port, nodes in clusters.items():
            for node in nodes:
                node.opened()
            for node in nodes[1:]:
                node.tell(do="join", seed=f"{lab.address(0)}:{port}", again=20)
        for nodes in clusters.values():
            wait_for("whole before", lambda nodes=nodes: seen(nodes, "members") == [4] * HOSTS, 20)

        lab.partition([0, 1], [2, 3])
        for nodes in clusters.values():
            wait_for("two clusters", lambda nodes=nodes: seen(nodes, "members") == [2] * HOSTS, 20)
            # Not even as dead ones are the others known any more, so gossip to the dead cannot be what heals.
            wait_for("forgotten", lambda nodes=nodes: seen(nodes, "nodes") == [2] * HOSTS, 20)
        assert lab.stats()["cut"] > 0

        lab.partition()
        began = time.monotonic()
        wait_for("whole again", lambda: seen(healing, "members") == [4] * HOSTS, 20)
        assert all(node.usage()["metrics"]["nodes"] == 4 for node in healing)
        time.sleep(max(0.0, 4 - (time.monotonic() - began)))
        assert seen(switched_off, "members") == [2] * HOSTS, "this test would not notice if healing did nothing"
