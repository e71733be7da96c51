"""Several agents redefine one cache at the same moment."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from mycorrizal import CacheConflict, CacheRedefined

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until
from .planes import together


def test_those_who_redefine_a_cache_at_once_agree_and_are_told(agents: Make) -> None:  # noqa: F811
    them = [agents(name) for name in ("alice", "bob", "carol")]
    them[0].wait_for(3)
    caches = [agent.cache("x") for agent in them]
    gate = threading.Barrier(3)

    def redefine(number: int, ttl: int) -> bool:
        gate.wait(60)
        try:
            assert them[number].cache("x", ttl=ttl, redefine=True, timeout=60) is caches[number]
        except CacheConflict as error:
            assert f"ttl={ttl}" in str(error)
            return False
        return True

    for begin in range(10, 60, 10):
        with ExitStack() as stack:
            events = [stack.enter_context(agent.events()) for agent in them]
            done = together(3, lambda number, begin=begin: redefine(number, begin + number), 90)
            until(lambda: len({cache.definition.rank for cache in caches}) == 1, 30)
            holds = caches[0].definition.ttl
            assert holds is not None and done[int(holds) - begin], "whose settings hold has no error"
            for number in range(3):
                while begin + number != holds:  # who lost hears of what holds, whether or not its call was over
                    told = events[number].get(timeout=30)
                    if isinstance(told, CacheRedefined) and told.after == {"ttl": holds}:
                        break
