"""The data plane's machine: every peer and every connection, without a socket, a thread or a clock.

The runtime calls the ``Owner`` half with what the QUIC floor brings and the
caller half with what users want; it pulls nothing, since what is to be sent is
given to the connections as it arises. ``tick`` is called when it says so.
"""

from __future__ import annotations

from collections import deque

from .._endings import Ending, error, for_call
from .._wire.frames import NO_PROOF, Close, Frame, Limits
from .._wire.text import printable
from ..config import check_name
from ..dataconfig import DataConfig
from ..exceptions import (
    ConfigError,
    MycorrizalError,
    PeerBusy,
    PeerUnreachable,
    QueueFull,
    ValueTooLarge,
)
from ..types import Address, PeerInfo
from .calls import Call
from .channel import OutMessage
from .contests import Contests
from .flows import Budget
from .gone import Gone
from .link import Link
from .local import LocalPeer
from .peer import NEVER, TICK_BUSY, TICK_SOON, Opening, Peer
from .ports import Connection, Host, Received, Served, Ticket, Trust

__all__ = ["DataMachine"]

_QUEUE_MAX = 16384
"""Calls and messages that may wait for one peer."""

_PEERS_MAX = 1 << 16
"""Names at a time. Each is one of our own, a member's, or was claimed by a holder of the key."""

_RECHECK_SECONDS = 60.0

_SEE_MEMBERS = "membership has it; see members()"

_CHALLENGE_SECONDS, _CHALLENGE_COUNTS = 1.0, 5.0
"""How long the holder of a name has to answer when another process claims it, and how long the question counts."""

_RETIRED_SECONDS = 0.5
_TICK_IDLE = 1.0


