"""``tools/chaos cache``: agents in processes of their own, callers that never stop, and a SIGKILL again and again.

What every caller saw is written down (campaigns/cache_node.py) and judged at the
end (tools/simulated/cache_records.py). Also run, shorter, by
tests/integration/test_cache_chaos.py.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.child import as_child
from lab.lines import Lines
from lab.netlab import Lab, missing
from mycorrizal.simulation.checkers import CheckFailed
from simulated.cache_records import (
    Book,
    check_final,
    check_history,
    check_holders,
    check_refused,
    staleness,
)

KEY = base64.b64encode(bytes(range(32))).decode()
NEAR_BOUND = 2.0
"""Seconds: what docs/guarantees.md says of near copies, without the time that a notice travels."""
IN_PLACE_SECONDS = 2.0
"""From when everybody has noticed a kill until all copies are in place again."""
SYNC_SECONDS = 90.0
CACHES: list[dict[str, Any]] = [{"name": "strict"}, {"name": "near", "near": True}]
QUORUM: list[dict[str, Any]] = [*CACHES, {"name": "quorum", "quorum": 3}]


class Node:
    """A slot: a name and an address, and the process that has them at present."""

    def __init__(self, campaign: Campaign, number: int) -> None:
        self.campaign = campaign
        self.number = number
        self.lives = 0
        self.process: subprocess.Popen[bytes]
        self._heard = b""

    @property
    def seed(self) -> str:
        """What others join."""
        host, port, _ = self.campaign.addresses[self.number]
        return f"{host}:{port}"

    def start(self) -> None:
        """Start a process; ``ready`` waits for it."""
        campaign = self.campaign
        self.lives += 1
        life = f"{self.number}.{self.lives}"
        host, port, quic_port = campaign.addresses[self.number]
        agent = {
            "name": f"n{self.number}", "cluster": "chaos", "key": KEY, "bind": host, "port": port,
            "quic_port": quic_port, "join_timeout": 30.0, "discover": False,
            "join": [other.seed for other in campaign.nodes if other.lives and other is not self],
        }  # fmt: skip
        settings = {
            "life": life, "log": str(campaign.path / f"{life}.log"), "agent": agent, "caches": campaign.caches,
            "seed": campaign.seed, "pause": campaign.pause,
        }  # fmt: skip
        if campaign.config is not None:
            settings["config"] = {**campaign.config, "bind_addr": host, "bind_port": port}
        command = as_child("campaigns.cache_node", json.dumps(settings))
        options: dict[str, Any] = {
            "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0,
            "stderr": open(campaign.path / f"{life}.err", "wb"),  # noqa: SIM115 - the process's
            "env": {**os.environ, "MYCORRIZAL_RUNTIME_DIR": str(campaign.path)},
        }  # fmt: skip
        if campaign.lab is None:
            self.process = subprocess.Popen(command, **options)
        else:
            self.process = campaign.lab.popen(self.number, command, **options)
        options["stderr"].close()
        self._lines = Lines(self.process)

    def ready(self) -> None:
        """Wait until the process has started."""
        assert self.hear(60.0) == "ready"

    def hear(self, seconds: float) -> Any:
        """Return the next answer."""
        try:
            return json.loads(self._lines.next(seconds))
        except TimeoutError as error:
            raise TimeoutError(f"n{self.number}: {error}") from None
        except EOFError as error:
            errors = (self.campaign.path / f"{self.number}.{self.lives}.err").read_text()
            raise RuntimeError(f"n{self.number}: {error}; {errors[-2000:]}") from None

    def tell(self, **order: Any) -> None:
        """Give an order."""
        assert self.process.stdin is not None
        self.process.stdin.write((json.dumps(order) + "\n").encode())

    def ask(self, seconds: float = SYNC_SECONDS + 10, **order: Any) -> Any:
        """Give an order and return the answer."""
        self.tell(**order)
        answer = self.hear(seconds)
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"n{self.number}: {order}: {answer['error']}")
        return answer

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self._gone()

    def leave(self) -> None:
        """End in order."""
        self.tell(do="leave")
        self._gone()

    def _gone(self) -> None:
        self.process.wait(60)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Campaign:
    """A context manager: the nodes of one run, and where their files are."""

    def __init__(
        self, nodes: int, *, seed: int, pause: float = 0.02, config: dict[str, Any] | None = None,
        caches: list[dict[str, Any]] = CACHES, lab: Lab | None = None, patience: float = 1.0,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:  # fmt: skip
        self.seed = seed
        self.pause = pause
        self.config = config
        self.caches = caches
        self.lab = lab
        self.patience = patience  # how much slower than promised a busy machine may be
        self.say = say
        self.random = random.Random(seed)
        self.path = Path(tempfile.mkdtemp(prefix="mycorrizal-chaos-"))
        ports = _free_ports(2 * nodes)
        self.addresses = [
            ("127.0.0.1", ports.pop(), ports.pop()) if lab is None else (lab.address(number), 7946, 7947)
            for number in range(nodes)
        ]
        self.nodes = [Node(self, number) for number in range(nodes)]
        self.unstable: list[tuple[float, float]] = []  # from when to when membership was not
        self.found: dict[str, Any] = {"nodes": nodes, "seed": seed, "kills": [], "rolled": []}

    def __enter__(self) -> Campaign:
        try:
            for node in self.nodes:
                node.start()
            for node in self.nodes:  # callers begin at once, each on an agent that may hold itself for the only one
                node.ready()
                node.ask(do="go")
            self.unstable.append((0.0, self.whole()))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill what runs; remove the files."""
        for node in self.nodes:
            if node.lives and node.process.poll() is None:
                node.kill()
        shutil.rmtree(self.path, ignore_errors=True)

    # -- what is done to them -------------------------------------------------------------

    def whole(self, missing: Node | None = None) -> float:
        """Wait until all (but `missing`) see each other, and all copies are in place; return when that was so."""
        nodes = [node for node in self.nodes if node is not missing]
        names = sorted(f"n{node.number}" for node in nodes)
        end = time.monotonic() + SYNC_SECONDS
        while any(sorted(node.ask(do="members")) != names for node in nodes):
            if time.monotonic() > end:
                raise TimeoutError(f"not everybody saw {names}: {[node.ask(do='members') for node in nodes]}")
            time.sleep(0.05)
        _, synced = self.random.choice(nodes).ask(do="synced", timeout=SYNC_SECONDS)
        return float(synced)

    def kill(self, *, at_once: bool) -> None:
        """SIGKILL somebody; restart it at once, or once the others have filled its place."""
        node = self.random.choice(self.nodes)
        killed = time.monotonic()
        node.kill()
        entry = {"node": node.number, "lives": node.lives, "at": killed, "at_once": at_once}
        if not at_once:
            entry["synced_after"] = self.whole(missing=node) - killed
        node.start()
        node.ready()
        node.ask(do="go")
        entry["ready_after"] = time.monotonic() - killed
        entry["whole_after"] = self.whole() - killed
        self.found["kills"].append(entry)
        self.say(f"killed n{node.number}: {entry}")

    def roll(self, *, graceful: bool) -> None:
        """Restart every node, one at a time, with ``synced`` between."""
        for node in self.nodes:
            began = time.monotonic()
            if graceful:
                node.leave()
            else:
                node.kill()
            node.start()
            node.ready()
            node.ask(do="go")
            self.found["rolled"].append({"graceful": graceful, "seconds": self.whole() - began})
            self.say(f"restarted n{node.number}: {self.found['rolled'][-1]}")

    def divide(self, small: list[int], seconds: float) -> None:
        """Cut the network in two for so long, and wait until it is whole again."""
        assert self.lab is not None
        rest = [node.number for node in self.nodes if node.number not in small]
        began = time.monotonic()
        self.lab.partition(small, rest)
        time.sleep(seconds)
        healed = time.monotonic()
        self.lab.partition()
        whole = self.whole()
        self.unstable.append((began, whole))
        self.found["partition"] = {"small": small, "began": began, "whole": whole, "whole_after": whole - healed}
        self.say(f"whole again {whole - healed:.1f} s after {seconds:.0f} s apart")

    # -- the end --------------------------------------------------------------------------

    def judge(self) -> dict[str, Any]:
        """Stop the callers, read everything everywhere, and say what is wrong."""
        for node in self.nodes:
            node.tell(do="stop")
        for node in self.nodes:
            node.hear(60.0)
        self.whole()
        time.sleep(1.0)
        book = self._book()
        names = [cache["name"] for cache in self.caches]
        keys = {name: sorted({event.key.decode() for event in book.events.get(name, [])}) for name in names}
        path = self.path / "keys.json"
        path.write_text(json.dumps(keys), encoding="ascii")
        final = [node.ask(do="read", path=str(path), seconds=180.0) for node in self.nodes]
        holdings = [node.ask(do="holdings") for node in self.nodes]
        self.found["metrics"] = [node.ask(do="metrics") for node in self.nodes]
        problems: list[str] = []
        for judgement in (self._judge_histories, self._judge_ends, self._judge_quorum, self._judge_times):
            try:
                judgement(book, final, holdings)
            except CheckFailed as error:
                problems.append(str(error))
        counted = {name: len(events) for name, events in book.events.items()}
        self.found |= {
            "calls": counted, "refused": {name: len(events) for name, events in book.refused.items()},
            "errors": book.errors, "unknown": sum(not e.known for events in book.events.values() for e in events),
            "acknowledged_writes": sum(e.known and e.kind != "get" for events in book.events.values() for e in events),
            "keys": {name: len(found) for name, found in keys.items()}, "wrong": problems,
        }  # fmt: skip
        return self.found

    def _book(self) -> Book:
        files = {path.stem: path.read_text(encoding="ascii").splitlines() for path in sorted(self.path.glob("*.log"))}
        return Book.read(files)

    def _judge_histories(self, book: Book, final: list[Any], holdings: list[Any]) -> None:
        checked, undecided = check_history(book.events.get("strict", []), _fail, without=self.unstable)
        near = staleness(book.events.get("near", []), _fail, without=self.unstable)
        self.found["histories"] = {"checked": checked, "undecided": undecided}
        self.found["near"] = {
            "reads": near.reads, "stale": len(near.late), "p50": near.share(0.5), "p99": near.share(0.99),
            "worst": near.worst, "undecided": near.undecided, "bound": NEAR_BOUND,
        }  # fmt: skip
        if near.worst > NEAR_BOUND * self.patience:
            raise _fail("near", f"a read was {near.worst:.2f} s old")
        if checked < 10 or near.reads < 50:
            raise _fail("vacuous", f"{checked} histories, {near.reads} reads")

    def _judge_ends(self, book: Book, final: list[Any], holdings: list[Any]) -> None:
        for cache in self.caches:
            name = cache["name"]
            check_final(book.events.get(name, []), [read[name] for read in final], _fail, without=self.unstable)
            check_holders([held[name] for held in holdings], 2, _fail)

    def _judge_quorum(self, book: Book, final: list[Any], holdings: list[Any]) -> None:
        if "partition" in self.found:
            side = set(self.found["partition"]["small"])
            refused, went_on = check_refused(book, "quorum", side, 3, _fail)
            self.found["quorum"] = {"refused": refused, "acknowledged": went_on}
            if not refused or not went_on:
                raise _fail("vacuous", f"quorum: {self.found['quorum']}")

    def _judge_times(self, book: Book, final: list[Any], holdings: list[Any]) -> None:
        """Copies are in place at most 2 s after everybody has noticed a kill; the same after a start is told only."""
        killed, started = [], []
        for entry in self.found["kills"]:
            old, new = (_member(book, f"{entry['node']}.{entry['lives'] + more}") for more in (0, 1))
            span = entry["at"], entry["at"] + entry["whole_after"]
            entry["noticed_after"] = _last_to_see(book, old, span, absent=True)
            entry["seen_again_after"] = _last_to_see(book, new, span, absent=False)
            if "synced_after" in entry:
                killed.append(entry["synced_after"] - entry["noticed_after"])
            known = max(entry["ready_after"], entry["seen_again_after"], entry["noticed_after"])
            started.append(entry["whole_after"] - known)
        self.found |= {"in_place_after_kill_noticed": killed, "in_place_after_start_noticed": started}
        if max(killed, default=0.0) > IN_PLACE_SECONDS * self.patience:
            raise _fail("in time", f"copies were in place {max(killed):.1f} s after everybody had noticed a kill")


