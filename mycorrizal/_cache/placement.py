"""Where a key lives: fixed partitions, and rendezvous hashing of the members over them.

Every node computes the same from the same view, so nobody has to be asked, and
a member that leaves moves only what it held. Scores depend on a member's
*name*, so one that restarts gets its old partitions back; a copy belongs to a
*process*, name and boot id, so the new process knows that it holds nothing.

Hash functions are stable across processes and versions: CRC-32 for keys, cheap
enough for a local read, SHAKE-128 for the scores of a member.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from hashlib import shake_128
from typing import NamedTuple
from zlib import crc32

__all__ = ["PARTITIONS", "Owner", "Placement", "bitmap", "from_bitmap", "partition_of"]

PARTITIONS = 256
"""Partitions of every cache. A bitmap of them is 32 bytes; a million entries make partitions of 4,000."""

BITMAP_BYTES = PARTITIONS // 8

_KNOWN_MAX = 32
"""Views whose placement is kept, 2 to 16 KB each: caches that are opened together see the same ones."""

_BITS = [tuple([bit for bit in range(8) if byte >> bit & 1]) for byte in range(256)]
_SCORES = struct.Struct(f">{PARTITIONS}Q")


class Owner(NamedTuple):
    """A process that may hold copies: a member's name and its boot id."""

    name: str
    boot: bytes


def partition_of(key: bytes) -> int:
    """Return the partition of `key`. Any thread."""
    return crc32(key) & 0xFF


def bitmap(partitions: Iterable[int]) -> bytes:
    """Return a set of partitions as 32 bytes."""
    bits = 0
    for partition in partitions:
        bits |= 1 << partition
    return bits.to_bytes(BITMAP_BYTES, "big")


def from_bitmap(raw: bytes) -> list[int]:
    """Return the partitions in a bitmap, ascending."""
    return [8 * index + bit for index, byte in enumerate(reversed(raw)) if byte for bit in _BITS[byte]]


class Placement:
    """The owners of every partition, for views of members that come and go.

    Scores are kept of at most twice as many names as there ever were members, so a rejoin costs nothing.
    """

    def __init__(self) -> None:
        self._scores: dict[str, tuple[int, ...]] = {}
        self._most = 16
        self._known: dict[tuple[tuple[Owner, ...], int], list[tuple[Owner, ...]]] = {}

    def owners(
        self, members: Iterable[Owner], replicas: int, before: Sequence[tuple[Owner, ...]] = (),
        added: Iterable[Owner] = (), gone: Collection[Owner] = (),
    ) -> list[tuple[Owner, ...]]:  # fmt: skip
        """Return, for each partition, its owners: the primary, then up to ``replicas - 1`` backups.

        `before`: what was returned until members were `added` and `gone`; only what that moves is placed anew. What is
        returned is not to be changed.
        """
        view = tuple(sorted(members)), replicas
        placed = self._known.pop(view, None)
        if placed is None:
            placed = self._place(view[0], replicas, before, list(added), gone)
        self._known[view] = placed
        if len(self._known) > _KNOWN_MAX:
            del self._known[next(iter(self._known))]
        return placed

    def _place(
        self, members: tuple[Owner, ...], replicas: int, before: Sequence[tuple[Owner, ...]], new: list[Owner],
        gone: Collection[Owner],
    ) -> list[tuple[Owner, ...]]:  # fmt: skip
        scores = {member: self._score(member.name) for member in members}
        rise = list(map(max, zip(*[scores[member] for member in new], strict=True))) if new else [-1] * PARTITIONS
        found = []
        for partition, known in enumerate(before or [()] * PARTITIONS):
            candidates: Iterable[Owner] = scores
            if len(known) == replicas and not (gone and any(owner in gone for owner in known)):
                if rise[partition] < scores[known[-1]][partition]:
                    found.append(known)
                    continue
                candidates = (*known, *new)
            ranked = sorted([(scores[member][partition], member) for member in candidates], reverse=True)
            found.append(tuple([member for _, member in ranked[:replicas]]))
        self._most = max(self._most, 2 * len(scores))
        if len(self._scores) > self._most:
            names = {member.name for member in scores}
            self._scores = {name: score for name, score in self._scores.items() if name in names}
        return found

    def primary(self, members: Iterable[Owner], partition: int) -> Owner | None:
        """Return the first of a partition's owners. Any thread."""
        scores = self._scores
        ranked = [((scores.get(member.name) or _scores(member.name))[partition], member) for member in members]
        return max(ranked)[1] if ranked else None

    def _score(self, name: str) -> tuple[int, ...]:
        score = self._scores.get(name)
        if score is None:
            score = self._scores[name] = _scores(name)
        return score


def _scores(name: str) -> tuple[int, ...]:
    return _SCORES.unpack(shake_128(name.encode()).digest(_SCORES.size))
