"""A handler's thread that waits at the socket from which its last request came."""

from __future__ import annotations

from ..._data.link import Link
from ..._data.ports import Served
from ..threads import clock
from ..threads.handlers import HandlerPool

__all__ = ["Reader"]


class Reader:
    """A handler's thread that waits at a socket: for one request, if it could run it at once."""

    __slots__ = ("_link", "_pool", "request")

    done = False

    def __init__(self, pool: HandlerPool, link: Link) -> None:
        self._pool = pool
        self._link = link
        self.request: Served | None = None

    def take(self, stream: int, data: bytes) -> bool:
        """Take what has come; False if it is for the loop."""
        if not self._pool.crowded:
            self.request = self._link.serve_now(stream, data, clock.now())
        return self.request is not None
