"""The commands of the control plane, each declared once: a function says its name, its arguments and what it does.

Its parameters after the first are the command's arguments: their names, their
kinds, their defaults. So one table makes the check of what arrives, the answer,
what the ``commands`` command tells other programs, the command line
(``cli.made``) and the table of docs/control.md, which a test compares.

Each function takes what it is carried out on (`on`) and waits as long as the
agent's own method does.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..exceptions import ControlError
from .arguments import (
    KINDS,
    TIMEOUT_MAX,
    Boolean,
    CacheKey,
    Count,
    Key,
    Parameter,
    Port,
    Seconds,
    Size,
    Tags,
    Text,
    Texts,
    Ttl,
    Value,
    parameters_of,
)
from .controlled import Served
from .messages import PROTOCOL
from .plain import plain

__all__ = ["COMMANDS", "TIMEOUT_MAX", "Command", "Line", "Parameter", "checked", "described", "fingerprint"]

REGISTRATIONS_MAX = 256
"""Services that may be registered through one control plane at a time."""


class Line(NamedTuple):
    """A command on the command line.

    Attributes:
        usage: its words, and in capitals the arguments that need no option: ``cache get CACHE KEY``.
        about: its help.
        show: how its result is printed, a name that ``cli.made`` knows.
        columns: of a table.
        empty: the sentence where there is nothing to print.
        options: the help of each option, by the argument's name.
        shared: whether all agents of a cluster answer alike, so that any of them may be asked.
    """

    usage: str
    about: str
    show: str = "nothing"
    columns: tuple[str, ...] = ()
    empty: str = ""
    options: Mapping[str, str] = {}
    shared: bool = False


class Command(NamedTuple):
    """What may be asked.

    Attributes:
        result: what it answers, as docs/control.md says it.
        run: carries it out; takes a ``Served`` and the arguments.
        waits: whether it waits for other nodes, so that its thread's place is lent meanwhile.
        line: how it is typed; None for one that is for programs, or that another one of the command line is made of.
    """

    name: str
    result: str
    parameters: tuple[Parameter, ...]
    run: Callable[..., Any]
    waits: bool
    line: Line | None

    @property
    def timeout(self) -> Parameter | None:
        """The parameter of that name, if it has one."""
        return next((one for one in self.parameters if one.name == "timeout"), None)


COMMANDS: dict[str, Command] = {}
"""Every command by its name."""

_Run = Callable[..., Any]


def _command(name: str, result: str, line: Line | None = None, *, waits: bool | None = None) -> Callable[[_Run], _Run]:
    """Enter a function in the table; it `waits` if it has a timeout."""

    def enter(run: _Run) -> _Run:
        parameters = parameters_of(run)
        lends = any(one.name == "timeout" for one in parameters) if waits is None else waits
        COMMANDS[name] = Command(name, result, parameters, run, lends, line)
        return run

    return enter


# -- the agent ------------------------------------------------------------------------------


@_command("ping", "`{name, cluster, version, protocol}`")
def _ping(on: Served) -> dict[str, Any]:
    version = on.facts.get("version")
    return {"name": on.agent.name, "cluster": on.agent.cluster, "version": version, "protocol": PROTOCOL}


@_command("commands", "this table: `[{command, answers, arguments: [{name, kind, required, default}]}]`")
def _commands(on: Served) -> list[dict[str, Any]]:
    return described()


@_command(
    "info",
    "`{name, cluster, boot, host, port, quic_port, version, pid, commands, events}`",
    Line("info", "Tell who the agent is: name, cluster, addresses, process.", "pairs"),
)
def _info(on: Served) -> dict[str, Any]:
    agent = on.agent
    host, port = agent.address
    who = {"name": agent.name, "cluster": agent.cluster, "boot": agent.boot.hex()}
    return {**who, "host": host, "port": port, "quic_port": agent.quic_port, **on.facts}


@_command(
    "members",
    "`[{name, host, port, quic_port, state, tags, boot, since}]`; with `all` those that left or failed within a day "
    "too, and `since` when, in seconds since 1970",
)
def _members(on: Served, all: Boolean = False) -> Any:  # noqa: A002
    return plain(list(on.agent.members(all=all)))


@_command(
    "health",
    "`{score, members, problems, ...}`; a score of 0 and no problems are well",
    Line("health", "Tell how well the agent is doing; exit code 1 if something is not well.", "health"),
)
def _health(on: Served) -> Any:
    return plain(on.agent.health())


@_command("metrics", "`{name: number}`", Line("metrics", "List all counters and gauges of the agent.", "sorted"))
def _metrics(on: Served) -> dict[str, int]:
    return dict(on.agent.metrics())


@_command(
    "peers",
    "`[{name, address, state, carrier, rtt, mtu, ...}]`",
    Line(
        *("peers", "List the connections of the agent's data plane.", "table"),
        columns=("name", "state", "carrier", "rtt", "mtu", "connections", "calls", "serving", "messages"),
        empty="no connections",
    ),
)
def _peers(on: Served) -> Any:
    return plain(list(on.agent.peers()))


@_command("subscribe", "`{endpoint, topics, publisher, sequence, protocol}`")
def _subscribe(on: Served) -> dict[str, Any]:
    where = {"endpoint": on.facts.get("events"), "topics": ["event."], "publisher": on.agent.boot.hex()}
    return {**where, "sequence": on.sequence(), "protocol": PROTOCOL}


@_command("wait", "as `members`, once there are that many")
def _wait(on: Served, members: Count, timeout: Seconds = 10.0) -> Any:
    return plain(list(on.agent.wait_for(members, timeout=timeout)))


# -- messages -------------------------------------------------------------------------------


@_command(
    "send",
    "null, once the node's inbox has it",
    Line("send NODE VALUE", "Send VALUE to the inbox of NODE; done when it is there."),
)
def _send(on: Served, node: Text, value: Value, timeout: Seconds = 10.0) -> Any:
    return on.agent.send(node, value, timeout=timeout)


@_command(
    "request",
    "what the handler answers",
    Line(
        "request NODE NAME [VALUE]",
        "Ask the handler NAME of NODE, and print what it answers: text as it is, anything else as JSON.",
        "value",
        shared=True,
    ),
)
def _request(on: Served, node: Text, name: Text, value: Value = None, timeout: Seconds = 10.0) -> Any:
    return on.agent.request(node, name, value, timeout=timeout)


@_command(
    "broadcast",
    "the number of the event",
    Line("broadcast TOPIC [VALUE]", "Tell all agents an event of TOPIC; `mycorrizal events` shows it."),
)
def _broadcast(on: Served, topic: Text, value: Value = None, timeout: Seconds = 10.0) -> Any:
    return on.agent.broadcast(topic, value, timeout=timeout)


# -- services -------------------------------------------------------------------------------


@_command(
    "services.list",
    "`[{name, node, host, port, meta, healthy, id}]`",
    Line(
        *("services list [NAME]", "List the services called NAME, or all.", "table"),
        columns=("name", "node", "host", "port", "healthy", "meta", "id"),
        empty="no services",
        options={"healthy": "Only those whose check passes."},
        shared=True,
    ),
)
def _services(on: Served, name: Text | None = None, healthy: Boolean = False) -> Any:
    return plain(list(on.agent.services.find(name, healthy=True if healthy else None)))


@_command(
    "services.register",
    "null; the id is the name if not given",
    Line(
        "services register NAME",
        "Register a service at the agent. It goes when the agent does.",
        options={
            "id": "Unique at the agent; NAME if not given.",
            "port": "Where it listens.",
            "meta": "Whatever else there is to know.",
        },
    ),
)
def _register(
    on: Served,
    name: Text,
    id: Text | None = None,  # noqa: A002
    port: Port | None = None,
    meta: Value = None,
    timeout: Seconds = 10.0,
) -> None:
    number = name if id is None else id
    if number not in on.registrations:
        if len(on.registrations) >= REGISTRATIONS_MAX:
            text = f"{REGISTRATIONS_MAX} services are registered through this control plane"
            raise ControlError("busy", text, hint="deregister some")
        taken = on.agent.services.find(healthy=None)
        if any(one.node == on.agent.name and one.id == number for one in taken):
            text = f"the agent's own program has a service with the id {number!r}"
            raise ControlError("bad_arguments", text, hint="choose another id")
    more = {"port": port, "meta": meta, "service_id": number, "timeout": timeout}
    on.registrations[number] = on.agent.services.register(name, **more)


@_command(
    "services.deregister",
    "null",
    Line("services deregister ID", "Withdraw what was registered at the agent with this command line."),
)
def _deregister(on: Served, id: Text, timeout: Seconds = 10.0) -> None:  # noqa: A002
    made = on.registrations.get(id)
    if made is None:
        hint = "what a program registered, that program withdraws"
        raise ControlError("not_found", f"no service {id!r} was registered through this agent", hint=hint)
    made.deregister(timeout=timeout)
    on.registrations.pop(id, None)


# -- settings -------------------------------------------------------------------------------


@_command(
    "settings.list",
    "`{key: value}`; `{error, text}` for a value that the agent cannot read",
    Line("settings list", "List all settings.", "sorted", empty="no settings", shared=True),
)
def _settings(on: Served) -> Any:
    return {**on.agent.settings, **plain(on.agent.settings.errors)}


@_command(
    "settings.get",
    "the value",
    Line(
        *("settings get KEY", "Print the value of a setting: text as it is, anything else as JSON.", "value"),
        shared=True,
    ),
)
def _setting(on: Served, key: Text) -> Any:
    try:
        return on.agent.settings[key]
    except KeyError:
        raise _no_setting(key) from None


@_command("settings.set", "null", Line("settings set KEY VALUE", "Set a setting for the whole cluster.", shared=True))
def _set_setting(on: Served, key: Text, value: Value, timeout: Seconds = 10.0) -> Any:
    return on.agent.settings.set(key, value, timeout=timeout)


@_command(
    "settings.delete", "null", Line("settings delete KEY", "Delete a setting for the whole cluster.", shared=True)
)
def _delete_setting(on: Served, key: Text, timeout: Seconds = 10.0) -> None:
    if key not in on.agent.settings:
        raise _no_setting(key)
    on.agent.settings.delete(key, timeout=timeout)


def _no_setting(key: str) -> ControlError:
    return ControlError("not_found", f"there is no setting {key!r}", hint="settings.list tells which there are")


# -- caches: one that the agent has open, or opens as others in sight have it ----------------

_DEFINED = "`{name, ttl, max_entries, max_bytes, replicas, near, read_backups, sync_backups, quorum}`"


@_command(
    "cache.list",
    f"a list of {_DEFINED}, the caches that agents in sight have open",
    Line(
        *("cache list", "List the caches that agents have open, and how they are defined.", "table"),
        columns=("name", "replicas", "ttl", "max_entries", "max_bytes", "near", "quorum"),
        empty="no caches",
        shared=True,
    ),
)
def _caches(on: Served) -> list[dict[str, Any]]:
    return [_defined(one) for _, one in sorted(on.agent.caches().items())]


@_command(
    "cache.create",
    f"{_DEFINED}; the agent opens the cache, and holds a part of it as long as it runs",
    Line(
        *("cache create CACHE", "Open CACHE at the agent, which holds a part of it from then on.", "pairs"),
        options={
            "ttl": "How long an entry lives; 0 is for ever.",
            "max_entries": "Of what each agent holds.",
            "max_bytes": "Of what each agent holds.",
            "replicas": "Copies of each entry.",
            "quorum": "Agents that must hold it for it to be used.",
            "near": "Keep copies of what was read from other agents.",
            "redefine": "Change how it runs already.",
        },
    ),
)
def _cache_create(
    on: Served,
    cache: Text,
    ttl: Ttl | None = None,
    max_entries: Size | None = None,
    max_bytes: Size | None = None,
    replicas: Count = 2,
    quorum: Count | None = None,
    near: Boolean = False,
    redefine: Boolean = False,
    timeout: Seconds = 10.0,
) -> dict[str, Any]:
    bounds: dict[str, Any] = {"ttl": ttl or None, "max_entries": max_entries, "max_bytes": max_bytes}
    asked = {**bounds, "replicas": replicas, "near": near, "quorum": quorum or 0}
    found = _defined(on.agent.cache(cache, **asked, redefine=redefine, timeout=timeout).definition)
    other = {name: found[name] for name in asked if found[name] != asked[name]}
    if other:
        runs = ", ".join(f"{name}={value!r}" for name, value in other.items())
        raise ControlError("conflict", f"the cache {cache!r} runs with {runs}", hint="redefine changes that")
    return found


def _defined(definition: Any) -> dict[str, Any]:
    names = ("name", "ttl", "max_entries", "max_bytes", "replicas", "near", "read_backups", "sync_backups", "quorum")
    return {name: getattr(definition, name) for name in names}


@_command(
    "cache.get",
    "the value; the agent opens the cache if another one has told how it is defined",
    Line(
        "cache get CACHE KEY",
        "Print the value of KEY: text as it is, anything else as JSON. Exit code 1 if it is not there.",
        "value",
        shared=True,
    ),
)
def _cache_get(on: Served, cache: Text, key: CacheKey, timeout: Seconds = 10.0) -> Any:
    missing = object()
    value = on.agent.open_cache(cache, timeout).get(key, missing, timeout=timeout)
    if value is missing:
        raise _no_key(cache, key)
    return value


@_command(
    "cache.set",
    "null; `ttl` in seconds, 0 for ever, without one as the cache says",
    Line(
        "cache set CACHE KEY VALUE",
        "Write KEY; done when all its copies have it.",
        options={"ttl": "How long it lives; 0 is for ever."},
        shared=True,
    ),
)
def _cache_set(
    on: Served, cache: Text, key: CacheKey, value: Value, ttl: Ttl | None = None, timeout: Seconds = 10.0
) -> None:
    more: dict[str, Any] = {} if ttl is None else {"ttl": ttl or None}
    on.agent.open_cache(cache, timeout).set(key, value, timeout=timeout, **more)


@_command(
    "cache.ttl",
    "the seconds that the key has left, null if it lives for ever",
    Line(
        *("cache ttl CACHE KEY", "Print the seconds that KEY has left, null for ever; exit code 1 if it is not there."),
        show="value",
        shared=True,
    ),
)
def _cache_ttl(on: Served, cache: Text, key: CacheKey, timeout: Seconds = 10.0) -> Any:
    try:
        return on.agent.open_cache(cache, timeout).ttl(key, timeout=timeout)
    except KeyError:
        raise _no_key(cache, key) from None


@_command(
    "cache.delete",
    "null",
    Line("cache delete CACHE KEY", "Delete KEY. Exit code 1 if it is not there.", shared=True),
)
def _cache_delete(on: Served, cache: Text, key: CacheKey, timeout: Seconds = 10.0) -> None:
    if not on.agent.open_cache(cache, timeout).delete(key, timeout=timeout):
        raise _no_key(cache, key)


@_command(
    "cache.keys",
    "`{keys, more}`",
    Line(
        *("cache keys CACHE", "List the keys of CACHE.", "keys"),
        empty="no keys",
        options={"limit": "No more than that."},
        shared=True,
    ),
)
def _cache_keys(on: Served, cache: Text, limit: Count = 1000, timeout: Seconds = 10.0) -> dict[str, Any]:
    found = list(itertools.islice(on.agent.open_cache(cache, timeout).keys(timeout=timeout), limit + 1))
    return {"keys": sorted(found[:limit]), "more": len(found) > limit}


@_command(
    "cache.stats",
    "`{node: {name: number}}`, null for a node that did not answer",
    Line(
        *("cache stats CACHE", "Tell what every agent holds of CACHE, and what it was asked as primary.", "nodes"),
        columns=("node", "entries", "bytes", "primary_entries", "served_gets", "served_hits", "served_writes",
                 "evicted", "expired"),
        empty="nobody holds it",
        shared=True,
    ),
)
def _cache_stats(on: Served, cache: Text, timeout: Seconds = 10.0) -> Any:
    return on.agent.open_cache(cache, timeout).stats(timeout=timeout)


def _no_key(cache: str, key: str) -> ControlError:
    return ControlError("not_found", f"the cache {cache!r} has no key {key[:64]!r}")


# -- keys of the cluster --------------------------------------------------------------------

_BY_NODE = "`{node: true or {error, text}}`"


@_command(
    "keys.list",
    "`[fingerprint]`, the key in use first",
    Line("keys list", "List fingerprints of the agent's keys, the one in use first.", "lines", empty="no keys"),
)
def _keys(on: Served) -> list[str]:
    return [fingerprint(key) for key in on.agent.keys.list()]


@_command(
    "keys.add",
    _BY_NODE,
    Line("keys add", "Install a key on every node; nobody encrypts with it yet.", "done", shared=True),
)
def _add_key(on: Served, key: Key, timeout: Seconds = 10.0) -> Any:
    return _by_node(on.agent.keys.add(key, timeout=timeout))


@_command(
    "keys.use",
    _BY_NODE,
    Line("keys use", "Have every node encrypt with a key that all have.", "done", shared=True),
)
def _use_key(on: Served, key: Key, timeout: Seconds = 10.0) -> Any:
    return _by_node(on.agent.keys.use(key, timeout=timeout))


@_command(
    "keys.remove",
    _BY_NODE,
    Line("keys remove", "Have every node forget a key that nobody encrypts with.", "done", shared=True),
)
def _remove_key(on: Served, key: Key, timeout: Seconds = 10.0) -> Any:
    return _by_node(on.agent.keys.remove(key, timeout=timeout))


def fingerprint(key: bytes) -> str:
    """Return what a key is known by where the key itself must not be seen."""
    return hashlib.sha256(b"mycorrizal key " + key).hexdigest()[:16]


def _by_node(results: Any) -> Any:
    """Return the outcomes of all nodes, also those that failed, by name."""
    return plain({**results, **results.errors})


# -- the agent's place in the cluster, and its end --------------------------------------------


@_command("update_tags", "null", Line("tags TAGS", "Have the agent announce these tags, and no others."))
def _update_tags(on: Served, tags: Tags, timeout: Seconds = 10.0) -> None:
    on.agent.update_tags(tags, timeout=timeout)


@_command("join", "null", Line("join ADDRESSES", "Have the agent join a cluster through one of ADDRESSES."))
def _join(on: Served, addresses: Texts, timeout: Seconds = 10.0) -> Any:
    return on.agent.join(addresses, timeout=timeout)


@_command(
    "leave",
    "null; the agent stays, outside the cluster",
    Line("leave", "Have the agent leave the cluster; its process goes on."),
)
def _leave(on: Served, timeout: Seconds = 10.0) -> Any:
    return on.agent.leave(timeout=timeout)


@_command(
    "shutdown",
    "null, then the agent ends",
    Line("shutdown", "End the agent.", options={"leave": "Say goodbye to the others first."}),
    waits=False,
)
def _shutdown(on: Served, leave: Boolean = True, timeout: Seconds = 10.0) -> None:
    """Nothing yet: the reply goes out first (``Desk.shutdown``)."""


# -- what is made from the table --------------------------------------------------------------


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
            found[parameter.name] = KINDS[parameter.kind].check(given)
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
            "answers": command.result,
            "arguments": [
                {"name": one.name, "kind": one.kind, "required": True}
                if one.required
                else {"name": one.name, "kind": one.kind, "required": False, "default": one.default}
                for one in command.parameters
            ],
        }
        for command in COMMANDS.values()
    ]
