"""The receiving half of a socket: the loop reads, unless a thread that waits for the next thing to come does it itself.

That thread sleeps in the kernel, and is woken by it: no other thread in
between. It reads once. What it cannot take by itself it leaves to the loop,
and nobody reads until that is done, so that nothing overtakes.

A Ctrl-C may end ``read`` between any two steps. So what the system gives and
the note of it are one step of the interpreter, and the loop takes over
whatever an interrupted reader has left: what was taken twice is, for the
second time, an answer that nobody waits for.
"""

from __future__ import annotations

import math
import select
import socket
from collections.abc import Callable

from ..._data.ports import Waiting
from ..threads.deadline import Deadline
from ..threads.waits import wait_sliced

__all__ = ["LOOP", "Loan"]

LOOP = object()
"""Who reads when nobody else does."""
_SIZE = 64 << 10


class Loan:
    """Who reads a socket. Any thread.

    Args:
        watch: lets the loop be told of what comes, or no longer: asks ``taken``.
        left: has the loop call ``back`` with who has read, and then ``end``.
    """

    __slots__ = ("_chunks", "_left", "_over", "_poll", "_reader", "_sock", "_watch")

    def __init__(self, sock: socket.socket, watch: Callable[[], object], left: Callable[[object], object]) -> None:
        self._sock = sock
        self._watch = watch
        self._left = left
        self._reader: dict[None, object] = {}  # whose ``setdefault`` is one step: none, or one
        self._chunks: list[bytes] = []
        self._poll: select.poll | None = None
        self._over = False

    @property
    def taken(self) -> bool:
        """Whether another thread than the loop's reads, or has left something to it."""
        return self._reader.get(None, LOOP) is not LOOP

    def begin(self, who: object) -> bool:
        """Let `who` alone read from now on; False if another one does."""
        return self._reader.setdefault(None, who) is who

    def end(self, who: object) -> None:
        """`who` reads no more."""
        if self._reader.get(None) is who:
            self._reader.clear()
        if who is not LOOP:
            self._watch()

    def read(self, who: Waiting, take: Callable[[bytes], bool], deadline: Deadline) -> bool:
        """Wait for what comes next and let ``take`` have it; False if it did not want it, or nothing came in time.

        Raises:
            NotRunningError: see ``waits``.
        """
        try:
            if not self.begin(who):
                return False
            # The loop may just have read what `who` waits for, or ended it all: it says so, and looks who reads.
            if self._over or who.done:
                self.end(who)
                return False
            self._watch()
            if not wait_sliced(self._ready, deadline):
                self.end(who)
                return False
            try:
                self._chunks.extend(map(self._sock.recv, (_SIZE,)))  # one step: see above
            except OSError:
                pass  # the loop finds out what it means
            if not self._chunks or not take(self._chunks[0]):
                self._left(who)
                return False
            self._chunks.clear()
            self.end(who)
        except BaseException:  # a Ctrl-C
            self._left(who)
            raise
        return True

    def back(self, who: object) -> list[bytes]:
        """Return what `who` has left, once: the loop is about to take it. Loop thread."""
        if self._reader.get(None) is not who:
            return []
        chunks, self._chunks = self._chunks, []
        return chunks

    def stop(self) -> None:
        """Let nobody wait for what comes next: the connection ends."""
        self._over = True
        if self.taken:
            try:
                self._sock.shutdown(socket.SHUT_RD)
            except OSError:
                pass  # it has ended

    def _ready(self, seconds: float) -> bool:
        poll = self._poll
        if poll is None:
            poll = self._poll = select.poll()
            poll.register(self._sock.fileno(), select.POLLIN)
        return bool(poll.poll(None if seconds < 0 else math.ceil(seconds * 1000)))
