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
from ..exceptions import MycorrizalError, RemoteProtocolError
from .flows import Outflow
from .ports import Received, Ticket

__all__ = ["Incoming", "OutMessage", "Outgoing"]


class OutMessage:
    """One message on its way. ``sequence`` is 0 until it is given to a connection; ``over`` as in ``ports.Lender``."""

    __slots__ = ("carrier", "done", "flow", "over", "sequence", "size", "ticket", "value")

    def __init__(self, value: Encoded, ticket: Ticket) -> None:
        self.value: Encoded | None = value  # None: over, or withdrawn: its number is skipped
        self.size = value.size
        self.ticket = ticket
        self.sequence = 0
        self.carrier: object = None  # the connection it was sent on
        self.flow: Outflow | None = None  # if it has a stream of its own there
        self.done = False
        self.over = False


_NOTHING = Encoded(b"", (), b"", 0)


class _Nobody:
    """The ticket of what nobody waits for."""

    def succeed(self, outcome: object) -> None:
        pass

    def fail(self, error: MycorrizalError) -> None:
        pass


class Outgoing:
    """The sending half for one peer process (name and boot id).

    Attributes:
        waiting: messages without a number yet.
        open: how many messages somebody waits for.
    """

    def __init__(self, window_messages: int, window_bytes: int) -> None:
        self.window_messages = window_messages
        self.window_bytes = window_bytes
        self.waiting: deque[OutMessage] = deque()
        self.open = 0
        self._unaccepted: deque[OutMessage] = deque()  # in order of their numbers
        self._bytes = 0
        self._next = 1
        self._withdrawn = False

    def __len__(self) -> int:
        return len(self.waiting) + len(self._unaccepted)

    def add(self, message: OutMessage) -> None:
        """Queue a message."""
        self.waiting.append(message)
        self.open += 1

    def pop_ready(self) -> Iterator[OutMessage]:
        """Yield what may be sent now, each with its number."""
        waiting, unaccepted = self.waiting, self._unaccepted
        while waiting:
            message = waiting[0]
            if message.done:
                waiting.popleft()
                continue
            if len(unaccepted) >= self.window_messages:
                return
            if unaccepted and self._bytes + message.size > self.window_bytes:
                return
            waiting.popleft()
            message.sequence = self._next
            self._next += 1
            unaccepted.append(message)
            self._bytes += message.size
            yield message

    def accepted(self, sequence: int) -> bool:
        """The peer has everything up to `sequence`; return whether that is news.

        Raises:
            RemoteProtocolError: that much was never sent.
        """
        if sequence >= self._next:
            raise RemoteProtocolError(f"message {sequence} accepted, which was never sent")
        unaccepted = self._unaccepted
        if not unaccepted or unaccepted[0].sequence > sequence:
            return False
        while unaccepted and unaccepted[0].sequence <= sequence:
            message = unaccepted.popleft()
            self._bytes -= message.size
            flow, message.flow = message.flow, None
            if flow is not None:
                flow.refused = None
            if self._end(message):
                message.ticket.succeed(None)
        return True

    def withdraw(self, message: OutMessage) -> bool:
        """Nobody waits for `message` any more; return whether its number, if it has one, is to be skipped.

        It counts against the window until the peer has skipped it: its bytes may be there.
        """
        if not self._end(message):
            return False
        self._withdrawn = self._withdrawn or not message.sequence
        return message.sequence > 0

    def purge(self) -> None:
        """Forget what was withdrawn before it had a number."""
        if self._withdrawn:
            self._withdrawn = False
            self.waiting = deque(message for message in self.waiting if not message.done)

    def trim(self, accepted: int) -> None:
        """On a new connection: the peer has all up to `accepted`."""
        self.accepted(min(accepted, self._next - 1))

    def unaccepted(self) -> list[OutMessage]:
        """Return what was sent and is not accepted, in order."""
        return list(self._unaccepted)

    def take_all(self) -> list[OutMessage]:
        """Give up: return all that somebody waits for, and forget those that were never sent.

        Numbers of those that were sent stay, so that they can be skipped later.
        """
        lost = [message for message in (*self._unaccepted, *self.waiting) if not message.done]
        for message in lost:
            self.withdraw(message)
        self.waiting.clear()
        return lost

    @property
    def numbers(self) -> tuple[int, int]:
        """The first number that the peer is not known to have, and the next to be given."""
        return (self._unaccepted[0].sequence if self._unaccepted else self._next), self._next

    def resume(self, first: int, following: int) -> None:
        """Go on with the `numbers` of before; what had one then is to be skipped."""
        self._next = following
        for sequence in range(first, following):
            message = OutMessage(_NOTHING, _Nobody())
            message.value, message.sequence, message.done = None, sequence, True
            self._unaccepted.append(message)

    def restart(self) -> list[OutMessage]:
        """The peer is another process now: return what the old one may have had, and count from 1 again."""
        lost = [message for message in self._unaccepted if self._end(message)]
        for message in lost:
            message.flow = None
        self._unaccepted.clear()
        self._bytes = 0
        self._next = 1
        return lost

    def _end(self, message: OutMessage) -> bool:
        if message.done:
            return False
        message.done = True
        message.value = None
        self.open -= 1
        return True


