"""``@cache.memoize``: functions whose results the whole cluster shares.

A result is found by the name of its function and by the arguments. The name is
``module.qualname``, or what the caller says where that is not unique, and a
digest of what the function does: its source text, its defaults and the values
it closes over. So two functions share results only if they are the same
function, in whatever process, however the one or the other came by its name.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from ._runtime.threads.deadline import Seconds
from ._wire.canonical import canonical, digest
from ._wire.value_codecs import Codecs
from .config import check_function
from .exceptions import ConfigError, ValueEncodeError, ValueTooLarge
from .types import as_builtin, printable

if TYPE_CHECKING:
    from .cache import Cache

__all__ = ["Memoized", "Memoizing"]

_P = ParamSpec("_P")
_Q = ParamSpec("_Q")
_R = TypeVar("_R")
_S = TypeVar("_S")

_OPTIONS = frozenset({"ttl", "lease", "refresh", "stale", "negative_ttl", "timeout"})
_MAINS = frozenset({"__main__", "__mp_main__"})
_NAME_MAX = 900  # bytes: with the digests it is a key
_NOTHING: Any = object()
_OWN: Any = type("_Own", (), {"__repr__": lambda self: "the cache's own"})()
_ADVICE = "give version=, and change it when the function changes"


class Memoizing:
    """The part of ``Cache`` that makes memoized functions."""

    @overload
    def memoize(self, ttl: Callable[_P, _R]) -> Memoized[_P, _R]: ...

    @overload
    def memoize(
        self, ttl: Seconds | None = ..., *, name: str | None = ..., version: object = ...,
        ignore: str | Iterable[str] = ..., key: Callable[..., Any] | None = ..., **options: Any,
    ) -> Callable[[Callable[_P, _R]], Memoized[_P, _R]]: ...  # fmt: skip

    def memoize(
        self: Any, ttl: Any = _OWN, *, name: str | None = None, version: object = None,
        ignore: str | Iterable[str] = (), key: Callable[..., Any] | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """Return a decorator: calls with equal arguments are computed once in the cluster (``get_or_compute``).

        With or without parentheses. The result has ``name``, ``key(*arguments)``, the key of a call, e.g. to delete
        it, and ``uncached``, the function itself. Arguments must be values that the data plane carries.

        Args:
            ttl: as of ``set``.
            name: of the function, where ``module.qualname`` is not its own: in a script, a notebook or a closure.
                Source text, defaults and the values that it closes over, as they are now, are added; globals are not.
            version: any value; stands for a source text that is missing, and for what cannot be sent among the rest.
            ignore: names of arguments that do not count, such as "self".
            key: called with the arguments, returns what counts of them: any value that travels.
            options: of ``get_or_compute``.

        Raises:
            ConfigError: the function cannot be told from others; the text says what to give.
        """
        own: dict[str, Any] = {"name": name, "version": version, "ignore": ignore, "key": key}
        if callable(ttl) or isinstance(ttl, classmethod):
            return Memoized(self, ttl, options, **own)
        if ttl is not _OWN:
            self._seconds(ttl)
            options["ttl"] = ttl
        return lambda function: Memoized(self, function, options, **own)


class Memoized(Generic[_P, _R]):
    """A function whose results are kept in a cache; made by ``Cache.memoize``. Called as the function is. Any thread.

    Attributes:
        name: the beginning of the keys of its results; tells it from every other function.
        uncached: the function itself.
    """

    name: str
    uncached: Callable[_P, _R]

    def __init__(
        self, cache: Cache, function: Callable[_P, _R], options: dict[str, Any], *, name: str | None = None,
        version: object = None, ignore: str | Iterable[str] = (), key: Callable[..., Any] | None = None,
    ) -> None:  # fmt: skip
        if not callable(function) or isinstance(function, staticmethod):
            hint = "put it below @classmethod and @staticmethod"
            raise ConfigError("memoize", f"{function!r:.80} is no function", hint=hint)
        check_function("memoize", function)
        if key is not None and not callable(key):
            raise ConfigError("key", f"{key!r:.80} is no function of the arguments")
        if unknown := sorted(options.keys() - _OPTIONS):
            raise ConfigError(unknown[0], "is no option of memoize", hint=f"there are {', '.join(sorted(_OPTIONS))}")
        functools.update_wrapper(self, function, updated=())
        self.__name__ = str(getattr(function, "__name__", name))
        self.__qualname__ = str(getattr(function, "__qualname__", name))
        self._cache, self._options, self._key = cache, options, key
        self.uncached = function
        self._ignored = _names(ignore)
        self._signature = None if key is not None else _signature(function)
        _check_ignored(self._ignored, self._signature)
        base = _base(function, name)
        about = _About(cache._codecs, version, self._ignored)
        self.name = f"{base}:{digest([about.function(function), about.value(key, 'key'), about.version])}"

    def __call__(self, /, *arguments: _P.args, **named: _P.kwargs) -> _R:
        compute = partial(self.uncached, *arguments, **named)
        found: _R = self._cache.get_or_compute(self.key(*arguments, **named), compute, **self._options)
        return found

    def key(self, /, *arguments: _P.args, **named: _P.kwargs) -> str:
        """Return the key of a call, e.g. to delete its result.

        Raises:
            TypeError: the function cannot be called with these arguments.
            ValueEncodeError, ValueTooLarge: an argument that counts is no value that travels.
        """
        return self._key_of(arguments, named)

    def _key_of(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
        try:
            if self._key is not None:
                return f"{self.name}:{digest(self._key(*arguments, **named), self._cache._codecs)}"
            return f"{self.name}:{digest(self._counting(arguments, named), self._cache._codecs)}"
        except ValueEncodeError as error:
            hint = "leave it out with ignore=, or let key= say what counts of the arguments"
            raise ValueEncodeError(f"{self.__qualname__}, {error}", hint=hint) from None

    def _counting(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments that count, by name, in the one form that equal calls have."""
        assert self._signature is not None
        bound = self._signature.bind(*arguments, **named)
        bound.apply_defaults()
        found = {name: value for name, value in bound.arguments.items() if name not in self._ignored}
        for name, parameter in self._signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD and name in found:
                found[name] = {key: value for key, value in found[name].items() if key not in self._ignored}
        return found

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Memoized[_P, _R]: ...

    @overload
    def __get__(
        self: Memoized[Concatenate[_S, _Q], _R], instance: _S, owner: type | None = None
    ) -> Memoized[_Q, _R]: ...

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None or not hasattr(type(self.uncached), "__get__"):
            return self
        return _Bound(self, instance)

    def __reduce__(self) -> str:  # as of a function: by name
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<memoized {printable(self.name)} in {self._cache!r}>"

    __name__: str
    __qualname__: str
    __wrapped__: Callable[_P, _R]


