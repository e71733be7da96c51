"""A request of ours, from its caller through the machine and back."""

from __future__ import annotations

from .._histogram import Histogram
from .._wire.lent import Encoded
from .flows import Outflow
from .ports import Ticket

__all__ = ["Call"]


class Call:
    """One request of ours. Made by the caller, then owned by the machine, but for ``over``: see ``Lender``."""

    __slots__ = (
        "began", "deadline", "depth", "done", "flow", "link", "name", "node", "number", "over", "sent", "ticket",
        "times", "value",
    )  # fmt: skip

    def __init__(
        self, node: str, name: bytes, value: Encoded, deadline: float | None, ticket: Ticket, depth: int = 0,
        times: Histogram | None = None,
    ) -> None:  # fmt: skip
        self.node = node
        self.name = name  # as a name_field
        self.value = value
        self.deadline = deadline
        self.ticket = ticket
        self.depth = depth  # handlers that wait for it, one within the other
        self.times = times  # what counts how long an answer takes
        self.began: float | None = None  # when the machine saw it first
        self.number = 0
        self.sent = False
        self.done = False
        self.over = False
        self.link: object = None
        self.flow: Outflow | None = None  # if its value has a stream of its own

    def end(self) -> None:
        """It is over: let go of its value, and of what knows it in turn, which only a collection would free."""
        self.done = True
        self.value = _GONE
        self.flow = None


_GONE = Encoded(b"", (), b"", 0)
"""In place of the value of a call that is over."""
