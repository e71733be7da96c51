"""Who may hold a place among the conversations we were dialled for, and who gives way. Pure; takes the time.

Before a stranger has proved anything it can connect, be silent, trickle, or
pour. So places are few for one address, those that say least for their time
give way to newcomers, and all that strangers have said and we still hold, and
all we still have to tell them, comes out of one budget. Every limit is here.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = [
    "FIRST_BYTES_SECONDS",
    "LINGER_BYTES",
    "LINGER_SECONDS",
    "Entry",
    "Place",
    "Places",
    "Tally",
]

PLACES_MAX = 256
"""Accepted conversations at a time. Each costs a descriptor, and no thread unless there is something to decode.

Differs from memberlist: there only push/pulls are counted."""
ADDRESS_PLACES_MAX = PLACES_MAX // 4
"""Those of one IPv4 address, or of one IPv6 /64, that a thread is not at work for."""
ADDRESS_BUSY_MAX = PLACES_MAX // 2
"""Those that threads are at work for, or will be: a burst of a whole host's processes has said all it has to say."""
GRACE_SECONDS = 0.25
"""So long nobody has to give way: in a burst, a dialler may wait for a core between connecting and speaking."""
PATIENCE_SECONDS, PATIENCE_RATE = 0.35, 0.1
"""How long newcomers wait at the door, together, for somebody's grace to end, and what comes back of it in a second.
Meanwhile nobody else is let in; beyond it there is no grace, so who connects very often hurts mostly itself."""
BUSY_SECONDS, BUSY_PATIENCE_SECONDS = 2.0, 3.0
"""The same where all have spoken and only wait for our threads: one newcomer's wait, and that of all."""
FIRST_BYTES_SECONDS = 1.0
"""Who has said nothing by then is given up; ``tcp_timeout`` is for the whole message."""
BYTES_MAX = 64 << 20
"""Bytes held for all of them, and for those that we dialled, together: not decoded yet, or still to be sent. When they
are exceeded, the slowest of those that hold more than their share is ended; if all have just begun, the largest."""
SHARE_BYTES = BYTES_MAX // PLACES_MAX
LINGER_SECONDS, LINGER_BYTES = 0.5, 1 << 20
"""What is waited for and read after an error answer, so that the close does not destroy it on its way."""
REFUSING_SECONDS = 10.0
"""So long after somebody was turned away it shows as a problem."""


@dataclass(slots=True, eq=False, kw_only=True)
class Place:
    """One conversation's place.

    Attributes:
        source: whose; see ``addresses.source_of``.
        since, until: beginning and deadline of what it does now: say something, or take an answer.
        moved: bytes it has said, or taken, since then.
        held: bytes that are held for it.
        busy: a thread is at work for it, so it can neither end nor give way.
    """

    source: Hashable
    since: float
    until: float
    moved: int = 0
    held: int = 0
    busy: bool = False

    def begin(self, now: float, seconds: float) -> None:
        """Begin something else, which may take `seconds`."""
        self.since, self.until, self.moved = now, now + seconds, 0


P = TypeVar("P", bound=Place)


@dataclass(frozen=True, slots=True)
class Entry(Generic[P]):
    """What becomes of a newcomer: it enters, in the place of `victim` if any; or asks at `again`; or neither."""

    enters: bool
    victim: P | None = None
    again: float | None = None


