"""Memoized functions: one name for one function, one key for equal calls, whatever process asks."""

from __future__ import annotations

import copy
import functools
import linecache
import math
import operator
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mycorrizal._wire.values import DEFAULT
from mycorrizal.exceptions import ConfigError, ValueEncodeError
from mycorrizal.memo import Memoized, Memoizing


class Table(Memoizing):
    """A cache of one process, as far as memoized functions go."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}
        self.options: list[dict[str, Any]] = []
        self._codecs = DEFAULT

    def _seconds(self, ttl: Any) -> None:
        if ttl is not None and ttl <= 0:
            raise ConfigError("ttl", "is none")

    def get_or_compute(self, key: str, compute: Callable[[], Any], **options: Any) -> Any:
        self.options.append(options)
        if key not in self.held:
            self.held[key] = compute()
        return self.held[key]


TABLE = Table()


@TABLE.memoize
def area(width: int, height: int = 1, *more: int, unit: str = "m", **tags: Any) -> Any:
    """Its own text."""
    return width, height, more, unit, tags


class Thing:
    def __call__(self, x: int) -> int:
        return x


class Room:
    def __init__(self, width: int) -> None:
        self.width = width
        self.calls = 0

    @TABLE.memoize(ignore="self")
    def same(self, height: int) -> int:
        return height

    @TABLE.memoize(key=lambda self, height: (self.width, height))
    def area(self, height: int) -> int:
        self.calls += 1
        return self.width * height

    @TABLE.memoize
    def refused(self) -> int:
        return 1

    @staticmethod
    @TABLE.memoize
    def fixed(width: int) -> int:
        return width

    @classmethod
    @TABLE.memoize(ignore="cls")
    def made(cls, width: int) -> int:
        return width


# -- the name of a function ---------------------------------------------------------------------------------------


def factory(factor: Any, **given: Any) -> Any:
    @TABLE.memoize(name="scaled", **given)
    def scaled(x: int) -> Any:
        return x * factor

    return scaled


def ran(text: str, name: str = "__main__", file: str = "<cell>") -> dict[str, Any]:
    """Return the names of a script or cell, as IPython runs one."""
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    names: dict[str, Any] = {"__name__": name, "cache": TABLE}
    exec(compile(text, file, "exec"), names)
    return names


def test_importable_function_is_its_module_and_name() -> None:
    assert area.name.startswith(f"{__name__}.area:")
    assert area.key(1).startswith(f"{area.name}:")
    assert Room.__dict__["same"].name.startswith(f"{__name__}.Room.same:")


def test_results_of_two_closures_are_two() -> None:
    assert (factory(2)(10), factory(3)(10), factory(2)(10)) == (20, 30, 20)
    assert factory(2).name == factory(2).name != factory(3).name != factory(3.0).name
    assert factory([1, {2: {3, 4}}]).name == factory([1, {2: {4, 3}}]).name


def test_results_of_two_lambdas_are_two_also_on_one_line() -> None:
    one, two = TABLE.memoize(name="f")(lambda x: x + 1), TABLE.memoize(name="f")(lambda x: x + 2)
    assert (one(1), two(1)) == (2, 3)
    outer: Any = lambda y: TABLE.memoize(name="f")(lambda x: x * y)  # noqa: E731
    assert (outer(5)(2), outer(6)(2)) == (10, 12)
    apart = TABLE.memoize(name="f")(lambda x: x + 1)
    assert one.name == apart.name, "nothing around the lambda counts"


@pytest.mark.parametrize(
    "text",
    [
        "@cache.memoize\ndef f(x): return x",
        "f = cache.memoize(lambda x: x)",
        "def g():\n    @cache.memoize\n    def f(x): return x\n    return f\ng()",
    ],
)
@pytest.mark.parametrize("module", ["__main__", "__mp_main__", "json", "no.such.module"])
def test_function_that_is_not_importable_needs_a_name(text: str, module: str) -> None:
    with pytest.raises(ConfigError, match="name=") as caught:
        ran(text, module)
    assert caught.value.field == "name"


def test_two_scripts_and_an_edited_cell_are_told_apart() -> None:
    text = "@cache.memoize(name='f')\ndef f(x):\n    return x + {}\n"
    one, two, again = (ran(text.format(n), file=f"<{at}>")["f"] for at, n in enumerate((1, 2, 1)))
    assert (one(1), two(1)) == (2, 3) and one.name == again.name != two.name


def test_defaults_count_and_globals_do_not() -> None:
    text = "N = {}\n@cache.memoize(name='f')\ndef f(x, y={}, *, z={}): return x + N\n"
    names = {ran(text.format(n, y, z), file=f"<d{n}{y}{z}>")["f"].name for n, y, z in [(1, 1, 1), (2, 1, 1)]}
    assert len(names) == 1
    # by value: the text is the same
    text = "@cache.memoize(name='f')\ndef f(x, y=V, *, z=V): return y\n"
    names = {ran(f"V = {v}\n{text}", file=f"<v{v}>")["f"].name for v in (1, 2)}
    assert len(names) == 2


def test_what_a_function_closes_over_counts_all_the_way() -> None:
    def made(op: Any, **given: Any) -> Any:
        return TABLE.memoize(name="op", **given)(lambda x: op(x))

    ops: list[Any] = [math.sin, math.cos, operator.neg, lambda x: x, lambda x: -x, functools.partial(pow, 2)]
    names = [made(op).name for op in ops]
    assert len(set(names)) == len(ops)
    assert made(factory(2)).name != made(factory(3)).name
    assert made(math).name != made(operator).name

    def recursive() -> Any:
        @TABLE.memoize(name="fib")
        def fib(n: int) -> int:
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        return fib

    assert recursive()(10) == 55 and recursive().name == recursive().name


def test_decorated_function_is_told_from_one_that_is_decorated_otherwise() -> None:
    def times(factor: int) -> Any:
        def decorate(function: Any) -> Any:
            @functools.wraps(function)
            def wrapper(*arguments: Any, **named: Any) -> Any:
                return function(*arguments, **named) * factor

            return wrapper

        return decorate

    def plain(x: int, y: int = 1) -> int:
        return x + y

    one, two = (TABLE.memoize(name="t")(times(factor)(plain)) for factor in (2, 3))
    assert (one(1), two(1)) == (4, 6)
    assert one.key(1) == one.key(x=1) == one.key(1, 1)


def test_what_cannot_be_told_needs_a_version() -> None:
    names: dict[str, Any] = {}
    exec("def f(x): return x", names)
    for function in (names["f"], math.sqrt, Thing()):
        with pytest.raises(ConfigError, match="version="):
            TABLE.memoize(name="f")(function)
        one, two = (TABLE.memoize(name="f", version=version)(function) for version in (1, 2))
        assert one.name != two.name
    with pytest.raises(ConfigError, match=r"factor.*version="):
        factory(object())
    assert factory(object(), version=1).name == factory(object(), version=1).name != factory(2, version=1).name
    with pytest.raises(ConfigError, match="version"):
        factory(1, version=object())


def test_function_of_which_a_key_is_made_counts() -> None:
    one, two = (TABLE.memoize(name="k", key=key)(area.uncached) for key in (lambda w: w % 2, lambda w: w % 3))
    assert one(4) == one(6) and one.name != two.name
    assert TABLE.memoize(name="k", key=str)(area.uncached).name != one.name


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x" * 901}, "name"),
        ({"ignore": "y"}, "ignore"),
        ({"ignore": ["x"], "key": str}, "ignore"),
        ({"key": 5}, "key"),
        ({"leese": 5}, "leese"),
        ({"ignore": 5}, "ignore"),
        ({"name": "\ud800"}, "name"),
        ({"name": "\0f"}, "name"),
        ({"ttl": -1}, "ttl"),
    ],
)
def test_wrong_settings_are_refused_when_the_function_is_made(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TABLE.memoize(**{"name": "f", **given})(lambda x: x)
    assert caught.value.field == field


def test_function_that_would_not_run_is_refused() -> None:
    async def coroutine() -> int:
        return 1

    def generator() -> Iterator[int]:
        yield 1

    for function in (coroutine, generator):
        with pytest.raises(ConfigError, match="would not run"):
            TABLE.memoize(name="f", version=1)(function)


def test_argument_may_have_any_name() -> None:
    made = TABLE.memoize(name="any", version=1)(lambda **all: sorted(all))
    assert made(self=1, function=2, arguments=3, named=4, key=5) == ["arguments", "function", "key", "named", "self"]
    assert made.key(self=1) != made.key(self=2) and made.key(self=1) == made.key(**{"self": 1})


def test_class_method_object_is_refused() -> None:
    kinds: list[Any] = [classmethod, staticmethod]
    for kind in kinds:
        with pytest.raises(ConfigError, match="@classmethod"):
            TABLE.memoize(kind(lambda cls: 1))
        with pytest.raises(ConfigError, match="@classmethod"):
            TABLE.memoize(name="f")(kind(lambda cls: 1))


# -- the key of a call --------------------------------------------------------------------------------------------


class Colour(IntEnum):
    RED = 1


def test_equal_calls_have_equal_keys() -> None:
    assert area.key(2, 3) == area.key(2, height=3) == area.key(width=2, height=3) == area.key(height=3, width=2)
    assert area.key(2) == area.key(2, 1) == area.key(2, unit="m")
    assert area.key(1, a={1, 2, 3, "x"}, b=2) == area.key(1, b=2, a={"x", 3, 2, 1})
    assert area.key({"a": 1, "b": [{"c": 2, "d": 3}]}) == area.key({"b": [{"d": 3, "c": 2}], "a": 1})  # type: ignore[arg-type]
    ones: Any = np.ones((2, 3))
    assert area.key(ones) == area.key(np.asfortranarray(ones)) == area.key(np.ones((4, 3))[::2])  # type: ignore[arg-type]


def test_calls_that_differ_have_keys_that_differ() -> None:
    ones: list[Any] = [1, 1.0, True, "1", b"1", [1], (1,), {1}, {1: None}, np.ones(1), np.ones((1, 1)), np.float32(1)]
    ones += [np.ones(1, "f4"), None, -1, [[1]], [1, []], {"a": 1}, {"a": {}}, 0.0, -0.0]
    keys = {area.key(one) for one in ones}
    assert len(keys) == len(ones)
    assert len({area.key(1, 2, 3), area.key(1, 2), area.key(1, 2, unit="3"), area.key(1, 2, x="3")}) == 4
    assert len({area.key(1, a={"x": 1}), area.key(1, a={"x": {}}), area.key(1, x=1)}) == 3


def test_keys_are_the_same_in_every_process_with_every_hash_seed() -> None:
    script = """
        import tests.test_memo as memo
        print(memo.area.name, memo.factory({"a", "b", "c"}).name)
        print(memo.area.key({f"k{n}": n for n in range(50)}, {f"s{n}" for n in range(50)}))
    """
    outputs = set()
    for seed in ("0", "1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", textwrap.dedent(script)]
        outputs.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(outputs) == 1 and outputs.pop().count(":") == 4


def test_arguments_that_do_not_travel_are_named_with_a_way_out() -> None:
    with pytest.raises(ValueEncodeError, match=r"'width'.*ignore=.*key="):
        area(SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(ValueEncodeError, match=r"Room.refused.*'self'.*ignore="):
        Room(1).refused()
    with pytest.raises(TypeError, match="width"):
        area()  # type: ignore[call-arg]


def test_ignored_arguments_do_not_count() -> None:
    made = TABLE.memoize(ignore=["unit", "log"])(area.uncached)
    assert made.key(1, unit=object(), log=object()) == made.key(1) != made.key(1, tag=1)  # type: ignore[arg-type]


def test_methods() -> None:
    small, large = Room(2), Room(3)
    assert small.same(5) == large.same(5) == 5 and small.same.key(5) == large.same.key(height=5)
    assert (small.area(5), large.area(5), small.area(5), Room(2).area(5)) == (10, 15, 10, 10)
    assert (small.calls, large.calls) == (1, 1)
    assert small.area.key(5) == Room.area.key(small, 5) and small.area.uncached(7) == 14
    kind: Any = Room
    assert kind.fixed(3) == kind(2).fixed(3) == 3
    assert kind.made(3) == kind(2).made(3) == 3


# -- as a function ------------------------------------------------------------------------------------------------


def test_it_is_like_the_function_that_it_was_made_of() -> None:
    assert (area.__doc__, area.__name__, area.__module__) == ("Its own text.", "area", __name__)
    assert isinstance(area, Memoized) and area.uncached(1) == (1, 1, (), "m", {})
    assert pickle.loads(pickle.dumps(area)) is area and copy.deepcopy(area) is area
    room = Room(4)
    assert copy.copy(room.area)(2) == 8
    assert "test_memo.area" in repr(area)
    assert pickle.loads(pickle.dumps(room)).area.key(2) == room.area.key(2)


def test_options_are_those_of_get_or_compute() -> None:
    table = Table()
    table.memoize(5, name="f", lease=3)(lambda: 1)()
    table.memoize(name="f")(lambda: 1)()
    table.memoize(None, name="f")(lambda: 1)()
    assert table.options == [{"ttl": 5, "lease": 3}, {}, {"ttl": None}]


def test_the_default_of_an_ignored_argument_does_not_count() -> None:
    text = "@cache.memoize(name='f', ignore='log')\ndef f(x, log=V): return x\n"
    names = {ran(f"V = {v}\n{text}", file=f"<i{n}>")["f"].name for n, v in enumerate(("1", "2", "object()"))}
    assert len(names) == 1


def test_the_text_is_that_of_the_function_itself_and_of_no_other_of_its_name() -> None:
    text = "@cache.memoize(name='f')\ndef f(x): return 2\n"
    alone, beside = ran(text, file="<alone>")["f"], ran(f"def f(x): return 1\n{text}", file="<beside>")["f"]
    assert beside(0) == 2 and beside.name == alone.name
