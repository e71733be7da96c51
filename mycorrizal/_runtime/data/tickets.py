"""The two ways in which a caller hears how its call ended: it waits, or it has a future."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..._data.calls import Call
from ..._data.ports import Received
from ..._endings import Ending, copied, error
from ..._wire.frames import INLINE_MAX, Status, name_field
from ...exceptions import (
    ConfigError,
    MycorrizalError,
    NestedTooDeep,
    NotRunningError,
    OperationTimeout,
    PeerBusy,
    RemoteError,
    RemoteProtocolError,
    UnknownHandler,
    ValueDecodeError,
    ValueTooLarge,
)
from ...types import Message, as_builtin, printable
from ..quic.loop import Loop
from ..threads.deadline import Deadline
from ..threads.futures import Completions, PlaneFuture, Waiter

if TYPE_CHECKING:
    from ..._data.channel import OutMessage
    from ..._wire.values import Encoded
    from .core import Core

__all__ = [
    "BlockingTicket",
    "FutureTicket",
    "answer",
    "ask",
    "cancel_call",
    "cancelled",
    "field",
    "late",
    "node_names",
    "own",
    "take",
    "withdraw",
]

T = TypeVar("T")

Progress = Callable[[int, int], object]

_PROGRESS_SECONDS = 0.05
_FIRST_PAUSE, _LAST_PAUSE = 0.05, 0.5  # before a handler is asked for again


class BlockingTicket(Waiter):
    """For a caller that waits. ``succeed``, ``fail`` and ``progress`` on the loop thread, the rest on the caller's."""

    __slots__ = ("_loop", "taken")

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop
        self.taken = 0

    def succeed(self, outcome: object) -> None:
        if self.settle(outcome):
            self._loop.wake_caller(self.wake)

    def fail(self, why: MycorrizalError) -> None:
        if self.settle(why):
            self._loop.wake_caller(self.wake)

    @property
    def failed(self) -> bool:
        """Whether the outcome is an error."""
        return isinstance(self.outcome, MycorrizalError)

    def wait(self, deadline: Deadline) -> bool:
        done = super().wait(deadline)
        self._loop.ran()
        return done

    def progress(self, size: int) -> None:
        """`size` more bytes were given to the network."""
        self.taken += size

    def result(self, operation: str) -> Any:
        """Return the outcome, which is there.

        Raises:
            MycorrizalError: what the call failed with.
        """
        outcome = self.outcome
        if self.failed:
            raise own(outcome, operation)
        return outcome

    def wait_watching(self, deadline: Deadline, progress: Progress | None, total: int) -> bool:
        """Wait, and call `progress(bytes, total)`, if given, as it advances; on the caller's thread."""
        if progress is None:
            return self.wait(deadline)
        told = -1
        while True:
            done = self.wait(Deadline(deadline.capped(_PROGRESS_SECONDS)))
            if done and not self.failed:
                progress(total, total)
                return True
            if self.taken != told:
                told = self.taken
                progress(min(told, total), total)
            if done or deadline.passed:
                return done


def take(core: Core, deadline: Deadline, progress: Progress | None) -> Message:
    """Wait for a message and return it, read or not; a `progress` that raises, or a Ctrl-C, loses none.

    Raises:
        OperationTimeout: none came; and what else ``Inbox.get`` raises.
    """
    total = 0
    while True:
        with core.pool.waiting():
            if progress is None:
                item = core.inbox.get(deadline.remaining())
            else:
                item, total = _watched(core, deadline, progress)
        sender, received = item
        try:
            if progress is not None and total:
                progress(total, total)
            return Message(sender, core.decode(received, sender, "a message"))
        except ValueDecodeError as error:
            error.operation = "receive"
            return Message.unreadable(error, sender=sender)
        except RemoteProtocolError:
            pass  # counted, and its sender is disconnected
        except BaseException:
            core.inbox.put_back(item, received.size)
            raise


