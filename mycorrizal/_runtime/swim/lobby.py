"""The TCP listener and all conversations others dialled us for. Belongs to the gossip thread, and uses its selector.

Their sockets never block and never leave this thread, so who is silent, trickles
or does not read costs a place and no thread (``places`` has the limits). A
thread of the pool gets the bytes when there is something to decode, and gives
back bytes to send: what they mean is the business of ``conversation``.

Differs from memberlist: who says nothing for a second is given up, and who
says little gives way to others; after an error answer the connection is
drained for a moment, since closing it with unread bytes would make the kernel
discard the answer on its way.
"""

from __future__ import annotations

import errno
import selectors
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from ..._wire.stream import StreamReader
from ..._wire.text import logger
from ...config import Config, allowed
from ...exceptions import RemoteProtocolError
from ...types import Address
from ..net.addresses import source_of
from ..net.sockets import from_sockaddr
from ..threads import clock
from ..threads.counters import Counters, QuietLog
from ..threads.deadline import Deadline
from ..threads.mailbox import Mailbox
from ..threads.shortage import note
from .conversation import Conversations, Heard
from .exchanges import ExchangePool, Lane
from .places import FIRST_BYTES_SECONDS, LINGER_BYTES, LINGER_SECONDS, Place, Places

__all__ = ["Guest", "Lobby"]

log = logger("mycorrizal.gossip")

_CHUNK = 1 << 16  # read or written for one guest in a turn; larger buffers come and go in the system's memory, and stay
_ACCEPT_BATCH = 64
_BACKOFF_FIRST, _BACKOFF_MAX = 0.005, 1.0  # of a failing accept, doubling (memberlist-protocol §10.4)
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


@dataclass(slots=True, eq=False, kw_only=True)
class Guest(Place):
    """One conversation we were dialled for: it speaks, then takes our answer, then lingers if that was an error."""

    sock: socket.socket
    address: Address
    reader: StreamReader
    answer: memoryview | None = None  # what is left of it
    refused: bool = False  # the answer is an error
    linger: int | None = None  # bytes that are still read and thrown away
    mask: int = 0  # what the selector waits for


