"""Hosts with one list of seeds, in any order, and seeds without a port; addresses of loopback stand for hosts."""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import time
from typing import Any

import pytest

from mycorrizal import Agent, CacheUnavailable, JoinError
from tests.keys import key_of

KEY = key_of("seeds")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start(number: int, port: int, **more: Any) -> Agent:
    seeds = [f"127.0.16.{one}" for one in (1, 2, 3)]
    settings: dict[str, Any] = {"join": seeds, "seed_port": port, "port": port, "join_timeout": 5.0, **more}
    return Agent(
        f"n{number}", cluster="seeds", key=KEY, bind=f"127.0.16.{number}", discover=False, control=False,
        config_file=False, **settings,
    )  # fmt: skip


def wait_until_all_see(agents: list[Agent]) -> None:
    for agent in agents:
        agent.wait_for(len(agents), timeout=20)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_whichever_of_the_seeds_starts_first(order: tuple[int, ...], caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        first = stack.enter_context(start(order[0], port))
        assert time.monotonic() - began < 4.0  # it does not wait for join_timeout
        assert any("nobody else is there" in problem for problem in first.health().problems)
        assert [r.levelno for r in caplog.records if "nobody else was seen" in r.getMessage()] == [logging.WARNING]
        others = [stack.enter_context(start(number, port)) for number in order[1:]]
        wait_until_all_see([first, *others])
        assert not any("nobody else" in problem for problem in first.health().problems)


def test_who_is_no_seed_raises_or_goes_on_asking_if_told_to() -> None:
    port = free_port()
    with pytest.raises(JoinError, match="join_retry="):
        start(4, port, join_timeout=0.3)
    with start(4, port, join_timeout=0.3, join_retry=math.inf) as patient, start(1, port) as seed:
        wait_until_all_see([patient, seed])


def test_retry_ends_after_its_time() -> None:
    with start(4, free_port(), join_timeout=0.1, join_retry=0.1) as agent:
        end = time.monotonic() + 20
        while not any("asked any more" in problem for problem in agent.health().problems):
            assert time.monotonic() < end, agent.health().problems
            time.sleep(0.05)


def test_port_that_was_not_asked_for_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.suppress(OSError), socket.create_server(("0.0.0.0", 7946)):
        pass  # taken by somebody else, or now by the first of the two
    with contextlib.ExitStack() as stack:
        for name in ("a", "b"):
            agent = Agent(name, cluster="ports", key=KEY, bind="0.0.0.0", advertise="127.0.0.1", control=False)
            stack.enter_context(agent)
        said = [record.getMessage() for record in caplog.records if "is taken" in record.getMessage()]
        assert any("7946" in text and str(agent.address[1]) in text for text in said)


def test_nothing_is_written_before_as_many_as_expected_were_seen() -> None:
    port = free_port()
    with start(1, port, expect=2) as first:
        cache = first.cache("work")
        assert cache.get("k") is None and "k" not in cache
        for write in (
            lambda: cache.set("k", 1), lambda: cache.get_or_compute("k", int), lambda: cache.incr("n"),
            lambda: cache.delete("k"), lambda: cache.lock("l").__enter__(), lambda: cache.set_many({"k": 1}),
            cache.clear,
        ):  # fmt: skip
            with pytest.raises(CacheUnavailable, match="1 of the 2 members") as caught:
                write()
            assert caught.value.retriable and not caught.value.indeterminate
        with start(2, port):
            first.wait_for(2, timeout=20)
            cache.set("k", 1)
        assert first.wait_for(1) and cache.get("k") == 1
        cache.set("k", 2)  # once is enough
