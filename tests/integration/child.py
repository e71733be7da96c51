"""A node that takes orders on stdin: ``freeze S`` and ``compute S`` (hold the GIL), ``events``, ``members``,
``metrics NAME``, ``leave``.

Run by the tests: ``child.py NAME SEED SETTINGS``. Answers each order with a line.
"""

from __future__ import annotations

import ast
import ctypes
import sys
import time

from mycorrizal import Config, Memberlist


def main() -> None:
    """Join, say so, then obey."""
    name, seed, settings = sys.argv[1:]
    config = Config.local(name=name, bind_addr="127.0.0.1", bind_port=0, **ast.literal_eval(settings))
    with Memberlist(config) as node:
        stream = node.events()
        node.join([seed])
        print("ready", flush=True)
        for line in sys.stdin:
            order, _, argument = line.strip().partition(" ")
            print(obey(node, stream, order, argument), flush=True)


def obey(node: Memberlist, stream: object, order: str, argument: str) -> str:
    """Return the answer to one order."""
    if order == "freeze":
        # PyDLL does not release the GIL: no thread of this process runs meanwhile.
        ctypes.PyDLL(None).usleep(ctypes.c_uint(int(float(argument) * 1e6)))
        return "thawed"
    if order == "compute":
        # One C call over a long range: nothing in it lets another thread have the GIL.
        count = int(float(argument) * _rate())
        began = time.monotonic()
        sum(range(count))
        return str(time.monotonic() - began)
    if order == "events":
        found = []
        while len(stream):  # type: ignore[arg-type]
            event = stream.get(0)  # type: ignore[attr-defined]
            found.append(f"{event.kind}:{event.node.name if hasattr(event, 'node') else getattr(event, 'seconds', '')}")
        return " ".join(found)
    if order == "members":
        return " ".join(member.name for member in node.members())
    if order == "metrics":
        return str(node.metrics().get(argument, 0))
    if order == "leave":
        node.leave()
        return "left"
    return f"what is {order}?"


def _rate() -> float:
    """Return how many numbers this machine adds in a second."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        sum(range(2_000_000))
        times.append(time.monotonic() - began)
    return 2_000_000 / min(times)


if __name__ == "__main__":
    main()
