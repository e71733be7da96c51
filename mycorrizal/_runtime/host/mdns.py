"""``mdns://[interface address,...]``: members on the same network segment, with the package zeroconf.

Each agent is an instance of ``_mycorrizal._udp.local.``. Its label begins with
a hash of the cluster's name, so that others are left alone unasked. Nothing
here is trusted: it only says whom to try.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from typing import Any

from zeroconf import InterfaceChoice, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from ...config import check_name
from ...exceptions import ConfigError
from ..net import addresses
from ..threads.deadline import Deadline
from .agentrecord import AgentRecord

__all__ = ["SERVICE", "Multicast"]

SERVICE = "_mycorrizal._udp.local."

_BROWSE = 2.0
"""Seconds without an answer after which nobody is there; who has just said something waits for one (RFC 6762 §6)."""
_MORE = 0.3  # seconds in which others may follow the first
_INSTANCES_MAX = 64
_ADDRESSES_MAX = 4
_NAME_MAX_BYTES = 250  # of the 255 that a TXT string takes


class Multicast:
    """Looks for members and tells of this one. Any thread without a running event loop."""

    def __init__(self, location: str) -> None:
        self._interfaces: Any = InterfaceChoice.All
        if location:
            self._interfaces = [text.strip() for text in location.split(",")]
            if not all(addresses.is_literal(text) for text in self._interfaces):
                hint = "write mdns://, or the addresses of interfaces"
                raise ConfigError("join", f"'mdns://{location}' holds what is no address", hint=hint)
        self._zeroconf: Zeroconf | None = None
        self._told = False
        self._guard = threading.Lock()
        self._closed = False

    def find(self, cluster: str, timeout: float) -> list[str]:
        """Return the members of `cluster` that answer; nothing if none does."""
        zeroconf, deadline = self._open(), Deadline(timeout)
        names: queue.Queue[str] = queue.Queue(_INSTANCES_MAX)
        prefix = _tag(cluster)

        def change(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
            if state_change is ServiceStateChange.Added and name.startswith(prefix) and not names.full():
                names.put_nowait(name)

        browser = ServiceBrowser(zeroconf, SERVICE, handlers=[change])
        try:
            found: list[str] = []
            wait = _BROWSE
            while len(found) < _INSTANCES_MAX:
                try:
                    name = names.get(timeout=deadline.capped(wait))
                except queue.Empty:
                    return found
                wait = _MORE
                info = zeroconf.get_service_info(SERVICE, name, timeout=int(deadline.capped(_BROWSE) * 1000))
                if info is not None:
                    found.extend(_entries(info))
            return found
        finally:
            browser.cancel()

    def advertise(self, record: AgentRecord) -> None:
        """Tell of this agent until ``close``, or until it tells of another address."""
        label = f"{_tag(record.cluster)}{hashlib.sha256(record.name.encode()).hexdigest()[:16]}"
        told = len(record.name.encode()) <= _NAME_MAX_BYTES
        info = ServiceInfo(
            SERVICE,
            f"{label}.{SERVICE}",
            port=record.port,
            properties={"n": record.name} if told else {},
            server=f"{label}.local.",
            parsed_addresses=[record.host],
        )
        if self._told:  # its sockets belong to interfaces as they were
            self._release()
        self._told = True
        # Without the probes for a name of one's own, 1.2 s: the label is a hash, and to answer twice would do no harm.
        self._open().register_service(info, cooperating_responders=True)

    def close(self) -> None:
        """Say goodbye."""
        with self._guard:
            self._closed = True
        self._release()

    def _release(self) -> None:
        with self._guard:
            zeroconf, self._zeroconf = self._zeroconf, None
        if zeroconf is not None:
            zeroconf.close()

    def _open(self) -> Zeroconf:
        with self._guard:
            if self._closed:
                raise ConfigError("join", "mdns:// was closed")
            if self._zeroconf is None:
                self._zeroconf = Zeroconf(interfaces=self._interfaces)
            return self._zeroconf


def _tag(cluster: str) -> str:
    return hashlib.sha256(f"mdns/{cluster}".encode()).hexdigest()[:16] + "-"


def _entries(info: ServiceInfo) -> list[str]:
    """Return what to join of one instance; nothing if what it says makes no sense."""
    name = (info.properties.get(b"n") or b"").decode("utf-8", "replace")
    try:
        check_name(name)
        name += "/"
    except ConfigError:
        name = ""
    hosts = info.parsed_scoped_addresses()[:_ADDRESSES_MAX] if info.port else []
    return [name + addresses.ensure_port(host, info.port or 0) for host in hosts]
