"""An agent's caches on the loop thread of its data plane: owns the ``CacheMachine``, and carries what it asks for.

Requests of other agents are answered on the loop thread, past the pool of
handlers; a caller's operation is one submission to the loop and one wait.
Values are encoded and decoded on callers' threads only.
"""

from __future__ import annotations

import math
import os
import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..._cache.core import Call as CacheCall
from ..._cache.entry import Entry
from ..._cache.machine import Announced, CacheMachine, Job, Later
from ..._cache.near import Near
from ..._cache.operations import READS, Batch, Kind, Op, Result
from ..._cache.placement import PARTITIONS
from ..._cache.survey import Cursor
from ..._data.calls import Call
from ..._data.ports import Received, Served
from ..._endings import Ending, cache_error, error, for_call
from ..._wire.frames import Status
from ..._wire.lent import Lent
from ..._wire.text import logger
from ..._wire.values import encode_value
from ...exceptions import CacheError, MycorrizalError, NotRunningError, OperationTimeout, ServiceCrashed
from ..data.core import RESERVED, Core
from ..data.tickets import BlockingTicket, field
from ..quic.loop import Timer
from ..threads import clock
from ..threads.deadline import Deadline, Seconds
from ..threads.service import Service
from ..threads.waits import pause

__all__ = ["CacheHost", "new_id"]

log = logger("mycorrizal.cache")

_ASK, _TELL = RESERVED + "cache", RESERVED + "cache.notice"
_NOTICE_SECONDS = 2.0
_WALL_SECONDS = 60.0
_GRACE_SECONDS = 1.0  # a caller waits so much longer than its operation, which always ends at its deadline
_LOOK_SECONDS = 0.5  # how often who waits looks whether the loop thread is still there
_FOREVER = 365.0 * 86400
_JOBS_MAX = 16
_OK = int(Status.OK)
_HARMLESS = frozenset({Kind.GET, Kind.RETURN})
_NOT_READ = frozenset({Status.UNKNOWN, Status.NOT_YET, Status.BUSY, Status.CLOSING, Status.TOO_LARGE})

Outcome = Result | CacheError


def new_id() -> int:
    """Return an id for an operation that its caller may have to withdraw. Any thread."""
    return int.from_bytes(os.urandom(8)) >> 2 | 1


