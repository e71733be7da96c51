"""``tools/bench scale``: many agents on one host, many caches, and a day of churn, in real processes.

What each figure means:

* *burst*: N processes, each with the interpreter and the package loaded, start an agent at one instant without seeds.
  Processor time of all from then until calm: all see all, and for two seconds together they take less than a tenth
  of their time limit's cores. Not calm within `--patience` seconds: that, with a ``>``.
* *Agent()*: the median of what the constructor took in a burst.
* *a join*: bytes that one agent receives over gossip when it joins 30 that hold 1,000 settings.
* *caches*: 50 caches opened by 9 agents at one instant; processor time of all until calm.
* *settings*: 1,000 settings written on one of 30 agents, until the last has all.
* *simulation*: virtual seconds per second of processor time, 1,000 members with crashes and joins.
* *rest*: for N agents, a process's proportional memory, processor, packets sent and dials a second, after calm.

`--churn SECONDS` does something else: 20 agents of which one leaves, is killed or starts every 3 s, with calls going
on; memory, descriptors, threads and names of those that stay, and how fast they grow in the second half.

`--against REVISION` measures an older revision too, in turn, out of a git worktree that is removed afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rounds import BUSY, environment, turned
from benchmarks.scale.report import Found, churn_lines, plot_churn, plot_rest, rest_lines, table
from benchmarks.trees import trees
from lab.child import OUT, as_child
from lab.lines import Lines

_LINE_SECONDS = 400.0
_CALM = 0.1  # of the cores
_CALM_LOOKS = 2
_TICK = os.sysconf("SC_CLK_TCK")


class NodeError(Exception):
    """A process could not do what it was told."""


class Process:
    """One ``benchmarks.scale.node``, with the package out of `tree`."""

    def __init__(self, tree: Path, folder: Path) -> None:
        env = {**os.environ, "PYTHONPATH": str(tree), "MYCORRIZAL_RUNTIME_DIR": str(folder)}
        self.log = (folder / "log").open("ab")
        self.child = subprocess.Popen(
            as_child("benchmarks.scale.node"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            bufsize=0,
            env=env, cwd=folder,
        )  # fmt: skip
        self._lines = Lines(self.child)
        self._tree = tree

    def tell(self, do: str, **order: Any) -> None:
        """Order something; ``hear`` brings the answer."""
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")

    def hear(self, seconds: float = _LINE_SECONDS) -> dict[str, Any]:
        """Return the answer to the first order that has none yet.

        Raises:
            NodeError: it was an error, or did not come.
        """
        try:
            answer: dict[str, Any] = json.loads(self._lines.next(seconds))
        except (TimeoutError, EOFError) as error:
            raise NodeError(f"no answer: {error}") from error
        if "error" in answer:
            raise NodeError(answer["error"])
        return answer

    def check(self) -> None:
        """Wait until it runs; it must have the package that is to be measured."""
        package = Path(self.hear()["package"])
        if package != self._tree / "mycorrizal":
            raise NodeError(f"{package} was imported instead of {self._tree}'s")

    def cpu(self) -> float:
        """Return the processor time it has used, 0 once it has ended."""
        try:
            fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICK

    def end(self) -> None:
        self.child.kill()
        self.child.wait()
        self.log.close()


class Cluster:
    """Processes of one tree with a runtime directory and a cluster of their own."""

    def __init__(self, tree: Path, folder: Path) -> None:
        self.tree = tree
        self.folder = folder
        self.nodes: list[Process] = []
        self._names = 0

    def add(self, count: int) -> list[Process]:
        """Start processes without agents."""
        new = [Process(self.tree, self.folder) for _ in range(count)]
        self.nodes += new
        for node in new:
            node.tell("hello")
        for node in new:
            node.check()
        return new

    def start(self, nodes: list[Process]) -> list[float]:
        """Have all of `nodes` start their agents at one instant; return what each took."""
        at = time.monotonic() + 0.2
        for node in nodes:
            self._names += 1
            node.tell("start", name=f"n{self._names}", cluster="bench", at=at)
        return [node.hear()["seconds"] for node in nodes]

    def ask(self, do: str, nodes: list[Process] | None = None, **order: Any) -> list[dict[str, Any]]:
        """Tell all, and return the answers."""
        asked = self.nodes if nodes is None else nodes
        for node in asked:
            node.tell(do, **order)
        return [node.hear() for node in asked]

    def cpu(self) -> float:
        return sum(node.cpu() for node in self.nodes)

    def calm(self, patience: float) -> tuple[float, float] | None:
        """Wait until next to nothing is done any more; return when that began, and the processor time up to then."""
        most, quiet = _CALM * len(os.sched_getaffinity(0)), 0
        now, cpu = time.monotonic(), self.cpu()
        since, end = (now, cpu), now + patience
        while now < end:
            time.sleep(1.0)
            then, before, now, cpu = now, cpu, time.monotonic(), self.cpu()
            if (cpu - before) / (now - then) >= most:
                since, quiet = (now, cpu), 0
            elif (quiet := quiet + 1) >= _CALM_LOOKS:
                return since
        return None

    def log_lines(self) -> int:
        return (self.folder / "log").read_bytes().count(b"\n")


@contextlib.contextmanager
def cluster(tree: Path) -> Iterator[Cluster]:
    """Return a cluster without agents; end its processes whatever happens."""
    with tempfile.TemporaryDirectory(prefix="mycorrizal-scale-") as name:
        found = Cluster(tree, Path(name))
        try:
            yield found
        finally:
            for node in found.nodes:
                node.end()


# -- the rows -----------------------------------------------------------------------------------


def burst(tree: Path, size: int, options: argparse.Namespace) -> Found:
    """`size` agents at one instant, then their rest."""
    with cluster(tree) as all_:
        nodes = all_.add(size)
        before, began = all_.cpu(), time.monotonic()
        took = all_.start(nodes)
        seen = [answer["t"] for answer in all_.ask("see", count=size, seconds=options.patience)]
        left = options.patience - (time.monotonic() - began)
        calm = all_.calm(max(left, _CALM_LOOKS + 1.0)) if None not in seen else None
        name = f"burst of {size}"
        found: Found = {
            f"Agent() in a burst of {size}, median": (statistics.median(took), "s"),
            f"{name}: log lines": (float(all_.log_lines()), ""),
            f"{name}: stalls": (float(sum(usage["stalls"] for usage in all_.ask("usage"))), ""),
        }
        if calm is None:
            found[f"{name}: processor of all until calm"] = (all_.cpu() - before, "s, and not calm")
            return found
        found[f"{name}: processor of all until calm"] = (calm[1] - before, "s")
        found[f"{name}: until calm"] = (max(calm[0], *seen) - began, "s")
        return found | rest(all_, size, options.rest)


def rest(all_: Cluster, size: int, seconds: float) -> Found:
    """What a process costs that has nothing to do."""
    first, cpu = all_.ask("usage"), all_.cpu()
    time.sleep(seconds)
    cpu, last = all_.cpu() - cpu, all_.ask("usage")
    span: float = last[0]["t"] - first[0]["t"]

    def rate(key: str) -> float:
        total: float = sum(b[key] - a[key] for a, b in zip(first, last, strict=True))
        return total / span / size

    return {
        f"rest of {size}: memory (PSS)": (statistics.median(usage["pss"] for usage in last), "MB"),
        f"rest of {size}: processor": (100 * cpu / span / size, "% of a core"),
        f"rest of {size}: packets sent": (rate("packets"), "a second"),
        f"rest of {size}: dials": (rate("dials"), "a second"),
        f"rest of {size}: descriptors": (statistics.median(usage["descriptors"] for usage in last), ""),
    }


def settings(tree: Path, size: int, options: argparse.Namespace) -> Found:
    """1,000 settings written on one of `size` agents; then another agent joins them."""
    with cluster(tree) as all_:
        nodes = all_.add(size)
        all_.start(nodes)
        all_.ask("see", count=size, seconds=options.patience)
        all_.calm(options.patience)
        began = time.monotonic()
        for node in nodes[1:]:
            node.tell("read", count=1000, seconds=options.patience)
        all_.ask("write", nodes[:1], count=1000)
        times = [node.hear()["t"] for node in nodes[1:]]
        last = options.patience if None in times else max(times) - began
        all_.calm(options.patience)
        late = all_.add(1)
        all_.start(late)
        (joined,) = all_.ask("usage", late)
        return {
            f"1,000 settings on one of {size}, until the last has all": (last, "s"),
            f"one agent joins {size} with 1,000 settings: bytes in": (joined["bytes_in"] / 1000, "KB"),
            f"one agent joins {size}: TCP dials": (float(joined["dials"]), ""),
        }


def caches(tree: Path, size: int, count: int, options: argparse.Namespace) -> Found:
    """`size` agents open `count` caches at one instant."""
    with cluster(tree) as all_:
        nodes = all_.add(size)
        all_.start(nodes)
        all_.ask("see", count=size, seconds=options.patience)
        all_.calm(options.patience)
        before, began = all_.cpu(), time.monotonic()
        answers = all_.ask("caches", count=count, at=began + 0.2)
        calm = all_.calm(options.patience)
        name = f"{count} caches on {size} agents at once"
        spent = (calm[1] if calm is not None else all_.cpu()) - before
        return {
            f"{name}: processor of all": (spent, "s" if calm is not None else "s, and not calm"),
            f"{name}: processor of each": (spent / size, "s"),
            f"{name}: until the last is open": (max(answer["t"] for answer in answers) - began, "s"),
            f"{name}: not opened": (float(sum(answer["failed"] for answer in answers)), ""),
        }


_SIMULATION = """
import time
try:
    from experiments.speed import speed
