"""``tools/chaos soak``: a little of everything without end, and whether anything grows.

Five agents in processes of their own send, request, cache, set, register and
tell; three of them are killed, leave or start again all the time. The other two
stay, and are asked what they hold: resident memory, descriptors, threads, and
the size of every table of every object of the library. After a while to fill
up, nothing may rise by more than 1 % an hour.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from campaigns.cache import _free_ports
from lab.child import ROOT, as_child
from lab.lines import Lines

KEY = base64.b64encode(random.Random("soak").randbytes(32)).decode()
STAYERS = 2
FLAT = 0.01
"""Growth that counts as none: a hundredth an hour; of a shorter time, a hundredth in all."""
FILLS = {
    "Services._gone": 600.0,
    "Services._of": 600.0,
    "Admission._knocks": 600.0,
    "Store._buried": 3600.0,
}
"""Tables that hold what went away for a fixed time: seconds until they have their size, before which they may grow."""
SMALL = 200.0
"""A table with fewer items on average is measured as if it had so many: one item more or less is no growth."""
SURE = 1.96
"""Standard errors between a slope and what it surely exceeds."""

Sample = dict[str, Any]


class Node:
    """A slot: a name and ports, and the process that has them at present."""

    def __init__(self, number: int, ports: list[tuple[int, int]], path: Path, pause: float) -> None:
        self.name = f"s{number}"
        self.number, self.ports, self.path, self.pause = number, ports, path, pause
        self.lives = 0
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start a process; ``ready`` waits for it."""
        self.lives += 1
        port, quic_port = self.ports[self.number]
        seeds = [f"127.0.0.1:{port}" for port, _ in self.ports[: min(self.number, STAYERS)]]  # the first has none
        agent = {
            "name": self.name, "cluster": "soak", "key": KEY, "bind": "127.0.0.1", "port": port,
            "quic_port": quic_port, "join": seeds, "join_timeout": 30.0, "discover": False, "control": False,
        }  # fmt: skip
        settings = {"agent": agent, "seed": f"{self.name} {self.lives}", "pause": self.pause, "prime": self.lives == 1}
        environment = {**os.environ, "MYCORRIZAL_RUNTIME_DIR": str(self.path / "run"), "PYTHONPATH": str(ROOT)}
        with open(self.path / f"{self.name}.err", "ab") as errors:
            self.process = subprocess.Popen(
                as_child("campaigns.soak_node", json.dumps(settings)), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors, bufsize=0, env=environment,
            )  # fmt: skip
        self._lines = Lines(self.process)

    def ready(self) -> None:
        """Wait until it runs."""
        assert json.loads(self._lines.next(120.0)) == "ready"

    def ask(self, what: str) -> Any:
        """Return the answer to an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n".encode())
        return json.loads(self._lines.next(60.0))

    def end(self, *, kill: bool) -> None:
        """End it, with SIGKILL or in order."""
        if kill:
            self.process.kill()
        else:
            assert self.process.stdin is not None
            self.process.stdin.write(b"leave\n")
        self.process.wait(60)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Soak:
    """A context manager: the nodes of one run, what they told, and how often they ended.

    Args:
        churn: mean seconds between two ends of a process.
        pause: mean seconds between two calls of a process.
    """

    def __init__(self, *, churn: float, pause: float, seed: int, nodes: int = 5) -> None:
        self._churn = churn
        self._dice = random.Random(seed)
        self._path = Path(tempfile.mkdtemp(prefix="mycorrizal-soak-"))
        free = _free_ports(2 * nodes)
        ports = [(free.pop(), free.pop()) for _ in range(nodes)]
        self._nodes = [Node(number, ports, self._path, pause) for number in range(nodes)]
        self._stayers = self._nodes[:STAYERS]
        samples: dict[str, list[Sample]] = {node.name: [] for node in self._stayers}
        self.found: Sample = {"samples": samples, "ends": {"kill": 0, "leave": 0}, "failed": ""}
        self.found |= {"told": {}, "health": {}}

    def __enter__(self) -> Soak:
        return self

    def __exit__(self, *exc: object) -> None:
        for node in self._nodes:
            if node.lives and node.process.poll() is None:
                node.end(kill=True)
        errors = "".join(file.read_text(errors="replace") for file in sorted(self._path.glob("*.err")))
        print(errors[-2000:], file=sys.stderr, end="")
        shutil.rmtree(self._path, ignore_errors=True)

    def run(self, seconds: float, every: float) -> None:
        """Run for `seconds`, with a sample each `every` seconds; what goes wrong ends it and stands in ``found``."""
        try:
            for node in self._nodes:
                node.start()
                node.ready()
            began = sample_at = time.monotonic()
            churn_at = self._next_end()
            while (now := time.monotonic()) < began + seconds:
                if now >= churn_at:
                    self._end_somebody()
                    churn_at = self._next_end()
                if now >= sample_at:
                    sample_at = now + every
                    self._sample(now - began)
                time.sleep(0.2)
            self.found["told"] = {node.name: node.ask("told") for node in self._nodes}
            self.found["health"] = {node.name: node.ask("health") for node in self._stayers}
        except (OSError, EOFError, ValueError) as error:  # TimeoutError is an OSError
            self.found["failed"] = f"ended early: {error!r}"

    def _next_end(self) -> float:
        return time.monotonic() + self._dice.expovariate(1 / self._churn)

    def _end_somebody(self) -> None:
        node = self._dice.choice(self._nodes[STAYERS:])
        kill = self._dice.random() < 0.5
        self.found["ends"]["kill" if kill else "leave"] += 1
        node.end(kill=kill)
        time.sleep(self._dice.choice((0.0, 0.0, 15.0)))  # restarted at once, or when all know that it is gone
        node.start()
        node.ready()

    def _sample(self, at: float) -> None:
        samples = self.found["samples"]
        for node in self._stayers:
            samples[node.name].append({"at": at, **node.ask("holdings")})
        latest = {name: f"{found[-1]['resident'] / 1e6:.1f} MB" for name, found in samples.items()}
        print(f"{at:6.0f} s  {latest}  {self.found['ends']}", flush=True)


# -- judgement ------------------------------------------------------------------------------


def slope(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the slope of the straight line nearest to `points` (y per x), and its standard error.

    Neighbouring samples are alike, so that counting each would make the error too small: sixteen means of
    successive samples are taken for independent instead.
    """
    size = max(1, len(points) // 16)
    blocks = [points[first : first + size] for first in range(0, len(points) - size + 1, size)]
    means = [(statistics.fmean(x for x, _ in block), statistics.fmean(y for _, y in block)) for block in blocks]
    if len(means) < 4:
        return 0.0, float("inf")
    middle_x, middle_y = statistics.fmean(x for x, _ in means), statistics.fmean(y for _, y in means)
    spread = sum((x - middle_x) ** 2 for x, _ in means)
    rise = sum((x - middle_x) * (y - middle_y) for x, y in means) / spread
    rest = sum((y - middle_y - rise * (x - middle_x)) ** 2 for x, y in means)
    return rise, (rest / (len(means) - 2) / spread) ** 0.5


def growth(samples: list[Sample], warm: float) -> list[dict[str, Any]]:
    """Return how each thing grows after `warm` seconds, a share an hour, and the share that it surely exceeds."""
    late = [sample for sample in samples if sample["at"] >= warm]
    hours = max(1.0, 3600 / (late[-1]["at"] - late[0]["at"])) if len(late) > 1 else 1.0
    series: dict[str, list[tuple[float, float]]] = {}
    for sample in late:
        for name in ("resident", "descriptors", "threads", "objects"):
            series.setdefault(name, []).append((sample["at"] / 3600, sample[name]))
    for name in {name for sample in late for name in sample["tables"]}:
        series[name] = [(sample["at"] / 3600, sample["tables"].get(name, 0)) for sample in late]
    rows = []
    for name, points in series.items():
        mean = statistics.fmean(y for _, y in points)
        rise, error = slope(points)
        floor = mean if name in ("resident", "objects") else max(mean, SMALL)
        allowed = float("inf") if FILLS.get(name, 0.0) > warm else FLAT * hours
        share, surely = rise / floor, (rise - SURE * error) / floor
        rows.append({"what": name, "mean": mean, "hourly": share, "surely": surely, "grows": surely > allowed})
    return sorted(rows, key=lambda row: -float(row["surely"]))


def judge(found: Sample, warm: float) -> list[str]:
    """Return what is wrong: what surely grows, calls that never worked, and runs that show nothing."""
    wrong = [found["failed"]] if found["failed"] else []
    for name, samples in found["samples"].items():
        rows = growth(samples, warm)
        found.setdefault("growth", {})[name] = rows
        wrong += [
            f"{name}: {row['what']} (mean {row['mean']:.0f}) grows by {row['hourly']:.1%} an hour"
            for row in rows
            if row["grows"]
        ]
        if len(samples) < 8:
            wrong.append(f"{name}: {len(samples)} samples show nothing")
    for name, told in found["told"].items():
        busy = told["done"] and all(told["received"].get(kind) for kind in ("message", "event"))
        if name in found["samples"] and not busy:
            wrong.append(f"{name}: did or received nothing: {told}")
    if not all(found["ends"].values()):
        wrong.append(f"nobody ended in one of the two ways: {found['ends']}")
    return wrong


def plot(found: Sample, warm: float, file: Path) -> None:
    """Draw what the two hold over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 6), sharex=True)
    parts: list[tuple[str, Any]] = [
        ("resident memory, MB", lambda sample: sample["resident"] / 1e6),
        ("descriptors and threads", lambda sample: sample["descriptors"] + sample["threads"]),
        ("objects, thousands", lambda sample: sample["objects"] / 1e3),
        ("items in all tables, thousands", lambda sample: sum(sample["tables"].values()) / 1e3),
    ]
    for axis, (title, value) in zip(axes.flat, parts, strict=True):
        for name, samples in found["samples"].items():
            axis.plot([sample["at"] / 60 for sample in samples], [value(sample) for sample in samples], label=name)
        axis.axvline(warm / 60, color="grey", linewidth=0.5)
        axis.set_title(title, fontsize=10)
        axis.set_ylim(bottom=0)
    axes[1][0].set_xlabel("minutes")
    axes[1][1].set_xlabel("minutes")
    axes[0][0].legend()
    ends = sum(found["ends"].values())
    figure.suptitle(f"two agents beside three that were killed, left and started {ends} times")
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def line(row: dict[str, Any]) -> str:
    """Return a row for people."""
    surely = f"surely {row['surely']:+.1%}"
    return f"  {row['what']:45} mean {row['mean']:12.1f} {row['hourly']:+8.1%} an hour, {surely}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/chaos soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=None, help="minutes that do not count (15, at most half)")
    parser.add_argument("--churn", type=float, default=12.0, help="mean seconds between two ends of a process")
    parser.add_argument("--pause", type=float, default=0.02, help="mean seconds between two calls of a process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for figures (JSON) and the plot, which needs matplotlib")
    options = parser.parse_args()
    warm = 60 * min(15.0, options.minutes / 2) if options.warm is None else 60 * options.warm
    seconds = 60 * options.minutes
    with Soak(churn=options.churn, pause=options.pause, seed=options.seed) as soak:
        soak.run(seconds, max(2.0, seconds / 240))
    found = soak.found
    wrong = judge(found, warm)
    for name, rows in found["growth"].items():
        print(f"{name}: what grows most")
        for row in rows[:8]:
            print(line(row))
        for row in rows:
            if row["what"] == "resident":
                print(line(row))
    print(json.dumps({key: found[key] for key in ("ends", "told", "health")}, indent=1))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "soak.json").write_text(json.dumps(found), encoding="ascii")
        plot(found, warm, options.out / "soak.png")
    print("\n".join(wrong) if wrong else "nothing grows")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
