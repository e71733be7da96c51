"""One process of ``tools/bench gossip`` and of ``tools/chaos``: a Memberlist, commanded by JSON lines on stdin.

Answers and events are JSON lines on stdout; ``t`` is CLOCK_MONOTONIC, which all
processes of a machine share. Kept free of anything that would disturb what is
measured: one thread waits for events, the main thread for commands.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from typing import Any

import mycorrizal

_out = threading.Lock()


def say(**fields: Any) -> None:
    with _out:
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()


class Watch:
    """An event delegate that reports when all are seen, and every loss."""

    def __init__(self, name: str, want: int) -> None:
        self.name, self.want, self.seen = name, want, 0

    def notify_join(self, node: mycorrizal.Node) -> None:
        self.seen += 1
        if self.seen == self.want:
            say(event="whole", name=self.name, t=time.monotonic())

    def notify_leave(self, node: mycorrizal.Node) -> None:
        self.seen -= 1
        say(event="left", name=self.name, who=node.name, t=time.monotonic())

    def notify_update(self, node: mycorrizal.Node) -> None:
        return None


def usage() -> dict[str, float]:
    """Return what this process has used so far; memory in MB, now and not at its peak."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        rows = dict(line.split(":", 1) for line in file.read().splitlines()[1:])
    kb = {key: int(rows[key].split()[0]) for key in ("Rss", "Pss", "Private_Dirty")}
    return {"cpu": spent.ru_utime + spent.ru_stime, "rss_mb": kb["Rss"] / 1024, "pss_mb": kb["Pss"] / 1024}


def join(member: mycorrizal.Memberlist, seed: str, again: float) -> None:
    """Join; try again for `again` seconds, as one does on a bad network."""
    end = time.monotonic() + again
    while True:
        try:
            member.join([seed], timeout=60)
            return
        except mycorrizal.JoinError:
            if time.monotonic() >= end:
                raise


def main() -> None:
    member: mycorrizal.Memberlist | None = None
    for line in sys.stdin:
        order = json.loads(line)
        match order["do"]:
            case "open":
                config = mycorrizal.Config.lan(**order["config"])
                member = mycorrizal.Memberlist(config, events=Watch(config.name, order["want"]))
                say(reply="open", port=member.local_node.port)
            case "join":
                assert member is not None
                delay = order.get("at", 0) - time.monotonic()
                if delay > 0:
                    time.sleep(delay)
                join(member, order["seed"], order.get("again", 0))
            case "usage":
                assert member is not None
                say(
                    reply="usage", t=time.monotonic(), members=member.num_members(), **usage(), metrics=member.metrics()
                )
            case "close":
                if member is not None:
                    member.shutdown()
                say(reply="close")
            case "quit":
                return


if __name__ == "__main__":
    main()
