"""Whether this host still has the address that the others were told; if not, another one is found and told.

Looked at each probe interval, when the gossip thread is awake anyway: one
``bind``, 15 µs. As long as the host has the address it stays the one, whatever
others there are. An ``advertise_addr`` is the user's word (a NAT, a load
balancer), and is not looked after.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable

from ..._swim.machine import Swim
from ..._wire.text import logger
from ...config import Config
from ...types import Node, is_loopback
from ..net import sockets
from ..threads.mailbox import Mailbox
from .exchanges import ExchangePool, Lane

__all__ = ["Roaming", "has_address"]

log = logger("mycorrizal.gossip")

_LOOK_SECONDS = 1.0  # where nobody is probed


def has_address(host: str) -> bool:
    """Return whether an IP literal is an address of this host; also when that cannot be told."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError as exc:
        return exc.errno != errno.EADDRNOTAVAIL
    return True


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
        self.lost = False
        self.on_moved: Callable[[Node], None] = lambda node: None

    def look(self, now: float) -> None:
        """Look, if it is time to."""
        if now < self._next:
            return
        self._next = now + self._every
        host = self._machine.local_node.host
        if has_address(host):
            if self.lost:
                log.info("= %s: this host has the address %s again", self._config.name, host)
            self.lost = False
        elif self._everywhere:
            self._search()
        elif not self.lost:
            self._say(host, "bind to 0.0.0.0 or :: to follow the host's addresses")

    def _say(self, host: str, what: str) -> None:
        self.lost = True
        text = "! %s: this host has the address %s, which the others know, no longer: %s"
        log.warning(text, self._config.name, host, what)

    def _search(self) -> None:
        """Find out what others may be told, on another thread: not every system lists its addresses at once."""
        if self._searching:
            return
        config = self._config

        def done(found: tuple[bytes, int] | None, error: Exception | None) -> None:
            self._mailbox.tell(lambda now: self._found(found, now))

        try:
            self._pool.submit(Lane.DIALLED, lambda: sockets.advertised(config, config.bind_port), done)
            self._searching = True
        except RuntimeError:  # QueueFull, NotRunningError, or no more threads: it is looked again
            pass

    def _found(self, found: tuple[bytes, int] | None, now: float) -> None:
        self._searching = False
        if found is not None and self._machine.moved(found[0], now):
            self.lost = False
            node = self._machine.local_node
            try:
                self._pool.submit(Lane.DIALLED, lambda: self.on_moved(node), lambda result, error: self._told(error))
            except RuntimeError as error:
                self._told(error)
        elif not self.lost:
            self._say(self._machine.local_node.host, "there is no other one that they could be told")

    def _told(self, error: Exception | None) -> None:
        if error is not None:
            log.warning("! %s: programs of this host are not told the new address: %s", self._config.name, error)
