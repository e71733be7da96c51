"""``tools/bench host``: two agents of this host by a Unix socket and by QUIC, in turn in one run.

Each way is a pair of processes, one that asks and one that is asked; with
`--against REVISION` that revision is another one, out of a git worktree that
is removed afterwards. Rounds alternate; what counts is the median of the
rounds' ratios. Beside the rates stand the processor time of both processes
and how often a thread of theirs slept, for each request: those say something
on a busy machine too. Every figure asserts its carrier. A bare TCP socket
between two processes stands beside bulk.

`--kills N` kills an agent N times that lives beside two others, and tells
after how long both knew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.rounds import at_once, turned
from benchmarks.trees import trees
from lab.child import ROOT, as_child

MIB = 1 << 20
SECONDS = 120.0
TCP = "tcp"
Figures = dict[str, float]


# -- a process that is measured -----------------------------------------------------------------------


def used() -> list[float]:
    """Return processor seconds and voluntary switches of this process."""
    found = resource.getrusage(resource.RUSAGE_SELF)
    return [found.ru_utime + found.ru_stime, found.ru_nvcsw]


def make(name: str, tree: str, way: str) -> Any:
    """Return an agent of the revision in `tree`, on that carrier if it has more than one."""
    import mycorrizal  # of PYTHONPATH

    assert str(mycorrizal.__file__).startswith(tree), "not the revision that was to be measured"
    choice = {"same_host": way == "host"} if way in ("host", "quic") else {}
    return mycorrizal.Agent(name, data_config=mycorrizal.DataConfig(**choice))


def serve(tree: str, way: str) -> None:
    """Be the agent that is asked, until standard input ends."""
    with make("asked", tree, way) as agent:
        agent.on_request("echo")(lambda request: request.value)
        agent.on_request("size")(lambda request: len(request.value))
        agent.on_request("used")(lambda request: used())
        print("up", flush=True)
        sys.stdin.read()


def ask(tree: str, way: str) -> None:
    """Be the agent that asks: what is to be measured comes on standard input, a line each, and figures go out."""
    with make("asks", tree, way) as agent:
        agent.wait_for(2)
        requests(agent, 1, 100)
        print("up", flush=True)
        kinds: dict[str, Callable[..., Figures]] = {"requests": requests, "bulk": bulk}
        for line in sys.stdin:
            kind, *numbers = json.loads(line)
            print(json.dumps(kinds[kind](agent, *numbers)), flush=True)
            if way in ("host", "quic"):
                (peer,) = agent.peers()
                assert peer.carrier == way, f"not what was to be measured: {peer.carrier}, {peer.why}"


def requests(agent: Any, callers: int, count: int) -> Figures:
    """Ask `count` times in all; return rate, latencies in µs, and for each request µs of processor and sleeps."""

    def prepare(number: int) -> Callable[[], list[float]]:
        def run() -> list[float]:
            took = []
            for _ in range(count // callers):
                began = time.perf_counter()
                agent.request("asked", "echo", bytes(64), timeout=SECONDS)
                took.append(time.perf_counter() - began)
            return took

        return run

    before = [*used(), *agent.request("asked", "used", timeout=SECONDS)]
    began = time.perf_counter()
    took = sorted(one for each in at_once(callers, prepare) for one in each)
    seconds = time.perf_counter() - began
    after = [*used(), *agent.request("asked", "used", timeout=SECONDS)]
    spent = [two - one for one, two in zip(before, after, strict=True)]
    return {
        "per s": len(took) / seconds,
        "p50 µs": took[len(took) // 2] * 1e6,
        "p99 µs": took[len(took) * 99 // 100] * 1e6,
        "CPU µs": (spent[0] + spent[2]) / len(took) * 1e6,
        "sleeps": (spent[1] + spent[3]) / len(took),
    }


def bulk(agent: Any, size: int) -> Figures:
    """Send one large value; return MB/s."""
    value = bytes(size)
    before = [*used(), *agent.request("asked", "used", timeout=SECONDS)]
    began = time.perf_counter()
    assert agent.request("asked", "size", value, timeout=SECONDS) == size
    seconds = time.perf_counter() - began
    after = [*used(), *agent.request("asked", "used", timeout=SECONDS)]
    spent = [two - one for one, two in zip(before, after, strict=True)]
    return {
        "MB/s": size / seconds / 1e6,
        "CPU ms/MiB": (spent[0] + spent[2]) * 1e3 * MIB / size,
        "sleeps/MiB": (spent[1] + spent[3]) * MIB / size,
    }


def swallow(port: int) -> None:
    """Take what comes on a TCP socket, a length and so many bytes, into memory of its own, and answer."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        while head := sock.recv(8, socket.MSG_WAITALL):
            view = memoryview(bytearray(int.from_bytes(head, "big")))
            while view:
                view = view[sock.recv_into(view) :]
            sock.sendall(b"!")


# -- who measures ---------------------------------------------------------------------------------------


class Pair:
    """An agent that asks and one that is asked, of one revision and on one carrier."""

    def __init__(self, tree: Path, way: str, folder: str) -> None:
        self._children = [node(role, tree, way, folder) for role in ("--serve", "--ask")]

    def measure(self, *what: object) -> Figures:
        """Return what the asking one has measured."""
        asks = self._children[1]
        assert asks.stdin is not None and asks.stdout is not None
        asks.stdin.write(json.dumps(what) + "\n")
        asks.stdin.flush()
        figures: Figures = json.loads(asks.stdout.readline())
        return figures

    def close(self) -> None:
        """End both."""
        for child in reversed(self._children):
            child.communicate(timeout=30)


