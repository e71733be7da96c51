"""How a module says which of its functions are handlers, for ``mycorrizal worker package.module``.

::

    # scores.py
    import mycorrizal

    @mycorrizal.handler("score", processes=4)
    def score(request):
        return sum(request.value)

The function stays what it is. ``Agent(handlers=handlers_of(module))`` is what
the command does; any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from ._wire.value_codecs import Codecs
from .config import check_function
from .exceptions import ConfigError

if TYPE_CHECKING:
    from ._runtime.data.core import Handler

__all__ = ["codecs_of", "handler", "handlers_of", "processes_of"]

_H = TypeVar("_H", bound="Handler")

_MARK = "__mycorrizal_handler__"


def handler(name: str, *, processes: int | None = None) -> Callable[[_H], _H]:
    """Mark a module's function as the handler `name`: ``@mycorrizal.handler("score")``. Registers nothing. Any thread.

    Args:
        processes: run it in so many processes instead of the worker's threads, as ``Agent.on_request`` does.

    Raises:
        ConfigError: what is marked is no function, or `name` no text.
    """
    if not isinstance(name, str):
        hint = "a decorator takes it in parentheses, above the function: @mycorrizal.handler('score')"
        raise ConfigError("name", f"must be text, not {type(name).__name__}", hint=hint)

    def mark(function: _H) -> _H:
        check_function("handler", function)
        try:
            setattr(function, _MARK, (name, processes))
        except AttributeError:
            raise ConfigError("handler", f"{function!r:.80} cannot be marked", hint="mark a plain function") from None
        return function

    return mark


def handlers_of(module: ModuleType) -> dict[str, Handler]:
    """Return the marked functions of `module`, those that it imports too, by the names of their handlers. Any thread.

    Raises:
        ConfigError: two of them have one name.
    """
    found: dict[str, Handler] = {}
    for value in vars(module).values():
        name, _ = _mark(value)
        if name and found.setdefault(name, value) is not value:
            raise ConfigError("handler", f"{module.__name__} has two handlers {name!r}", hint="name one otherwise")
    return found


def codecs_of(module: ModuleType) -> Codecs:
    """Return the ``CODECS`` of `module`, for values of types that CBOR does not have; empty ones if it has none."""
    found = getattr(module, "CODECS", None)
    return found if isinstance(found, Codecs) else Codecs()


def processes_of(function: object) -> int | None:
    """Return in how many processes a marked function is to run; None if not in processes, or not marked."""
    return _mark(function)[1]


def _mark(value: object) -> tuple[str, int | None]:
    found: Any = vars(value).get(_MARK) if hasattr(value, "__dict__") and not isinstance(value, type) else None
    return found if isinstance(found, tuple) else ("", None)