class Lobby:
    """Accepts and carries conversations. Gossip thread, but for what says otherwise.

    Args:
        listener: also registered in `selector`, and taken out while nobody can be let in.
        selector: the thread's; ``ready`` gets what it finds.
    """

    def __init__(
        self,
        config: Config,
        listener: socket.socket,
        selector: selectors.BaseSelector,
        mailbox: Mailbox,
        pool: ExchangePool,
        conversations: Conversations,
        counters: Counters,
    ) -> None:
        self._node = config.name
        self._networks = config.networks
        self._timeout = config.tcp_timeout
        self._listener = listener
        self._selector = selector
        self._mailbox = mailbox
        self._pool = pool
        self._conversations = conversations
        self._counters = counters
        self._quiet = QuietLog(log, config.name)
        self._buffer = memoryview(bytearray(_CHUNK))
        self._delay = 0.0
        self._accept_at: float | None = None  # when a failing accept is tried again
        self._door: tuple[socket.socket, Address, float] | None = None  # came at, and waits for a place
        self._door_at: float | None = None  # when it asks again
        self._listening = False
        self.places: Places[Guest] = Places(conversations.dialled)
        self._listen()

    # -- the thread's turns -------------------------------------------------------------------

    def get_timer(self) -> float | None:
        """Return when ``handle_timer`` is wanted."""
        moments = (self._accept_at, self._door_at, self.places.get_timer())
        return min((moment for moment in moments if moment is not None), default=None)

    def ready(self, guests: Iterable[Guest], knocks: bool) -> None:
        """Go on with `guests`, and let in who knocks."""
        for guest in guests:
            if guest in self.places:
                self._go_on(guest)
        if self._door is not None:
            self._enter(*self._door)
        if knocks:
            self._accept()

    def handle_timer(self, now: float) -> None:
        """End what has run out of time. What has arrived must have been taken in before."""
        for guest in self.places.expired(now):
            if guest.linger is not None:
                self._end(guest)
            elif not guest.moved and guest.answer is None:
                self._end(guest, "tcp.silent")
            else:
                log.debug("%s: conversation with %s port %d ran out of time", self._node, *guest.address)
                self._end(guest, "tcp.timeouts")
        if self._door is not None:
            self._enter(*self._door)
        if self._accept_at is not None and now >= self._accept_at:
            self._accept_at = None
            self._listen()

    # -- the listener ---------------------------------------------------------------------------

    def _listen(self) -> None:
        wanted = self._door is None and self._accept_at is None
        if wanted and not self._listening:
            try:
                self._selector.register(self._listener, selectors.EVENT_READ)
            except OSError as exc:  # as in ``_watch``
                note(exc)
                self._back_off(exc)
                return
        elif self._listening and not wanted:
            self._selector.unregister(self._listener)
        self._listening = wanted

    def _accept(self) -> None:
        for _ in range(_ACCEPT_BATCH):
            if self._door is not None:
                return
            try:
                sock, sockaddr = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno == errno.ECONNABORTED:
                    continue
                note(exc)
                if exc.errno not in _NO_DESCRIPTOR or not self._displace(self.places.slowest(clock.now())):
                    self._back_off(exc)
                    return
                continue
            self._delay = 0.0
            self._counters.add("tcp.accept")
            address = from_sockaddr(sockaddr)
            if allowed(address[0], self._networks):
                self._enter(sock, address, clock.now())
                continue
            # Differs from memberlist: there cidrs_allowed is applied to announced addresses only.
            self._counters.add("tcp.address_refused")
            self._quiet.warning("cidr", "connection from %s refused: not in cidrs_allowed", address[0])
            sock.close()

    def _back_off(self, exc: OSError) -> None:
        self._delay = min(_BACKOFF_MAX, self._delay * 2 or _BACKOFF_FIRST)
        self._accept_at = clock.now() + self._delay
        self._listen()
        self._counters.add("tcp.accept_errors")
        self.places.refused(clock.now())
        self._quiet.warning("accept", "cannot accept connections: %s", exc.strerror or exc)

    def _enter(self, sock: socket.socket, address: Address, came: float) -> None:
        """Give the newcomer a place, or have it wait for one at the door, where there is room for one, or close it."""
        now = clock.now()
        source = source_of(address[0])
        entry = self.places.admit(source, now, came)
        waits = entry.again is not None
        self._door, self._door_at = ((sock, address, came), entry.again) if waits else (None, None)
        self._listen()
        if entry.enters:
            self._displace(entry.victim)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as exc:  # no memory, or it is gone already
                note(exc)
                self._turned_away("tcp.broken", "connection from %s port %d ended: %s", address, exc)
                sock.close()
                return
            until = now + min(FIRST_BYTES_SECONDS, self._timeout)
            guest = Guest(
                source=source, since=now, until=until, sock=sock, address=address, reader=self._conversations.reader()
            )
            self.places.add(guest)
            self._read(guest)  # what it said has mostly come with it
        elif not waits:
            self._turned_away("tcp.crowded", "connection from %s port %d refused: all places are taken", address)
            sock.close()

    def _displace(self, guest: Guest | None) -> bool:
        """End who gives way to others; False if nobody does."""
        if guest is None:
            return False
        text = "conversation with %s port %d ended: it said little, and others wait for a place"
        self._turned_away("tcp.displaced", text, guest.address)
        self._end(guest)
        return True

    def _turned_away(self, counter: str, text: str, address: Address, *why: object) -> None:
        self._counters.add(counter)
        self._quiet.warning(counter, text, *address, *why)

    # -- conversations ----------------------------------------------------------------------------

    def _go_on(self, guest: Guest) -> None:
        if guest.answer is not None:
            self._write(guest)
        elif guest.linger is not None:
            self._drain(guest)
        else:
            self._read(guest)

    def _read(self, guest: Guest) -> None:
        size = self._receive(guest)
        if size is None:
            return
        reader = guest.reader
        if not size:
            try:
                reader.feed_eof()
            except RemoteProtocolError as exc:
                self._conversations.rejected(guest.address, exc)
            self._end(guest)
            return
        if not guest.moved:
            guest.until = guest.since + self._timeout
        guest.moved += size
        enough = reader.hold(self._buffer[:size])
        self._hold(guest, reader.held)
        if guest not in self.places:
            return
        if enough:
            self._think(guest)
        else:
            self._watch(guest, selectors.EVENT_READ)

    def _receive(self, guest: Guest) -> int | None:
        """Read into the buffer; None if there is nothing to read, or nobody to read from any more."""
        try:
            size = guest.sock.recv_into(self._buffer)
        except BlockingIOError:
            self._watch(guest, selectors.EVENT_READ)
            return None
        except OSError as exc:
            self._broken(guest, exc)
            return None
        self._counters.add("tcp.received", size)
        return size

    def _think(self, guest: Guest) -> None:
        """Have a thread look at what it said."""
        guest.busy = True
        self._watch(guest, 0)
        deadline = Deadline.at(guest.until)

        def done(heard: Heard | None, error: Exception | None) -> None:
            self._mailbox.tell(lambda now: self._thought(guest, heard, error, now))

        try:
            self._pool.submit(
                Lane.ACCEPTED, lambda: self._conversations.advance(guest.reader, guest.address, deadline), done
            )
        except RuntimeError as exc:  # QueueFull, NotRunningError, or no more threads
            self.places.refused(clock.now())
            self._turned_away("tcp.crowded", "conversation with %s port %d ended: %s", guest.address, exc)
            self._end(guest)

    def _thought(self, guest: Guest, heard: Heard | None, error: Exception | None, now: float) -> None:
        if guest not in self.places:
            return
        guest.busy = False
        self._look_at_door()
        if heard is None:
            self._broken(guest, error)
        elif heard.more:
            self._hold(guest, guest.reader.held)
            if guest in self.places:
                self._watch(guest, selectors.EVENT_READ)
        elif heard.reply is None:
            self._end(guest)
        else:
            # Renewed, as upstream does just before it sends its state (§3.4 step 1).
            guest.begin(now, self._timeout)
            guest.answer, guest.refused = memoryview(heard.reply), heard.refused
            self._hold(guest, len(heard.reply))
            if guest in self.places:
                self._write(guest)

    def _write(self, guest: Guest) -> None:
        assert guest.answer is not None
        try:
            sent = guest.sock.send(guest.answer[:_CHUNK])
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            self._broken(guest, exc)
            return
        self._counters.add("tcp.sent", sent)
        guest.moved += sent
        guest.answer = guest.answer[sent:]
        if guest.answer:
            self._watch(guest, selectors.EVENT_WRITE)
        elif not guest.refused:
            self._end(guest)
        else:
            self._linger(guest)

    def _linger(self, guest: Guest) -> None:
        """Let an error answer arrive before the close."""
        guest.begin(clock.now(), min(LINGER_SECONDS, self._timeout))
        guest.answer, guest.linger = None, LINGER_BYTES
        self.places.hold(guest, 0)
        try:
            guest.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._end(guest)
        else:
            self._watch(guest, selectors.EVENT_READ)

    def _drain(self, guest: Guest) -> None:
        assert guest.linger is not None
        size = self._receive(guest)
        if size is not None:
            guest.linger -= size
            if not size or guest.linger < 0:
                self._end(guest)

    def _hold(self, guest: Guest, size: int) -> None:
        """Note how many bytes are held for it; while all are too many, end one after the other."""
        self.places.hold(guest, size)
        while (largest := self.places.excess(clock.now())) is not None:
            text = "conversation with %s port %d ended: too many bytes are held for strangers"
            self._turned_away("tcp.flooded", text, largest.address)
            self._end(largest)

    def _broken(self, guest: Guest, error: Exception | None) -> None:
        log.debug("%s: conversation with %s port %d broke off: %s", self._node, *guest.address, error)
        self._end(guest, "tcp.broken")

    def _watch(self, guest: Guest, mask: int) -> None:
        if mask == guest.mask:
            return
        try:
            if not mask:
                self._selector.unregister(guest.sock)
            elif not guest.mask:
                self._selector.register(guest.sock, mask, guest)
            else:
                self._selector.modify(guest.sock, mask, guest)
        except OSError as exc:  # no memory, or the system's limit of watched descriptors
            note(exc)
            guest.mask = 0  # the selector has forgotten it
            self._broken(guest, exc)
            return
        guest.mask = mask

    def _end(self, guest: Guest, counter: str | None = None) -> None:
        if counter is not None:
            self._counters.add(counter)
        self.places.remove(guest)
        self._watch(guest, 0)
        guest.sock.close()
        if not guest.busy:
            guest.reader.close()
        self._look_at_door()

    def _look_at_door(self) -> None:
        """A place is free, or its holder may give way now: do not wait until the newcomer asks again."""
        if self._door is not None:
            self._door_at = clock.now()

    # -- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close all sockets but the listener. Takes no lock, so a forked child may call it for its copies."""
        if self._door is not None:
            self._door[0].close()
        for guest in self.places.all():
            guest.sock.close()
