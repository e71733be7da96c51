"""``tools/chaos settings``: a cluster is cut in two, both sides go on writing, and afterwards all agree again.

What is checked: settings that one side or both wrote are the same everywhere,
what was deleted stays deleted, services of the far side vanish and come back,
events that were told meanwhile arrive once and in order or are counted as
missed; and one host's wall clock, an hour ahead, freezes no key. Also run,
shorter, by tests/integration/test_agents_lossy.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from campaigns.agents import PORT, Host, ask_all, cluster, wait_for
from lab.netlab import missing

TOPIC = "chaos"
AHEAD = 3600.0


class Campaign:
    """One cluster in two halves: hosts 0, 1, … and the rest; the last of all is an hour ahead."""

    def __init__(self, hosts: list[Host], seconds: float, limit: float) -> None:
        self.hosts = hosts
        self.halves = [list(range(len(hosts) // 2)), list(range(len(hosts) // 2, len(hosts)))]
        self.seconds = seconds
        self.limit = limit
        self.figures: dict[str, float] = {}
        self.wrong: list[str] = []
        self.shared: Any = None

    def settings(self) -> list[dict[str, Any]]:
        return list(ask_all(self.hosts, "settings"))

    def expect(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for something; how long it took is a figure, that it did not come true is wrong."""
        try:
            self.figures[what] = round(wait_for(what, condition, self.limit), 2)
        except TimeoutError as error:
            self.wrong.append(str(error))

    def before(self) -> None:
        """What all know when the cut comes."""
        for host in self.hosts:
            host.ask("set", values={f"of {host.name}": 0, "shared": "before"})
            host.ask("register", service="api", port=80)
        self.hosts[0].ask("set", values={f"doomed {side}": "alive" for side in ("a", "b", "both")})
        keys = len(self.hosts) + 4
        self.expect("all know all before", lambda: all(len(found) == keys for found in self.settings()))
        ask_all(self.hosts, "subscribe", topic=TOPIC)

    def clock(self) -> None:
        """A key that the host with the wrong clock wrote can be overwritten at once."""
        self.hosts[-1].ask("set", values={"clock": "ahead"})
        self.expect("all have what the wrong clock wrote",
                    lambda: all(found.get("clock") == "ahead" for found in self.settings()))  # fmt: skip
        self.hosts[0].ask("set", values={"clock": "right"})
        self.expect("all have what the right clock wrote",
                    lambda: all(found.get("clock") == "right" for found in self.settings()))  # fmt: skip

    def alone(self, half: list[int]) -> bool:
        """Return whether the hosts of a half see their own services and no others."""
        own = [f"api@{self.hosts[number].name}" for number in half]
        return all(self.hosts[number].ask("services") == own for number in half)

    def same(self) -> bool:
        """Return whether all have the same settings."""
        first, *others = self.settings()
        return all(found == first for found in others)

    def apart(self) -> None:
        """Write on both sides of the cut for as long as it lasts."""
        began = time.monotonic()
        for half, side in zip(self.halves, "ab", strict=True):
            self.expect(f"services of the far side vanish on side {side}", partial(self.alone, half))
        for half, side in zip(self.halves, "ab", strict=True):
            writer = self.hosts[half[0]]
            writer.ask("set", values={"shared": side, f"only {side}": 1})
            writer.ask("delete", keys=[f"doomed {side}", "doomed both"])
            writer.ask("broadcast", topic=TOPIC, first=0, count=50, size=50, interval=0.0)
        for host in self.hosts:
            host.ask("set", values={f"of {host.name}": 1})
        for number in range(1_000_000):
            left = self.seconds - (time.monotonic() - began)
            if left <= 0:
                break
            for half, side in zip(self.halves, "ab", strict=True):
                self.hosts[half[-1]].ask("set", values={"shared": f"{side} {number}"})
            time.sleep(min(left, 0.5))
        self.figures["seconds apart"] = round(time.monotonic() - began, 2)

    def together(self) -> None:
        """Everything is as it has to be, and stays so."""

        def each(do: str, condition: Callable[[Any], bool]) -> Callable[[], bool]:
            return lambda: all(map(condition, ask_all(self.hosts, do)))

        services = sorted(f"api@{host.name}" for host in self.hosts)
        self.expect("members again", each("members", lambda names: len(names) == len(self.hosts)))
        self.expect("the same settings everywhere", self.same)
        self.expect("all services again", each("services", lambda found: found == services))
        self.expect("all events", each("seen", lambda seen: seen["count"] + seen["missed"] >= 100))
        time.sleep(2.0)
        found = self.settings()
        expected = {f"of {host.name}" for host in self.hosts} | {"shared", "only a", "only b", "clock"}
        for host, one in zip(self.hosts, found, strict=True):
            if set(one) != expected or one != found[0]:
                self.wrong.append(f"{host.name} has {one}")
            if any(one.get(f"of {other.name}") != 1 for other in self.hosts):
                self.wrong.append(f"{host.name} has old values: {one}")
        self.shared = found[0].get("shared")
        self.events()

    def events(self) -> None:
        """What was told during the cut has arrived once and in order, or is counted as missed."""
        senders = [self.hosts[half[0]].name for half in self.halves]
        for host, values in zip(self.hosts, ask_all(self.hosts, "values"), strict=True):
            for sender in senders:
                seen, missed = values["seen"].get(sender, []), values["missed"].get(sender, 0)
                if seen != sorted(set(seen)) or len(seen) + missed != 50:
                    self.wrong.append(f"{host.name} has {len(seen)} events of {sender}, {missed} missed: {seen}")


def run(hosts: int, seconds: float, limit: float, seed: int, faults: dict[str, float], **config: Any) -> dict[str, Any]:
    """Return how long what took, and what is wrong."""
    with cluster(hosts, seed, faults, spare=1, last_ahead=AHEAD, **config) as (lab, nodes):
        campaign = Campaign(nodes, seconds, limit)
        campaign.before()
        campaign.clock()
        lab.partition(*campaign.halves, [hosts])
        campaign.apart()
        lab.partition()
        campaign.together()
        late = Host(lab, hosts, f"{lab.address(0)}:{PORT}", **config)
        late.take()
        if late.ask("settings") != nodes[0].ask("settings"):
            campaign.wrong.append(f"who comes later has {late.ask('settings')}")
        return {"shared": campaign.shared, **campaign.figures, "frames": lab.stats(), "wrong": campaign.wrong}


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/chaos settings", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=30.0, help="that the cut lasts")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds until all must agree")
    parser.add_argument("--wire", default="cbor")
    parser.add_argument("--seed", type=int, default=1)
    for name in ("loss", "duplicate", "reorder", "delay", "jitter"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    options = parser.parse_args()
    if (why := missing()) is not None:
        print(why)
        return 2
    faults = {key: getattr(options, key) for key in ("loss", "duplicate", "reorder", "delay", "jitter")}
    found = run(options.hosts, options.seconds, options.limit, options.seed, faults, wire=options.wire)
    print(json.dumps(found, indent=1))
    verdict = "NOT WHOLE" if found["wrong"] else "whole"
    print(f"{verdict}: {options.hosts} hosts, {options.seconds:.0f} s apart, {faults}")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
