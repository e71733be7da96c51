"""``tools/chaos connections``: data connections opened and closed by the thousand in one process, and what stays.

First one after another between two nodes, then many nodes at once that all talk
to one. Descriptors and threads must be as before, memory must not grow with the
number. Also run, shorter, by tests/integration/test_data_lossy.py.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from mycorrizal import DataConfig
from mycorrizal.dataplane import DataPlane

KEY = bytes(range(32))


def held() -> dict[str, int]:
    """Return what this process holds."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        # Handler threads come as they are needed, and end when they have been idle for 10 s.
        "threads": sum(not thread.name.startswith("mycorrizal-handler") for thread in threading.enumerate()),
        "objects": len(gc.get_objects()),
        "resident": resident,
    }


def settled(quiet: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until `quiet()`."""
    end = time.monotonic() + seconds
    while not quiet():
        if time.monotonic() > end:
            raise TimeoutError("it did not calm down")
        time.sleep(0.02)


def one_after_another(count: int) -> dict[str, Any]:
    """Open and close `count` connections between two nodes; after a tenth of them everything has its size."""
    with DataPlane("server", key=KEY) as server, DataPlane("client", key=KEY) as client:
        server.on_request("echo")(lambda request: request.value)

        def cycle(number: int) -> None:
            for _ in range(number):
                client.add_peer("server", server.address)
                assert client.request("server", "echo", "x", timeout=20) == "x"
                client.remove_peer("server")
            settled(lambda: client.metrics()["connections"] == server.metrics()["connections"] == 0)
            # What still answers late packets goes a moment later.
            settled(lambda: all(not (core := plane._core) or not core.endpoint._late for plane in (client, server)))

        cycle(max(20, count // 10))
        before = held()
        began = time.monotonic()
        cycle(count)
        seconds = time.monotonic() - began
        return {"count": count, "seconds": seconds, **_grown(before, held())}


def at_once(count: int) -> dict[str, Any]:
    """Let `count` nodes with a connection each talk to one node, and close them all; twice, and measure the second."""
    found: dict[str, Any] = {}
    # What stays is asked, not how fast it is: on a busy machine sixteen handshakes at a time take seconds.
    config = DataConfig(max_unproven=1024, max_connections=4096, connect_timeout=30.0)
    with DataPlane("server", key=KEY, config=config) as server:
        server.on_request("echo")(lambda request: request.value)

        def cycle() -> None:
            with ExitStack() as stack:
                clients = []
                for number in range(count):
                    one = DataPlane(f"client {number}", key=KEY, peers={"server": server.address}, config=config)
                    clients.append(stack.enter_context(one))
                began = time.monotonic()
                # A handshake is some 10 ms of one processor: fewer threads than clients, or all would wait for all.
                gate = threading.Semaphore(16)

                def use(client: DataPlane) -> None:
                    with gate:
                        assert client.request("server", "echo", client.name, timeout=60) == client.name

                threads = [threading.Thread(target=use, args=(client,)) for client in clients]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                found["seconds_to_connect"] = time.monotonic() - began
                found["connected"] = server.metrics()["connections"]
                for client in clients:
                    assert client.request("server", "echo", 1, timeout=60) == 1
                found["at_once"] = held()
            settled(lambda: server.metrics()["connections"] == 0)
            settled(lambda: (core := server._core) is None or not core.endpoint._late)

        cycle()
        before = held()
        cycle()
        return {"count": count, **found, **_grown(before, held())}


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, Any]:
    return {"before": before, "after": after, "grown": {key: after[key] - before[key] for key in before}}


def wrong(found: dict[str, Any]) -> list[str]:
    """Return what stayed behind that should not have."""
    grown, count = found["grown"], found["count"]
    problems = [f"{grown[key]} {key} more" for key in ("descriptors", "threads") if grown[key] > 0]
    if grown["objects"] > 1000 + count // 10:
        problems.append(f"{grown['objects']} objects more")
    if grown["resident"] > (8 << 20) + 100 * count:
        problems.append(f"{grown['resident'] >> 10} KiB more")
    if found.get("connected", count) != count:
        problems.append(f"only {found['connected']} were connected at once")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/chaos connections", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="one after another")
    parser.add_argument("--at-once", type=int, default=1_000)
    options = parser.parse_args()
    problems = []
    for found in (one_after_another(options.count), at_once(options.at_once)):
        found["wrong"] = wrong(found)
        problems += found["wrong"]
        print(json.dumps(found, indent=1), flush=True)
    print("NOT EVERYTHING CAME BACK: " + ", ".join(problems) if problems else "everything came back")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
