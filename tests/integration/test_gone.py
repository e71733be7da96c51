"""Who is gone, or was never there: lists, events, tables and errors say so."""

from __future__ import annotations

import time

import pytest

from mycorrizal import Agent, MemberFailed, MemberLeft, NodeState, PeerUnreachable

from .agents import QUICK, Make, agents, runtime_dir  # noqa: F401 - fixtures


def ask(agent: Agent, name: str) -> str:
    with pytest.raises(PeerUnreachable) as caught:
        agent.request(name, "add", 1, timeout=30)
    assert not caught.value.indeterminate and caught.value.node == name
    assert "add_peer" not in str(caught.value) and "peers=" not in str(caught.value)
    return str(caught.value)


def test_who_failed_or_left_is_shown_with_the_time(agents: Make) -> None:  # noqa: F811
    began = time.time() - 1
    alice, bob, carol = (agents(name, config=QUICK) for name in ("alice", "bob", "carol"))
    for agent in (alice, bob, carol):
        agent.wait_for(3)
    news = alice.events()
    bob.close()
    failed = next(event for event in news if isinstance(event, MemberFailed))
    with carol:
        pass
    left = next(event for event in news if isinstance(event, MemberLeft))
    for event, name in ((failed, "bob"), (left, "carol")):
        assert event.node.name == name and event.since is not None and began < event.since <= time.time() + 1
    gone = {member.name: member for member in alice.members(all=True)}
    assert gone["bob"].state == NodeState.DEAD and gone["carol"].state == NodeState.LEFT
    assert abs((gone["bob"].since or 0) - (failed.since or 0)) < 1
    assert "failed at " in alice._repr_html_() and "left at " in alice._repr_html_()
    assert alice.members().names == ["alice"]
    assert "bob failed " in ask(alice, "bob") and " ago" in ask(alice, "bob")
    assert "carol left " in ask(alice, "carol")
    assert "'alicia' was never seen; members are alice" in ask(alice, "alicia")
    assert "is it 'alice'?" in ask(alice, "alicia")


def test_a_second_value_is_no_timeout(agents: Make) -> None:  # noqa: F811
    alice = agents("alice", config=QUICK)
    for call in (
        lambda: alice.request("alice", "add", 1, 2),
        lambda: alice.request_async("alice", "add", 1, 2),
        lambda: alice.request_all("add", 1, ["alice"], 2),
        lambda: alice.send("alice", 1, 2),
        lambda: alice.broadcast("topic", 1, 2),
    ):
        with pytest.raises(TypeError, match="positional"):
            call()
