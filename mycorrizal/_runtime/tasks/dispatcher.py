"""Runs the rules of ``_tasks`` on the data plane's loop thread: questions, requests, answers, the time.

The rules are quick and know when to do what; a task costs the loop what a
request costs it. Answers are decoded, and futures finished, on
``mycorrizal-futures``, as those of ``request_async``.
"""

from __future__ import annotations

import itertools
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from ..._data.calls import Call
from ..._data.ports import Received
from ..._endings import Ending, copied, error
from ..._tasks.machine import Ask, End, Fate, NoWorker, Send, Tasks, Withdraw
from ..._wire.frames import Status
from ..._wire.meta import read_meta
from ..._wire.text import logger
from ..._wire.values import Encoded
from ...exceptions import (
    MycorrizalError,
    NotRunningError,
    OperationTimeout,
    PeerUnreachable,
    QueueFull,
    RemoteProtocolError,
    ServiceCrashed,
    ValueDecodeError,
    ValueTooLarge,
)
from ...types import Node, printable
from ..data.carrier import Carrier
from ..data.core import Core
from ..data.tickets import answer, cancelled, field
from ..quic.loop import Timer
from ..threads import clock
from ..threads.futures import PlaneFuture

__all__ = ["Dispatcher", "TaskFuture", "TaskHost"]

log = logger("mycorrizal.tasks")

_QUESTION_SECONDS = 10.0
_NAME_MAX = 255
_NAMES_SHOWN = 10
_FATES = {
    Status.BUSY: Fate.BUSY,
    Status.UNKNOWN: Fate.AWAY,
    Status.NOT_YET: Fate.AWAY,
    Status.CLOSING: Fate.AWAY,
    Status.EXPIRED: Fate.LATE,
}
"""What the status of an answer says; any other one is an answer."""
_FINAL = (NotRunningError, ServiceCrashed, ValueTooLarge)
"""How a request ends that would end so elsewhere too."""


class TaskHost:
    """All that concerns tasks in one agent: says what it can run itself, and knows its executors. Any thread.

    Args:
        members: the membership's present members; never blocks.
    """

    def __init__(self, core: Core, members: Callable[[], tuple[Node, ...]]) -> None:
        self.core = core
        self.members = members
        self.counters: Counter[str] = Counter()  # of all machines; loop thread
        self.dispatchers: weakref.WeakSet[Dispatcher] = weakref.WeakSet()
        self.questions = Carrier(core, "slots", self._asked)
        core.at_end.append(self._end)

    def _asked(self, sender: str, payload: bytes, respond: Callable[[bytes], None]) -> None:
        slots = self.core.slots(payload.decode("utf-8", "replace")) if len(payload) <= _NAME_MAX else 0
        respond(slots.to_bytes(4, "big"))

    def problems(self) -> list[str]:
        """Return what is to be said of executors whose tasks wait for a worker."""
        return [problem for one in list(self.dispatchers) if (problem := one.problem())]

    def metrics(self) -> dict[str, int]:
        """Return the counters of all executors, and how much is open."""
        found = {"tasks.waiting": 0, "tasks.under_way": 0, **self.counters}
        for one in list(self.dispatchers):
            found["tasks.waiting"] += one.machine.waiting
            found["tasks.under_way"] += one.machine.under_way
        return found

    def _end(self) -> None:
        if not self.core.guard.forked:
            for one in list(self.dispatchers):
                one.end()


class TaskFuture(PlaneFuture[Any]):
    """The outcome of a task. ``cancel`` works as long as it is not done: what a worker makes of it then is dropped."""

    number = 0
    sent = False  # a worker has it, or had it

    def running(self) -> bool:
        """Whether a worker has it. Any thread."""
        return self.sent and not self.done()


class _Task:
    """A task's value, kept until its end, and its future."""

    __slots__ = ("depth", "future", "value")

    def __init__(self, value: Encoded, depth: int, future: TaskFuture) -> None:
        self.value = value
        self.depth = depth
        self.future = future


