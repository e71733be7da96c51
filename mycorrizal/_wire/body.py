"""What the two body codecs share: plans made from ``FIELDS``, ranges, and their errors.

A plan is computed once for each message class, so that encoding and decoding
are one short loop with everything looked up beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from ..exceptions import LocalProtocolError, RemoteProtocolError, WireMismatch
from .messages import (
    AckResp,
    Alive,
    Body,
    Compress,
    Dead,
    Err,
    Field,
    IndirectPing,
    Kind,
    NackResp,
    NumberedHeader,
    Ping,
    PushNodeState,
    PushPullHeader,
    Suspect,
    UserMsgHeader,
)

__all__ = ["BODIES", "INTEGER_RANGE", "B", "BodyCodec", "BodyPlan", "IncompleteError", "plan_values", "wire_mismatch"]

B = TypeVar("B", bound=Body)

BODIES: tuple[type[Body], ...] = (
    Ping,
    IndirectPing,
    AckResp,
    NackResp,
    Err,
    Suspect,
    Dead,
    Alive,
    Compress,
    PushPullHeader,
    PushNodeState,
    UserMsgHeader,
    NumberedHeader,
)

INTEGER_RANGE: dict[Kind, tuple[int, int]] = {
    Kind.U8: (0, 0xFF),
    Kind.U16: (0, 0xFFFF),
    Kind.U32: (0, 0xFFFFFFFF),
    Kind.INT: (-(1 << 63), (1 << 63) - 1),
}


class IncompleteError(RemoteProtocolError):
    """The bytes end inside a body.

    Attributes:
        needed: offset that the data must at least reach before another try
            can come further; never more than one body needs.
    """

    def __init__(self, needed: int) -> None:
        super().__init__(f"the message is cut: at least {needed} bytes expected")
        self.needed = needed


class BodyCodec(Protocol):
    """One of the two encodings of a message body."""

    name: str

    def encode(self, body: Body) -> bytes:
        """Return the body's bytes, without a type byte."""

    def decode(self, cls: type[B], data: bytes, offset: int = 0) -> tuple[B, int]:
        """Return the body of class `cls` that starts at `offset`, and the offset after it.

        Raises:
            IncompleteError: the data end before the body does.
            WireMismatch: the body is of the other codec.
            RemoteProtocolError: it is no such body.
        """


class BodyPlan:
    """Everything about one message class that does not change from message to message."""

    __slots__ = ("cls", "defaults", "fields", "index", "integers", "keys", "optional", "order", "values")

    def __init__(self, cls: type[Body]) -> None:
        fields: tuple[Field, ...] = cls.FIELDS
        self.cls: Callable[..., Any] = cls
        self.fields = fields
        self.index = {field.key.encode(): i for i, field in enumerate(fields)}
        # Keys are written sorted by their bytes, whatever the declaration order (protocol §1.2).
        self.order = tuple(sorted(range(len(fields)), key=lambda i: fields[i].key.encode()))
        self.keys = tuple(fields[i].key for i in self.order)
        self.optional = tuple(fields[i].omit_empty for i in self.order)
        self.integers = tuple(
            (position, *INTEGER_RANGE[fields[i].kind])
            for position, i in enumerate(self.order)
            if fields[i].kind in INTEGER_RANGE
        )
        zero = cls()
        self.defaults = [getattr(zero, field.attr) for field in fields]
        self.values = _getter([fields[i].attr for i in self.order])


def plan_values(plan: BodyPlan, body: Body) -> tuple[Any, ...]:
    """Return the field values in wire order.

    Raises:
        LocalProtocolError: an integer does not fit its field.
    """
    values = plan.values(body)
    for position, low, high in plan.integers:
        if not low <= values[position] <= high:
            raise LocalProtocolError(
                f"{type(body).__name__}.{plan.keys[position]}: {values[position]} is not in {low}..{high}"
            )
    return values


def wire_mismatch(theirs: str, ours: str) -> WireMismatch:
    """Return the error for a body of the other codec."""
    return WireMismatch(
        f"the message body is {theirs}, and this node is configured for {ours}",
        hint=f"set wire={theirs!r} here or wire={ours!r} there: all nodes of a cluster need the same wire= setting",
    )


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    get = attrgetter(*names)
    if len(names) > 1:
        return get
    return lambda body: (get(body),)
