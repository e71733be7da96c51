"""Messages, bodies and rough bytes for property tests."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mycorrizal._wire import lzw
from mycorrizal._wire import messages as m
from mycorrizal._wire.body import BODIES, INTEGER_RANGE
from mycorrizal._wire.messages import Kind

__all__ = ["BODY_CLASSES", "bodies", "bomb", "brief", "long", "packet_messages", "push_pulls", "rough"]

BODY_CLASSES: tuple[type[Any], ...] = BODIES

brief = settings(max_examples=150)
"""Enough to find a slip in a change; tools/fuzz is for the long runs."""

_EXAMPLES = int(os.environ.get("MYCORRIZAL_EXAMPLES", "150"))
long = settings(
    max_examples=_EXAMPLES,
    suppress_health_check=list(HealthCheck) if _EXAMPLES > 150 else (),
    database=None,
)
"""As ``brief``, or as many examples as ``MYCORRIZAL_EXAMPLES`` says: rules that are worth a long run once.

    MYCORRIZAL_EXAMPLES=1000000 pytest -o faulthandler_timeout=0 tests/_wire/test_value_exceptions.py -k whatever
    MYCORRIZAL_EXAMPLES=1000000 pytest -o faulthandler_timeout=0 tests/_wire/test_canonical.py -k equal
"""

# Any bytes that came from a peer, decoded as text is.
_texts = st.one_of(
    st.binary(max_size=300).map(lambda data: data.decode("utf-8", "surrogateescape")),
    st.text(st.characters(codec="utf-8"), max_size=40),
)
_VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    **{kind: st.integers(*bounds) for kind, bounds in INTEGER_RANGE.items()},
    Kind.BOOL: st.booleans(),
    Kind.TEXT: _texts,
    Kind.BYTES: st.none() | st.binary(max_size=300),
}


def _normal(body: Any) -> Any:
    """Return what arrives: an empty optional field is left out, so None and empty become one."""
    empty = type(body)()
    out = {field.attr: getattr(body, field.attr) for field in body.FIELDS}
    for field in body.FIELDS:
        if field.omit_empty and not out[field.attr]:
            out[field.attr] = getattr(empty, field.attr)
    return type(body)(**out)


def bodies(*classes: type[Any]) -> st.SearchStrategy[Any]:
    """Return bodies of `classes` (of all, if none is named) with any values."""
    made = (st.builds(cls, **{field.attr: _VALUES[field.kind] for field in cls.FIELDS}) for cls in classes or BODIES)
    return st.one_of(*made).map(_normal)


def packet_messages() -> st.SearchStrategy[m.Message]:
    """Return messages that travel in packets."""
    classes = (m.Ping, m.IndirectPing, m.AckResp, m.NackResp, m.Suspect, m.Dead, m.Alive)
    return bodies(*classes) | st.builds(m.User, st.binary(max_size=300))


def push_pulls() -> st.SearchStrategy[m.PushPull]:
    """Return push/pulls."""
    nodes = st.lists(bodies(m.PushNodeState), max_size=4).map(tuple)
    return st.builds(m.PushPull, nodes, st.binary(max_size=99), st.booleans())


def rough(valid: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return noise, and valid bytes that were cut, changed or lengthened somewhere."""

    @st.composite
    def damaged(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(valid))
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, max(0, len(data) - 1)))
            data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
        return bytes(data)

    return st.binary(max_size=200) | damaged()


def bomb(size: int) -> bytes:
    """Return LZW codes that become `size` zero bytes, the fewest there can be."""
    runs: list[tuple[int, list[int]]] = [(9, [])]
    width, hi, left = 9, 257, size
    while left:
        if hi == 4096:
            length = min(left, 3839)
        else:
            length = min(left, hi - 256)  # the code that is just being made: one longer than the last
            hi += 1
        left -= length
        runs[-1][1].append(256 + length if length > 1 else 0)
        if hi == 1 << width and width < 12:
            width += 1
            runs.append((width, []))
    runs[-1][1].append(257)
    return lzw._packed(runs)
