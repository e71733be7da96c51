"""Campaigns against the cache: several seeds of each kind, and faults planted in the machine that must be found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mycorrizal._cache.client import Client
from mycorrizal._cache.core import Core
from mycorrizal._cache.definition import Definition
from mycorrizal._cache.fill import Fill
from mycorrizal._cache.handover import Handover
from mycorrizal._cache.leases import Leases
from mycorrizal._cache.near import Near
from mycorrizal._cache.operations import Kind
from mycorrizal._cache.placement import partition_of
from mycorrizal._cache.primary import Primary
from mycorrizal._cache.replication import Replication
from mycorrizal._cache.space import Space
from mycorrizal._cache.store import Store
from mycorrizal._cache.versions import VersionClock
from mycorrizal.simulation.checkers import CheckFailed
from simulated.cache_campaign import KINDS, run_cache_campaign


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_campaign(kind: str, seed: int) -> None:
    report = run_cache_campaign(seed, kind=kind, duration=6.0)
    print(report)  # shown when it fails, and with -s
    assert report.operations > 100 and not report.undecided
    assert report.synced_after


@pytest.mark.parametrize(
    ("seed", "kind"), [(2150, "crashes"), (101920, "partitions"), (200048, "partitions"), (401220, "partitions")]
)
def test_campaign_that_once_found_something(seed: int, kind: str) -> None:
    """What a seed has found:

    2150: a member that retired in the middle of a write was not asked for it.
    101920: a member went out of the primary's view, and came back, before the primary had what it held; the member
    knew nothing of that, and threw away for the primary's sake what nobody else had.
    200048: a primary that ceased to serve and began again took the answer to an offer of before for one to now.
    401220: as 101920, but the member was no owner any more: the primary said that it need not keep its copy.
    """
    print(run_cache_campaign(seed, kind=kind))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 130))
def test_more_campaigns(seed: int) -> None:
    print(run_cache_campaign(seed))


@pytest.mark.parametrize("seed", range(3))
def test_without_sync_backups_histories_are_linearizable_while_nobody_dies(seed: int) -> None:
    run_cache_campaign(seed, kind="stable", definition=Definition("cache", sync_backups=False))


def test_the_same_seed_is_the_same_campaign() -> None:
    one, other = (run_cache_campaign("again", duration=3.0) for _ in range(2))
    assert one == other


def test_no_hash_order_matters() -> None:
    program = "from simulated.cache_campaign import *; print(run_cache_campaign(5, duration=3.0).digest)"
    tools = str(Path(__file__).parents[2] / "tools")
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": tools},
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1


# -- planted faults -------------------------------------------------------------------------


def forgets_the_backup(patch: pytest.MonkeyPatch) -> None:
    """Writes are acknowledged before the backup has them."""
    patch.setattr(Primary, "land", _land_at_once)
    write = Primary._write

    def hasty(self: Primary, shard: Any, pending: Any, entry: Any, now: float) -> None:
        write(self, shard, pending, entry, now)
        flight = shard.flights.get(pending.op.key)
        if flight is not None:
            flight.waiting.clear()
            self.land(flight, now)

    patch.setattr(Primary, "_write", hasty)


_land = Primary.land


def _land_at_once(self: Primary, flight: Any, now: float) -> None:
    flight.waiting.clear()
    _land(self, flight, now)


def serves_without_asking(patch: pytest.MonkeyPatch) -> None:
    """A new primary does not hear the others first."""
    claim = Handover.claim

    def eager(self: Handover, shard: Any, now: float, who: Any = None) -> None:
        claim(self, shard, now, who)
        shard.claim = None
        self._space.start_serving(shard, now)

    patch.setattr(Handover, "claim", eager)


def forgets_what_it_did(patch: pytest.MonkeyPatch) -> None:
    """Retries are done again."""
    patch.setattr(Primary, "_remembered", lambda self, shard, op, now: None)


def is_synced_at_once(patch: pytest.MonkeyPatch) -> None:
    """``synced`` does not look."""
    patch.setattr(Space, "synced", property(lambda self: True))


def lets_deletes_go(patch: pytest.MonkeyPatch) -> None:
    """Deletes leave no tombstone."""

    def bury(self: Store, key: bytes, version: int, now: float) -> bool:
        for table in self.tables:
            if key in table and table[key].version < version:
                self._remove(self.tables.index(table), table[key])
                return True
        return False

    patch.setattr(Store, "bury", bury)


def takes_the_latest_to_arrive(patch: pytest.MonkeyPatch) -> None:
    """Copies are overwritten by whatever comes last."""
    put = Store.put

    def blind(self: Store, key: bytes, value: bytes, version: int, expires: float) -> bool:
        for place, table in enumerate(self.tables):
            if key in table:
                self._remove(place, table[key])
        return put(self, key, value, version, expires)

    patch.setattr(Store, "put", blind)


def trusts_its_own_clock(patch: pytest.MonkeyPatch) -> None:
    """Versions do not rise above what was seen."""
    patch.setattr(VersionClock, "observe", lambda self, version, now: True)


def never_fills(patch: pytest.MonkeyPatch) -> None:
    """New backups get no copy of what was there."""

    def nothing(self: Fill, now: float) -> None:
        for shard in self._space.shards:
            shard.fills = {}

    patch.setattr(Fill, "flush", nothing)


def drops_copies_early(patch: pytest.MonkeyPatch) -> None:
    """Whoever is no owner any more keeps nothing, whether or not the owners have it."""

    def hasty(self: Handover, now: float) -> None:
        for shard in self._space.shards:
            if self._core.me not in shard.owners:
                self._space.store.forget(shard.partition)

    patch.setattr(Handover, "keep_house", hasty)


def gives_a_lock_twice(patch: pytest.MonkeyPatch) -> None:
    """Who waits for a lock gets it."""

    def park(self: Leases, pending: Any, look_at: float, now: float) -> None:
        self._space.store.discard(0, b"")
        for place, table in enumerate(self._space.store.tables):
            if pending.op.key in table:
                self._space.store.discard(place, pending.op.key)
        self._primary.submit(pending, now)

    patch.setattr(Leases, "park", park)


def takes_writes_from_anybody(patch: pytest.MonkeyPatch) -> None:
    """A backup that sees nothing newer acknowledges, and does not write."""
    receive = Replication.receive

    def careless(self: Replication, sender: Any, body: list[Any], now: float) -> list[Any]:
        if self._core.rng.random() < 0.2:
            return [[]]
        return receive(self, sender, body, now)

    patch.setattr(Replication, "receive", careless)


def keeps_near_copies(patch: pytest.MonkeyPatch) -> None:
    """Invalidations are heard, and the copies stay."""

    def deaf(self: Near, sender: Any, body: list[Any], now: float) -> None:
        for place in range(256):
            self.until[place] = max(self.until[place], now + 2.0) if self.tables[place] else self.until[place]

    patch.setattr(Near, "heard", deaf)


def reads_what_it_has_overwritten(patch: pytest.MonkeyPatch) -> None:
    """A write of the node's own leaves the near copy as it is."""
    patch.setattr(Near, "wrote", lambda self, key, now: None)


