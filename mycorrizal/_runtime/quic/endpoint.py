"""All connections of a node over one UDP socket, told apart by connection id."""

from __future__ import annotations

import errno
import hmac
import os
import socket
from collections.abc import Callable

from ..._wire.frames import NO_PROOF, Close
from ..._wire.text import logger
from ...dataconfig import DataConfig
from ...types import Address
from ..net.sockets import from_sockaddr
from ..threads import clock
from ..threads.counters import Counters
from ..threads.shortage import note
from . import initial, path
from .choice import packet_path
from .connection import Connection, Owner
from .initial import First, RetryTokens
from .loop import Loop, Timer
from .path import SMALLEST, Sockaddr
from .transport import CID_LENGTH, PacketPath, Setup, Transport
from .trust.admission import Admission, Bucket, Verdict, WaitingRoom
from .trust.keys import Trust

__all__ = ["Endpoint"]

log = logger("mycorrizal.quic")

_MARK = 3
"""Bytes of a connection id that say "made by this node": a reset is sent for no other node's ids,
so that one holder of the key does not hand out the reset tokens of another (RFC 9000 §21.11)."""
_READS_A_TURN = 32
_UNPROVEN_SECONDS = 5.0
_LATE_MAX = 4096
_SECOND_TRY = 0.4
_BLOCKED_MAX = 1024
_RECEIVE_SIZE = 16384 + 64  # a larger datagram is none of ours; it is cut, and fails to decrypt
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL, errno.EINVAL)


class _Late:
    """What is left of a closed connection: enough to repeat the goodbye to who did not hear it."""

    __slots__ = ("_datagram", "_heard", "_send", "_sockaddr", "cids", "timer")

    def __init__(
        self, cids: list[bytes], sockaddr: Sockaddr, datagram: bytes, send: Callable[[bytes, Sockaddr, float], object]
    ) -> None:
        self.cids = cids
        self.timer: Timer | None = None
        self._sockaddr = sockaddr
        self._datagram = datagram
        self._send = send
        self._heard = 0

    def receive(self, data: bytes, sockaddr: Sockaddr, now: float) -> None:
        """Repeat the goodbye at the 1st, 2nd, 4th, 8th … late packet (RFC 9000 §10.2.1)."""
        self._heard += 1
        if self._datagram and self._sockaddr == sockaddr and self._heard & (self._heard - 1) == 0:
            self._send(self._datagram, sockaddr, now)


