"""``join``: resolve what people wrote, then push/pull with several seeds at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any, TypeVar

from ...exceptions import (
    ConfigError,
    ForkedProcessError,
    JoinError,
    MycorrizalError,
    NotRunningError,
    OperationTimeout,
    QueueFull,
    ResourcesExhausted,
    ServiceCrashed,
)
from ...types import Address, JoinResult
from ..net import addresses
from ..net.addresses import JoinEntry
from ..threads.deadline import Deadline
from ..threads.waits import settled, wait_sliced
from .membership import Membership

__all__ = ["join"]

T = TypeVar("T")

AT_ONCE = 8
"""Push/pulls under way at a time; each carries the whole table both ways."""

_FATAL = (NotRunningError, ServiceCrashed, ForkedProcessError)


def join(membership: Membership, texts: Iterable[str], deadline: Deadline) -> JoinResult:
    """Join through every entry of `texts`; see ``Memberlist.join``."""
    return _Join(membership, texts, deadline).run()


class _Join:
    """One call of ``join``, on its caller's thread."""

    def __init__(self, membership: Membership, texts: Iterable[str], deadline: Deadline) -> None:
        self._membership = membership
        self._deadline = deadline
        self._failures: dict[str, Exception] = {}
        self._reached: dict[str, int] = {}
        self._itself = False
        self._targets: deque[tuple[JoinEntry, Address]] = deque()
        self._resolving: dict[Future[Any], JoinEntry] = {}
        self._joining: dict[Future[Any], tuple[JoinEntry, Address]] = {}
        self._texts = [texts] if isinstance(texts, str) else list(texts)

    def run(self) -> JoinResult:
        """Return what was reached.

        Raises:
            JoinError: nothing was, and there was something to reach.
        """
        for text in self._texts:
            self._begin(text)
        try:
            while self._targets or self._resolving or self._joining:
                self._fill()
                if not self._step():
                    self._out_of_time()
                    break
        finally:
            for future in (*self._resolving, *self._joining):
                future.cancel()
        reached = sum(self._reached.values())
        failures = {  # in the order they were given
            text: self._failures[text]
            for text in map(str, self._texts)
            if text in self._failures and text not in self._reached
        }
        if not reached and self._texts:
            raise self._error(failures)
        return JoinResult(reached, failures, self._itself, self._delegates_pending())

    def _delegates_pending(self) -> bool:
        """Wait until the delegates have been told what the seeds told; whether they have not when the time is over."""
        dispatcher = self._membership.dispatcher
        if dispatcher is None:
            return False
        if dispatcher.service.is_current():
            return len(dispatcher) > 0  # they are told when this callback returns
        done = dispatcher.caught_up()
        try:
            return not settled(done, self._deadline)
        finally:
            done.cancel()

    def _begin(self, text: str) -> None:
        config = self._membership.config
        try:
            entry = addresses.parse_entry(text, config.bind_port)
            if config.require_node_names and not entry.name:
                hint = "require_node_names wants 'name/host:port'"
                raise ConfigError("addresses", f"{text!r} names no node", hint=hint)
        except ConfigError as exc:
            self._failures[str(text)] = exc
            return
        if addresses.is_literal(entry.host):
            self._targets.append((entry, (entry.host, entry.port)))
        else:
            self._ask(self._resolving, entry, entry, lambda: self._membership.resolve(entry.host, entry.port))

    def _ask(self, asked: dict[Future[Any], T], what: T, entry: JoinEntry, begin: Callable[[], Future[Any]]) -> None:
        """Begin something for `entry`; what cannot even begin, for want of room or threads, is that seed's failure."""
        try:
            asked[begin()] = what
        except (QueueFull, ResourcesExhausted) as exc:
            self._failures.setdefault(entry.text, exc)

    def _fill(self) -> None:
        while self._targets and len(self._joining) < AT_ONCE:
            target = entry, address = self._targets.popleft()
            self._ask(self._joining, target, entry, partial(self._push_pull, address, entry.name))

    def _push_pull(self, address: Address, name: str) -> Future[Any]:
        membership = self._membership

        def begin(now: float) -> int:
            membership.gossip.roaming.towards(address[0], now)
            return membership.machine.join(address, now, name=name)

        return membership.gossip.operation(begin)

    def _step(self) -> bool:
        """Take what has ended; False if the deadline passed instead."""
        pending = (*self._resolving, *self._joining)
        if not pending:
            return True
        wait_sliced(lambda s: bool(wait(pending, None if s < 0 else s, FIRST_COMPLETED).done), self._deadline)
        ended = [future for future in pending if future.done()]
        for future in ended:
            if future in self._resolving:
                entry = self._resolving.pop(future)
                if self._succeeded(future, entry):
                    self._targets.extend((entry, address) for address in future.result())
            else:
                entry, address = self._joining.pop(future)
                if self._succeeded(future, entry):
                    self._itself = self._itself or self._membership.is_own(address)
                    self._reached[entry.text] = self._reached.get(entry.text, 0) + 1
        return bool(ended)

    def _succeeded(self, future: Future[Any], entry: JoinEntry) -> bool:
        error = future.exception()
        if isinstance(error, _FATAL):
            raise error
        if isinstance(error, Exception):
            self._failures.setdefault(entry.text, error)
        return error is None

    def _out_of_time(self) -> None:
        asked = [*self._joining.values(), *self._targets]
        left = [*self._resolving.values(), *(entry for entry, _ in asked)]
        for entry in left:
            error = OperationTimeout("no answer within the timeout of join()", node=entry.text, operation="join")
            self._failures.setdefault(entry.text, error)

    def _error(self, failures: dict[str, Exception]) -> JoinError:
        count = len(failures)
        lines = "; ".join(f"{text}: {_reason(error)}" for text, error in failures.items())
        head = "the seed could not be joined" if count == 1 else f"none of the {count} seeds could be joined"
        error = JoinError(f"{self._membership.config.name}: {head}: {lines}", failures=failures)
        if count == 1:
            error.__cause__ = next(iter(failures.values()))
        return error


def _reason(error: Exception) -> str:
    text = str(error)
    return text if isinstance(error, MycorrizalError) and text else f"{type(error).__name__}: {text}"