class Tally:
    """The bytes held for conversations that we dialled. Any thread.

    They come before those of strangers, but whoever answers may be one too: a port can have changed hands.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.held = 0

    def change(self, before: int, after: int) -> bool:
        """Note that one conversation holds `after` bytes instead of `before`; return whether it may go on."""
        with self._lock:
            self.held += after - before
            return self.held <= BYTES_MAX or after <= SHARE_BYTES


class Places(Generic[P]):
    """All places. One thread; bounded as said above.

    Args:
        dialled: what is held elsewhere out of the same budget.

    Attributes:
        held: bytes that are held for all places.
    """

    def __init__(self, dialled: Tally | None = None) -> None:
        self._dialled = dialled or Tally()
        self._all: dict[P, None] = {}
        self._of: dict[Hashable, dict[P, None]] = {}  # by source; both in the order in which they came
        self._waited = self._waited_at = 0.0  # patience that is used up, and when that was so
        self._refused_at: float | None = None
        self.held = 0

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, place: P) -> bool:
        return place in self._all

    def all(self) -> list[P]:
        """Return who has one."""
        return list(self._all)

    # -- coming and going -------------------------------------------------------------------

    def admit(self, source: Hashable, now: float, came: float) -> Entry[P]:
        """Return what becomes of a newcomer from `source` that came at `came`; what enters is to be added."""
        mine = self._of.get(source, {})
        if len(mine) >= ADDRESS_PLACES_MAX and self._crowd(mine):
            rivals = mine
        elif len(self._all) >= PLACES_MAX:
            rivals = self._all
        else:
            self._note_wait(now, came)
            return Entry(True)
        ends = [place.since + GRACE_SECONDS for place in rivals if not place.busy]
        most, patience = (GRACE_SECONDS, PATIENCE_SECONDS) if ends else (BUSY_SECONDS, BUSY_PATIENCE_SECONDS)
        patient = self._used(now) + (now - came) < patience
        victim = self._slowest(rivals, now, GRACE_SECONDS if patient else 0.0)
        if victim is None and patient and now < came + most:
            return Entry(False, again=min(ends, default=came + most))
        self._note_wait(now, came)
        self.refused(now)
        return Entry(victim is not None, victim)

    def add(self, place: P) -> None:
        """Give it a place."""
        self._all[place] = None
        self._of.setdefault(place.source, {})[place] = None
        self.held += place.held

    def remove(self, place: P) -> None:
        """Take it back."""
        del self._all[place]
        mine = self._of[place.source]
        del mine[place]
        if not mine:
            del self._of[place.source]
        self.held -= place.held

    def slowest(self, now: float) -> P | None:
        """Return who gives way when descriptors have run out; None if nobody can."""
        return self._slowest(self._all, now, GRACE_SECONDS)

    def _slowest(self, rivals: Iterable[P], now: float, grace: float) -> P | None:
        """Return who moved least for its time, of those that are past their grace; of the silent the eldest."""
        found, least = None, 0.0
        for place in rivals:
            age = now - place.since
            if place.busy or age < grace:
                continue
            if not place.moved:
                return place
            rate = place.moved / max(age, GRACE_SECONDS)
            if found is None or rate < least:
                found, least = place, rate
        return found

    def _crowd(self, mine: Collection[P]) -> bool:
        busy = sum(place.busy for place in mine)
        return busy >= ADDRESS_BUSY_MAX or len(mine) - busy >= ADDRESS_PLACES_MAX

    def _used(self, now: float) -> float:
        return max(0.0, self._waited - (now - self._waited_at) * PATIENCE_RATE)

    def _note_wait(self, now: float, came: float) -> None:
        if now > came:
            self._waited, self._waited_at = self._used(now) + (now - came), now

    # -- bytes ------------------------------------------------------------------------------

    def hold(self, place: P, size: int) -> None:
        """Note how many bytes are held for it now."""
        self.held += size - place.held
        place.held = size

    def excess(self, now: float) -> P | None:
        """Return who has to go because too many bytes are held; None if all is well, or who holds them is busy."""
        if self.held + self._dialled.held <= BYTES_MAX:
            return None
        self.refused(now)
        large = [place for place in self._all if not place.busy and place.held > SHARE_BYTES]
        slowest = self._slowest(large, now, GRACE_SECONDS)
        return slowest or max(large, key=lambda place: place.held, default=None)

    # -- time -------------------------------------------------------------------------------

    def get_timer(self) -> float | None:
        """Return when the next one has run out of time."""
        return min((place.until for place in self._all if not place.busy), default=None)

    def expired(self, now: float) -> list[P]:
        """Return those that have run out of time."""
        return [place for place in self._all if not place.busy and place.until <= now]

    def refused(self, now: float) -> None:
        """Note that somebody was turned away."""
        self._refused_at = now

    def refusing(self, now: float) -> bool:
        """Return whether somebody was turned away lately. Any thread."""
        at = self._refused_at
        return at is not None and now - at < REFUSING_SECONDS
