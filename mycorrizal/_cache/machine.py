"""All caches of one node, as a machine that knows no thread, socket or clock.

Owned by the loop thread, or by a simulation. Inputs take `now` (monotonic
seconds of this node); outputs are pulled after every input. Messages are
requests with at most one answer, which may come late, twice in spirit (a retry)
or not at all, in any order; and notices, which may get lost.

The rules, each in its file:

* ``placement``: keys to 256 partitions, partitions to members by rendezvous.
* ``versions``, ``store``: newest version wins; tombstones; bounds; expiry.
* ``operations``, ``primary``, ``leases``: one write on a key at a time.
* ``replication``: a write is done when all backups have it.
* ``handover``: a new primary hears every member before it serves.
* ``lull``: not yet where many caches are just opened and nobody uses them.
* ``fill``: backups get whole copies, at a bounded rate.
* ``near``: copies elsewhere, and their invalidation.
* ``client``, ``survey``: this node's callers.

Deviations from the usual Dynamo-like design, and why: a write waits for *all*
backups instead of a quorum, since with two copies a quorum is both; and views
need no consensus, since a backup takes writes only from whom it holds for
primary, so two primaries cannot both complete one.

What other threads read: ``readable(name)`` and ``near(name)``, tables of
immutable entries by partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import starmap
from random import Random
from typing import Any

from .._endings import cache_error
from .._histogram import Histogram
from .._wire.lent import Lent
from .._wire.values import Encoded
from ..exceptions import (
    ConfigError,
    LocalProtocolError,
    MycorrizalError,
    QueueFull,
    RemoteProtocolError,
)
from .batches import Tally
from .columns import pack_found, parse_batch
from .core import Call, Core, Failure
from .definition import Definition, Limits, differ
from .entry import Entry
from .messages import (
    ANSWER_BYTES,
    QUESTIONS,
    QUESTIONS_MAX,
    Answer,
    Message,
    Payload,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode,
    pack_results,
    parse_operate,
    parts,
    rows,
)
from .near import Near
from .operations import Batch, Op, Result, Status
from .placement import Owner, partition_of
from .shard import Pending
from .space import Space
from .survey import Cursor
from .versions import VersionClock

__all__ = ["Announced", "CacheMachine", "Job", "Later"]

# An enum's member takes 150 ns to look up in Python 3.11.
_OPERATE, _CLAIM, _MANY, _OK = Message.OPERATE, Message.CLAIM, Message.MANY, int(Answer.OK)

Announced = Mapping[str, tuple[bytes, Mapping[str, Definition]]]
"""The members by name: boot id, and the caches that the process announces."""


Job = tuple[str, Sequence[Op] | Batch, Any, float, Lent | None]
"""What one caller asks for: cache, operations, ticket, deadline, lent value."""


_NO_RESULT = Result(Status.BUSY)


def _changed(before: Announced, after: Announced) -> dict[str, None]:
    """Return the caches that a member announces otherwise than it did; the members are the same."""
    found: dict[str, None] = {}
    for name, (_, caches) in after.items():
        known = before[name][1] if name in before else {}
        if known is not caches:
            # All but one are the same objects, as a rule.
            others = [cache for cache, definition in caches.items() if known.get(cache) is not definition]
            others += [cache for cache in known if cache not in caches]
            found.update({cache: None for cache in others if differ(known.get(cache), caches.get(cache))})
    return found


class Later:
    """In place of an answer: it comes out of ``replies_to_send``."""

    __slots__ = ("left", "results", "sender", "size")

    def __init__(self, sender: str, count: int) -> None:
        self.sender = sender
        self.left = count
        self.size = 0  # bytes of the values in it
        self.results: list[Result] = [_NO_RESULT] * count


class CacheMachine:
    """See the module. ``name`` and ``boot`` are the node's, as its peers see them."""

    def __init__(
        self, name: str, boot: bytes, *, rng: Random, wall: float, now: float, limits: Limits | None = None
    ) -> None:
        limits = limits or Limits()
        clock = VersionClock(name, boot, wall=wall, now=now)
        self._core = Core(Owner(name, boot), clock, rng, limits)
        self._spaces: dict[str, Space] = {}
        self._announced: Announced = {}
        self._processes: dict[str, bytes] | None = None  # the other members' boot ids
        self._replies: list[tuple[Later, Encoded]] = []

    # -- inputs: what this node does ----------------------------------------------------

    def define(self, cache: Definition, now: float, redefine: bool = False, telling: float = 0.0) -> Definition:
        """Take part in `cache`, as it is defined here or by a member already; return the definition that holds.

        Announce that to the others; ours is added to what ``members_changed`` says of us.

        Args:
            redefine: `cache` holds from now on, for every member, as the next edition.
            telling: seconds until the others have heard of it, unless ``told`` says so earlier; nobody is asked before,
                and until the cache is used or there is a lull.

        Raises:
            CacheUnavailable: its quorum is not here, and so nobody who could change it.
        """
        space, announced = self._spaces.get(cache.name), self._definitions(cache.name)
        running = max([*announced, *([space.definition] if space else [])], key=lambda it: it.rank, default=None)
        redefine = redefine and running is not None and running != cache
        if redefine and running is not None and len(announced) + 1 < running.quorum:
            text = f"fewer than {running.quorum} members announce cache {cache.name!r}"
            raise cache_error(False, text, hint="a cache with a quorum is redefined where the quorum is")
        if space is None:
            space = self._spaces[cache.name] = Space(self._core, running or cache, now)
            if telling:
                space.handover.hold(now + telling)
                self._core.lull.add(space, now, now + telling)
            self._set_view(space, now)
        if redefine:
            space.redefine(replace(cache, edition=space.definition.edition + 1), now)
        self._turn(now)
        return space.definition

    def told(self, cache: str, now: float) -> None:
        """The others have heard that we take part in `cache`."""
        space = self._space(cache)
        self._core.lull.told(space, now)
        space.handover.hold(now)
        self.handle_timer(now)

    def _definitions(self, cache: str) -> list[Definition]:
        """Return how the other members define a cache."""
        me = self._core.me.name
        return [caches[cache] for name, (_, caches) in self._announced.items() if name != me and cache in caches]

    def retire(self, cache: str, now: float) -> None:
        """Take part no more: hand over what is here, and announce `cache` no longer. See ``retired``."""
        space = self._space(cache)
        space.retired = True
        self._core.lull.drop(space)
        self._set_view(space, now)
        self._turn(now)

    def retired(self, cache: str) -> bool:
        """Return whether everything that was here is elsewhere, or nobody is there to take it: the node may stop."""
        space = self._space(cache)
        return space.retired and not (space.members and any(space.holds(shard) for shard in space.shards))

    def members_changed(self, members: Announced, now: float) -> None:
        """The view of the cluster: every member that has a boot id, ourselves included or not.

        Only what differs from the view before is looked at. `members` and what is in it are not changed afterwards.
        """
        me, before = self._core.me, self._announced
        self._announced = members
        processes = {name: boot for name, (boot, _) in members.items() if name != me.name}
        if processes != self._processes:
            self._processes = processes
            self._core.alive = dict.fromkeys(sorted([*starmap(Owner, processes.items()), me]))
            for space in self._spaces.values():
                self._set_view(space, now)
            self._core.bury(now)
        else:
            for cache in _changed(before, members):
                if cache in self._spaces:
                    self._set_view(self._spaces[cache], now)
        self._turn(now)

    def _set_view(self, space: Space, now: float) -> None:
        me = self._core.me
        owners = [] if space.retired else [me]
        for name, (boot, caches) in self._announced.items():
            if name != me.name and space.name in caches:
                owners.append(Owner(name, boot))
                if caches[space.name].replaces(space.definition):
                    self._core.counters["redefined"] += 1
                    space.redefine(caches[space.name], now)
        space.set_view(sorted(owners), now)

    def sees(self, other: CacheMachine) -> bool:
        """Return whether the process of `other` is in our view. Any thread."""
        return other._core.me in self._core.alive

    def set_wall(self, wall: float, now: float) -> None:
        """The wall clock shows `wall`."""
        self._core.clock.set_wall(wall, now)

    # -- inputs: what callers ask -------------------------------------------------------

    def operate(
        self, cache: str, ops: Sequence[Op] | Batch, ticket: Any, deadline: float, now: float, lent: Lent | None = None
    ) -> None:
        """Run `ops`; the completion of `ticket` is a list of a ``Result`` or a ``CacheError`` for each, in order.

        `lent`: the value of the one operation, which has none then. It is not read after the completion.

        Raises:
            QueueFull: too many are under way.
            ConfigError: a key or value that no cache takes.
        """
        self._begin(cache, ops, ticket, deadline, lent, now)
        self._turn(now)

    def operate_all(self, jobs: Iterable[Job], now: float) -> None:
        """As ``operate`` for each of `jobs`, in one turn: what may then shares messages. Errors are completions."""
        for cache, ops, ticket, deadline, lent in jobs:
            try:
                self._begin(cache, ops, ticket, deadline, lent, now)
            except MycorrizalError as error:
                self._core.completions.append((ticket, error))
        self._turn(now)

    def give_up(self, cache: str, lent: Lent, now: float) -> None:
        """Nobody waits any more for the operation whose value is `lent`; end it, if it has not."""
        self._space(cache).client.give_up(lent, now)
        self._turn(now)

    def withdraw(self, cache: str, op: Op, now: float) -> None:
        """Nobody waits any more for `op`, which has an id and asks for a lease or a lock: none is held for it."""
        self._space(cache).client.withdraw(op, now)
        self._turn(now)

    def _begin(
        self, cache: str, ops: Sequence[Op] | Batch, ticket: Any, deadline: float, lent: Lent | None, now: float
    ) -> None:
        space = self._used(cache, now)
        limits = self._core.limits
        keys = ops.keys if isinstance(ops, Batch) else [op.key for op in ops]
        if space.client.open + len(keys) > limits.operations:
            self._core.counters["operations_refused"] += 1
            raise QueueFull("too many cache operations under way", operation=cache)
        sizes = list(map(len, keys))
        if keys and (min(sizes) == 0 or max(sizes) > limits.key_bytes):
            raise ConfigError("key", f"{min(sizes) and max(sizes)} bytes; a key has 1 to {limits.key_bytes}")
        if isinstance(ops, Batch):
            space.client.operate_many(ops, ticket, deadline, now)
        else:
            space.client.operate(ops, ticket, deadline, now, lent)

    def keys(self, cache: str, cursor: Cursor, most: int, ticket: Any, deadline: float, now: float) -> None:
        """Some keys; the completion is ``(keys, cursor)``, and the last cursor has nothing ``left``."""
        self._used(cache, now).survey.keys(cursor, most, ticket, deadline, now)
        self._turn(now)

    def stats(self, cache: str, ticket: Any, deadline: float, now: float) -> None:
        """The numbers of every member; the completion is a dict by name, None for who did not answer."""
        self._used(cache, now).survey.stats(ticket, now, deadline)
        self._turn(now)

    def synced(self, cache: str, ticket: Any, deadline: float, now: float) -> None:
        """Whether every copy is where it belongs; the completion is True as soon as it is, or False at `deadline`."""
        self._used(cache, now).survey.synced(ticket, deadline, now)
        self._turn(now)

    # -- inputs: what peers say ---------------------------------------------------------

    def receive(self, sender: str, payload: Payload, now: float) -> Encoded | Later:
        """Answer a peer's request, at once or later. Bad bytes are counted and answered with ``BAD``."""
        answer: Reply | Encoded | Later
        try:
            request = decode_request(payload)
            answer = self._serve(sender, request, now)
        except RemoteProtocolError:
            self._core.counters["bad_requests"] += 1
            answer = Reply(Answer.BAD, 0, [])
        self._turn(now)
        return encode(answer) if isinstance(answer, Reply) else answer

    def notice(self, sender: str, payload: Payload, now: float) -> None:
        """Take a peer's notice."""
        try:
            request = decode_request(payload)
            space = self._spaces.get(request.cache)
            if request.to == self._core.me.boot and space is not None and request.kind == Message.INVALIDATE:
                space.near.heard(Owner(sender, request.boot), request.body, now)
        except RemoteProtocolError:
            self._core.counters["bad_requests"] += 1
        self._turn(now)

    def _reply(self, status: int, body: list[Any]) -> Reply:
        return Reply(status, self._core.clock.peek(), body)

    def _serve(self, name: str, request: Request, now: float) -> Reply | Encoded | Later:
        if request.to != self._core.me.boot:
            return self._reply(Answer.WRONG_PROCESS, [])
        if not self._core.clock.observe(request.clock, now):
            self._core.counters["versions_refused"] += 1
        sender = Owner(name, request.boot)
        if request.kind == _MANY:
            questions = rows(request.body, 2, QUESTIONS_MAX)
            return self._reply(Answer.OK, [self._asked(sender, question, now) for question in questions])
        return self._about(sender, request.kind, request.cache, request.body, now)

    def _asked(self, sender: Owner, question: list[Any], now: float) -> list[Any]:
        """Answer one of many questions. A bad one does not spoil the others."""
        kind, cache, *body = question
        try:
            if type(kind) is not int or kind not in QUESTIONS or type(cache) is not str:
                raise RemoteProtocolError("a question that is none")
            reply = self._about(sender, kind, cache, body, now)
        except RemoteProtocolError:
            self._core.counters["bad_requests"] += 1
            return [int(Answer.BAD)]
        assert isinstance(reply, Reply)
        return [reply.status, *reply.body]

    def _about(self, sender: Owner, kind: int, cache: str, body: list[Any], now: float) -> Reply | Encoded | Later:
        space = self._spaces.get(cache)
        if space is None:
            return self._reply(Answer.UNKNOWN_CACHE, [])
        if kind != _CLAIM:
            self._core.lull.use(space, now)
        space.settle(now)
        if kind == _OPERATE:
            return self._operate_for(space, sender, body, now)
        if kind == Message.OPERATE_MANY:
            return self._operate_many_for(space, sender, body, now)
        if kind == Message.PULL:
            return self._give(space, sender, body, now)
        if kind == Message.ALL_SYNCED:
            return self._ask_for(space, sender, body, now)
        answer: list[Any] | None
        if kind == Message.REPLICATE:
            answer = space.replication.receive(sender, body, now)
        elif kind == _CLAIM:
            answer = space.handover.agree(sender, body, now)
        elif kind == Message.OFFER:
            answer = space.fill.offered(sender, body, now)
        elif kind == Message.PUSH:
            answer = space.fill.pushed(sender, body, now)
        elif kind == Message.RELEASE:
            answer = space.handover.released(sender, body, now)
        elif kind == Message.SURPLUS:
            answer = space.handover.surplus(sender, body, now)
        elif kind == Message.KEYS:
            answer = space.survey.give_keys(body, now)
        elif kind == Message.SYNCED:
            answer = [space.synced, space.view]
        elif kind == Message.STATS:
            answer = [space.stats(now)]
        else:
            raise RemoteProtocolError(f"a cache request of unknown kind {kind}")
        return self._reply(Answer.REFUSED, []) if answer is None else self._reply(Answer.OK, answer)

    def _give(self, space: Space, sender: Owner, body: list[Any], now: float) -> Encoded:
        given = space.handover.give(sender, body, now)
        if given is None:
            return encode(self._reply(Answer.REFUSED, []))
        answer, size = given
        return encode(self._reply(Answer.OK, answer), size)

    def _ask_for(self, space: Space, sender: Owner, body: list[Any], now: float) -> Reply | Later:
        (view,) = parts(body, 1)
        if view != space.view:
            return self._reply(Answer.REFUSED, [])
        later = Later(sender.name, 0)

        def done(good: bool, now: float) -> None:
            self._replies.append((later, encode(self._reply(Answer.OK, [good]))))

        space.survey.ask_all(view, done, now)
        return later

    def _operate_for(self, space: Space, sender: Owner, body: list[Any], now: float) -> Encoded | Later:
        left, most, ops = parse_operate(body)
        later = Later(sender.name, len(ops))
        until = now + min(left, 3600.0)
        answered_now = False

        for index, op in enumerate(ops):

            def done(result: Result, now: float, index: int = index) -> None:
                if result.value is not None and len(ops) > 1:
                    size = len(result.value)
                    if (most and size > most) or later.size + size > ANSWER_BYTES:
                        result = Result(Status.ALONE)
                    else:
                        later.size += size
                later.results[index] = result
                later.left -= 1
                if not later.left and answered_now:
                    self._replies.append((later, self._results(later.results)))

            if most and space.primary.waits(op):
                done(Result(Status.ALONE), now)
            else:
                space.primary.submit(Pending(op, sender, done, until), now)
        answered_now = True
        return later if later.left else self._results(later.results)

    def _operate_many_for(self, space: Space, sender: Owner, body: list[Any], now: float) -> Encoded | Later:
        left, batch = parse_batch(body)
        later = Later(sender.name, 0)
        answers: list[Encoded] = []

        def done(results: list[Result], now: float) -> None:
            found, size = pack_found(results)
            answers.append(encode((_OK, self._core.clock.peek(), found), size))
            if ran:
                self._replies.append((later, answers[0]))

        ran = False
        space.primary.run_many(batch, sender, now + min(left, 3600.0), Tally(len(batch.keys), done), now)
        ran = True
        return answers[0] if answers else later

    def _results(self, results: list[Result]) -> Encoded:
        largest = 0
        for result in results:
            if result.value is not None and len(result.value) > largest:
                largest = len(result.value)
        return encode((_OK, self._core.clock.peek(), pack_results(results)), largest)

    def answered(self, call: int, payload: Payload, now: float) -> None:
        """The answer to one of ``calls_to_start``."""
        outcome: Reply | Failure
        try:
            outcome = decode_reply(payload)
            if not self._core.clock.observe(outcome.clock, now):
                self._core.counters["versions_refused"] += 1
        except RemoteProtocolError:
            self._core.counters["bad_answers"] += 1
            outcome = Failure(indeterminate=True)
        self._core.end_call(call, outcome, now)
        self._turn(now)

    def failed(self, call: int, indeterminate: bool, now: float) -> None:
        """One of ``calls_to_start`` got no answer; not `indeterminate`: the peer surely did not read it."""
        self._core.end_call(call, Failure(indeterminate), now)
        self._turn(now)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self._core.timers.fire(now)
        self._turn(now)

    def _turn(self, now: float) -> None:
        core = self._core
        while core.touched:
            touched, core.touched = core.touched, {}
            for space in touched:
                space.flush(now)
        if core.questions:
            core.send_questions(now)
        if core.stirred:
            stirred, core.stirred = core.stirred, {}
            for space in stirred:
                space.arm()

    # -- outputs ------------------------------------------------------------------------

    def calls_to_start(self) -> list[Call]:
        """Return requests to be carried to peers. End each with ``answered`` or ``failed`` by its deadline."""
        calls, self._core.outgoing = self._core.outgoing, []
        return calls

    def calls_to_cancel(self) -> list[int]:
        """Return ids of calls, started earlier, that are over here: nothing more of them is to be sent."""
        cancelled, self._core.cancelled = self._core.cancelled, []
        return cancelled

    def replies_to_send(self) -> list[tuple[Later, Encoded]]:
        """Return answers to requests that were answered with a ``Later``."""
        replies, self._replies = self._replies, []
        return replies

    def notices_to_send(self) -> list[tuple[Owner, Encoded]]:
        """Return what members are to be told, without an answer."""
        notices, self._core.notices = self._core.notices, []
        return notices

    def completions(self) -> list[tuple[Any, Any]]:
        """Return tickets with what came of them."""
        completions, self._core.completions = self._core.completions, []
        return completions

    def get_timer(self) -> float | None:
        """Return when ``handle_timer`` is to be called."""
        return self._core.timers.next()

    # -- views: any thread --------------------------------------------------------------

    def readable(self, cache: str) -> list[dict[bytes, Entry]]:
        """Return the tables by partition that may be read; look it up in the list anew for every read.

        An entry counts while its ``expires`` is ahead. Set ``visited`` on what is read.
        """
        return self._space(cache).readable

    def near(self, cache: str) -> Near:
        """Return the near copies: ``tables`` and ``until``."""
        return self._space(cache).near

    def counters(self) -> dict[str, int]:
        """Return what happened, by name."""
        return dict(self._core.counters)

    def definitions(self) -> list[Definition]:
        """Return what is to be announced."""
        return [space.definition for space in self._spaces.values() if not space.retired]

    def leads(self, cache: str, key: bytes) -> bool:
        """Return whether this node is primary of `key`, by its view at this moment."""
        return self._space(cache).leader(partition_of(key)) == self._core.me

    def info(self, cache: str, now: float | None = None) -> dict[str, int]:
        """Return this node's own numbers of a cache; without `now` what has just expired counts as an entry."""
        return self._space(cache).stats(now)

    def counted(self, cache: str) -> dict[tuple[int, bool, int], int]:
        """Return how the operations of this node's callers ended; see ``Client.counted``."""
        return dict(self._space(cache).client.counted)

    def times(self, cache: str) -> dict[bool, Histogram]:
        """Return how long operations of this node's callers took; see ``Client.times``."""
        return self._space(cache).client.times

    def _used(self, cache: str, now: float) -> Space:
        space = self._space(cache)
        self._core.lull.use(space, now)
        space.settle(now)
        return space

    def _space(self, cache: str) -> Space:
        space = self._spaces.get(cache)
        if space is None:
            raise LocalProtocolError(f"cache {cache!r} is not defined here")
        return space

    def spaces(self) -> Iterable[Space]:
        """Yield the caches, for simulations and tests."""
        return self._spaces.values()
