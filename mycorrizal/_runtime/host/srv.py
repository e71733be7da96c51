"""``srv://[server[:port]/]name``: members from SRV records (RFC 2782), with the package dnspython.

The server is for those who run one beside the system's, such as Consul's on
port 8600; without it the system's resolver configuration counts.
"""

from __future__ import annotations

import dns.exception
import dns.flags
import dns.name
import dns.rdatatype
import dns.resolver

from ...exceptions import ConfigError, PeerUnreachable
from ..net import addresses
from ..threads.deadline import Deadline

__all__ = ["ServiceRecords"]

_TARGETS_MAX = 64
_SERVER_PORT = 53
_LEAST = 0.1  # seconds for a further question, when the first has taken most of the time


class ServiceRecords:
    """The targets of one name, most preferred first, with all their addresses."""

    def __init__(self, location: str) -> None:
        server, _, name = location.rpartition("/")
        try:
            self._name = dns.name.from_text(name)
        except dns.exception.DNSException as exc:
            raise ConfigError("join", f"'srv://{location}': {exc}", hint="write srv://_service._udp.domain") from exc
        if not name.strip("."):
            raise ConfigError("join", f"'srv://{location}' names nothing", hint="write srv://_service._udp.domain")
        self._server = addresses.parse_address(server, _SERVER_PORT) if server else None

    def find(self, cluster: str, timeout: float) -> list[str]:
        """Return ``host:port`` of each target.

        Raises:
            PeerUnreachable: there is no such record, or no server answers.
        """
        deadline = Deadline(timeout)
        try:
            resolver = self._resolver()
            answer = resolver.resolve(self._name, "SRV", lifetime=timeout)
            found = self._targets(resolver, answer, deadline)
        except dns.exception.DNSException as exc:
            raise PeerUnreachable(f"no SRV records of {self._name}: {exc}", node=str(self._name)) from exc
        if not found:
            raise PeerUnreachable(f"the SRV records of {self._name} lead to no address", node=str(self._name))
        return found

    def _resolver(self) -> dns.resolver.Resolver:
        if self._server is None:
            return dns.resolver.Resolver()
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = [self._server.host]
        resolver.port = self._server.port
        return resolver

    def _targets(
        self, resolver: dns.resolver.Resolver, answer: dns.resolver.Answer, deadline: Deadline
    ) -> list[str]:
        known: dict[dns.name.Name, list[str]] = {}
        for extra in answer.response.additional:
            if extra.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
                known.setdefault(extra.name, []).extend(record.address for record in extra)
        found: dict[str, None] = {}
        records = sorted(answer, key=lambda record: (record.priority, -record.weight, record.target))
        for record in records[:_TARGETS_MAX]:
            if record.port == 0 or record.target == dns.name.root:  # "." says that there is no such service
                continue
            for host in known.get(record.target) or self._resolve(resolver, record.target, deadline):
                found[addresses.ensure_port(host, record.port)] = None
        return list(found)

    @staticmethod
    def _resolve(resolver: dns.resolver.Resolver, target: dns.name.Name, deadline: Deadline) -> list[str]:
        """Return the addresses of one target; none if it has none, or there is no time: others may have."""
        found: list[str] = []
        for kind in ("A", "AAAA"):
            try:
                left = deadline.remaining()
                answer = resolver.resolve(target, kind, lifetime=left if left is None else max(left, _LEAST))
            except dns.exception.DNSException:
                continue
            found.extend(record.address for record in answer)
        return found