def _watched(core: Core, deadline: Deadline, progress: Progress) -> tuple[tuple[str, Received], int]:
    """Wait for a message, and call `progress(bytes, total)` as a large one arrives; return its total, 0 if small."""
    told = (0, 0)
    while True:
        try:
            item = core.inbox.get(deadline.capped(_PROGRESS_SECONDS))
            break
        except OperationTimeout:
            if deadline.passed:
                raise
        found = None if core.stopped else core.ask(core.machine.arriving, "receive")
        if found is not None and found != told:
            told = found
            progress(*found)
    size = item[1].size
    return item, (told[1] or size) if size > INLINE_MAX else 0


class FutureTicket(Generic[T]):
    """For a caller that has a future, which is finished on a thread that may run user code."""

    def __init__(self, future: PlaneFuture[T], completions: Completions, finish: Callable[[Any], T], operation: str):
        self._future = future
        self._completions = completions
        self._finish = finish
        self._operation = operation

    def succeed(self, outcome: object) -> None:
        finish = self._finish
        self._completions.post(self._future, lambda: finish(outcome))

    def fail(self, why: MycorrizalError) -> None:
        operation = self._operation

        def failed() -> T:
            raise own(why, operation)

        self._completions.post(self._future, failed)


def own(why: MycorrizalError, operation: str) -> MycorrizalError:
    """Return a copy of `why` for one caller: several may end with the same, each on a thread of its own."""
    mine = copied(why)
    mine.operation = operation
    return mine


def ask(
    core: Core, node: str, name: str, encode: Callable[[], Encoded], timeout: float | None, progress: Progress | None
) -> Any:
    """Ask, and return the answer; again, as long as the node has just started and lacks the handler. Blocks.

    Args:
        encode: makes what is sent. The call lets go of it when it ends, while an error keeps the frames here.
    """
    deadline, pause = core.deadline(timeout), _FIRST_PAUSE
    while True:
        try:
            return _ask(core, node, name, encode, timeout, deadline, progress)
        except UnknownHandler as unknown:
            if not unknown.retriable or deadline.capped(2 * pause) < 2 * pause:  # no time for a try
                raise
        with core.pool.waiting():
            Waiter().wait(Deadline(pause))
        pause = min(2 * pause, _LAST_PAUSE)


def _ask(
    core: Core, node: str, name: str, encode: Callable[[], Encoded], timeout: float | None, deadline: Deadline,
    progress: Progress | None,
) -> Any:  # fmt: skip
    ticket = BlockingTicket(core.loop)
    call = Call(node, field(name), encode(), deadline.moment, ticket, core.depth(), core.request_times)
    size = call.value.size
    call.done = deadline.passed  # else a quick peer might have answered before this thread looks
    try:
        link = core.begin_request(call)
        with core.pool.waiting():
            done = link is not None and progress is None and core.read_answer(link, call, ticket, deadline)
            done = done or ticket.wait_watching(deadline, progress, size)
    except BaseException as over:
        cancel_call(core, call, over)
        raise
    if not done:
        raise late(core, call, name, timeout, "request")
    status, received = ticket.result("request")
    return answer(core, status, received, node, name)


