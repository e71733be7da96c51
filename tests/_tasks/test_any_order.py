"""Whatever happens in whatever order: each task ends once, nothing waits beside a worker with room, nothing runs twice
that may not."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mycorrizal._tasks.machine import Fate, Tasks

from .field import Field

NAMES = ("ada", "bob", "cyd")
MAY_HAVE_RUN = {Fate.LOST, Fate.LATE, Fate.ANSWERED}


class AnyOrder(RuleBasedStateMachine):
    idempotent = True

    def __init__(self) -> None:
        super().__init__()
        self.field = Field(Tasks(idempotent=self.idempotent, retries=2))
        self.added = 0
        self.cancelled: set[int] = set()
        self.ran: dict[int, int] = {}  # how often a task may have run by now
        self.boots = 0

    @rule(name=st.sampled_from(NAMES), slots=st.sampled_from([None, 0, 1, 3]))
    def member_comes(self, name: str, slots: int | None) -> None:
        self.boots += 1
        self.field.join(name, boot=bytes([self.boots % 256]), slots=slots)

    @rule(name=st.sampled_from(NAMES))
    def member_goes(self, name: str) -> None:
        if name in self.field.machine.workers:
            self.field.leave(name)

    @rule(name=st.sampled_from(NAMES), slots=st.sampled_from([None, 0, 1, 3]))
    def question_is_answered(self, name: str, slots: int | None) -> None:
        if name in self.field.asked and name in self.field.machine.workers:
            self.field.tell(name, slots)

    @rule(count=st.integers(1, 5))
    def tasks_are_added(self, count: int) -> None:
        self.field.add(*range(self.added, self.added + count))
        self.added += count

    @rule(data=st.data())
    @precondition(lambda self: self.added)
    def task_is_cancelled(self, data: st.DataObject) -> None:
        task = data.draw(st.integers(0, self.added - 1))
        if task not in self.field.ended:
            self.cancelled.add(task)
        self.field.machine.cancel(task, self.field.now)
        self.field.pull()

    @rule(data=st.data(), fate=st.sampled_from(list(Fate)))
    @precondition(lambda self: self.field.out)
    def attempt_ends(self, data: st.DataObject, fate: Fate) -> None:
        attempt = data.draw(st.sampled_from(sorted(self.field.out)))
        sent = self.field.out[attempt]
        self.ran[sent.task] = self.ran.get(sent.task, 0) + (fate in MAY_HAVE_RUN)
        before = len(self.field.history)
        self.field.end(sent.task, fate, sent.worker) if self._only(attempt) else self._end(attempt, fate)
        if not self.idempotent:
            assert all(not self.ran.get(again.task) for again in self.field.history[before:])

    def _only(self, attempt: int) -> bool:
        sent = self.field.out[attempt]
        return sum(1 for other in self.field.out.values() if other[1:] == sent[1:]) == 1

    def _end(self, attempt: int, fate: Fate) -> None:
        del self.field.out[attempt]
        self.field.machine.ended(attempt, fate, fate, self.field.now)
        self.field.pull()

    @rule(seconds=st.sampled_from([0.05, 0.3, 2.0, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.field.wait(seconds)

    @invariant()
    def nothing_waits_beside_a_worker_with_room(self) -> None:
        machine = self.field.machine
        assert not machine.waiting or not any(worker.ready(machine._ticked) for worker in machine.workers.values())

    @invariant()
    def what_is_under_way_is_so_on_both_sides(self) -> None:
        machine = self.field.machine
        assert machine.under_way == len(self.field.out)
        tasks = [send.task for send in self.field.out.values()]
        assert self.idempotent or len(tasks) == len(set(tasks))
        assert not self.field.ended.keys() & set(tasks) and not self.cancelled & set(tasks)

    def teardown(self) -> None:
        """All else goes well from now on: every task ends, once."""
        field = self.field
        for attempt in sorted(field.out):
            if attempt in field.out:
                self._end(attempt, Fate.UNREACHED)
        field.join("dan", boot=b"dan", slots=2)
        for _ in range(10 * self.added + 10):
            for name in [name for name in field.asked if name in field.machine.workers]:
                field.tell(name, 2)
            for attempt in sorted(field.out):
                if attempt in field.out:
                    self._end(attempt, Fate.ANSWERED)
            field.wait(0.1)
        assert field.ended.keys() | self.cancelled == set(range(self.added))
        assert not field.ended.keys() & self.cancelled
        assert field.machine.get_timer() is None and not field.out


class AnyOrderOnce(AnyOrder):
    idempotent = False


TestAnyOrder = AnyOrder.TestCase
TestAnyOrderOnce = AnyOrderOnce.TestCase
TestAnyOrder.settings = TestAnyOrderOnce.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
