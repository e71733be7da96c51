"""Carries out a command on an agent, or on anything that has its methods; says what went wrong as a code.

Knows no socket and no thread: whoever calls ``Desk.answer`` waits as long as
the agent's own method does. Several threads may.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from .._wire.text import text_of
from ..exceptions import (
    CacheOutcomeUnknown,
    CacheUnavailable,
    ConfigError,
    ControlError,
    ForkedProcessError,
    MycorrizalError,
    NotRunningError,
    OperationTimeout,
    PeerUnreachable,
    QueueFull,
    RemoteError,
    RemoteProtocolError,
    ServiceCrashed,
    UnknownCache,
    ValueDecodeError,
    ValueEncodeError,
    ValueTooLarge,
)
from .cachedesk import CacheDesk
from .commands import described
from .messages import PROTOCOL
from .plain import plain

__all__ = ["CODES", "Controlled", "Desk", "code_of", "fingerprint"]

REGISTRATIONS_MAX = 256
"""Services that may be registered through one control plane at a time."""

CODES: Mapping[str, str] = {
    "malformed": "the message is no request",
    "too_large": "the request, the result or a value is larger than allowed",
    "unknown_command": "there is no such command",
    "bad_arguments": "an argument is missing, unknown or of the wrong kind",
    "busy": "too many commands are waiting; try again",
    "timeout": "not done in time",
    "unreachable": "another node could not be reached",
    "remote": "the other node's handler failed, or there is none",
    "not_found": "there is no such setting, registration, cache or key",
    "not_running": "the agent is closing or closed",
    "unsupported": "this agent cannot do that",
    "failed": "it went wrong in another way; the text says how",
}
"""Every code of an error reply, and what it means."""

_CODES_OF: tuple[tuple[type[BaseException], str], ...] = (
    (OperationTimeout, "timeout"),
    (RemoteError, "remote"),
    (PeerUnreachable, "unreachable"),
    (CacheUnavailable, "unreachable"),
    (CacheOutcomeUnknown, "unreachable"),
    (UnknownCache, "not_found"),
    (QueueFull, "busy"),
    (ValueTooLarge, "too_large"),
    (ServiceCrashed, "failed"),
    (NotRunningError, "not_running"),
    (ForkedProcessError, "not_running"),
    (RemoteProtocolError, "malformed"),
    (ConfigError, "bad_arguments"),
    (ValueEncodeError, "bad_arguments"),
    (ValueDecodeError, "unsupported"),
)


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

    def send(self, node: str, value: Any, timeout: float | None = 10.0) -> Any:
        """Send a message."""

    def request(self, node: str, name: str, value: Any = None, timeout: float | None = 10.0) -> Any:
        """Ask a handler."""

    def join(self, seeds: list[str], timeout: float | None = 10.0) -> Any:
        """Join through seeds."""

    def open_cache(self, name: str, timeout: float | None = 10.0) -> Any:
        """Return a cache that it has open, or that others in sight have defined."""

    def broadcast(self, topic: str, value: Any = None, timeout: float | None = 10.0) -> Any:
        """Tell all."""

    def update_tags(self, tags: Mapping[str, str], timeout: float | None = 10.0) -> None:
        """Announce tags."""

    def leave(self, timeout: float | None = 10.0) -> Any:
        """Leave the cluster."""

    def close(self, timeout: float | None = 5.0) -> None:
        """End."""


def code_of(error: BaseException) -> str:
    """Return the code that a reply tells for `error`."""
    if isinstance(error, ControlError):
        return error.code
    return next((code for kind, code in _CODES_OF if isinstance(error, kind)), "failed")


class Desk:
    """Answers commands on behalf of `agent`.

    Args:
        facts: further fields of ``info`` and ``subscribe`` that the agent does not know: process, version, endpoints.
        sequence: returns the number of the last event that was told.
    """

    def __init__(self, agent: Controlled, facts: Mapping[str, Any], sequence: Callable[[], int] = lambda: 0) -> None:
        self._agent = agent
        self._facts = facts
        self._sequence = sequence
        self._registrations: dict[str, Any] = {}  # those made here, by id
        self._answers: dict[str, Callable[..., Any]] = {
            "ping": self._ping,
            "commands": described,
            "info": self._info,
            "members": lambda **asked: plain(list(agent.members(**asked))),
            "health": lambda: plain(agent.health()),
            "metrics": lambda: dict(agent.metrics()),
            "peers": lambda: plain(list(agent.peers())),
            "subscribe": self._subscribe,
            "wait": lambda members, timeout: plain(list(agent.wait_for(members, timeout=timeout))),
            # Not the agent's bound methods: they would keep an agent alive of which we have but a weak proxy.
            "send": lambda node, value, timeout: agent.send(node, value, timeout=timeout),
            "request": lambda node, name, value, timeout: agent.request(node, name, value, timeout=timeout),
            "broadcast": lambda topic, value, timeout: agent.broadcast(topic, value, timeout=timeout),
            "services.list": self._services,
            "services.register": self._register,
            "services.deregister": self._deregister,
            "settings.list": lambda: {**agent.settings, **plain(agent.settings.errors)},
            "settings.get": self._setting,
            "settings.set": lambda key, value, timeout: agent.settings.set(key, value, timeout=timeout),
            "settings.delete": self._delete,
            **CacheDesk(agent).answers(),
            "keys.list": lambda: [fingerprint(key) for key in agent.keys.list()],
            "keys.add": lambda key, timeout: _by_node(agent.keys.add(key, timeout=timeout)),
            "keys.use": lambda key, timeout: _by_node(agent.keys.use(key, timeout=timeout)),
            "keys.remove": lambda key, timeout: _by_node(agent.keys.remove(key, timeout=timeout)),
            "update_tags": lambda tags, timeout: agent.update_tags(tags, timeout=timeout),
            "join": lambda addresses, timeout: agent.join(addresses, timeout=timeout),
            "leave": lambda timeout: agent.leave(timeout=timeout),
            "shutdown": lambda leave, timeout: None,
        }

    def answer(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Carry out command `name` and return its result. Waits; any thread that may.

        `arguments` have passed ``commands.checked``.

        Raises:
            ControlError: with the code for whatever went wrong; the cause is chained.
        """
        try:
            return self._answers[name](**arguments)
        except ControlError:
            raise
        except MycorrizalError as error:
            more = {"retriable": error.retriable, "indeterminate": error.indeterminate}
            raise ControlError(code_of(error), str(error), **more) from error
        except ReferenceError:  # what was given is a weak proxy, and its owner has dropped the agent
            raise ControlError("not_running", "the agent is gone") from None
        except Exception as error:
            raise ControlError("failed", f"{name}: {type(error).__name__}: {text_of(error)}") from error

    def shutdown(self, leave: bool, timeout: float) -> None:
        """End the agent, once the reply to ``shutdown`` is out. Waits; not on a thread that the agent's end needs."""
        try:
            if leave:
                self._agent.leave(timeout=timeout)
        finally:
            self._agent.close()

    # -- one method for each command that is more than a call -----------------------------

    def _ping(self) -> dict[str, Any]:
        version = self._facts.get("version")
        return {"name": self._agent.name, "cluster": self._agent.cluster, "version": version, "protocol": PROTOCOL}

    def _info(self) -> dict[str, Any]:
        agent = self._agent
        host, port = agent.address
        return {
            "name": agent.name,
            "cluster": agent.cluster,
            "boot": agent.boot.hex(),
            "host": host,
            "port": port,
            "quic_port": agent.quic_port,
            **self._facts,
        }

    def _subscribe(self) -> dict[str, Any]:
        return {
            "endpoint": self._facts.get("events"),
            "topics": ["event."],
            "publisher": self._agent.boot.hex(),
            "sequence": self._sequence(),
            "protocol": PROTOCOL,
        }

    def _services(self, name: str | None, healthy: bool) -> Any:
        return plain(list(self._agent.services.find(name, healthy=True if healthy else None)))

    def _register(self, name: str, id: str | None, port: int | None, meta: Any, timeout: float) -> None:  # noqa: A002
        number = name if id is None else id
        if number not in self._registrations:
            if len(self._registrations) >= REGISTRATIONS_MAX:
                text = f"{REGISTRATIONS_MAX} services are registered through this control plane"
                raise ControlError("busy", text, hint="deregister some")
            taken = self._agent.services.find(healthy=None)
            if any(one.node == self._agent.name and one.id == number for one in taken):
                text = f"the agent's own program has a service with the id {number!r}"
                raise ControlError("bad_arguments", text, hint="choose another id")
        more = {"port": port, "meta": meta, "service_id": number, "timeout": timeout}
        self._registrations[number] = self._agent.services.register(name, **more)

    def _deregister(self, id: str, timeout: float) -> None:  # noqa: A002
        made = self._registrations.get(id)
        if made is None:
            hint = "what a program registered, that program withdraws"
            raise ControlError("not_found", f"no service {id!r} was registered through this agent", hint=hint)
        made.deregister(timeout=timeout)
        self._registrations.pop(id, None)

    def _setting(self, key: str) -> Any:
        try:
            return self._agent.settings[key]
        except KeyError:
            raise _no_setting(key) from None

    def _delete(self, key: str, timeout: float) -> None:
        if key not in self._agent.settings:
            raise _no_setting(key)
        self._agent.settings.delete(key, timeout=timeout)


def fingerprint(key: bytes) -> str:
    """Return what a key is known by where the key itself must not be seen."""
    return hashlib.sha256(b"mycorrizal key " + key).hexdigest()[:16]


def _by_node(results: Any) -> Any:
    """Return the outcomes of all nodes, also those that failed, by name."""
    return plain({**results, **results.errors})


def _no_setting(key: str) -> ControlError:
    return ControlError("not_found", f"there is no setting {key!r}", hint="settings.list tells which there are")
