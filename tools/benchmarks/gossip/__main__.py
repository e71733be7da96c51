"""``tools/bench gossip``: convergence, detection, idle cost and packet rate, beside Go's memberlist.

What each figure means, all on loopback with the LAN profile:

* *all see all*: N processes are up; all but one join that one at the same
  instant; the time until the last of them sees N members. For Go the same with
  N nodes in one process. Median and worst of several runs.
* *kill*: one process of a cluster gets SIGKILL (in Go: Shutdown without Leave);
  the time until the first, the median and the last survivor has been told.
* *idle*: CPU and memory of one process among N after the join has calmed down.
* *packets per second per core*: a node is sent pings as fast as it answers;
  pings and acks handled divided by the CPU time it used.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.child import OUT, ROOT
from lab.process import Process

GO_SOURCE = ROOT / "tests" / "interop" / "gopeer"


@contextmanager
def processes(count: int) -> Iterator[list[Process]]:
    """Start `count` node processes, and end them whatever happens."""
    running: list[Process] = []
    try:
        for _ in range(count):
            running.append(Process())
        yield running
    finally:
        for process in running:
            process.child.kill()
        for process in running:
            process.child.wait()


def converge(nodes: list[Process], run: int, **config: Any) -> float:
    """Join burst at the first; return the seconds until all see all."""
    for n, node in enumerate(nodes):
        node.events.clear()
        node.open(f"r{run}n{n}", len(nodes), **config)
    for node in nodes:
        node.opened()
    start = time.monotonic() + 0.2
    for node in nodes[1:]:
        node.tell(do="join", seed=f"127.0.0.1:{nodes[0].port}", at=start)
    return max(float(node.take("event", "whole", 120)["t"]) for node in nodes) - start


def close(nodes: list[Process]) -> None:
    for node in nodes:
        node.tell(do="close")
    for node in nodes:
        node.take("reply", "close")


def kills(count: int, size: int, config: dict[str, Any]) -> list[dict[str, float]]:
    """Kill one of `size` processes and replace it, `count` times."""
    results = []
    with processes(size) as nodes:
        converge(nodes, 0, **config)
        for kill in range(count):
            time.sleep(2)
            victim = nodes.pop(1)
            start = time.monotonic()
            victim.child.kill()
            victim.child.wait()
            times = []
            for node in nodes:
                while (event := node.take("event", "left", 60))["who"] != victim.name:
                    print(f"  false report: {event}")
                times.append(event["t"] - start)
            results.append({"first": min(times), "median": statistics.median(times), "last": max(times)})
            fresh = Process()
            nodes.append(fresh)
            fresh.open(f"k{kill}", size, **config)
            fresh.opened()
            fresh.tell(do="join", seed=f"127.0.0.1:{nodes[0].port}")
            for node in nodes:
                node.take("event", "whole", 60)
    return results


def idle(size: int, seconds: float, config: dict[str, Any]) -> dict[str, float]:
    """Return the median process's use of CPU, memory and packets among `size` idle ones."""
    with processes(size) as nodes:
        converge(nodes, 0, **config)
        time.sleep(15)
        before = [node.usage() for node in nodes]
        time.sleep(seconds)
        after = [node.usage() for node in nodes]
        for node in nodes:
            losses = [e for e in node.events if e.get("event") == "left"]
            assert not losses, f"{node.name} lost {losses} while idle"
    spans = [b["t"] - a["t"] for a, b in zip(before, after, strict=True)]
    core = [(b["cpu"] - a["cpu"]) / s for a, b, s in zip(before, after, spans, strict=True)]
    return {
        "core_percent": 100 * statistics.median(core),
        "rss_mb": statistics.median(u["rss_mb"] for u in after),
        "pss_mb": statistics.median(u["pss_mb"] for u in after),
        "cpu_s_per_minute": 60 * statistics.median(core),
    }


# -- packets per second per core -----------------------------------------------------------


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ping_flood(pid: int, name: str, port: int, pings: int) -> float:
    """Return packets handled (pings in, acks out) per second of the target's CPU time."""
    body = bytes([0x82, 0xA4]) + b"Node" + bytes([0xA0 | len(name)]) + name.encode() + bytes([0xA5]) + b"SeqNo"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.settimeout(1.0)
        window, sent, answered = 64, 0, 0
        start = cpu_of(pid)
        while answered < pings:
            while sent - answered < window and sent < pings:
                sent += 1
                sock.send(b"\x00" + body + b"\xce" + struct.pack(">I", sent))
            try:
                sock.recv(2048)
                answered += 1
            except TimeoutError:
                pings -= sent - answered
                sent = answered
        return 2 * answered / (cpu_of(pid) - start)


def our_rate(pings: int) -> float:
    with processes(1) as nodes:
        nodes[0].open("target", 1, wire="msgpack")
        nodes[0].opened()
        return ping_flood(nodes[0].child.pid, "target", nodes[0].port, pings)


