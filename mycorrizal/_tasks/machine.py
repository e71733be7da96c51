"""The rules by which tasks go to workers: pure, told of everything with `now`, asked for outputs.

A task waits, is under way at one worker, or, where it may run twice, at
several; and it ends once. What an attempt comes to (``Fate``) decides:

| fate | idempotent | otherwise |
|---|---|---|
| answered, also by an error | it ends | it ends |
| not looked at: busy, no such handler, never reached | it waits, in front of all others | the same |
| lost: the worker died, and may have run it | the same, `retries` times; then it ends | it ends |
| late: longer there than it may | if the worker is silent, as lost; else it ends | it ends |

A worker with work that is not heard of for ``QUIET_SECONDS`` is asked how it
is, and silent after ``SILENT_SECONDS`` without an answer: stopped, dead, or
behind its GIL. It gets no task then, and what it has is given to others too as
soon as nothing else waits (idempotent tasks only). Whoever answers first ends
the task; the others are withdrawn and what they answer is dropped. So a worker
that is merely slow costs nothing but room that nobody else needed.

The order: what was given back, then what is new, in the order it was added,
then what silent workers have. A task goes to the worker that is least busy
for its size.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple

from .worker import Worker

__all__ = ["Ask", "Attempt", "End", "Fate", "NoWorker", "Output", "Send", "Tasks", "Withdraw"]

QUIET_SECONDS = 1.0
SILENT_SECONDS = 1.5
TICK_SECONDS = 0.1
"""How often workers are looked after while there are tasks."""
_ASLEEP_SECONDS = 1.0  # between two ticks: we were stopped, and know nothing of who has not answered


class Fate(Enum):
    """What came of an attempt."""

    ANSWERED = auto()
    BUSY = auto()
    AWAY = auto()
    UNREACHED = auto()
    LOST = auto()
    LATE = auto()


class Send(NamedTuple):
    """Send the task to the worker; ``Tasks.ended`` is to be told of the attempt."""

    attempt: int
    task: int
    worker: str


class Withdraw(NamedTuple):
    """Nobody waits for the attempt any more; nothing is to be told of it."""

    attempt: int


class Ask(NamedTuple):
    """Ask the worker how many of these tasks it can run at a time; ``Tasks.told`` is to be told."""

    question: int
    worker: str


class End(NamedTuple):
    """The task is over, with what the attempt at `worker` came to; `died`: the workers that were lost under it."""

    task: int
    outcome: object
    worker: str
    died: tuple[str, ...]


class NoWorker(NamedTuple):
    """In place of an outcome: nobody had the handler for longer than tasks wait."""

    seconds: float


Output = Send | Withdraw | Ask | End


class Attempt:
    """A task that is under way at a worker; ``beside``: how many others were, when it was sent."""

    __slots__ = ("beside", "number", "sent", "task", "worker")

    def __init__(self, number: int, task: _Task, worker: Worker, now: float) -> None:
        self.number = number
        self.task = task
        self.worker = worker
        self.sent = now
        self.beside = len(worker.out)


class _Task:
    __slots__ = ("attempts", "died", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.attempts: dict[int, Attempt] = {}
        self.died: tuple[str, ...] = ()


class Tasks:
    """The tasks of one executor, and the workers there are for them.

    Args:
        idempotent: whether a task may run twice.
        retries: of a task whose worker was lost.
        patience: seconds that tasks wait while no worker has the handler; None: for ever.
        counters: raised are ``tasks.answered``, ``.busy``, ``.away``, ``.unreached``, ``.lost``, ``.late`` (fates of
            attempts), ``.again`` (given back), ``.spare`` (sent to another worker than a silent one), ``.silent``
            (workers that were found to be so).
    """

    def __init__(
        self, *, idempotent: bool = True, retries: int = 3, patience: float | None = None,
        counters: Counter[str] | None = None,
    ) -> None:  # fmt: skip
        self._idempotent = idempotent
        self._retries = retries
        self._patience = patience
        self._tasks: dict[int, _Task] = {}
        self._again: OrderedDict[int, _Task] = OrderedDict()
        self._fresh: OrderedDict[int, _Task] = OrderedDict()
        self._spare: OrderedDict[int, _Task] = OrderedDict()  # at silent workers only
        self._open: dict[int, Attempt] = {}
        self.workers: dict[str, Worker] = {}
        self._outputs: deque[Output] = deque()
        self._numbers = 0
        self._ticked = float("-inf")
        self._alone: float | None = None  # since when tasks wait and nobody has the handler
        self.counters = Counter() if counters is None else counters

    # -- what is told --------------------------------------------------------------------------

    def add(self, number: int, now: float) -> None:
        """There is a new task."""
        self._tasks[number] = self._fresh[number] = _Task(number)
        if now - self._ticked >= TICK_SECONDS:
            self.handle_timer(now)
        else:
            self._dispatch(now)

    def cancel(self, number: int, now: float) -> None:
        """Nobody waits for a task any more; it has no end."""
        task = self._tasks.get(number)
        if task is not None:
            self._forget(task)
            self._dispatch(now)

    def members(self, boots: Mapping[str, bytes], now: float) -> None:
        """These may be workers now. What is under way at one that is not listed, or has another boot, will fail."""
        for worker in [worker for worker in self.workers.values() if boots.get(worker.name) != worker.boot]:
            del self.workers[worker.name]
            self._silence(worker)
        for name, boot in boots.items():
            if name not in self.workers:
                worker = self.workers[name] = Worker(name, boot, now)
                self._ask(worker, now)

    def told(self, question: int, name: str, slots: int | None, now: float) -> None:
        """A worker has said how many tasks it can run at a time, 0 if it has no such handler; None: it has not."""
        worker = self.workers.get(name)
        if worker is None or worker.question != question:
            return
        worker.asked = None
        if slots is not None:
            worker.told(slots, now)
            self._heard(worker)
        else:
            worker.ask_later(now)
        self._dispatch(now)

    def ended(self, number: int, fate: Fate, outcome: object, now: float) -> None:
        """An attempt has come to something."""
        attempt = self._open.pop(number, None)
        if attempt is None:
            return
        task, worker = attempt.task, attempt.worker
        del task.attempts[number], worker.out[number]
        if fate is Fate.ANSWERED:
            worker.answered(attempt, now)
            self._heard(worker)
        elif fate is Fate.BUSY:
            worker.busy(now)
        elif fate is Fate.AWAY:
            worker.told(0, now)
        elif fate is not Fate.LATE:
            worker.rest(now)
        self.counters[f"tasks.{fate.name.lower()}"] += 1
        self._decide(task, worker, fate, outcome)
        self._dispatch(now)

    def handle_timer(self, now: float) -> None:
        """Look after the workers, and for tasks that can be sent."""
        asleep = now - self._ticked > _ASLEEP_SECONDS
        self._ticked = now
        if not self._tasks:
            return
        for worker in self.workers.values():
            if worker.asked is None:
                due = now - worker.heard >= QUIET_SECONDS if worker.out else not worker.slots
                if due and now >= worker.ask_at:
                    self._ask(worker, now)
            elif asleep:
                worker.asked = now
            elif worker.out and now - max(worker.asked, worker.heard) >= SILENT_SECONDS:
                self._silence(worker)
        self._wait_or_give_up(now)
        self._dispatch(now)

    # -- what is asked -------------------------------------------------------------------------

    def get_timer(self) -> float | None:
        """Return when ``handle_timer`` is to be called."""
        return self._ticked + TICK_SECONDS if self._tasks else None

    def next_output(self) -> Output | None:
        """Return what is to be done next, None if nothing."""
        return self._outputs.popleft() if self._outputs else None

    @property
    def waiting(self) -> int:
        """Tasks that are under way nowhere."""
        return len(self._again) + len(self._fresh)

    @property
    def under_way(self) -> int:
        """Attempts at workers."""
        return len(self._open)

    # -- inside --------------------------------------------------------------------------------

    def _decide(self, task: _Task, worker: Worker, fate: Fate, outcome: object) -> None:
        """An attempt of `task` at `worker` is over."""
        lost = fate is Fate.LOST or (fate is Fate.LATE and worker.silent)
        if lost:
            task.died = (*task.died, worker.name)
        over = (not self._idempotent or len(task.died) > self._retries) if lost else fate is Fate.LATE
        if fate is Fate.ANSWERED:
            self._end(task, outcome, worker)
        elif task.attempts:  # it goes on elsewhere
            self._spare_if_silent(task)
        elif over:
            self._end(task, outcome, worker)
        else:
            self._spare.pop(task.number, None)
            self._wait_again(task)

    def _wait_again(self, task: _Task) -> None:
        self.counters["tasks.again"] += 1
        self._again[task.number] = task

    def _end(self, task: _Task, outcome: object, worker: Worker | None = None) -> None:
        self._forget(task)
        self._outputs.append(End(task.number, outcome, worker.name if worker is not None else "", task.died))

    def _forget(self, task: _Task) -> None:
        del self._tasks[task.number]
        for queue in (self._again, self._fresh, self._spare):
            queue.pop(task.number, None)
        for attempt in task.attempts.values():
            del self._open[attempt.number], attempt.worker.out[attempt.number]
            self._outputs.append(Withdraw(attempt.number))
        task.attempts.clear()

    def _ask(self, worker: Worker, now: float) -> None:
        self._numbers += 1
        worker.question, worker.asked = self._numbers, now
        self._outputs.append(Ask(self._numbers, worker.name))

    def _silence(self, worker: Worker) -> None:
        if worker.silent:
            return
        self.counters["tasks.silent"] += 1
        worker.silent = True
        for attempt in worker.out.values():
            self._spare_if_silent(attempt.task)

    def _spare_if_silent(self, task: _Task) -> None:
        if self._idempotent and all(attempt.worker.silent for attempt in task.attempts.values()):
            self._spare[task.number] = task

    def _heard(self, worker: Worker) -> None:
        if worker.silent:
            worker.silent = False
            for attempt in worker.out.values():
                self._spare.pop(attempt.task.number, None)

    def _wait_or_give_up(self, now: float) -> None:
        """End what waits, if nobody has had the handler for too long."""
        if not self.waiting or any(worker.slots for worker in self.workers.values()):
            self._alone = None
        elif self._alone is None:
            self._alone = now
        elif self._patience is not None and now - self._alone >= self._patience:
            for task in [*self._again.values(), *self._fresh.values()]:
                self._end(task, NoWorker(self._patience))

    def _dispatch(self, now: float) -> None:
        """Send as long as there is a task and a worker for it."""
        while queue := self._again or self._fresh or self._spare:
            ready = [worker for worker in self.workers.values() if worker.ready(now)]
            if not ready:
                return
            worker = min(ready, key=lambda worker: worker.load)
            number, task = queue.popitem(last=False)
            if queue is self._spare:
                self.counters["tasks.spare"] += 1
            self._numbers += 1
            attempt = Attempt(self._numbers, task, worker, now)
            task.attempts[self._numbers] = worker.out[self._numbers] = self._open[self._numbers] = attempt
            worker.given = self._numbers
            self._outputs.append(Send(self._numbers, number, worker.name))
