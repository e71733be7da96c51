"""Messages from one node to another: each once, in order, none lost while both live.

``Outgoing`` numbers messages and keeps each until the peer says that its inbox
has it; ``Incoming`` takes them in order, holds what came early, and drops what
came twice. Neither knows a connection, so a message whose connection broke is
sent again on the next one and still arrives once. What may be under way is
bounded by the receiver's window: the sender counts what is not accepted yet,
the receiver disconnects who sends more (quic-recipes: credits of our own).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from .._wire.values import Encoded
from ..exceptions import RemoteProtocolError
from .ports import Received, Ticket

__all__ = ["Incoming", "OutMessage", "Outgoing"]


class OutMessage:
    """One message on its way. ``sequence`` is 0 until it has been given to a connection."""

    __slots__ = ("carrier", "done", "sequence", "size", "ticket", "value")

    def __init__(self, value: Encoded, ticket: Ticket) -> None:
        self.value: Encoded | None = value  # None: withdrawn, its number is skipped
        self.size = value.size
        self.ticket = ticket
        self.sequence = 0
        self.carrier: object = None  # the connection it was sent on
        self.done = False


class Outgoing:
    """The sending half for one peer process (name and boot id)."""

    def __init__(self, window_messages: int, window_bytes: int) -> None:
        self.window_messages = window_messages
        self.window_bytes = window_bytes
        self.waiting: deque[OutMessage] = deque()
        self._unaccepted: dict[int, OutMessage] = {}
        self._bytes = 0
        self._next = 1

    def __len__(self) -> int:
        return len(self.waiting) + len(self._unaccepted)

    def pop_ready(self) -> Iterator[OutMessage]:
        """Yield what may be sent now, each with its number."""
        waiting, unaccepted = self.waiting, self._unaccepted
        while waiting:
            message = waiting[0]
            if message.done:
                waiting.popleft()
                continue
            if len(unaccepted) >= self.window_messages or (unaccepted and self._bytes + message.size > self.window_bytes):
                return
            waiting.popleft()
            message.sequence = self._next
            self._next += 1
            unaccepted[message.sequence] = message
            self._bytes += message.size
            yield message

    def accepted(self, sequence: int) -> None:
        """The peer has everything up to `sequence`.

        Raises:
            RemoteProtocolError: that much was never sent.
        """
        if sequence >= self._next:
            raise RemoteProtocolError(f"message {sequence} accepted, which was never sent")
        unaccepted = self._unaccepted
        for number in list(unaccepted):  # in order of sending
            if number > sequence:
                break
            message = unaccepted.pop(number)
            self._bytes -= message.size
            if not message.done:
                message.done = True
                message.ticket.succeed(None)

    def withdraw(self, message: OutMessage) -> None:
        """Nobody waits for `message` any more; if it was sent, its number is to be skipped."""
        message.done = True
        if message.sequence:
            message.value = None
            self._bytes -= message.size
            message.size = 0

    def resend(self, accepted: int) -> Iterator[OutMessage]:
        """On a new connection: the peer has all up to `accepted`; yield what must be sent again."""
        self.accepted(min(accepted, self._next - 1))
        yield from self._unaccepted.values()

    def take_all(self) -> list[OutMessage]:
        """Give up: return all that are not done, and forget those that were never sent.

        Numbers of those that were sent stay, so that they can be skipped later.
        """
        lost = [message for message in (*self._unaccepted.values(), *self.waiting) if not message.done]
        self.waiting.clear()
        for message in self._unaccepted.values():
            self.withdraw(message)
        return lost

    def restart(self) -> list[OutMessage]:
        """The peer is another process now: return what the old one may have had, and count from 1 again."""
        lost = [message for message in self._unaccepted.values() if not message.done]
        self._unaccepted.clear()
        self._bytes = 0
        self._next = 1
        return lost


class Incoming:
    """The receiving half for one peer process.

    Args:
        offer: puts one message into the inbox; False if that is full.
    """

    def __init__(self, window_messages: int, window_bytes: int, offer: Callable[[tuple[str, Received], int], bool]) -> None:
        self._window_messages = window_messages
        self._window_bytes = window_bytes
        self._offer = offer
        self._held: dict[int, tuple[tuple[str, Received], int] | None] = {}
        self._bytes = 0
        self._next = 1
        self.blocked = False

    @property
    def accepted(self) -> int:
        """The last number that is in the inbox, or was skipped, with all before it."""
        return self._next - 1

    def receive(self, sequence: int, item: tuple[str, Received], size: int) -> bool:
        """Take a message; return whether ``accepted`` rose, or must be said again because it came twice.

        Raises:
            RemoteProtocolError: the peer sends beyond its window.
        """
        if not self._expects(sequence):
            return True
        if self._held and self._bytes + size > self._window_bytes:
            raise RemoteProtocolError("more bytes of messages than the window allows")
        self._held[sequence] = (item, size)
        self._bytes += size
        return self.drain()

    def skip(self, sequence: int) -> bool:
        """`sequence` will not come; if it is held it is dropped."""
        if not self._expects(sequence):
            held = self._held.get(sequence)
            if held is not None:
                self._bytes -= held[1]
                self._held[sequence] = None
                return self.drain()
            return True
        self._held[sequence] = None
        return self.drain()

    def drain(self) -> bool:
        """Move what is next into the inbox; return whether ``accepted`` rose."""
        before = self._next
        self.blocked = False
        held = self._held
        while self._next in held:
            entry = held[self._next]
            if entry is not None:
                if not self._offer(*entry):
                    self.blocked = True
                    break
                self._bytes -= entry[1]
            del held[self._next]
            self._next += 1
        return self._next != before

    def _expects(self, sequence: int) -> bool:
        if sequence >= self._next + self._window_messages:
            raise RemoteProtocolError("more messages than the window allows")
        return sequence >= self._next and sequence not in self._held
