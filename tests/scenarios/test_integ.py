"""Go's ``integ_test.go``: a larger cluster, encrypted, all on one address."""

from __future__ import annotations

import pytest

from tests.scenarios.network import Network, faithful, named


@pytest.mark.parametrize("wire", ["msgpack", "cbor"])
def test_Memberlist_Integ(wire: str) -> None:
    settings = {
        "gossip_interval": 0.02,
        "push_pull_interval": 0.2,
        "probe_interval": 1.0,
        "secret_key": bytes(range(16)),
        "wire": wire,
    }
    swims = [faithful(f"node{n:02}", "127.0.0.1", 12345 + n, **settings) for n in range(16)]
    network = Network(*swims, latency=0.0005)
    for joiner, seed in zip(swims[1:], swims, strict=False):
        assert network.join(joiner, seed) is None
    joined = network.now

    took = network.run_until(lambda: all(len(swim.members()) == 16 for swim in swims), 0.25)

    assert took is not None, [len(swim.members()) for swim in swims]
    assert joined < 0.05
    network.run(10.0)
    everybody = [f"node{n:02}" for n in range(16)]
    for swim in swims:
        assert named(swim.members()) == everybody
        assert swim.health_score == 0
