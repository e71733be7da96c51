"""The delegate thread: observation callbacks in order, away from the gossip thread.

What waits is bounded (design: every queue is). User messages beyond
``handoff_queue_depth``, or beyond 64 MiB, are dropped, counted, and warned about at
most once an interval, and so are states to merge and ping reports. Membership events
are never dropped; beyond a limit they are folded per node, so that at most two
wait for each: what remains is still true and still alternates join and leave.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..._swim import events as swim
from ..._wire.text import logger
from ...delegates import ConflictDelegate, Delegate, EventDelegate, PingDelegate
from ...types import Node
from ..threads.counters import Counters, QuietLog
from ..threads.deadline import Deadline
from ..threads.service import Service

__all__ = ["Dispatcher", "Observers"]

log = logger("mycorrizal.delegates")

FOLD_LIMIT = 4096
"""Waiting membership events from which on they are folded per node."""
_CAUGHT_UP = "(caught up)"
QUEUED_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of user messages and states that may wait; one larger than that may wait alone."""


@dataclass(frozen=True, slots=True)
class Observers:
    """The delegates whose observation methods the delegate thread calls; any may be missing."""

    delegate: Delegate | None = None
    events: EventDelegate | None = None
    conflict: ConflictDelegate | None = None
    ping: PingDelegate | None = None

    def __bool__(self) -> bool:
        return any(one is not None for one in (self.delegate, self.events, self.conflict, self.ping))


@dataclass(slots=True)
class _Item:
    call: str
    args: tuple[Any, ...]
    size: int
    name: str | None  # of the node, in membership events
    function: Callable[..., object] | None = None  # of a user, instead of the delegate's method


