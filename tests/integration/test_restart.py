"""A rolling restart of three workers under load; and handlers that are there before anybody knows of an agent."""

from __future__ import annotations

from typing import Any

import pytest

from campaigns import restart as chaos_restart
from mycorrizal import Agent, ConfigError

from .agents import QUICK, Make, agents, runtime_dir  # noqa: F401 - fixtures


@pytest.mark.slow
def test_rolling_restart_shows_no_unknown_handler() -> None:
    found = chaos_restart.run(rounds=1, callers=3, late=0.5)
    assert found["wrong"] == [], found
    assert sorted(found["answers"]) == ["ada", "bob", "cyd"] and found["restarts"] == 3


def test_handlers_and_streams_are_there_from_the_beginning(agents: Make) -> None:  # noqa: F811
    def shout(stream: Any) -> None:
        stream.write(stream.read().upper())

    alice = agents("alice", config=QUICK)
    agents("bob", config=QUICK, handlers={"add": lambda request: sum(request.value)}, streams={"shout": shout})
    alice.wait_for(2)
    assert alice.request("bob", "add", [1, 2]) == 3
    with alice.open_stream("bob", "shout") as stream:
        stream.write(b"loud")
        stream.close_write()
        assert stream.read() == b"LOUD"


@pytest.mark.usefixtures("runtime_dir")
@pytest.mark.parametrize("which", ["handlers", "streams"])
def test_handlers_that_cannot_be_leave_nothing_behind(which: str) -> None:
    with pytest.raises(ConfigError, match="3 cannot be called"):
        Agent("alice", config=QUICK, **{which: {"add": 3}})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="name"):
        Agent("alice", config=QUICK, **{which: {"": print}})  # type: ignore[arg-type]
    Agent("alice", config=QUICK).close()  # the name is free again
