"""Enumerations, dataclasses, paths: each by explicit registration, each as exactly what it is."""

from __future__ import annotations

import dataclasses
import enum
import pickle
import sys
from dataclasses import InitVar, dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest

from mycorrizal import Codecs, ConfigError, ValueDecodeError, ValueEncodeError, codecs
from mycorrizal._wire.values import decode_packed, encode_value


class Colour(enum.Enum):
    RED = object()
    GREEN = "g"
    LIME = "g"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    A = "a"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Point:
    """What notebooks are full of."""

    x: float
    shape: tuple[int, ...] = ()
    tags: frozenset[str] = frozenset()


@dataclass(slots=True, kw_only=True)
class Place:
    """With one in the other, and a class that it hides from equality."""

    where: Point
    colour: Colour
    note: Any = field(default=None, compare=False)


MINE = codecs.add(Codecs(), Colour, Level, Word, Rights, Point, Place, Path, PureWindowsPath, complex, timedelta)


def arrived(value: Any, registry: Codecs = MINE) -> Any:
    return decode_packed(encode_value(value, registry).pack(), registry)


@pytest.mark.parametrize(
    "value",
    [
        *(Colour.RED, Colour.LIME, Level.LOW, Word.A, Rights.READ | Rights.WRITE, Rights(0), Path("/a/b"), Path("ä")),
        *(PureWindowsPath("c:/x"), 1j, complex("nan"), timedelta(-1, 2, 3), Point(1.5, (1, 2), frozenset({"a"}))),
        *(Point(float("inf")), Place(where=Point(1), colour=Colour.RED, note=[{"a": (1, (2,))}])),
    ],
    ids=lambda value: type(value).__name__,  # an address in a name would be another one in each process
)
def test_it_arrives_as_what_it_is(value: Any) -> None:
    for sent in (value, [value], {"in": value}):
        got = arrived(sent)
        got = got[0] if isinstance(sent, list) else got["in"] if isinstance(sent, dict) else got
        assert type(got) is type(value) and repr(got) == repr(value) and (got == value or "nan" in repr(value))
    assert got is value or not isinstance(value, enum.Enum) or isinstance(value, enum.Flag)


def test_names_say_where_a_class_is_from() -> None:
    assert f"{__name__}.Point" in MINE.by_name and "pathlib.PureWindowsPath" in MINE.by_name
    assert MINE.by_type[type(Path())].name.endswith(".PosixPath")


def test_a_registry_goes_to_a_worker_process() -> None:
    found = pickle.loads(pickle.dumps(MINE))
    value = [Place(where=Point(1, (2,)), colour=Colour.RED), Level.LOW, Rights.READ, Path("/a"), 1j, timedelta(1)]
    assert arrived(value, found) == value


def test_without_registration_nothing_of_it_travels() -> None:
    for value in (Colour.RED, Point(1), Path("/"), 1j, timedelta(1), PurePosixPath("/")):
        with pytest.raises(ValueEncodeError, match="cannot be sent"):
            encode_value(value, Codecs())
    packed = encode_value([Point(1)], MINE).pack()
    with pytest.raises(ValueDecodeError, match=r"Point', which is not registered here"):
        decode_packed(packed, codecs.add(Codecs(), complex))


@dataclass
class Late:
    a: int
    b: int = field(init=False, default=3)


@dataclass
class Once:
    a: int
    seed: InitVar[int] = 1


@dataclass(init=False)
class Own:
    a: int

    def __init__(self) -> None:
        self.a = 1


class Plain:
    """None of these."""


@pytest.mark.parametrize("kind", [Late, Once, Own, Plain, int, object, 7, Point(1), "text", None])
def test_what_its_fields_do_not_make_again_is_refused_at_once(kind: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        codecs.add(Codecs(), kind)
    assert caught.value.hint


def test_a_class_is_registered_once() -> None:
    with pytest.raises(ConfigError, match="registered already"):
        codecs.add(codecs.add(Codecs(), Point), Point)
    assert codecs.add(Codecs()).by_type == {}


def test_a_field_that_would_arrive_as_another_type_is_refused() -> None:
    for note in (bytearray(b"x"), {"a": {1: memoryview(b"y")}}, {(1, 2): 3}, {Word}):
        with pytest.raises(ValueEncodeError):
            encode_value(Place(where=Point(1), colour=Colour.RED, note=note), MINE)
    got = arrived(Place(where=Point(1), colour=Colour.RED, note=np.arange(3)))
    assert (got.note == np.arange(3)).all()


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        *((Colour, "BLUE"), (Colour, "__class__"), (Colour, 7), (Rights, "x"), (Point, [1]), (Point, {"y": 1})),
        *((Rights, True), (Rights, 1.0), (complex, {1: 0})),
        *((Point, {}), (Path, 7), (Path, b"x"), (complex, [1, 2, 3]), (complex, "1j"), (timedelta, [10**20])),
    ],
)
def test_what_no_honest_peer_sends_is_an_error_in_its_place(kind: Any, sent: Any) -> None:
    kind = type(Path()) if kind is Path else kind
    lying = Codecs()
    lying.register(Plain, MINE.by_type[kind].name, lambda _: sent, lambda _: Plain())
    with pytest.raises(ValueDecodeError, match="could not read a value"):
        decode_packed(encode_value([Plain()], lying).pack(), MINE)


def test_a_tuple_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tuple", "frozenset"):
        lying = Codecs()
        lying.register(Plain, name, lambda _: {"a": 1}, lambda _: Plain())
        with pytest.raises(ValueDecodeError, match=f"a {name} that is none"):
            decode_packed(encode_value(Plain(), lying).pack(), MINE)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mycorrizal.codecs.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"mycorrizal\[arrow\]"):
        codecs.arrow()


def test_without_pandas_there_are_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mycorrizal.codecs.find_spec", lambda name: None if name == "pandas" else find_spec(name))
    found = codecs.arrow()
    assert "pyarrow.Table" in found.by_name and "pandas.DataFrame" not in found.by_name
    assert {"complex", "timedelta"} <= {kind.__name__ for kind in found.by_type}
    with pytest.raises(ConfigError, match="registered already"):
        codecs.arrow(found)


def test_the_module_itself_imports_neither() -> None:
    import subprocess

    code = "import mycorrizal.codecs, sys; mycorrizal.codecs.add(mycorrizal.Codecs(), complex); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "pyarrow", "numpy"} & set(done.stdout.split())
    assert dataclasses.is_dataclass(Point)
