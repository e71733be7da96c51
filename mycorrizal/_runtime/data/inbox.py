"""What was received and not yet read: a queue bounded by messages and bytes.

The loop offers and never waits; readers wait. An item goes straight to the
reader that has waited longest, if one waits, so that a reader which wakes up
holds its item already. Waiting is on a lock of the reader's own, because a
``threading.Condition`` costs several times as much.

Room is announced in lots: at once if the refusal is 1 ms old, and before that
only when an eighth is free. A reader that is a little slower than its peers
would otherwise wake the loop for each message, which costs more than reading it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from ...exceptions import MycorrizalError, OperationTimeout
from ..threads import clock, waits
from ..threads.deadline import Deadline

__all__ = ["Inbox"]

T = TypeVar("T")

LOT = 8
"""The part of the inbox that has to be free for room to be announced at once: one in LOT."""
PATIENCE = 0.001
"""Seconds after a refusal from which on any room is announced."""


class _Reader(Generic[T]):
    """One waiting ``get``."""

    __slots__ = ("gate", "items")

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.items: list[tuple[T, int]] = []  # what was handed over: none, or one


class Inbox(Generic[T]):
    """First in, first out; at most `messages` items of `bytes_` bytes together, or a single larger one.

    Args:
        on_room: called on the reading thread, once after ``offer`` refused, when there is room again.

    The lock is re-entrant: a signal handler may call in while the interrupted thread is inside.
    """

    def __init__(self, messages: int, bytes_: int, on_room: Callable[[], None]) -> None:
        self._messages = messages
        self._limit = bytes_
        self._on_room = on_room
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._readers: deque[_Reader[T]] = deque()
        self._lock = threading.RLock()
        self._refused: tuple[int, float] | None = None  # size of what was refused last, and when
        self._error: Callable[[], Exception] | None = None

    # -- the loop thread ----------------------------------------------------------------

    def offer(self, item: T, size: int) -> bool:
        """Queue `item` of `size` bytes; False if there is no room, which ``on_room`` will tell, or after ``close``.

        While it is refused the owner may also offer again by itself: when a reader takes a little within 1 ms of
        the refusal and then nothing more, that room is not announced.
        """
        with self._lock:
            if self._error is not None:
                return False
            if self._readers:
                reader = self._readers.popleft()
                reader.items.append((item, size))
                reader.gate.release()
                return True
            if self._items and (len(self._items) >= self._messages or self._size + size > self._limit):
                self._refused = size, clock.now()
                return False
            self._items.append((item, size))
            self._size += size
            return True

    # -- any thread ---------------------------------------------------------------------

    def get(self, timeout: float | None) -> T:
        """Return the oldest item; wait up to `timeout` seconds for one, for ever if None, not at all if 0.

        Raises:
            OperationTimeout: none came.
            Exception: what ``close`` was given, when nothing is left.
            TypeError, ValueError: `timeout` is neither a number nor None.
        """
        entry: tuple[T, int] | None = None
        reader: _Reader[T] | None = None
        room = False
        try:
            with self._lock:
                if self._items:
                    # Looked at first: an interrupt comes after a call, and must find what was taken in our hands.
                    entry = self._items[0]
                    self._size -= entry[1]
                    self._items.popleft()
                    room = self._refused is not None and self._has_room(*self._refused)
                    if room:
                        self._refused = None
                else:
                    if self._error is not None:
                        raise self._error()
                    if timeout == 0:
                        raise _late(timeout)
                    deadline = Deadline(timeout)
                    reader = _Reader()
                    self._readers.append(reader)
            if entry is not None:
                if room:
                    self._tell_room()
                return entry[0]
            assert reader is not None
            return self._wait(reader, deadline, timeout)
        except BaseException:  # Ctrl-C loses nothing
            self._give_back(entry, reader)
            if room or (entry is not None and self._refused is not None):
                self._refused = None
                self._tell_room()  # once too often does no harm: the owner offers, and is refused again
            raise

    def put_back(self, item: T, size: int) -> None:
        """Make what ``get`` returned the oldest again: it could not be handed on."""
        self._give_back((item, size), None)

    def close(self, error: Callable[[], Exception]) -> None:
        """Take nothing more; readers get what is queued, and then `error()`. Only the first call counts."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error
            self._refused = None
            readers, self._readers = self._readers, deque()
        for reader in readers:
            reader.gate.release()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def bytes(self) -> int:
        """Size of all that waits here."""
        return self._size

    # -- inside -------------------------------------------------------------------------

    def _tell_room(self) -> None:
        try:
            self._on_room()
        except MycorrizalError:
            pass  # the loop has ended, and offers no more

    def _has_room(self, size: int, since: float) -> bool:
        """Whether an item of `size` bytes fits, and it is time to say so."""
        count = len(self._items)
        if not count:
            return True
        if count >= self._messages or self._size + size > self._limit:
            return False
        if (self._messages - count) * LOT >= self._messages and (self._limit - self._size) * LOT >= self._limit:
            return True
        return clock.now() >= since + PATIENCE

    def _wait(self, reader: _Reader[T], deadline: Deadline, timeout: float | None) -> T:
        waits.pass_gate(reader.gate, deadline)
        if not reader.items:
            with self._lock:
                self._leave(reader)
            if not reader.items:
                raise _late(timeout) if self._error is None else self._error()
        return reader.items[0][0]

    def _leave(self, reader: _Reader[T]) -> None:
        try:
            self._readers.remove(reader)
        except ValueError:
            pass  # it was handed an item, or the inbox closed

    def _give_back(self, entry: tuple[T, int] | None, reader: _Reader[T] | None) -> None:
        """Make what an interrupted ``get`` held the oldest again, or the next reader's."""
        if entry is None and reader is None:
            return
        with self._lock:
            if reader is not None:
                self._leave(reader)
                if reader.items:
                    entry = reader.items.pop()
            if entry is None:
                return
            if self._readers:
                other = self._readers.popleft()
                other.items.append(entry)
                other.gate.release()
            else:
                self._items.appendleft(entry)
                self._size += entry[1]


def _late(timeout: float | None) -> OperationTimeout:
    return OperationTimeout(f"nothing was received within {timeout} s", operation="receive")
