"""What goes out on one socket: whoever has something to send puts it there himself, unless something waits before it.

The owner is whoever holds the lock, and nothing else is entered under it. A
send never blocks: what the socket does not take is kept, and the loop sends it
once the socket says that it takes more.

A Ctrl-C may end a ``put`` between any two steps, also between the system's
"so many bytes are taken" and the line that would note it. So the call and the
note are one step of the interpreter, and everything else is found from what
has been noted: where each item begins, and how much was taken in all.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Outlet"]

_NOTES_MAX = 64
_GATHERED = 64  # items in one call


class Outlet:
    """The sending half of a stream socket. Any thread.

    Args:
        left: called, without the lock, whenever something is left for the loop to send.
    """

    __slots__ = ("_items", "_left", "_lock", "_notes", "_sock", "broken")

    def __init__(self, sock: socket.socket, left: Callable[[], object]) -> None:
        self._sock = sock
        self._left = left
        self._lock = threading.Lock()
        self._items: deque[tuple[int, int, bytes | memoryview]] = deque()  # begins at, stream, bytes
        self._notes: list[int] = [0]  # what the socket has taken, call by call
        self.broken: OSError | None = None

    def put(self, stream: int, data: bytes) -> None:
        """Send `data`, of `stream`, now or after what waits. It must not change."""
        try:
            with self._lock:
                waits = bool(self._items)
                self._items.append((self._end(), stream, data))
                left = waits or not self._push()
        except BaseException:  # a Ctrl-C: whatever was put stays whole
            self._left()
            raise
        if left and not waits:
            self._left()

    def put_large(self, stream: int, head: bytes, data: bytes | memoryview) -> None:
        """The same for `head` and `data`, whose memory is read now, or copied. Not for the main thread."""
        with self._lock:
            waits = bool(self._items)
            begin = self._end()
            self._items.append((begin, stream, head))
            self._items.append((begin + len(head), stream, data))
            if not waits and self._push():
                return
            if self._items:
                at, number, last = self._items[-1]
                if last is data and not isinstance(data, bytes):
                    taken = max(0, self._taken() - at)
                    self._items[-1] = (at + taken, number, bytes(data[taken:]))
        if not waits:
            self._left()

    def go_on(self) -> bool:
        """Send what waits, as far as the socket takes it; return whether that was all."""
        with self._lock:
            return self._push()

    def cut(self) -> None:
        """Drop what waits, but for an item that has begun to leave."""
        with self._lock:
            taken, items = self._taken(), self._items
            while items and items[-1][0] >= taken:
                items.pop()

    def backlog(self, stream: int | None = None) -> int:
        """Return the bytes, of `stream` or of all, that the socket has not taken."""
        if not self._items:
            return 0
        with self._lock:
            taken = self._taken()
            return sum(
                begin + len(data) - max(begin, taken)
                for begin, of, data in self._items
                if stream in (None, of) and begin + len(data) > taken
            )

    @property
    def waits(self) -> bool:
        """Whether anything has not been taken."""
        return bool(self._items)

    @property
    def taken(self) -> int:
        """Bytes that the socket has taken in all."""
        return sum(self._notes)

    # -- under the lock --------------------------------------------------------------------

    def _taken(self) -> int:
        if len(self._notes) > _NOTES_MAX:
            self._notes[:] = [sum(self._notes)]
        return sum(self._notes)

    def _end(self) -> int:
        """Return where the next item begins."""
        if not self._items:
            return self._taken()
        begin, _, data = self._items[-1]
        return begin + len(data)

    def _push(self) -> bool:
        """Send until nothing is left, or the socket takes no more; return whether nothing is left."""
        items, notes = self._items, self._notes
        while items:
            begin, _, data = items[0]
            done = self._taken() - begin
            if done >= len(data):
                items.popleft()
                continue
            try:
                if len(items) == 1 and not done:
                    notes.extend(map(self._sock.send, (data,)))  # one step: see above
                else:
                    rest = [data for _, _, data in itertools.islice(items, _GATHERED)]
                    rest[0] = memoryview(data)[done:]
                    notes.extend(map(self._sock.sendmsg, (rest,)))
            except BlockingIOError:
                return False
            except OSError as exc:  # the reading half finds out what it means
                self.broken = exc
                items.clear()
        return True
