"""How a partition gets a new primary that has everything: claim, agree, pull.

A new primary asks *every* member that announces the cache what it holds. A
member that agrees takes no writes from anybody else from then on; one whose
view says otherwise refuses, says when it would not any more (``RELEASE``), and
is asked again until the views meet, or it is gone from ours. What those who
agreed hold is pulled, newest version wins, and only then does the primary
serve. So of two nodes that both hold themselves for primary, one cannot
complete a write.

Who holds copies and sees another primary than before expects to be asked; if
it is not, it says so (``RELEASE``), which covers a primary that was thought
dead and does not know it, and the halves of a cluster that meet again, or that
began apart; and a newcomer, which may wait for a lull. Until it was asked it
takes no copies from that primary, since a copy replaces what is here. A member
that never agrees holds a primary up for ``takeover_patience`` seconds, no
longer.

A member that is no owner any more keeps its copy until the primary says that
all owners have theirs (``SURPLUS``).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from ..exceptions import RemoteProtocolError
from .columns import pack_records, parse_records
from .core import Failure
from .messages import (
    Answer,
    Copy,
    Message,
    Record,
    Reply,
    pack_copies,
    parse_copies,
    partition,
    partitions,
    parts,
    rows,
)
from .placement import Owner, bitmap, partition_of
from .shard import Shard

if TYPE_CHECKING:
    from .space import Space

__all__ = ["Claim", "Handover", "copy_of"]

_RELEASE_AFTER = 0.3
_UNHEARD_MAX = 256  # processes; 0.3 KB each
_HOUSEKEEPING = 1.0
_LONGER = 8  # the longest pause after a refusal, in others: who refused will say when it agrees


class Claim:
    """What the primary of one partition still has to hear.

    Attributes:
        asking: members that have not agreed yet.
        pulling: members that have, and what they say they hold.
        waiting: it may be sent, and so it ends after a while whoever has not agreed.
    """

    __slots__ = ("asking", "pulling", "waiting")

    def __init__(self) -> None:
        self.waiting = False
        self.asking: dict[Owner, None] = {}
        self.pulling: dict[Owner, Copy] = {}


class _Peer:
    """What is going on with one member."""

    __slots__ = ("attempt", "claiming", "not_before", "pull_after", "pulls")

    def __init__(self) -> None:
        self.pull_after = 0.0
        self.claiming = False
        self.attempt = 0
        self.not_before = 0.0
        self.pulls: list[_Pull] = []  # together, in one message after the other


class _Pull:
    """A partition on its way from one member: by now the keys up to ``after`` are here."""

    __slots__ = ("after", "claim", "copy", "member", "seen", "shard")

    def __init__(self, member: Owner, shard: Shard, claim: Claim, copy: Copy) -> None:
        self.member = member
        self.shard = shard
        self.claim = claim
        self.copy = copy
        self.after = b""
        self.seen: dict[bytes, None] = {}

    @property
    def live(self) -> bool:
        """Whether it is wanted still."""
        return self.shard.claim is self.claim and self.member in self.claim.pulling


def copy_of(space: Space, shard: Shard) -> Copy:
    """Return what we hold of a partition; the digest covers entries and tombstones."""
    place, store = shard.partition, space.store
    count = len(store.tables[place]) + len(store.graves[place]) + len(shard.outcomes)
    digest = store.digests[place] ^ store.grave_digests[place] ^ shard.outcomes_digest()
    return Copy(place, count, digest, store.floors[place], store.cleared[place])


class Handover:
    """Both ends of it, for one cache on one node."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._core = space.core
        self._peers: dict[Owner, _Peer] = {}
        self._housekeeping = False
        self._not_before = 0.0  # for all claims
        self._claiming: dict[Shard, None] = {}  # those with a claim
        self._refused: dict[Owner, list[int]] = {}  # what members claimed last that is not theirs by our view
        # Processes that we had not heard, of the partitions whose bits are set, when they went out of our view, or we
        # ceased to be primary by it. They may not know that, and think that we have what they hold.
        self._unheard: dict[Owner, int] = {}

    # -- what the view brings -----------------------------------------------------------

    def claim(self, shard: Shard, now: float, who: Owner | None = None) -> None:
        """We are primary of `shard`: hear everybody (and `who`) before serving."""
        before, claim = shard.claim, Claim()
        shard.claim = claim
        self._claiming[shard] = None
        everybody = (*self._space.members, *self._space.former)
        claim.asking = {member: None for member in everybody if member != self._core.me}
        if before is not None:  # who was to be heard is still, even if we do not know that it has the cache
            claim.asking.update(dict.fromkeys([*before.asking, *before.pulling]))
        if who is not None:
            claim.asking[who] = None
        shard.fills = {}
        for member in claim.asking:
            self._will_hear(shard, member)
        self._core.counters["claims"] += 1
        if not self.holds_back(now):
            self._wait(shard, claim, now)
        self._advance(shard, now)
        self._space.wake()

    def _wait(self, shard: Shard, claim: Claim, now: float) -> None:
        """`claim` may be sent from now on."""
        if claim.asking and not claim.waiting:
            claim.waiting = True
            patience = now + self._core.limits.takeover_patience
            self._core.timers.call_at(patience, lambda now: self._impatient(shard, claim, now))

    def members_changed(self, now: float) -> None:
        """Others may have come or gone: who went is not waited for."""
        members = self._core.alive
        for shard, claim in self._claims():
            if len(shard.heard) > len(members):
                shard.heard = {member: at for member, at in shard.heard.items() if member in members}
            for table in (claim.asking, claim.pulling):
                for member in [member for member in table if member not in members]:
                    del table[member]
                    self._missed(shard, member)
            self._advance(shard, now)

    def ask_unheard(self, now: float) -> None:
        """Others may have come or gone: who is back and was not heard is asked."""
        for member in [member for member in self._unheard if member in self._core.alive]:
            for shard in self._space.shards:
                if shard.primary == self._core.me and self._is_unheard(shard, member):
                    self._will_hear(shard, member)
                    self.reclaim(shard.partition, now, member)

    def drop_claim(self, shard: Shard) -> None:
        """We are primary of `shard` no more. Whoever agreed and was not heard may never know of that."""
        claim, shard.claim = shard.claim, None
        shard.heard = {}
        if claim is not None:
            del self._claiming[shard]
            for member in (*claim.asking, *claim.pulling):
                self._missed(shard, member)

    def heard(self, shard: Shard, member: Owner, since: float, now: float) -> bool:
        """Whether what `member` did before `since` is here; if it may not be, and it can be asked, it is."""
        claim = shard.claim
        pulled = claim is None or not (member in claim.asking or member in claim.pulling)
        if member == self._core.me or (pulled and shard.heard.get(member, since - 1.0) >= since):
            return True
        if member in self._core.alive:
            self.reclaim(shard.partition, now, member)
        return False

    def _missed(self, shard: Shard, member: Owner) -> None:
        """`member` goes before we have what it holds. It may come back and think that we do."""
        self._unheard[member] = self._unheard.get(member, 0) | 1 << shard.partition
        if len(self._unheard) > _UNHEARD_MAX:
            del self._unheard[next(iter(self._unheard))]
            self._core.counters["unheard_dropped"] += 1

    def _is_unheard(self, shard: Shard, member: Owner) -> bool:
        return bool(self._unheard.get(member, 0) >> shard.partition & 1)

    def _will_hear(self, shard: Shard, member: Owner) -> None:
        if self._is_unheard(shard, member):
            self._unheard[member] ^= 1 << shard.partition
            if not self._unheard[member]:
                del self._unheard[member]

    def reclaim(self, place: int, now: float, who: Owner | None = None) -> None:
        """Somebody has what we may not have; `who` may be one that announces the cache no more."""
        shard = self._space.shards[place]
        if shard.primary != self._core.me:
            return
        if shard.claim is None or shard.serving:
            self._space.stop_serving(shard, now)
            self._core.counters["reclaims"] += 1
            self.claim(shard, now, who)
        elif who is not None:
            shard.claim.asking[who] = None
            self._space.wake()

    def _impatient(self, shard: Shard, claim: Claim, now: float) -> None:
        if shard.claim is claim and not shard.serving and shard.primary == self._core.me:
            self._core.counters["takeovers_forced"] += 1
            self._space.start_serving(shard, now)

    def _advance(self, shard: Shard, now: float) -> None:
        claim = shard.claim
        if claim is not None and not claim.asking and not claim.pulling:
            shard.claim = None
            del self._claiming[shard]
            if not shard.serving:
                self._space.start_serving(shard, now)

    def forget(self, members: dict[Owner, None]) -> None:
        """Keep what goes on with `members` only."""
        for table in (self._peers, self._refused):
            for member in [member for member in table if member not in members]:
                del table[member]

    # -- asking -------------------------------------------------------------------------

    def hold(self, until: float) -> None:
        """Send no claims before: who has not heard that we are a member refuses them."""
        self._not_before = until
        self._core.timers.call_at(until, self.proceed)

    def holds_back(self, now: float) -> bool:
        """Return whether no claims are sent yet."""
        return now < self._not_before or self._space in self._core.lull

    def proceed(self, now: float) -> None:
        """Send the claims that were held back, unless they still are."""
        if not self.holds_back(now):
            self._space.settle(now)
            for shard, claim in self._claims():
                self._wait(shard, claim, now)
            self._space.wake()

    def _claims(self) -> list[tuple[Shard, Claim]]:
        return [(shard, shard.claim) for shard in self._claiming if shard.claim is not None]

    def flush(self, now: float) -> None:
        """Send the claims and pulls that may be sent: at the end of every turn."""
        if self.holds_back(now):
            return
        asked: dict[Owner, list[int]] = {}
        pulled: dict[Owner, None] = {}
        later = {member for member, peer in self._peers.items() if peer.claiming or peer.not_before > now}
        for shard, claim in self._claims():
            for member in claim.asking:
                if member not in later:
                    asked.setdefault(member, []).append(shard.partition)
            pulled.update(dict.fromkeys(claim.pulling))
        for member, places in asked.items():
            self._ask(member, self._peers.setdefault(member, _Peer()), places)
        for member in pulled:
            peer = self._peers.setdefault(member, _Peer())
            if not peer.pulls and peer.pull_after <= now:
                self._next_pulls(member, peer, now)

    def _ask(self, member: Owner, peer: _Peer, places: list[int]) -> None:
        peer.claiming = True
        claims = {place: self._space.shards[place].claim for place in places}

        def done(outcome: Reply | Failure, now: float) -> None:
            peer.claiming = False
            agreed = self._heard(member, claims, outcome, now)
            if agreed == len(claims):
                peer.attempt = 0
                if any(member in claim.asking for _, claim in self._claims()):
                    self._space.wake()
                return
            refused = not isinstance(outcome, Failure) and outcome.status == Answer.OK
            peer.not_before = self._core.next_try(peer.attempt, now, _LONGER if refused else 1)
            peer.attempt += 1
            self._core.timers.call_at(peer.not_before, lambda now: self._space.wake())

        self._core.ask(member, Message.CLAIM, self._space, lambda: [bitmap(places)], done)

    def _heard(self, member: Owner, claims: dict[int, Claim | None], outcome: Reply | Failure, now: float) -> int:
        if isinstance(outcome, Failure):
            return 0
        if outcome.status == Answer.UNKNOWN_CACHE and member not in self._space.members:
            return self._holds_nothing(member, claims, now)
        if outcome.status != Answer.OK:
            return 0  # if it does not know a cache that it announces, it will in a moment
        agreed = 0
        held, empty = parts(outcome.body, 2)
        for copy in [*parse_copies(held), *[Copy(place, 0, 0, 0, 0) for place in partitions(empty)]]:
            shard = self._space.shards[copy.partition]
            claim = shard.claim
            if claim is None or claims.get(copy.partition) is not claim or member not in claim.asking:
                continue
            agreed += 1
            del claim.asking[member]
            shard.heard[member] = now
            store = self._space.store
            if (
                copy.size
                or copy.cleared > store.cleared[copy.partition]
                or copy.floor > store.floors[copy.partition]
            ):
                claim.pulling[member] = copy
                self._space.wake()
            self._advance(shard, now)
        return agreed

    def _holds_nothing(self, member: Owner, claims: dict[int, Claim | None], now: float) -> int:
        """`member` announces the cache no more, and has forgotten it."""
        for place, claim in claims.items():
            shard = self._space.shards[place]
            if claim is not None and shard.claim is claim:
                claim.asking.pop(member, None)
                shard.heard[member] = now
                self._advance(shard, now)
        return len(claims)

    def _next_pulls(self, member: Owner, peer: _Peer, now: float) -> None:
        """Start on the next partitions that `member` has and we do not, as many as one message may hold."""
        pulls, size = list[_Pull](), 0
        for shard, claim in self._claims():
            if member not in claim.pulling:
                continue
            copy = claim.pulling[member]
            if copy[:3] == copy_of(self._space, shard)[:3]:
                self._pulled(shard, claim, member, copy, None, now)
                continue
            pulls.append(_Pull(member, shard, claim, copy))
            size += copy.size
            if size >= self._core.limits.batch_records:
                break
        if pulls:
            self._pull(peer, pulls, now)

    def _pull(self, peer: _Peer, pulls: list[_Pull], now: float) -> None:
        peer.pulls = pulls

        def done(outcome: Reply | Failure, now: float) -> None:
            if peer.pulls is not pulls:
                return
            live = [pull for pull in pulls if pull.live]
            if not live:
                peer.pulls = []
                self._space.wake()
            elif isinstance(outcome, Failure) or outcome.status != Answer.OK:
                self._pulls_failed(peer, live, now)
            else:
                self._given(peer, pulls, outcome.body, now)

        body = [[[pull.shard.partition, pull.after] for pull in pulls]]
        self._core.call(pulls[0].member, Message.PULL, self._space.name, body, done, now)

    def _continue(self, peer: _Peer, pulls: list[_Pull], now: float) -> None:
        if peer.pulls is pulls:
            self._pull(peer, pulls, now)

    def _pulls_failed(self, peer: _Peer, pulls: list[_Pull], now: float) -> None:
        """Ask for its agreement again: its view may have changed."""
        peer.pulls = []
        for pull in pulls:
            pull.claim.pulling.pop(pull.member, None)
            pull.claim.asking[pull.member] = None
        peer.not_before = self._core.next_try(peer.attempt, now)
        peer.attempt += 1
        self._core.timers.call_at(peer.not_before, lambda now: self._space.wake())

    def _given(self, peer: _Peer, pulls: list[_Pull], body: list[Any], now: float) -> None:
        """Take pieces of copies, of as many partitions as there was room for in the message."""
        packed, pieces = parts(body, 2)
        records: dict[int, list[Record]] = {pull.shard.partition: [] for pull in pulls}
        size = 0
        for record in parse_records(packed, now):
            size += len(record.value or b"") + 100
            if partition_of(record.key) not in records:
                raise RemoteProtocolError("a piece of a copy that nobody asked for")
            records[partition_of(record.key)].append(record)
        if not rows(pieces, 0) or len(pieces) > len(pulls):
            raise RemoteProtocolError("pieces of no copies, or of too many")
        whole, refused, left = list[_Pull](), list[_Pull](), pulls[len(pieces) :]
        for pull, piece in zip(pulls, pieces, strict=False):
            if not pull.live:
                continue
            if not piece:
                refused.append(pull)
            elif self._merge(pull, records[pull.shard.partition], piece, now):
                left.append(pull)
            else:
                whole.append(pull)
        at = self._core.pace.take(size, now)
        peer.pulls = [] if refused else left
        peer.pull_after = at
        for pull in whole:
            self._pulled(pull.shard, pull.claim, pull.member, pull.copy, pull.seen, now)
        if refused:
            self._pulls_failed(peer, refused, now)
        elif not left:
            self._core.timers.call_at(at, lambda now: self._space.wake())
        elif at > now:
            self._core.timers.call_at(at, lambda now: self._continue(peer, left, now))
        else:
            self._pull(peer, left, now)

    def _merge(self, pull: _Pull, records: list[Record], piece: list[Any], now: float) -> bool:
        """Take a piece of a copy; return whether there is more of it."""
        following, outcomes = parts(piece, 2)
        space, shard = self._space, pull.shard
        space.learn(shard, outcomes, now, doubtful=shard.wrote)
        floor = space.store.floors[shard.partition]
        if pull.copy.cleared > space.store.cleared[shard.partition]:
            space.store.clear(shard.partition, pull.copy.cleared)
        for record in records:
            if pull.copy.floor > floor:
                pull.seen[record.key] = None
            if record.version <= floor and not space.store.version_of(shard.partition, record.key):
                self._core.counters["deleted_long_ago"] += 1
                continue
            space.apply(record, now)
        pull.after = following if type(following) is bytes else b""
        return bool(pull.after)

    def _pulled(
        self, shard: Shard, claim: Claim, member: Owner, copy: Copy, seen: dict[bytes, None] | None, now: float
    ) -> None:
        """We have all that `member` has: the keys `seen`, or (None) the same as we."""
        store = self._space.store
        if copy.floor > store.floors[shard.partition]:
            if seen is not None:
                for key, entry in list(store.tables[shard.partition].items()):
                    if entry.version <= copy.floor and key not in seen:
                        store.discard(shard.partition, key)
                        self._core.counters["deleted_long_ago"] += 1
            store.floors[shard.partition] = copy.floor
        claim.pulling.pop(member, None)
        self._advance(shard, now)

    # -- being asked --------------------------------------------------------------------

    def agree(self, sender: Owner, body: list[Any], now: float) -> list[Any]:
        """Answer a CLAIM: which of the partitions we agree to, and what we hold of them."""
        copies, empty = [], []
        self._refused[sender] = refused = []
        for place in partitions(parts(body, 1)[0]):
            shard = self._space.shards[place]
            if shard.primary != sender:
                self._core.counters["claims_refused"] += 1
                refused.append(place)
                continue
            shard.reported = True
            if self._space.holds(shard):
                copies.append(copy_of(self._space, shard))
            else:
                empty.append(place)
        return [pack_copies(copies), bitmap(empty)]

    def give(self, sender: Owner, body: list[Any], now: float) -> tuple[list[Any], int] | None:
        """Answer a PULL: pieces of copies, as far as there is room, and the largest part; None: nothing is `sender`'s.

        Of each partition keys in their order, the last of them if there are more, and outcomes; nothing of one that
        `sender` is not primary of.
        """
        limits, store = self._core.limits, self._space.store
        records, pieces, size, told = list[Record](), list[list[Any]](), 0, 0
        for place, after, *_ in rows(parts(body, 1)[0], 2):
            if max(len(records), told) >= limits.batch_records or size >= limits.batch_bytes:
                break
            shard = self._space.shards[partition(place)]
            if shard.primary != sender or type(after) is not bytes:
                pieces.append([])
                continue
            table, graves = store.tables[place], store.graves[place]
            keys = [key for source in (table, graves) for key in source if key > after]
            before = len(records)
            for key in heapq.nsmallest(limits.batch_records - before, keys):
                entry = table.get(key)
                if entry is None:
                    records.append(Record(key, None, graves[key]))
                else:
                    records.append(Record(key, entry.value, entry.version, entry.expires))
                    size += len(entry.value)
                if size >= limits.batch_bytes:
                    break
            following = records[-1].key if len(records) - before < len(keys) else b""
            pieces.append([following, self._space.outcomes(shard, now) if not after else []])
            told += len(shard.outcomes)
        if not any(pieces):
            return None
        packed, largest = pack_records(records, now)
        return [packed, pieces], largest

    def released(self, sender: Owner, body: list[Any], now: float) -> list[Any] | None:
        """A member has copies that we should have asked for."""
        places = partitions(parts(body, 1)[0])
        if sender not in self._core.alive or any(
            self._space.shards[place].primary != self._core.me for place in places
        ):
            return None
        for place in places:
            shard = self._space.shards[place]
            if shard.claim is not None and (sender in shard.claim.asking or sender in shard.claim.pulling):
                self._ask_now(sender, now)
                continue
            self.reclaim(place, now, sender)
        return []

    def _ask_now(self, member: Owner, now: float) -> None:
        """`member` refused claims, and would not any more."""
        peer = self._peers.get(member)
        if peer is not None and peer.not_before > now:
            peer.not_before, peer.attempt = now, 0
            self._space.wake()

    def surplus(self, sender: Owner, body: list[Any], now: float) -> list[Any]:
        """Answer which copies `sender` may drop."""
        settled = []
        for place in partitions(parts(body, 1)[0]):
            shard = self._space.shards[place]
            if (
                shard.primary == self._core.me
                and shard.serving
                and shard.claim is None
                and not shard.fills
                and sender not in shard.owners
                and not self._is_unheard(shard, sender)
            ):
                settled.append(place)
        return [bitmap(settled)]

    # -- what we hold and others should know --------------------------------------------

    def keep_house(self, now: float) -> None:
        """From time to time: tell primaries what they did not ask for, and drop what is not ours."""
        if not self._housekeeping:
            self._housekeeping = True
            self._core.timers.call_at(now + _RELEASE_AFTER, self._keep_house)

    def _keep_house(self, now: float) -> None:
        self._housekeeping = False
        if self._space.is_empty:
            return
        unreported: dict[Owner, list[int]] = {}
        surplus: dict[Owner, list[int]] = {}
        for shard in self._space.shards:
            primary = shard.primary
            if primary is None or primary == self._core.me or not self._space.holds(shard):
                continue
            if not shard.reported:
                unreported.setdefault(primary, []).append(shard.partition)
            elif self._core.me not in shard.owners:
                surplus.setdefault(primary, []).append(shard.partition)
        for member, places in unreported.items():
            self.release(member, places)
        for member, places in surplus.items():
            self._offer_surplus(member, places)
        if unreported or surplus:
            self._housekeeping = True
            self._core.timers.call_at(now + _HOUSEKEEPING * (0.75 + self._core.rng.random() / 2), self._keep_house)

    def agree_after_all(self) -> None:
        """Our view is another one: tell whose claims were refused and would not be any more."""
        for member, places in list(self._refused.items()):
            theirs = [place for place in places if self._space.shards[place].primary == member]
            if theirs:
                self._refused[member] = [place for place in places if place not in theirs]
                self.release(member, theirs)

    def tell_newcomers(self, added: list[Owner]) -> None:
        """Members that were none before are primary of something that is here: they may wait for a lull to claim it."""
        if not added or self._space.is_empty:
            return
        places: dict[Owner, list[int]] = {}
        for shard in self._space.shards:
            primary = shard.primary
            if primary is not None and primary in added and not shard.reported and self._space.holds(shard):
                places.setdefault(primary, []).append(shard.partition)
        for member, held in places.items():
            self.release(member, held)

    def release(self, member: Owner, places: list[int]) -> None:
        """Tell `member`, who is primary of `places`, to claim them: it has not asked what we hold."""
        self._core.counters["releases"] += 1
        self._core.ask(member, Message.RELEASE, self._space, lambda: [bitmap(places)], lambda *_: None)

    def _offer_surplus(self, member: Owner, places: list[int]) -> None:
        epochs = {place: self._space.shards[place].epoch for place in places}

        def done(outcome: Reply | Failure, now: float) -> None:
            if isinstance(outcome, Failure) or outcome.status != Answer.OK:
                return
            for place in partitions(parts(outcome.body, 1)[0]):
                shard = self._space.shards[place]
                if epochs.get(place) == shard.epoch:
                    self._space.store.forget(place)
                    shard.outcomes.clear()
                    shard.complete_since = now
                    self._core.counters["copies_dropped"] += 1

        self._core.ask(member, Message.SURPLUS, self._space, lambda: [bitmap(places)], done)
