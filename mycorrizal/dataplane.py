"""``DataPlane``: messages, requests and bulk between nodes over QUIC, for plain, blocking Python.

::

    with DataPlane("alice", key=KEY, peers={"bob": ("10.0.0.5", 7947)}) as plane:
        plane.send("bob", {"step": 1})                # bob's inbox has it when this returns
        plane.request("bob", "score", [1, 2, 3])      # what bob's handler returns
        for message in plane.messages():
            print(message.sender, message.value)

The protocol above QUIC is in ``_data``, threads and sockets are in
``_runtime/quic``; this module is the door.

*Threads.* Every method may be called on any thread, also inside handlers.
Calls that block take ``timeout`` in seconds, where None waits; Ctrl-C ends them
and the connection stays usable. Handlers run on a bounded pool; one that waits
inside a call of ours lends its place to a spare thread.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from ._data.calls import Call
from ._data.channel import OutMessage
from ._endings import Ending, error
from ._runtime.data import opening
from ._runtime.data.core import RESERVED, Core, Handler
from ._runtime.data.files import Folder, Source, receive_file, send_file
from ._runtime.data.follow import Follower
from ._runtime.data.streams import Stream, StreamHandler, open_stream, stream_field
from ._runtime.data.tickets import (
    BlockingTicket,
    FutureTicket,
    Progress,
    answer,
    ask,
    cancel_call,
    cancelled,
    field,
    late,
    node_names,
    take,
    withdraw,
)
from ._runtime.host.filepaths import FilePath
from ._runtime.threads.deadline import Deadline
from ._runtime.threads.futures import PlaneFuture
from ._runtime.threads.lifecycle import Handle
from ._wire.security import Keyring
from ._wire.values import DEFAULT, Codecs, encode_value
from .config import check_function
from .dataconfig import DataConfig
from .exceptions import ConfigError, MycorrizalError, NotRunningError
from .memberlist import Memberlist
from .types import Address, Message, PeerInfo, Peers, ReceivedFile, as_builtin, frameless, printable

__all__ = ["DataPlane", "Results"]

_H = TypeVar("_H", bound=Handler)
_S = TypeVar("_S", bound=StreamHandler)

_CLOSE_SECONDS = 5.0
_GRACE_SECONDS = 1.0


class Results(dict[str, Any]):
    """What ``request_all`` brought: answers by node name, and ``errors`` by the names of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[str, MycorrizalError] = {}


