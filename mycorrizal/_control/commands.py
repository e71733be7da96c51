"""The commands of the control plane: their names, what each takes, and what it answers.

One table says it for the agent, which checks what arrives, for the ``commands``
command, which tells other programs, and for docs/control.md.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..exceptions import ControlError

__all__ = ["COMMANDS", "TIMEOUT_MAX", "Command", "Parameter", "checked", "described"]

TIMEOUT_MAX = 3600.0
"""Seconds that a command may ask for."""

TTL_MAX = 1e9
"""Seconds that an entry of a cache may be told to live."""

TEXT_MAX = 255
"""Bytes of a name, as elsewhere in the library."""

CACHE_KEY_MAX = 1024
"""Bytes of a key in a cache."""

LIST_MAX = 1024
"""Entries of a list of addresses or a map of tags."""

_REQUIRED: Any = object()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a command; without a `default` it has to be there."""

    name: str
    kind: str
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        """Whether a request must have it."""
        return self.default is _REQUIRED


@dataclass(frozen=True, slots=True)
class Command:
    """What may be asked.

    Attributes:
        waits: whether it waits for other nodes, so that its thread's place is lent meanwhile.
    """

    name: str
    about: str
    parameters: tuple[Parameter, ...] = ()
    waits: bool = False

    @property
    def timeout(self) -> Parameter | None:
        """The parameter of that name, if it has one."""
        return next((one for one in self.parameters if one.name == "timeout"), None)


# -- what may stand in an argument ----------------------------------------------------------


def _text(value: Any) -> Any:
    if isinstance(value, str) and 0 < len(value.encode("utf-8", "replace")) <= TEXT_MAX:
        return value
    raise ValueError(f"a text of 1 to {TEXT_MAX} bytes")


def _cache_key(value: Any) -> Any:
    if isinstance(value, str) and 0 < len(value.encode("utf-8", "replace")) <= CACHE_KEY_MAX:
        return value
    raise ValueError(f"a text of 1 to {CACHE_KEY_MAX} bytes")


def _texts(value: Any) -> Any:
    if isinstance(value, list) and 0 < len(value) <= LIST_MAX and all(isinstance(item, str) and item for item in value):
        return value
    raise ValueError("a list of texts")


def _tags(value: Any) -> Any:
    if isinstance(value, dict) and len(value) <= LIST_MAX and {*map(type, value), *map(type, value.values())} <= {str}:
        return value
    raise ValueError("a map from text to text")


def _boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def _count(value: Any) -> Any:
    if type(value) is int and 1 <= value <= 1_000_000:
        return value
    raise ValueError("a whole number from 1 to 1,000,000")


def _port(value: Any) -> Any:
    if type(value) is int and 1 <= value <= 65535:
        return value
    raise ValueError("a whole number from 1 to 65535")