except ImportError:  # an older tree
    from mycorrizal.simulation.experiments.speed import speed
report = speed(time.process_time, members={members})
print(next(band.measured for band in report.bands if "crashes" in str(band)))
"""


def simulation(tree: Path, members: int) -> Found:
    """How fast the simulation is, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _SIMULATION.format(members=members)], cwd=tree, stdin=subprocess.DEVNULL, check=False,
        env={**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'tools'}"}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise NodeError(done.stderr.strip().rpartition("\n")[2])
    return {f"simulation, {members:,} members with churn / real time": (float(done.stdout), "")}


# -- churn ---------------------------------------------------------------------------------------


def churn(tree: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Some agents stay while others come and go; return what those that stay use, every 10 s."""
    size, staying = options.churn_agents, max(2, options.churn_agents // 5)
    samples: list[dict[str, Any]] = []
    with cluster(tree) as all_:
        nodes = all_.add(size)
        all_.start(nodes)
        all_.ask("caches", count=3, at=0.0)
        stay, move = nodes[:staying], nodes[staying:]
        all_.ask("call", stay, pause=0.1)
        began, step = time.monotonic(), 0
        while (now := time.monotonic() - began) < options.churn:
            if step % 3 == 0:
                usage = all_.ask("usage", stay)
                samples.append({"at": now, "seen": size + step // 2, "agents": usage})
            if step % 2:
                (new,) = all_.add(1)
                all_.start([new])
                all_.ask("caches", [new], count=3, at=0.0)
                move.append(new)
            else:
                old = move.pop(0)
                if step % 4:
                    all_.ask("leave", [old])
                old.end()
                all_.nodes.remove(old)
            step += 1
            time.sleep(max(0.0, began + options.churn_every * step - time.monotonic()))
        samples.append({"at": now, "seen": size + step // 2, "agents": all_.ask("usage", stay)})
    return samples


# -- all of it -------------------------------------------------------------------------------------


def rows(options: argparse.Namespace) -> dict[str, Callable[[Path], Found]]:
    """Return the measurements that were asked for."""
    sizes = [int(size) for size in options.nodes.split(",")]
    found: dict[str, Callable[[Path], Found]] = {}
    for size in sizes:
        found[f"burst {size}"] = partial(burst, size=size, options=options)
    found["settings"] = partial(settings, size=options.settings_agents, options=options)
    for pair in options.caches.split(","):
        count, size = map(int, pair.split("x"))
        found[f"caches {pair}"] = partial(caches, size=size, count=count, options=options)
    found["simulation"] = partial(simulation, members=options.members)
    only = options.only.split(",")
    return {name: row for name, row in found.items() if name.split()[0] in only}


def measure(options: argparse.Namespace) -> dict[str, dict[str, list[Any]]]:
    """Return figures: tree -> row -> one a round."""
    found: dict[str, dict[str, list[Any]]] = {}
    with trees(options.against) as measured:
        for number in range(options.rounds):
            for title, row in rows(options).items():
                for name in turned(list(measured), number):
                    try:
                        figures = row(measured[name])
                    except NodeError as error:
                        print(f"{title}, {name}: {error}", file=sys.stderr)
                        continue
                    print(f"{title}, {name} (load {os.getloadavg()[0]:.1f}):")
                    for what, (value, unit) in figures.items():
                        print(f"    {what}: {value:.4g} {unit}")
                        found.setdefault(name, {}).setdefault(what, []).append((value, unit))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/bench scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", metavar="REVISION", help="measure this revision too")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="burst,settings,caches,simulation", help="parts to run")
    parser.add_argument("--nodes", default="2,10,30,60", help="sizes of bursts, and of the plot")
    parser.add_argument("--caches", default="50x9", help="caches x agents, for example 50x9,100x30")
    parser.add_argument("--settings-agents", type=int, default=30)
    parser.add_argument("--members", type=int, default=1000, help="of the simulation")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds of rest")
    parser.add_argument("--patience", type=float, default=205.0, help="seconds to wait for calm")
    parser.add_argument("--churn", type=float, metavar="SECONDS", help="nothing but churn, for so long")
    parser.add_argument("--churn-agents", type=int, default=20)
    parser.add_argument("--churn-every", type=float, default=3.0, help="seconds between two who come or go")
    parser.add_argument("--quick", action="store_true", help="a look in about two minutes")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.quick:
        options.nodes, options.caches, options.settings_agents, options.rest = "2,10", "10x4", 8, 10.0
        options.members = 200
    options.out.mkdir(parents=True, exist_ok=True)
    where = environment(["aioquic", "cryptography", "cbor2"])
    print(f"{where['cores']} cores, Python {where['python']}, load {where['load_at_start']:.1f}")
    if where["load_at_start"] > BUSY * where["cores"]:
        print("others use this machine: take the figures as upper bounds")
    if options.churn is not None:
        with trees(None) as measured:
            samples = churn(measured["this tree"], options)
        (options.out / "churn.json").write_text(json.dumps({"environment": where, "samples": samples}, indent=1))
        print("\n".join(churn_lines(samples)))
        plot_churn(samples, options.out / "churn.png")
    else:
        found = measure(options)
        store = options.out / "scale.json"
        if store.exists():  # parts that were measured before
            before = json.loads(store.read_text())["found"]
            found = {name: {**before.get(name, {}), **found.get(name, {})} for name in {**before, **found}}
        store.write_text(json.dumps({"environment": where, "found": found}, indent=1))
        print("\n".join(["", *table(found), "", *rest_lines(found)]))
        plot_rest(found, options.out / "scale.png")
    print(f"load at the end {os.getloadavg()[0]:.1f}; figures and plot in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
