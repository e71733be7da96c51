"""Where an agent's settings come from: a file, the environment, arguments; each wins over the one before.

A setting is taken whole from one source: tags of the environment are not
added to tags of the file. The source of each is kept, since a file that
somebody else left in the working directory must not act unseen.

Keys are read from files that nobody else can read, and stand in no error.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from ..._keylike import file_name
from ..._wire.text import logger
from ...agentconfig import AgentSettings, parse_key
from ...config import Config
from ...dataconfig import DataConfig
from ...exceptions import ConfigError
from ..threads import platform
from ..threads.shortage import exhausted
from .filepaths import path_text
from .reading import READING, content
from .reading import read as read_file

__all__ = ["ENVIRONMENT", "FILE_NAME", "load", "read_key"]

log = logger("mycorrizal.settings")

FILE_NAME = "mycorrizal.toml"
"""Looked for in the working directory, unless ``MYCORRIZAL_CONFIG`` names another."""

_FILE_MAX_BYTES = 1 << 18
_KEY_FILE_MAX_BYTES = 4096
_PREFIX = "MYCORRIZAL_"
_ELSEWHERE = {  # fields of Config that are settings of the agent itself
    "name": "name", "bind_addr": "bind", "bind_port": "port", "advertise_addr": "advertise",
    "advertise_port": "advertise", "wire": "wire", "label": "label", "secret_key": "key", "keys": "key",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Given:
    """One setting out of one source; ``where`` says which, for people."""

    value: Any
    where: str


@dataclass(frozen=True, slots=True)
class _KeyFile:
    """A key that is read only if no other source wins; ``given`` is the path as it was written."""

    path: str
    given: str


_Layer = dict[str, _Given]


def load(arguments: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> AgentSettings:
    """Return the settings of an agent. Reads files; any thread.

    Args:
        arguments: what the caller gave, by the names of ``AgentSettings``; None counts as not given. Besides:
            ``key_file``, and ``config_file``: a path instead of the usual ones, or False for no file at all.
        environ: instead of ``os.environ``.

    Raises:
        ConfigError: a value, a name or a file is wrong; the text says where it stands.
    """
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in arguments.items() if value is not None}
    layers = [
        _from_file(given.pop("config_file", None), environ),
        _from_environment(environ),
        _from_arguments(given),
    ]
    merged: _Layer = {}
    for layer in layers:
        merged |= layer
    if "config" in merged:
        merged.pop("config_fields", None)
    values = {name: _final(name, found) for name, found in merged.items()}
    sources = MappingProxyType({name: found.where for name, found in merged.items()})
    for name, where in sources.items():
        log.debug("%s is set by %s", name, where)
    try:
        return AgentSettings(**values, sources=sources)
    except ConfigError as exc:  # a key that this wire does not take
        raise _located(exc, sources[exc.field]) if exc.field in sources else exc from None


def _final(name: str, found: _Given) -> Any:
    """Return a value as ``AgentSettings`` wants it, checked, so that an error names its source."""
    try:
        value = found.value
        if name == "key":  # whether it is a good one depends on the wire
            return read_key(value.path, value.given) if isinstance(value, _KeyFile) else parse_key(value)
        elif name == "join":
            value = _seeds(value)
        elif name == "settings_file":
            value = path_text(name, value)
        elif name == "certificates":
            value = _paths(name, value)
        elif name == "tags" and isinstance(value, Mapping):
            value = MappingProxyType(dict(value))
        build: Callable[..., AgentSettings] = AgentSettings
        build(**{name: value})
    except ConfigError as exc:
        raise _located(exc, found.where) from None
    return value


def _located(error: ConfigError, where: str) -> ConfigError:
    """Return `error` with its source in the text."""
    text = str(error).removeprefix(f"{error.field}: ").removesuffix(f" ({error.hint})")
    return ConfigError(error.field, f"{text}, in {where}", hint=error.hint)


# -- arguments --------------------------------------------------------------------------------


def _from_arguments(given: Mapping[str, Any]) -> _Layer:
    known = {field.name for field in fields(AgentSettings)} - {"sources"}
    layer: _Layer = {}
    for name, value in given.items():
        if name not in known | {"key_file"}:
            raise ConfigError(name, "no such setting of an agent", hint=_similar(name, known))
        _put(layer, name, value, f"argument {name}")
    return layer


def _seeds(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable):
        raise ConfigError("join", f"must be a list of texts, not {type(value).__name__}", hint="e.g. ['10.0.0.5']")
    return tuple(value)


def _paths(setting: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigError(setting, f"must be a list of paths, not {type(value).__name__}")
    return tuple(os.path.expanduser(path_text(setting, path)) for path in value)


def _put(layer: _Layer, name: str, value: Any, where: str, folder: str = "") -> None:
    """Add a setting; ``key`` and ``key_file`` are one, and the file's name is meant from `folder`."""
    if name == "key_file":
        try:
            given = path_text(name, value)
        except ConfigError as exc:
            raise _located(exc, where) from None
        name, value = "key", _KeyFile(os.path.join(folder, os.path.expanduser(given)), given)
    if name in layer:
        raise ConfigError("key", f"given twice: {layer[name].where} and {where}", hint="leave one of them out")
    layer[name] = _Given(value, where)


