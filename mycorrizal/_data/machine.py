"""The data plane's machine: every peer and every connection, without a socket, a thread or a clock.

The runtime calls the ``Owner`` half with what the QUIC floor brings and the
caller half with what users want; it pulls nothing, since what is to be sent is
given to the connections as it arises. ``tick`` is called when it says so.
"""

from __future__ import annotations

from .._wire.frames import Close, Limits
from ..dataconfig import DataConfig
from ..exceptions import MycorrizalError, NotRunningError, PeerUnreachable, QueueFull
from ..types import Address, PeerInfo
from .channel import OutMessage
from .flows import Budget
from .link import Link
from .local import LocalPeer
from .peer import Opening, Peer
from .ports import Call, Connection, Host, Ticket, Trust

__all__ = ["DataMachine"]

_QUEUE_MAX = 16384
"""Calls and messages that may wait for one peer."""

_CHALLENGE_SECONDS = 1.0
"""How long the holder of a name has to answer when another process claims it."""

_RETIRED_SECONDS = 0.5
_TICK_DIALLING, _TICK_BUSY, _TICK_IDLE = 0.02, 0.1, 1.0


class DataMachine:
    """All methods on the owner's thread."""

    def __init__(self, host: Host, trust: Trust, config: DataConfig) -> None:
        self.host = host
        self.trust = trust
        self.config = config
        self.limits = Limits(
            config.window_messages, config.window_bytes, config.requests_per_peer, config.max_value
        )
        self.budget = Budget(config.bulk_memory)
        self.closing = False  # peers' requests are answered so
        self.ended = False
        self.now = 0.0
        self.peers: dict[str, Peer] = {host.name: LocalPeer(self, host.name)}
        self.links: dict[Connection, Link] = {}
        self._blocked: dict[str, Peer] = {}
        self._armed = False

    # -- what users want -----------------------------------------------------------------------

    def peer(self, name: str) -> Peer:
        """Return the peer of this name; it is remembered."""
        peer = self.peers.get(name)
        if peer is None:
            peer = self.peers[name] = Peer(self, name)
        return peer

    def send(self, node: str, message: OutMessage, now: float) -> None:
        """Send a message; its ticket succeeds when the peer's inbox has it."""
        if not message.done and self._admits(node, message.ticket):
            self.peers[node].send(message, now)

    def request(self, call: Call, now: float) -> None:
        """Send a request; its ticket succeeds with ``(status, Received)``."""
        if not call.done and self._admits(call.node, call.ticket):
            self.peers[call.node].request(call, now)

    def open(self, node: str, opening: Opening, now: float) -> None:
        """Open a stream; its ticket succeeds with ``(link, stream)``."""
        if not opening.done and self._admits(node, opening.ticket):
            self.peers[node].open(opening, now)

    def _admits(self, node: str, ticket: Ticket) -> bool:
        error: MycorrizalError
        if self.ended:
            error = NotRunningError(f"{self.host.name}: this DataPlane was closed", hint="create a new one")
        else:
            peer = self.peer(node)
            if len(peer.calls) + len(peer.openings) + len(peer.outgoing.waiting) < _QUEUE_MAX:
                self.arm()
                return True
            error = QueueFull(f"{_QUEUE_MAX} calls wait for {node}", node=node, hint="wait for some of them")
        ticket.fail(error)
        return False

    def room(self) -> None:
        """The inbox has room again: let in what waits, one peer after the other."""
        blocked, self._blocked = self._blocked, {}
        for name, peer in blocked.items():
            peer.room()
            if peer.blocked:
                self._blocked[name] = peer

    def blocked(self, peer: Peer) -> None:
        """Messages of `peer` wait for room in the inbox."""
        self._blocked[peer.name] = peer

    # -- what the QUIC floor brings --------------------------------------------------------------

    def add(self, conn: Connection, expected: str | None) -> Link:
        """A connection that we dial."""
        link = self.links[conn] = Link(self, conn, expected)
        self.arm()
        return link

    def connected(self, conn: Connection, now: float) -> None:
        """TLS is done; a connection that is not known was dialled by the peer."""
        self.now = now
        link = self.links.get(conn)
        if link is None:
            link = self.add(conn, None)
        link.connected(now)

    def stream_data(self, conn: Connection, stream: int, data: bytes, fin: bool, now: float) -> None:
        self.now = now
        link = self.links.get(conn)
        if link is not None:
            link.stream_data(stream, data, fin, now)

    def stream_reset(self, conn: Connection, stream: int, code: int, now: float) -> None:
        link = self.links.get(conn)
        if link is not None:
            link.stream_reset(stream, code, now)

    def stream_stopped(self, conn: Connection, stream: int, code: int, now: float) -> None:
        link = self.links.get(conn)
        if link is not None:
            link.stream_stopped(stream, code, now)

    def before_transmit(self, conn: Connection, now: float) -> None:
        link = self.links.get(conn)
        if link is not None:
            self.now = now
            link.flush(now)

    def closed(self, conn: Connection, code: int, reason: str, by_peer: bool, kind: str, now: float) -> None:
        """The connection is gone."""
        self.now = now
        link = self.links.pop(conn, None)
        if link is None:
            return
        if link.greeting is not None:
            link.greeting.fail(self.unreachable(link.name or "the node", link, link.fate or kind, code, reason))
        peer = link.peer or self.peers.get(link.name)
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
        process does not displace one that still answers.
        """
        if name == self.host.name:
            self.host.count("quic.name_conflicts")
            return Close.NAME_TAKEN, "this is my own name"
        if self.host.member(name) is False:
            self.host.count("quic.not_a_member")
            return Close.TRY_AGAIN, "not a member, as far as this node knows"
        peer = self.peers.get(name)
        if peer is None or not peer.links or peer.boot == boot:
            return None
        if peer.challenged is None:
            peer.challenged = now
            for other in peer.links:
                other.conn.ping()
            return Close.TRY_AGAIN, "the holder of this name is asked whether it lives"
        if any(other.conn.last_received > peer.challenged for other in peer.links):
            peer.challenged = None
            self.host.count("quic.name_conflicts")
            self.host.warn("name", "a second process claims to be %s from %s; refused", name, link.conn.address)
            return Close.NAME_TAKEN, "another live node has this name"
        if now - peer.challenged < _CHALLENGE_SECONDS:
            return Close.TRY_AGAIN, "the holder of this name is asked whether it lives"
        peer.challenged = None
        return None

    def keys_changed(self, now: float) -> None:
        """Close what was proved with a key that is no longer held."""
        for link in list(self.links.values()):
            if link.ready and not self.trust.holds(link.key_id):
                self.host.count("quic.key_removed")
                link.fate = "key removed"
                link.close(Close.KEY_REMOVED, "the key of this connection was removed", now)

    def offence(self, link: Link, reason: str, error: Exception) -> None:
        """A peer did what no honest one does; its connection is about to be closed."""
        self.host.count("offences")
        self.host.count(f"offences.{reason}")
        who = link.name or "an unproven client"
        self.host.warn(f"offence {who}", "%s at %s is disconnected: %s", who, link.conn.address, error)

    def bad_value(self, sender: str, error: Exception, now: float) -> None:
        """A value of `sender` could not be decoded, as a reader has found."""
        for link in list(self.peers[sender].links) if sender in self.peers else []:
            self.offence(link, "value", error)
            link.close(Close.PROTOCOL, f"a value that cannot be decoded: {error}"[:200], now)

    def greet(self, address: Address, ticket: Ticket, now: float) -> None:
        """Dial an address whose name is not known; the ticket succeeds with the name."""
        link = self.add(self.host.dial(address, None, now), None)
        link.greeting = ticket

    def info(self) -> list[PeerInfo]:
        """Return what is known of each peer."""
        return [peer.info() for name, peer in sorted(self.peers.items()) if name != self.host.name]

    @property
    def serving(self) -> int:
        """Requests of peers that are open."""
        return sum(len(link.served) for link in self.links.values())

    def peer_down(self, name: str, why: str, now: float) -> None:
        """Membership declares `name` dead, or it has left: its calls end now."""
        peer = self.peers.get(name)
        if peer is not None and name != self.host.name:
            peer.down(PeerUnreachable(f"{name} {why}", node=name, hint="membership has it; see members()"), now)

    def peer_changed(self, name: str) -> None:
        """The address of `name` is new: do not wait for the back-off."""
        peer = self.peers.get(name)
        if peer is not None:
            peer.failures, peer.next_dial = 0, 0.0
            self.arm()

    def unreachable(self, node: str, link: Link, kind: str, code: int, reason: str) -> PeerUnreachable:
        """Return the error for what a lost connection takes with it."""
        host, port = link.conn.address
        hint = _HINTS.get(kind)
        what = _KINDS.get(kind)
        if what is None:
            name = Close(code).name.lower().replace("_", " ") if code in Close._value2member_map_ else f"code {code:#x}"
            what = f"it closed the connection: {reason or name}"
            hint = _CODES.get(Close(code)) if code in Close._value2member_map_ else None
        elif kind == "handshake" and reason:
            what += f": {reason}"
            if "issuer" in reason or "signature" in reason or "certificate" in reason:
                hint = "compare key= and cluster= of both sides"
        return PeerUnreachable(f"{node} at {host}:{port}: {what}", node=node, hint=hint)

    def stream_error(self, link: Link, code: int) -> MycorrizalError:
        """Return the error for an open stream that the peer gave up."""
        if code == Close.UNKNOWN:
            hint = "it has no on_stream() of this name"
            return PeerUnreachable(f"{link.name} refused the stream", node=link.name, hint=hint, retriable=False)
        return PeerUnreachable(f"{link.name} gave the stream up", node=link.name, indeterminate=True)

    # -- time ----------------------------------------------------------------------------------

    def arm(self) -> None:
        """Have ``tick`` called soon."""
        if not self._armed:
            self._armed = True
            self.host.arm(_TICK_DIALLING)

    def tick(self, now: float) -> None:
        """Look after deadlines, silence, idleness, stalls and dialling."""
        self.now = now
        self._armed = False
        delay = _TICK_IDLE if self.links else 0.0
        for link in list(self.links.values()):
            delay = min(delay, self._look_after(link, now))
        if self._blocked:
            self.room()
            delay = min(delay or _TICK_BUSY, _TICK_BUSY)
        for peer in list(self.peers.values()):
            if peer.waiting or peer.links:
                peer.expire(now)
            if peer.waiting and peer.link is None:
                peer.dial(now)
                delay = _TICK_DIALLING
        if delay and not self._armed:
            self._armed = True
            self.host.arm(delay)

    def _look_after(self, link: Link, now: float) -> float:
        config, conn = self.config, link.conn
        if not link.ready:
            if now - conn.created >= config.connect_timeout:
                link.fate = "silent"
                link.close(Close.NOT_PROVED, "no proof in time", now)
            return _TICK_DIALLING
        link.drop_stalled(now)
        peer = link.peer
        if link.busy or (peer is not None and peer.link is link and peer.outgoing):
            quiet = now - conn.last_received
            if quiet >= config.silence_timeout:
                link.fate = "silent"
                link.close(Close.STALLED, "silent for too long", now)
            elif quiet >= config.keepalive_interval and now - link.pinged >= config.keepalive_interval:
                link.pinged = now
                conn.ping()
            return _TICK_BUSY
        if now - link.used >= (_RETIRED_SECONDS if link.retired else config.idle_timeout):
            self.host.count("quic.idle_closed")
            link.fate = "idle"
            link.close(Close.IDLE, "idle", now)
        return _TICK_BUSY if link.retired else _TICK_IDLE

    # -- the end -------------------------------------------------------------------------------

    def close(self, error: MycorrizalError, now: float) -> None:
        """End everything: each open call fails with `error`, each connection is closed."""
        self.closing = self.ended = True
        for peer in self.peers.values():
            peer.down(error, now)
        for link in list(self.links.values()):
            link.conn.close(Close.SHUTDOWN, "shut down", now)
        self.links.clear()


_KINDS = {
    "refused": "nothing listens there",
    "handshake": "the handshake failed",
    "reset": "it has restarted and does not know the connection",
    "silent": "no answer",
    "idle": "no answer",
    "replaced": "another process has its name now",
    "key removed": "the key of this connection was removed",
}
_HINTS = {
    "refused": "is the peer running, and is this its data port?",
    "silent": "check the address, that the peer runs, and that UDP passes",
    "idle": "check the address, that the peer runs, and that UDP passes",
    "handshake": "compare key=, cluster= and the versions of both sides",
    "reset": "try again",
}
_CODES = {
    Close.NAME_TAKEN: "names must be unique; choose another name=",
    Close.WRONG_NAME: "compare peers= with the names of the nodes",
    Close.NOT_PROVED: "compare key= and cluster= of both sides",
    Close.TRY_AGAIN: "try again in a moment",
}
