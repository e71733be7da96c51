"""The latest events of all senders, for those who missed one and for those who ask what was said."""

from __future__ import annotations

from collections import OrderedDict

from .messages import Event, Sender

__all__ = ["Memory", "Remembered"]


class Remembered:
    """An event, the bytes it came in, and whether it was handed on here."""

    __slots__ = ("delivered", "event", "raw")

    def __init__(self, event: Event, raw: bytes) -> None:
        self.event = event
        self.raw = raw
        self.delivered = False


class Memory:
    """Bounded by number and by bytes; the oldest goes first. Those handed on stand in that order."""

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._events: OrderedDict[tuple[Sender, int], Remembered] = OrderedDict()
        self._senders: dict[Sender, int] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, one: Remembered) -> None:
        """Remember an event, or move it to the end if it is."""
        key = one.event.sender, one.event.number
        if key in self._events:
            self._events.move_to_end(key)
            return
        self._events[key] = one
        self._senders[key[0]] = self._senders.get(key[0], 0) + 1
        self.bytes += len(one.raw)
        while len(self._events) > self._count_max or self.bytes > self._bytes_max:
            (sender, _), old = self._events.popitem(last=False)
            self.bytes -= len(old.raw)
            self._senders[sender] -= 1
            if not self._senders[sender]:
                del self._senders[sender]

    def get(self, sender: Sender, number: int) -> Remembered | None:
        """Return one event."""
        return self._events.get((sender, number))

    def has_any(self, sender: Sender) -> bool:
        """Return whether an event of `sender` is remembered."""
        return sender in self._senders

    def latest(self, topic: str | None, count: int) -> list[Event]:
        """Return the last `count` events (of a topic) that were handed on, oldest first."""
        found: list[Event] = []
        if count > 0:
            for one in reversed(self._events.values()):
                if one.delivered and topic in (None, one.event.topic):
                    found.append(one.event)
                    if len(found) == count:
                        break
        return found[::-1]
