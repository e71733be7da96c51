"""The data plane's parts, put together: socket, loop, QUIC, machine, inbox, handlers, futures.

``Core`` is the machine's host: what the machine asks for on the loop thread is
answered here, and what callers want is handed to that thread. Values are
encoded and decoded on callers' and handlers' threads only.
"""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..._data.calls import Call
from ..._data.link import Link
from ..._data.machine import DataMachine
from ..._data.ports import Connection, Received, Served, Sink
from ..._endings import for_call, unreadable
from ..._histogram import Histogram
from ..._wire.frames import Close, Status
from ..._wire.text import Log, logger
from ..._wire.values import Codecs, Encoded, encode_value
from ...config import RESERVED
from ...dataconfig import DataConfig
from ...exceptions import MycorrizalError, NestedTooDeep, RemoteProtocolError, ValueDecodeError, ValueTooLarge
from ...types import Address, Request
from ..net.sockets import from_sockaddr
from ..quic.door import Door
from ..quic.loop import Loop
from ..quic.trust.keys import Trust
from ..quic.trust.proof import Binding
from ..threads import clock, lifecycle, reentry
from ..threads.counters import Counters, QuietLog
from ..threads.deadline import Deadline, Seconds
from ..threads.futures import Completions, Waiter
from ..threads.handlers import HandlerPool
from ..threads.lifecycle import ForkGuard
from .errors import told
from .files import Arrivals
from .inbox import Inbox
from .reader import Reader
from .roles import Host, Remote
from .streams import Streams

if TYPE_CHECKING:
    from ..quic.endpoint import Endpoint

__all__ = ["RESERVED", "Core"]

log = logger("mycorrizal.data")

Handler = Callable[[Request], Any]

SETTLING_SECONDS = 5.0
"""In which a handler that a node does not have yet is asked for again."""
_TEXT_MAX = 8192
_NEXT_SECONDS = 0.05
"""How long a handler's thread waits at the socket that its last request came from."""
_local = threading.local()


def _no_address(node: str) -> tuple[str, str]:
    """Say why `node` cannot be dialled, and what to do about it: of a plane without a membership."""
    return f"no address is known for {node!r}", "give peers={name: (host, port)} or add_peer()"