class Endpoint:
    """Dials, accepts and demultiplexes. Everything on the loop thread, the constructor excepted.

    Attributes:
        address, port: where it listens.
        choice: the packet path, and why it is not the fast one.
        connections: those that have not ended.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        trust: Trust,
        owner: Owner,
        config: DataConfig,
        counters: Counters,
    ) -> None:
        self.choice = packet_path()
        self.packets: PacketPath = self.choice.path
        self.loop = loop
        self.owner = owner
        self.connections: set[Connection] = set()
        self.touched: list[Connection] = []
        self._later: list[Connection] = []
        self.count = counters.add
        self.count("quic.stock_path", self.packets.name == "stock")
        name = sock.getsockname()
        self.address: Address = from_sockaddr(name)
        self.port: int = self.address[1]
        self._sock = sock
        self._trust = trust
        self._config = config
        self._cids: dict[bytes, Connection | _Late] = {}
        self._resets: dict[bytes, Connection] = {}
        self._late: dict[_Late, None] = {}
        self._farewells: dict[Connection, bytes] = {}
        self._blocked: list[tuple[bytes, Sockaddr]] = []
        self._closed = False
        now = clock.now()
        self._admission = Admission(config.max_unproven, config.retry_threshold, knocking=bool(trust.knock()), now=now)
        self._waiting: WaitingRoom[tuple[bytes, Sockaddr]] = WaitingRoom()
        self._retry = RetryTokens()
        self._small_answers = Bucket(100.0, 100.0, now)
        self._mark_key = trust.reset_token(b"mark " + loop.node.encode("utf-8", "surrogateescape")) or os.urandom(16)
        self._window = path.receive_window(sock)
        self._idle = config.idle_timeout + config.silence_timeout
        loop.add_reader(sock, self._read)
        loop.at_turn_end(self._transmit)

    # -- for the owner ---------------------------------------------------------------------

    def dial(self, address: Address, peer: str | None, now: float) -> Connection:
        """Begin a connection to `address`, whose certificate must name `peer` (None: any member).

        Raises nothing for trouble on the way: ``Owner.closed`` tells.

        Raises:
            ConfigError: the trust in use needs a name.
        """
        tls = self._trust.client_tls(peer)
        info = path.inspect(address, self._config.max_datagram)
        largest = self.packets.datagram_size(info)

        def make(size: int) -> Transport:
            return self.packets.client(self._setup(info.local, size), tls, self._trust.knock())

        quic = make(largest)
        problem = None
        sockaddr: Sockaddr = address
        try:
            sockaddr = path.sockaddr_of(self._sock, address)
        except OSError as exc:
            problem = str(exc.strerror or exc)
        conn = Connection(self, quic, sockaddr, dialled=True, local=info.local, now=now)
        self.connections.add(conn)
        if problem is not None:
            conn.end(0, problem, by_peer=False, kind="refused", now=now, tell=False)
            return conn
        conn.remake = make
        self._begin(conn, now)
        if largest > SMALLEST and not info.local:
            conn.second_try = self.loop.call_at(now + _SECOND_TRY, lambda later: self._second_try(conn, later))
        conn.deadline = self.loop.call_at(now + self._config.connect_timeout, lambda later: self._give_up(conn, later))
        return conn

    def close(self, now: float) -> None:
        """Say goodbye on every connection and stop listening. ``Owner.closed`` comes for each, in this call."""
        if self._closed:
            return
        self._closed = True
        for conn in list(self.connections):
            conn.close(Close.SHUTDOWN, "shutting down", now)
        self._continue(now)
        self._transmit(now)
        for late in list(self._late):
            self._drop_late(late)
        self.loop.remove_reader(self._sock)
        self.loop.remove_turn_end(self._transmit)
        self._sock.close()

    # -- dialling ----------------------------------------------------------------------------

    def _setup(self, local: bool, size: int) -> Setup:
        return Setup(local, size, self._window, self._idle, self._make_cid, self._trust.reset_token)

    def _begin(self, conn: Connection, now: float) -> None:
        for cid in conn.cids:
            self._cids.pop(cid, None)
        conn.cids.clear()
        conn.start(now)
        self.issued(conn, conn.host_cid)

    def redial(self, conn: Connection, size: int, now: float) -> None:
        """Begin the handshake over with datagrams of at most `size` bytes."""
        if conn.closed or conn.connected or conn.remake is None:
            return
        self.count("quic.path_retries")
        make = conn.remake
        if size <= SMALLEST:
            conn.remake = None
        conn.replace(make(max(SMALLEST, size)))
        self._begin(conn, now)

    def _second_try(self, conn: Connection, now: float) -> None:
        if not conn.closed and not conn.connected and not conn.datagrams_received:
            self.redial(conn, SMALLEST, now)

    def _give_up(self, conn: Connection, now: float) -> None:
        if not conn.closed and not conn.connected:
            # A goodbye to who never answered would only look like a newcomer to a peer that is too busy.
            tell = conn.datagrams_received > 0
            conn.end(0, "no answer", by_peer=False, kind="silent", now=now, tell=tell)

    # -- receiving ---------------------------------------------------------------------------

    def _read(self, now: float) -> None:
        sock = self._sock
        cids = self._cids
        for _ in range(_READS_A_TURN):
            try:
                data, sockaddr = sock.recvfrom(_RECEIVE_SIZE)
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno == errno.EBADF:
                    return
                self._errors(now)
                continue
            if len(data) < 21:
                continue
            if data[0] & 0x80:
                self._long_header(data, sockaddr, now)
                continue
            known = cids.get(data[1 : 1 + CID_LENGTH])
            if known is None:
                self._unknown(data, sockaddr, now)
            else:
                known.receive(data, sockaddr, now)

    def _long_header(self, data: bytes, sockaddr: Sockaddr, now: float) -> None:
        known = self._cids.get(data[6 : 6 + data[5]])
        if known is not None:
            known.receive(data, sockaddr, now)
            if isinstance(known, Connection):
                self._named(known)
        elif not self._closed and len(data) >= SMALLEST:
            self._first_datagram(data, sockaddr, now)

    def _first_datagram(self, data: bytes, sockaddr: Sockaddr, now: float) -> None:
        """Decide on the first datagram of a handshake."""
        first = initial.read_first(data)
        if first is None:
            return
        if first.version not in initial.VERSIONS:
            if self._small_answers.take(now):
                self._sendto(initial.version_negotiation(first), sockaddr, now)
            return
        original = first.destination
        if not first.initial or len(original) < CID_LENGTH:  # RFC 9000 §7.2
            return
        retried = None
        knock = None
        if first.token:
            if self._trust.knows(first.token):
                knock = first.token
            else:  # a token that is not ours is as good as none (RFC 9000 §8.1.3)
                retried = self._retry.original(first.token, from_sockaddr(sockaddr), original, now)
        if len(self.connections) >= self._config.max_connections:
            self.count("quic.refused_connections")
            return
        verdict = self._admission.decide(
            from_sockaddr(sockaddr)[0], knock=knock, validated=retried is not None, now=now
        )
        self.count(verdict.value)
        if verdict is Verdict.FULL and knock is not None:
            self._waiting.put(original, (data, sockaddr), now)
        elif verdict is Verdict.RETRY:
            self._send_retry(first, sockaddr, now)
        elif verdict is Verdict.ACCEPT:
            if retried is not None:
                self._accept(data, sockaddr, retried, original, False, now)
            else:
                self._accept(data, sockaddr, original, None, knock is not None, now)

    def _send_retry(self, first: First, sockaddr: Sockaddr, now: float) -> None:
        source = self._make_cid()
        token = self._retry.make(from_sockaddr(sockaddr), first.destination, source, now)
        self._sendto(initial.retry(first, source, token), sockaddr, now)

    def _accept(
        self, data: bytes, sockaddr: Sockaddr, original: bytes, retried: bytes | None, member: bool, now: float
    ) -> None:
        info = path.inspect(from_sockaddr(sockaddr), self._config.max_datagram)
        # The client's first datagram is padded to the size that its path is thought to carry, and it arrived.
        size = max(SMALLEST, min(self.packets.datagram_size(info), len(data)))
        try:
            quic = self.packets.server(self._setup(info.local, size), self._trust.server_tls(), original, retried)
        except OSError as exc:  # no descriptor is left; the client will come again
            note(exc)
            self.count("quic.errors")
            return
        conn = Connection(self, quic, sockaddr, dialled=False, local=info.local, now=now)
        conn.knocked = member
        conn.counted = True
        self._admission.opened(member=member)
        self.connections.add(conn)
        self.issued(conn, retried or original)
        conn.deadline = self.loop.call_at(now + _UNPROVEN_SECONDS, lambda later: self._unproven(conn, later))
        conn.receive(data, sockaddr, now)
        self._named(conn)

    def _named(self, conn: Connection) -> None:
        """The id that `conn` has given itself is known after its first genuine packet, or is not yet."""
        if not conn.closed and (cid := conn.host_cid):
            self.issued(conn, cid)

    def _unproven(self, conn: Connection, now: float) -> None:
        if not conn.closed and not conn.proved:
            self.count("quic.unproven_timeouts")
            conn.end(Close.NOT_PROVED, NO_PROOF, by_peer=False, kind="silent", now=now, tell=True)

    # -- datagrams that belong to no connection ------------------------------------------------

    def _unknown(self, data: bytes, sockaddr: Sockaddr, now: float) -> None:
        """A short header with an id we do not know: a reset for us, or the reason for one of ours."""
        conn = self._resets.get(data[-16:])
        if conn is not None:
            self.count("quic.resets_received")
            conn.end(0, "the peer has forgotten this connection", by_peer=True, kind="reset", now=now, tell=False)
            return
        cid = data[1 : 1 + CID_LENGTH]
        if self._closed or len(data) < 22 or not self._is_mine(cid):
            self.count("quic.strays")
            return
        token = self._trust.reset_token(cid)
        if token is None or not self._small_answers.take(now):
            return
        if self._sendto(initial.reset(token, len(data)), sockaddr, now):
            self.count("quic.resets_sent")

    def _make_cid(self) -> bytes:
        head = os.urandom(CID_LENGTH - _MARK)
        return head + self._mark(head)

    def _mark(self, head: bytes) -> bytes:
        return hmac.digest(self._mark_key, head, "sha256")[:_MARK]

    def _is_mine(self, cid: bytes) -> bool:
        return hmac.compare_digest(cid[-_MARK:], self._mark(cid[:-_MARK]))

    # -- what connections report -----------------------------------------------------------------

    def issued(self, conn: Connection, cid: bytes) -> None:
        """From now on datagrams with `cid` belong to `conn`."""
        if self._cids.get(cid) is not conn:  # else it had to be announced again
            self._cids[cid] = conn
            conn.cids.append(cid)

    def retired(self, conn: Connection, cid: bytes) -> None:
        """The peer will not use `cid` any more."""
        if self._cids.get(cid) is conn:
            del self._cids[cid]
            conn.cids.remove(cid)

    def established(self, conn: Connection) -> None:
        """The handshake is done: learn what a stateless reset from this peer would look like."""
        token = self._trust.reset_token(conn.peer_cid)
        if token is not None and token not in self._resets:  # who takes another node's id learns nothing of its end
            conn.reset_token = token
            self._resets[token] = conn

    def settled(self, conn: Connection) -> None:
        """An accepted connection is proved, or has ended: it counts as unproven no longer."""
        if conn.counted:
            conn.counted = False
            self._admission.settled(member=conn.knocked)
            if self._waiting and not self._closed:
                self.loop.submit(self._admit)

    def _admit(self, now: float) -> None:
        while self._admission.unproven < self._config.max_unproven and not self._closed:
            waiting = self._waiting.take(now)
            if waiting is None:
                return
            self._long_header(*waiting, now)

    def farewell(self, conn: Connection, datagram: bytes) -> None:
        """Keep the goodbye, to repeat it."""
        self._farewells[conn] = datagram

    def forget(self, conn: Connection, linger: float, now: float) -> None:
        """Give up everything of a closed connection but a record that answers late packets for `linger` seconds."""
        self.connections.discard(conn)
        self.settled(conn)
        if conn.reset_token is not None:
            self._resets.pop(conn.reset_token, None)
        cids = conn.cids
        conn.cids = []
        conn.remake = None
        late = _Late(cids, conn.sockaddr, self._farewells.pop(conn, b""), self._sendto)
        for cid in cids:
            self._cids[cid] = late
        if len(self._late) >= _LATE_MAX:
            self._drop_late(next(iter(self._late)))
        self._late[late] = None
        late.timer = self.loop.call_at(now + linger, lambda _: self._drop_late(late))

    def _drop_late(self, late: _Late) -> None:
        if late.timer is not None:
            late.timer.cancel()
        for cid in late.cids:
            if self._cids.get(cid) is late:
                del self._cids[cid]
        self._late.pop(late, None)

    # -- sending -----------------------------------------------------------------------------------

    def _transmit(self, now: float) -> None:
        """The end of a turn: every connection with something to do sends, once."""
        if self._blocked:
            self._retry_blocked(now)
        while self.touched:
            touched, self.touched = self.touched, []
            for conn in touched:
                conn.transmit(now)

    def again(self, conn: Connection) -> None:
        """`conn` has more to send than one turn allows."""
        self._later.append(conn)
        if len(self._later) == 1:
            self.loop.submit(self._continue)

    def _continue(self, now: float) -> None:
        later, self._later = self._later, []
        self.touched.extend(later)

    def send_datagram(self, conn: Connection, data: bytes, sockaddr: Sockaddr) -> bool:
        """Send one datagram of a connection, and deal with what the system says; False if it is not on its way."""
        try:
            self._sock.sendto(data, sockaddr)
        except OSError as exc:
            return self._send_failed(conn, data, sockaddr, exc, clock.now())
        return True

    def _send_failed(self, conn: Connection | None, data: bytes, sockaddr: Sockaddr, exc: OSError, now: float) -> bool:
        """Try once more, now or later, or give it up; return whether it went out, or waits to."""
        if exc.errno == errno.EAGAIN and len(self._blocked) < _BLOCKED_MAX:
            if not self._blocked:
                self.loop.call_at(now + 0.001, lambda _: None)  # a turn, which tries again
            self._blocked.append((data, sockaddr))
            return True
        if exc.errno in (errno.EAGAIN, errno.ENOBUFS):  # dropped by the interface: a loss like any other
            self.count("quic.send_drops")
            return False
        if exc.errno == errno.EBADF:
            return False
        # Any call may bring the error of an earlier datagram, to anyone; this one was not sent then.
        self._errors(now)
        try:
            self._sock.sendto(data, sockaddr)
        except OSError as again:
            self.count("quic.send_errors")
            if conn is None or conn.closed:
                return False
            if again.errno == errno.EMSGSIZE:
                info = path.inspect(from_sockaddr(sockaddr), self._config.max_datagram)
                conn.oversize(info.mtu if info.mtu < len(data) else SMALLEST, now)
            elif again.errno in _NO_WAY:
                conn.refused(path.strerror(again.errno or 0), now)
            return False
        return True

    def _sendto(self, data: bytes, sockaddr: Sockaddr, now: float) -> bool:
        """Send what belongs to no connection; lost is lost, which False tells."""
        try:
            self._sock.sendto(data, sockaddr)
        except OSError as exc:
            return exc.errno not in (errno.EAGAIN, errno.EBADF) and self._send_failed(None, data, sockaddr, exc, now)
        return True

    def _retry_blocked(self, now: float) -> None:
        blocked, self._blocked = self._blocked, []
        for data, sockaddr in blocked:
            if self._blocked:
                self._blocked.append((data, sockaddr))
                continue
            try:
                self._sock.sendto(data, sockaddr)
            except OSError as exc:
                self._send_failed(None, data, sockaddr, exc, now)

    def _errors(self, now: float) -> None:
        """Read what ICMP, or our own system, said about earlier datagrams, and tell the connections it concerns."""
        errors = path.pending_errors(self._sock)
        addresses = {error.address for error in errors}
        concerned = [conn for conn in self.connections if conn.address in addresses] if errors else []
        for error in errors:
            for conn in [conn for conn in concerned if conn.address == error.address]:
                if error.errno == errno.EMSGSIZE:
                    overhead = 48 if ":" in error.address[0] else 28
                    conn.oversize(error.mtu - overhead if error.mtu else SMALLEST, now)
                elif error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
                    self.count("quic.icmp_refusals")
                    conn.refused(path.strerror(error.errno), now)
