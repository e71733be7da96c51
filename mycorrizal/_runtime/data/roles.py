"""What the data plane hands work to, as protocols: rooms above this one have the parts that do it."""

from __future__ import annotations

from typing import Protocol

from ..._data.ports import Connection, Served
from ..._wire.frames import Status
from ..._wire.values import Encoded
from ...types import Address

__all__ = ["Host", "Remote"]


class Host(Protocol):
    """A way to other processes of this host (``_runtime/local/carrier.py``). Loop thread, but for ``abandon``."""

    def start(self, now: float) -> None:
        """Listen."""

    def abandon(self) -> None:
        """Let go of everything, in a forked child too."""

    def dial(self, address: Address, peer: str, now: float) -> Connection | str:
        """Return a connection to `peer`, or why there is none."""


class Remote(Protocol):
    """What answers requests elsewhere, without a look at their values here (``_runtime/tasks/processes.py``)."""

    @property
    def slots(self) -> int:
        """How many it can answer at a time."""

    def answer(self, request: Served, left: float | None) -> tuple[Status, Encoded | None]:
        """Return the answer to a request that has `left` seconds, None: no limit. A handler's thread, which waits."""

    def retire(self) -> None:
        """Another handler has its place: end as soon as nothing is asked any more. Any thread."""
