"""One agent leads, between real processes: one that is killed is followed, and a period has one run."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from mycorrizal import Agent, LockLost, NotLeader

from .agents import QUICK, QUICK_IN_SCRIPTS, Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until
from .planes import Task, spawn

SECONDS = 60.0
LEADER = f"""
    {QUICK_IN_SCRIPTS}
    with Agent(NAME, config=config, config_file=False) as agent:
        say("ready")
        with agent.lead("nightly", lease=1.0) as term:
            say("leads", term.token)
            hear()
"""


def leader(name: str) -> str:
    return LEADER.replace("NAME", repr(name))


def test_another_one_leads_when_the_leader_is_killed(agents: Make) -> None:  # noqa: F811
    carol = agents("carol", config=QUICK)
    with spawn(leader("alice")) as alice, spawn(leader("bob")) as bob:
        assert [alice.words(SECONDS), bob.words(SECONDS)] == [["ready"], ["ready"]]
        carol.wait_for(3, SECONDS)
        until(lambda: _leader(carol) is not None, SECONDS)
        first, second = (alice, bob) if _leader(carol) == "alice" else (bob, alice)
        told, token = first.words(SECONDS)
        assert told == "leads"
        first.kill()
        again, larger = second.words(SECONDS)
        assert again == "leads" and int(larger) > int(token)
        second.tell("")
        with carol.lead("nightly", timeout=SECONDS) as term:
            assert term.held and term.token > int(larger)


def _leader(agent: Agent) -> str | None:
    try:
        with agent.lead("nightly", wait=False, timeout=SECONDS):
            return None  # nobody leads yet
    except NotLeader as error:
        return error.node


def test_a_period_has_one_run_whoever_comes_first(agents: Make) -> None:  # noqa: F811
    team = [agents(name, config=QUICK) for name in ("alice", "bob", "carol")]
    for agent in team:
        agent.wait_for(3, SECONDS)
    runs: list[tuple[float, int]] = []

    def work(agent: Agent) -> None:
        while len(runs) < 4:
            with agent.lead("report", every=0.5, timeout=SECONDS) as term:
                runs.append((time.monotonic(), term.token))

    for task in [Task(work, agent) for agent in team]:
        task.result(SECONDS)
    begun, tokens = zip(*runs, strict=True)
    assert all(later - sooner > 0.4 for sooner, later in pairwise(begun))
    assert list(tokens) == sorted(set(tokens))
    with pytest.raises(NotLeader) as caught, team[0].lead("report", every=3600, wait=False, timeout=SECONDS):
        pass
    assert caught.value.node is None and caught.value.due is not None


def test_a_lead_that_was_lost_is_told_at_its_end(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice", config=QUICK), agents("bob", config=QUICK)
    bob.wait_for(2, SECONDS)
    jobs = alice.cache("jobs", quorum=2)
    bob.cache("jobs", quorum=2)
    term = alice.lead("job", cache=jobs, lease=0.5).__enter__()
    bob.open_cache("jobs").clear()
    until(lambda: not term.held, SECONDS)
    with pytest.raises(LockLost):
        term.__exit__(None, None, None)
