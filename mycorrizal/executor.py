"""``TaskExecutor``: the handlers of several members as one ``concurrent.futures.Executor``.

::

    with agent.executor("score") as executor:            # all other agents that have a handler "score"
        for result in executor.map(range(100_000)):      # in order, bounded ahead of the reader
            print(result)
        future = executor.submit([1, 2, 3])              # as_completed and wait work with it

A task is a request: what a worker runs is its handler of that name, what
travels is the value, and nothing is unpickled anywhere. Which task goes to
whom is decided in ``_tasks``; docs/sweeps.md says what holds.

*Threads.* Every method may be called on any thread.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sized
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._runtime.tasks.progress import Bar
from ._runtime.tasks.room import Ahead, Room
from ._runtime.threads import reentry
from ._runtime.threads.deadline import Deadline
from ._runtime.threads.lifecycle import Handle
from ._wire.values import encode_value
from .exceptions import ConfigError, NotRunningError, OperationTimeout, ReentrantCallError
from .types import html_table, html_text, printable

if TYPE_CHECKING:
    from ._runtime.tasks.dispatcher import Dispatcher, TaskFuture

__all__ = ["TaskExecutor"]

_BYTES_MAX = 256 << 20
_AHEAD = 4096


class TaskExecutor(Handle, Executor):
    """Runs tasks at the members that have a handler; made by ``Agent.executor``. Any thread.

    As a context manager it waits for its tasks at the end of the block. If that is left by an exception, what no
    worker has yet is cancelled; by Ctrl-C all is, and nothing is waited for.
    """

    def __init__(self, dispatcher: Dispatcher, queue: int, progress: bool) -> None:
        self._dispatcher = dispatcher
        self._room = Room(queue, _BYTES_MAX)
        self._bar = Bar(dispatcher.name) if progress else None

    def submit(self, value: Any = None, /) -> TaskFuture:  # type: ignore[override]
        """Add a task, and return its future. Blocks while ``queue`` tasks are open, or 256 MiB of their values.

        ``cancel()`` of the future works until it is done; a worker that has begun it goes on, in vain. What ends
        a task that no worker was lost with is what ``Agent.request`` raises.

        Raises:
            ValueEncodeError, ValueTooLarge: `value` cannot be sent.
            QueueFull: it would have to wait, in a done-callback.
            NotRunningError: after ``shutdown``, or the agent was closed.
            ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        core = self._dispatcher.core
        core.check("executor")
        encoded = encode_value(value, core.codecs, limit=core.config.max_value)
        future = self._dispatcher.future()
        try:
            with core.pool.waiting():
                taken = self._room.enter(future, encoded.size)
            if not taken:
                text = f"no task for {self._dispatcher.name!r} is taken after shutdown()"
                raise NotRunningError(text, operation="executor", hint="make a new executor")
            if self._bar is not None:
                self._bar.added(future)
            self._dispatcher.begin(future, encoded)
        except BaseException:  # Ctrl-C too: nobody has the future
            future.cancel()
            self._room.leave(future)
            raise
        return future

    def map(  # type: ignore[override]
        self,
        values: Iterable[Any],
        /,
        *,
        timeout: float | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
    ) -> Generator[Any, None, None]:
        """Run a task for each value, and iterate over the results. Begins at once, blocks while it iterates.

        Values are taken as results are read: up to `buffersize` further than those, so `values` may be endless. A
        task that fails raises here, and the rest is cancelled; so it is when the iteration is left.

        Args:
            timeout: seconds for all of it.
            buffersize: values that are taken ahead of the reader; 4,096 if None.
            ordered: results in the order of the values; False: as they come.

        Raises:
            OperationTimeout: `timeout` has passed. Otherwise as ``submit``, and what a task failed with.
        """
        most = _AHEAD if buffersize is None else buffersize
        if most < 1:
            raise ConfigError("buffersize", f"{buffersize} is too small", hint="at least 1")
        self._refuse("map")
        if self._bar is not None and isinstance(values, Sized):
            self._bar.expect(len(values))
        source, ahead = iter(values), Ahead(ordered)
        try:
            more = self._feed(source, ahead, most)
        except BaseException:
            ahead.cancel()
            raise
        return self._results(source, ahead, most, more, Deadline(timeout), timeout)

    def _feed(self, source: Iterator[Any], ahead: Ahead, most: int) -> bool:
        """Submit until there are `most`, or a result can be read; False if there are no values left."""
        while len(ahead) < most and not ahead.ready:
            try:
                value = next(source)
            except StopIteration:
                return False
            ahead.add(self.submit(value))
        return True

    def _results(
        self, source: Iterator[Any], ahead: Ahead, most: int, more: bool, deadline: Deadline, timeout: float | None
    ) -> Generator[Any, None, None]:
        try:
            while True:
                more = more and self._feed(source, ahead, most)
                if not ahead:
                    return
                future = ahead.next(deadline)
                try:
                    result = future.result(deadline.remaining())
                except OperationTimeout:
                    if future.done():
                        raise
                    text = f"the next result did not come within the {timeout} s of the whole map"
                    raise OperationTimeout(text, operation="map") from None
                ahead.given(future)
                yield result
        finally:
            ahead.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks. Blocks, with `wait`, until those that there are have ended. Idempotent.

        Args:
            cancel_futures: cancel what no worker has yet.

        Raises:
            ReentrantCallError: it would wait on a thread that is needed for that.
        """
        self._end(wait, [future for future in self._room.close() if cancel_futures and not future.running()])

    def _end(self, wait: bool, unwanted: Iterable[Future[Any]]) -> None:
        for future in unwanted:
            future.cancel()
        if wait and self._room:
            self._refuse("shutdown")
            with self._dispatcher.core.pool.waiting():
                self._room.empty(Deadline(None))
        if self._bar is not None:
            self._bar.close()

    def _refuse(self, operation: str) -> None:
        """Raise ReentrantCallError on a thread whose progress a wait for tasks needs."""
        reentry.refuse(operation)
        if (thread := reentry.finishers.caller()) is not None:
            text = f"{operation} would wait on {thread}, the thread that finishes futures"
            raise ReentrantCallError(text, operation=operation, hint="call it on a thread of your own")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            self.shutdown(cancel_futures=error is not None)
        else:
            self._end(False, self._room.close())

    def __repr__(self) -> str:
        machine, name = self._dispatcher.machine, printable(self._dispatcher.name)
        if self._room.closed and not self._room:
            return f"<TaskExecutor {name!r}, shut down>"
        workers = sum(1 for worker in list(machine.workers.values()) if worker.slots)
        found = f"{machine.waiting} tasks wait, {machine.under_way} under way at {workers} workers"
        problem = self._dispatcher.problem()
        return f"<TaskExecutor {name!r}: {found if problem is None else problem}>"

    def _repr_html_(self) -> str:
        workers = [worker for worker in list(self._dispatcher.machine.workers.values()) if worker.slots]
        rows = [(one.name, one.slots, len(one.out), "no answer" if one.silent else "") for one in workers]
        table = html_table(("worker", "can run", "has", ""), rows)
        return f"<div>{html_text(repr(self)[1:-1])}{table}</div>"