class DataMachine:
    """All methods on the owner's thread."""

    def __init__(self, host: Host, trust: Trust, config: DataConfig) -> None:
        self.host = host
        self.trust = trust
        self.config = config
        self.limits = Limits(config.window_messages, config.window_bytes, config.requests_per_peer, config.max_value)
        self.budget = Budget(config.bulk_memory)
        self.closing = False  # peers' requests are answered so
        self.ended = False
        self.now = 0.0
        self.local_calls: dict[Call, Served] = {}  # of requests to oneself
        self.peers: dict[str, Peer] = {host.name: LocalPeer(self, host.name)}
        self.links: dict[Connection, Link] = {}
        self.contests = Contests()
        self.gone = Gone(self)
        self._blocked: deque[Peer] = deque()  # in the order of their turn
        self._letting_in = False
        self._recheck = 0.0
        self._due = NEVER  # the next tick

    # -- what users want -----------------------------------------------------------------------

    def peer(self, name: str) -> Peer:
        """Return the peer of this name; it is remembered as long as anything is known of it or going on with it."""
        peer = self.peers.get(name)
        if peer is None:
            peer = self.peers[name] = Peer(self, name, self.gone.back(name))
            self.gone.may_be(name)
        return peer

    def send(self, node: str, message: OutMessage, now: float) -> None:
        """Send a message; its ticket succeeds when the peer's inbox has it."""
        self.now = now
        if not message.done:
            if self._admits(node, message.ticket):
                self.peers[node].send(message, now)
            else:
                message.done, message.value = True, None

    def request(self, call: Call, now: float) -> None:
        """Send a request; its ticket succeeds with ``(status, Received)``."""
        self.now = now
        if not call.done:
            if self._admits(call.node, call.ticket):
                self.peers[call.node].request(call, now)
            else:
                call.end()

    def open(self, node: str, opening: Opening, now: float) -> None:
        """Open a stream; its ticket succeeds with ``(link, stream)``."""
        self.now = now
        if not opening.done:
            if self._admits(node, opening.ticket):
                self.peers[node].open(opening, now)
            else:
                opening.done = True

    def forget_opening(self, node: str, opening: Opening) -> None:
        """Nobody waits for a stream any more."""
        peer = self.peers.get(node)
        if peer is not None and opening in peer.openings:
            peer.openings.remove(opening)

    def _admits(self, node: str, ticket: Ticket) -> bool:
        if self.ended:
            ticket.fail(self._refusal(node))
            return False
        if self.peer(node).pending < _QUEUE_MAX:
            self.arm(TICK_BUSY)
            return True
        ticket.fail(QueueFull(f"{_QUEUE_MAX} calls to {node} are open", node=node, hint="wait for some of them"))
        return False

    def _refusal(self, node: str | None = None) -> MycorrizalError:
        text = f"{self.host.name}: this DataPlane was closed"
        return error(Ending.CLOSED, text, node=node, hint="create a new one")

    def offer(self, item: tuple[str, Received], size: int) -> bool:
        """Put a message into the inbox, unless it is full or others wait for that."""
        return not (self._blocked and not self._letting_in) and self.host.offer(item, size)

    def room(self) -> None:
        """The inbox has room again: let in what waits, one message of each peer in turn."""
        blocked = self._blocked
        self._letting_in = True
        while blocked:
            peer = blocked[0]
            if not peer.let_in():
                break
            blocked.popleft()
            peer.in_line = False
            if peer.blocked:
                self.blocked(peer)
        self._letting_in = False

    def blocked(self, peer: Peer) -> None:
        """Messages of `peer` wait for room in the inbox."""
        if not peer.in_line:
            peer.in_line = True
            self._blocked.append(peer)
            self.arm(TICK_BUSY)

    # -- what the QUIC floor brings --------------------------------------------------------------

    def add(self, conn: Connection, expected: str | None) -> Link:
        """A connection that we dial."""
        link = self.links[conn] = Link(self, conn, expected)
        link.used = self.now
        self.arm()
        return link

    def connected(self, conn: Connection, now: float) -> None:
        """TLS is done; a connection that is not known was dialled by the peer."""
        self.now = now
        link = self.links.get(conn)
        if link is None:
            if conn.dialled or self.ended:  # given up meanwhile
                conn.close(Close.SHUTDOWN, "not wanted any more", now)
                return
            link = self.add(conn, None)
        link.connected(now)

    def stream_data(self, conn: Connection, stream: int, data: bytes, fin: bool, now: float) -> None:
        self.now = now
        link = self.links.get(conn)
        if link is not None:
            link.stream_data(stream, data, fin, now)

    def stream_room(self, conn: Connection, stream: int) -> memoryview | None:
        """Return the memory that the next bytes of `stream` belong in: of a large value that is arriving, else None."""
        link = self.links.get(conn)
        return link.bulk.room(stream) if link is not None and link.live else None

    def stream_filled(self, conn: Connection, stream: int, size: int, fin: bool, now: float) -> None:
        """As ``stream_data``, for `size` bytes that are where ``stream_room`` said."""
        self.now = now
        link = self.links.get(conn)
        if link is not None:
            link.stream_filled(stream, size, fin, now)

    def stream_reset(self, conn: Connection, stream: int, code: int, now: float) -> None:
        self.now = now
        link = self.links.get(conn)
        if link is not None:
            link.stream_reset(stream, code, now)

    def stream_stopped(self, conn: Connection, stream: int, code: int, now: float) -> None:
        self.now = now
        link = self.links.get(conn)
        if link is not None:
            link.stream_stopped(stream, code, now)

    def before_transmit(self, conn: Connection, now: float) -> None:
        link = self.links.get(conn)
        if link is not None:
            self.now = now
            link.flush(now)

    def closed(self, conn: Connection, code: int, reason: str, by_peer: bool, kind: str, now: float) -> None:
        """The connection is gone. Whoever answers at an address may have written `reason`."""
        self.now = now
        reason = printable(reason)
        link = self.links.pop(conn, None)
        if link is None:
            return
        if link.greeting is not None:
            link.greeting.fail(self.unreachable(link.name or "the node", link, link.fate or kind, code, reason))
            link.greeting = None
        peer = link.peer
        if peer is None and conn.dialled and link.name != self.host.name:
            peer = self.peers.get(link.name)
        if peer is not None:
            peer.link_ended(link, link.fate or kind, code, reason, by_peer, now)
        else:
            link.ended()

    def forget(self, link: Link) -> None:
        """Hear nothing more of `link`."""
        self.links.pop(link.conn, None)

    # -- names and trust --------------------------------------------------------------------------

    def claim(self, link: Link, name: str, boot: bytes, now: float) -> tuple[Close, str] | None:
        """A key holder says that it is `name`; return how to refuse it, or None.

        Anyone with the key can claim any name, as in memberlist; but a second
        process does not displace one that still answers, and where membership
        knows which process has the name, no other one gets it. One that has
        just restarted may be here before membership knows: it comes again.
        """
        try:
            check_name(name)
        except ConfigError:
            return Close.WRONG_NAME, "no node may have such a name"  # it stands in logs, and in the user's terminal
        if name == self.host.name:
            self.host.count("quic.name_conflicts")
            if not link.conn.dialled:
                self.contests.note(name, link.conn.address, now)
            return Close.NAME_TAKEN, "this is my own name"
        if not link.conn.dialled and self.host.member(name) is False:
            self.host.count("quic.not_a_member")
            return Close.TRY_AGAIN, "not a member, as far as this node knows"
        peer = self.peers.get(name)
        if peer is None and len(self.peers) >= _PEERS_MAX:
            return Close.FULL, "too many names"
        held = peer if peer is not None and peer.links else None
        refusal = self._challenge(held, link, now) if held is not None and held.boot != boot else None
        if (refusal is None or refusal[0] == Close.TRY_AGAIN) and self.is_other(name, boot):
            self.host.count("quic.other_process")
            if self.contests.note(name, link.conn.address, now):
                self.host.warn("process", "%s at %s is not the process that membership knows", name, link.conn.address)
            return Close.OTHER_PROCESS, f"membership of {self.host.name} knows another process as {name}"
        if refusal is not None:
            return refusal
        return self._one_too_many(held, link) if held is not None and held.boot == boot else None

    def is_other(self, name: str, boot: bytes) -> bool:
        """Whether membership knows another process than `boot` by this name."""
        known = self.host.process(name)
        return known is not None and known != boot

    def _challenge(self, peer: Peer, link: Link, now: float) -> tuple[Close, str] | None:
        """Another process has connections under the name that is claimed: ask whether it still lives."""
        asked = peer.challenged
        if asked is None or now - asked >= _CHALLENGE_COUNTS:
            peer.challenged = now
            for other in peer.links:
                other.conn.ping()
            return Close.TRY_AGAIN, "the holder of this name is asked whether it lives"
        if any(other.conn.last_received > asked for other in peer.links):
            peer.challenged = None
            self.host.count("quic.name_conflicts")
            self.contests.note(peer.name, link.conn.address, now)
            self.host.warn("name", "a second process claims to be %s from %s; refused", peer.name, link.conn.address)
            return Close.NAME_TAKEN, "another live node has this name"
        if now - asked < _CHALLENGE_SECONDS:
            return Close.TRY_AGAIN, "the holder of this name is asked whether it lives"
        peer.challenged = None
        return None

    def _one_too_many(self, peer: Peer, link: Link) -> tuple[Close, str] | None:
        """One connection in each direction is enough: of two, the dialler drops the newer, the server the older."""
        same = [other for other in peer.links if other.conn.dialled == link.conn.dialled]
        if not same or (not link.conn.dialled and link.conn.created >= same[0].conn.created):
            return None
        link.surplus = True
        if link.greeting is not None and same[0].greeting is None and not same[0].welcomed:
            link.greeting, same[0].greeting = None, link.greeting
        elif link.greeting is not None:
            link.greeting.succeed(peer.name)
            link.greeting = None
        return Close.IDLE, "there is a connection already"

    def keys_changed(self, now: float) -> None:
        """Close what was proved with a key that is no longer held, and dial again what may be about to be."""
        self._close_unheld(now)
        for link in list(self.links.values()):
            if link.conn.dialled and not link.ready:  # its TLS began with the old keys, and may take one of them
                link.close(Close.TRY_AGAIN, "the keys have changed meanwhile", now)

    def _close_unheld(self, now: float) -> None:
        for link in list(self.links.values()):
            if link.ready and not self.trust.holds(link.key_id):
                self.host.count("quic.key_removed")
                link.fate = "key removed"
                link.close(Close.KEY_REMOVED, "the key of this connection was removed", now)

    def offence(self, link: Link, reason: str, exc: Exception) -> None:
        """A peer did what no honest one does; its connection is about to be closed."""
        self.host.count("offences")
        self.host.count(f"offences.{reason}")
        who = link.name or "an unproven client"
        self.host.warn(f"offence {who}", "%s at %s is disconnected: %s", who, link.conn.address, exc)

    def bad_value(self, sender: str, exc: Exception, now: float) -> None:
        """A value of `sender` could not be decoded, as a reader has found."""
        for link in list(self.peers[sender].links) if sender in self.peers else []:
            self.offence(link, "value", exc)
            link.close(Close.PROTOCOL, f"a value that cannot be decoded: {exc}", now)

    def greet(self, address: Address, ticket: Ticket, now: float) -> None:
        """Dial an address whose name is not known; the ticket succeeds with the name."""
        self.now = now
        if self.ended:
            ticket.fail(self._refusal())
            return
        try:
            conn = self.host.dial(address, None, now)
        except MycorrizalError as exc:  # with certificates, only a name can be dialled
            ticket.fail(exc)
            return
        self.add(conn, None).greeting = ticket

    def info(self) -> list[PeerInfo]:
        """Return what is known of each peer."""
        return [peer.info() for name, peer in sorted(self.peers.items()) if name != self.host.name]

    def delay(self, name: str) -> str:
        """Return why what waits for `name` waits, behind a colon; empty if nobody has said. Any thread."""
        peer = self.peers.get(name)
        return f": {peer.delayed}" if peer is not None and peer.delayed else ""

    @property
    def serving(self) -> int:
        """Requests of peers that are open."""
        return len(self.local_calls) + sum(len(link.served) + len(link.answering) for link in self.links.values())

    def serving_at(self, host: str) -> int:
        """Return how many requests of peers at an address are open, whatever their names."""
        return sum(len(link.served) for link in self.links.values() if link.conn.address[0] == host)

    def unfinished(self) -> bool:
        """Whether streams that users have ended are still to be delivered."""
        return any(link.bulk.unfinished() for link in self.links.values())

    def arriving(self) -> tuple[int, int] | None:
        """Return bytes there and in all of the large message that has been arriving for longest."""
        for link in self.links.values():
            for value in link.bulk.values.values():
                if value.kind == Frame.MESSAGE and value.granted:
                    return value.reader.received, value.size
        return None

    def peer_down(self, name: str, why: str, now: float, *, hint: str | None = _SEE_MEMBERS) -> None:
        """Membership declares `name` dead, or it has left, or the user removes it: its calls end now."""
        peer = self.peers.get(name)
        if peer is not None and name != self.host.name:
            self.now = now
            peer.removed = True
            peer.down(error(Ending.DOWN, f"{name} {why}", node=name, hint=hint), now)

    def peer_changed(self, name: str, now: float) -> None:
        """The address of `name` is new, or its process: do not wait for the back-off."""
        self.now = now
        peer = self.peers.get(name)
        if peer is not None:
            peer.failures, peer.next_dial = 0, 0.0
            if peer.links and self.is_other(name, peer.boot):
                peer.replaced(now)
            peer.follow()
            dialling = peer.dialling
            if dialling is not None and dialling.conn.address != self.host.resolve(name):
                dialling.surplus = True
                dialling.close(Close.IDLE, "it has another address now", now)
            self.arm()

    def unreachable(self, node: str, link: Link, kind: str, code: int, reason: str) -> MycorrizalError:
        """Return the error for what a lost connection takes with it."""
        host, port = link.conn.address
        hint = _HINTS.get(kind)
        what = _KINDS.get(kind)
        if kind == "local":
            what = reason
            hint = _CODES.get(Close(code))
        elif what is None:
            name = Close(code).name.lower().replace("_", " ") if code in Close._value2member_map_ else f"code {code:#x}"
            what = f"it closed the connection: {reason or name}"
            hint = _CODES.get(Close(code)) if code in Close._value2member_map_ else None
        elif kind == "handshake" and reason:
            what += f": {reason}"
            if "doesn't match" in reason:  # of the TLS library, with both names as patterns
                what = "the handshake failed: its certificate is one of another name, key, authority or cluster"
                hint = self.trust.compare
            elif "issuer" in reason or "signature" in reason or "certificate" in reason:
                hint = self.trust.compare
        if code == Close.NOT_PROVED:
            hint = self.trust.compare
            if reason == NO_PROOF:  # a wrong key is told at once
                hint = f"one of the two nodes may be overloaded: try again; if it stays so, {hint}"
        ending = _FATES.get(kind, Ending.LOST)
        if kind in ("closed", "local"):  # one that never came about was a failed attempt
            ending = _ENDINGS.get(code, Ending.PEER_CLOSED if link.welcomed else Ending.LOST)
        return error(ending, f"{node} at {host}:{port}: {what}", node=node, hint=hint)

    def refusal(self, link: Link, code: int) -> MycorrizalError:
        """Return the error for a value that the peer did not take; nothing of it was read."""
        if code == Close.TOO_LARGE:
            return ValueTooLarge(f"{link.name} accepts no value of this size", node=link.name)
        if code == Close.FULL:
            return PeerBusy(f"{link.name} is busy", node=link.name, hint="try again")
        if code == Close.STALLED:
            return PeerUnreachable(f"{link.name} has waited too long for the rest of a value", node=link.name)
        return PeerUnreachable(f"{link.name} did not take a value", node=link.name)

    def stream_error(self, link: Link, code: int) -> MycorrizalError:
        """Return the error for an open stream that the peer gave up."""
        if code in (Close.UNKNOWN, Close.NOT_YET):
            yet = code == Close.NOT_YET
            hint = "it has no on_stream() of this name" + (" yet: it has just started" if yet else "")
            return PeerUnreachable(f"{link.name} refused the stream", node=link.name, hint=hint, retriable=yet)
        if code == Close.FULL:
            return PeerBusy(f"{link.name} is busy", node=link.name, hint="try again")
        if code == Close.SHUTDOWN:
            return PeerUnreachable(f"{link.name} is shutting down", node=link.name)
        return error(Ending.GAVE_UP, f"{link.name} gave the stream up", sent=True, node=link.name)

    # -- time ----------------------------------------------------------------------------------

    def arm(self, delay: float = TICK_SOON) -> None:
        """Have ``tick`` called within `delay` seconds."""
        if self.now + delay < self._due:
            self._due = self.now + delay
            self.host.arm(delay)

    def tick(self, now: float) -> None:
        """Look after deadlines, silence, idleness, stalls and dialling."""
        self.now = now
        if now + 1e-6 < self._due:
            return  # an earlier one came, and has asked for another
        self._due = NEVER
        delay = NEVER
        if now >= self._recheck:  # certificates expire without a word
            self._recheck = now + _RECHECK_SECONDS
            self._close_unheld(now)
        for link in list(self.links.values()):
            if link.state != "closed":
                delay = min(delay, self._look_after(link, now))
        if self._blocked:
            self.room()
            delay = min(delay, TICK_BUSY)
        for peer in list(self.peers.values()):
            if peer.pending or peer.links:
                delay = min(delay, peer.tick(now))
        self.gone.sweep()
        if delay != NEVER:
            self.arm(delay)

    def _look_after(self, link: Link, now: float) -> float:
        config, conn = self.config, link.conn
        if not link.welcomed:
            if now - conn.created >= config.connect_timeout:
                link.fate = "silent"
                if not conn.dialled:
                    self.host.count("quic.unproven_timeouts")
                link.close(Close.NOT_PROVED, NO_PROOF, now)
            return TICK_BUSY
        link.look_after(now)
        if link.state == "closed":
            return NEVER
        peer = link.peer
        first = peer is not None and peer.link is link
        busy = link.busy or (first and peer is not None and (peer.outgoing.open > 0 or peer.holding))
        if busy or link.unacknowledged:
            self._listen(link, now)
            return TICK_BUSY
        link.waiting_since = None
        if now - link.used >= (_RETIRED_SECONDS if link.retired else config.idle_timeout):
            if not link.shut_idle():
                return TICK_BUSY
            self.host.count("quic.idle_closed")
            link.fate = "idle"
            link.close(Close.IDLE, "idle", now)
        return TICK_BUSY if link.retired else _TICK_IDLE

    def _listen(self, link: Link, now: float) -> None:
        """Something is open: the peer has to be heard now and then."""
        config, conn = self.config, link.conn
        if link.waiting_since is None:
            link.waiting_since = now
        quiet = now - max(conn.last_received, link.waiting_since)
        if quiet >= config.silence_timeout:
            link.fate = "silent"
            link.close(Close.STALLED, "silent for too long", now)
        elif quiet >= config.keepalive_interval and now - link.pinged >= config.keepalive_interval:
            link.pinged = now
            conn.ping()

    # -- the end -------------------------------------------------------------------------------

    def close(self, why: MycorrizalError, now: float) -> None:
        """End everything: each open call fails with `why`, each connection is closed."""
        self.closing = self.ended = True
        self.now = now
        for peer in self.peers.values():
            peer.down(why, now, Close.SHUTDOWN)
        for link in list(self.links.values()):  # of nobody yet
            if link.greeting is not None:
                link.greeting.fail(for_call(why, False))
                link.greeting = None
            link.close(Close.SHUTDOWN, "shut down", now)