def _ttl(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= TTL_MAX:
        return float(value)
    raise ValueError("a number of seconds, or 0 for ever")


def _seconds(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= TIMEOUT_MAX:
        return float(value)
    raise ValueError(f"a number of seconds from 0 to {TIMEOUT_MAX:.0f}")


def _key(value: Any) -> Any:
    raw: Any = value
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value.strip(), validate=True)
        except (ValueError, binascii.Error):
            raw = b""
    if isinstance(raw, bytes) and len(raw) in (16, 24, 32):
        return raw
    raise ValueError("a key: 16, 24 or 32 bytes, or their base64 text")


_KINDS: dict[str, Callable[[Any], Any]] = {
    **{"text": _text, "texts": _texts, "tags": _tags, "boolean": _boolean, "count": _count, "port": _port},
    **{"seconds": _seconds, "ttl": _ttl, "cache_key": _cache_key, "key": _key, "value": lambda value: value},
}

# -- the table ------------------------------------------------------------------------------

_TIMEOUT = Parameter("timeout", "seconds", 10.0)
_NODE = Parameter("node", "text")
_VALUE = Parameter("value", "value")
_KEY = Parameter("key", "key")
_CACHE = Parameter("cache", "text")
_CACHE_KEY = Parameter("key", "cache_key")

_ALL = (
    Command("ping", "the agent's name, cluster, version and the version of this protocol"),
    Command("commands", "this table"),
    Command("info", "who the agent is: name, cluster, boot, addresses, process, endpoints"),
    Command("members", "every member as the agent sees it now", (Parameter("all", "boolean", False),)),
    Command("health", "how well the agent is doing"),
    Command("metrics", "all counters and gauges, a map from name to number"),
    Command("peers", "connections of the data plane"),
    Command("subscribe", "endpoint and topics of the event stream"),
    Command("wait", "the members, once there are that many", (Parameter("members", "count"), _TIMEOUT), waits=True),
    Command("send", "nothing, once the node's inbox has the value", (_NODE, _VALUE, _TIMEOUT), waits=True),
    Command(
        "request",
        "what the node's handler of that name answers",
        (_NODE, Parameter("name", "text"), Parameter("value", "value", None), _TIMEOUT),
        waits=True,
    ),
    Command(
        "broadcast",
        "the event's number, once it is on its way to all",
        (Parameter("topic", "text"), Parameter("value", "value", None), _TIMEOUT),
        waits=True,
    ),
    Command(
        "services.list",
        "registered services, of one name or all",
        (Parameter("name", "text", None), Parameter("healthy", "boolean", False)),
    ),
    Command(
        "services.register",
        "nothing, once it is known here; it ends with the agent. The id is the name unless given",
        (
            *(Parameter("name", "text"), Parameter("id", "text", None), Parameter("port", "port", None)),
            *(Parameter("meta", "value", None), _TIMEOUT),
        ),
        waits=True,
    ),
    Command(
        "services.deregister",
        "nothing, once what was registered here under that id is withdrawn",
        (Parameter("id", "text"), _TIMEOUT),
        waits=True,
    ),
    Command("settings.list", "all settings, a map"),
    Command("settings.get", "the value of a setting", (Parameter("key", "text"),)),
    Command("settings.set", "nothing, once it is set here", (Parameter("key", "text"), _VALUE, _TIMEOUT), waits=True),
    Command("settings.delete", "nothing, once it is gone here", (Parameter("key", "text"), _TIMEOUT), waits=True),
    Command("cache.get", "the value of a key", (_CACHE, _CACHE_KEY, _TIMEOUT), waits=True),
    Command(
        "cache.set",
        "nothing, once all its copies have it; without a ttl it lives as the cache says",
        (_CACHE, _CACHE_KEY, _VALUE, Parameter("ttl", "ttl", None), _TIMEOUT),
        waits=True,
    ),
    Command("cache.delete", "nothing, once the key is gone", (_CACHE, _CACHE_KEY, _TIMEOUT), waits=True),
    Command(
        "cache.keys",
        "keys of a cache, up to a limit, and whether there are more",
        (_CACHE, Parameter("limit", "count", 1000), _TIMEOUT),
        waits=True,
    ),
    Command("cache.stats", "per node that holds the cache, its numbers", (_CACHE, _TIMEOUT), waits=True),
    Command("keys.list", "fingerprints of the agent's keys, the one in use first"),
    Command("keys.add", "per node, whether it has the key", (_KEY, _TIMEOUT), waits=True),
    Command("keys.use", "per node, whether it encrypts with the key", (_KEY, _TIMEOUT), waits=True),
    Command("keys.remove", "per node, whether it has forgotten the key", (_KEY, _TIMEOUT), waits=True),
    Command("update_tags", "nothing, once the tags are announced", (Parameter("tags", "tags"), _TIMEOUT), waits=True),
    Command("join", "nothing, once one address was joined", (Parameter("addresses", "texts"), _TIMEOUT), waits=True),
    Command("leave", "nothing, once the others know; the agent stays, outside the cluster", (_TIMEOUT,), waits=True),
    Command(
        "shutdown",
        "nothing; then the agent leaves (unless told not to) and closes",
        (Parameter("leave", "boolean", True), _TIMEOUT),
    ),
)

COMMANDS: Mapping[str, Command] = {command.name: command for command in _ALL}
"""Every command by its name."""


def checked(name: str, arguments: Mapping[str, Any]) -> tuple[Command, dict[str, Any]]:
    """Return the command, and its arguments with defaults filled in.

    Raises:
        ControlError: ``unknown_command`` or ``bad_arguments``; the text names the argument, never its value.
    """
    command = COMMANDS.get(name)
    if command is None:
        known = ", ".join(COMMANDS)
        raise ControlError("unknown_command", f"there is no command {name[:64]!r}", hint=f"there are {known}")
    found: dict[str, Any] = {}
    for parameter in command.parameters:
        given = arguments.get(parameter.name)
        if given is None and not parameter.required:
            found[parameter.name] = parameter.default
            continue
        if parameter.name not in arguments:
            raise ControlError("bad_arguments", f"{name}: {parameter.name} is missing")
        try:
            found[parameter.name] = _KINDS[parameter.kind](given)
        except ValueError as error:
            text = f"{name}: {parameter.name} must be {error}, not this {type(given).__name__}"
            raise ControlError("bad_arguments", text) from None
    for key in arguments:
        if key not in found:
            names = ", ".join(parameter.name for parameter in command.parameters) or "none"
            raise ControlError("bad_arguments", f"{name} has no argument {key[:64]!r}", hint=f"it takes: {names}")
    return command, found


def described() -> list[dict[str, Any]]:
    """Return the table as plain values, for programs that want to know."""
    return [
        {
            "command": command.name,
            "answers": command.about,
            "arguments": [
                {"name": one.name, "kind": one.kind, "required": True}
                if one.required
                else {"name": one.name, "kind": one.kind, "required": False, "default": one.default}
                for one in command.parameters
            ],
        }
        for command in _ALL
    ]
