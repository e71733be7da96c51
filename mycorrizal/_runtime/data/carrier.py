"""Payloads between agents over the data plane: bytes out, at most bytes back, without a thread of their own.

For what the library itself tells other nodes: services, settings, events. A
payload is the value of a request with a reserved name, answered on the loop
thread instead of a handler's, so that a user's busy handlers delay nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..._data.calls import Call
from ..._data.ports import Received, Served
from ..._wire.frames import Status
from ..._wire.values import encode_value
from ...exceptions import MycorrizalError, PeerBusy, PeerUnreachable, RemoteProtocolError
from ..threads import clock
from .core import RESERVED, Core
from .tickets import field

__all__ = ["Answer", "Carrier", "Done"]

PAYLOAD_MAX = 16 << 20
"""Longest payload; state of more than that does not travel."""

Answer = Callable[[bytes], None]
Done = Callable[[bytes | None, MycorrizalError | None], None]


class Carrier:
    """One kind of payload on one data plane.

    Args:
        core: the plane's.
        name: of the requests, behind ``RESERVED``.
        serve: called on the loop thread with the sender, its payload, and where the answer goes, now or later,
            from any thread. It must be quick.
    """

    def __init__(self, core: Core, name: str, serve: Callable[[str, bytes, Answer], None]) -> None:
        self._core = core
        self._name = field(RESERVED + name)
        self._serve = serve
        core.system[RESERVED + name] = self._asked

    def ask(self, node: str, payload: bytes, timeout: float, done: Done) -> None:
        """Send `payload` to `node`; `done(answer, error)` is called once, on the loop thread or at once. Any thread."""
        call = Call(node, self._name, encode_value(payload), clock.now() + timeout, _Ticket(done))
        try:
            self._core.loop.submit(partial(self._core.machine.request, call))
        except MycorrizalError as error:  # the plane was closed
            done(None, error)

    def _asked(self, request: Served) -> None:
        try:
            payload = request.value.decode(None)
            if not isinstance(payload, bytes) or len(payload) > PAYLOAD_MAX:
                raise RemoteProtocolError("a payload that is not bytes, or too long")
        except RemoteProtocolError as error:
            self._core.submit(partial(self._core.machine.bad_value, request.sender, error))
            return
        self._serve(request.sender, payload, partial(self._respond, request))

    def _respond(self, request: Served, answer: bytes) -> None:
        self._core.submit(partial(request.link.respond, request, Status.OK, encode_value(answer)))


class _Ticket:
    """Calls back on the loop thread."""

    def __init__(self, done: Done) -> None:
        self._done = done

    def succeed(self, outcome: object) -> None:
        match outcome:
            case (Status.OK, Received() as received):
                try:
                    payload = received.decode(None)
                except RemoteProtocolError as error:
                    self._done(None, error)
                    return
                if isinstance(payload, bytes):
                    self._done(payload, None)
                else:
                    self._done(None, RemoteProtocolError("an answer that is not bytes"))
            case (Status.BUSY, _):
                self._done(None, PeerBusy("the peer is busy"))
            case _:
                self._done(None, PeerUnreachable("the peer does not take it"))

    def fail(self, error: MycorrizalError) -> None:
        self._done(None, error)