class _Bound(Memoized[_P, _R]):
    """A memoized method of one object."""

    def __init__(self, whole: Memoized[Any, _R], instance: Any) -> None:
        self.__dict__.update(whole.__dict__)
        self._instance = instance
        self.uncached = MethodType(whole.uncached, instance)
        self.__wrapped__ = self.uncached

    def _key_of(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
        return super()._key_of((self._instance, *arguments), named)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self

    def __reduce__(self) -> Any:
        return getattr, (self._instance, self.__name__)


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise ConfigError("key", f"{function!r:.80} does not tell its arguments", hint="give key=") from None


def _names(ignore: str | Iterable[str]) -> frozenset[str]:
    try:
        return frozenset([ignore] if isinstance(ignore, str) else ignore)
    except TypeError:
        raise ConfigError("ignore", f"{ignore!r:.80} is no name of an argument, nor several") from None


def _check_ignored(ignored: frozenset[str], signature: inspect.Signature | None) -> None:
    if ignored and signature is None:
        raise ConfigError("ignore", "says what key= says already", hint="leave one of them out")
    kinds = {} if signature is None else {name: item.kind for name, item in signature.parameters.items()}
    unknown = sorted(map(repr, ignored - kinds.keys()))
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds.values():
        raise ConfigError("ignore", f"there is no argument {unknown[0]}", hint=f"there are {', '.join(kinds)}")


def _base(function: Any, name: str | None) -> str:
    """Return the part of the name that people read."""
    name = as_builtin(name)
    if name is not None:
        if not isinstance(name, str) or not _begins_key(name):
            raise ConfigError("name", f"{name!r:.80} is no text of 1 to {_NAME_MAX} bytes that a key can begin with")
        return name
    inner = inspect.unwrap(function)
    module, qualname = getattr(inner, "__module__", None), getattr(inner, "__qualname__", None)
    if not module or not qualname or module in _MAINS or "<" in qualname or not _of(inner, module):
        what = qualname or type(function).__qualname__
        reason = "a script or notebook" if module in _MAINS else "a lambda, a closure or the like"
        text = f"{what!r:.80} is of {reason}, and other functions may be called the same"
        raise ConfigError("name", text, hint="give name=, such as memoize(name='features.area')")
    return _base(function, f"{module}.{qualname}")


def _begins_key(name: str) -> bool:
    try:
        return 0 < len(name.encode()) <= _NAME_MAX and name[0] != "\0"
    except UnicodeEncodeError:
        return False


def _of(function: Any, module: str) -> bool:
    """Return whether `function` is of the module that it names: what was ``exec``-uted may name any."""
    found = sys.modules.get(module)
    if isinstance(function, FunctionType):
        return found is not None and function.__globals__ is found.__dict__
    return _at(module, function.__qualname__) is function


def _at(module: str, qualname: str) -> Any:
    found: Any = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, _NOTHING)
    return found