class Dispatcher:
    """Owns the thread ``mycorrizal-delegates`` and its queue.

    ``put`` is the gossip thread's; the rest may be called on any.
    """

    def __init__(self, observers: Observers, depth: int, node: str, counters: Counters) -> None:
        self._calls = _callables(observers)
        self._depth = depth
        self._node = node
        self._counters = counters
        self._quiet = QuietLog(log, node)
        self._changed = threading.Condition()
        self._items: OrderedDict[int, _Item] = OrderedDict()
        self._sequence = 0
        self._messages = 0  # waiting items that are not membership events
        self._bytes = 0
        self._by_node: dict[str, deque[int]] = {}
        self._membership = 0
        self._busy = False
        self._stopping = False
        self._abandoned = False
        self.service = Service("mycorrizal-delegates", node, self._run, self._ended)

    # -- the gossip thread --------------------------------------------------------------

    def put(self, event: swim.Event) -> None:
        """Queue the callback for `event`, if anybody observes that kind."""
        match event:
            case swim.NodeJoined(node=node):
                self._put_membership("notify_join", node)
            case swim.NodeLeft(node=node):
                self._put_membership("notify_leave", node)
            case swim.NodeUpdated(node=node):
                self._put_membership("notify_update", node)
            case swim.UserMessage(data=data):
                self._put_message("notify_msg", (data,), len(data))
            case swim.RemoteState(data=data, join=join):
                self._put_message("merge_remote_state", (data, join), len(data))
            case swim.PingComplete(node=node, rtt=rtt, payload=payload):
                self._put_message("notify_ping_complete", (node, rtt, payload), len(payload))
            case swim.NodeConflict(existing=existing, other=other):
                self._put_message("notify_conflict", (existing, other), 0)

    def put_call(self, call: str, function: Callable[..., object], args: tuple[Any, ...], size: int) -> None:
        """Queue a call of a user's `function` among the messages. Any thread."""
        self._put_bounded(_Item(call, args, size, None, function))

    def _put_message(self, call: str, args: tuple[Any, ...], size: int) -> None:
        if call in self._calls:
            self._put_bounded(_Item(call, args, size, None))

    def _put_bounded(self, item: _Item) -> None:
        call, size = item.call, item.size
        with self._changed:
            full = self._messages >= self._depth or (self._bytes and self._bytes + size > QUEUED_BYTES_MAX)
            if not full and not self._stopping:
                self._messages += 1
                self._bytes += size
                self._append(item)
                return
        if full:
            self._counters.add(f"dropped.{call}")
            self._quiet.warning(
                f"full {call}",
                "%d messages wait for the delegate, dropping %s; a delegate method is too slow",
                self._messages,
                call,
            )

    def _append(self, item: _Item) -> int:
        self._sequence += 1
        self._items[self._sequence] = item
        self._changed.notify()
        return self._sequence

    def _put_membership(self, call: str, node: Node) -> None:
        if call not in self._calls:
            return
        with self._changed:
            if self._stopping:
                return
            waiting = self._by_node.setdefault(node.name, deque())
            if self._membership >= FOLD_LIMIT and waiting and self._fold(waiting, call, node):
                self._counters.add("events.folded")
                if not waiting:
                    del self._by_node[node.name]
                return
            waiting.append(self._append(_Item(call, (node,), 0, node.name)))
            self._membership += 1

    def _fold(self, waiting: deque[int], call: str, node: Node) -> bool:
        """Merge a new event with the node's last waiting one; False if both must stand."""
        last = self._items[waiting[-1]]
        if call == last.call or (call == "notify_update" and last.call == "notify_join"):
            last.args = (node,)  # told with the newest record
            return True
        if last.call == "notify_update":  # update, then leave: the leave says it all
            self._forget(waiting)
            return bool(waiting) and self._fold(waiting, call, node)
        if call == "notify_leave" and last.call == "notify_join":
            self._forget(waiting)  # came and went unseen
            if waiting:  # it was there before: one leave, told with the newest record
                self._items[waiting[-1]].args = (node,)
            return True
        return False

    def _forget(self, waiting: deque[int]) -> None:
        del self._items[waiting.pop()]
        self._membership -= 1

    # -- any thread ---------------------------------------------------------------------

    def caught_up(self) -> Future[None]:
        """Return a future that is done when all that is queued now was called, or the thread has ended."""
        done: Future[None] = Future()
        with self._changed:
            if (not self._items and not self._busy) or self._stopping:
                done.set_result(None)
            else:
                self._messages += 1
                self._append(_Item(_CAUGHT_UP, (), 0, None, partial(_finish, done)))
        return done

    def __len__(self) -> int:
        return len(self._items)

    def stop(self) -> None:
        """Let the thread finish what is queued and end; nothing more is taken."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, deadline: Deadline) -> bool:
        """Wait for the end; at the deadline the rest of the queue is given up. False if a callback still runs."""
        if self.service.join(deadline):
            return True
        if not self.service.is_current():
            with self._changed:
                self._abandoned = True
                self._let_go()
        return False

    # -- the delegate thread --------------------------------------------------------------

    def _run(self) -> None:
        while True:
            call = "(none)"
            try:
                item = self._next()
                if item is None:
                    return
                call = item.call
                (item.function or self._calls[call])(*item.args)
            except BaseException as exc:  # sys.exit() in a callback ends neither us nor the process
                self._counters.add("delegate.faults")
                self._counters.add(f"delegate.faults.{call}")
                log.exception("%s: delegate method %s raised %r; ignored", self._node, call, exc)
            item = None  # an idle thread keeps nobody's values

    def _next(self) -> _Item | None:
        with self._changed:
            self._busy = False
            while not self._items and not self._stopping:
                self._changed.wait()
            if not self._items or self._abandoned:
                return None
            _, item = self._items.popitem(last=False)
            self._busy = True
            if item.name is None:
                self._messages -= 1
                self._bytes -= item.size
            else:
                self._membership -= 1
                waiting = self._by_node[item.name]
                waiting.popleft()
                if not waiting:
                    del self._by_node[item.name]
            return item

    def _ended(self) -> None:
        with self._changed:
            self._stopping = True
            self._let_go()
            self._items.clear()

    def _let_go(self) -> None:
        """Have nobody wait for what will not be called any more."""
        for item in self._items.values():
            if item.call == _CAUGHT_UP and item.function is not None:
                item.function()


def _finish(done: Future[None]) -> None:
    if not done.done() and done.set_running_or_notify_cancel():
        done.set_result(None)


def _callables(observers: Observers) -> dict[str, Callable[..., None]]:
    """Return the methods to call, by name; a delegate may leave out what it does not care for."""
    found: dict[str, Callable[..., None]] = {}
    for one, names in (
        (observers.delegate, ("notify_msg", "merge_remote_state")),
        (observers.events, ("notify_join", "notify_leave", "notify_update")),
        (observers.conflict, ("notify_conflict",)),
        (observers.ping, ("notify_ping_complete",)),
    ):
        for name in names:
            method = getattr(one, name, None)
            if method is not None:
                found[name] = method
    return found
