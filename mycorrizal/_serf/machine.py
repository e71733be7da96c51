"""Serf's rules: who is a member by intent, which user events are new, what is passed on.

On top of memberlist, Serf keeps three Lamport clocks (members, user events,
queries) and for each member the time of the last intent about it. A *join
intent* makes a member alive, a *leave intent* makes its later disappearance a
leave instead of a failure; of two intents the one with the later time holds.
User events are gossiped by everybody who has not seen them yet and remembered
for 512 ticks of their clock, so that each is delivered once.

The machine knows no thread and takes no lock: its owner calls one input at a
time and then pulls the outputs. Bytes from peers never raise out of it; what
is refused is counted in ``counters``.

The rules are those of Serf's gossip protocol (serf.io/docs/internals), checked
against Debian's ``serf agent``. Differs from Serf: intents about unknown nodes
and departed members are bounded by number as well as by age, a pruned member is
forgotten when memberlist has it gone instead of after some seconds, and a
Lamport time beyond 2**62 is refused, as no cluster counts so far and taking it
would end the clock for everyone. Rules about queries are in ``queries``.
"""

from __future__ import annotations

import enum
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..exceptions import ConfigError, RemoteProtocolError
from .asking import Query, QueryResponse, Relay, decode_query_message
from .messages import (
    Clock,
    EventsAt,
    JoinIntent,
    LeaveIntent,
    State,
    UserEvent,
    decode,
    encode,
)
from .queries import Queries

__all__ = ["EVENT_BUFFER", "Kind", "Member", "Outgoing", "Received", "SerfMachine", "SerfStatus"]

EVENT_BUFFER = 512
"""Ticks of the event clock that user events are remembered for (Serf's default)."""
MAX_EVENTS_PER_TICK = 64
"""Different events of one Lamport time; further ones are refused."""
MAX_EVENT_BYTES = 4 << 20
"""All remembered events together; they travel in every push/pull. The oldest are forgotten first.

More than one full tick, so that the newest tick is always kept."""
MAX_RECENT_INTENTS = 1024
"""Intents about nodes we do not know yet; the oldest is forgotten first."""
MAX_DEPARTED = 4096
"""Left and failed members that are remembered; the oldest is forgotten first."""
INTENT_SECONDS = 300.0
"""How long intents about nodes we do not know are kept (Serf's ``RecentIntentTimeout``)."""
DEPARTED_SECONDS = 86400.0
"""How long left and failed members are remembered (Serf's ``TombstoneTimeout`` and ``ReconnectTimeout``)."""
MAX_RECEIVED = 65536
"""Events not pulled yet; further ones are dropped. The owner pulls after every input."""

_COUNTERS = (
    "refused", "unknown_type", "duplicates", "old_events", "events", "refuted_leaves", "overflowed", "queries",
    "old_queries", "bad_filters", "late_responses", "answers_withheld",
)  # fmt: skip


class SerfStatus(enum.Enum):
    """A member as ``serf members`` would show it."""

    ALIVE = "alive"
    LEAVING = "leaving"
    LEFT = "left"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Member:
    """What intents say about one member, as of Lamport time `ltime`; `since`: when memberlist had it here, or gone."""

    name: str
    status: SerfStatus
    ltime: int
    since: float = 0.0