def go_rate(binary: Path, pings: int) -> float:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [str(binary), "-name", "target", "-port", str(port), "-profile", "lan"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        try:
            time.sleep(1)
            return ping_flood(child.pid, "target", port, pings)
        finally:
            child.kill()


# -- Go --------------------------------------------------------------------------------------


def build_go() -> Path | None:
    """Build the Go program of the interop tests, if Go and memberlist are there."""
    target = OUT / "gopeer"
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": ""}
    try:
        OUT.mkdir(parents=True, exist_ok=True)
        built = subprocess.run(
            ["go", "build", "-o", str(target), "."], cwd=GO_SOURCE, env=env, check=False, capture_output=True, text=True
        )
    except FileNotFoundError:
        print("Go is not installed: run tools/peers to compare with it")
        return None
    if built.returncode:
        print(f"the Go program does not build (run tools/peers):\n{built.stderr}")
        return None
    return target


def go_figures(binary: Path, size: int, kill_count: int, idle_seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        [str(binary), "-nodes", str(size), "-profile", "lan", "-kills", str(kill_count), "-idle", str(idle_seconds)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


# -- reports ------------------------------------------------------------------------------------


def spread(values: list[float]) -> str:
    return f"median {statistics.median(values):6.2f}  worst {max(values):6.2f}  ({len(values)} runs)"


def measure_convergence(sizes: list[int], runs: int, binary: Path | None, config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for size in sizes:
        ours: list[float] = []
        go: list[float] = []
        with processes(size) as nodes:
            for run in range(runs):
                ours.append(converge(nodes, run, **config))
                close(nodes)
                if binary and run < max(3, runs // 3):
                    go.append(go_figures(binary, size, 0, 0)["all_see_all"])
        print(f"all see all, {size:3} nodes   mycorrizal {spread(ours)}")
        if go:
            print(f"                          Go         {spread(go)}")
        found[str(size)] = {"ours": ours, "go": go}
    return found


def measure_kills(count: int, size: int, binary: Path | None, config: dict[str, Any]) -> dict[str, Any]:
    ours = kills(count, size, config)
    go: list[dict[str, float]] = []
    per_run = min(4, size - 3)
    while binary and len(go) < count:
        go += go_figures(binary, size, min(per_run, count - len(go)), 0)["kills"]
    for who, results in (("mycorrizal", ours), ("Go", go)):
        if results:
            first, middle, last = (statistics.median(r[k] for r in results) for k in ("first", "median", "last"))
            print(f"kill, {size} nodes, {who:10}  first {first:5.2f}  median {middle:5.2f}  last {last:5.2f} s "
                  f"(medians of {len(results)}, worst last {max(r['last'] for r in results):.2f})")  # fmt: skip
    if go:
        ratio = statistics.median(r["median"] for r in ours) / statistics.median(r["median"] for r in go)
        print(f"      ratio of medians      {ratio:5.2f}")
    return {"ours": ours, "go": go}


def measure_idle(size: int, seconds: float, binary: Path | None, config: dict[str, Any]) -> dict[str, Any]:
    ours = idle(size, seconds, config)
    print(f"idle, {size} nodes            mycorrizal {ours['core_percent']:.2f} % of a core, "
          f"RSS {ours['rss_mb']:.1f} MB, PSS {ours['pss_mb']:.1f} MB a process")  # fmt: skip
    go: dict[str, Any] = {}
    if binary:
        go = go_figures(binary, size, 0, seconds)
        core = go["idle_cpu_seconds_per_node_minute"] / 60 * 100
        print(f"                          Go         {core:.2f} % of a core a node ({size} nodes in one process); "
              f"ratio {ours['core_percent'] / core:.1f}")  # fmt: skip
    return {"ours": ours, "go": go}


def measure_rate(pings: int, binary: Path | None) -> dict[str, Any]:
    ours = [our_rate(pings) for _ in range(5)]
    go = [go_rate(binary, pings) for _ in range(5)] if binary else []
    print(f"packets per second per core  mycorrizal {statistics.median(ours):,.0f}")
    if go:
        ratio = statistics.median(ours) / statistics.median(go)
        print(f"                             Go         {statistics.median(go):,.0f}   ratio {ratio:.2f}")
    return {"ours": ours, "go": go}


def plot(found: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for size, runs in found.get("convergence", {}).items():
        for who, style in (("ours", "-"), ("go", "--")):
            values = sorted(runs[who])
            if values:
                axes[0].step(values, [(n + 1) / len(values) for n in range(len(values))], style, label=f"{who}, {size}")
    axes[0].set(xlabel="seconds until all see all", ylabel="share of runs", xscale="log")
    for who in ("ours", "go"):
        values = sorted(r["median"] for r in found.get("kills", {}).get(who, []))
        if values:
            axes[1].step(values, [(n + 1) / len(values) for n in range(len(values))], label=who)
    axes[1].set(xlabel="seconds from kill to the median survivor's notice")
    for axis in axes:
        if axis.lines:
            axis.legend()
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/bench gossip", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", default="16,64", help="cluster sizes for convergence")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kill-nodes", type=int, default=16)
    parser.add_argument("--idle-nodes", type=int, default=64)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds")
    parser.add_argument("--wire", default="cbor", choices=("cbor", "msgpack"))
    parser.add_argument("--only", default="rate,convergence,kills,idle", help="parts to run")
    parser.add_argument("--quick", action="store_true", help="a look in about two minutes")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.quick:
        options.nodes, options.runs, options.kills, options.idle_nodes, options.idle = "16", 3, 2, 16, 10.0
    options.out.mkdir(parents=True, exist_ok=True)
    binary, config = build_go(), {"wire": options.wire}
    found: dict[str, Any] = {}
    parts = options.only.split(",")
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, wire={options.wire}")
    if "rate" in parts:
        found["rate"] = measure_rate(20_000, binary)
    if "convergence" in parts:
        sizes = [int(n) for n in options.nodes.split(",")]
        found["convergence"] = measure_convergence(sizes, options.runs, binary, config)
    if "kills" in parts:
        found["kills"] = measure_kills(options.kills, options.kill_nodes, binary, config)
    if "idle" in parts:
        found["idle"] = measure_idle(options.idle_nodes, options.idle, binary, config)
    store = options.out / "gossip.json"
    if store.exists():  # parts that were measured before
        found = {**json.loads(store.read_text()), **found}
    store.write_text(json.dumps(found, indent=1))
    plot(found, options.out / "gossip.png")
    print(f"figures and plot in {options.out}")


if __name__ == "__main__":
    main()