class Dispatcher:
    """The tasks of one executor. Loop thread, but for what is said to be any thread's.

    Args:
        name: of the handlers.
        nodes: members that may be asked; None: all others.
        timeout: seconds that a task may take at its worker; None: no limit.
    """

    def __init__(
        self, host: TaskHost, name: str, nodes: frozenset[str] | None, timeout: float | None, machine: Tasks
    ) -> None:
        self.name = name
        self.nodes = nodes
        self.machine = machine
        self.core = host.core
        self._host = host
        self._field = field(name)
        self._question = name.encode()
        self._timeout = timeout
        self._tasks: dict[int, _Task] = {}
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        self._view: tuple[Node, ...] | None = None
        self._timer: Timer | None = None
        self._pulling = self._ended = False
        host.dispatchers.add(self)
        self.core.begin(self._look, "executor")

    # -- any thread ----------------------------------------------------------------------------

    def future(self) -> TaskFuture:
        """Return the future of a task that is to be begun."""
        number = next(self._numbers)

        def cancel() -> MycorrizalError:
            self.core.submit(partial(self._cancel, number))
            return cancelled(future.sent, self.name, "executor")

        future = TaskFuture(cancel, self.core.pool.waiting)
        future.number = number
        return future

    def begin(self, future: TaskFuture, value: Encoded) -> None:
        """Begin a task.

        Raises:
            NotRunningError, ServiceCrashed: the loop has ended.
        """
        self.core.completions.start()
        self.core.begin(partial(self._add, future.number, _Task(value, self.core.depth(), future)), "executor")

    def problem(self) -> str | None:
        """Return why tasks wait that nobody can take; None if none do."""
        waiting, workers = self.machine.waiting, list(self.machine.workers.values())
        if not waiting or any(worker.slots and not worker.silent for worker in workers):
            return None
        silent = [worker.name for worker in workers if worker.slots]
        if silent:
            why = f"no answer lately from {_names(silent)}"
        elif workers:
            why = f"no handler of that name at {_names([worker.name for worker in workers])}"
        else:
            why = "nobody else is a member" if self.nodes is None else f"no member is {_names(sorted(self.nodes))}"
        return f"{waiting} tasks for {printable(self.name)!r} wait, and no worker takes them: {why}"

    # -- the loop thread -----------------------------------------------------------------------

    def _add(self, number: int, task: _Task, now: float) -> None:
        if not task.future.done():
            self._tasks[number] = task
            if self._timer is None:
                self._see(now)
            self.machine.add(number, now)
            self._pull(now)

    def _cancel(self, number: int, now: float) -> None:
        if self._tasks.pop(number, None) is not None:
            self.machine.cancel(number, now)
            self._pull(now)

    def _look(self, now: float) -> None:
        self._timer = None
        self._see(now)
        self.machine.handle_timer(now)
        self._pull(now)

    def _see(self, now: float) -> None:
        """Tell the machine who may be a worker, if that has changed."""
        view = self._host.members()
        if view is not self._view:
            self._view = view
            boots = {node.name: read_meta(node.meta).boot or b"" for node in view if self._wanted(node.name)}
            self.machine.members({name: boot for name, boot in boots.items() if boot}, now)  # agents have one

    def _wanted(self, name: str) -> bool:
        return name != self.core.name if self.nodes is None else name in self.nodes

    def ended(self, attempt: int, fate: Fate, outcome: object) -> None:
        """An attempt has come to something."""
        self._calls.pop(attempt, None)
        now = clock.now()
        self.machine.ended(attempt, fate, outcome, now)
        self._pull(now)

    def _pull(self, now: float) -> None:
        """Do what the machine says; what ends meanwhile has its outputs pulled by the same loop."""
        if self._pulling:
            return
        self._pulling = True
        try:
            while (output := self.machine.next_output()) is not None:
                match output:
                    case Send():
                        self._send(output, now)
                    case Ask(question, worker):
                        told = partial(self._told, question, worker)
                        self._host.questions.ask(worker, self._question, _QUESTION_SECONDS, told)
                    case Withdraw(attempt):
                        call = self._calls.pop(attempt)
                        call.over = True
                        self.core.machine.peer(call.node).cancel(call, now)
                    case End():
                        self._finish(output)
        finally:
            self._pulling = False
        due = self.machine.get_timer()
        if due is not None and self._timer is None and not self._ended:
            self._timer = self.core.loop.call_at(due, self._look)

    def _send(self, output: Send, now: float) -> None:
        task = self._tasks[output.task]
        task.future.sent = True
        deadline = None if self._timeout is None else now + self._timeout
        ticket = _Attempt(self, output.attempt)
        ticket.call = Call(output.worker, self._field, task.value, deadline, ticket, task.depth)
        self._calls[output.attempt] = ticket.call
        self.core.machine.request(ticket.call, now)

    def _told(self, question: int, worker: str, payload: bytes | None, why: MycorrizalError | None) -> None:
        slots = None if payload is None or len(payload) != 4 else int.from_bytes(payload, "big")
        now = clock.now()
        self.machine.told(question, worker, slots, now)
        self._pull(now)

    def _finish(self, end: End) -> None:
        task = self._tasks.pop(end.task)
        self.core.completions.post(task.future, partial(_finished, self.core, self.name, end))

    def end(self) -> None:
        """The loop ends: nothing more comes of what is open."""
        self._ended = True
        self.machine = Tasks()
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            why = self.core.refusal("executor", sent=task.future.sent)
            self.core.completions.post(task.future, partial(_raise, why))


