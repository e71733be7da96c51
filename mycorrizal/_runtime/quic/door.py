"""The way to QUIC, which is imported and made with the first datagram, or the first peer that is dialled.

It costs 0.1 s and 10 MB, which who meets no peer over it does without. The loop's thread imports it: no call waits
for that but those for a peer, and the interpreter is everybody's meanwhile.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ...exceptions import MycorrizalError, PeerUnreachable
from ..threads.shortage import exhausted, spare_descriptors
from .choice import packet_path
from .loop import Loop

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["Door"]

_AGAIN = 1.0  # seconds
_DESCRIPTORS = 2  # that an import has open at once: a folder's and a file's


class Door:
    """Loop thread only, the constructor excepted.

    Args:
        make: is given the class ``Endpoint``, once, and makes one that reads `sock` from then on.
    """

    def __init__(self, loop: Loop, sock: socket.socket, make: Callable[[type[Endpoint]], Endpoint]) -> None:
        self.endpoint: Endpoint | None = None
        self._loop = loop
        self._sock = sock
        self._make = make
        self._listen(0.0)

    def open(self) -> Endpoint:
        """Return the endpoint.

        Raises:
            NotRunningError: this aioquic is not one that we know.
            ResourcesExhausted, PeerUnreachable: it cannot be loaded, for now.
        """
        if self.endpoint is None:
            try:
                spare_descriptors(_DESCRIPTORS)
                from .endpoint import Endpoint  # late: see above

                packet_path()
            except (ImportError, OSError, MemoryError) as exc:
                what = "QUIC cannot be loaded"
                raise exhausted(exc, what) or PeerUnreachable(f"{what}: {exc}", hint="install aioquic anew") from exc
            self.endpoint = self._make(Endpoint)
        return self.endpoint

    def _listen(self, now: float) -> None:
        if self.endpoint is None:
            self._loop.add_reader(self._sock, self._knocked)

    def _knocked(self, now: float) -> None:
        """A datagram has come: the endpoint reads it in the next turn, if it can be made."""
        try:
            self.open()
        except MycorrizalError:  # it stays in the socket
            self._loop.remove_reader(self._sock)
            self._loop.call_at(now + _AGAIN, self._listen)