# -- the environment ------------------------------------------------------------------------------


def _yes_or_no(text: str) -> bool:
    found = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in found:
        raise ValueError("is neither 1, true, yes, on nor 0, false, no, off")
    return found[text.lower()]


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError("is no whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("is no number of seconds") from None


def _list(text: str) -> tuple[str, ...]:
    return tuple(part for item in text.split(",") if (part := item.strip()))


def _tags(text: str) -> Mapping[str, str]:
    pairs = [item.partition("=") for item in _list(text)]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("is not of the form name=value,name=value")
    return MappingProxyType({name.strip(): value.strip() for name, _, value in pairs})


ENVIRONMENT: Mapping[str, Callable[[str], Any]] = MappingProxyType({
    "name": str, "cluster": str, "join": _list, "key": str, "key_file": str, "bind": str, "port": _whole,
    "quic_port": _whole, "advertise": str, "tags": _tags, "wire": str, "label": str, "insecure": _yes_or_no,
    "discover": _yes_or_no, "control": _yes_or_no, "metrics_port": _whole, "seed_port": _whole,
    "join_timeout": _seconds, "join_retry": _seconds, "expect": _whole, "settings_file": str, "certificates": _list,
})  # fmt: skip
"""What is read from ``MYCORRIZAL_`` and the name in capitals, and how. An empty variable counts as not set."""


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    layer: _Layer = {}
    for name, read in ENVIRONMENT.items():
        variable = _PREFIX + name.upper()
        text = environ.get(variable, "").strip()
        if not text:
            continue
        try:
            value = read(text)
        except ValueError as exc:
            raise ConfigError(name, f"{text!r} {exc}, in the environment variable {variable}") from None
        _put(layer, name, value, f"the environment variable {variable}")
    _warn_of_misspelled(environ)
    return layer


def _warn_of_misspelled(environ: Mapping[str, str]) -> None:
    """Others may name variables after us, so an unknown one is no error."""
    known = [_PREFIX + name.upper() for name in (*ENVIRONMENT, "agent", "config", "packet_path", "runtime_dir")]
    for variable in environ:
        if variable.startswith(_PREFIX) and variable not in known:
            close = _alike(variable, known, 0.85)
            if close:
                log.warning("the environment variable %s means nothing; is it %s?", variable, close[0])


# -- the file -------------------------------------------------------------------------------------


def _from_file(chosen: Any, environ: Mapping[str, str]) -> _Layer:
    found = _find_file(chosen, environ)
    if found is None:
        return {}
    import tomllib  # late: few have a file

    path, data, private = found
    table, error = None, ""
    try:
        table = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        error = "no UTF-8"
    except (ValueError, RecursionError) as exc:
        error = str(exc) or "nested too deeply"
    if table is None:  # outside of the handlers: what they caught holds the text, with a key in it maybe
        raise ConfigError("config_file", f"{path} is not TOML: {error}")
    log.debug("settings are read from %s", path)
    _only(table, {"agent"}, path, "at the top")
    agent = table.get("agent", {})
    if not isinstance(agent, dict):
        raise ConfigError("agent", f"must be a table, in {path}", hint="write [agent] and the settings below it")
    if "key" in agent and private is not None:
        raise ConfigError("key", f"{path} holds a key and {private}", hint=f"chmod 600 {shlex.quote(path)}")
    return _settings_of(agent, path)


def _find_file(chosen: Any, environ: Mapping[str, str]) -> tuple[str, bytes, str | None] | None:
    """Return the settings file's path and content, and why it is not private if it is not; None without a file."""
    if chosen is False:
        return None
    named = environ.get(_PREFIX + "CONFIG", "") if chosen is None else path_text("config_file", chosen, " or False")
    if not named:
        return _find_here()
    if named == os.devnull:
        return None
    path = os.path.abspath(os.path.expanduser(named))
    return path, *read_file(path, named, _FILE_MAX_BYTES, "config_file")


def _find_here() -> tuple[str, bytes, str | None] | None:
    """As ``_find_file``, in the working directory, where others may be able to put files.

    What is judged is what was opened. A link is left alone: it could lead to any file of this user's.
    """
    error, descriptor = None, None
    try:
        path = os.path.abspath(FILE_NAME)
        try:
            descriptor = os.open(path, READING | platform.NOFOLLOW)
            found = os.fstat(descriptor)
        except OSError as exc:
            error, found = exc, os.lstat(path)
    except OSError:
        return None  # there is none, or the working directory is gone
    why = _not_ours(found)
    if why is not None:
        log.warning("%s is left alone, since %s; name it in MYCORRIZAL_CONFIG to have it read", path, why)
        if descriptor is not None:
            os.close(descriptor)
        return None
    if descriptor is None:
        assert error is not None
        short = exhausted(error, f"cannot read {path}")
        raise short or ConfigError("config_file", f"cannot read {path}: {error.strerror}") from error
    return path, *content(descriptor, path, _FILE_MAX_BYTES, "config_file")


def _not_ours(found: os.stat_result) -> str | None:
    """Return why a file that nobody has named is not to be trusted, None if it is."""
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link"
    if found.st_uid != 0 and not platform.ours(found):
        return f"it belongs to user {found.st_uid}"
    return "anybody can write it" if platform.open_to_others(found, stat.S_IWOTH) else None


def _settings_of(agent: dict[str, Any], path: str) -> _Layer:
    where = f"{path}, table [agent]"
    _only(agent, {*ENVIRONMENT, "config", "data"}, path, "in [agent]")
    layer: _Layer = {}
    for name, value in agent.items():
        if name == "config":
            values = _fields_of(value, Config, {f.name for f in fields(Config)}, f"{path}, table [agent.config]")
            layer["config_fields"] = _Given(MappingProxyType(values), f"{path}, table [agent.config]")
        elif name == "data":
            place = f"{path}, table [agent.data]"
            values = _fields_of(value, DataConfig, {f.name for f in fields(DataConfig)}, place)
            layer["data_config"] = _Given(DataConfig(**values), place)
        elif name == "settings_file" and isinstance(value, str):
            _put(layer, name, os.path.join(os.path.dirname(path), os.path.expanduser(value)), where)
        elif name == "certificates" and isinstance(value, list):
            folder = os.path.dirname(path)
            beside = [os.path.join(folder, os.path.expanduser(item)) for item in value if isinstance(item, str)]
            _put(layer, name, beside if len(beside) == len(value) else value, where)
        else:
            _put(layer, name, value, where, os.path.dirname(path))
    return layer


def _fields_of(table: Any, kind: Callable[..., Any], known: set[str], where: str) -> dict[str, Any]:
    """Return the fields of a ``Config`` or ``DataConfig`` that `table` sets, each of them checked."""
    if not isinstance(table, dict):
        raise ConfigError(where.rpartition(".")[2].rstrip("]"), f"must be a table, in {where}")
    values = {}
    for name, value in table.items():
        if kind is Config and name in _ELSEWHERE:
            raise ConfigError(name, f"is not set in {where}", hint=f"write {_ELSEWHERE[name]} in [agent]")
        if name not in known or name == "disable_tcp_pings_for_node":
            raise ConfigError(name, f"no such setting, in {where}", hint=_similar(name, known))
        values[name] = tuple(value) if isinstance(value, list) else value
        try:
            kind(**{name: values[name]})
        except ConfigError as exc:
            raise _located(exc, where) from None
    return values


def _only(table: Mapping[str, Any], known: set[str], path: str, place: str) -> None:
    for name in table:
        if name not in known:
            raise ConfigError(name, f"no such setting, {place} of {path}", hint=_similar(name, known))


def _alike(name: str, known: list[str], how: float = 0.6) -> list[str]:
    from difflib import get_close_matches  # late, as what nobody needs whose settings are right

    return get_close_matches(name, known, 1, how)


def _similar(name: str, known: Iterable[str]) -> str:
    close = _alike(name, sorted(known))
    return f"is it {close[0]}?" if close else "docs/agent-settings.md lists them"


# -- reading ----------------------------------------------------------------------------------------


def read_key(path: str, given: str | None = None) -> bytes:
    """Return the content of a key file: base64 as it is printed, or the bytes themselves.

    Whether an editor has put a newline at the end must not make it another key, so base64 is tried first.

    Args:
        given: the path as it was written, if a directory was put before it.
    """
    given = path if given is None else given
    data, private = read_file(path, given, _KEY_FILE_MAX_BYTES, "key_file")
    if private is not None:
        hint = f"chmod 600 {shlex.quote(path)}"
        raise ConfigError("key_file", f"{file_name(path, given)} holds a key and {private}", hint=hint)
    try:
        return parse_key(data.decode("ascii"))
    except (UnicodeDecodeError, ConfigError):
        return parse_key(data)