def _importable(value: Any) -> bool:
    return value.__module__ not in _MAINS and _at(str(value.__module__), value.__qualname__) is value


class _About:
    """What the result of a function depends on, as a value that travels.

    Args:
        version: what the user says stands for what cannot be told: a text that is missing, an object that does not
            travel. What can be told counts beside it.
        ignored: arguments whose defaults do not count.
    """

    def __init__(self, codecs: Codecs, version: object, ignored: frozenset[str]) -> None:
        self._codecs = codecs
        self._ignored = ignored
        self._seen: list[object] = []
        self._told = version is not None
        try:
            self.version = canonical(version, codecs)
        except (ValueEncodeError, ValueTooLarge) as error:
            raise ConfigError("version", f"{version!r:.80} is no value: {error}") from None

    def function(self, function: Any) -> list[Any]:
        """Return all that counts of `function`: its text, its defaults, the values that it closes over."""
        if any(function is seen for seen in self._seen):
            return ["again"]
        self._seen.append(function)
        if isinstance(function, MethodType):
            return ["method", self.function(function.__func__), self.value(function.__self__, "self")]
        if isinstance(function, partial):
            given = [*function.args, function.keywords]
            return ["partial", self.value(function.func, "partial"), self.value(given, "partial")]
        if not isinstance(function, FunctionType):
            return ["other", str(getattr(function, "__qualname__", "")), self._untold(_no_source(function))]
        text = _text(function)
        defaults = [(name, value) for name, value in _defaults(function) if name not in self._ignored]
        return [
            "function",
            self._untold(_no_source(function)) if text is None else text,
            [self.value(value, f"default of {name}") for name, value in defaults],
            [self._cell(cell, name) for name, cell in zip(*_cells(function), strict=True)],
        ]

    def value(self, value: Any, place: str) -> list[Any]:
        """Return what counts of something that a function closes over."""
        if isinstance(value, Memoized):
            return ["memoized", value.name]
        if isinstance(value, ModuleType):
            return ["module", value.__name__]
        if isinstance(value, FunctionType | MethodType | partial):
            return self.function(value)
        if isinstance(value, type | BuiltinFunctionType) and _importable(value):
            return ["name", str(value.__module__), value.__qualname__]
        try:
            return ["value", canonical(value, self._codecs)]
        except (ValueEncodeError, ValueTooLarge) as error:
            text = f"what the function holds as {place!r} is no value that two processes could compare ({error})"
            return [self._untold(ConfigError("version", text, hint=f"make it an argument, or {_ADVICE}"))]

    def _cell(self, cell: Any, name: str) -> list[Any]:
        try:
            value = cell.cell_contents
        except ValueError:
            return ["empty"]  # most often the function itself, which is about to get its name
        return self.value(value, name)

    def _untold(self, error: ConfigError) -> str:
        if not self._told:
            raise error
        return "version"


def _no_source(function: Any) -> ConfigError:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return ConfigError("version", f"{name!r:.80} has no source text that could be read", hint=_ADVICE)


def _cells(function: FunctionType) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    return function.__code__.co_freevars, function.__closure__ or ()


def _defaults(function: FunctionType) -> list[tuple[str, Any]]:
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    return [*zip(names, defaults, strict=True), *sorted((function.__kwdefaults__ or {}).items())]


# -- the text of a function ----------------------------------------------------------------------


@lru_cache(maxsize=8)
def _functions(source: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]


def _text(function: FunctionType) -> str | None:
    """Return the source of `function` without its decorators, of a lambda nothing of what stands around it."""
    code = function.__code__
    try:
        source = "".join(inspect.findsource(function)[0])
        nodes = [node for node in _functions(source) if _matches(node, code)]
    except (OSError, TypeError, IndexError, SyntaxError, ValueError, RecursionError):
        return None
    if len(nodes) > 1:  # lambdas of one line
        nodes = [node for node in nodes if _holds(node, code)]
    return ast.get_source_segment(source, max(nodes, key=lambda node: node.col_offset)) if nodes else None


def _matches(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, code: CodeType) -> bool:
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    names = tuple(argument.arg for argument in given)
    return (
        first == code.co_firstlineno
        and getattr(node, "name", "<lambda>") == code.co_name
        and len(names) == code.co_argcount + code.co_kwonlyargcount
    )


def _holds(node: Any, code: CodeType) -> bool:
    """Return whether all instructions of `code` are of the body of the lambda `node`."""
    body = node.body
    places = [place for place in code.co_positions() if None not in place and place[2] != place[3]]
    return bool(places) and all(
        (body.lineno, body.col_offset) <= (line, column) and (end, end_column) <= (body.end_lineno, body.end_col_offset)
        for line, end, column, end_column in places
    )
