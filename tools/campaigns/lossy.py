"""``tools/chaos``: see there. Also run, shorter, by tests/integration/test_lossy_network.py."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

from lab.netlab import Lab, missing
from lab.process import Process

PORT = 7946
JOIN_SECONDS = 60


class Host(Process):
    """A node process on a host of the lab."""

    def __init__(self, lab: Lab, number: int) -> None:
        self.lab, self.number = lab, number
        super().__init__()

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return self.lab.popen(self.number, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)


def run(hosts: int, seconds: float, seed: int, faults: dict[str, float], config: dict[str, Any]) -> dict[str, Any]:
    """Return what happened: seconds until all saw all, losses reported, what the switch did to frames."""
    with Lab(hosts, seed=seed, **faults) as lab:
        nodes = [Host(lab, number) for number in range(hosts)]
        for number, node in enumerate(nodes):
            node.open(f"h{number}", hosts, **{"bind_addr": lab.address(number), "bind_port": PORT, **config})
        for node in nodes:
            node.opened()
        start = time.monotonic()
        for node in nodes[1:]:
            node.tell(do="join", seed=f"{lab.address(0)}:{PORT}", again=JOIN_SECONDS)
        whole = max(node.take("event", "whole", JOIN_SECONDS)["t"] for node in nodes) - start
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for node in nodes:
                node.read(0.1)
        usage = [node.usage() for node in nodes]
        return {
            "all_see_all": whole,
            "lost": [event for node in nodes for event in node.events if event.get("event") == "left"],
            "members": [u["members"] for u in usage],
            "probes": sum(u["metrics"].get("probes", 0) for u in usage),
            "probes_failed": sum(u["metrics"].get("probes_failed", 0) for u in usage),
            "refutations": sum(u["metrics"].get("refutations", 0) for u in usage),
            "frames": lab.stats(),
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loss", type=float, default=0.3)
    parser.add_argument("--duplicate", type=float, default=0.05)
    parser.add_argument("--reorder", type=float, default=0.25)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--jitter", type=float, default=0.0)
    options = parser.parse_args()
    if (why := missing()) is not None:
        print(why)
        return 2
    faults = {key: getattr(options, key) for key in ("loss", "duplicate", "reorder", "delay", "jitter")}
    found = run(options.hosts, options.seconds, options.seed, faults, {})
    print(json.dumps(found, indent=1))
    whole = not found["lost"] and set(found["members"]) == {options.hosts}
    print(f"{'whole' if whole else 'NOT WHOLE'}: {options.hosts} hosts, {options.seconds:.0f} s, {faults}")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