def evicts_nothing(patch: pytest.MonkeyPatch) -> None:
    """There are no bounds."""
    patch.setattr(Store, "_evict", lambda self: None)


def goes_on_reading(patch: pytest.MonkeyPatch) -> None:
    """A call that sends a lent value goes on when nobody waits for it any more."""
    patch.setattr(Core, "cancel", lambda self, number: None)


def stores_what_is_not_there(patch: pytest.MonkeyPatch) -> None:
    """A SET under a token is done where nothing is, whatever the token."""
    holds = Leases.holds

    def absent(self: Leases, op: Any) -> bool:
        return holds(self, op) or op.key not in self._space.store.tables[partition_of(op.key)]

    patch.setattr(Leases, "holds", absent)


def stores_whatever_was_computed(patch: pytest.MonkeyPatch) -> None:
    """Tokens are not looked at."""
    patch.setattr(Leases, "holds", lambda self, op: True)


def voids_nothing_by(*kinds: Kind) -> Callable[[pytest.MonkeyPatch], None]:
    """Changes of some kinds leave the tokens that are out."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        decided = Leases.decided

        def blind(self: Leases, op: Any) -> None:
            if op.kind not in kinds:
                decided(self, op)

        patch.setattr(Leases, "decided", blind)

    plant.__name__ = "voids_nothing_by_" + "_".join(kind.name.lower() for kind in kinds)
    return plant


def voids_only_what_is_there(patch: pytest.MonkeyPatch) -> None:
    """A delete of nothing, or a pop, leaves the tokens that are out."""
    decided = Leases.decided

    def blind(self: Leases, op: Any) -> None:
        if op.value is not None or op.key in self._space.store.tables[partition_of(op.key)]:
            decided(self, op)

    patch.setattr(Leases, "decided", blind)


def voids_what_has_lapsed(patch: pytest.MonkeyPatch) -> None:
    """What takes longer than its lease is not stored, as if somebody else had been done."""
    holds, run = Leases.holds, Primary._run
    clock = [0.0]

    def in_time(self: Leases, op: Any) -> bool:
        lease = self._tokens.get(op.key, {}).get(op.number)
        return holds(self, op) and lease is not None and lease.until > clock[0]

    def timed(self: Primary, shard: Any, pending: Any, now: float) -> None:
        clock[0] = now
        run(self, shard, pending, now)

    patch.setattr(Primary, "_run", timed)
    patch.setattr(Leases, "holds", in_time)


def takes_tokens_of_any_primary(patch: pytest.MonkeyPatch) -> None:
    """A primary that knows nothing of a token that another has given believes it."""
    holds = Leases.holds

    def foreign(self: Leases, op: Any) -> bool:
        return holds(self, op) or (op.number ^ self._core.clock._node) & 0xFFF != 0

    patch.setattr(Leases, "holds", foreign)


def withdraws_nothing(patch: pytest.MonkeyPatch) -> None:
    """What an interrupted caller was given is held for its whole time."""
    patch.setattr(Client, "_give_back", lambda self, op, now: None)


def clears_beside_writes(patch: pytest.MonkeyPatch) -> None:
    """A clear waits for no write, and none for it."""

    def submit(self: Primary, pending: Any, now: float) -> None:
        shard = self._space.shards[partition_of(pending.op.key)]
        flights, shard.behind = shard.flights, None
        if pending.op.kind == Kind.CLEAR:
            shard.flights = {key: flight for key, flight in flights.items() if key == pending.op.key}
            _submit(self, pending, now)
            shard.flights = {**flights, **shard.flights}
        else:
            _submit(self, pending, now)

    patch.setattr(Primary, "submit", submit)


_submit = Primary.submit


PLANTED: list[tuple[Callable[[pytest.MonkeyPatch], None], str]] = [
    (forgets_the_backup, "crashes"),
    (serves_without_asking, "crashes"),
    (forgets_what_it_did, "stable"),
    (is_synced_at_once, "crashes"),
    (lets_deletes_go, "partitions"),
    (takes_the_latest_to_arrive, "partitions"),
    (trusts_its_own_clock, "crashes"),
    (never_fills, "crashes"),
    (drops_copies_early, "crashes"),
    (gives_a_lock_twice, "stable"),
    (takes_writes_from_anybody, "crashes"),
    (keeps_near_copies, "near"),
    (reads_what_it_has_overwritten, "near"),
    (evicts_nothing, "bounds"),
    (goes_on_reading, "stable"),
    (stores_what_is_not_there, "computing"),
    (stores_whatever_was_computed, "computing"),
    (voids_nothing_by(Kind.DELETE), "computing"),
    (voids_nothing_by(Kind.CLEAR), "computing"),
    (voids_nothing_by(Kind.CAS), "computing"),
    (voids_nothing_by(Kind.SET), "computing"),
    (voids_only_what_is_there, "computing"),
    (voids_what_has_lapsed, "computing"),
    (takes_tokens_of_any_primary, "computing"),
    (clears_beside_writes, "computing"),
    (withdraws_nothing, "computing"),
]


@pytest.mark.parametrize(("fault", "kind"), PLANTED, ids=lambda item: getattr(item, "__name__", item))
def test_planted_fault_is_found(fault: Callable[[pytest.MonkeyPatch], None], kind: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        found = []
        for seed in range(25):
            try:
                run_cache_campaign(seed, kind=kind)
            except CheckFailed as failed:
                found.append(failed)
                break
    print(*found)
    assert found
