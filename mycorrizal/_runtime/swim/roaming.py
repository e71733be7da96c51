"""Whether this host still has the address that the others were told; if not, another one is found and told.

Looked at each probe interval, when the gossip thread is awake anyway: one
``bind``, 15 µs. As long as the host has the address it stays the one, whatever
others there are. What comes in its place is an address of the same network, or
the one that the default route leaves from: any other, as a bridge for
containers, is nothing that members could dial. The address of the beginning is
home: once the host has it again, as when a VPN is back, it is told again. An
``advertise_addr`` is the user's word (a NAT, a load balancer), and is not
looked after. A host with several addresses tells, from its first join on, the
one from which its seed is reached.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable

from ..._swim.machine import Swim
from ..._wire.text import logger
from ...config import Config
from ...exceptions import ConfigError
from ...types import Node, host_of, is_loopback, pack_host
from ..net import addresses, sockets
from ..threads.mailbox import Mailbox
from .exchanges import ExchangePool, Lane

__all__ = ["Roaming", "has_address", "replacement"]

log = logger("mycorrizal.gossip")

_LOOK_SECONDS = 1.0  # where nobody is probed
_AWAY_SECONDS = 10.0  # before it goes home from an address that the host still has: one link may come and go
_NETWORK_BITS = {4: 24, 6: 64}


def has_address(host: str) -> bool:
    """Return whether an IP literal is an address of this host; also when that cannot be told."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError as exc:
        return exc.errno != errno.EADDRNOTAVAIL
    return True


def replacement(config: Config, gone: str) -> bytes:
    """Return the address at which members reach this host now that it has not `gone` any more.

    Raises:
        ConfigError: there is none.
    """
    ip = ipaddress.ip_address(gone)
    network = ipaddress.ip_network((ip, _NETWORK_BITS[ip.version]), strict=False)
    near = [host for host in addresses.interface_addresses() if ipaddress.ip_address(host) in network]
    try:
        return sockets.advertised(config, config.bind_port, near)[0]
    except ConfigError:
        return sockets.advertised(config, config.bind_port, addresses.routed())[0]


class Roaming:
    """One node's. Gossip thread.

    Attributes:
        lost: the host has the address no longer, and no other one was told. Any thread.
        on_moved: called on an exchange thread with our record, after each move; set before the thread starts.
    """

    def __init__(self, config: Config, machine: Swim, mailbox: Mailbox, pool: ExchangePool) -> None:
        self._config = config
        self._machine = machine
        self._mailbox = mailbox
        self._pool = pool
        self._every = config.probe_interval or _LOOK_SECONDS
        told = config.advertise_addr is not None or is_loopback(config.bind_addr)
        self._next = float("-inf") if config.follow_address and not told else float("inf")
        self._everywhere = ipaddress.ip_address(config.bind_addr.partition("%")[0]).is_unspecified
        self._searching = False
        self._home: str | None = None
        self._moved = float("-inf")
        self.lost = False
        self.on_moved: Callable[[Node], None] = lambda node: None

    def look(self, now: float) -> None:
        """Look, if it is time to."""
        if now < self._next:
            return
        self._next = now + self._every
        host = self._machine.local_node.host
        self._home = self._home or host
        if has_address(host):
            if self.lost:
                log.info("%s: this host has the address %s again", self._config.name, host)
            self.lost = False
            if host != self._home and now - self._moved >= _AWAY_SECONDS and has_address(self._home):
                self._found(pack_host(self._home), now)
        elif self._everywhere:
            self._search(host)
        elif not self.lost:
            self._say(host, "bind to 0.0.0.0 or :: to follow the host's addresses")

    def towards(self, host: str, now: float) -> None:
        """Who knows nobody yet and has several addresses tells the one from which the seed at `host` is reached."""
        machine = self._machine
        told = machine.local_node.host
        if self._next == float("inf") or not self._everywhere or len(machine.members()) > 1:
            return
        source = addresses.source_towards(host)
        if source is None or source == told or (":" in source) != (":" in told):
            return
        try:
            addr, _ = sockets.advertised(self._config, self._config.bind_port, [source])
        except ConfigError:
            return  # loopback, or nothing that may be told unasked
        if machine.moved(addr, now):
            log.info("%s: others are told %s, from where %s is reached", self._config.name, source, host)
            self._home = source
            self._publish()

    def _say(self, host: str, what: str) -> None:
        self.lost = True
        text = "%s: this host has the address %s, which the others know, no longer: %s"
        log.warning(text, self._config.name, host, what)

    def _search(self, gone: str) -> None:
        """Find out what others may be told, on another thread: not every system lists its addresses at once."""
        if self._searching:
            return
        config = self._config

        def done(found: bytes | None, error: Exception | None) -> None:
            self._mailbox.tell(lambda now: self._found(found, now))

        try:
            self._pool.submit(Lane.DIALLED, lambda: replacement(config, gone), done)
            self._searching = True
        except RuntimeError:  # QueueFull, NotRunningError, or no more threads: it is looked again
            pass

    def _found(self, found: bytes | None, now: float) -> None:
        self._searching = False
        before = self._machine.local_node.host
        if found is not None and self._machine.moved(found, now):
            text = "%s: this host's address was %s and is %s now: the others are told"
            log.warning(text, self._config.name, before, host_of(found))
            self.lost, self._moved = False, now
            self._publish()
        elif not self.lost:
            self._say(self._machine.local_node.host, "there is no other one that they could be told")

    def _publish(self) -> None:
        node = self._machine.local_node
        try:
            self._pool.submit(Lane.DIALLED, lambda: self.on_moved(node), lambda result, error: self._told(error))
        except RuntimeError as error:
            self._told(error)

    def _told(self, error: Exception | None) -> None:
        if error is not None:
            log.warning("%s: programs of this host are not told the new address: %s", self._config.name, error)