def _last_to_see(book: Book, member: list[str], span: tuple[float, float], *, absent: bool) -> float:
    """Return how long after the start of `span` the last one saw `member`, or saw that it is gone."""
    since, end = span
    seen = []
    for views in book.views.values():
        news = [at for at, view in views if since < at < end and (member in view) is not absent]
        if news and (not absent or any(member in view for at, view in views if at < news[0])):
            seen.append(news[0] - since)
    return max(seen, default=0.0)


def _member(book: Book, life: str) -> list[str]:
    """Return the name and boot id of a life, as views have them."""
    name = "n" + life.partition(".")[0]
    own = [member for _, view in book.views.get(life, []) for member in view if member[0] == name]
    return own[0] if own else [name, ""]


def _fail(checker: str, text: str) -> CheckFailed:
    return CheckFailed(checker, 0.0, text)


def _free_ports(count: int) -> list[int]:
    """Return ports that are free for UDP and TCP on loopback, now."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            tcp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            tcp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                udp.bind(tcp.getsockname())
                found.append(tcp.getsockname()[1])
        return found


def run_kills(*, nodes: int, kills: int, every: float, seed: int, rolling: bool, **options: Any) -> dict[str, Any]:
    """Kill somebody `kills` times, `every` seconds at least; every other one is restarted at once."""
    with Campaign(nodes, seed=seed, **options) as campaign:
        for number in range(kills):
            began = time.monotonic()
            campaign.kill(at_once=number % 2 == 1)
            time.sleep(max(0.0, every - (time.monotonic() - began)))
        if rolling:
            campaign.roll(graceful=True)
            campaign.roll(graceful=False)
        return campaign.judge()


def run_partition(*, nodes: int, seconds: float, calm: float, seed: int, **options: Any) -> dict[str, Any]:
    """Cut two nodes off from the others."""
    with Lab(nodes, seed=seed) as lab, Campaign(nodes, seed=seed, caches=QUORUM, lab=lab, **options) as campaign:
        time.sleep(calm)
        campaign.divide([0, 1], seconds)
        time.sleep(calm)
        return campaign.judge()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/chaos cache", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two kills, at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.05, help="mean seconds between two calls of a caller")
    parser.add_argument("--rolling", action="store_true", help="then restart all, one at a time, in both ways")
    parser.add_argument("--partition", type=float, default=0.0, metavar="SECONDS", help="cut two nodes off instead")
    options = parser.parse_args()
    common: dict[str, Any] = {"nodes": options.nodes, "seed": options.seed, "pause": options.pause}
    common["say"] = lambda text: print(text, flush=True)
    if options.partition:
        if (why := missing()) is not None:
            print(why)
            return 2
        found = run_partition(seconds=options.partition, calm=15.0, **common)
    else:
        found = run_kills(kills=options.kills, every=options.every, rolling=options.rolling, **common)
    counters = found.pop("metrics")
    print(json.dumps(found, indent=1))
    for name in ("takeovers_forced", "claims", "reclaims", "releases", "retries_recognised", "retries_forgotten"):
        print(f"{name}: {[counted.get(name, 0) for counted in counters]}")
    print("; ".join(found["wrong"]) if found["wrong"] else "nothing acknowledged was lost, nothing deleted came back")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