def answer(core: Core, status: int, received: Received, node: str, name: str, operation: str = "request") -> Any:
    """Return the value of a response, or raise what it says. On the caller's thread."""
    if status == Status.OK:
        try:
            return core.decode(received, node, f"the answer to {name!r}")
        except (RemoteProtocolError, ValueDecodeError) as unread:
            unread.node, unread.operation = node, operation
            raise
    if status == Status.RAISED:
        kind, text = _raised(core, received, node)
        kind = printable(kind)
        hint = f"the log of {node} says more"
        raise RemoteError(
            f"{node}: {name}: {kind}: {text}", kind=kind, text=text, node=node, operation=operation, hint=hint
        )
    if status in (Status.UNKNOWN, Status.NOT_YET):
        yet = status == Status.NOT_YET  # the same words, so that who compares them finds one error
        text = f"{node} has no handler {name!r}" + (" yet: it has just started" if yet else "")
        hint = "try again, or give it handlers=" if yet else f"register it there with @on_request({name!r})"
        raise UnknownHandler(text, node=node, operation=operation, hint=hint, retriable=yet)
    if status == Status.BUSY:
        raise PeerBusy(f"{node} is busy", node=node, operation=operation, hint="try again, or raise its handlers=")
    if status == Status.TOO_LARGE:
        raise ValueTooLarge(
            f"{node}: {name}: the value or the answer is above max_value",
            node=node,
            operation=operation,
            hint="raise max_value on both sides, or use a stream",
        )
    if status == Status.TOO_DEEP:
        text = f"{node}: {name}: as many handlers as may run wait for each other's answers"
        hint = "let a handler answer before it asks further, or raise handler_spares="
        raise NestedTooDeep(text, node=node, operation=operation, hint=hint)
    if status == Status.EXPIRED:
        text = f"{node}: {name}: the time was up before a handler was free"
        raise error(Ending.TIMEOUT, text, node=node, operation=operation)
    raise error(Ending.PEER_CLOSED, f"{node} is shutting down", node=node, operation=operation)


def _raised(core: Core, received: Received, node: str) -> tuple[str, str]:
    try:
        match core.decode(received, node, "an error"):
            case [str(kind), str(text)]:
                return kind, text
    except (RemoteProtocolError, ValueDecodeError):
        pass
    return "Exception", "an error that cannot be read"


def field(name: str) -> bytes:
    """Return the name of a handler as it travels.

    Raises:
        ConfigError: it is empty, too long, or no text.
    """
    name = as_builtin(name)
    if not isinstance(name, str):
        hint = "e.g. 'score'; a decorator takes it in parentheses, above the function"
        raise ConfigError("name", f"must be text, not {type(name).__name__}", hint=hint)
    try:
        return name_field(name)
    except ValueError as exc:
        raise ConfigError("name", str(exc), hint="e.g. 'score'") from None


def node_names(nodes: Iterable[str]) -> list[str]:
    """Return each of several nodes once.

    Raises:
        TypeError: it is one name, whose letters are no nodes.
    """
    if isinstance(nodes, str):
        raise TypeError(f"request_all: several nodes are given as a list of names, such as [{nodes!r}]")
    return list(dict.fromkeys(map(as_builtin, nodes)))


def late(core: Core, call: Call, name: str, timeout: float | None, operation: str) -> MycorrizalError:
    """Give up a request that took too long; return the error."""
    why = core.machine.delay(call.node)
    cancel_call(core, call)
    text = f"no answer to {name!r} from {call.node} within {timeout} s{why}"
    return error(Ending.TIMEOUT, text, sent=call.sent, node=call.node, operation=operation)


def cancelled(sent: bool, node: str, operation: str) -> MycorrizalError:
    """Return the error for a call that was given up through its future."""
    return error(Ending.CANCELLED, "the call was cancelled", sent=sent, node=node, operation=operation)


def withdraw(core: Core, node: str, message: OutMessage, over: BaseException | None = None) -> None:
    """Nobody waits for a message any more, since the wait has raised `over`. Any thread."""
    message.over = True  # first of all: see ``Lender``
    _ended(over, message.sequence > 0, node, "send")
    if not core.submit(lambda now: core.machine.peer(node).withdraw(message, now)):
        message.value = None


def cancel_call(core: Core, call: Call, over: BaseException | None = None) -> None:
    """Nobody waits for a request any more, since the wait has raised `over`. Any thread."""
    call.over = True  # first of all: see ``Lender``
    _ended(over, call.sent, call.node, "request")
    if not core.submit(lambda now: core.machine.peer(call.node).cancel(call, now)):
        call.end()


def _ended(over: BaseException | None, sent: bool, node: str, operation: str) -> None:
    """Let the end of the program, which knows of no call, say which one it has ended."""
    if isinstance(over, NotRunningError) and over.operation is None:
        over.node, over.operation, over.indeterminate = node, operation, sent
