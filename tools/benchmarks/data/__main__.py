"""``tools/bench data``: requests and bulk of the data plane beside its peers, in one run.

Client and server are two processes on loopback. Every round measures every
peer once, in an order that moves on by one each round, with fresh processes:

* *1 caller*, *16 callers*: 64 bytes there and back, one outstanding request per
  caller; per second, and p50 and p99 of a call. Blocking peers are called from
  16 threads; asyncio and DEALER keep 16 outstanding from one thread.
* *bulk*: 256 MiB one way; the clock stops when the receiver's answer to the whole
  value is back. Every receiver holds the whole value at the end.
* Ours further: ``send`` of 64 bytes; a NumPy array against as many raw bytes,
  with both sides' peak memory; and a Memberlist pair in the same two processes,
  which must not suspect anyone meanwhile (exit code 1 if it does).

``--path 1500`` instead sends 64 MiB through a veth of that MTU between two
network namespaces, with stock aioquic and with ours.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.data import path as network
from benchmarks.data.pair import Pair, WorkerError, certificate
from benchmarks.data.peers import BULK, MANY, ONE, PEERS
from benchmarks.data.report import Found, ours, plot, report, suspicion
from benchmarks.rounds import BUSY, MANY_CALLERS, Failures, environment, turned
from lab.child import OUT

HOST = "127.0.0.1"
ARRAY = 100_000_000
PACKAGES = ("mycorrizal", "aioquic", "cryptography", "pyzmq", "eclipse-zenoh", "grpcio", "Pyro5", "numpy")


class Run:
    """What is measured, and what was found so far."""

    def __init__(self, peers: list[str], options: argparse.Namespace, work: Path) -> None:
        self.peers, self.options, self.work = peers, options, work
        self.found: Found = {name: {part: [] for part in PEERS[name].parts} for name in peers}
        self.extras: list[dict[str, Any]] = []
        self.errors = Failures()

    def round(self, number: int) -> None:
        """Measure every peer once, beginning with another one each round."""
        for name in turned(self.peers, number):
            begin = time.monotonic()
            told = []
            for part, entry in self.measure(name):
                self.found[name][part].append(entry)
                told.append(_short(entry))
            for part in PEERS[name].parts:
                # One entry a round, so that rounds can be compared.
                self.found[name][part] += [None] * (number + 1 - len(self.found[name][part]))
            print(f"round {number + 1}/{self.options.rounds}  {name:16} {'  '.join(told)}"
                  f"  ({time.monotonic() - begin:.0f} s)")  # fmt: skip

    def measure(self, name: str) -> Iterator[tuple[str, dict[str, float]]]:
        """Yield a peer's parts as they are found; a failure ends them and is noted."""
        parts, seconds = PEERS[name].parts, self.options.seconds
        try:
            with Pair(name, self.work) as pair:
                for part, callers in ((ONE, 1), (MANY, MANY_CALLERS)):
                    if part in parts:
                        yield part, pair.client.tell("requests", seconds + 60, callers=callers, seconds=seconds)
                if BULK in parts:
                    yield BULK, pair.bulk(self.options.bulk << 20)
                if name == "ours":
                    self.extras.append(self.ours_alone(pair))
        except WorkerError as error:
            self.errors.note(name, error)

    def ours_alone(self, pair: Pair) -> dict[str, Any]:
        """Measure what only ours does, and ask the members how they fared."""
        seconds = self.options.seconds
        found: dict[str, Any] = {"arrays": []}
        found["sends"] = pair.client.tell("extra", seconds + 60, method="sends", seconds=seconds)
        # Not measured: the receiver imports NumPy when the first array comes.
        pair.client.tell("extra", method="array", size=1 << 20, kind="array")
        for turn in range(self.options.arrays):
            both: dict[str, Any] = {"size": ARRAY}
            for kind in ("bytes", "array") if turn % 2 == 0 else ("array", "bytes"):
                before = pair.server.tell("forget_peak")["now"]
                both[kind] = pair.client.tell("extra", 120, method="array", size=ARRAY, kind=kind)
                both[kind]["rss_receiver"] = (pair.server.tell("memory")["peak"] - before) / ARRAY
            found["arrays"].append(both)
        found["trouble"] = {
            "server": pair.server.tell("extra", method="trouble"),
            "client": pair.client.tell("extra", method="trouble"),
        }
        return found

    def disturbed(self) -> bool:
        return any(suspicion(side) for extra in self.extras for side in extra["trouble"].values())