def node(role: str, tree: Path, way: str, folder: str) -> subprocess.Popen[str]:
    """Return a process of ours that is up."""
    child = subprocess.Popen(
        as_child("benchmarks.host", role, str(tree), way), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "MYCORRIZAL_RUNTIME_DIR": folder, "PYTHONPATH": str(tree)},
    )  # fmt: skip
    assert child.stdout is not None
    if child.stdout.readline() != "up\n":
        raise SystemExit(f"{role} {way} did not start")
    return child


@contextlib.contextmanager
def bare_tcp() -> Iterator[Callable[[int], Figures]]:
    """Yield what sends so many bytes over a TCP socket to another process, which has them when it returns."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = subprocess.Popen(as_child("benchmarks.host", "--swallow", str(listener.getsockname()[1])))
        sock, _ = listener.accept()

    def send(size: int) -> Figures:
        value = bytes(size)
        began = time.perf_counter()
        sock.sendall(size.to_bytes(8, "big"))
        sock.sendall(value)
        sock.recv(1)
        return {"MB/s": size / (time.perf_counter() - began) / 1e6}

    with sock:
        yield send
    child.wait(30)


def measure(pairs: dict[str, Pair], options: argparse.Namespace) -> dict[str, dict[str, list[Figures]]]:
    """Return the rounds of each figure, by way."""
    size = options.bulk * MIB
    kinds: dict[str, tuple[object, ...]] = {
        "1 caller": ("requests", 1, options.requests),
        "16 callers": ("requests", 16, options.requests),
        f"bulk {options.bulk} MiB": ("bulk", size),
    }
    found: dict[str, dict[str, list[Figures]]] = {kind: {way: [] for way in pairs} for kind in kinds}
    with bare_tcp() as send:
        for number in range(options.rounds):
            for kind, what in kinds.items():
                for way in turned(list(pairs), number):
                    found[kind][way].append(pairs[way].measure(*what))
            found[kind].setdefault(TCP, []).append(send(size))
    return found


def report(found: dict[str, dict[str, list[Figures]]]) -> None:
    """Print medians, and the medians of the rounds' ratios with the least and the most."""
    for kind, ways in found.items():
        rate, *tails = (name for name in ways["host"][0] if name in ("per s", "MB/s", "p99 µs"))
        print(kind)
        for other in list(ways)[1:]:
            told = [f"host / {other} {ratio(ways, other, rate)}"]
            told += [f"{name.split()[0]} {ratio(ways, other, name)}" for name in tails]
            print("  " + ", ".join(told))
        for way, rounds in ways.items():
            cells = (f"{name} {statistics.median(one[name] for one in rounds):,.1f}" for name in rounds[0])
            print(f"    {way}: {', '.join(cells)}")


def ratio(ways: dict[str, list[Figures]], other: str, name: str) -> str:
    """Return the median of the rounds' ratios, with the least and the most."""
    found = sorted(one[name] / two[name] for one, two in zip(ways["host"], ways[other], strict=True))
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


def kills(count: int, folder: str) -> list[float]:
    """Kill an agent `count` times beside two others; return the seconds until both know, in order."""
    os.environ["MYCORRIZAL_RUNTIME_DIR"] = folder
    from mycorrizal import Agent, DataConfig

    took, same = [], DataConfig(same_host=True)
    with Agent("one", data_config=same) as one, Agent("two", data_config=same) as two:
        both = (one, two)
        for _ in range(count):
            child = node("--serve", ROOT, "host", folder)
            while not all("asked" in agent.members().names for agent in both) or not watched(both, "asked"):
                time.sleep(0.01)
            child.kill()
            began = time.perf_counter()
            while any("asked" in agent.members().names for agent in both):
                time.sleep(0.002)
            took.append(time.perf_counter() - began)
            child.communicate(timeout=30)
    return sorted(took)


def watched(agents: tuple[Any, ...], name: str) -> bool:
    """Return whether one of them has a connection by which it would see the end of `name`."""
    return any(peer.name == name and peer.carrier == "host" for agent in agents for peer in agent.peers())


def main(arguments: list[str]) -> int:
    """Run it."""
    roles: dict[str, Callable[..., None]] = {
        "--serve": serve, "--ask": ask, "--swallow": lambda port: swallow(int(port))
    }  # fmt: skip
    if arguments and arguments[0] in roles:
        roles[arguments[0]](*arguments[1:])
        return 0
    parser = argparse.ArgumentParser(prog="tools/bench host", description=__doc__)
    parser.add_argument("--against", metavar="REVISION", help="measure this revision too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=3200, help="in each round, of all callers")
    parser.add_argument("--bulk", type=int, default=256, metavar="MIB")
    parser.add_argument("--kills", type=int, default=0, help="kill an agent so often, and see when the others know")
    options = parser.parse_args(arguments)
    print("load {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))
    with trees(options.against) as found, contextlib.ExitStack() as stack:
        ways = {"host": ROOT, "quic": ROOT}
        ways |= {name: tree for name, tree in found.items() if tree != ROOT}
        pairs = {}
        for way, tree in ways.items() if options.rounds else ():
            pairs[way] = Pair(tree, way, stack.enter_context(tempfile.TemporaryDirectory(prefix="myc-")))
            stack.callback(pairs[way].close)
        if pairs:
            report(measure(pairs, options))
        if options.kills:
            took = kills(options.kills, stack.enter_context(tempfile.TemporaryDirectory(prefix="myc-")))
            middle = statistics.median(took)
            print(f"killed, until both others know: median {middle:.2f} s, worst of {len(took)} {took[-1]:.2f} s")
    print("load {:.1f} {:.1f} {:.1f}".format(*os.getloadavg()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