class Incoming:
    """The receiving half for one peer process.

    Args:
        offer: puts one message into the inbox; False if that is full.
        accepted: the last number that is in the inbox, or was skipped, from before.

    Attributes:
        blocked: the next message waits for room in the inbox.
    """

    def __init__(
        self,
        window_messages: int,
        window_bytes: int,
        offer: Callable[[tuple[str, Received], int], bool],
        accepted: int = 0,
    ) -> None:
        self._window_messages = window_messages
        self._window_bytes = window_bytes
        self._offer = offer
        self._held: dict[int, tuple[tuple[str, Received], int] | None] = {}
        self._bytes = 0
        self._next = accepted + 1
        self.blocked = False

    @property
    def accepted(self) -> int:
        """The last number that is in the inbox, or was skipped, with all before it."""
        return self._next - 1

    @property
    def holding(self) -> bool:
        """Whether something waits here."""
        return bool(self._held)

    def expects(self, sequence: int) -> bool:
        """Return whether `sequence` is news.

        Raises:
            RemoteProtocolError: the peer sends beyond its window, or does not count from 1.
        """
        if not 0 < sequence < self._next + self._window_messages:
            raise RemoteProtocolError("a message number outside the window")
        return sequence >= self._next and sequence not in self._held

    def put(self, sequence: int, item: tuple[str, Received], size: int) -> bool:
        """Take a message that is expected; return whether ``accepted`` rose.

        Raises:
            RemoteProtocolError: the peer sends beyond its window.
        """
        if self._held and self._bytes + size > self._window_bytes:
            raise RemoteProtocolError("more bytes of messages than the window allows")
        self._held[sequence] = (item, size)
        self._bytes += size
        return self.drain()

    def skip(self, sequence: int) -> bool:
        """`sequence` will not come; if it is held it is dropped. Return whether ``accepted`` rose."""
        if not self.expects(sequence):
            held = self._held.get(sequence)
            if held is None:
                return False
            self._bytes -= held[1]
        self._held[sequence] = None
        return self.drain()

    def let_go(self) -> None:
        """No connection is left: what waits here would come again on the next one, unless its sender gives it up."""
        self._held.clear()
        self._bytes = 0
        self.blocked = False

    def drain(self, most: int = 1 << 62) -> bool:
        """Move what is next into the inbox, up to `most` messages; return whether ``accepted`` rose."""
        before = self._next
        self.blocked = False
        held = self._held
        while self._next in held:
            entry = held[self._next]
            if entry is not None:
                if not most or not self._offer(*entry):
                    self.blocked = True
                    break
                most -= 1
                self._bytes -= entry[1]
            del held[self._next]
            self._next += 1
        return self._next != before
