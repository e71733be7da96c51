"""Codecs of a user's own classes, by what kind of class they are: enumerations, dataclasses, paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from enum import Enum, Flag
from pathlib import PurePath
from typing import Any

from .._wire.value_codecs import Codecs
from ..exceptions import ConfigError
from .exact import exact, ready

__all__ = ["add_class"]

_Pair = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def add_class(codecs: Codecs, kind: type[Any]) -> None:
    """Register one class, under ``module.qualname``.

    Raises:
        ConfigError: it is none of those that are known here, or was registered.
    """
    if not isinstance(kind, type):
        raise ConfigError("kind", f"{kind!r:.80} is no class", hint="pass the class, not an instance")
    if kind is not PurePath and issubclass(kind, PurePath):
        kind = type(kind())  # of a Path, what it makes here
    ready(codecs)
    encode, decode = _pair(codecs, kind)
    codecs.register(kind, f"{kind.__module__}.{kind.__qualname__}", encode, decode)


def _pair(codecs: Codecs, kind: type[Any]) -> _Pair:
    if issubclass(kind, Flag):
        return (lambda member: member.value), (lambda value: kind(_of(int, value)))
    if issubclass(kind, Enum):
        return (lambda member: member.name), (lambda name: kind[_of(str, name)])
    if dataclasses.is_dataclass(kind):
        return _dataclass(codecs, kind)
    if issubclass(kind, PurePath):
        return str, (lambda text: kind(_of(str, text)))
    if kind is complex:
        return (lambda z: [z.real, z.imag]), (lambda pair: complex(*_of(list, pair)))
    if kind is timedelta:
        return (lambda time: [time.days, time.seconds, time.microseconds]), (lambda parts: timedelta(*_of(list, parts)))
    raise ConfigError(
        "kind", f"{kind.__qualname__} is no enumeration, dataclass, path, complex or timedelta",
        hint="codecs.register(kind, name, encode, decode) takes any class",
    )  # fmt: skip


def _dataclass(codecs: Codecs, kind: type[Any]) -> _Pair:
    names = [field.name for field in dataclasses.fields(kind)]
    late = [field.name for field in dataclasses.fields(kind) if not field.init]
    once = [name for name, field in kind.__dataclass_fields__.items() if name not in names and _is_init_only(field)]
    if late or once or not kind.__dataclass_params__.init:
        why = ", ".join(late + once) or "its __init__ is its own"
        text = f"{kind.__qualname__} cannot be made again from its fields: {why}"
        raise ConfigError("kind", text, hint="codecs.register(kind, name, encode, decode) with functions of your own")

    def encode(value: Any) -> dict[str, Any]:
        return {name: exact(getattr(value, name), codecs) for name in names}

    return encode, lambda sent: kind(**_of(dict, sent))


def _is_init_only(field: Any) -> bool:
    return field._field_type is dataclasses._FIELD_INITVAR  # type: ignore[attr-defined]


def _of(kind: type[Any], value: Any) -> Any:
    """Return `value`, which must be of exactly this type."""
    if type(value) is not kind:
        raise TypeError(f"{type(value).__qualname__} instead of {kind.__qualname__}")
    return value
