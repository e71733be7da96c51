"""``tools/chaos data``: two data planes, in network namespaces, on a network that loses, delays, repeats and reorders.

One node asks, sends and sends large values; the other one counts what reaches
it. Everything has to arrive, each thing once, messages in order. Also run,
shorter, by tests/integration/test_data_lossy.py.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from lab.child import as_child
from lab.netlab import Lab, missing
from mycorrizal import DataConfig, MycorrizalError
from mycorrizal.dataplane import DataPlane

PORT = 7947
KEY = bytes(range(32))
TIMEOUT = 120.0
BULK_TIMEOUT = 1800.0
FAULTS = {"loss": 0.02, "duplicate": 0.01, "reorder": 0.05, "delay": 0.02, "jitter": 0.005}


# -- the node that counts -----------------------------------------------------------------


def serve(address: str) -> None:
    """Echo, count, and check; report and begin anew at each line of stdin."""
    ran: Counter[int] = Counter()
    messages: list[int] = []
    digests: list[str] = []
    with DataPlane("server", bind=address, port=PORT, key=KEY) as plane:

        @plane.on_request("echo")
        def echo(request: Any) -> Any:
            ran[request.value[0]] += 1
            return request.value

        @plane.on_request("digest")
        def digest(request: Any) -> str:
            return hashlib.sha256(request.value).hexdigest()

        def read() -> None:
            for message in plane.messages():
                if isinstance(message.value, int):
                    messages.append(message.value)
                else:
                    digests.append(hashlib.sha256(message.value).hexdigest())

        reader = threading.Thread(target=read)
        reader.start()
        print(json.dumps({"ready": True}), flush=True)
        for _ in sys.stdin:
            found = {
                "ran": len(ran),
                "ran_twice": sum(count > 1 for count in ran.values()),
                "messages": len(messages),
                "in_order": messages == list(range(len(messages))),
                "digests": digests,
                "metrics": plane.metrics(),
            }
            print(json.dumps(found), flush=True)
    reader.join()


# -- the node that asks -------------------------------------------------------------------------


def ask(address: str, server: str) -> None:
    """Do what each line of stdin says; answer with figures."""
    config, peers = DataConfig(silence_timeout=30.0), {"server": (server, PORT)}
    with DataPlane("client", bind=address, port=PORT, key=KEY, peers=peers, config=config) as plane:
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            what = order.pop("do")
            print(json.dumps(ORDERS[what](plane, **order)), flush=True)


def requests(plane: DataPlane, count: int, threads: int) -> dict[str, Any]:
    """Make requests from several threads; each has a number that the server counts."""
    waits: list[float] = []
    failed: list[str] = []
    numbers = iter(range(count))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            value = [number, "x" * (number % 2000)]
            began = time.monotonic()
            try:
                if plane.request("server", "echo", value, timeout=TIMEOUT) != value:
                    failed.append(f"{number}: another answer")
            except MycorrizalError as error:
                failed.append(f"{number}: {error!r}")
            waits.append(time.monotonic() - began)

    began = time.monotonic()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    waits.sort()
    return {
        "count": len(waits),
        "failed": failed,
        "seconds": time.monotonic() - began,
        "p50": waits[len(waits) // 2],
        "p99": waits[len(waits) * 99 // 100],
        "max": waits[-1],
    }


def messages(plane: DataPlane, count: int) -> dict[str, Any]:
    """Send numbers."""
    began = time.monotonic()
    failed = []
    futures = [plane.send_async("server", number) for number in range(count)]
    for number, future in enumerate(futures):
        if (error := future.exception(TIMEOUT)) is not None:
            failed.append(f"{number}: {error!r}")
    return {"count": count, "failed": failed, "seconds": time.monotonic() - began}


def bulk(plane: DataPlane, size: int) -> dict[str, Any]:
    """Send a large value as a message, and an eighth of it as a request."""
    data = hashlib.shake_256(b"bulk").digest(size)
    began = time.monotonic()
    plane.send("server", data, timeout=BULK_TIMEOUT)
    one_way = time.monotonic() - began
    digest = hashlib.sha256(data).hexdigest()
    part = data[: size // 8]
    whole = plane.request("server", "digest", part, timeout=BULK_TIMEOUT) == hashlib.sha256(part).hexdigest()
    peer = plane.peers()[0]
    return {
        "bytes": size,
        "digest": digest,
        "request_whole": whole,
        "seconds": one_way,
        "MB_per_s": size / one_way / 1e6,
        "rtt": peer.rtt,
        "mtu": peer.mtu,
        "path": dict(peer.path),
    }


ORDERS: dict[str, Callable[..., dict[str, Any]]] = {"requests": requests, "messages": messages, "bulk": bulk}

# -- the campaign -------------------------------------------------------------------------------


class Host:
    """A process on a host of the lab, which answers each line with a line."""

    def __init__(self, lab: Lab, number: int, *arguments: str) -> None:
        command = as_child("campaigns.data", *arguments)
        self.child = lab.popen(number, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.take(30.0)

    def take(self, seconds: float) -> dict[str, Any]:
        """Return the next answer."""
        assert self.child.stdout is not None
        if not select.select([self.child.stdout], [], [], seconds)[0]:
            raise TimeoutError("no answer from a node")
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError("a node has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, seconds: float = 2 * BULK_TIMEOUT, **order: Any) -> dict[str, Any]:
        """Give an order and return the answer."""
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(order) + "\n")
        return self.take(seconds)

    def end(self) -> int:
        """Let it end in order; return its exit code."""
        assert self.child.stdin is not None
        with contextlib.suppress(OSError):
            self.child.stdin.close()
        return int(self.child.wait(20))


def run(
    *, count: int, threads: int, numbers: int, size: int, seed: int, faults: dict[str, float]
) -> dict[str, Any]:
    """Return what the client measured, what the server counted, what the switch did, and what is wrong."""
    with Lab(2, seed=seed, **faults) as lab:
        server = Host(lab, 0, "serve", lab.address(0))
        client = Host(lab, 1, "ask", lab.address(1), lab.address(0))
        found: dict[str, Any] = {
            "requests": client.ask(do="requests", count=count, threads=threads),
            "messages": client.ask(do="messages", count=numbers),
            "bulk": client.ask(do="bulk", size=size),
        }
        found["server"] = server.ask()
        found["frames"] = lab.stats()
        found["exit_codes"] = [client.end(), server.end()]
    found["wrong"] = wrong(found, count, numbers)
    return found


def wrong(found: dict[str, Any], count: int, numbers: int) -> list[str]:
    """Return what is not as it has to be."""
    server, problems = found["server"], []
    problems += found["requests"]["failed"] + found["messages"]["failed"]
    for what, is_so in {
        "not every request ran": server["ran"] == count,
        "requests ran twice": server["ran_twice"] == 0,
        "messages are missing, or came twice": server["messages"] == numbers,
        "messages are out of order": server["in_order"],
        "the large message is damaged, missing, or came twice": server["digests"] == [found["bulk"]["digest"]],
        "the large request is damaged": found["bulk"]["request_whole"],
        "somebody was accused": "offences" not in server["metrics"],
        "a node ended with an error": found["exit_codes"] == [0, 0],
    }.items():
        if not is_so:
            problems.append(what)
    return problems


def main() -> int:
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
        return 0
    if sys.argv[1:2] == ["ask"]:
        ask(sys.argv[2], sys.argv[3])
        return 0
    parser = argparse.ArgumentParser(prog="tools/chaos data", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    for name, value in FAULTS.items():
        parser.add_argument(f"--{name}", type=float, default=value)
    options = parser.parse_args()
    if (why := missing()) is not None:
        print(why)
        return 2
    faults = {name: getattr(options, name) for name in FAULTS}
    found = run(
        count=options.requests, threads=options.threads, numbers=options.messages,
        size=options.megabytes << 20, seed=options.seed, faults=faults,
    )  # fmt: skip
    print(json.dumps(found, indent=1))
    print(f"{'NOT WHOLE' if found['wrong'] else 'whole'}: {faults}")
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
