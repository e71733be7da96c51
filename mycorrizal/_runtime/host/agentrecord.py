"""What one running agent tells the other programs of its user on this host."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from ...agentconfig import check_cluster
from ...config import check_name
from ...exceptions import ConfigError

__all__ = ["RECORD_MAX_BYTES", "AgentRecord"]

RECORD_MAX_BYTES = 4096
"""A record is about 500 bytes; two long names and two long paths make it 1,500."""

_TEXT_MAX = 1024


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """Who an agent is and where it listens. Immutable; checked when it is built.

    Attributes:
        name, cluster: of the agent.
        pid: its process.
        host, port: address that members dial, as advertised.
        quic_port: UDP port of its data plane, None without one.
        control, events: endpoints of its control sockets, as ZeroMQ writes them; None without control.
        boot: random hex that tells this run from the next one of the same name.
        started: seconds since the epoch, by this host's wall clock; for people.
        place: kernel and namespaces in which its data plane takes connections by a Unix socket; empty if it does not.

    Raises:
        ConfigError: a value that cannot be one.
    """

    name: str
    cluster: str
    pid: int
    host: str
    port: int
    quic_port: int | None = None
    control: str | None = None
    events: str | None = None
    boot: str = ""
    started: float = 0.0
    place: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        check_cluster(self.cluster)
        _check(_whole(self.pid, 1, 1 << 31), "pid", self.pid)
        _check(_whole(self.port, 1, 65535), "port", self.port)
        _check(self.quic_port is None or _whole(self.quic_port, 1, 65535), "quic_port", self.quic_port)
        _check(_text(self.host) and self.host, "host", self.host)
        _check(self.control is None or _text(self.control), "control", self.control)
        _check(self.events is None or _text(self.events), "events", self.events)
        _check(_text(self.boot) and set(self.boot) <= set("0123456789abcdef"), "boot", self.boot)
        started = isinstance(self.started, (int, float)) and not isinstance(self.started, bool)
        _check(started and 0 <= self.started < 1e12, "started", self.started)
        _check(_text(self.place), "place", self.place)

    @property
    def entry(self) -> str:
        """How ``join`` is told of it: ``name/host:port``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name}/{host}:{self.port}"

    def pack(self) -> bytes:
        """Return the record as JSON."""
        data = json.dumps(asdict(self)).encode()
        if len(data) > RECORD_MAX_BYTES:
            raise ConfigError("record", f"takes {len(data)} bytes", hint=f"at most {RECORD_MAX_BYTES}")
        return data

    @classmethod
    def unpack(cls, data: bytes) -> AgentRecord:
        """Return the record that `data` holds; what a newer version added is left out.

        Raises:
            ValueError: it holds none (``ConfigError`` is one).
        """
        if len(data) > RECORD_MAX_BYTES:
            raise ValueError(f"more than {RECORD_MAX_BYTES} bytes")
        try:
            found: Any = json.loads(data)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in found.items() if name in known})
        except TypeError as exc:
            raise ValueError(str(exc).partition("() ")[2] or "fields are missing") from None


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _TEXT_MAX


def _check(good: object, field: str, value: object) -> None:
    if not good:
        raise ConfigError(field, f"{str(value)[:80]!r} cannot be an agent's")