class CacheHost:
    """The machine's owner. Methods say which thread may call them.

    Args:
        core: of the data plane whose loop thread owns the machine.
        expect: nothing is written or locked before so many members were seen at one time.
        members: returns how many there are; any thread.
    """

    def __init__(self, core: Core, expect: int = 0, members: Callable[[], int] = lambda: 0) -> None:
        self._core = core
        self._expect = expect
        self._members = members
        now = clock.now()
        self._wall_at = now
        self.machine = CacheMachine(
            core.name, core.boot, rng=random.Random(int.from_bytes(os.urandom(16))), wall=now + clock.wall_offset(),
            now=now,
        )  # fmt: skip
        self._ask, self._tell = field(_ASK), field(_TELL)
        self._begun: deque[Job] = deque()  # one a caller, who waits for it
        self._views: deque[Announced] = deque()
        self._lending: dict[int, _CallTicket] = {}  # of calls under way that send from a caller's memory
        self._waiting: dict[Later, Served] = {}
        self._ended: deque[tuple[int, Received | None, bool]] = deque()  # calls that ended while outputs were pulled
        self._pulling = False
        self._jobs: dict[object, Service] = {}
        self._timer: Timer | None = None
        self._due = math.inf  # when it fires
        self._empty = encode_value(b"")
        core.system[_ASK] = self._asked
        core.system[_TELL] = self._told
        core.at_end.append(self._hide)

    # -- callers (any thread) -----------------------------------------------------------------

    def call(self, begin: Callable[[Any, float, float], object], deadline: Deadline, operation: str) -> Any:
        """Run ``begin(ticket, until, now)`` on the loop thread, and return what completes the ticket. Blocks.

        Raises:
            What `begin` raises, and OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError,
            ForkedProcessError
        """
        core = self._core
        core.check(operation)
        deadline = core.deadline(deadline.remaining())
        until = clock.now() + deadline.capped(_FOREVER)
        ticket = BlockingTicket(core.loop)
        core.begin(partial(self._begin, begin, ticket, until), operation)
        return self._result(ticket, until, operation)

    def operate(
        self, cache: str, ops: Sequence[Op] | Batch, timeout: Seconds | None, operation: str, lent: Lent | None = None
    ) -> list[Outcome]:
        """Run operations; return what came of each, in order. Blocks. Raises as ``call``."""
        core = self._core
        core.check(operation)
        if self._expect:
            self._wait_for_members(_kinds(ops), operation)
        until = clock.now() + core.deadline(timeout).capped(_FOREVER)
        ticket = BlockingTicket(core.loop)
        self._begun.append((cache, ops, ticket, until, lent))
        core.begin(self._operate, operation)
        try:
            outcomes: list[Outcome] = self._result(ticket, until, operation)
        except (OperationTimeout, NotRunningError, ServiceCrashed) as exc:
            sent = not _kinds(ops) <= READS
            raise for_call(exc, sent, operation=operation) from exc.__cause__
        return outcomes

    def _wait_for_members(self, kinds: set[int], operation: str) -> None:
        """Refuse writes, leases and locks while fewer members were seen than are expected: a half has its own."""
        seen = self._members()
        if seen >= self._expect:
            self._expect = 0
        elif not kinds <= _HARMLESS:
            text = f"{operation}: {seen} of the {self._expect} members that are expected have been seen"
            raise cache_error(False, text, hint="nothing happened; agent.wait_for(n) waits for them")

    def _result(self, ticket: BlockingTicket, until: float, operation: str) -> Any:
        """Wait for what completes `ticket`, for as long as there is a loop thread that may."""
        core = self._core
        until += _GRACE_SECONDS
        with core.pool.waiting():
            while not ticket.wait(Deadline.at(min(until, clock.now() + _LOOK_SECONDS))):
                if not core.loop.service.alive and not ticket.done:
                    raise core.refusal(operation)
                if clock.now() >= until and not ticket.done:
                    raise error(Ending.TIMEOUT, f"{operation}: nothing came of it in time", operation=operation)
        return ticket.result(operation)

    def lend(self, cache: str, op: Op, lent: Lent, timeout: Seconds | None, operation: str) -> Outcome:
        """Run an operation whose value is `lent`. When it ends, however, that memory is the caller's again.

        Blocks. Raises as ``call``.
        """
        try:
            (outcome,) = self.operate(cache, (op,), timeout, operation, lent)
        except BaseException:
            lent.over = True  # first of all, and no call, within which a second Ctrl-C could come
            self._core.submit(partial(self._give_up, cache, lent))
            raise
        lent.over = True  # no call has it any more: the machine has ended them
        return outcome

    def withdraw(self, cache: str, op: Op) -> None:
        """Nobody waits for `op`, which asks for a lease or a lock, any more: none is held for it. Never blocks."""

        def command(now: float) -> None:
            self._operate(now)  # it may not have begun
            self.machine.withdraw(cache, op, now)
            self._pull(now)

        self._core.submit(command)

    def was_told(self, cache: str) -> None:
        """The others have heard that we take part in `cache`. Never blocks."""

        def command(now: float) -> None:
            self.machine.told(cache, now)
            self._pull(now)

        self._core.submit(command)

    def leads(self, cache: str, key: bytes) -> bool:
        """Return whether this agent seems to be primary of `key`."""
        return self.machine.leads(cache, key)

    def do(self, action: Callable[[float], Any], deadline: Deadline, operation: str) -> Any:
        """Run ``action(now)`` on the loop thread and return its result. Blocks. Raises as ``call``."""

        def begin(ticket: Any, until: float, now: float) -> None:
            ticket.succeed(action(now))

        return self.call(begin, deadline, operation)

    def pause(self, seconds: float, operation: str) -> None:
        """Wait, for as long as there is a loop thread. Blocks. Raises as ``call``, but no timeout."""
        deadline = Deadline(seconds)
        while not deadline.passed:
            self._core.check(operation)
            pause(deadline.capped(_LOOK_SECONDS))

    def keys(self, cache: str, cursor: Cursor, most: int, deadline: Deadline) -> tuple[list[bytes], Cursor]:
        """Return some keys and where to go on. Blocks. Raises as ``call``."""

        def begin(ticket: Any, until: float, now: float) -> None:
            self.machine.keys(cache, cursor, most, ticket, until, now)

        found: tuple[list[bytes], Cursor] | CacheError = self.call(begin, deadline, "keys")
        if isinstance(found, CacheError):
            raise found
        return found

    def stats(self, cache: str, deadline: Deadline, own: dict[str, int]) -> dict[str, dict[str, int] | None]:
        """Return the numbers of all members by name, `own` as ours. Blocks. Raises as ``call``."""

        def begin(ticket: Any, until: float, now: float) -> None:
            self.machine.stats(cache, ticket, until, now)

        found: dict[str, dict[str, int] | None] = self.call(begin, deadline, "stats")
        return {**found, self.name: own}

    def synced(self, cache: str, deadline: Deadline) -> bool:
        """Return whether every copy is in place by the deadline. Blocks. Raises as ``call``."""

        def begin(ticket: Any, until: float, now: float) -> None:
            self.machine.synced(cache, ticket, until, now)

        return bool(self.call(begin, deadline, "synced"))

    @property
    def name(self) -> str:
        """This agent's name."""
        return self._core.name

    def sees(self, other: CacheHost) -> bool:
        """Return whether the agent of `other` is a member in this one's view. Never blocks."""
        return self.machine.sees(other.machine)

    def note(self, counter: str, why: object) -> None:
        """Count something that went wrong without a caller to tell."""
        self._core.count(counter)
        log.debug("%s: %s: %s", self._core.name, counter, why)

    def background(self, job: Callable[[], object]) -> bool:
        """Run `job` on a thread of its own; a few at a time, further ones are dropped and counted (False)."""
        if len(self._jobs) >= _JOBS_MAX:
            self._core.count("cache.refreshes_dropped")
            return False

        def run() -> None:
            try:
                job()
            except BaseException as exc:
                self._core.count("cache.refreshes_failed")
                log.warning("%s: a value could not be computed anew: %r", self._core.name, exc, exc_info=exc)

        def ended() -> None:
            self._jobs.pop(key, None)

        key = object()
        service = Service("mycorrizal-refresh", self._core.name, run, ended)
        self._jobs[key] = service
        try:
            service.start()
        except RuntimeError as exc:  # no thread is to be had
            ended()
            self.note("cache.refreshes_dropped", exc)
            return False
        return True

    def readable(self, cache: str) -> list[dict[bytes, Entry]]:
        """Return the tables by partition that any thread may read."""
        return self.machine.readable(cache)

    def near(self, cache: str) -> Near:
        """Return the near copies."""
        return self.machine.near(cache)

    def members_changed(self, announced: Announced) -> None:
        """Tell the machine who announces what; does not wait.

        If the loop thread is behind, only the last of several is looked at.
        """
        self._views.append(announced)
        self._core.submit(self._show)

    # -- the loop thread --------------------------------------------------------------------------

    def _begin(self, begin: Callable[[Any, float, float], object], ticket: Any, until: float, now: float) -> None:
        try:
            begin(ticket, until, now)
        except MycorrizalError as error:
            ticket.fail(error)
        self._pull(now)

    def _operate(self, now: float) -> None:
        """Begin what callers have submitted by now: in one turn, so that it travels together."""
        begun = self._begun
        if begun:
            self.machine.operate_all([begun.popleft() for _ in range(len(begun))], now)
            self._pull(now)

    def _show(self, now: float) -> None:
        view = None
        while self._views:
            view = self._views.popleft()
        if view is not None:
            self.machine.members_changed(view, now)
            self._pull(now)

    def _hide(self) -> None:
        """The last act: what is here grows old from now on, and nobody may read it any more."""
        for space in self.machine.spaces():
            space.readable[:] = [{}] * PARTITIONS
            space.near.until[:] = [-math.inf] * PARTITIONS

    def _give_up(self, cache: str, lent: Lent, now: float) -> None:
        self.machine.give_up(cache, lent, now)
        self._pull(now)

    def _asked(self, request: Served) -> None:
        now = clock.now()
        answer = self.machine.receive(request.sender, request.value, now)
        if isinstance(answer, Later):
            self._waiting[answer] = request
        else:
            request.link.respond(request, Status.OK, answer, now)
        self._pull(now)

    def _told(self, request: Served) -> None:
        now = clock.now()
        self.machine.notice(request.sender, request.value, now)
        request.link.respond(request, Status.OK, self._empty, now)
        self._pull(now)

    def _tick(self, now: float) -> None:
        self._due = math.inf
        if now - self._wall_at > _WALL_SECONDS:
            self._wall_at = now
            self.machine.set_wall(now + clock.wall_offset(), now)
        self.machine.handle_timer(now)
        self._pull(now)

    def _pull(self, now: float) -> None:
        """Pull all outputs of the machine; what ends meanwhile is given to it in turn."""
        if self._pulling:
            return
        self._pulling = True
        try:
            while self._outputs(now):
                while self._ended:
                    self._end(*self._ended.popleft(), now)
        finally:
            self._pulling = False
        due = self.machine.get_timer()
        if due is not None and due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = self._core.loop.call_at(due, self._tick)

    def _outputs(self, now: float) -> bool:
        """Carry what there is to carry; return whether the machine must be looked at again."""
        machine = self.machine
        calls = machine.calls_to_start()
        for call in calls:
            self._request(call, now)
        if self._lending:
            for number in machine.calls_to_cancel():
                lending = self._lending.pop(number, None)
                carried = None if lending is None else lending.let_go()
                if carried is not None and not carried.done:
                    self._core.machine.peer(carried.node).cancel(carried, now)
        for member, payload in machine.notices_to_send():
            ignore = Call(member.name, self._tell, payload, now + _NOTICE_SECONDS, _Ignored())
            self._core.machine.request(ignore, now)
        for later, answer in machine.replies_to_send():
            request = self._waiting.pop(later, None)
            if request is not None:
                request.link.respond(request, Status.OK, answer, now)
        for ticket, outcome in machine.completions():
            if isinstance(outcome, MycorrizalError):
                ticket.fail(outcome)
            else:
                ticket.succeed(outcome)
        return bool(self._ended)

    def _request(self, call: CacheCall, now: float) -> None:
        ticket = _CallTicket(self, call.id)
        carried = Call(call.member.name, self._ask, call.payload, call.deadline, ticket)
        ticket.call = carried
        if call.payload.lent is not None:
            self._lending[call.id] = ticket
        self._core.machine.request(carried, now)

    def ended(self, call: int, received: Received | None, unsure: bool) -> None:
        """A call was answered, or failed: tell the machine, now or as soon as its outputs are pulled."""
        if self._pulling:
            self._ended.append((call, received, unsure))
            return
        now = clock.now()
        self._end(call, received, unsure, now)
        self._pull(now)

    def _end(self, call: int, received: Received | None, unsure: bool, now: float) -> None:
        if self._lending:
            self._lending.pop(call, None)
        if received is not None:
            self.machine.answered(call, received, now)
        else:
            self.machine.failed(call, unsure, now)


def _kinds(ops: Sequence[Op] | Batch) -> set[int]:
    return {ops.kind} if isinstance(ops, Batch) else {op.kind for op in ops}


class _CallTicket:
    """Where the end of one call goes. Loop thread."""

    __slots__ = ("_host", "_id", "call")

    def __init__(self, host: CacheHost, call_id: int) -> None:
        self._host = host
        self._id = call_id
        self.call: Call | None = None

    def let_go(self) -> Call | None:
        """Return the call, and forget it: each knows the other, so only a collection would free what it sends."""
        call, self.call = self.call, None
        return call

    def succeed(self, outcome: Any) -> None:
        self.call = None
        status, received = outcome
        # No handler, no room, closing: it was not looked at. Anything else may have been.
        self._host.ended(self._id, received if status == _OK else None, status not in _NOT_READ)

    def fail(self, error: MycorrizalError) -> None:
        call = self.let_go()
        self._host.ended(self._id, None, error.indeterminate or (call is not None and call.sent))


class _Ignored:
    """Of a notice: it may get lost."""

    __slots__ = ()

    def succeed(self, outcome: object) -> None:
        return None

    def fail(self, error: MycorrizalError) -> None:
        return None
