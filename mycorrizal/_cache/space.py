"""One cache on one node: its store, its partitions, and the parts that move them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from .client import Client
from .columns import pack_outcomes, parse_outcomes
from .core import Core
from .definition import Definition
from .entry import CLEAR_PREFIX, ENTRY_BYTES, NEVER, Entry
from .fill import Fill
from .handover import Handover
from .messages import Record
from .near import Near
from .operations import Status
from .placement import PARTITIONS, Owner, partition_of
from .primary import Primary
from .replication import Replication, outcome_of
from .shard import Shard, make_outcome
from .store import Store
from .survey import Survey
from .timers import Timer

__all__ = ["Space", "SpaceCounters"]

_NOTHING: dict[bytes, Entry] = {}


class SpaceCounters:
    """What was asked of this node as primary."""

    __slots__ = ("gets", "hits", "writes")

    def __init__(self) -> None:
        self.gets = 0
        self.hits = 0
        self.writes = 0


class Space:
    """Owned by the machine.

    Attributes:
        members: processes that announce the cache, by our view, sorted.
        former: processes that did, and live: they may hold copies still.
        readable: for each partition the table that other threads may read from; an empty one where we may not.
        retired: this node takes part no more, and hands over what it has.
        used: somebody has asked for something; False where it was just opened.
        moved: something changed that claims and fills must look at, at the end of the turn.
    """

    def __init__(self, core: Core, definition: Definition, now: float) -> None:
        self.core = core
        self.definition = definition
        self.name = definition.name
        self.store = Store(definition, core.limits)
        self.shards = [Shard(partition, now) for partition in range(PARTITIONS)]
        self.readable: list[dict[bytes, Entry]] = [_NOTHING] * PARTITIONS
        self.members: dict[Owner, None] = {}
        self.former: dict[Owner, None] = {}
        self.counters = SpaceCounters()
        self.moved = False
        self.retired = False
        self.used = True
        self._forgetting = False
        self._due = NEVER  # when something is to be taken out of the store
        self._timer: Timer | None = None
        self.view = b""
        self._seen: list[Owner] | None = None  # the members, where that is not taken for what holds yet
        self._bound(definition)
        self.primary = Primary(self)
        self.replication = Replication(self)
        self.handover = Handover(self)
        self.fill = Fill(self, now)
        self.near = Near(self, now)
        self.client = Client(self)
        self.survey = Survey(self)

    @property
    def has_quorum(self) -> bool:
        """Whether enough members announce the cache."""
        return len(self.members) >= self.definition.quorum

    # -- the view -----------------------------------------------------------------------

    def set_view(self, members: list[Owner], now: float) -> None:
        """These processes, sorted, announce the cache now, or other ones than before live. Nothing else has changed.

        As long as no claims are sent partitions are not placed, unless somebody asks (``settle``): where many open a
        cache at once each would be placed anew for each of them.
        """
        self._seen = members
        if self.retired or not self.handover.holds_back(now):
            self.settle(now)
        else:
            self.core.lull.news(self, now)

    def leader(self, partition: int) -> Owner | None:
        """Return who is primary of a partition by the last view, whether that is settled or not. Any thread."""
        seen = self._seen
        return self.shards[partition].primary if seen is None else self.core.placement.primary(seen, partition)

    def settle(self, now: float) -> None:
        """Take the members that were seen last for what holds: somebody asks, or will be asked."""
        members, self._seen = self._seen, None
        if members is not None:
            self._take_view(members, now)

    def _take_view(self, members: list[Owner], now: float) -> None:
        gone = [member for member in self.members if member not in members]
        added = [member for member in members if member not in self.members]
        if gone:
            self.store.grieve(now + self.core.limits.graves_age)
        former = [member for member in (*self.former, *gone) if member in self.core.alive and member not in members]
        self.former = dict.fromkeys(former)
        if added or gone or not self.view:
            self._place(members, added, gone, now)
        self.handover.members_changed(now)
        self.handover.ask_unheard(now)
        self.replication.forget(self.members)
        self.handover.forget(self.core.alive)
        self.fill.forget(self.members)
        self.primary.leases.members_changed(self.core.alive, now)
        self.handover.keep_house(now)
        self.wake()

    def _place(self, members: list[Owner], added: list[Owner], gone: list[Owner], now: float) -> None:
        """Others are members than before: find the owners of each partition, and move what is to be moved."""
        had_quorum = self.has_quorum
        self.members = dict.fromkeys(members)
        named = [b"%s\0%s\0" % (name.encode(), boot) for name, boot in members]
        named.append(b"%d" % self.definition.replicas)
        self.view = blake2b(b"".join(named), digest_size=8).digest()
        before = [shard.owners for shard in self.shards]
        placed = self.core.placement.owners(members, self.definition.replicas, before, added, gone)
        for shard, owners in zip(self.shards, placed, strict=True):
            if owners is not shard.owners and owners != shard.owners:
                self._move(shard, owners, now)
                self._show(shard)
        self.handover.tell_newcomers(added)
        self.handover.agree_after_all()
        if not (self.has_quorum and had_quorum):
            for shard in self.shards:
                self._show(shard)
                if not self.has_quorum:
                    self.near.drop(shard.partition)

    def redefine(self, definition: Definition, now: float) -> None:
        """The cache has other settings from now on; entries keep the time to live that they have."""
        same, self.definition = definition == self.definition, definition
        if same:
            return  # another edition of them
        self._bound(definition)
        self.store.bound(definition)
        self.near.enable(definition.near, now)
        if self.view:
            self.view = b""  # partitions may have more owners, or fewer
            self.set_view(list(self.members) if self._seen is None else self._seen, now)
        for shard in self.shards:
            self._show(shard)
            if shard.serving:
                self.near.invalidate_all(shard)  # nobody was told of what was written without near copies
            if not self.has_quorum:
                self.near.drop(shard.partition)
        self.touch()

    def _bound(self, definition: Definition) -> None:
        self.value_max = self.core.limits.value_bytes
        if definition.max_bytes is not None:
            self.value_max = min(self.value_max, definition.max_bytes - ENTRY_BYTES)

    def _move(self, shard: Shard, owners: tuple[Owner, ...], now: float) -> None:
        """A partition has other owners than before."""
        me = self.core.me
        before, shard.owners = shard.owners, owners
        shard.epoch += 1
        was = bool(before) and before[0] == me
        if shard.primary == me:
            if not was:
                self.near.drop(shard.partition)
                self.handover.claim(shard, now)
            elif shard.serving:
                known = owners if self._is_new(shard) else before
                shard.fills = {
                    backup: None for backup in owners[1:] if backup in shard.fills or backup not in known
                }
                self.primary.owners_changed(shard, before, now)
            return
        shard.wrote = False
        if was:
            self.stop_serving(shard, now)
            self.handover.drop_claim(shard)
            shard.fills = {}
        if not before or shard.primary != before[0]:
            self.near.drop(shard.partition)
            shard.reported = not self.holds(shard)

    def _show(self, shard: Shard) -> None:
        """Let other threads read a partition, or let them do so no more."""
        me, owners = self.core.me, shard.owners
        mine = shard.serving or (self.definition.read_backups and me in owners[1:])
        self.readable[shard.partition] = self.store.tables[shard.partition] if mine and self.has_quorum else _NOTHING

    def _is_new(self, shard: Shard) -> bool:
        """Return whether there never was anything of a partition, as far as all say: then no backup lacks anything.

        One that has something says so, and is no backup of ours until it was asked for that.
        """
        return shard.claim is None and not shard.outcomes and self.store.pristine(shard.partition)

    def start_serving(self, shard: Shard, now: float) -> None:
        """We have what there is of a partition that we are primary of."""
        shard.serving = True
        shard.epoch += 1  # what was offered and pushed before says nothing of now
        shard.wrote = False
        shard.fills = {} if self._is_new(shard) else dict.fromkeys(shard.owners[1:])
        self._show(shard)
        self.near.invalidate_all(shard)
        self.wake()

    def stop_serving(self, shard: Shard, now: float) -> None:
        """We are not primary any more, or not sure to have what there is."""
        if shard.serving:
            shard.serving = False
            self._show(shard)
            self.primary.resign(shard, now)

    def touch(self) -> None:
        """Send what there is to send at the end of the turn."""
        self.core.touched[self] = None

    def wake(self) -> None:
        """Look at claims and fills at the end of the turn."""
        self.moved = True
        self.core.touched[self] = None

    def flush(self, now: float) -> None:
        """The end of a turn: send what is to be sent."""
        self.client.flush(now)
        while self.moved:
            self.moved = False
            self.handover.flush(now)
            self.fill.flush(now)
        self.replication.flush(now)
        self.near.flush()

    def arm(self) -> None:
        """The end of a turn: have what expires taken out when it does."""
        due = self.store.next_timer()
        if due is not None and due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due, self._timer = due, self.core.timers.call_at(due, self._tick)

    def _tick(self, now: float) -> None:
        """Take out what expired; a lock that did is news for who waits for it."""
        self._due, self._timer = NEVER, None
        for entry in self.store.tick(now):
            self.primary.leases.expired(entry.key, now)
        self.core.stirred[self] = None

    # -- copies -------------------------------------------------------------------------

    def holds(self, shard: Shard) -> bool:
        """Return whether there is anything of a partition here that others might lack."""
        return self.store.holds(shard.partition) or bool(shard.outcomes)

    @property
    def is_empty(self) -> bool:
        """Return whether no partition ``holds`` anything."""
        return self.store.is_empty and not any(shard.outcomes for shard in self.shards)

    def apply(self, record: Record, now: float) -> bool:
        """Write what was decided, here or by the primary; False if its version is absurdly far ahead of our clock."""
        if not self.core.clock.observe(record.version, now):
            self.core.counters["versions_refused"] += 1
            return False
        if record.value is None or record.expires != NEVER:
            self.core.stirred[self] = None
        if record.value is not None and record.expires > now:
            self.store.put(record.key, record.value, record.version, record.expires)
        elif record.key.startswith(CLEAR_PREFIX):
            self.store.clear(partition_of(record.key), record.version)
        else:
            self.store.bury(record.key, record.version, now)
        return True

    def write_all(self, writes: Sequence[tuple[Shard, Record]], now: float) -> None:
        """Write what was decided, as ``apply`` and ``remember`` would one by one: no clears, and of no odd version."""
        put, store, limits = self.store.put, self.store, self.core.limits
        remembered: dict[int, Shard] = {}
        for shard, (key, value, version, expires, op, status, number) in writes:
            if value is not None and expires > now:
                put(key, value, version, expires)
            else:
                store.bury(key, version, now)
            if op:
                shard.outcomes[op] = make_outcome((status, number, version, now))
                remembered[shard.partition] = shard
        for shard in remembered.values():
            shard.trim(now, limits.outcomes, limits.outcomes_age)
        if remembered:
            self._will_forget(now)
        self.core.stirred[self] = None

    def remember(self, shard: Shard, record: Record, now: float) -> None:
        """Keep the outcome of a write for retries."""
        if record.op:
            limits = self.core.limits
            shard.remember(record.op, outcome_of(record, now), limits.outcomes, limits.outcomes_age)
            self._will_forget(now)

    def _will_forget(self, now: float) -> None:
        if not self._forgetting:
            self._forgetting = True
            self.core.timers.call_at(now + self.core.limits.outcomes_age, self._forget)

    def _forget(self, now: float) -> None:
        """Let go of outcomes that no retry can ask for any more, also where nothing is written."""
        age = self.core.limits.outcomes_age
        dues = [due for shard in self.shards if (due := shard.forget(now, age)) is not None]
        self._forgetting = bool(dues)
        if dues:
            self.core.timers.call_at(min(dues), self._forget)

    def outcomes(self, shard: Shard, now: float) -> list[Any]:
        """Return what is remembered, for a message: how far back it is complete, then each."""
        return pack_outcomes(shard.complete_since, shard.outcomes, now)

    def learn(self, shard: Shard, known: object, now: float, *, doubtful: bool = False) -> None:
        """Take what another copy remembers; `doubtful`: of writes that ours may have been made without."""
        if known == []:  # it stands in the first piece
            return
        since, outcomes = parse_outcomes(known, now)
        shard.complete_since = min(shard.complete_since, since)
        for op, outcome in outcomes.items():
            if op not in shard.outcomes and len(shard.outcomes) < self.core.limits.outcomes:
                shard.outcomes[op] = outcome._replace(status=Status.FORGOTTEN) if doubtful else outcome

    # -- what others ask ----------------------------------------------------------------

    @property
    def synced(self) -> bool:
        """Whether every partition that is ours is in place, by our view, and nobody lacks what we hold."""
        return not self.replication.behind and all(
            (shard.serving and shard.claim is None and not shard.fills)
            if shard.primary == self.core.me
            else (bool(shard.owners) and (shard.reported or not self.holds(shard)))
            for shard in self.shards
        )

    def stats(self, now: float | None = None) -> dict[str, int]:
        """Return plain numbers about this node's part; without `now` what has just expired is an entry still."""
        store = self.store
        over = [] if now is None else store.expired(now)
        ours = sum(len(store.tables[shard.partition]) for shard in self.shards if shard.serving)
        gone = sum(self.shards[partition_of(key)].serving for key in over)
        return {
            "entries": store.entries,
            "bytes": store.bytes,
            "primary_entries": max(0, ours - gone),
            "tombstones": sum(map(len, store.graves)),
            "tombstones_dropped": store.counters.graves_dropped,
            "served_gets": self.counters.gets,
            "served_hits": self.counters.hits,
            "served_writes": self.counters.writes,
            "evicted": store.counters.evicted,
            "expired": store.counters.expired,
            "outdated": store.counters.outdated,
            "partitions": sum(shard.serving for shard in self.shards),
        }
