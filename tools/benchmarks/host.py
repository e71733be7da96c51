"""``tools/bench host``: two agents of this host by a Unix socket and by QUIC, in turn in one run.

One agent asks two others, each in a process of its own: one that takes
connections by a Unix socket, one that does not. Rounds alternate; what counts
is the median of the rounds' ratios. Beside the rates stand the processor time
of both processes and how often a thread of theirs slept, for each request:
those say something on a busy machine too. Every figure asserts its carrier.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks.rounds import at_once, turned
from lab.child import as_child
from mycorrizal import Agent, DataConfig

MIB = 1 << 20
WAYS = {"host": True, "quic": False}
SECONDS = 120.0


def used() -> list[float]:
    """Return processor seconds and voluntary switches of this process."""
    found = resource.getrusage(resource.RUSAGE_SELF)
    return [found.ru_utime + found.ru_stime, found.ru_nvcsw]


def serve(name: str) -> None:
    """Be the agent that is asked, until standard input ends."""
    with Agent(name, data_config=DataConfig(same_host=WAYS[name])) as agent:
        agent.on_request("echo")(lambda request: request.value)
        agent.on_request("size")(lambda request: len(request.value))
        agent.on_request("used")(lambda request: used())
        print("up", flush=True)
        sys.stdin.read()


def requests(agent: Agent, node: str, callers: int, count: int) -> dict[str, float]:
    """Ask `count` times in all; return rate, latencies in µs, and for each request µs of processor and sleeps."""

    def prepare(number: int) -> Callable[[], list[float]]:
        def run() -> list[float]:
            took = []
            for _ in range(count // callers):
                began = time.perf_counter()
                agent.request(node, "echo", bytes(64), timeout=SECONDS)
                took.append(time.perf_counter() - began)
            return took

        return run

    before = [*used(), *agent.request(node, "used", timeout=SECONDS)]
    began = time.perf_counter()
    took = sorted(one for each in at_once(callers, prepare) for one in each)
    seconds = time.perf_counter() - began
    after = [*used(), *agent.request(node, "used", timeout=SECONDS)]
    spent = [two - one for one, two in zip(before, after, strict=True)]
    return {
        "per s": len(took) / seconds,
        "p50 µs": took[len(took) // 2] * 1e6,
        "p99 µs": took[len(took) * 99 // 100] * 1e6,
        "CPU µs": (spent[0] + spent[2]) / len(took) * 1e6,
        "sleeps": (spent[1] + spent[3]) / len(took),
    }


def bulk(agent: Agent, node: str, size: int) -> dict[str, float]:
    """Send one large value; return MB/s."""
    value = bytes(size)
    before = [*used(), *agent.request(node, "used", timeout=SECONDS)]
    began = time.perf_counter()
    assert agent.request(node, "size", value, timeout=SECONDS) == size
    seconds = time.perf_counter() - began
    after = [*used(), *agent.request(node, "used", timeout=SECONDS)]
    spent = [two - one for one, two in zip(before, after, strict=True)]
    return {
        "MB/s": size / seconds / 1e6,
        "CPU ms/MiB": (spent[0] + spent[2]) * 1e3 * MIB / size,
        "sleeps/MiB": (spent[1] + spent[3]) * MIB / size,
    }


def measure(agent: Agent, options: argparse.Namespace) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Return the rounds of each figure, by carrier."""
    kinds: dict[str, Callable[[str], dict[str, float]]] = {
        "1 caller": lambda node: requests(agent, node, 1, options.requests),
        "16 callers": lambda node: requests(agent, node, 16, options.requests),
        f"bulk {options.bulk} MiB": lambda node: bulk(agent, node, options.bulk * MIB),
    }
    found: dict[str, dict[str, list[dict[str, float]]]] = {kind: {way: [] for way in WAYS} for kind in kinds}
    for way in WAYS:
        requests(agent, way, 1, 100)
    for number in range(options.rounds):
        for kind, run in kinds.items():
            for way in turned(list(WAYS), number):
                found[kind][way].append(run(way))
    carriers = {peer.name: peer.carrier for peer in agent.peers()}
    assert carriers == {way: way for way in WAYS}, f"not what was to be measured: {carriers}"
    return found


def report(found: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """Print medians, and the medians of the rounds' ratios with the least and the most."""
    for kind, ways in found.items():
        rate = next(iter(ways["host"][0]))
        ratios = sorted(one[rate] / other[rate] for one, other in zip(ways["host"], ways["quic"], strict=True))
        print(f"{kind}: host / quic {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        for way, rounds in ways.items():
            cells = (f"{name} {statistics.median(one[name] for one in rounds):,.1f}" for name in rounds[0])
            print(f"  {way}: {', '.join(cells)}")


def main(arguments: list[str]) -> int:
    """Run it."""
    if arguments[:1] == ["--serve"]:
        serve(arguments[1])
        return 0
    parser = argparse.ArgumentParser(prog="tools/bench host", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=3200, help="in each round, of all callers")
    parser.add_argument("--bulk", type=int, default=256, metavar="MIB")
    options = parser.parse_args(arguments)
    print("load {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))
    with tempfile.TemporaryDirectory(prefix="myc-") as folder:
        os.environ["MYCORRIZAL_RUNTIME_DIR"] = folder
        children: list[subprocess.Popen[Any]] = []
        try:
            for way in WAYS:
                command = as_child("benchmarks.host", "--serve", way)
                children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for child in children:
                assert child.stdout is not None
                child.stdout.readline()
            with Agent("asker", data_config=DataConfig(same_host=True)) as agent:
                agent.wait_for(3)
                report(measure(agent, options))
        finally:
            for child in children:
                child.communicate(timeout=30)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
