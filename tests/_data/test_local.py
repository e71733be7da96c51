"""What a node sends to itself."""

from __future__ import annotations

from mycorrizal._data.peer import Opening
from mycorrizal._endings import Ending, error
from mycorrizal._wire.frames import Status, name_field
from mycorrizal.dataconfig import DataConfig
from mycorrizal.exceptions import NotRunningError, OperationTimeout, PeerUnreachable, QueueFull

from .harness import FakeSink, Node, Outcome, World, answer_of, leftovers


def node(config: DataConfig | None = None, inbox: tuple[int, int] = (1 << 20, 1 << 40)) -> tuple[World, Node]:
    world = World()
    return world, Node(world, "a", ("10.0.0.1", 1), config, inbox=inbox)


def test_messages_and_requests() -> None:
    world, a = node()
    outcomes = [a.send("a", n)[1] for n in range(200)] + [a.request("a", n)[1] for n in range(200)]
    big = a.request("a", bytes(1 << 20))[1]
    world.run(1.0)
    assert all(outcome.ok for outcome in outcomes)
    assert [value for _, value in a.messages] == list(range(200))
    assert answer_of(big) == "done"
    assert leftovers(a.machine) == [] and a.machine.serving == 0


def test_a_full_inbox_makes_it_wait_too() -> None:
    world, a = node(inbox=(3, 1 << 30))
    a.reading = False
    messages = [a.send("a", n) for n in range(100)]
    world.run(1.0)
    assert sum(outcome.ok for _, outcome in messages) == 3
    for message, _ in messages[3::2]:
        a.machine.peer("a").withdraw(message, world.now)
    for _ in range(100):
        world.run(0.1)
        a.read()
    assert [value for _, value in a.messages] == [0, 1, 2, *range(4, 100, 2)]
    assert leftovers(a.machine) == []


def test_statuses_deadlines_and_cancel() -> None:
    world, a = node()
    a.handler = lambda request: a.answer(request, delay=5.0)
    late = a.request("a", 1, timeout=1.0)[1]
    call, cancelled = a.request("a", 2)
    a.settling = True
    assert a.request("a", name="unknown")[1].result[0] == Status.UNKNOWN  # who asks itself knows what it has
    a.capacity = 0
    assert a.request("a")[1].result[0] == Status.BUSY
    a.machine.peer("a").cancel(call, world.now)
    assert 1.0 <= world.until(lambda: late.ended) < 1.2
    assert isinstance(late.error, OperationTimeout) and late.error.indeterminate
    world.run(10.0)
    assert cancelled.ended is None
    a.machine.closing = True
    assert a.request("a")[1].result[0] == Status.CLOSING
    assert leftovers(a.machine) == []


def test_the_end() -> None:
    world, a = node(inbox=(1, 1))
    a.reading = False
    a.handler = lambda request: None
    open_work = [a.request("a")[1], *(a.send("a", n)[1] for n in range(5))]
    a.machine.close(error(Ending.CLOSED, "closed"), world.now)
    assert all(outcome.ended for outcome in open_work)
    assert open_work[0].error is not None and open_work[0].error.indeterminate, "its handler runs"
    assert not any(outcome.error.indeterminate for outcome in open_work[1:] if outcome.error is not None)
    for outcome in (a.request("a")[1], a.send("a", 1)[1], a.request("b")[1], a.send("b", 1)[1]):
        assert isinstance(outcome.error, NotRunningError)
    world.run(10.0)


def test_no_stream_and_no_more_than_the_queue_holds() -> None:
    world, a = node(inbox=(1, 1))
    outcome = Outcome(lambda: world.now)
    a.machine.open("a", Opening(name_field("s"), FakeSink(), outcome), world.now)
    assert isinstance(outcome.error, PeerUnreachable)
    a.reading = False
    outcomes = [a.send("a", None)[1] for _ in range(16400)]
    assert isinstance(outcomes[-1].error, QueueFull)
    assert outcomes[16383].error is None