class DataPlane(Handle):
    """One node's end of the data plane: listening from construction to ``close``.

    Connections are dialled at the first call to a peer, shared by both
    directions, closed when idle, and opened again unnoticed.

    Args:
        name: this node's, unique among its peers.
        bind, port: where to listen (UDP); port 0 picks a free one below 65280.
        key: 16, 24 or 32 random bytes that all nodes have, or a ``Keyring``. Both sides of a connection prove it.
            Without a key or certificates the plane keeps to loopback.
        cluster: nodes of different clusters refuse each other even with one key.
        certificates: paths of PEM files instead of a key: ``(certificate, private key, CA)``.
        insecure: allow other addresses than loopback without a key.
        peers: addresses by name; ``add_peer`` adds more.
        config: further settings.
        codecs: for values of types that CBOR does not have.

    Raises:
        BindError, ResourcesExhausted: the address or port cannot be listened on; what that needs is not left.
        ConfigError: a bad name, key, certificate or setting, or another address than loopback without a key.
    """

    def __init__(
        self,
        name: str,
        *,
        bind: str = "127.0.0.1",
        port: int = 0,
        key: bytes | Keyring | None = None,
        cluster: str = "default",
        certificates: Sequence[FilePath] | None = None,
        insecure: bool = False,
        peers: Mapping[str, Address] | None = None,
        config: DataConfig | None = None,
        codecs: Codecs = DEFAULT,
    ) -> None:
        self._core: Core | None = None
        self._follower: Follower | None = None
        self._directory = opening.Directory(loopback_only=key is None and certificates is None and not insecure)
        for peer, address in (peers or {}).items():
            self._directory.add(peer, address)
        self._core = opening.open_core(
            name, bind, port, key, cluster, certificates, self._directory, config or DataConfig(), codecs
        )

    # -- messages ---------------------------------------------------------------------------

    def send(self, node: str, value: Any, *, timeout: float | None = 10.0, progress: Progress | None = None) -> None:
        """Send a message; when this returns, `node`'s inbox has it. Blocks.

        Messages of one sender arrive in order, each once, also over a
        connection that breaks in between. A full inbox makes the sender wait.

        Args:
            node: name of a peer, or this node's own.
            value: what CBOR carries, NumPy arrays, bytes; see the guide. It must not change before the return.
            timeout: seconds for all of it, the connection included.
            progress: called on this thread as ``progress(bytes, total)`` while a large value travels.

        Raises:
            OperationTimeout: not accepted in time; ``indeterminate`` if it was on its way.
            PeerUnreachable: no address, no answer there, or gone meanwhile.
            ValueEncodeError, ValueTooLarge: `value` cannot be sent.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        core, node = self._blocking("send", node), as_builtin(node)
        ticket, deadline = BlockingTicket(core.loop), core.deadline(timeout)
        message = OutMessage(encode_value(value, core.codecs, limit=core.config.max_value), ticket)
        message.done = deadline.passed  # else a quick peer might have it before this thread looks
        try:
            core.begin(partial(core.machine.send, node, message), "send", node)
            with core.pool.waiting():
                done = ticket.wait_watching(deadline, progress, message.size)
        except BaseException as over:
            withdraw(core, node, message, over)
            raise
        if not done:
            why = core.machine.delay(node)
            withdraw(core, node, message)
            raise error(
                Ending.TIMEOUT,
                f"{node}'s inbox has not accepted the message within {timeout} s{why}",
                sent=message.sequence > 0,
                node=node,
                operation="send",
                hint="it does not read fast enough, or cannot be reached" if message.sequence else None,
            )
        ticket.result("send")

    def send_async(self, node: str, value: Any) -> PlaneFuture[None]:
        """Like ``send``, but return a future at once; ``cancel()`` withdraws the message. Does not block.

        At most 16,384 calls wait for one peer; the next future fails with ``QueueFull``.

        Raises:
            ValueEncodeError, ValueTooLarge, NotRunningError, ServiceCrashed, ForkedProcessError, ResourcesExhausted
        """
        core, node = self._running("send_async", node), as_builtin(node)
        encoded = encode_value(value, core.codecs, limit=core.config.max_value)

        def cancel() -> MycorrizalError:
            withdraw(core, node, message)
            return cancelled(message.sequence > 0, node, "send_async")

        future: PlaneFuture[None] = PlaneFuture(cancel, core.pool.waiting)
        core.completions.start()
        message = OutMessage(encoded, FutureTicket(future, core.completions, lambda outcome: None, "send_async"))
        core.begin(partial(core.machine.send, node, message), "send_async", node)
        return future

    def receive(self, timeout: float | None = None, *, progress: Progress | None = None) -> Message:
        """Return the oldest message out of the inbox; wait for one up to `timeout` seconds, for ever if None.

        `progress` is called on this thread as ``progress(bytes, total)`` while a large message arrives.

        Raises:
            OperationTimeout: none came.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        core = self._blocking("receive", closed_is_fine=True)
        return take(core, Deadline(timeout), progress)

    def messages(self) -> Iterator[Message]:
        """Iterate over messages as they come, until ``close``."""
        while True:
            try:
                yield self.receive()
            except NotRunningError:
                return

    # -- requests -----------------------------------------------------------------------------

    def request(
        self,
        node: str,
        name: str,
        value: Any = None,
        *,
        timeout: float | None = 10.0,
        progress: Progress | None = None,
    ) -> Any:
        """Ask `node`'s handler `name`, and return its answer. Blocks.

        Inside a handler the time left is at most that of the request it serves. A handler that is missing at a node
        which has just started is asked for again, for 5 s at most.

        Raises:
            RemoteError: the handler raised; ``UnknownHandler``: there is none; ``retriable`` if there may soon be one.
            PeerBusy: all handlers are taken and the queue is full; nothing ran. NestedTooDeep: handlers wait in a row.
            OperationTimeout: no answer in time; ``indeterminate`` if the request was on its way.
            PeerUnreachable: no address, no answer there, or gone meanwhile; ``indeterminate`` likewise.
            ValueEncodeError: `value` cannot be sent. ValueTooLarge: nor can it, or the answer.
            RemoteProtocolError: the answer is no value, or needs a codec that is not registered here.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        core, node = self._blocking("request", node), as_builtin(node)
        encode = partial(encode_value, value, core.codecs, limit=core.config.max_value)
        return ask(core, node, name, encode, timeout, progress)

    def request_async(
        self, node: str, name: str, value: Any = None, *, timeout: float | None = 10.0
    ) -> PlaneFuture[Any]:
        """Like ``request``, but return a future at once; ``cancel()`` frees the call and tells the peer.

        What has just started is not asked again, here and in ``request_all``: the error is ``retriable``.
        """
        core, node = self._running("request_async", node), as_builtin(node)
        encoded = encode_value(value, core.codecs, limit=core.config.max_value)

        def cancel() -> MycorrizalError:
            cancel_call(core, call)
            return cancelled(call.sent, node, "request_async")

        def finish(outcome: Any) -> Any:
            status, received = outcome
            return answer(core, status, received, node, name, "request_async")

        future: PlaneFuture[Any] = PlaneFuture(cancel, core.pool.waiting)
        core.completions.start()
        ticket = FutureTicket(future, core.completions, finish, "request_async")
        until = core.deadline(timeout).moment
        call = Call(node, field(name), encoded, until, ticket, core.depth(), core.request_times)
        core.begin(partial(core.machine.request, call), "request_async", node)
        return future

    def request_all(
        self, nodes: Iterable[str], name: str, value: Any = None, *, timeout: float | None = 10.0
    ) -> Results:
        """Ask several nodes at once; return the answers that came in time, and the error of each other. Blocks."""
        core = self._blocking("request_all")
        encoded = encode_value(value, core.codecs, limit=core.config.max_value)
        deadline = core.deadline(timeout)
        results = Results()
        open_calls: dict[str, tuple[Call, BlockingTicket]] = {}
        try:
            for node in node_names(nodes):
                core.check_running("request_all", node)
                ticket = BlockingTicket(core.loop)
                call = Call(node, field(name), encoded, deadline.moment, ticket, core.depth(), core.request_times)
                call.done = deadline.passed
                open_calls[node] = call, ticket
                core.begin(partial(core.machine.request, call), "request_all", node)
            for node, (call, ticket) in open_calls.items():
                with core.pool.waiting():
                    done = ticket.wait(deadline)
                try:
                    if not done:
                        raise late(core, call, name, timeout, "request_all")
                    status, received = ticket.result("request_all")
                    results[node] = answer(core, status, received, node, name, "request_all")
                except MycorrizalError as exc:
                    results.errors[node] = frameless(exc)
        finally:
            for call, ticket in open_calls.values():
                if not ticket.done:
                    cancel_call(core, call)
        return results

    def on_request(self, name: str, *, processes: int | None = None) -> Callable[[_H], _H]:
        """Register a handler: ``@plane.on_request("score")`` above a function of one ``Request``. Any thread.

        It runs on a handler thread, several at a time. Its result is the answer,
        and its error arrives as ``RemoteError``. A second handler of
        one name replaces the first.

        Args:
            processes: run it in so many processes instead, for Python code that computes. They are started now, as
                fresh interpreters, and kept; each imports the function by the name of its module. One that dies is a
                ``RemoteError`` of type ``ProcessDied`` for its caller, and is replaced.

        Raises:
            ConfigError: `name` is none, or what is registered no function; with `processes`, one that cannot be
                imported: of ``__main__``, a lambda, or made within a function.
            ResourcesExhausted, OSError: no process can be started.
            NotRunningError, ForkedProcessError
        """
        field(name := as_builtin(name))
        if name.startswith(RESERVED):
            raise ConfigError("name", f"{name!r} begins with {RESERVED!r}", hint="such names are the library's own")

        def register(handler: _H) -> _H:
            check_function("handler", handler)
            core = self._running("on_request")
            if processes is None:
                core.handle(name, handler)
            else:
                from ._runtime.tasks.processes import ProcessHandler  # late: few have processes

                core.handle(name, ProcessHandler(core, name, handler, processes))
            return handler

        return register

    # -- streams and files ------------------------------------------------------------------

    def open_stream(self, node: str, name: str, timeout: float | None = 10.0) -> Stream:
        """Open a stream to `node`'s ``on_stream`` handler `name`: a blocking file object, bytes both ways.

        `timeout` is for the connection; ``stream.timeout`` for each call on the stream. That the node has no
        such handler is told at the first ``read`` or ``write``, as ``PeerUnreachable``; ``PeerBusy`` likewise.

        Raises:
            OperationTimeout, PeerUnreachable, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        return open_stream(self._blocking("open_stream", node), as_builtin(node), as_builtin(name), timeout)

    def on_stream(self, name: str) -> Callable[[_S], _S]:
        """Register a handler: ``@plane.on_stream("log")`` above a function of one ``Stream``. Any thread.

        It runs on a handler thread. When it returns the stream is closed, when it raises it is aborted. At most
        ``DataConfig.handler_spares`` streams are served at a time.
        """
        stream_field(name := as_builtin(name))

        def register(handler: _S) -> _S:
            check_function("handler", handler)
            self._running("on_stream").streams.handlers[name] = handler
            return handler

        return register

    def send_file(
        self,
        node: str,
        file: Source,
        *,
        name: str | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Send a file, a path or one opened for reading bytes; return its size once `node` has stored it. Blocks.

        Args:
            name: what it shall be called there; otherwise its own.
            progress: called on this thread as ``progress(bytes, total)``; total is 0 if the size cannot be known.

        Raises:
            OperationTimeout: not stored in time. PeerBusy: no call of ``receive_file`` waits there.
            RemoteError: it could not be stored. OSError: `file` cannot be read. ConfigError: it is no file.
            PeerUnreachable, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        return send_file(self._blocking("send_file", node), as_builtin(node), file, as_builtin(name), timeout, progress)

    def receive_file(
        self, directory: Folder, timeout: float | None = None, progress: Progress | None = None,
        *, limit: int | None = None,
    ) -> ReceivedFile:  # fmt: skip
        """Wait up to `timeout` seconds for a file, store it in `directory`, and return where it is. Blocks.

        Its name is made safe and no file is overwritten. A few files wait for a call, each ``stall_timeout`` at most.
        One of more than `limit` bytes is refused; its sender hears of it.

        Raises:
            OperationTimeout: none came, or it came to a halt. PeerUnreachable: its sender gave up; nothing is left.
            OSError, ValueTooLarge: it cannot be stored, or is above `limit`. ConfigError: `directory` is no path.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        return receive_file(self._blocking("receive_file"), directory, timeout, progress, limit)

    # -- peers ---------------------------------------------------------------------------------

    def add_peer(self, name: str, address: Address) -> None:
        """Tell the address of a peer, or a new one. Any thread.

        Raises:
            ConfigError: not ``(IP literal, port)``, or beyond loopback without a key.
        """
        core, name = self._running("add_peer"), as_builtin(name)
        self._directory.add(name, address)
        core.submit(partial(core.machine.peer_changed, name))

    def remove_peer(self, name: str, why: str = "was removed") -> None:
        """Forget a peer's address, close its connections, and end its calls now. Any thread."""
        core, name = self._running("remove_peer", name), as_builtin(name)
        self._directory.remove(name)
        core.submit(partial(core.machine.peer_down, name, why, hint="add_peer() makes it known again"))

    def connect(self, address: Address, timeout: float | None = 10.0) -> str:
        """Dial an address whose name is not known; return the name, which is a peer from now on. Blocks.

        Raises:
            PeerUnreachable, OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
            ConfigError: not ``(IP literal, port)``; beyond loopback without a key; with certificates, which need names.
        """
        core = self._blocking("connect")
        address = self._directory.checked(address)
        ticket = BlockingTicket(core.loop)
        core.begin(partial(core.machine.greet, address, ticket), "connect")
        with core.pool.waiting():
            if not ticket.wait(core.deadline(timeout)):
                where = f"{address[0]}:{address[1]}"
                raise error(Ending.TIMEOUT, f"no answer from {where}", node=where, operation="connect")
        name = str(ticket.result("connect"))
        self._directory.add(name, address)
        return name

    def follow(self, cluster: Memberlist) -> None:
        """Take addresses, names and deaths from a membership, which must have this node's name. Any thread.

        A member's port is the first two bytes of its metadata, big-endian, or
        its Serf tag ``quic_port``; this node's delegate has to announce
        ``plane.port`` likewise. Addresses from ``add_peer`` come first. Calls to a member that is declared
        dead, or leaves, end at once; a name that is no member's is not let in. Where metadata tell a boot id, as
        those of agents do, a name is that process: another one gets nothing, and calls wait until membership knows it.

        Raises:
            ConfigError: the membership has another name, or one is followed already.
        """
        core = self._running("follow")
        if (name := cluster.local_node.name) != core.name:
            raise ConfigError("name", f"the data plane is {core.name!r}, the membership {name!r}")
        if self._follower is not None:
            raise ConfigError("follow", "this plane follows a membership already")
        self._follower = Follower(core, cluster.members, cluster._running.gone, cluster.events())
        self._directory.fallback = self._follower.resolve

    def reload_certificates(self) -> None:
        """Read the files of ``certificates=`` again; new connections use what they hold now. Blocks, any thread.

        A connection that exists stays until the certificate that it was proved with has expired.

        Raises:
            ConfigError: a file cannot be used, or there are none; everything stays as it was.
            NotRunningError, ForkedProcessError
        """
        self._running("reload_certificates").trust.reload()

    def peers(self) -> Peers:
        """Return what is known of each peer: connection, round trip, path, open work. Waits for the loop only.

        Raises:
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        core = self._blocking("peers")
        found: list[PeerInfo] = core.ask(core.machine.info, "peers")
        return Peers(found)

    def metrics(self) -> dict[str, int]:
        """Return counters and gauges. Never blocks, any thread."""
        core = self._started
        return {**core.counters.snapshot(), **core.loop.metrics(), **core.gauges()}

    @property
    def name(self) -> str:
        """This node's name."""
        return self._started.name

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._started.address

    @property
    def port(self) -> int:
        """The UDP port it listens on."""
        return self._started.address[1]

    # -- the end ----------------------------------------------------------------------------------

    def close(self, timeout: float | None = _CLOSE_SECONDS) -> None:
        """Stop. Handlers that run may finish for up to 1 s; then each call in flight ends with an error.

        Idempotent, any thread; messages that are in the inbox can still be
        received. In a handler it does not wait for the handler.
        """
        core = self._core
        if core is not None and not core.guard.forked:
            deadline = Deadline(timeout)
            try:
                core.close(deadline, _GRACE_SECONDS)
            finally:
                if self._follower is not None:
                    self._follower.close(deadline)

    def __enter__(self) -> DataPlane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        core = self._core
        if core is None:
            return "<DataPlane not started>"
        state = "closed" if core.stopped else f"at {core.address[0]}:{core.address[1]}"
        return f"<DataPlane {printable(core.name)} {state}>"

    def __del__(self) -> None:
        core: Core | None = getattr(self, "_core", None)
        if core is not None and not core.stopped and not core.guard.forked:
            core.stop()
            warnings.warn(f"unclosed {self!r}; call close()", ResourceWarning, source=self, stacklevel=2)

    # -- inside -----------------------------------------------------------------------------------

    @property
    def _started(self) -> Core:
        assert self._core is not None
        return self._core

    def _running(self, operation: str, node: str = "") -> Core:
        core = self._started
        core.check_running(operation, node)
        return core

    def _blocking(self, operation: str, node: str = "", *, closed_is_fine: bool = False) -> Core:
        core = self._started
        if closed_is_fine and core.stopped:
            core.guard.check("DataPlane", operation)
        else:
            core.check(operation, node)
        return core
