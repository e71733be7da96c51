"""``tools/bench cache``: reads and writes of a cache beside its peers, in one run.

Client and server are processes of their own on loopback. Every round measures
everything once with fresh processes, in an order that moves on by one each
round. Values have 64 bytes, unless said otherwise.

* *get*, *set*: calls a second of 1 and of 16 threads. Ours three times: held by
  the caller's own agent, held by the other agent, and two copies.
* *set_many*: 10,000 values in one call, against a loop of ``set`` over the same keys.
* *large*: 100 MB written and read in one call; a NumPy array for ours, bytes for the others.
* *data plane*: our own request and bulk rates without a cache, between the same two agents.

No member may be suspected and no agent may report a stall meanwhile (exit code
1 if one does; a stall that the whole machine shared is reported too, so believe
it on a quiet machine). ``--memory`` instead weighs a million entries.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.cache import memory
from benchmarks.cache.others import SERVERS, server
from benchmarks.cache.report import Found, plot, report
from benchmarks.data.pair import Worker, WorkerError
from benchmarks.rounds import BUSY, MANY_CALLERS, Failures, environment, turned
from lab.child import OUT

WORKER = "benchmarks.cache.worker"
PACKAGES = ("mycorrizal", "aioquic", "redis", "hiredis", "pymemcache", "diskcache", "cachetools", "numpy")
OURS = ("here", "there", "pair", "plane")
MODULES = {
    "redis": "redis",
    "memcached": "pymemcache",
    "manager": "",
    "diskcache": "diskcache",
    "ttlcache": "cachetools",
}
_SYNC_SECONDS = 60


class Run:
    """What is measured, and what was found so far."""

    def __init__(self, others: list[str], options: argparse.Namespace) -> None:
        self.others, self.options = others, options
        self.found: Found = {name: {} for name in (*OURS, *others)}
        self.trouble: list[dict[str, int]] = []
        self.errors = Failures()

    def round(self, number: int) -> None:
        """Measure everything once, beginning with another peer each round."""
        jobs: list[tuple[str, Callable[[], None]]] = [("ours", self.ours)]
        jobs += [(name, lambda name=name: self.other(name)) for name in self.others]  # type: ignore[misc]
        for name, job in turned(jobs, number):
            begin = time.monotonic()
            try:
                job()
            except WorkerError as error:
                self.errors.note(name, error)
            print(f"round {number + 1}/{self.options.rounds}  {name:10} ({time.monotonic() - begin:.0f} s)")
        for parts in self.found.values():
            for entries in parts.values():
                entries.extend([None] * (number + 1 - len(entries)))  # one a round, so that rounds can be compared

    def note(self, name: str, part: str, figure: float) -> None:
        self.found[name].setdefault(part, []).append(figure)

    def requests(self, worker: Worker, row: str, peer: str, held: str) -> None:
        seconds = self.options.seconds
        for callers in (1, MANY_CALLERS):
            for do in ("get", "set"):
                figure = worker.tell(do, seconds + 60, peer=peer, held=held, callers=callers, seconds=seconds)
                self.note(row, f"{do}{callers}", figure)

    def many(self, worker: Worker, row: str, peer: str) -> None:
        self.note(row, "loop", worker.tell("loop", self.options.seconds + 60, peer=peer, seconds=self.options.seconds))
        self.note(row, "many", worker.tell("many", 120, peer=peer))

    def large(self, worker: Worker, row: str, peer: str) -> None:
        size, times = self.options.large * 1_000_000, self.options.larges
        figures = worker.tell("large", 300, peer=peer, size=size, times=times)
        for part in ("put", "fetch"):
            self.note(row, part, sorted(each[part] for each in figures)[len(figures) // 2])
        for part in ("rss_put", "rss_fetch"):
            self.note(row, part, max(each[part] for each in figures))

    def ours(self) -> None:
        """Two agents; what is compared with the data plane's own is measured next to it."""
        node, client = Worker([], WORKER), Worker([], WORKER)
        try:
            client.tell("join", _SYNC_SECONDS, **node.tell("serve"))
            self.requests(client, "plane", "plane", "there")
            self.requests(client, "there", "sole", "there")
            self.requests(client, "pair", "pair", "there")
            self.requests(client, "here", "sole", "here")
            self.many(client, "there", "sole")
            self.many(client, "pair", "pair")
            for row, peer in (("plane", "plane"), ("there", "sole"), ("pair", "pair")):
                before = node.tell("forget_peak")
                self.large(client, row, peer)
                self.note(row, "rss_server", (node.tell("peak") - before) / self.options.large / 1e6)
            self.trouble += [worker.tell("trouble") for worker in (node, client)]
            for worker in (client, node):
                worker.tell("quit", timeout=20)
        finally:
            client.end()
            node.end()

    def other(self, name: str) -> None:
        with server(name) as port:
            worker = Worker([], WORKER)
            try:
                worker.tell("open", peer=name, port=port)
                self.requests(worker, name, name, "there")
                self.many(worker, name, name)
                if name != "ttlcache":  # which would only keep a reference
                    self.large(worker, name, name)
                worker.tell("quit", timeout=10)
            finally:
                worker.end()


