"""Whether a history of one key could have happened one operation at a time: a search, for small histories.

Each operation takes effect at one instant between its call and its answer; one
whose outcome is unknown takes effect at any time after its call, or never. The
search tries the orders that this allows, and remembers which sets of operations
lead to which state, so that it goes down no dead end twice.

From: Wing & Gong, "Testing and Verifying Concurrent Objects" (1993); Lowe,
"Testing for linearizability" (2017), the memory of states.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["FOREVER", "Event", "apply", "linearizable"]

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Event:
    """One operation of a history.

    Attributes:
        client: who called.
        kind: ``get``, ``set``, ``delete``, ``add``, ``cas``, ``incr``, ``clear``, ``expire``.
        argument: the value set, added or expired, the amount, or (expected, new).
        began, ended: real time; ``FOREVER``: the outcome is unknown.
        answer: the value got, whether something was there, whether it was done, or the new number; None if unknown.
        version: what the cache said of a write.
    """

    client: int
    key: bytes
    kind: str
    argument: Any
    began: float
    ended: float
    answer: Any = None
    version: int = 0

    @property
    def known(self) -> bool:
        """Whether there was an answer."""
        return self.ended != FOREVER


def apply(state: Hashable, event: Event) -> tuple[Any, Hashable]:
    """Return what `event` answers in `state`, None for a key that is not there, and the state after it."""
    kind, argument = event.kind, event.argument
    if kind == "get":
        return state, state
    if kind == "set":
        return True, argument
    if kind == "delete":
        return state is not None, None
    if kind == "add":
        return (True, argument) if state is None else (False, state)
    if kind == "cas":
        expected, new = argument
        return (True, new) if state == expected else (False, state)
    if kind == "clear":
        return True, None
    if kind == "expire":  # by itself, unless it was overwritten
        return True, (None if state == argument else state)
    if kind == "incr":
        assert state is None or type(state) is int
        after = (state or 0) + argument
        return after, after
    raise ValueError(f"no operation {kind!r}")


def linearizable(history: Sequence[Event], *, start: Hashable = None, steps: int = 200_000) -> bool | None:
    """Return whether `history`, of one key, is linearizable; None if that could not be found out in `steps`."""
    events = sorted((event for event in history if event.known or event.kind != "get"), key=lambda event: event.began)
    count = len(events)
    if not count:
        return True
    must = sum(1 << index for index, event in enumerate(events) if event.known)
    seen: set[tuple[int, Hashable]] = set()
    stack: list[tuple[int, Hashable]] = [(0, start)]
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return True
        steps -= 1
        if steps < 0:
            return None
        # whatever comes next began before the earliest end of those that are left
        horizon = min(event.ended for index, event in enumerate(events) if not done >> index & 1)
        for index in range(count - 1, -1, -1):
            event = events[index]
            if done >> index & 1 or event.began > horizon:
                continue
            answer, after = apply(state, event)
            if event.known and answer != event.answer:
                continue
            following = (done | 1 << index, after)
            if following not in seen:
                seen.add(following)
                stack.append(following)
    return False
