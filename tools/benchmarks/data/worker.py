"""One process of ``tools/bench data``: a peer's server or client, commanded by JSON lines on stdin.

Each order has one answer, a JSON line on the standard output the process was
started with; what libraries print goes to standard error. The process ends when
its stdin does.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.data.peer import Client, Server, bulk_value, forget_peak, memory, receipt
from benchmarks.data.peers import PEERS


class Worker:
    """Obeys orders by the name in their ``do``; each method returns what is answered."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self.client: Client | None = None
        self.values: dict[int, bytes] = {}

    @property
    def asking(self) -> Client:
        assert self.client is not None, "no client was opened"
        return self.client

    def serve(self, peer: str, host: str, work: str) -> dict[str, Any]:
        self.server = PEERS[peer].server(host, Path(work))
        return {"address": self.server.address}

    def connect(self, peer: str, host: str, work: str, address: dict[str, Any]) -> dict[str, Any]:
        self.client = PEERS[peer].client(host, Path(work), address)
        return {"address": self.client.address}

    def meet(self, address: dict[str, Any]) -> None:
        assert self.server is not None
        self.server.meet(address)

    def requests(self, callers: int, seconds: float) -> dict[str, float]:
        return self.asking.requests(callers, seconds)

    def bulk(self, size: int) -> dict[str, float]:
        """Send one value of `size` bytes; the value is made before the clock runs."""
        value = self.values.get(size) or self.values.setdefault(size, bulk_value(size))
        expected = receipt(value)
        before = forget_peak()
        begin = time.perf_counter()
        if self.asking.bulk(value) != expected:
            raise RuntimeError("the bulk value arrived changed")
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "mb_per_second": size / seconds / 1e6, "rss": memory()["peak"] - before}

    def forget_peak(self) -> dict[str, int]:
        return {"now": forget_peak()}

    def memory(self) -> dict[str, int]:
        return memory()

    def extra(self, method: str, **arguments: Any) -> Any:
        """Call a method that only one peer has, of its server or its client."""
        return getattr(self.server if self.client is None else self.client, method)(**arguments)

    def quit(self) -> None:
        for each in (self.client, self.server):
            if each is not None:
                each.close()


def obey(worker: object) -> None:
    """Call methods of `worker` as stdin says, until it ends; then the process does."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = {"result": getattr(worker, order.pop("do"))(**order)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    # No library's exit handlers: what they wait for is not what is measured.
    os._exit(0)


if __name__ == "__main__":
    obey(Worker())
