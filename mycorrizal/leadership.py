"""``agent.lead(name)``: one agent of the cluster at a time does a job, and another one where it dies.

::

    with agent.lead("nightly") as term:              # waits until it is this agent's turn
        while term.held:
            step(fence=term.token)
    with agent.lead("report", every=3600):           # once an hour, by whichever agent comes first
        report()

A term is a lock of a cache that all who lead open together, renewed while the
block runs. A run of ``every=`` is an entry beside it, which lives until the
period is over: so no wall clock counts. docs/leadership.md says when that
is enough and when it is not.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ._cache.definition import Definition
from ._cache.entry import LOCK_PREFIX
from ._cache.operations import Kind, Op, Status
from ._cache.reading import raw_key
from ._runtime.threads.clock import now, span
from ._runtime.threads.deadline import Deadline, Seconds
from ._runtime.threads.lifecycle import Handle
from .cache import Cache
from .config import RESERVED
from .exceptions import CacheOutcomeUnknown, MycorrizalError, NotLeader, OperationTimeout
from .leases import Lock, seconds_of, take_lock

__all__ = ["LEADERS", "Term", "lead"]

LEADERS = Definition(RESERVED + "leaders", replicas=3)
"""The cache that is led by unless another one is given: three copies outlive two crashes at a time."""

_RAN = RESERVED + "ran/"  # what the keys of records begin with, beside others in a cache that is given
_ASKING_SECONDS = 10.0  # with wait=False and no timeout
_LOOK_SECONDS = 30.0  # the record of a run may be deleted before its time


class Term(Handle):
    """This agent leads; made by ``Agent.lead``. A context manager, at whose end another one may. Any thread.

    Attributes:
        name: of what it leads.
        token: the fencing token: greater than that of every leader before.
    """

    def __init__(self, cache: Cache, lock: Lock, every: float | None) -> None:
        self._cache = cache
        self._lock = lock
        self._every = every
        self._began = now()
        self.name = lock.name
        self.token = lock.token

    @property
    def held(self) -> bool:
        """Whether it leads still, as far as is known here: its lease is not over by this process' clock. Never blocks.

        A process that stands still between this and what it does next does not know what happened meanwhile: what
        only a leader may do should take ``token`` along.
        """
        return self._lock.held

    def _ran(self) -> None:
        """Write down that the run of this period is done, unless it took longer. Raises as ``Lock.renew``."""
        if self._every is None:
            return
        self._lock.renew()
        took = now() - self._began
        if took < self._every:
            run = {"node": self._cache._host.name, "token": self.token, "seconds": took}
            self._cache.set(_RAN + self.name, run, ttl=self._every - took)

    def __enter__(self) -> Term:
        self._lock.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        """Give it up. Blocks.

        Raises:
            LockLost: it did not lead any more; never in place of an error of the block's own.
        """
        try:
            if exc_info[0] is None:
                self._ran()
        except BaseException as error:
            self._lock.__exit__(type(error), error, error.__traceback__)
            raise
        self._lock.__exit__(*exc_info)

    def __repr__(self) -> str:
        return f"<Term {self.name!r}, token {self.token}, {'held' if self.held else 'not held'}>"


def lead(
    cache: Cache, name: str, lease: Seconds, every: Seconds | None, wait: bool, timeout: Seconds | None
) -> Term:
    """See ``Agent.lead``."""
    period = None if every is None else seconds_of("every", every)
    deadline = Deadline(timeout if wait or timeout is not None else _ASKING_SECONDS)
    while True:
        left = _left(cache, name, period, deadline)
        if not left:
            lock = _taken(cache, name, lease, deadline, wait)
            try:
                left = _left(cache, name, period, deadline)  # somebody may have run while we waited
            except BaseException:
                _give_back(lock)
                raise
            if not left:
                return Term(cache, lock, period)
            _give_back(lock)
        if not wait or deadline.capped(left) < left:
            raise NotLeader(
                f"{name!r} has run in this period, and does so again in {span(left)}", due=left, operation="lead",
                hint="wait=True and a longer timeout= wait for that",
            )  # fmt: skip
        cache._host.pause(min(left, _LOOK_SECONDS), "lead")


def _left(cache: Cache, name: str, period: float | None, deadline: Deadline) -> float:
    """Return the seconds to the end of the period in which it has run, 0 if it is due; straight from the primary."""
    if period is None:
        return 0.0
    result = cache._one(Op(Kind.GET, raw_key(_RAN + name)), deadline.remaining(), "lead")
    return min(result.ttl / 1000 or period, period) if result.status == Status.OK else 0.0


def _give_back(lock: Lock) -> None:
    """Let another one take it; if that cannot be told, its lease ends by itself."""
    with suppress(MycorrizalError):
        lock.release()


def _taken(cache: Cache, name: str, lease: Seconds, deadline: Deadline, wait: bool) -> Lock:
    """Return the lock.

    Raises:
        NotLeader: somebody else has it.
    """
    while True:
        try:
            return take_lock(cache, name, LOCK_PREFIX + raw_key(name), lease, deadline, True, patient=wait)
        except CacheOutcomeUnknown:  # as where a quorum comes back: what may have been given was given back
            if not wait or deadline.passed:
                raise
        except OperationTimeout as error:
            if error.node is None:
                raise  # nobody has said who has it
            raise NotLeader(
                f"{name!r} is led by {error.node}", node=error.node, operation="lead",
                hint="wait=True and a longer timeout= wait for the end of that",
            ) from None  # fmt: skip
