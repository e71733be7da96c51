"""What ``health()`` says, of the key and of the rest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mycorrizal._agent.health import certificate_problem, health, key_problem


def test_half_of_the_nonces_that_a_key_may_have_are_a_problem() -> None:
    assert key_problem(0, 1) is None
    assert key_problem((1 << 31) - 1, 1) is None
    assert key_problem((1 << 31) // 64 - 1, 64) is None
    for sealed, members in ((1 << 31, 1), ((1 << 31) // 64, 64), (1 << 40, 3)):
        problem = key_problem(sealed, members)
        assert problem is not None
        assert "rotate it with agent.keys" in problem
        assert f"({sealed} here, {members} members)" in problem


def test_a_certificate_is_told_before_it_expires() -> None:
    day = 86400.0
    for begins, ends, soon in ((0.0, 365 * day, 14 * day), (0.0, 9 * day, 3 * day), (0.0, 3600.0, 1200.0)):
        assert certificate_problem(begins, ends, begins) == []
        assert certificate_problem(begins, ends, ends - soon - 1) == []
        (problem,) = certificate_problem(begins, ends, ends - soon + 1)
        assert "expires in" in problem and "reload_certificates()" in problem
        (problem,) = certificate_problem(begins, ends, ends)
        assert "expired at" in problem
    assert "in 2 d 3 h, at 1970-01-10 00:00 UTC" in certificate_problem(0.0, 9 * day, 6 * day + 75600)[0]


def parts_of(**changes: Any) -> Any:
    """Return an agent's parts of which nothing is wrong."""
    late = changes.pop("late", 0)
    gossip = {"events.lost": 0, "tcp.refusing": 0, "key.sealed": 0, "stalls": 0, "timers.late_ms": late}
    members = SimpleNamespace(metrics=lambda: gossip, members=list, health_score=0)
    core = SimpleNamespace(
        machine=SimpleNamespace(contests=SimpleNamespace(recent=lambda now: [])),
        config=SimpleNamespace(inbox_messages=100),
        trust=SimpleNamespace(validity=lambda: None), unfit=None,
    )
    inbox = changes.pop("inbox", 0)
    data = SimpleNamespace(_started=core, metrics=lambda: {"inbox.messages": inbox, "connections": 2})
    return SimpleNamespace(**{
        "members": members, "data": data, "rings": object(), "file": None, "seeking": None,
        "tasks": SimpleNamespace(problems=list),
        "sharing": SimpleNamespace(rivals=[], replica=SimpleNamespace(counters=changes.pop("shared", {}))),
        "name": "me", "settings": SimpleNamespace(insecure=changes.pop("insecure", False), cluster="c"), **changes,
    })  # fmt: skip


def test_a_problem_is_told_when_there_is_one_and_only_then() -> None:
    assert health(parts_of()).problems == ()
    assert health(parts_of(inbox=50, late=100)).problems == ()
    assert health(parts_of(rings=None, insecure=True)).problems == ()
    assert health(parts_of(file=SimpleNamespace(failing=False))).problems == ()
    for parts, word in (
        (parts_of(inbox=51), "51 messages wait"),
        (parts_of(late=1250), "1.2 s behind lately"),
        (parts_of(rings=None), "no key"),
        (parts_of(shared={"state.left_out": 1}), "over QUIC"),
        (parts_of(seeking=SimpleNamespace(alone=True, gave_up=False)), "still asked"),
        (parts_of(file=SimpleNamespace(failing=True)), "settings file"),
        (parts_of(tasks=SimpleNamespace(problems=lambda: ["3 tasks wait"])), "3 tasks wait"),
    ):
        (problem,) = health(parts).problems
        assert word in problem