class _Attempt:
    """Where the end of one request goes. Loop thread."""

    __slots__ = ("_dispatcher", "_number", "call")

    def __init__(self, dispatcher: Dispatcher, number: int) -> None:
        self._dispatcher = dispatcher
        self._number = number
        self.call: Call | None = None

    def succeed(self, outcome: Any) -> None:
        self.call = None
        self._dispatcher.ended(self._number, _FATES.get(outcome[0], Fate.ANSWERED), outcome)

    def fail(self, why: MycorrizalError) -> None:
        call, self.call = self.call, None
        if isinstance(why, _FINAL):
            fate = Fate.ANSWERED
        elif isinstance(why, QueueFull):
            fate = Fate.BUSY
        elif isinstance(why, OperationTimeout) and call is not None and call.sent:
            fate = Fate.LATE
        else:
            fate = Fate.LOST if why.indeterminate else Fate.UNREACHED
        self._dispatcher.ended(self._number, fate, why)


def _finished(core: Core, name: str, end: End) -> Any:
    """Return the value of a task, or raise why there is none. On the thread that finishes futures."""
    outcome = end.outcome
    if isinstance(outcome, NoWorker):
        text = f"no member had a handler {name!r} for {outcome.seconds:g} s"
        hint = "start a worker, e.g. `mycorrizal worker package.module`, or give the tasks more patience="
        raise error(Ending.LOST, text, operation="executor", hint=hint)
    if isinstance(outcome, MycorrizalError):
        raise _lost(outcome, name, end)
    status, received = cast(tuple[int, Received], outcome)
    try:
        return answer(core, status, received, end.worker, name, "executor")
    except (RemoteProtocolError, ValueDecodeError) as unread:
        unread.operation = "executor"
        raise


def _lost(why: MycorrizalError, name: str, end: End) -> MycorrizalError:
    """Return the error of a task whose last attempt ended with `why`."""
    if len(end.died) > 1:
        text = f"{name}: the task was given up, workers were lost under it: {_names(list(end.died))}; at last: {why}"
        lost = PeerUnreachable(text, node=end.worker, operation="executor", hint="does the task end its worker?")
        lost.indeterminate, lost.retriable, lost.ending = True, False, why.ending
        return lost
    mine = copied(why)
    mine.node, mine.operation = why.node or end.worker or None, "executor"
    return mine


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return printable(", ".join(names[:_NAMES_SHOWN]), 500) + more


def _raise(why: MycorrizalError) -> Any:
    raise why
