"""All connections of a node with processes of its own host: listens, dials, and waits for all of them at once.

Everything on the loop thread but the constructor, and what says otherwise.
The sockets are in one epoll of their own, so that the loop watches one
descriptor however many there are, and so that any thread may ask to be told
when a socket takes more.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..._wire.frames import Close
from ..._wire.text import logger
from ...exceptions import MycorrizalError
from ...types import Address
from ..threads import clock
from ..threads.platform import unix_socket, user
from ..threads.shortage import as_ours, note
from . import place
from .connection import HostConnection

if TYPE_CHECKING:
    from ..._data.machine import DataMachine
    from ...dataconfig import DataConfig
    from ..quic.loop import Loop
    from ..threads.counters import Counters

__all__ = ["HostCarrier", "Neighbour"]

log = logger("mycorrizal.host")

HELLO_SECONDS = 2.0
"""How long a process of this host has to answer and prove the key, before it is asked by QUIC."""
AVOID_SECONDS = 30.0
"""For how long nobody tries again where the socket has failed."""
UNPROVEN_SECONDS = 5.0
"""How long who connected has to prove the key."""
_LINGER_SECONDS = 1.0  # for a goodbye that the socket does not take
_PAUSE = 1.0  # until the next look at who wants to connect, where no descriptor was left
_BACKLOG = 128
_ACCEPTS_A_TURN = 32
_AVOIDED_MAX = 1024
_EVENTS_MAX = 256
_IN = select.EPOLLIN


class Neighbour(NamedTuple):
    """A process of this host that takes connections: its socket, boot id and number."""

    path: str
    boot: bytes
    pid: int


class HostCarrier:
    """Made on any thread, begun by ``start`` on the loop thread.

    Args:
        path: of the socket to listen on, in a directory of this user alone.
        where: what ``place.here`` returned.
        address: of this node's data plane.
        find: returns who has a name on this host, or why it is not to be had here.
        lost: called with the name and the boot id of a proved process whose socket has ended without a goodbye.

    Raises:
        OSError: it cannot be listened on.
        ResourcesExhausted: no descriptor is left.
    """

    def __init__(
        self, loop: Loop, owner: DataMachine, config: DataConfig, counters: Counters, *, path: str, where: str,
        address: Address, find: Callable[[str], Neighbour | str],
        lost: Callable[[str, bytes, float], object] = lambda name, boot, now: None,
    ) -> None:  # fmt: skip
        self.owner = owner
        self.boot = owner.host.boot
        self.mark = place.mark(where)
        self.address = address
        self.count = counters.add
        self.now = clock.now
        self.patience = min(HELLO_SECONDS, config.connect_timeout / 2)
        self.touched: list[HostConnection] = []
        self.connections: dict[int, HostConnection] = {}  # those that have ended, and linger, too
        self._later: list[HostConnection] = []
        self._loop = loop
        self._config = config
        self._find = find
        self._lost = lost
        self._unproven = 0
        self._avoided: dict[str, tuple[bytes, float, str]] = {}
        self._closed = False
        self._pid = os.getpid()
        with as_ours("the socket for this host cannot be made"):
            self._epoll = select.epoll()
            try:
                self._listener = _listen(path)
            except BaseException:
                self._epoll.close()
                raise
        self._epoll.register(self._listener.fileno(), _IN)

    def start(self, now: float) -> None:
        """Begin to listen."""
        if not self._closed:
            self._loop.add_reader(self._epoll, self._look)
            self._loop.at_turn_end(self._transmit)

    def abandon(self) -> None:
        """Close all descriptors: the loop has ended, or this is a forked child. Idempotent, takes no lock."""
        self._closed = True
        self._listener.close()
        self._epoll.close()
        for conn in list(self.connections.values()):
            if not conn.loan.taken or os.getpid() != self._pid:  # who reads closes it
                conn.sock.close()
        self.connections.clear()

    # -- dialling ------------------------------------------------------------------------------

    def reaches(self, peer: str, now: float) -> bool:
        """Return whether `peer` can be dialled, as far as is known without doing it."""
        found = self._find(peer)
        return not isinstance(found, str) and self._avoids(peer, found, now) is None

    def _avoids(self, peer: str, found: Neighbour, now: float) -> str | None:
        boot, until, why = self._avoided.get(peer, (b"", 0.0, ""))
        return why if boot == found.boot and now < until else None

    def dial(self, address: Address, peer: str, now: float) -> HostConnection | str:
        """Return a connection to `peer`, or why there is none: then another carrier is to be taken."""
        found = self._find(peer)
        if isinstance(found, str):
            return found
        why = self._avoids(peer, found, now)
        if why is not None:
            return why
        sock = self._connect(found)
        if isinstance(sock, str):
            self.count("host.fallbacks")
            return sock
        conn = HostConnection(
            self, sock, address, dialled=True, peer=peer, pids=(os.getpid(), found.pid), boot=found.boot, now=now
        )
        self._add(conn)
        conn.deadline = self._loop.call_at(now + self.patience, lambda later: self._give_up(conn))
        self.count("host.dialled")
        return conn

    def _connect(self, found: Neighbour) -> socket.socket | str:
        """Return a socket that is connected to the very process, or why there is none."""
        try:
            if not stat.S_ISSOCK(os.lstat(found.path).st_mode):
                return "what is in its socket's place is none"
            sock = unix_socket()
        except OSError as exc:
            note(exc)
            return f"its socket: {exc.strerror or exc}"
        try:
            sock.setblocking(False)
            sock.connect(found.path)
            there = place.credentials(sock)
        except OSError as exc:
            sock.close()
            return f"its socket: {exc.strerror or exc}"
        if there != (found.pid, user()):
            sock.close()
            self.count("host.strangers")
            return f"process {there.pid} of user {there.uid} has taken its socket's place"
        return sock

    def _give_up(self, conn: HostConnection) -> None:
        if not conn.closed and not conn.proved:
            conn.end(Close.NOT_PROVED, "no answer on its socket", by_peer=False, kind="silent", tell=True)

    # -- who connects -----------------------------------------------------------------------

    def _accept(self, now: float) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as exc:  # no descriptor is left: who waits takes QUIC, and the rest is looked at later
                note(exc)
                self.count("host.starved")
                self._epoll.unregister(self._listener.fileno())
                self._loop.call_at(now + _PAUSE, self._resume)
                return
            self._accepted(sock, now)

    def _resume(self, now: float) -> None:
        if not self._closed:
            self._epoll.register(self._listener.fileno(), _IN)

    def _accepted(self, sock: socket.socket, now: float) -> None:
        try:
            sock.setblocking(False)
            there = place.credentials(sock)
        except OSError:
            sock.close()
            return
        if there.uid != user():
            self.count("host.strangers")
            sock.close()
            return
        if self._unproven >= self._config.max_unproven or len(self.owner.links) >= self._config.max_connections:
            self.count("host.refused_full")
            sock.close()
            return
        conn = HostConnection(
            self, sock, ("pid", there.pid), dialled=False, peer="", pids=(os.getpid(), there.pid), boot=None, now=now
        )
        self._unproven += 1
        self._add(conn)
        conn.deadline = self._loop.call_at(now + UNPROVEN_SECONDS, lambda later: self._give_up(conn))
        self.count("host.accepted")

    def settled(self, conn: HostConnection) -> None:
        """The peer is proved, or the connection has ended without."""
        if conn.deadline is not None:
            conn.deadline.cancel()
            conn.deadline = None
        if not conn.dialled:
            self._unproven -= 1

    # -- the sockets --------------------------------------------------------------------------

    def _add(self, conn: HostConnection) -> None:
        place.widen(conn.sock)
        self._epoll.register(conn.fd, 0)
        self.connections[conn.fd] = conn
        self.watch(conn)

    def _look(self, now: float) -> None:
        for fd, events in self._epoll.poll(0, _EVENTS_MAX):
            conn = self.connections.get(fd)
            if conn is None:
                if fd == self._listener.fileno():
                    self._accept(now)
                continue
            if events & select.EPOLLOUT:
                conn.room(now)
            if conn.closed:
                if events & ~select.EPOLLOUT or not conn.outlet.waits:
                    self._let_go(conn)
            elif events & ~select.EPOLLOUT:
                conn.readable(now)

    def watch(self, conn: HostConnection) -> None:
        """Have `conn` be told of what it waits for now. Any thread; after each change of that."""
        with conn.watching:
            if self.connections.get(conn.fd) is not conn:
                return
            events = 0 if conn.closed or conn.loan.taken else _IN
            if conn.outlet.waits:
                events |= select.EPOLLOUT
            if events != conn.events:
                conn.events = None  # until that is done: a Ctrl-C may come in between
                try:
                    self._epoll.modify(conn.fd, events)
                    conn.events = events
                except (OSError, ValueError):
                    pass  # it is being closed

    def left(self, conn: HostConnection, who: object) -> None:
        """Another thread has read for `who`, and leaves the rest to the loop. Any thread."""
        try:
            self._loop.submit(lambda now: self._back(conn, who, now))
        except MycorrizalError:  # it has ended, and did not close what was being read
            conn.sock.close()

    def _back(self, conn: HostConnection, who: object, now: float) -> None:
        conn.take_back(who, now)
        if conn.closed and (conn.overdue or not conn.outlet.waits):
            self._let_go(conn)

    def _transmit(self, now: float) -> None:
        """The end of a turn: each connection with something to do sends, once."""
        while self.touched:
            touched, self.touched = self.touched, []
            for conn in touched:
                conn.transmit(now)

    def again(self, conn: HostConnection) -> None:
        """`conn` has more to send than one turn allows."""
        self._later.append(conn)
        if len(self._later) == 1:
            self._loop.submit(self._continue)

    def _continue(self, now: float) -> None:
        later, self._later = self._later, []
        for conn in later:
            conn.touch()

    # -- the end ----------------------------------------------------------------------------------

    def ending(self, conn: HostConnection, code: int, reason: str, kind: str) -> None:
        """`conn` is about to end: whoever dials again from now on finds QUIC, if its way has failed."""
        if kind == "gone" and (link := self.owner.links.get(conn)) is not None and link.welcomed:
            self._lost(link.name, link.boot, self.now())
        failed = kind in ("gone", "silent") or (not conn.proved and code not in _OF_THE_MACHINE)
        if conn.dialled and failed:
            self._avoid(conn, reason, self.now())

    def forget(self, conn: HostConnection, now: float) -> None:
        """`conn` has ended; its socket stays until the goodbye has gone."""
        if not conn.proved:
            self.settled(conn)
        if conn.outlet.waits and not self._closed:
            self.watch(conn)
            self._loop.call_at(now + _LINGER_SECONDS, lambda later: self._let_go(conn))
        else:
            self._let_go(conn)

    def _avoid(self, conn: HostConnection, reason: str, now: float) -> None:
        """Take QUIC to this process for a while."""
        self.count("host.fallbacks")
        if len(self._avoided) >= _AVOIDED_MAX:
            self._avoided.clear()
        self._avoided[conn.peer] = (conn.boot or b"", now + AVOID_SECONDS, f"its socket has failed: {reason}")
        log.info("%s: QUIC to %s from now on: %s", self._loop.node, conn.peer, reason)

    def _let_go(self, conn: HostConnection) -> None:
        conn.overdue = True
        if self.connections.get(conn.fd) is conn and not conn.loan.taken:  # who reads leaves soon: see ``_back``
            del self.connections[conn.fd]
            conn.sock.close()


_OF_THE_MACHINE = (Close.IDLE, Close.TRY_AGAIN, Close.OTHER_PROCESS)
"""Reasons to end a connection before its proof that say nothing about the carrier, and after which one comes again."""


def _listen(path: str) -> socket.socket:
    sock = unix_socket()
    try:
        sock.setblocking(False)
        sock.bind(path)
        os.chmod(path, 0o600)  # before it listens, whatever the umask says
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
