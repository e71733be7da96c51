"""How a backup gets a whole copy: the primary offers, and pushes what differs, at a bounded rate.

Writes go to a new backup at once, as to any other; what was there before is
pushed meanwhile, key by key, and newest version wins. At the end the backup
drops what it holds beside that, so that copies are equal: what was evicted,
or deleted so long ago that no tombstone is left. Equal digests spare the push.

A backup whose copy the primary has not heard of yet takes no push: what the
primary lacks would be dropped.

The same comparison runs for every backup once an ``audit_interval``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import RemoteProtocolError
from .columns import pack_records, parse_records
from .core import Failure
from .handover import copy_of
from .messages import (
    Answer,
    Message,
    Record,
    Reply,
    pack_copies,
    parse_copies,
    partition,
    partitions,
    parts,
    rows,
    version,
)
from .placement import Owner, bitmap, partition_of
from .shard import Shard

if TYPE_CHECKING:
    from .space import Space

__all__ = ["Fill"]


class _Push:
    """A partition on its way to one backup."""

    __slots__ = ("at", "backup", "epoch", "keys", "mark", "shard", "start")

    def __init__(self, shard: Shard, backup: Owner, keys: list[bytes], mark: int, start: int) -> None:
        self.shard = shard
        self.backup = backup
        self.epoch = shard.epoch
        self.keys = keys
        self.mark = mark
        self.start = start
        self.at = 0


class _Peer:
    """What is going on with one backup."""

    __slots__ = ("attempt", "not_before", "offering", "pushes", "wanted")

    def __init__(self) -> None:
        self.offering = False
        self.pushes: list[_Push] = []  # together, in one message after the other
        self.wanted: dict[int, None] = {}
        self.attempt = 0
        self.not_before = 0.0


class Fill:
    """Both ends of it, for one cache on one node."""

    def __init__(self, space: Space, now: float) -> None:
        self._space = space
        self._core = space.core
        self._peers: dict[Owner, _Peer] = {}
        self._receiving: dict[int, tuple[int, dict[bytes, None]]] = {}
        self._audit_at(now)

    def wake(self) -> None:
        """There may be something to do."""
        self._space.wake()

    def _audit_at(self, now: float) -> None:
        interval = self._core.limits.audit_interval * (0.75 + self._core.rng.random() / 2)
        self._core.timers.call_at(now + interval, self._audit)

    def _audit(self, now: float) -> None:
        """Compare all copies again; they are taken for whole meanwhile."""
        self._audit_at(now)
        offers: dict[Owner, list[Shard]] = {}
        for shard in self._space.shards:
            if shard.serving and shard.claim is None and not shard.fills and not shard.flights:
                for backup in shard.owners[1:]:
                    offers.setdefault(backup, []).append(shard)
        for backup, shards in offers.items():
            peer = self._peers.setdefault(backup, _Peer())
            if not peer.offering:
                self._offer(backup, peer, shards)

    def forget(self, members: dict[Owner, None]) -> None:
        """Keep what goes on with `members` only."""
        for member in [member for member in self._peers if member not in members]:
            del self._peers[member]

    # -- the primary --------------------------------------------------------------------

    def flush(self, now: float) -> None:
        """Start what may be started: at the end of every turn."""
        needed: dict[Owner, list[Shard]] = {}
        for shard in self._space.shards:
            if shard.fills and shard.serving and shard.claim is None:
                for backup in shard.fills:
                    needed.setdefault(backup, []).append(shard)
        for backup, shards in needed.items():
            peer = self._peers.setdefault(backup, _Peer())
            if not peer.pushes and not peer.offering and peer.not_before <= now:
                wanted = [shard for shard in shards if shard.partition in peer.wanted]
                if wanted:
                    self._start(peer, wanted, backup, now)
                else:
                    self._offer(backup, peer, shards)

    def _offer(self, backup: Owner, peer: _Peer, shards: list[Shard]) -> None:
        peer.offering = True
        peer.wanted = {}
        epochs = {shard.partition: shard.epoch for shard in shards}

        def done(outcome: Reply | Failure, now: float) -> None:
            peer.offering = False
            if isinstance(outcome, Failure) or outcome.status != Answer.OK:
                self._later(peer, now)
                return
            refused, wanted = (partitions(item) for item in parts(outcome.body, 2))
            for shard in shards:
                place = shard.partition
                if shard.epoch != epochs[place] or not shard.serving or place in refused:
                    continue
                if place in wanted:
                    shard.fills[backup] = None
                    peer.wanted[place] = None
                else:
                    shard.fills.pop(backup, None)
            if refused:
                self._later(peer, now)
            else:
                peer.attempt = 0
            self.wake()

        def body() -> list[Any]:
            return [pack_copies([copy_of(self._space, shard) for shard in shards])]

        self._core.ask(backup, Message.OFFER, self._space, body, done)

    def _later(self, peer: _Peer, now: float) -> None:
        peer.not_before = self._core.next_try(peer.attempt, now)
        peer.attempt += 1
        self._core.timers.call_at(peer.not_before, lambda now: self.wake())

    def _start(self, peer: _Peer, shards: list[Shard], backup: Owner, now: float) -> None:
        """Push partitions, as many as one message may hold: the keys of now, as they are when it is their turn."""
        store, pushes, size = self._space.store, list[_Push](), 0
        for shard in shards:
            keys = [*store.tables[shard.partition], *store.graves[shard.partition]]
            start = self._core.clock.peek()
            for flight in shard.flights.values():  # they reach the backup by themselves, and are not in the table yet
                start = min(start, flight.record.version - 1)
            pushes.append(_Push(shard, backup, keys, self._core.clock.tick(now), start))
            self._core.counters["fills"] += 1
            size += len(keys) + len(shard.outcomes)
            if size >= self._core.limits.batch_records:
                break
        peer.pushes = pushes
        self._push(peer, pushes, now)

    def _push(self, peer: _Peer, pushes: list[_Push], now: float) -> None:
        """Send the next piece of them."""
        if peer.pushes is not pushes:
            return
        live = [
            push for push in pushes
            if push.shard.epoch == push.epoch and push.shard.serving and push.backup in push.shard.fills
        ]  # fmt: skip
        if not live:
            peer.pushes = []
            self.wake()
            return
        store, limits = self._space.store, self._core.limits
        records, pieces, sent, size = list[Record](), list[list[Any]](), dict[_Push, bool](), 0
        for push in live:
            if sent and (len(records) >= limits.batch_records or size >= limits.batch_bytes):
                break
            place, first = push.shard.partition, not push.at
            size += self._take(push, records, size)
            sent[push] = push.at >= len(push.keys)
            ends = [push.start, store.floors[place], store.cleared[place]]
            outcomes = self._space.outcomes(push.shard, now) if first else []
            pieces.append([place, push.mark, first, sent[push], ends, outcomes])

        def done(outcome: Reply | Failure, now: float) -> None:
            if peer.pushes is pushes:
                self._pushed(peer, [push for push in live if not sent.get(push)], sent, size, outcome, now)

        packed, largest = pack_records(records, now)
        self._core.counters["fill_bytes"] += size
        self._core.call(live[0].backup, Message.PUSH, self._space.name, [pieces, packed], done, now, size=largest)

    def _take(self, push: _Push, records: list[Record], size: int) -> int:
        """Add the next records of a partition, as far as there is room; return their bytes."""
        store, limits, before = self._space.store, self._core.limits, size
        table, graves = store.tables[push.shard.partition], store.graves[push.shard.partition]
        while push.at < len(push.keys) and len(records) < limits.batch_records and size < limits.batch_bytes:
            key = push.keys[push.at]
            push.at += 1
            entry = table.get(key)
            if entry is not None:
                records.append(Record(key, entry.value, entry.version, entry.expires))
                size += len(entry.value) + len(key) + 64
            elif key in graves:
                records.append(Record(key, None, graves[key]))
                size += len(key) + 64
        return size - before

    def _pushed(
        self, peer: _Peer, left: list[_Push], sent: dict[_Push, bool], size: int, outcome: Reply | Failure, now: float
    ) -> None:
        """The backup has taken a piece, the last one of some; `left` are the others."""
        if isinstance(outcome, Failure) or outcome.status != Answer.OK:
            peer.pushes = []
            self._later(peer, now)
            return
        (answers,) = parts(outcome.body, 1)
        if type(answers) is not list or len(answers) != len(sent):
            raise RemoteProtocolError("an answer to more or fewer pieces of copies than were sent")
        refused = False
        for (push, last), newer in zip(sent.items(), answers, strict=True):
            if newer is True:  # it has something that we should have: ask everybody
                self._core.counters["deposed"] += 1
                self._space.handover.reclaim(push.shard.partition, now)
            elif newer is not False:
                refused = True
            elif last:
                peer.wanted.pop(push.shard.partition, None)
                if push.shard.epoch == push.epoch and push.shard.serving:
                    push.shard.fills.pop(push.backup, None)
        at = self._core.pace.take(size, now)
        if refused:
            peer.pushes = []
            self._later(peer, now)
        elif left:
            peer.pushes = left
            self._core.timers.call_at(at, lambda now: self._push(peer, left, now))
        else:
            peer.pushes = []
            peer.attempt = 0
            peer.not_before = at
            self._core.timers.call_at(at, lambda now: self.wake())
        self.wake()

    # -- the backup ---------------------------------------------------------------------

    def offered(self, sender: Owner, body: list[Any], now: float) -> list[Any]:
        """Answer an OFFER: what we do not take from `sender`, and what we want."""
        refused, wanted, unheard = [], [], []
        for copy in parse_copies(parts(body, 1)[0]):
            shard = self._space.shards[copy.partition]
            if shard.primary != sender or not shard.reported:
                refused.append(copy.partition)
                if shard.primary == sender:
                    unheard.append(copy.partition)
                continue
            mine = copy_of(self._space, shard)
            if mine[:3] != copy[:3] or mine.cleared < copy.cleared:
                wanted.append(copy.partition)
            else:
                self._space.store.floors[copy.partition] = max(mine.floor, copy.floor)
        if unheard:
            self._space.handover.release(sender, unheard)
        return [bitmap(refused), bitmap(wanted)]

    def pushed(self, sender: Owner, body: list[Any], now: float) -> list[Any] | None:
        """Take pieces of copies; return of each whether we have something newer, or None; None if that of all.

        None: `sender` is not primary, did not ask us, or the pieces before are missing.
        """
        pieces, packed = parts(body, 2)
        records: dict[int, list[Record]] = {partition(piece[0]): [] for piece in rows(pieces, 6)}
        for record in parse_records(packed, now):
            if partition_of(record.key) not in records:
                raise RemoteProtocolError("a record of another partition than the pieces")
            records[partition_of(record.key)].append(record)
        answers = [self._piece(sender, piece, records[piece[0]], now) for piece in pieces]
        return None if answers.count(None) == len(answers) else [answers]

    def _piece(self, sender: Owner, piece: list[Any], records: list[Record], now: float) -> bool | None:
        place, mark, first, last, ends, outcomes = parts(piece, 6)
        start, floor, cleared = [version(end) for end in parts(ends, 3)]
        space, shard = self._space, self._space.shards[place]
        if shard.primary != sender or not shard.reported:
            return None
        if first:
            self._receiving[place] = (version(mark), {})
            space.learn(shard, outcomes, now)
        session = self._receiving.get(place)
        if session is None or session[0] != mark:
            return None
        seen = session[1]
        newer = False
        for record in records:
            seen[record.key] = None
            newer = newer or record.version < space.store.version_of(place, record.key) <= start
            space.apply(record, now)
        if last:
            if self._core.me not in shard.owners:
                space.handover.keep_house(now)
            del self._receiving[place]
            store = space.store
            store.clear(place, cleared)
            for key, entry in list(store.tables[place].items()):
                if entry.version <= start and key not in seen:
                    store.discard(place, key)
            store.floors[place] = max(store.floors[place], floor)
        return newer
