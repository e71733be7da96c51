"""When a call is over, its value is free at once: nothing that only a collection would free keeps it.

With the collector off, as in a program that allocates little else between calls of 100 MB.
"""

from __future__ import annotations

import gc
import mmap
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import numpy
import pytest

from mycorrizal import Codecs, DataConfig, DataPlane, MycorrizalError, ValueDecodeError
from mycorrizal._data.flows import Outflow
from tests.keys import key_of

from .agents import QUICK, Make, agents, runtime_dir  # noqa: F401
from .conftest import until

KEY = key_of("k")
LARGE, SMALL = 3 << 20, 64 << 10
WAIT = 20.0
OURS = ("Call", "OutMessage", "Outflow", "InValue", "Encoded", "Lending", "Lent", "ValueReader", "Received", "Message")


class Planes:
    """Two that know each other; the second has handlers of every temper."""

    def __init__(self) -> None:
        self.alice = DataPlane("alice", key=KEY, config=DataConfig(max_value=64 << 20))
        self.bob = DataPlane("bob", key=KEY, config=DataConfig(max_value=8 << 20, handlers=2, handler_queue=1))
        self.alice.add_peer("bob", self.bob.address)
        self.gate = threading.Event()
        self.bob.on_request("size")(lambda request: len(request.value))
        self.bob.on_request("echo")(lambda request: request.value)
        self.bob.on_request("raise")(self.fail)
        self.bob.on_request("slow")(lambda request: self.gate.wait(WAIT))

    def fail(self, request: Any) -> None:
        raise ValueError(len(request.value))

    def close(self) -> None:
        self.gate.set()
        self.alice.close()
        self.bob.close()


@pytest.fixture
def planes() -> Iterator[Planes]:
    made = Planes()
    made.alice.request("bob", "size", "warm", timeout=WAIT)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def holds(one: object) -> bool:
    """Whether it holds memory of a call; a connection that is closed amid its last frames leaves empty shells."""
    if isinstance(one, memoryview):
        try:
            return one.nbytes >= SMALL
        except ValueError:  # released
            return False
    return not isinstance(one, Outflow) or sum(map(len, one._parts)) >= SMALL


