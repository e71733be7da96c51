"""Agents on hosts of a lab, each a process that does what lines of JSON say: for tests of addresses that change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab.lines import Lines
from lab.netlab import Lab

__all__ = ["KEY", "SECONDS", "Host"]

SECONDS = 60.0
KEY = bytes(range(32))

SCRIPT = """
import json, logging, sys, threading, time
from mycorrizal import Agent, SerfDelegate

class Notes(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.WARNING:
            notes.append(record.getMessage())

notes, happened, served = [], [], []
logging.getLogger("mycorrizal").addHandler(Notes())
name, seed, wire = sys.argv[1:4]
serf = {"delegate": SerfDelegate()} if wire == "serf" else {"wire": wire}
agent = Agent(name, port=7946, key=bytes(range(32)), join=[seed] if seed else [], discover=False, control=False,
              join_timeout=60, **serf)
events = agent.events()
threading.Thread(target=lambda: happened.extend((e.kind, e.node.name) for e in events), daemon=True).start()

@agent.on_request("slow")
def slow(request):
    served.append(request.value)
    time.sleep(request.value)
    return name

cache = agent.cache("numbers", replicas=1)
print(json.dumps("ready"), flush=True)

def answer(order):
    match order["do"]:
        case "where": return {node.name: node.host for node in agent.members()}
        case "happened": return happened
        case "notes": return notes
        case "problems": return list(agent.health().problems)
        case "set": cache[order["key"]] = order["value"]
        case "get": return cache.get(order["key"], None)
        case "setting": agent.settings[order["key"]] = order["value"]
        case "settings": return dict(agent.settings)
        case "ask": return agent.request(order["node"], "slow", order["seconds"], timeout=order["seconds"] + 30)

for line in sys.stdin:
    try:
        print(json.dumps(answer(json.loads(line))), flush=True)
    except Exception as error:
        print(json.dumps({"error": repr(error)}), flush=True)
agent.close()
"""


class Host:
    """An agent on a host of the lab that does what it is told."""

    def __init__(self, lab: Lab, number: int, wire: str, runtime: Path) -> None:
        self.number = number
        runtime.mkdir(mode=0o700)
        seed = lab.address(0) if number else ""
        command = [sys.executable, "-c", SCRIPT, f"h{number}", seed, wire]
        environment = {**os.environ, "MYCORRIZAL_RUNTIME_DIR": str(runtime)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        self.child = lab.popen(number, command, env=environment, **pipes)
        self._lines = Lines(self.child)

    def take(self) -> Any:
        """Return the next answer."""
        answer = json.loads(self._lines.next(SECONDS))
        assert not (isinstance(answer, dict) and "error" in answer), answer
        return answer

    def tell(self, do: str, **order: Any) -> None:
        """Give an order whose answer is taken later."""
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")

    def ask(self, do: str, **order: Any) -> Any:
        """Give an order and return the answer."""
        self.tell(do, **order)
        return self.take()
