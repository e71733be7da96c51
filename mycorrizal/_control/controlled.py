"""What commands are carried out on: an agent, or anything that has its methods, and what a plane knows beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

__all__ = ["Controlled", "Served"]


class Controlled(Protocol):
    """What the control plane needs of an agent; ``mycorrizal.Agent`` is one."""

    @property
    def name(self) -> str:
        """Its name in the cluster."""

    @property
    def cluster(self) -> str:
        """The name of the cluster."""

    @property
    def boot(self) -> bytes:
        """Tells this run of the agent from others."""

    @property
    def address(self) -> tuple[str, int]:
        """Where it gossips."""

    @property
    def quic_port(self) -> int | None:
        """The port of its data plane."""

    @property
    def services(self) -> Any:
        """The service registry."""

    @property
    def settings(self) -> Any:
        """The settings of the cluster."""

    @property
    def keys(self) -> Any:
        """The keys of the cluster."""

    def members(self, *, all: bool = False) -> Iterable[Any]:  # noqa: A002
        """Return the members, or all that were within a day."""

    def events(self) -> Any:
        """Return an iterator over events, with a ``close``."""

    def wait_for(self, n: int, timeout: float | None = 30.0) -> Iterable[Any]:
        """Wait for that many members."""

    def health(self) -> Any:
        """Return how it is doing."""

    def metrics(self) -> Mapping[str, int]:
        """Return counters."""

    def peers(self) -> Iterable[Any]:
        """Return connections."""

    def send(self, node: str, value: Any, *, timeout: float | None = 10.0) -> Any:
        """Send a message."""

    def request(self, node: str, name: str, value: Any = None, *, timeout: float | None = 10.0) -> Any:
        """Ask a handler."""

    def join(self, seeds: list[str], timeout: float | None = 10.0) -> Any:
        """Join through seeds."""

    def caches(self) -> Mapping[str, Any]:
        """Return how the caches that agents in sight have open are defined, by name."""

    def cache(
        self,
        name: str,
        *,
        ttl: float | None = None,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        replicas: int = 2,
        near: bool = False,
        quorum: int = 0,
        redefine: bool = False,
        timeout: float | None = 10.0,
    ) -> Any:
        """Open a cache with these settings."""

    def open_cache(self, name: str, timeout: float | None = 10.0) -> Any:
        """Return a cache that it has open, or that others in sight have defined."""

    def broadcast(self, topic: str, value: Any = None, *, timeout: float | None = 10.0) -> Any:
        """Tell all."""

    def update_tags(self, tags: Mapping[str, str], timeout: float | None = 10.0) -> None:
        """Announce tags."""

    def leave(self, timeout: float | None = 10.0) -> Any:
        """Leave the cluster."""

    def close(self, timeout: float | None = 5.0) -> None:
        """End."""


class Served(NamedTuple):
    """An agent, as one control plane serves it.

    Attributes:
        facts: further fields of ``info`` and ``subscribe`` that the agent does not know: process, version, endpoints.
        sequence: returns the number of the last event that was told.
        registrations: services that were registered through this plane, by id.
    """

    agent: Controlled
    facts: Mapping[str, Any]
    sequence: Callable[[], int]
    registrations: dict[str, Any]
