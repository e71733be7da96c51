"""``serve_metrics``: what a scraper gets of a real agent, and what strangers on the host can do to it."""

from __future__ import annotations

import http.client
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import Agent, BindError, LocalProtocolError, NotRunningError
from mycorrizal._agent import exposition
from mycorrizal._agent.metrictable import metric_of
from mycorrizal._runtime.web import server
from mycorrizal._runtime.web.server import CONNECTIONS_MAX
from tests._agent.prometheus_text import read

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures

LIMIT = 60.0


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def test_times_and_numbers_of_two_agents_are_served(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice", metrics_port=0, handlers={"echo": lambda request: request.value}), agents("bob")
    bob.wait_for(2)
    caches = [agent.cache('odd "name"\\') for agent in (alice, bob)]
    for number in range(100):
        assert bob.request("alice", "echo", number) == number
        caches[1].set(str(number), number)
        assert caches[1].get(str(number)) == number
    host, port = bob.serve_metrics(0)
    assert host == "127.0.0.1"
    status, text, headers = get(port, "/metrics")
    assert status == 200 and headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = read(text)
    assert found["mycorrizal_members"] == {(): 2.0}
    assert found["mycorrizal_request_seconds_count"] == {(): 100.0}
    assert 0 < found["mycorrizal_request_seconds_sum"][()] < LIMIT
    assert found["mycorrizal_probe_seconds_count"].keys() == {()}
    writes = found["mycorrizal_cache_operation_seconds_count"]
    assert writes[(("at", "local"), ("cache", 'odd "name"\\'))] > 0 and 100 <= sum(writes.values()) <= 200
    (about,) = found["mycorrizal_agent_info"]
    assert dict(about)["name"] == "bob"
    assert max(found[f"mycorrizal_state_{side}_bytes"][()] for side in ("local", "remote")) > 0
    for agent in (alice, bob):
        assert [name for name in agent.metrics() if metric_of(name)[0].kind == "untyped"] == []
        assert "untyped" not in agent.metrics_text()
    stats = caches[1].local_stats()
    known = bob.metrics()
    assert {f'cache.{name}{{cache="odd \\"name\\"\\\\"}}' for name in stats} <= set(known)


def test_healthz_says_how_it_is(agents: Make, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    agent = agents("alice", metrics_port=0)
    parts = agent._running
    assert parts.web is not None
    port = parts.web.address[1]
    found = agent.health()
    monkeypatch.setattr(exposition, "health", lambda parts: replace(found, problems=()))
    assert get(port, "/healthz")[:2] == (200, "ok\n")
    monkeypatch.setattr(exposition, "health", lambda parts: replace(found, problems=("one", "another \u00e9")))
    assert get(port, "/healthz")[:2] == (503, "one\nanother \u00e9\n")
    assert get(port, "/healthz", "HEAD")[:2] == (503, "")
    assert read(get(port, "/metrics")[1])["mycorrizal_health_problems"] == {(): 2.0}


def test_what_is_no_request_for_a_page_is_refused(agents: Make) -> None:  # noqa: F811
    agent = agents("alice")
    _, port = agent.serve_metrics(0)
    assert get(port, "/")[0] == get(port, "/metrics/x")[0] == 404
    assert get(port, "/metrics", "POST")[0] == 405
    assert get(port, "/metrics", Host="evil.example")[0] == 403
    assert get(port, "/metrics", Long="x" * 20000)[0] == 431
    assert get(port, "/metrics", "HEAD")[1] == ""
    assert agent.metrics()["web.refused"] >= 5
    with pytest.raises(LocalProtocolError, match="already"):
        agent.serve_metrics(0)
    with pytest.raises(BindError, match="choose another port"):
        agents("bob").serve_metrics(port)


def test_the_silent_and_the_slow_keep_nobody_out(agents: Make, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    agent = agents("alice")
    address = agent.serve_metrics(0)
    crowd = [socket.create_connection(address, timeout=LIMIT) for _ in range(3 * CONNECTIONS_MAX)]
    try:
        for one in crowd[::2]:
            one.sendall(b"GET /metrics HT")
        assert get(address[1], "/metrics")[0] == 200
        assert agent.metrics()["web.dropped"] >= CONNECTIONS_MAX
        monkeypatch.setattr(server, "SECONDS", 1.0)
        trickler = socket.create_connection(address, timeout=LIMIT)
        crowd.append(trickler)
        ended, stop = threading.Event(), threading.Event()

        def trickle() -> None:
            try:
                while not stop.wait(0.2):
                    trickler.sendall(b"x")
            except OSError:
                ended.set()

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        assert ended.wait(LIMIT), "who sends a byte now and then is given up"
        stop.set()
        thread.join()
    finally:
        for one in crowd:
            one.close()
    threads = [thread.name for thread in threading.enumerate() if thread.name == "mycorrizal-web"]
    assert len(threads) == 1


def test_pages_end_with_their_agent(agents: Make) -> None:  # noqa: F811
    agent = agents("alice", metrics_port=0)
    web = agent._running.web
    assert web is not None
    agent.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(web.address, timeout=LIMIT).close()
    with pytest.raises(NotRunningError):
        agent.serve_metrics(0)
    with socket.create_server(web.address):
        pass


def test_a_taken_port_is_said_and_leaves_nothing(runtime_dir: str, tmp_path: Path) -> None:  # noqa: F811
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options: dict[str, Any] = {"metrics_port": taken.getsockname()[1], "config_file": False}
        with pytest.raises(BindError, match="cannot serve metrics"):
            Agent("alice", **options)
    with Agent("alice", config_file=False):  # its name is free again
        pass