_ENDINGS: dict[int, Ending] = {
    Close.KEY_REMOVED: Ending.KEY_REMOVED,
    Close.REPLACED: Ending.OTHER_PROCESS,
    Close.OTHER_PROCESS: Ending.OTHER_PROCESS,
}
_FATES = {"key removed": Ending.KEY_REMOVED, "reset": Ending.OTHER_PROCESS, "replaced": Ending.OTHER_PROCESS}
_KINDS = {
    "refused": "nothing listens there",
    "handshake": "the handshake failed",
    "reset": "it has restarted and does not know the connection",
    "silent": "no answer",
    "idle": "no answer",
    "replaced": "another process has its name now",
    "key removed": "the key of this connection was removed, or its certificate has expired",
    "gone": "its process has ended, or closed the connection without a word",
}
_SILENT = "check the address, that the peer runs and is not overloaded, and that UDP passes"
_HINTS = {
    "refused": "is the peer running, and is this its data port?",
    "silent": _SILENT,
    "idle": _SILENT,
    "handshake": "compare key=, certificates=, cluster= and the versions of both sides",
    "reset": "try again",
}
_CODES = {
    Close.NAME_TAKEN: "names must be unique; choose another name=",
    Close.WRONG_NAME: "another node listens at the address that is known for this name",
    Close.WRONG_FORMAT: "install the same version of mycorrizal on both sides",
    Close.TRY_AGAIN: "try again in a moment",
    Close.OTHER_PROCESS: "one that has just restarted is known in a moment; otherwise two processes have this name",
}
