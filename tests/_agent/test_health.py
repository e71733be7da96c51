"""What ``health()`` says of the key."""

from __future__ import annotations

from mycorrizal._agent.health import key_problem


def test_half_of_the_nonces_that_a_key_may_have_are_a_problem() -> None:
    assert key_problem(0, 1) is None
    assert key_problem((1 << 31) - 1, 1) is None
    assert key_problem((1 << 31) // 64 - 1, 64) is None
    for sealed, members in ((1 << 31, 1), ((1 << 31) // 64, 64), (1 << 40, 3)):
        problem = key_problem(sealed, members)
        assert problem is not None
        assert "rotate it with agent.keys" in problem
        assert f"({sealed} here, {members} members)" in problem