class Kind(enum.IntEnum):
    """What is gossiped, in the order in which it goes out."""

    INTENT = 0
    QUERY = 1
    EVENT = 2


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to gossip."""

    message: bytes
    kind: Kind


@dataclass(frozen=True, slots=True)
class Received:
    """A user event, seen for the first time."""

    ltime: int
    name: str
    payload: bytes
    coalesce: bool


class SerfMachine:
    """One node's Serf layer.

    Args:
        name: this node's name.
        replay: deliver the events that the cluster remembers from before we joined.
        rng: for ids of queries, and for who relays.
        fanout: how many members a new query is said to directly, besides being gossiped.
        known: returns whether the member of a name is at an address; answers to other addresses are bounded in time.
        tags: returns this node's tags, for filters of queries.
    """

    def __init__(
        self,
        name: str,
        *,
        replay: bool = False,
        rng: random.Random | None = None,
        fanout: int = 0,
        known: Callable[[str, tuple[bytes, int]], bool] = lambda *_: False,
        tags: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.name = name
        self.counters = dict.fromkeys(_COUNTERS, 0)
        self._replay = replay
        self._clock = Clock()
        self._event_clock = Clock()
        self._query_clock = Clock()
        self.queries = Queries(
            name, self._query_clock, self.counters, rng or random.Random(0), fanout=fanout, alive=self._alive,
            known=known, tags=tags,
        )  # fmt: skip
        self._members: dict[str, Member] = {name: Member(name, SerfStatus.ALIVE, 0)}
        self._departed: OrderedDict[str, None] = OrderedDict()  # names in _members, oldest first
        self._pruned: set[str] = set()  # members to forget as soon as they are gone
        self._forgotten: list[str] = []
        self._intents: OrderedDict[str, tuple[JoinIntent | LeaveIntent, float]] = OrderedDict()  # oldest first
        self._events: dict[int, list[UserEvent]] = {}
        self._event_bytes = 0
        self._event_min = 0  # events before this time are not delivered
        self._joined = False
        self._leaving = False
        self._out: list[Outgoing] = []
        self._received: deque[Received] = deque()

    # -- inputs: from the network ---------------------------------------------------

    def receive_message(self, data: bytes, now: float) -> None:
        """Take one user message of memberlist."""
        self.reap(now)
        try:
            message = decode_query_message(data) or decode(data)
        except RemoteProtocolError:
            self.counters["refused"] += 1
            return
        # What is passed on goes as it came: a later version's extra fields survive.
        if message is None:
            self.counters["unknown_type"] += 1
        elif isinstance(message, Query):
            if self.queries.receive(message, data, now):
                self._out.append(Outgoing(data, Kind.QUERY))
        elif isinstance(message, QueryResponse):
            self.queries.take_response(message)
        elif isinstance(message, Relay):
            self.queries.relay(message, now)
        elif self._handle(message, now):
            self._out.append(Outgoing(data, Kind.EVENT if isinstance(message, UserEvent) else Kind.INTENT))

    def merge_state(self, state: State, join: bool, now: float) -> None:
        """Take a peer's part of a push/pull."""
        self.reap(now)
        # The peer has sent no message of its present time yet, hence the 1.
        behind = state.ltime > self._clock.time
        self._clock.witness(state.ltime - 1)
        self._event_clock.witness(state.event_ltime - 1)
        self._query_clock.witness(state.query_ltime - 1)
        self._merge_intents(state, now)
        if join and not self._joined and not self._replay:
            # What happened before we came is history. Our first join only: a
            # healed partition must deliver what the other side missed.
            self._event_min = max(self._event_min, state.event_ltime)
        for tick in state.events:
            for event in tick.events:
                self._handle_event(event)
        if join and not self._leaving and (behind or not self._joined):
            # memberlist does not tell who joined whom. Whoever is behind in time is
            # the newcomer, and says so: this beats older leave intents about it.
            self._announce()
        self._joined = self._joined or join

    def _merge_intents(self, state: State, now: float) -> None:
        left = frozenset(state.left_members)
        times = dict(state.status_ltimes)
        for name in state.left_members:
            # The time of the leave itself is not in the state; it was later than the member's status time. Where the
            # leave is known that is no news, and counting on with each push/pull would outrun newer intents.
            known = self.status(name) in (SerfStatus.LEAVING, SerfStatus.LEFT)
            self._handle_leave(LeaveIntent(times.get(name, 0) + (not known), name), now)
        for name, ltime in state.status_ltimes:
            if name not in left:
                self._handle_join(JoinIntent(ltime, name), now)

    # -- inputs: from memberlist ------------------------------------------------------

    def node_joined(self, name: str, now: float) -> None:
        """memberlist has `name` alive, for the first time or again."""
        self.reap(now)
        known = self._members.get(name)
        self._departed.pop(name, None)
        self._pruned.discard(name)
        if known is not None:
            self._members[name] = Member(name, SerfStatus.ALIVE, known.ltime, now)
            return
        intent, _ = self._intents.pop(name, (None, now))
        ltime = 0 if intent is None else intent.ltime
        status = SerfStatus.LEAVING if isinstance(intent, LeaveIntent) else SerfStatus.ALIVE
        self._members[name] = Member(name, status, ltime, now)

    def node_left(self, name: str, now: float) -> None:
        """memberlist has `name` left or dead."""
        self.reap(now)
        known = self._members.get(name)
        if known is None or name == self.name:
            return
        if name in self._pruned:
            self._forget(name)
        elif known.status is SerfStatus.LEAVING:
            self._depart(replace(known, status=SerfStatus.LEFT, since=now))
        elif known.status is SerfStatus.ALIVE:
            self._depart(replace(known, status=SerfStatus.FAILED, since=now))

    def reap(self, now: float) -> None:
        """Forget what is older than Serf remembers it."""
        while self._intents and next(iter(self._intents.values()))[1] + INTENT_SECONDS <= now:
            self._intents.popitem(last=False)
        while self._departed and self._members[next(iter(self._departed))].since + DEPARTED_SECONDS <= now:
            self._forget(next(iter(self._departed)))

    # -- inputs: from this node --------------------------------------------------------

    def user_event(self, name: str, payload: bytes, coalesce: bool, limit: int) -> Received:
        """Send a user event to everybody; this node has it at once.

        Raises:
            ConfigError: encoded it takes more than `limit` bytes.
        """
        event = UserEvent(self._event_clock.time, name, payload, coalesce)
        message = encode(event)
        if len(message) > limit:
            raise ConfigError(
                "payload",
                f"event {name!r:.40} takes {len(message)} bytes, the limit is {limit}",
                hint="send a reference to the data, or raise event_size_limit",
            )
        self._event_clock.tick()
        self._remember(event)
        self._out.append(Outgoing(message, Kind.EVENT))
        return Received(event.ltime, name, payload, coalesce)

    def query(self, message: bytes) -> None:
        """Gossip a query of ours, which ``queries.ask`` returned."""
        self._out.append(Outgoing(message, Kind.QUERY))

    def leave(self) -> bytes | None:
        """Announce that this node leaves; return the announcement, or None if it was made before."""
        if self._leaving:
            return None
        self._leaving = True
        intent = LeaveIntent(self._clock.tick(), self.name)
        self._set(self.name, SerfStatus.LEAVING, intent.ltime)
        message = encode(intent)
        self._out.append(Outgoing(message, Kind.INTENT))
        return message

    def force_leave(self, name: str, prune: bool, now: float) -> None:
        """Have everybody take a member that failed for one that left; with `prune`, forget it.

        Raises:
            ConfigError: it is this node.
        """
        if name == self.name:
            raise ConfigError("name", f"{name!a:.80} is this node itself", hint="it leaves with leave()")
        intent = LeaveIntent(self._clock.tick(), name, prune)
        self._handle_leave(intent, now)
        message = encode(intent)
        self._out.append(Outgoing(message, Kind.INTENT))
        self.queries.say(message, self.name)  # nothing repairs a prune that gossip did not bring to somebody

    # -- outputs -------------------------------------------------------------------------

    def messages_to_send(self) -> list[Outgoing]:
        """Take the messages to gossip."""
        out, self._out = self._out, []
        return out

    def next_event(self) -> Received | None:
        """Take the next user event, in the order of arrival."""
        return self._received.popleft() if self._received else None

    def forgotten(self) -> list[str]:
        """Take the names of members that are remembered no longer."""
        names, self._forgotten = self._forgotten, []
        return names

    # -- views ---------------------------------------------------------------------------

    def local_state(self) -> bytes:
        """Return our part of a push/pull.

        Differs from Serf: there only who has left is among ``left_members``. A
        member that is leaving is taken for one that joined at the very time of
        its leave intent, so the intent itself then comes too late, and who left
        is shown as failed. It is named with the time before, as is who left:
        whoever reads this takes a leave to be one later, and would count on with
        each push/pull.
        """
        members = self._members.values()
        gone = (SerfStatus.LEAVING, SerfStatus.LEFT)
        return encode(
            State(
                ltime=self._clock.time,
                status_ltimes=tuple(
                    (m.name, max(0, m.ltime - 1) if m.status in gone else m.ltime) for m in members
                ),
                left_members=tuple(m.name for m in members if m.status in gone),
                event_ltime=self._event_clock.time,
                events=tuple(EventsAt(ltime, tuple(self._events[ltime])) for ltime in sorted(self._events)),
                query_ltime=self._query_clock.time,
            )
        )

    def members(self) -> tuple[Member, ...]:
        """Return all members, also departed ones that are remembered."""
        return tuple(self._members.values())

    def status(self, name: str) -> SerfStatus | None:
        """Return how a member is; None if none of that name is remembered."""
        known = self._members.get(name)
        return None if known is None else known.status

    @property
    def size(self) -> int:
        """How many members there are that may be gossiped to."""
        return len(self._members) - len(self._departed)

    @property
    def clocks(self) -> tuple[int, int, int]:
        """The member, event and query clocks."""
        return (self._clock.time, self._event_clock.time, self._query_clock.time)

    def _alive(self) -> list[str]:
        return [m.name for m in self._members.values() if m.status is SerfStatus.ALIVE and m.name != self.name]

    # -- intents -------------------------------------------------------------------------

    def _handle(self, message: LeaveIntent | JoinIntent | UserEvent, now: float) -> bool:
        """Take a message in; tell whether it is to be passed on."""
        if isinstance(message, LeaveIntent):
            return self._handle_leave(message, now)
        if isinstance(message, JoinIntent):
            return self._handle_join(message, now)
        return self._handle_event(message)

    def _handle_leave(self, intent: LeaveIntent, now: float) -> bool:
        self._clock.witness(intent.ltime)
        known = self._members.get(intent.node)
        if known is None:
            return self._note_intent(intent, now)
        if intent.ltime <= known.ltime:
            self.counters["duplicates"] += 1
            return False
        if intent.node == self.name and not self._leaving:
            # An old one from an earlier life, or somebody's force-leave.
            self.counters["refuted_leaves"] += 1
            self._announce()
            return False
        if known.status in (SerfStatus.ALIVE, SerfStatus.LEAVING):
            self._set(intent.node, SerfStatus.LEAVING, intent.ltime)
            if intent.prune:
                self._pruned.add(intent.node)
        else:
            self._depart(replace(known, status=SerfStatus.LEFT, ltime=intent.ltime))
            if intent.prune:
                self._forget(intent.node)
        return True

    def _handle_join(self, intent: JoinIntent, now: float) -> bool:
        self._clock.witness(intent.ltime)
        known = self._members.get(intent.node)
        if known is None:
            return self._note_intent(intent, now)
        if intent.ltime <= known.ltime:
            self.counters["duplicates"] += 1
            return False
        # The leave was of an earlier time, so the member is not leaving now.
        status = known.status
        if status is SerfStatus.LEAVING and not (intent.node == self.name and self._leaving):
            status = SerfStatus.ALIVE
        self._set(intent.node, status, intent.ltime)
        self._pruned.discard(intent.node)
        return True

    def _note_intent(self, intent: JoinIntent | LeaveIntent, now: float) -> bool:
        earlier, _ = self._intents.get(intent.node, (None, now))
        if earlier is not None and intent.ltime <= earlier.ltime:
            self.counters["duplicates"] += 1
            return False
        self._intents[intent.node] = (intent, now)
        self._intents.move_to_end(intent.node)
        if len(self._intents) > MAX_RECENT_INTENTS:
            self._intents.popitem(last=False)
        return True

    def _announce(self) -> None:
        intent = JoinIntent(self._clock.tick(), self.name)
        self._set(self.name, SerfStatus.ALIVE, intent.ltime)
        self._out.append(Outgoing(encode(intent), Kind.INTENT))

    def _set(self, name: str, status: SerfStatus, ltime: int) -> None:
        self._members[name] = replace(self._members[name], status=status, ltime=ltime)

    def _depart(self, member: Member) -> None:
        self._members[member.name] = member
        self._departed.setdefault(member.name)  # who failed and is then said to have left is gone since it failed
        while len(self._departed) > MAX_DEPARTED:
            self._forget(next(iter(self._departed)))

    def _forget(self, name: str) -> None:
        self._members.pop(name, None)
        self._departed.pop(name, None)
        self._pruned.discard(name)
        self._forgotten.append(name)

    # -- user events ---------------------------------------------------------------------

    def _handle_event(self, event: UserEvent) -> bool:
        self._event_clock.witness(event.ltime)
        if event.ltime < self._event_min or event.ltime + EVENT_BUFFER < self._event_clock.time:
            self.counters["old_events"] += 1
            return False
        seen = self._events.get(event.ltime, [])
        if any(event.name == other.name and event.payload == other.payload for other in seen):
            self.counters["duplicates"] += 1
            return False
        if len(seen) >= MAX_EVENTS_PER_TICK or len(self._received) >= MAX_RECEIVED:
            self.counters["overflowed"] += 1
            return False
        self._remember(event)
        self.counters["events"] += 1
        self._received.append(Received(event.ltime, event.name, event.payload, event.coalesce))
        return True

    def _remember(self, event: UserEvent) -> None:
        self._events.setdefault(event.ltime, []).append(event)
        self._event_bytes += event.size
        oldest = min(self._events)
        while oldest + EVENT_BUFFER < self._event_clock.time or self._event_bytes > MAX_EVENT_BYTES:
            self._event_bytes -= sum(e.size for e in self._events.pop(oldest))
            # Forgotten events must not come in again as new.
            self._event_min = max(self._event_min, oldest + 1)
            oldest = min(self._events)
