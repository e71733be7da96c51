"""Agents with an operator's certificates: mutual TLS, strangers with the key, renewal."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from mycorrizal import Agent, ConfigError, PeerUnreachable
from tests._runtime.quic.trust.authority import Authority, Files

from .agents import QUICK, Make, agents, runtime_dir  # noqa: F401 - fixtures


def refused(agent: Agent, other: str, hint: str = "certificates=") -> None:
    """Check that `agent` cannot ask `other` anything, and is told what to look at."""
    with pytest.raises(PeerUnreachable) as caught:
        agent.request(other, "add", [1, 2], timeout=30)
    assert "handshake failed" in str(caught.value) and hint in str(caught.value)
    assert not caught.value.indeterminate


def add(agent: Agent) -> None:
    agent.on_request("add")(lambda request: sum(request.value))


def test_agents_prove_certificates_and_who_has_others_or_none_is_refused(agents: Make, tmp_path: Path) -> None:  # noqa: F811
    ours, others = Authority(tmp_path), Authority(tmp_path, "others")
    alice = agents("alice", config=QUICK, certificates=ours.issue("alice"))
    bob = agents("bob", config=QUICK, certificates=ours.issue("bob"))
    carol = agents("carol", config=QUICK, certificates=others.issue("carol"))  # the key is this host's, as theirs
    dave = agents("dave", config=QUICK)
    for agent in (alice, bob, carol, dave):
        agent.wait_for(4)
        add(agent)
    assert alice.request("bob", "add", [1, 2]) == bob.request("alice", "add", [1, 2]) == 3
    for stranger in (carol, dave):
        for member in (alice, bob):
            refused(member, stranger.name)
            refused(stranger, member.name, "certificates=" if stranger is carol else "key=")
    assert alice.health().problems == bob.health().problems == ()
    assert alice.metrics()["inbox.messages"] == 0


def test_a_certificate_is_replaced_while_requests_flow(agents: Make, tmp_path: Path) -> None:  # noqa: F811
    ours = Authority(tmp_path)
    papers = {name: ours.issue(name, days=(-30, 1)) for name in ("alice", "bob")}
    alice, bob = (agents(name, config=QUICK, certificates=papers[name]) for name in papers)
    alice.wait_for(2)
    add(bob)
    assert "certificate, or what it rests on, expires in 23 h" in alice.health().problems[0]
    stop, failures = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            try:
                assert alice.request("bob", "add", [1, 2], timeout=60) == 3
            except Exception as error:
                failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for agent in (alice, bob):
            replace(papers[agent.name], ours.issue(agent.name))
            agent.reload_certificates()
            assert agent.health().problems == ()
    finally:
        stop.set()
        asking.join()
    assert failures == []
    Path(papers["alice"].certfile).write_text("nonsense")
    with pytest.raises(ConfigError, match=f"certificates: the certificate {papers['alice'].certfile} holds no PEM"):
        alice.reload_certificates()
    assert alice.health().problems == () and alice.request("bob", "add", [1, 2]) == 3  # as it was


def replace(old: Files, new: Files) -> None:
    for at, with_ in zip(old, new, strict=True):
        shutil.copy(with_, at)


def test_without_certificates_there_is_nothing_to_reload(agents: Make) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match="none were given"):
        agents("alice", config=QUICK).reload_certificates()


def test_errors_of_the_constructor_name_setting_and_file(agents: Make, tmp_path: Path) -> None:  # noqa: F811
    papers = Authority(tmp_path).issue("alice")
    with pytest.raises(ConfigError, match=r"certificate .* but for alice .*SAN DNS:bob, or the agent another name="):
        agents("bob", config=QUICK, certificates=papers)
    with pytest.raises(ConfigError, match="key: none is given, and 192.0.2.1 is not loopback"):
        agents("alice", bind="192.0.2.1", certificates=papers)
