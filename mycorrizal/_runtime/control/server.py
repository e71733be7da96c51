"""The control plane of one agent: the thread ``mycorrizal-control`` and the workers that carry out commands.

The thread owns the sockets and never runs a command. A request goes to
a small pool of workers, which decode, check, wait and encode; the reply comes
back through the mailbox. Events come from any thread, numbered and encoded
there. So a client that is slow, floods, or sends rubbish costs a counted drop
or an error reply, and never the agent's time on any other thread.

Bounds, each with its counter: requests that wait (``command.refused``) and
their bytes and those of one client (``control.busy``), seconds of a command
(``control.timeouts``), events that wait to be sent (``control.events_dropped``),
and those of connections in ``control_sockets``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..._control.answers import Desk, code_of
from ..._control.commands import checked
from ..._control.controlled import Controlled
from ..._control.messages import REQUEST_MAX, decode_request, encode_event, encode_failure, encode_reply
from ..._control.plain import event_fields
from ..._wire.text import logger
from ...exceptions import (
    BindError,
    ControlError,
    MycorrizalError,
    NotRunningError,
    OperationTimeout,
    QueueFull,
    ResourcesExhausted,
)
from ..threads import clock, lifecycle, reentry
from ..threads.counters import Counters
from ..threads.deadline import Deadline
from ..threads.futures import Waiter
from ..threads.handlers import HandlerPool
from ..threads.mailbox import Mailbox
from ..threads.service import Service
from ..threads.shortage import as_ours, exhausted
from .endpoints import Endpoint
from .sockets import Client, ControlSockets

__all__ = ["ControlService"]

log = logger("mycorrizal.control")

WORKERS = 4
"""Commands that run at a time."""
SPARES = 28
"""Further ones while those wait for other nodes."""
REQUESTS_WAITING = 64
"""Commands that wait for a worker."""
REQUEST_BYTES = 16 << 20
"""Bytes of all requests that are open."""
PER_CLIENT = 8
"""Commands that one client may have open: far fewer than there are threads, so that others get one."""
EVENTS_WAITING = 1024
"""Events that wait for the thread."""
TOPICS_MAX = 1024
"""Topics whose events are numbered; the one that was quiet for longest begins anew."""
QUICK_SECONDS = 30.0
"""What a command without a timeout of its own may take."""
GRACE = 2.0
"""Seconds beyond its timeout until a command that does not end is answered for."""
START_SECONDS = 10.0

_NO_WORKER = "no worker was free in time; the command did not run"


@dataclass(slots=True)
class _Open:
    """One command on its way; what comes after `until` is set by its worker, and `until` anew."""

    client: Client
    size: int
    arrived: float
    until: float
    id: int | float | str | bytes | None = None
    begun: bool = False


class ControlService:
    """Answers commands for `agent` at one endpoint and tells its events at another.

    When the constructor returns, both are open.

    Args:
        agent: what the commands are carried out on.
        commands, events: endpoints, ``ipc:///path`` in a directory that only this user can enter.
        facts: further fields of ``info``.
        follow: whether to tell ``agent.events()``; False leaves it to ``publish``.

    Raises:
        ConfigError: an endpoint that is refused. BindError: one that cannot be opened.
        ResourcesExhausted: no descriptor, thread, memory or room for a file is left.
    """

    def __init__(
        self,
        agent: Controlled,
        *,
        commands: str,
        events: str,
        facts: Mapping[str, Any] | None = None,
        follow: bool = True,
    ) -> None:
        self._name = agent.name
        self._publisher = agent.boot.hex()
        self._guard = lifecycle.ForkGuard()
        self._counters = Counters(*(f"control.{name}" for name in _COUNTED))
        self._open: dict[int, _Open] = {}
        self._by_client: dict[bytes, int] = {}
        self._bytes = 0
        self._number = 0
        self._sequence = 0
        self._topics: OrderedDict[str, int] = OrderedDict()
        self._numbering = threading.RLock()  # guards _sequence, _topics, and their order in the mailbox
        self._stopping = False
        self._ready = Waiter()
        self._listeners = _listen([Endpoint.parse(text) for text in (commands, events)])
        self._endpoints = [endpoint for endpoint, _ in self._listeners]
        self._sockets: ControlSockets | None = None  # the control thread's
        told = {"version": _version(), "pid": os.getpid(), "commands": self.commands, "events": self.events}
        told |= facts or {}
        self._desk = Desk(agent, told, lambda: self._sequence)
        self._pool = HandlerPool(
            self._name,
            workers=WORKERS,
            spares=SPARES,
            queue=REQUESTS_WAITING,
            counters=self._counters,
            prefix="mycorrizal-command",
        )
        self._service = Service("mycorrizal-control", self._name, self._run, self._ended)
        self._source: Any = None
        self._follower: Service | None = None
        with as_ours(f"the control plane of {self._name} cannot start", operation="control"):
            self._begin()
            self._start(agent, follow)

    def _begin(self) -> None:
        """Start the thread, which owns the listeners from then on."""
        try:
            self._mailbox = Mailbox(EVENTS_WAITING)
            try:
                self._pool.start()
                self._service.start()
            except BaseException:
                self._pool.stop()
                self._mailbox.close()
                raise
        except BaseException:
            self._close_listeners()
            raise

    def _close_listeners(self) -> None:
        for endpoint, listener in self._listeners:
            listener.close()
            endpoint.remove()

    def _start(self, agent: Controlled, follow: bool) -> None:
        try:
            if not self._ready.wait(Deadline(START_SECONDS)):
                raise OperationTimeout("the control plane did not start", operation="control")
            if isinstance(self._ready.outcome, BaseException):
                raise self._ready.outcome
            lifecycle.remember(self)
            if follow:
                self._source = agent.events()
                self._follower = Service("mycorrizal-control-events", self._name, self._tell_all, lambda: None)
                self._follower.start()
        except BaseException:
            self.close()
            raise

    # -- any thread -------------------------------------------------------------------------

    @property
    def commands(self) -> str:
        """The endpoint for commands."""
        return str(self._endpoints[0])

    @property
    def events(self) -> str:
        """The endpoint of the event stream."""
        return str(self._endpoints[1])

    @property
    def crashed(self) -> BaseException | None:
        """What ended the thread, if something did."""
        return self._service.crashed

    def publish(self, topic: str, value: Mapping[str, Any]) -> bool:
        """Tell an event; False if it was dropped, which its subscribers notice by the number. Never blocks.

        A value that cannot be sent, or is too large, is told without.
        """
        if self._guard.forked:
            return False
        with self._numbering:
            self._sequence += 1
            number = self._topics[topic] = self._topics.pop(topic, 0) + 1
            if len(self._topics) > TOPICS_MAX:
                self._topics.popitem(last=False)
            data = encode_event(topic, (self._sequence, number), self._publisher, value)
            try:
                told = self._mailbox.tell(partial(self._publish, topic.encode("utf-8", "replace"), data), bounded=True)
            except QueueFull:
                told = False
        self._counters.add("control.events" if told else "control.events_dropped")
        return told

    def metrics(self) -> dict[str, int]:
        """Return counters and gauges; never blocks."""
        gauges = {"control.open": len(self._open), "control.threads": self._pool.threads}
        return {**self._counters.snapshot(), **gauges}

    def close(self, timeout: float | None = 3.0) -> None:
        """Stop answering. Idempotent, any thread; a command that is under way finishes on its own."""
        if self._guard.forked:
            return
        self.stop()
        deadline = Deadline(timeout)
        self.join(deadline)
        lifecycle.forget(self)

    def stop(self) -> None:
        """Begin to stop; does not wait."""
        self._stopping = True
        self._mailbox.wake()
        if self._source is not None:
            self._source.close()

    def join(self, deadline: Deadline) -> bool:
        """Wait for the threads; False if the deadline passed, or one of them is the caller's."""
        ended = self._service.join(deadline)
        if self._follower is not None:
            ended = self._follower.join(deadline) and ended
        return self._pool.join(deadline) and ended

    def abandon(self) -> None:
        """Close the descriptors in a forked child."""
        self._mailbox.close()
        if self._sockets is not None:
            self._sockets.abandon()
        for _, listener in self._listeners:
            listener.close()

    # -- the follower's thread ----------------------------------------------------------------

    def _tell_all(self) -> None:
        try:
            for event in self._source:
                try:
                    self.publish(*event_fields(event))
                except BaseException as fault:  # it holds a user's values
                    self._counters.add("control.faults")
                    log.exception("%s: an event could not be told: %r", self._name, fault)
        except MycorrizalError as error:  # the agent's own thread died, which the agent tells
            log.debug("%s: the control plane's events end: %s", self._name, error)

    # -- the control thread -------------------------------------------------------------------

    def _run(self) -> None:
        with reentry.owner("mycorrizal-control"):
            try:
                sockets = self._sockets = ControlSockets(self._listeners, self._counters, self._mailbox.fileno())
            except Exception as error:
                self._close_listeners()
                short = exhausted(error, "no control plane", operation="control")
                known = error if isinstance(error, MycorrizalError) else None
                self._ready.set(short or known or BindError(f"control plane: {error}"))
                return
            try:
                self._ready.set(None)
                wait: float | None = None
                while not self._stopping:
                    sockets.poll(wait)
                    wait = self._turn(sockets)
                self._mailbox.run()  # the last replies
            finally:
                sockets.close()
                for endpoint in self._endpoints:
                    endpoint.remove()

    def _turn(self, sockets: ControlSockets) -> float | None:
        """Do all there is to do; return the seconds until there is more, None if only others know."""
        self._mailbox.run()
        for client, data in sockets.requests():
            self._take(sockets, client, data)
        sockets.attend(self._hello)
        now = clock.now()
        moments = [moment for moment in (self._pool.tick(now), self._expire(sockets, now)) if moment is not None]
        return max(0.0, min(moments) - now) if moments else None

    def _take(self, sockets: ControlSockets, client: Client, data: bytes | None) -> None:
        """Hand a request to a worker, or refuse it."""
        self._counters.add("control.requests")
        if data is None:
            self._refuse(sockets, client, b"", "malformed", "a message of more than one frame is no request")
            return
        if len(data) > REQUEST_MAX:
            text = f"a request of {len(data)} bytes; {REQUEST_MAX} are the most"
            self._refuse(sockets, client, b"", "too_large", text)
            return
        mine = self._by_client.get(client.identity, 0)
        if mine >= PER_CLIENT or self._bytes + len(data) > REQUEST_BYTES:
            self._counters.add("control.busy")
            self._refuse(sockets, client, data, "busy", "too many commands are open; wait for their replies")
            return
        self._number += 1
        now = clock.now()
        one = self._open[self._number] = _Open(client, len(data), now, now + QUICK_SECONDS)
        self._by_client[client.identity] = mine + 1
        self._bytes += len(data)
        if not self._pool.submit(partial(self._work, self._number, one, data)):
            self._forget(self._number)
            self._refuse(sockets, client, data, "busy", "too many commands are waiting; try again")

    def _refuse(self, sockets: ControlSockets, client: Client, data: bytes, code: str, text: str) -> None:
        self._counters.add("control.errors")
        number = None
        if 0 < len(data) <= 4096:  # cheap enough for this thread
            with contextlib.suppress(MycorrizalError):
                number = decode_request(data).id
        error = ControlError(code, text, retriable=code == "busy")
        sockets.reply(client, encode_failure(number, code, error))

    def _forget(self, number: int) -> _Open | None:
        """Take a command out of the open ones; None if it has been answered for already."""
        one = self._open.pop(number, None)
        if one is not None:
            self._bytes -= one.size
            left = self._by_client[one.client.identity] - 1
            if left:
                self._by_client[one.client.identity] = left
            else:
                del self._by_client[one.client.identity]
        return one

    def _expire(self, sockets: ControlSockets, now: float) -> float | None:
        """Answer for commands that do not end; return when to look again."""
        for number in [number for number, one in self._open.items() if one.until <= now]:
            one = self._forget(number)
            assert one is not None
            self._counters.add("control.timeouts")
            text = "the command did not end in time; it goes on" if one.begun else _NO_WORKER
            error = ControlError("timeout", text, indeterminate=one.begun, retriable=not one.begun)
            sockets.reply(one.client, encode_failure(one.id, "timeout", error))
        # A worker sets ``until`` without waking us: once a second is often enough for what is late anyway.
        return now + 1.0 if self._open else None

    def _finish(self, number: int, reply: bytes, after: Callable[[], None] | None, now: float) -> None:
        one = self._forget(number)
        if after is not None:
            # A thread of its own: the end of the agent waits for this one and for the workers.
            try:
                Service("mycorrizal-control-shutdown", self._name, after, lambda: None).start()
            except ResourcesExhausted as error:
                self._counters.add("control.errors")
                reply = encode_failure(one.id if one is not None else None, code_of(error), error)
        if one is not None and self._sockets is not None:
            self._sockets.reply(one.client, reply)

    def _publish(self, topic: bytes, data: bytes, now: float) -> None:
        if self._sockets is not None:
            self._sockets.publish(topic, data)

    def _hello(self, topic: bytes) -> bytes:
        self._counters.add("control.subscribers")
        text = topic.decode("utf-8", "replace")
        return encode_event(text, (self._sequence, 0), self._publisher, {})

    def _ended(self) -> None:
        """Whatever ended the thread: nobody waits for it any more."""
        self._stopping = True
        self._ready.set(self._service.crashed or NotRunningError("the control plane was closed"))
        self._pool.stop()
        self._mailbox.refuse(self._service.refusal)
        self._mailbox.close()

    # -- the workers ----------------------------------------------------------------------------

    def _work(self, number: int, one: _Open, data: bytes) -> None:
        """Carry out one command and send the reply on its way. Raises nothing."""
        if number not in self._open:
            return  # it waited so long that its client was told
        after: Callable[[], None] | None = None
        try:
            reply, after = self._carry_out(one, data)
        except BaseException as error:
            self._counters.add("control.errors")
            if not isinstance(error, MycorrizalError):
                self._counters.add("control.faults")
                log.exception("%s: a command failed inside the control plane", self._name)
            reply = encode_failure(one.id, code_of(error), error)
        self._mailbox.tell(partial(self._finish, number, reply, after))

    def _carry_out(self, one: _Open, data: bytes) -> tuple[bytes, Callable[[], None] | None]:
        request = decode_request(data)
        one.id = request.id
        command, arguments = checked(request.command, request.arguments)
        now = clock.now()
        timeout = arguments.get("timeout", QUICK_SECONDS)
        one.until = one.arrived + timeout + GRACE
        if "timeout" in arguments and now > one.arrived:
            left = arguments["timeout"] = max(0.0, timeout - (now - one.arrived))
            if timeout and not left:
                raise ControlError("timeout", _NO_WORKER, retriable=True)
        one.begun = True
        with self._pool.waiting() if command.waits else contextlib.nullcontext():
            result = self._desk.answer(command.name, arguments)
        after = partial(self._desk.shutdown, **arguments) if command.name == "shutdown" else None
        return encode_reply(request.id, result), after


_COUNTED = (
    *("requests", "errors", "malformed", "busy", "timeouts", "faults", "replies_dropped"),
    *("events", "events_dropped", "subscribers", "disconnects", "handshakes_failed", "refused"),
)


def _version() -> str:
    """Return the package's version, which stands above us and so is not imported."""
    return str(getattr(sys.modules.get("mycorrizal"), "__version__", "unknown"))


def _listen(wanted: list[Endpoint]) -> list[tuple[Endpoint, socket.socket]]:
    """Open all endpoints, or none."""
    opened: list[tuple[Endpoint, socket.socket]] = []
    try:
        for endpoint in wanted:
            opened.append(endpoint.listen())
    except BaseException:
        for endpoint, listener in opened:
            listener.close()
            endpoint.remove()
        raise
    return opened
