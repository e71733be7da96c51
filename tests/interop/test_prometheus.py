"""A real Prometheus scrapes three agents, and its query answers."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import Agent
from tests.integration.agents import meeting_place

LIMIT = 90.0
NAMES = ("alice", "bob", "carol")
RULES = Path(__file__).resolve().parents[2] / "docs" / "operations" / "alerts.yml"


@pytest.fixture
def prometheus(need_peer: Callable[[str], str], tmp_path: Path, stack: ExitStack) -> Callable[[list[str]], str]:
    """Return a function that starts one for these targets, and returns its address."""
    program = need_peer("prometheus")

    def start(targets: list[str]) -> str:
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "mycorrizal", "static_configs": [{"targets": targets}]}],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # which is YAML too
        with socket.create_server(("127.0.0.1", 0)) as probe:
            where = f"127.0.0.1:{probe.getsockname()[1]}"
        log = stack.enter_context((tmp_path / "log").open("wb"))
        command = [program, f"--config.file={tmp_path}/prometheus.yml", f"--web.listen-address={where}"]
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={tmp_path}/data"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        return where

    return start


def ask(where: str, query: str) -> list[dict[str, Any]]:
    """Return the result of a query; nothing while Prometheus is not there yet."""
    url = f"http://{where}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found
    except (OSError, urllib.error.URLError):
        return []


def until(where: str, query: str, wanted: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """Ask until the answer is `wanted`."""
    end = time.monotonic() + LIMIT
    while not wanted(found := ask(where, query)):
        assert time.monotonic() < end, f"{query}: {found}"
        time.sleep(0.2)
    return found


def test_prometheus_scrapes_three_agents(prometheus: Callable[[list[str]], str], stack: ExitStack) -> None:
    stack.enter_context(meeting_place())
    agents = [stack.enter_context(Agent(name, config_file=False, metrics_port=0)) for name in NAMES]
    for agent in agents:
        agent.wait_for(3)
        agent.on_request("echo")(lambda request: request.value)
    cache = agents[0].cache("shared")
    for number in range(50):
        assert agents[0].request("bob", "echo", number) == number
        cache.set(f"k{number}", number)
    ports = [agent._running.web.address[1] for agent in agents if agent._running.web is not None]
    where = prometheus([f"127.0.0.1:{port}" for port in ports])
    up = until(where, 'up{job="mycorrizal"} == 1', lambda found: len(found) == 3)
    assert {row["metric"]["instance"] for row in up} == {f"127.0.0.1:{port}" for port in ports}
    named = until(where, "mycorrizal_agent_info", lambda found: len(found) == 3)
    assert {row["metric"]["name"] for row in named} == set(NAMES)
    until(where, "mycorrizal_members == 3", lambda found: len(found) == 3)
    until(where, "max(mycorrizal_request_seconds_count) == 50", bool)
    (slow,) = until(where, "histogram_quantile(0.99, sum by (le) (mycorrizal_request_seconds_bucket))", bool)
    assert 0 < float(slow["value"][1]) <= 10
    until(where, 'sum(mycorrizal_cache_entries{cache="shared"}) >= 50', bool)
    until(where, 'count({__name__=~"mycorrizal_.+"}) > 300', bool)
