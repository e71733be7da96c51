"""What is asked of many members: their keys, their numbers, and whether every copy is where it belongs."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .._endings import cache_error
from ..exceptions import RemoteProtocolError
from .core import Failure
from .entry import CLEAR_PREFIX
from .messages import Answer, Message, Reply, parse_keys, partition, partitions, parts, rows
from .placement import PARTITIONS, Owner, bitmap, partition_of

if TYPE_CHECKING:
    from .space import Space

__all__ = ["CLEAR_KEYS", "Cursor", "Survey"]


def _clear_keys() -> list[bytes]:
    """Return a key in each partition."""
    found: dict[int, bytes] = {}
    number = 0
    while len(found) < PARTITIONS:
        key = CLEAR_PREFIX + b"%d" % number
        found.setdefault(partition_of(key), key)
        number += 1
    return [found[place] for place in range(PARTITIONS)]


CLEAR_KEYS = _clear_keys()
"""A CLEAR of each of these, in one ``operate``, clears a cache."""

_AGAIN = 0.1
_WAITING_MAX = 1024  # questions for one round


class Cursor(NamedTuple):
    """Where an iteration over keys stands: partitions that are left, and the last key seen in the first of them."""

    left: tuple[int, ...] = tuple(range(PARTITIONS))
    after: bytes = b""


class Survey:
    """Asking and answering, for one cache on one node."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._core = space.core
        self._waiting: list[tuple[bytes, Callable[[bool, float], None]]] = []  # of what view, and whom to tell
        self._going = False  # a round is under way
        self._doubtful: Owner | None = None  # who said no last

    # -- keys ---------------------------------------------------------------------------

    def keys(self, cursor: Cursor, most: int, ticket: Any, deadline: float, now: float) -> None:
        """Complete with ``(keys, cursor)``, up to about `most` keys; with an empty ``left`` it was the last.

        Each key that is there all the time is seen once, unless its partition moves meanwhile.
        """
        if not cursor.left:
            self._core.completions.append((ticket, ([], cursor)))
            return
        first = cursor.left[0]
        shard = self._space.shards[first]
        owner = shard.primary
        if owner == self._core.me and shard.serving:
            self._keys_came(cursor, self._keys(list(cursor.left), cursor.after, most, now), ticket)
        elif owner is None or owner == self._core.me:
            self._keys_later(cursor, most, ticket, deadline, now)
        else:

            def done(outcome: Reply | Failure, now: float) -> None:
                if isinstance(outcome, Failure) or outcome.status != Answer.OK:
                    self._keys_later(cursor, most, ticket, deadline, now)
                else:
                    self._keys_came(cursor, parts(outcome.body, 1)[0], ticket)

            body = [first, bitmap(cursor.left), cursor.after, most]
            self._core.call(owner, Message.KEYS, self._space.name, body, done, now, deadline)

    def _keys_later(self, cursor: Cursor, most: int, ticket: Any, deadline: float, now: float) -> None:
        if now + _AGAIN >= deadline:
            text = f"partition {cursor.left[0]} of cache {self._space.name!r} has no primary that answers"
            self._core.completions.append((ticket, cache_error(False, text, hint="try again, or allow more time")))
            return
        self._core.timers.call_at(now + _AGAIN, lambda now: self.keys(cursor, most, ticket, deadline, now))

    def _keys_came(self, cursor: Cursor, answer: object, ticket: Any) -> None:
        keys: list[bytes] = []
        left = dict.fromkeys(cursor.left)
        after = b""
        for place, found, whole, *_ in rows(answer, 3):
            more = parse_keys(found)
            keys += more
            if whole is True:
                left.pop(partition(place), None)
            elif more:
                after = more[-1]
                left = {partition(place): None} | left
        self._core.completions.append((ticket, (keys, Cursor(tuple(left), after))))

    def give_keys(self, body: list[Any], now: float) -> list[Any] | None:
        """Answer KEYS, beginning with the first partition; None if we do not serve that."""
        first, wanted, after, most, *_ = parts(body, 4)
        if not self._space.shards[partition(first)].serving:
            return None
        places = [first, *[place for place in partitions(wanted) if place != first]]
        if type(after) is not bytes or type(most) is not int or not 0 < most <= 1 << 16:
            raise RemoteProtocolError("a request for keys that asks for none")
        return [self._keys(places, after, most, now)]

    def _keys(self, places: list[int], after: bytes, most: int, now: float) -> list[Any]:
        found = []
        for place in places:
            if not self._space.shards[place].serving:
                continue
            table = self._space.store.tables[place]
            keys = [key for key, it in table.items() if key > after and it.expires > now and key[0]]
            some = heapq.nsmallest(most, keys)
            found.append([place, some, len(some) == len(keys)])
            most -= len(some)
            after = b""
            if most <= 0:
                break
        return found

    # -- numbers ------------------------------------------------------------------------

    def stats(self, ticket: Any, now: float, deadline: float) -> None:
        """Complete with the numbers of each member by name; None for one that did not answer."""
        answers: dict[str, dict[str, int] | None] = {}
        waiting = dict.fromkeys(self._space.members)
        if self._core.me in waiting:
            answers[self._core.me.name] = self._space.stats(now)
            del waiting[self._core.me]
        if not waiting:
            self._core.completions.append((ticket, answers))

        for member in list(waiting):

            def done(outcome: Reply | Failure, now: float, member: Owner = member) -> None:
                answers[member.name] = None
                if not isinstance(outcome, Failure) and outcome.status == Answer.OK and outcome.body:
                    numbers = outcome.body[0]
                    if type(numbers) is dict and len(numbers) < 100:
                        answers[member.name] = {
                            key: value for key, value in numbers.items() if type(key) is str and type(value) is int
                        }
                del waiting[member]
                if not waiting:
                    self._core.completions.append((ticket, answers))

            self._core.call(member, Message.STATS, self._space.name, [], done, now, deadline)

    # -- synced -------------------------------------------------------------------------

    def synced(self, ticket: Any, deadline: float, now: float, failures: int = 0) -> None:
        """Complete with True once all members say, of one view, that their part is in place; False at `deadline`.

        Of all who ask at once each would have to reach everybody, so the first member asks for them: `failures` of
        such members did not answer, and the next one is asked.
        """
        space = self._space
        view, members = space.view, list(space.members)

        def settle(good: bool, now: float, failures: int = failures) -> None:
            if good and view == space.view and space.synced and space.has_quorum:
                self._core.completions.append((ticket, True))
            elif now + _AGAIN >= deadline:
                self._core.completions.append((ticket, False))
            else:
                self._core.timers.call_at(now + _AGAIN, lambda now: self.synced(ticket, deadline, now, failures))

        def answered(outcome: Reply | Failure, now: float) -> None:
            if isinstance(outcome, Failure) or outcome.status not in (Answer.OK, Answer.REFUSED):
                settle(False, now, failures + 1)
            else:
                settle(outcome.body[:1] == [True], now)

        asked = members[failures % len(members)] if members else self._core.me
        if asked == self._core.me or not (space.synced and space.has_quorum):
            self.ask_all(view, settle, now)
        else:
            self._core.call(asked, Message.ALL_SYNCED, space.name, [view], answered, now, deadline)

    def ask_all(self, view: bytes, done: Callable[[bool, float], None], now: float) -> None:
        """Call ``done(good, now)``, with whether all members say, in a round that begins now or later, that they are.

        `view`: the one that it has to be. Whoever asks while a round goes on shares the next one.
        """
        space = self._space
        if view != space.view or not (space.synced and space.has_quorum):
            done(False, now)
        elif len(self._waiting) >= _WAITING_MAX:
            self._core.counters["surveys_refused"] += 1
            done(False, now)
        else:
            self._waiting.append((view, done))
            if not self._going:
                self._go_round(now)

    def _go_round(self, now: float) -> None:
        """Ask who said no the last time, and then the others: while somebody is not ready, nobody else is asked."""
        space, view = self._space, self._space.view
        waiting, self._waiting = self._waiting, []
        self._going = bool(waiting)
        others = [member for member in space.members if member != self._core.me]
        doubtful = [member for member in others if member == self._doubtful]

        def finish(good: bool, now: float) -> None:
            good = good and view == space.view and space.synced and space.has_quorum
            for asked, done in waiting:
                done(good and asked == view, now)
            self._go_round(now)

        def ask_others(good: bool, now: float) -> None:
            if good:
                self._ask([member for member in others if member not in doubtful], view, finish, now)
            else:
                finish(False, now)

        if waiting:
            self._ask(doubtful, view, ask_others, now)

    def _ask(self, members: list[Owner], view: bytes, done: Callable[[bool, float], None], now: float) -> None:
        """Call ``done(good, now)`` when `members` have answered: whether all are in place, of `view`."""
        waiting, good = dict.fromkeys(members), True
        if not waiting:
            done(True, now)
        for member in members:

            def answered(outcome: Reply | Failure, now: float, member: Owner = member) -> None:
                nonlocal good
                if isinstance(outcome, Failure) or outcome.status != Answer.OK or outcome.body[:2] != [True, view]:
                    good = False
                    self._doubtful = member
                del waiting[member]
                if not waiting:
                    done(good, now)

            self._core.ask(member, Message.SYNCED, self._space, list, answered)
