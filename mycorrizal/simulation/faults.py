"""What can go wrong: between members (``Faults``, ``Links``) and inside one (``Condition``).

``Faults`` are the odds of a network, the same for every link; ``Links`` says
which directions carry anything at all. Both are plain data that a scenario may
change while the simulation runs; the dice are thrown in ``network``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, fields

from ..exceptions import ConfigError

__all__ = ["Condition", "Faults", "Links"]


class Condition(enum.Enum):
    """How a member's process is doing."""

    RUNNING = "running"
    FROZEN = "frozen"
    """Stopped as by SIGSTOP: the kernel still fills its socket buffers, timers fire late."""
    SLOW = "slow"
    """Lifeguard's anomaly: timers run on time, but messages in and out wait until it is over."""
    GONE = "gone"
    """The process ended; its address is free."""


@dataclass(frozen=True, slots=True)
class Faults:
    """Odds of the network; the defaults are a quiet local network.

    A datagram is lost, copied or held back as a whole, with everything that
    is packed into it.
    """

    loss: float = 0.0
    """Share of datagrams that never arrive."""
    delay: float = 0.0005
    """Least one-way delay in seconds."""
    jitter: float = 0.0005
    """Greatest addition to the delay, evenly distributed; each datagram has its own."""
    duplicate: float = 0.0
    """Share of datagrams that arrive twice."""
    reorder: float = 0.0
    """Share of datagrams that are held back for up to ``reorder_delay``."""
    reorder_delay: float = 0.25
    send_error: float = 0.0
    """Share of datagrams that the sender's own kernel refuses."""
    exchange_slow: float = 0.0
    """Share of conversations that take ``exchange_slow_by`` seconds longer."""
    exchange_slow_by: float = 3.0
    exchange_cut: float = 0.0
    """Share of conversations that break off in the middle, in either direction."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0 or (field.name in _SHARES and value > 1):
                raise ConfigError(field.name, f"{value} is out of range", hint="shares go from 0 to 1")


_SHARES = ("loss", "duplicate", "reorder", "send_error", "exchange_slow", "exchange_cut")


class Links:
    """Which slots reach which: partitions, one-way cuts, cuts of UDP alone.

    A slot is a place a member has across restarts. Everything is open until
    it is cut.
    """

    __slots__ = ("_cuts", "_groups", "_udp_cuts", "closed")

    def __init__(self) -> None:
        self._groups: dict[int, int] = {}
        self._cuts: dict[tuple[int, int], None] = {}
        self._udp_cuts: dict[tuple[int, int], None] = {}
        self.closed = False
        """Whether anything is cut at all: lets the hot path skip the rest."""

    def partition(self, *groups: Iterable[int]) -> None:
        """Split the network; slots in no group stay together in one of their own."""
        self._groups = {slot: number for number, group in enumerate(groups, 1) for slot in group}
        self._update()

    def cut(self, source: int, target: int, *, udp_only: bool = False) -> None:
        """Stop everything (or only datagrams) from `source` to `target`; the way back stays open."""
        (self._udp_cuts if udp_only else self._cuts)[source, target] = None
        self._update()

    def mend(self, source: int, target: int) -> None:
        """Undo ``cut`` for this direction."""
        self._cuts.pop((source, target), None)
        self._udp_cuts.pop((source, target), None)
        self._update()

    def heal(self) -> None:
        """Open everything."""
        self._groups, self._cuts, self._udp_cuts = {}, {}, {}
        self._update()

    def carries_datagram(self, source: int, target: int) -> bool:
        """Return whether a datagram gets from `source` to `target`."""
        return self._carries(source, target) and (source, target) not in self._udp_cuts

    def carries_stream(self, source: int, target: int) -> bool:
        """Return whether a connection works, which needs both directions."""
        return self._carries(source, target) and self._carries(target, source)

    def _carries(self, source: int, target: int) -> bool:
        groups = self._groups
        return groups.get(source, 0) == groups.get(target, 0) and (source, target) not in self._cuts

    def _update(self) -> None:
        self.closed = bool(self._groups or self._cuts or self._udp_cuts)