def _short(entry: dict[str, float]) -> str:
    if "mb_per_second" in entry:
        return f"{entry['mb_per_second']:7.1f} MB/s"
    return f"{entry['per_second']:8,.0f}/s"


def present(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return which of `names` can be measured, and which package the others lack."""
    lacking = {name: PEERS[name].absent() for name in names}
    return [name for name in names if not lacking[name]], {name: what for name, what in lacking.items() if what}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help=f"peers, of {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=0, help="default 5")
    parser.add_argument("--seconds", type=float, default=0.0, help="for each request figure, default 1.5")
    parser.add_argument("--bulk", type=int, default=0, help="MiB, default 256 (64 with --path)")
    parser.add_argument("--arrays", type=int, default=0, help="array/bytes pairs in each round, default 3")
    parser.add_argument("--path", type=int, metavar="MTU", default=0, help="bulk through a veth of this MTU instead")
    parser.add_argument("--quick", action="store_true", help="a look in about two minutes: 2 rounds, 32 MiB")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (0.4 if options.quick else 1.5)
    options.arrays = options.arrays or (1 if options.quick else 3)
    options.bulk = options.bulk or ((16 if options.quick else 64) if options.path else 32 if options.quick else 256)
    default = ["aioquic", "ours"] if options.path else list(PEERS)
    options.only = [name.strip() for name in options.only.split(",")] if options.only else default
    if unknown := [name for name in options.only if name not in PEERS]:
        parser.error(f"no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if options.path and not 1280 <= options.path <= 65535:
        parser.error("--path: an MTU is 1280 to 65535 here")
    return options


def path(options: argparse.Namespace, peers: list[str]) -> int:
    if why := network.missing():
        print(f"--path is not possible here: {why}")
        return 2
    peers = [name for name in peers if BULK in PEERS[name].parts]
    found = network.measure(options.path, peers, options.bulk << 20, options.rounds)
    store = options.out / f"data_path_{options.path}.json"
    store.write_text(json.dumps({"environment": environment(PACKAGES), **found}, indent=1))
    print(f"figures in {store}")
    return 0 if all(found["mb_per_second"].values()) else 1


def main() -> int:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    peers, absent = present(options.only)
    for name, what in absent.items():
        print(f"absent: {name} needs {what}")
    if not peers:
        return 2
    if options.path:
        return path(options, peers)
    about = environment(PACKAGES)
    with certificate(HOST) as work:
        run = Run(peers, options, work)
        for number in range(options.rounds):
            run.round(number)
    size = options.bulk << 20
    lines = [*report(run.found, size), *ours(run.extras)]
    if about["load_at_start"] > BUSY * about["cores"]:
        lines.append(f"the machine was busy (load {about['load_at_start']:.1f}): believe the ratios little, "
                     "those to aioquic least")  # fmt: skip
    lines += run.errors.lines(absent)
    print("\n" + "\n".join(lines))
    arguments = {key: value for key, value in vars(options).items() if key != "out"}
    found = {"peers": run.found, "ours": run.extras, "errors": run.errors, "absent": absent}
    (options.out / "data.json").write_text(json.dumps({"environment": about, "options": arguments, **found}, indent=1))
    (options.out / "data.txt").write_text("\n".join(lines) + "\n")
    plot(run.found, size, options.out)
    print(f"figures, table and plots in {options.out}")
    return 1 if run.disturbed() or any(name.startswith("ours") for name in run.errors) else 0


if __name__ == "__main__":
    sys.exit(main())