def garbage() -> list[str]:
    """Return what of ours, or what exports memory, only a collection frees."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        found = [type(one).__name__ for one in gc.garbage if holds(one)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()
    return [f"{name} x{count}" for name, count in Counter(found).items() if name in (*OURS, "memoryview", "ndarray")]


def fails(call: Callable[[], object]) -> None:
    with pytest.raises((MycorrizalError, CancelledError)):
        call()


def cancelled(planes: Planes, value: Any) -> None:
    future = planes.alice.request_async("bob", "slow", value)
    future.cancel()
    fails(lambda: future.result(WAIT))


def closed(planes: Planes, value: Any) -> None:
    future = planes.alice.request_async("bob", "slow", value)
    planes.alice.close()
    fails(lambda: future.result(WAIT))
    fails(lambda: planes.alice.request("bob", "size", value))


def to_nobody(planes: Planes, value: Any) -> None:
    planes.alice.add_peer("nobody", ("127.0.0.1", 9))
    fails(lambda: planes.alice.request("nobody", "size", value, timeout=0.3))
    fails(lambda: planes.alice.send("nobody", value, timeout=0.3))


def broken(planes: Planes, value: Any) -> None:
    future = planes.alice.request_async("bob", "slow", value)
    planes.bob.close()
    fails(lambda: future.result(WAIT))


def all_of_them(planes: Planes, value: Any) -> None:
    planes.alice.add_peer("nobody", ("127.0.0.1", 9))
    results = planes.alice.request_all(["bob", "nobody"], "size", value, timeout=1.0)
    assert results["bob"] == len(value) and "nobody" in results.errors


def read(planes: Planes, value: Any) -> None:
    planes.alice.send("bob", value, timeout=WAIT)
    assert len(planes.bob.receive(WAIT).value) == len(value)


def stream(planes: Planes, value: Any) -> None:
    taken: list[int] = []
    planes.bob.on_stream("sink")(lambda stream: taken.append(len(stream.read())))
    with planes.alice.open_stream("bob", "sink") as stream:
        stream.write(value)
    until(lambda: taken == [len(value)], WAIT)


CALLS: dict[str, Callable[[Planes, Any], object]] = {
    "request": lambda planes, value: planes.alice.request("bob", "size", value, timeout=WAIT),
    "progress": lambda planes, value: planes.alice.request("bob", "size", value, timeout=WAIT, progress=print),
    "answer": lambda planes, value: planes.alice.request("bob", "echo", value, timeout=WAIT),
    "raises": lambda planes, value: fails(lambda: planes.alice.request("bob", "raise", value, timeout=WAIT)),
    "unknown": lambda planes, value: fails(lambda: planes.alice.request("bob", "no such", value, timeout=WAIT)),
    "too large": lambda planes, value: fails(lambda: planes.alice.request("bob", "size", [value] * 4, timeout=WAIT)),
    "time-out": lambda planes, value: fails(lambda: planes.alice.request("bob", "slow", value, timeout=0.3)),
    "time-out at once": lambda planes, value: fails(lambda: planes.alice.request("bob", "slow", value, timeout=0)),
    "async": lambda planes, value: planes.alice.request_async("bob", "size", value).result(WAIT),
    "async time-out": lambda planes, value: fails(planes.alice.request_async("bob", "slow", value, timeout=0.3).result),
    "cancelled": cancelled,
    "closed": closed,
    "to nobody": to_nobody,
    "broken": broken,
    "request_all": all_of_them,
    "send": read,
    "send time-out": lambda planes, value: fails(lambda: planes.alice.send("bob", value, timeout=0)),
    "send async": lambda planes, value: planes.alice.send_async("bob", value).result(WAIT),
    "to oneself": lambda planes, value: fails(lambda: planes.alice.request("alice", "no such", value, timeout=WAIT)),
    "sent to oneself": lambda planes, value: planes.alice.send("alice", value, timeout=WAIT),
    "stream": stream,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_was_sent_is_free_when_the_call_is_over(planes: Planes, call: Callable[[Planes, Any], object]) -> None:
    memory = bytearray(LARGE)
    call(planes, memory)
    until(lambda: free(memory), 5.0)
    planes.close()
    assert garbage() == []


def free(memory: bytearray) -> bool:
    try:
        memory.append(0)
    except BufferError:
        return False
    return True


def test_memory_is_free_while_its_error_is_still_held(planes: Planes) -> None:
    """An error keeps the frames that it came through, as long as somebody holds it."""
    for call in (
        lambda value: planes.alice.request("bob", "slow", value, timeout=0.2),
        lambda value: planes.alice.request("bob", "no such", value, timeout=WAIT),
        lambda value: planes.alice.send("nobody", value, timeout=WAIT),
    ):
        memory = bytearray(LARGE)
        try:
            call(memory)
        except MycorrizalError:
            until(lambda memory=memory: free(memory), 5.0)


def test_a_map_of_a_file_can_be_closed(planes: Planes) -> None:
    mapped = mmap.mmap(-1, LARGE)
    assert planes.alice.request("bob", "size", memoryview(mapped), timeout=WAIT) == LARGE
    fails(lambda: planes.alice.request("bob", "slow", memoryview(mapped), timeout=0.1))
    until(lambda: closes(mapped), 5.0)


def closes(mapped: mmap.mmap) -> bool:
    try:
        mapped.close()
    except BufferError:
        return False
    return True


def test_an_answer_is_free_when_its_reader_drops_it(planes: Planes) -> None:
    array = numpy.zeros(LARGE // 8)
    answer = planes.alice.request("bob", "echo", array, timeout=WAIT)
    later = planes.alice.request_async("bob", "echo", array)
    found = [weakref.ref(one) for one in (answer, later.result(WAIT), later)]
    planes.alice.send("bob", array, timeout=WAIT)
    message = planes.bob.receive(WAIT)
    found += [weakref.ref(one) for one in (message.value, array)]
    del answer, later, message, array
    until(lambda: [ref() for ref in found] == [None] * 5, 5.0)


def test_what_cannot_be_read_is_free_too(planes: Planes) -> None:
    codecs = Codecs()
    codecs.register(complex, "complex", lambda z: [z.real, bytes(LARGE)], lambda pair: complex(*pair))
    with DataPlane("carol", key=KEY, codecs=codecs) as carol:
        carol.add_peer("bob", planes.bob.address)
        carol.send("bob", 1j, timeout=WAIT)
        message = planes.bob.receive(WAIT)
        assert isinstance(message.error, ValueDecodeError)
        with pytest.raises(ValueDecodeError):
            message.value  # noqa: B018
        del message
        carol.on_request("z")(lambda request: 1j)
        planes.bob.add_peer("carol", carol.address)
        results = planes.bob.request_all(["carol"], "z", None, timeout=WAIT)
        assert isinstance(results.errors["carol"], ValueDecodeError)
        del results
    planes.close()
    assert garbage() == []


def test_what_a_cache_writes_is_free(agents: Make) -> None:  # noqa: F811
    first, second = agents("first", config=QUICK), agents("second", config=QUICK)
    one, two = first.cache("c"), second.cache("c")
    one.synced(WAIT)
    two.synced(WAIT)
    memories = []
    for number in range(8):  # of each some are led here, some there
        memory = bytearray(LARGE)
        memories.append(memory)
        one.set(str(number), memory)
        one.set_many({f"m{number}": memory})
        assert one.get_or_compute(f"g{number}", lambda memory=memory: memory) is not None
        assert two.get(str(number)) is not None and two.take(str(number)) is not None
        fails(lambda memory=memory, number=number: one.set(f"{number}", memory, timeout=0.0))
    until(lambda: all(free(memory) for memory in memories), 5.0)
    first.close()
    second.close()
    assert garbage() == []