class Core:
    """Everything behind one ``DataPlane``. Methods say which thread may call them."""

    def __init__(
        self,
        name: str,
        sock: socket.socket,
        trust: Trust,
        config: DataConfig,
        codecs: Codecs,
        resolve: Callable[[str], Address | None],
        member: Callable[[str], bool | None],
    ) -> None:
        self.name = name
        self.boot = os.urandom(8)
        self.config = config
        self.codecs = codecs
        self.resolve = resolve
        self.member = member
        self.process: Callable[[str], bytes | None] = lambda node: None
        self.process_ended: Callable[[str, bytes], object] = lambda node, boot: None
        self.members: Callable[[], Sequence[str]] = tuple
        self.missing: Callable[[str], tuple[str, str]] = _no_address
        self.counters = Counters()
        self.count = self.counters.add
        self.request_times = Histogram()  # of our callers' requests; the loop thread's
        self._read_times = Histogram()  # of those whose answers their callers have read themselves
        self._settling = threading.Lock()
        self.guard = ForkGuard()
        self.handlers: dict[str, Handler] = {}
        self.remotes: dict[str, Remote] = {}  # handlers that do not run here; a name is in one of the two
        self.system: dict[str, Callable[[Served], None]] = {}  # answered on the loop thread; see carrier.py
        self.at_end: list[Callable[[], object]] = []  # after the last turn, or in a forked child
        self.address: Address = from_sockaddr(sock.getsockname())
        self.host: Host | None = None
        self.apart = "this plane has no runtime record"  # why there is no ``host``
        self._sock = sock
        self.trust = trust
        self._quiet = QuietLog(log, name)
        self._pool_timer = False
        self._readers: list[None] = []  # one for each handler's thread that waits at a socket
        self._closed = threading.RLock()  # a signal handler may close what is being closed
        self._roll = reentry.owner("mycorrizal-quic")
        self._enrolled = False
        self.stopped = False
        self.started()
        self.loop = Loop(name, spin=config.spin, on_end=self._loop_ended)
        try:
            self._assemble()
            self.pool.start()
            self.loop.start()
        except BaseException:
            if hasattr(self, "pool"):
                self.pool.stop()
            trust.unwatch(self._keys_changed)
            self.loop.discard()
            raise
        lifecycle.remember(self)

    def _assemble(self) -> None:
        name, config = self.name, self.config
        self.pool = HandlerPool(
            name,
            workers=config.handlers,
            spares=config.handler_spares,
            queue=config.handler_queue,
            counters=self.counters,
            later=self.loop.afterwards,
        )
        self.completions = Completions(name, self.counters)
        self.inbox: Inbox[tuple[str, Received]] = Inbox(config.inbox_messages, config.inbox_bytes, self._room)
        self.streams = Streams(self)
        self.accept_stream: Callable[[str, str], Sink | Close] = self.streams.accept
        self.files = Arrivals(self)
        self.machine = DataMachine(self, self.trust, config)
        self.loop.busy = self._busy
        self._door = Door(self.loop, self._sock, self._make_endpoint)
        self.trust.watch(self._keys_changed)
        self.loop.submit(self._register)

    def _register(self, now: float) -> None:
        if self.loop.is_current():  # not where the loop's thread could not be had, and the caller's runs what is left
            self._roll.__enter__()
            self._enrolled = True

    def _make_endpoint(self, kind: type[Endpoint]) -> Endpoint:
        return kind(self.loop, self._sock, self.trust, self.machine, self.config, self.counters)

    @property
    def endpoint(self) -> Endpoint:
        """QUIC's connections. Loop thread; raises as ``Door.open``."""
        return self._door.open()

    @property
    def unfit(self) -> str | None:
        """What keeps connections from the fast packet path, once one was made. Any thread."""
        endpoint = self._door.endpoint
        return None if endpoint is None else endpoint.choice.problem

    # -- what the machine asks for (loop thread) ---------------------------------------------

    def dial(self, address: Address, peer: str | None, now: float) -> Connection:
        why = self.apart
        if self.host is not None and peer is not None:
            found = self.host.dial(address, peer, now)
            if not isinstance(found, str):
                return found
            why = found
        conn = self.endpoint.dial(address, peer, clock.now())  # later than `now` if that had to be imported
        conn.why = why
        return conn

    def share_host(self, carrier: Host) -> None:
        """Reach processes of this host by `carrier` from now on. Any thread."""

        def begin(now: float) -> None:
            self.host = carrier
            carrier.start(now)

        self.at_end.append(carrier.abandon)
        if not self.submit(begin):
            carrier.abandon()

    def offer(self, item: tuple[str, Received], size: int) -> bool:
        return self.inbox.offer(item, size)

    def has_handler(self, name: str) -> bool:
        return name in self.handlers or name in self.remotes or name in self.system

    def handle(self, name: str, handler: Handler | Remote) -> None:
        """Let `handler` answer requests `name`, in place of any before it. Any thread."""
        if callable(handler):
            self.handlers[name] = handler
            before = self.remotes.pop(name, None)
        else:
            before, self.remotes[name] = self.remotes.get(name), handler
            self.handlers.pop(name, None)
        if before is not None:
            before.retire()

    def slots(self, name: str) -> int:
        """Return how many requests `name` can run at a time, if nothing else runs; 0 if there is no handler."""
        remote = self.remotes.get(name)
        if remote is not None:
            return min(remote.slots, self.config.handlers + self.config.handler_spares)
        return self.config.handlers if name in self.handlers else 0

    @property
    def settling(self) -> bool:
        """Whether this node has started so short a time ago that handlers may still be registered. Any thread."""
        return clock.now() < self._settled

    def started(self) -> None:
        """It begins now: what was before was for meeting others. Any thread."""
        self._settled = clock.now() + SETTLING_SECONDS

    def has_thread(self, depth: int) -> bool:
        """Whether a request that `depth` handlers wait for is not kept from a thread by these very handlers."""
        most = self.config.handlers + self.config.handler_spares
        return depth < most or self.pool.busy < most

    def serve(self, request: Served) -> bool:
        system = self.system.get(request.name)
        if system is not None:
            self.loop.calls += 1
            system(request)
            return True
        leave = self._left_to_others(request.link) if isinstance(request.link, Link) else 0
        return self.run(partial(self._handle, request), leave)

    def _left_to_others(self, link: Link) -> int:
        """Return how many places of the handlers' queue are not for requests from `link`.

        Whose requests would fill half of the queue leaves the last quarter of it, those at one address, under
        whatever names, the last eighth.
        """
        queue = self.config.handler_queue
        if self.pool.queued <= queue // 2:
            return 0
        if len(link.served) > queue // 2:
            return queue // 4
        return queue // 8 if self.machine.serving_at(link.conn.address[0]) > queue // 2 else 0

    def run(self, job: Callable[[], None], leave: int = 0) -> bool:
        """Have a handler's thread run `job`; False if there is no room, or only `leave` places. Loop thread."""
        if not self.pool.submit(job, leave):
            return False
        self.loop.calls += 1
        if not self._pool_timer:
            self._pool_timer = True
            self.loop.call_at(clock.now() + 0.001, self._pool_tick)
        return True

    def _pool_tick(self, now: float) -> None:
        self._pool_timer = False
        again = self.pool.tick(now)
        if again is not None:
            self._pool_timer = True
            self.loop.call_at(again, self._pool_tick)

    def nonce(self) -> bytes:
        return os.urandom(32)

    def jitter(self) -> float:
        return random.random()

    def binding(self, channel: bytes, server_nonce: bytes, client_nonce: bytes, client: str, server: str) -> Binding:
        return Binding(channel, server_nonce, client_nonce, client, server)

    def arm(self, delay: float) -> None:
        self.loop.call_at(clock.now() + delay, self._tick)

    def _tick(self, now: float) -> None:
        self._settle()
        self.machine.tick(now)

    def _settle(self) -> None:
        with self._settling:
            self._read_times.settle()

    def times(self) -> Histogram:
        """Return how long our callers' requests took. Any thread."""
        self._settle()
        return self.request_times.plus(self._read_times)

    def warn(self, kind: str, message: str, *args: object) -> None:
        self._quiet.warning(kind, message, *args)

    def _busy(self) -> bool:
        # A loop that polls keeps the interpreter from whoever has work: never beside a handler.
        return bool(self.machine.links) and not self.pool.busy

    # -- handlers (their threads) --------------------------------------------------------------

    def _handle(self, request: Served) -> None:
        """Answer a request, and those that come right after it on the same socket."""
        found: Served | None = request
        while found is not None:
            found = self._next(found) if self._answer(found) else None

    def _next(self, request: Served) -> Served | None:
        """Wait for the next request where `request` came from, for a moment; None if it comes by the loop, or not."""
        link = request.link
        assert isinstance(link, Link)
        if self.pool.queued or len(self._readers) >= self.config.handlers // 2:
            return None
        reader = Reader(self.pool, link)
        self._readers.append(None)
        try:
            with self.pool.between():
                link.conn.read(reader, reader.take, Deadline(_NEXT_SECONDS))
        finally:
            self._readers.pop()
        return reader.request

    def _answer(self, request: Served) -> bool:
        """Run a request's handler; return whether the answer has left at once."""
        status, encoded = Status.EXPIRED, None
        now = clock.now()
        if (request.deadline is None or now < request.deadline) and not request.cancelled:
            status, encoded = self._run_handler(request, now)
        if self._respond_now(request, status, encoded):
            return True
        respond = partial(_respond, request, status, encoded)
        try:
            if self.pool.queued and self._pool_timer:
                # More requests wait: let their answers leave with this one, by the timer that looks after them.
                self.loop.submit_quietly(respond)
                if not self._pool_timer:
                    self.loop.kick()  # it was due just now
            else:
                self.loop.submit(respond)
        except MycorrizalError:
            pass  # closed meanwhile; the peer hears of that
        return False

    def _respond_now(self, request: Served, status: Status, encoded: Encoded | None) -> bool:
        link = request.link
        if self.host is None or not isinstance(link, Link) or not self.loop.quiet:
            return False
        return link.respond_now(request, status, encoded, clock.now())

    def _run_handler(self, request: Served, now: float) -> tuple[Status, Encoded | None]:
        left = None if request.deadline is None else request.deadline - now
        remote = self.remotes.get(request.name)
        if remote is not None:
            return remote.answer(request, left)
        try:
            value = self.decode(request.value, request.sender, f"a request {request.name!r}")
        except BaseException as error:  # also: no memory for it, or a codec that would end the thread
            return self._raised(error)
        request.value = _NOTHING  # the value is the handler's alone
        handler = self.handlers.get(request.name)
        if handler is None:
            return Status.UNKNOWN, None
        before = getattr(_local, "deadline", None), self.depth()
        _local.deadline, _local.depth = request.deadline, request.depth + 1
        try:
            result = handler(Request(request.name, value, request.sender, left))
            try:
                return Status.OK, encode_value(result, self.codecs, limit=self.config.max_value)
            except ValueTooLarge:
                return Status.TOO_LARGE, None
        except NestedTooDeep:
            return Status.TOO_DEEP, None
        except BaseException as error:
            # Here and nowhere else the traceback is to be had; a quick loop of somebody's must not fill the log.
            self.raised(request.name, "handler %s of requests raised %r", request.name, error, exc_info=error)
            return self._raised(error)
        finally:
            _local.deadline, _local.depth = before

    def gauges(self) -> dict[str, int]:
        """Return what there is at this moment, by name. Any thread."""
        return {
            "inbox.messages": len(self.inbox),
            "inbox.bytes": self.inbox.bytes,
            "handlers.threads": self.pool.threads,
            "handlers.busy": self.pool.busy,
            "handlers.queued": self.pool.queued,
            "handlers.stuck": int(self.pool.stuck(clock.now())),
            "connections": len(self.machine.links),
            "peers": len(self.machine.peers) - 1,
            "bulk.bytes": self.machine.budget.used,
            "files.waiting": len(self.files),
            "log.faults": Log.faults,
        }

    def depth(self) -> int:
        """Return how many handlers, one within the other, wait for what this thread does."""
        depth: int = getattr(_local, "depth", 0)
        return depth

    def raised(self, name: str, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        """A handler `name` has raised: count it, and say so, but not too often."""
        self.counters.add("requests.raised")
        self._quiet.warning(f"handler {name}", message, *args, exc_info=exc_info)

    def _raised(self, error: BaseException) -> tuple[Status, Encoded | None]:
        return self.error_answer(*told(error, self.config.tracebacks))

    def error_answer(self, kind: str, text: str) -> tuple[Status, Encoded | None]:
        """Return what is answered for an error of a handler. Any thread."""
        return Status.RAISED, encode_value([kind, text[:_TEXT_MAX]])

    # -- callers (any thread) -------------------------------------------------------------------

    def check(self, operation: str, node: str = "") -> None:
        """Raise unless the caller may wait here.

        Raises:
            ForkedProcessError, NotRunningError, ServiceCrashed, ReentrantCallError
            TypeError: `node` is no name; on the loop thread it would be everybody's trouble.
        """
        self.check_running(operation, node)
        reentry.refuse(operation)

    def check_running(self, operation: str, node: str = "") -> None:
        """Raise unless this plane can be used in this process; raises as ``check``."""
        self.guard.check("DataPlane", operation)
        if self.stopped:
            raise self.refusal(operation, node)
        if not isinstance(node, str):
            raise TypeError(f"{operation}: a node is given by its name, a str, not {type(node).__name__}")

    def refusal(self, operation: str | None = None, node: str | None = None, *, sent: bool = False) -> MycorrizalError:
        """Return the error for a call that comes too late, or is `sent` and got no answer."""
        return for_call(self.loop.service.refusal(), sent, node=node or None, operation=operation)

    def submit(self, command: Callable[[float], object]) -> bool:
        """Run `command` on the loop thread; nothing happens, and False, if that has ended."""
        try:
            self.loop.submit(command)
        except MycorrizalError:
            return False
        return True

    def begin(self, command: Callable[[float], object], operation: str, node: str = "") -> None:
        """Run `command` on the loop thread.

        Raises:
            NotRunningError, ServiceCrashed: that has ended; nothing was sent.
        """
        try:
            self.loop.submit(command)
        except MycorrizalError as exc:
            raise for_call(exc, False, node=node or None, operation=operation) from exc.__cause__

    def begin_request(self, call: Call) -> Link | None:
        """Send a request whose caller waits: here and now if that can be, else on the loop thread; as ``begin``.

        Return the connection in the first case: what comes next on it may be the answer.
        """
        peer = self.machine.peers.get(call.node) if self.host is not None and self.loop.quiet else None
        link = None if peer is None else peer.request_now(call, clock.now())
        if link is None:
            self.begin(partial(self.machine.request, call), "request", call.node)
        return link

    def read_answer(self, link: Link, call: Call, ticket: Waiter, deadline: Deadline) -> bool:
        """Wait for the answer to `call` at the socket itself; False if it comes by the loop, if at all."""

        def take(stream: int, data: bytes) -> bool:
            now = clock.now()
            outcome = link.answer_now(call, stream, data, now)
            if outcome is None:
                return False
            if call.began is not None:
                self._read_times.note(now - call.began)
            ticket.settle(outcome)
            return True

        return link.conn.read(call, take, deadline)

    def deadline(self, timeout: Seconds | None) -> Deadline:
        """Return the end of a call: inside a handler not after that of the request that it serves."""
        own = Deadline(timeout)
        outer = getattr(_local, "deadline", None)
        if outer is None:
            return own
        left = own.remaining()
        return Deadline.at(outer) if left is None or clock.now() + left > outer else own

    def decode(self, received: Received, sender: str, what: str) -> object:
        """Return a value, which is `what` of `sender`; what is none is an offence, what cannot be read here is not.

        Raises:
            RemoteProtocolError: it is none.
            ValueDecodeError: it cannot be read here.
        """
        try:
            return received.decode(self.codecs)
        except ValueDecodeError as error:
            raise self._unreadable(error, sender, what) from error.__cause__
        except RemoteProtocolError as error:
            self.count("values.bad")
            self.submit(partial(self.machine.bad_value, sender, error))
            raise

    def _unreadable(self, error: ValueDecodeError, sender: str, what: str) -> ValueDecodeError:
        mine = unreadable(error, f"{what} of {sender}", node=sender)
        self.count("values.unreadable")
        self.warn("unreadable", "not to be read here: %s", mine)
        return mine

    def ask(self, question: Callable[[], Any], operation: str) -> Any:
        """Return `question()`, asked on the loop thread."""
        self.check(operation)
        waiter = Waiter()

        def command(now: float) -> None:
            try:
                waiter.set((question(), None))
            except Exception as error:
                waiter.set((None, error))

        self.begin(command, operation)
        while not waiter.wait(Deadline(0.5)):
            if not self.loop.service.alive:
                raise self.refusal(operation)
        result, error = waiter.outcome
        if error is not None:
            raise error
        return result

    def _room(self) -> None:
        self.submit(lambda now: self.machine.room())

    def _keys_changed(self) -> None:
        self.submit(self.machine.keys_changed)

    # -- the end ---------------------------------------------------------------------------------

    def close(self, deadline: Deadline, grace: float) -> None:
        """End it: running handlers may finish for `grace` seconds, then every open call fails. Any thread."""
        try:
            if not self.stopped and not self.loop.is_current() and not self.pool.is_worker() and grace > 0:
                self._drain(Deadline(deadline.capped(grace)))
        finally:
            self.stop()  # after a Ctrl-C too: peers have been told already that nothing is served here
        self.join(deadline)

    def _drain(self, deadline: Deadline) -> None:
        quiet = Waiter()

        def look(now: float) -> None:
            self.machine.closing = True
            if deadline.passed or (self.machine.serving == 0 and not self.machine.unfinished()):
                quiet.set(None)
            else:
                self.loop.call_at(now + 0.01, look)

        self.submit(look)
        quiet.wait(deadline)

    def stop(self) -> None:
        """Begin to stop; does not wait."""
        with self._closed:
            if self.stopped:
                return
            self.stopped = True
        lifecycle.forget(self)
        self.trust.unwatch(self._keys_changed)
        self.inbox.close(partial(self.refusal, "receive"))
        self.files.close()
        self.submit(self._end)

    def _end(self, now: float) -> None:
        self.machine.close(self.refusal(), now)
        if self._door.endpoint is not None:
            self._door.endpoint.close(now)
        self.loop.stop()

    def join(self, deadline: Deadline) -> bool:
        """Wait until the threads have ended."""
        if self.loop.is_current():
            return False
        done = self.loop.join(deadline)
        self.pool.stop()
        if done:  # else the loop has still to say how calls end, and stops it then
            self.completions.stop()
        done = self.pool.join(deadline) and done
        return self.completions.join(deadline) and done

    def _loop_ended(self) -> None:
        """Last act of the loop thread, of its own accord or not: nobody may go on waiting."""
        if self._enrolled:
            self._roll.__exit__(None, None, None)  # another thread may get this one's ident
        self.stopped = True
        self.inbox.close(partial(self.refusal, "receive"))
        self.files.close()
        now = clock.now()
        if not self.machine.ended:
            self.machine.close(self.refusal(), now)
        self.loop.drain_refused(now)
        for act in tuple(self.at_end):
            act()
        self.pool.stop()  # also where nobody joins: a plane that was dropped
        self.completions.stop()
        self._sock.close()

    def abandon(self) -> None:
        """Close descriptors in a forked child, without a lock."""
        self.stopped = True
        for act in tuple(self.at_end):
            act()
        self.loop.abandon()
        self._sock.close()


def _respond(request: Served, status: int, encoded: Encoded | None, now: float) -> None:
    request.link.respond(request, status, encoded, now)


_NOTHING = Received(b"")
