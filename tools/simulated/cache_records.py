"""What callers of real agents wrote down, and what must hold of it: for ``tools/chaos cache``.

A caller writes a line before each call and one after it, so calls that a kill
cut short are there too; they may have happened. Most keys have one writer, who
counts: what a read returns tells which write it saw, and so how old that was.
Other keys are everybody's, and small enough for ``linearizable``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mycorrizal.simulation.checkers import CheckFailed

from .cache_checkers import check_linearizable
from .linearizable import FOREVER, Event

__all__ = ["Book", "Staleness", "check_final", "check_history", "check_holders", "check_refused", "staleness"]

Fail = Callable[[str, str], CheckFailed]
NOTED_LATE = 0.5
"""Seconds by which a life may write down later that its view has changed: it looks from time to time."""
Spans = Sequence[tuple[float, float]]
"""From when to when less is promised: while views differ, or the network is cut."""


class Book(NamedTuple):
    """The records of all callers.

    Attributes:
        events: by cache; answered calls, and those whose outcome is unknown. ``client`` is the node's number.
        refused: by cache; calls that ended with the word that nothing happened. Their ``answer`` is None.
        views: of each life: when its view of the members became which.
        errors: how often which error was raised.
    """

    events: dict[str, list[Event]]
    refused: dict[str, list[Event]]
    views: dict[str, list[tuple[float, list[list[str]]]]]
    errors: dict[str, int]

    @classmethod
    def read(cls, files: Mapping[str, Iterable[str]]) -> Book:
        """Return what stands in `files`: lines by the life that wrote them, ``<node>.<life>``."""
        book = cls({}, {}, {}, {})
        for life, lines in files.items():
            book._add(life, lines)
        return book

    def _add(self, life: str, lines: Iterable[str]) -> None:
        client = int(life.partition(".")[0])
        begun: dict[int, dict[str, Any]] = {}
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the kill came in the middle of it
            if "view" in row:
                self.views.setdefault(life, []).append((row["t"], row["view"]))
            elif "begin" in row:
                begun[row["begin"]] = row
            else:
                self._ended(client, begun.pop(row["end"]), row)
        for row in begun.values():
            self._put(self.events, _event(client, row, FOREVER, None), row["cache"])

    def _ended(self, client: int, row: dict[str, Any], end: dict[str, Any]) -> None:
        if "error" not in end:
            self._put(self.events, _event(client, row, end["t"], end["answer"]), row["cache"])
            return
        self.errors[end["error"]] = self.errors.get(end["error"], 0) + 1
        if end["sure"]:
            self._put(self.refused, _event(client, row, end["t"], None), row["cache"])
        else:
            self._put(self.events, _event(client, row, FOREVER, None), row["cache"])

    @staticmethod
    def _put(table: dict[str, list[Event]], event: Event, cache: str) -> None:
        table.setdefault(cache, []).append(event)


def _event(client: int, row: dict[str, Any], ended: float, answer: Any) -> Event:
    argument = tuple(row["arg"]) if row["kind"] == "cas" else row["arg"]
    if row["kind"] == "set" and ended != FOREVER:
        answer = True
    return Event(client, row["key"].encode(), row["kind"], argument, row["t"], ended, answer)


def _by_key(events: Iterable[Event]) -> dict[bytes, list[Event]]:
    found: dict[bytes, list[Event]] = {}
    for event in events:
        found.setdefault(event.key, []).append(event)
    return found


def _outside(history: Iterable[Event], spans: Spans) -> bool:
    """Return whether nothing of a history happened in `spans`."""
    return all(event.began > end or event.ended < start for event in history for start, end in spans)


def check_history(events: Sequence[Event], fail: Fail, *, without: Spans = ()) -> tuple[int, int]:
    """Each key's history is linearizable; return keys checked, and those undecided.

    Args:
        events: of a cache without near copies.
        without: keys that were in use then are left out.
    """
    kept = [history for history in _by_key(events).values() if _outside(history, without)]
    return check_linearizable([event for history in kept for event in history], fail)


class Staleness(NamedTuple):
    """How old what was read was: seconds since the write that overwrote it was acknowledged, sorted, if it was."""

    reads: int
    late: list[float]
    undecided: int

    @property
    def worst(self) -> float:
        """The most, in seconds."""
        return self.late[-1] if self.late else 0.0

    def share(self, part: float) -> float:
        """Return the seconds that `part` of the late reads stay below."""
        return self.late[min(len(self.late) - 1, int(len(self.late) * part))] if self.late else 0.0


def staleness(events: Sequence[Event], fail: Fail, *, without: Spans = ()) -> Staleness:
    """Return how late every read was that saw an overwritten value, of keys that one writer writes.

    Raises:
        CheckFailed: a read returned what nobody had begun to write.
    """
    reads, undecided, late = 0, 0, []
    for key, history in _by_key(events).items():
        if key.startswith((b"shared/", b"nshared/")):
            continue
        writes = sorted((event for event in history if event.kind != "get"), key=lambda event: event.began)
        for read in history:
            if read.kind != "get" or not read.known:
                continue
            if not _outside([read], without):
                continue
            reads += 1
            seen = _seen(writes, read)
            if seen is None:
                raise fail("phantom", f"nobody had written what was read: {read}")
            if seen >= 0 and not writes[seen].known:
                undecided += 1  # it may have happened at any time since
                continue
            after = [write.ended for write in writes[seen + 1 :] if write.ended < read.began]
            if after:
                late.append(read.began - min(after))
    return Staleness(reads, sorted(late), undecided)


def _seen(writes: list[Event], read: Event) -> int | None:
    """Return the last write that `read` may have seen; -1: none of them; None: there is no such write."""
    for index in range(len(writes) - 1, -1, -1):
        write = writes[index]
        state = None if write.kind == "delete" else write.argument
        if write.began <= read.ended and state == read.answer:
            return index
    return -1 if read.answer is None else None


def check_final(
    events: Sequence[Event], final: Sequence[Mapping[str, Any]], fail: Fail, *, without: Spans = ()
) -> int:
    """After all is calm: every node reads what was acknowledged last, or what may have happened; return keys checked.

    Of keys that everybody writes, that all read the same and that somebody wrote it.

    Args:
        final: what each node read, by key.
        without: an increment that was acknowledged then may be missing, and what was refused may have been done.
    """
    for key, history in sorted(_by_key(events).items()):
        writes = sorted((event for event in history if event.kind != "get"), key=lambda event: event.began)
        name = key.decode()
        found = [read.get(name) for read in final]
        if any(value != found[0] for value in found):
            raise fail("converged", f"{name} is read as {found}")
        if key.startswith(b"nshared/"):
            least = sum(write.known for write in writes) if _outside(history, without) else 0
            if not least <= (found[0] or 0) <= len(writes):
                raise fail("final", f"{name} is {found[0]} after {least} to {len(writes)} increments")
            continue
        if key.startswith(b"shared/"):
            # What was refused on one side may have been done by an earlier try on the other.
            done = [write for write in writes if write.answer is not False or not _outside([write], without)]
            possible = [None, *(write.argument[1] if write.kind == "cas" else write.argument for write in done)]
        else:
            sure = [index for index, write in enumerate(writes) if write.known]
            last = sure[-1] if sure else -1
            possible = [
                None if write.kind == "delete" else write.argument
                for index, write in enumerate(writes) if index == last or not write.known
            ]  # fmt: skip
            if last < 0:
                possible.append(None)
        if found[0] not in possible:
            lines = "\n".join(f"      {event}" for event in sorted(history, key=lambda event: event.began)[-12:])
            raise fail("final", f"{name} is {found[0]!r}, and should be one of {possible}:\n{lines}")
    return len({event.key for event in events})


def check_holders(holdings: Sequence[Mapping[str, int]], replicas: int, fail: Fail) -> int:
    """After all is calm: of every entry there are `replicas` copies, of the same version; return entries checked."""
    copies: dict[str, list[int]] = {}
    for held in holdings:
        for key, version in held.items():
            copies.setdefault(key, []).append(version)
    for key, versions in sorted(copies.items()):
        if len(versions) != min(replicas, len(holdings)) or len(set(versions)) != 1:
            raise fail("copies", f"of {key!r} there are copies of the versions {versions}")
    return len(copies)


def check_refused(book: Book, cache: str, side: set[int], quorum: int, fail: Fail) -> tuple[int, int]:
    """Once every node of the smaller `side` sees fewer than `quorum` members, the cache acknowledges nothing there.

    Returns:
        Calls that were refused on that side meanwhile, and calls that were acknowledged on the other one.
    """
    small = [_below(views, quorum) for life, views in book.views.items() if int(life.partition(".")[0]) in side]
    spans = [span for span in small if span is not None]
    if len(spans) < len(side):
        raise fail("quorum", f"not every node of {side} noticed: {spans}")
    began, ended = max(span[0] for span in spans), min(span[1] for span in spans) - NOTED_LATE
    during = [event for event in book.events.get(cache, []) if began < event.began and event.ended < ended]
    for event in during:
        if event.client in side:
            raise fail("quorum", f"acknowledged on the smaller side between {began} and {ended}: {event}")
    refused = [event for event in book.refused.get(cache, []) if began < event.began and event.client in side]
    return len(refused), len(during)


def _below(views: list[tuple[float, list[list[str]]]], quorum: int) -> tuple[float, float] | None:
    """Return from when to when a view had fewer than `quorum` members, after it had had them."""
    began: float | None = None
    whole = False
    for at, view in views:
        whole = whole or len(view) >= quorum
        if whole and len(view) < quorum and began is None:
            began = at
        elif began is not None and len(view) >= quorum:
            return began, at
    return None if began is None else (began, FOREVER)