def signs(trouble: dict[str, int]) -> list[str]:
    """Return what one agent had to complain of."""
    return [f"{name} {count}" for name, count in trouble.items() if name != "probes"]


def absent(name: str) -> str:
    """Return what a peer lacks here, if anything."""
    if name in SERVERS and shutil.which(SERVERS[name][0]) is None:
        return f"{SERVERS[name][0]} (tools/peers --bench installs it)"
    module = MODULES[name]
    return f"the package {module}" if module and importlib.util.find_spec(module) is None else ""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench cache", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help=f"besides ours, of {', '.join(MODULES)}; none: ours alone")
    parser.add_argument("--rounds", type=int, default=0, help="default 5")
    parser.add_argument("--seconds", type=float, default=0.0, help="for each rate, default 1")
    parser.add_argument("--large", type=int, default=100, help="MB of the large value, default 100")
    parser.add_argument("--larges", type=int, default=3, help="times that it is written and read in each round")
    parser.add_argument("--memory", action="store_true", help="weigh a million entries instead")
    parser.add_argument("--entries", type=int, default=1_000_000, help="with --memory; default a million")
    parser.add_argument("--quick", action="store_true", help="a look in about two minutes: 2 rounds, 0.4 s")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (0.4 if options.quick else 1.0)
    options.only = [name for name in options.only.split(",") if name] or list(MODULES)
    if unknown := [name for name in options.only if name not in (*MODULES, "none")]:
        parser.error(f"--only: nobody is called {unknown[0]}")
    return options


def main() -> int:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.memory:
        return memory.measure(options.entries, options.out)
    lacking = {name: absent(name) for name in options.only if name != "none"}
    about = environment(PACKAGES)
    run = Run([name for name, what in lacking.items() if not what], options)
    for number in range(options.rounds):
        run.round(number)
    lines = report(run.found)
    probes = sum(side["probes"] for side in run.trouble)
    bad = [sign for side in run.trouble for sign in signs(side)]
    verdict = "DISTURBED: " + ", ".join(bad) if bad else "no suspicion, no stall"
    lines.append(f"membership meanwhile: {probes} probes, {verdict}")
    load = about["load_at_start"]
    if load > BUSY * about["cores"]:
        lines.append(f"the machine was busy with other work (load {load:.1f} before): believe ratios, not rates")
    lines += run.errors.lines(lacking)
    print("\n" + "\n".join(lines))
    store = {"environment": about, "found": run.found, "trouble": run.trouble, "errors": run.errors}
    (options.out / "cache.json").write_text(json.dumps(store, indent=1))
    (options.out / "cache.txt").write_text("\n".join(lines) + "\n")
    plot(run.found, options.out / "cache.png")
    print(f"figures, table and plot in {options.out}")
    return 1 if bad or run.errors else 0


if __name__ == "__main__":
    sys.exit(main())
