"""A Python member's host gets another address beside real peers, which take a new one of nobody but who has left."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.netlab import Lab
from tests.integration.movers import KEY, Host

from .peers import wait_until

NEW = "10.77.0.99"


def follow(lab: Lab, wire: str, tmp_path: Path, peer_sees: Callable[[], str | None]) -> list[list[Any]]:
    """Let two agents join the peer on host 0, move the first, wait until all have followed; return their news."""
    hosts = []
    for number in (1, 2):
        hosts.append(Host(lab, number, wire, tmp_path / f"run{number}"))
        assert hosts[-1].take() == "ready"
    wait_until(lambda: all(len(host.ask("where")) == 3 for host in hosts), "all see all", 60.0)
    wait_until(lambda: peer_sees() == lab.address(1), "the peer sees it", 60.0)
    before = [len(host.ask("happened")) for host in hosts]
    lab.move(1, NEW)
    wait_until(lambda: peer_sees() == NEW, "the peer has the new address", 60.0, 0.3)
    wait_until(lambda: all(host.ask("where")["h1"] == NEW for host in hosts), "so have all", 60.0, 0.3)
    assert hosts[1].ask("ask", node="h1", seconds=0) == "h1"
    return [host.ask("happened")[count:] for host, count in zip(hosts, before, strict=True)]


def assert_no_death(news: list[list[Any]]) -> None:
    """Each of ours saw an update alone; or a leave and a join, where a Go member passed the leave on by itself."""
    for seen in news:
        assert [kind for kind, _ in seen if kind != "update"] in ([], ["leave", "join"]), seen


@pytest.mark.slow
def test_gos_members_see_a_leave_and_a_join(need_network_namespace: None, gopeer_program: Path, tmp_path: Path) -> None:
    with Lab(3) as lab:
        log = tmp_path / "go"
        key = base64.b64encode(KEY).decode()
        flags = ["-name", "go", "-bind", lab.address(0), "-port", "7946", "-profile", "lan", "-key", key]
        with log.open("wb") as out:
            lab.popen(0, [str(gopeer_program), *flags], stdin=subprocess.PIPE, stdout=out, stderr=out)

        def told() -> list[tuple[str, str]]:
            found = []
            for line in log.read_text().splitlines():
                if line.startswith("{") and (event := json.loads(line)).get("node", {}).get("name") == "h1":
                    found.append((event["event"], event["node"]["host"]))
            return found

        wait_until(lambda: "ready" in log.read_text(), "Go starts", 60.0)
        news = follow(lab, "msgpack", tmp_path, lambda: told()[-1][1] if told() else None)
        assert_no_death(news)
        # It looks at new records before leaves, whatever their order, and tells of a conflict first.
        assert [kind for kind, _ in told() if kind in ("join", "leave")] == ["join", "leave", "join"], told()


@pytest.mark.slow
def test_a_serf_agent_has_the_new_address(
    need_network_namespace: None, need_peer: Callable[[str], str], tmp_path: Path
) -> None:
    serf = need_peer("serf")
    with Lab(3) as lab:
        where, key = lab.address(0), base64.b64encode(KEY).decode()
        flags = ["-node", "serf", "-bind", where, "-rpc-addr", f"{where}:7373", "-profile", "lan", "-encrypt", key]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        lab.popen(0, [serf, "agent", *flags], **quiet)

        def shown() -> dict[str, Any]:
            command = [serf, "members", f"-rpc-addr={where}:7373", "-format", "json"]
            out, _ = lab.popen(0, command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).communicate(timeout=30)
            return {one["name"]: one for one in json.loads(out)["members"]} if out.startswith(b"{") else {}

        def sees() -> str | None:
            member = shown().get("h1", {"status": ""})
            return member["addr"].partition(":")[0] if member["status"] == "alive" else None

        wait_until(shown, "serf starts", 60.0, 0.3)
        news = follow(lab, "serf", tmp_path, sees)
        assert_no_death(news)
