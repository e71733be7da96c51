"""Eight processes on eight hosts, a third of all frames lost, some repeated, many out of order: nobody is given up.

``tools/chaos`` runs the same for three minutes, with the LAN profile as it is; docs/performance.md has its figures.
"""

from __future__ import annotations

import subprocess

import pytest

from campaigns.lossy import run
from lab.netlab import Lab

TWICE_AS_FAST = {"probe_interval": 0.5, "probe_timeout": 0.25, "gossip_interval": 0.1}
"""The LAN profile, of which everything is a multiple of these: as many rounds in half the time."""


@pytest.mark.slow
def test_a_bad_network_does_not_tear_the_cluster(need_network_namespace: None) -> None:
    faults = {"loss": 0.3, "duplicate": 0.05, "reorder": 0.25}
    found = run(8, 15.0, 1, faults, TWICE_AS_FAST)
    assert found["lost"] == []
    assert found["members"] == [8] * 8
    assert found["frames"]["lost"] > 500, "the switch did lose frames"
    assert found["frames"]["repeated"] > 50
    assert found["frames"]["held"] > 300
    assert found["probes_failed"] > 0, "and probes did fail for it"


def test_a_lab_leaves_nothing_behind(need_network_namespace: None) -> None:
    lab = Lab(2)

    def namespaces() -> list[str]:
        """Return those of this lab: others may run at the same time."""
        listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout.split()
        return [name for name in listed if name.startswith(lab.prefix)]

    assert namespaces() == []
    with lab:
        assert len(namespaces()) == 2
    assert namespaces() == []
