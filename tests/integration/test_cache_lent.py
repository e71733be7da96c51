"""A large array is sent out of its writer's memory: whatever happens in the middle, what is stored is never torn."""

from __future__ import annotations

import signal
import time
from typing import Any

import numpy
import pytest

from mycorrizal import Agent, Cache, CacheError, DataConfig

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until
from .planes import Script, Task, spawn

SIZE = 48_000_000
QUIC = DataConfig(same_host=False)
"""By a socket of this host the value is there before anybody can be late."""
NEVER_WRITTEN = -1

HOLDER = """
    with Agent("holder", config_file=False) as agent:
        cache = agent.cache("large", replicas=1)
        say("ready")
        while order := hear():
            exec(order)
"""
"""Says what it holds: the least and the greatest number in the array."""
_LOOK = "x = cache.get({key!r}, timeout=30); say(*((0, 0) if x is None else (int(x.min()), int(x.max()))))"


def meet(agent: Agent, holder: Script) -> tuple[Cache, str]:
    """Return the writer's cache, and a key whose primary is the holder."""
    assert holder.words() == ["ready"]
    agent.wait_for(2)
    cache = agent.cache("large", replicas=1)
    cache.synced(20)
    return cache, next(str(n) for n in range(1000) if not agent_leads(cache, str(n)))


def agent_leads(cache: Cache, key: str) -> bool:
    return cache._host.leads(cache.name, key.encode())


def stored(holder: Script, key: str) -> int:
    """Return the number that the array there is full of, 0 if there is none."""
    holder.tell(_LOOK.format(key=key))
    least, greatest = map(int, holder.words(60))
    assert least == greatest, "the value is torn"
    return least


def test_a_write_that_ran_out_of_time_stores_all_or_nothing(agents: Make) -> None:  # noqa: F811
    with spawn(HOLDER) as holder:
        cache, key = meet(agents("writer", config_file=False, data_config=QUIC), holder)
        array = numpy.zeros(SIZE // 8, numpy.int64)
        known, late = {0}, 0
        for number in range(1, 25):
            array.fill(number)
            try:
                cache.set(key, array, timeout=0.01 * number)
                known = {number}
            except CacheError:
                array.fill(NEVER_WRITTEN)
                known.add(number)
                late += 1
            found = stored(holder, key)
            assert found in known
            known = {found, *(known - {0})}
        assert late > 3
        array.fill(99)
        cache.set(key, array, timeout=30)
        assert stored(holder, key) == 99


def test_a_holder_that_stands_still_in_the_middle_gets_all_or_nothing(agents: Make) -> None:  # noqa: F811
    with spawn(HOLDER) as holder:
        cache, key = meet(agents("writer", config_file=False, data_config=QUIC), holder)
        array = numpy.zeros(SIZE // 8, numpy.int64)
        known, late = {0}, 0
        for number in range(1, 6):
            array.fill(number)
            write = Task(cache.set, key, array, timeout=1.0)
            time.sleep(0.01 + 0.04 * number)
            holder.process.send_signal(signal.SIGSTOP)
            try:
                write.result()
                known = {number}
            except CacheError:
                array.fill(NEVER_WRITTEN)
                known.add(number)
                late += 1
            holder.process.send_signal(signal.SIGCONT)
            found = stored(holder, key)
            assert found in known
            known = {found, *(known - {0})}
        assert late > 0
        array.fill(99)
        cache.set(key, array, timeout=30)
        assert stored(holder, key) == 99


WRITER = """
    import numpy
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    with Agent("writer", config_file=False) as agent:
        agent.wait_for(2)
        cache = agent.cache("large", replicas=1)
        cache.synced(20)
        key = next(str(n) for n in range(1000) if not cache._host.leads("large", str(n).encode()))
        say(key)
        array = numpy.zeros(int(hear()) // 8, numpy.int64)
        while order := hear():
            number, seconds = int(order.split()[0]), float(order.split()[1])
            array.fill(number)
            took = 0.0
            try:
                signal.setitimer(signal.ITIMER_REAL, seconds)
                cache.set(key, array, timeout=None)
                signal.setitimer(signal.ITIMER_REAL, 0)
                told = "stored"
            except KeyboardInterrupt:
                array.fill(-1)
                told = "interrupted"
            say(told)
"""


def test_ctrl_c_in_the_middle_stores_all_or_nothing(agents: Make) -> None:  # noqa: F811
    holder = agents("holder", config_file=False, data_config=QUIC)
    cache = holder.cache("large", replicas=1)
    with spawn(WRITER) as writer:
        (key,) = writer.words(30)
        writer.tell(SIZE)
        known, interrupted = {0}, 0
        for number in range(1, 13):
            writer.tell(f"{number} {0.02 * number}")
            if writer.words(30) == ["stored"]:
                known = {number}
            else:
                known.add(number)
                interrupted += 1
            time.sleep(0.2)  # for what may still be on its way
            array: Any = cache.get(key)
            found = 0 if array is None else int(array[0])
            assert array is None or (array == found).all(), "the value is torn"
            assert found in known
        assert interrupted > 1
        metrics = holder.metrics()
        assert metrics["bulk.bytes"] == 0  # nobody waits here for the rest of what was given up
        writer.tell("99 20")
        assert writer.words(30) == ["stored"]
        assert (cache[key] == 99).all()


@pytest.mark.parametrize("timeout", [30.0, 0.02], ids=["stored", "late"])
def test_nobody_holds_on_to_the_memory(agents: Make, timeout: float) -> None:  # noqa: F811
    with spawn(HOLDER) as holder:
        cache, key = meet(agents("writer", config_file=False, data_config=QUIC), holder)
        memory = bytearray(SIZE)
        try:
            cache.set(key, memory, timeout=timeout)
        except CacheError:
            assert timeout < 1
        until(lambda: resized(memory), 5.0)


def resized(memory: bytearray) -> bool:
    try:
        memory.append(0)
    except BufferError:  # the loop may be in the middle of its turn
        return False
    return True
