"""``tools/chaos events``: agents on a network that loses, all broadcasting; each has each event once, in order.

Also run, shorter, by tests/integration/test_agents_lossy.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from campaigns.agents import ask_all, cluster, end_all, wait_for
from lab.netlab import missing

TOPIC = "chaos"
COUNTED = ("udp.sent", "tcp.sent", "share.events.fetches", "share.events.duplicate", "share.spread.pushed",
           "share.spread.not_passed_on", "share.pushes_dropped", "share.pushes_failed", "share.rejected",
           "share.events.not_held", "share.events.missed", "delegate.slow", "stalls")  # fmt: skip


def run(hosts: int, events: int, size: int, interval: float, seconds: float, seed: int, faults: dict[str, float],
        **config: Any) -> dict[str, Any]:  # fmt: skip
    """Return what was seen where, when the last had all, what it cost, and what is wrong."""
    each = events // hosts
    with cluster(hosts, seed, faults, **config) as (lab, nodes):
        ask_all(nodes, "subscribe", topic=TOPIC)
        before = ask_all(nodes, "metrics")
        began = time.monotonic()
        ask_all(nodes, "broadcast", topic=TOPIC, first=0, count=each, size=size, interval=interval)

        def settled() -> bool:
            return all(seen["count"] + seen["missed"] >= each * hosts for seen in ask_all(nodes, "seen"))

        problems = []
        try:
            wait_for("all have all", settled, seconds)
        except TimeoutError as error:
            problems.append(str(error))
        told = ask_all(nodes, "told")
        ended = max(seen["last"] for seen in ask_all(nodes, "seen")) - began
        time.sleep(1.0)  # what comes twice would come now
        values, after = ask_all(nodes, "values"), ask_all(nodes, "metrics")
        frames = lab.stats()
        members = ask_all(nodes, "members")
        codes = end_all(nodes)
    expected = {node.name: list(range(each)) for node in nodes}
    for node, found in zip(nodes, values, strict=True):
        if found["seen"] != expected or found["missed"]:
            counts = {sender: len(got) for sender, got in found["seen"].items()}
            in_order = all(got == sorted(set(got)) for got in found["seen"].values())
            problems.append(f"{node.name}: in order and once: {in_order}, {counts}, missed: {found['missed']}")
    problems += [f"{node.name} could not tell: {one['failed']}" for node, one in zip(nodes, told, strict=True)
                 if one.get("failed", "not done")]  # fmt: skip
    if any(len(names) != hosts for names in members):
        problems.append(f"members were lost: {members}")
    if any(codes):
        problems.append(f"exit codes {codes}")
    def mean(key: str) -> float:
        return round(total(key) / hosts, 3)

    def total(key: str) -> float:
        return float(sum(a.get(key, 0) - b.get(key, 0) for a, b in zip(after, before, strict=True)))

    return {
        "events": each * hosts,
        "told_seconds": max(one.get("seconds", 0.0) for one in told),
        "all_have_all_seconds": ended,
        "totals": {key: int(total(key)) for key in COUNTED},
        "cpu_seconds_a_node": mean("cpu"),
        "gossip_cpu_seconds_a_node": mean("cpu.gossip"),
        "frames": frames,
        "wrong": problems,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/chaos events", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--size", type=int, default=100, help="bytes in each")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between two events of one host")
    parser.add_argument("--seconds", type=float, default=120.0, help="until all must have all")
    parser.add_argument("--wire", default="cbor")
    parser.add_argument("--seed", type=int, default=1)
    for name, value in {"loss": 0.1, "duplicate": 0.0, "reorder": 0.0, "delay": 0.0, "jitter": 0.0}.items():
        parser.add_argument(f"--{name}", type=float, default=value)
    options = parser.parse_args()
    if (why := missing()) is not None:
        print(why)
        return 2
    faults = {key: getattr(options, key) for key in ("loss", "duplicate", "reorder", "delay", "jitter")}
    found = run(
        options.hosts, options.events, options.size, options.interval, options.seconds, options.seed, faults,
        wire=options.wire,
    )  # fmt: skip
    print(json.dumps(found, indent=1))
    print(f"{'NOT WHOLE' if found['wrong'] else 'whole'}: {options.hosts} hosts, {faults}")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
