"""The ``cache.*`` commands, carried out on an agent."""

from __future__ import annotations

from typing import Any

import pytest

from mycorrizal import CacheOutcomeUnknown, CacheUnavailable, ControlError
from mycorrizal._control.answers import Desk
from mycorrizal._control.commands import checked

from .fake import FakeAgent


class Asked:
    """A desk, its agent, and a short way to ask about the cache ``features``."""

    def __init__(self) -> None:
        self.agent = FakeAgent()
        self.cache = self.agent.held["features"]
        self._desk = Desk(self.agent, {})

    def __call__(self, command: str, cache: str = "features", **arguments: Any) -> Any:
        name = f"cache.{command}"
        return self._desk.answer(name, checked(name, {"cache": cache, **arguments})[1])

    def code(self, command: str, **arguments: Any) -> str:
        with pytest.raises(ControlError) as caught:
            self(command, **arguments)
        return caught.value.code


@pytest.fixture
def ask() -> Asked:
    return Asked()


def test_key_is_set_read_and_deleted(ask: Asked) -> None:
    ask("set", key="x", value=[1, None])
    assert ask("get", key="x") == [1, None]
    ask("set", key="none", value=None)
    assert ask("get", key="none") is None
    ask("delete", key="x")
    assert ask.code("get", key="x") == ask.code("delete", key="x") == "not_found"


def test_life_is_the_caches_own_a_number_or_for_ever(ask: Asked) -> None:
    for key, ttl in (("own", None), ("short", 2.5), ("ever", 0)):
        ask("set", key=key, value=1, ttl=ttl)
    assert ask.cache.lives == {"own": "its own", "short": 2.5, "ever": None}
    for wrong in (-1, 1e300, True, "1"):
        assert ask.code("set", key="x", value=1, ttl=wrong) == "bad_arguments"


def test_keys_are_listed_up_to_a_limit(ask: Asked) -> None:
    for number in range(5):
        ask("set", key=f"k{number}", value=number)
    assert ask("keys") == {"keys": ["k0", "k1", "k2", "k3", "k4"], "more": False}
    assert ask("keys", limit=5)["more"] is False
    assert ask("keys", limit=2) == {"keys": ["k0", "k1"], "more": True}


def test_numbers_are_told_of_each_node(ask: Asked) -> None:
    assert ask("stats") == {"alice": {"entries": 0, "bytes": 9}, "bob": None}


def test_cache_that_nobody_opened_is_not_found(ask: Asked) -> None:
    for command, more in (("get", {"key": "x"}), ("set", {"key": "x", "value": 1}), ("keys", {}), ("stats", {})):
        assert ask.code(command, cache="nothing", **more) == "not_found"


def test_keys_that_are_none_are_refused(ask: Asked) -> None:
    for wrong in ("", "x" * 1025, 7):
        assert ask.code("get", key=wrong) == "bad_arguments"
    ask("set", key="x" * 1024, value=1)


def test_errors_of_the_cache_say_whether_it_may_have_happened(
    ask: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, unknown in ((CacheUnavailable("nobody there"), False), (CacheOutcomeUnknown("who knows"), True)):

        def fail(*args: Any, error: Exception = error, **more: Any) -> None:
            raise error

        monkeypatch.setattr(ask.cache, "set", fail)
        with pytest.raises(ControlError) as caught:
            ask("set", key="x", value=1)
        assert caught.value.code == "unreachable" and caught.value.indeterminate is unknown
