"""Codecs of a user's own classes, by what kind of class they are: enumerations, dataclasses, paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from enum import Enum, Flag
from functools import partial
from operator import attrgetter
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
    """Return functions that can be pickled: worker processes are given the registry."""
    if issubclass(kind, Flag):
        return attrgetter("value"), partial(_made, kind, int)
    if issubclass(kind, Enum):
        return attrgetter("name"), partial(_member, kind)
    if dataclasses.is_dataclass(kind):
        return partial(_fields, codecs, _names(kind)), partial(_of_fields, kind)
    if issubclass(kind, PurePath):
        return str, partial(_made, kind, str)
    if kind is complex:
        return _complex_parts, partial(_of_parts, kind)
    if kind is timedelta:
        return _span_parts, partial(_of_parts, kind)
    raise ConfigError(
        "kind", f"{kind.__qualname__} is no enumeration, dataclass, path, complex or timedelta",
        hint="codecs.register(kind, name, encode, decode) takes any class",
    )  # fmt: skip


def _names(kind: type[Any]) -> list[str]:
    """Return the names of a dataclass' fields.

    Raises:
        ConfigError: they do not make it again.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    late = [field.name for field in dataclasses.fields(kind) if not field.init]
    once = [name for name, field in kind.__dataclass_fields__.items() if name not in names and _is_init_only(field)]
    if late or once or not kind.__dataclass_params__.init:
        why = ", ".join(late + once) or "its __init__ is its own"
        text = f"{kind.__qualname__} cannot be made again from its fields: {why}"
        raise ConfigError("kind", text, hint="codecs.register(kind, name, encode, decode) with functions of your own")
    return names


def _fields(codecs: Codecs, names: list[str], value: Any) -> dict[str, Any]:
    return {name: exact(getattr(value, name), codecs) for name in names}


def _of_fields(kind: type[Any], sent: Any) -> Any:
    return kind(**_of(dict, sent))


def _made(kind: type[Any], of: type[Any], sent: Any) -> Any:
    return kind(_of(of, sent))


def _member(kind: type[Enum], name: Any) -> Enum:
    return kind[_of(str, name)]


def _of_parts(kind: type[Any], parts: Any) -> Any:
    return kind(*_of(list, parts))


def _complex_parts(number: complex) -> list[float]:
    return [number.real, number.imag]


def _span_parts(span: timedelta) -> list[int]:
    return [span.days, span.seconds, span.microseconds]


def _is_init_only(field: Any) -> bool:
    return field._field_type is dataclasses._FIELD_INITVAR  # type: ignore[attr-defined]


def _of(kind: type[Any], value: Any) -> Any:
    """Return `value`, which must be of exactly this type."""
    if type(value) is not kind:
        raise TypeError(f"{type(value).__qualname__!a} instead of {kind.__qualname__!a}")
    return value
