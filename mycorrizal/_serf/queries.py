"""Serf's rules about queries: passed on once, acknowledged and answered by those they are for, within their time.

A query is gossiped as a user event is; each has a Lamport time and a random id
and is remembered by both for 512 ticks. Whoever passes its filters
acknowledges it, if that was asked for, and may answer once, straight to the
node that asks and, with a relay factor, through that many others too.

Differs from Serf: a new query is also said to a few members directly. Gossip
misses a member now and then, all the more where some members are memberlist's
alone and pass nothing on; an event that was missed comes with the next
push/pull, a query never does. Those told are the next by name, so that not all
tell the same few.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ..exceptions import ConfigError, MycorrizalError, QueueFull
from .asking import (
    ACK,
    NO_BROADCAST,
    Query,
    QueryResponse,
    Relay,
    encode_filters,
    encode_query_message,
    passes,
)
from .messages import Clock

__all__ = ["Answers", "Asked", "Direct", "Queries"]

QUERY_BUFFER = 512
"""Ticks of the query clock that queries are remembered for (Serf's default)."""
MAX_QUERIES_PER_TICK = 256
"""Different queries of one Lamport time; further ones are refused."""
MAX_OPEN = 256
"""Queries of our own that wait for answers at a time."""
MAX_WAITING = 4096
"""Queries for this node that were not pulled yet; the owner pulls after every input."""
MAX_ANSWERS = 1 << 17
"""Nodes that answer one query of ours."""
MAX_ANSWER_BYTES = 16 << 20
"""What they say, together."""
FANOUT = 16
"""Members that a new query is said to directly, at most."""
STRANGERS, STRANGERS_SECONDS = 64, 10.0
"""Messages in that many seconds to addresses of no member: whoever asks says himself where to answer."""

Address = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Direct:
    """A message for one node: at `address` or, without one, wherever the member `name` is."""

    message: bytes
    name: str
    address: Address | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A query for this node, seen for the first time; `deadline` is when nobody waits for an answer any more."""

    query: Query
    deadline: float


@dataclass(slots=True)
class Answers:
    """What came to a query of our own so far: who has it, and what was answered, by name."""

    acks: set[str] = field(default_factory=set)
    responses: dict[str, bytes] = field(default_factory=dict)
    bytes: int = 0


class Queries:
    """The queries of one ``SerfMachine``, which feeds it.

    Args:
        name: this node's.
        clock: the query clock.
        counters: where what happens is counted.
        rng: for ids, and for who relays.
        fanout: how many members a new query is said to directly, at most ``FANOUT``.
        alive: returns the names of the others that are alive.
        known: returns whether the member of that name is at that address.
        tags: returns this node's tags.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        counters: dict[str, int],
        rng: random.Random,
        *,
        fanout: int,
        alive: Callable[[], list[str]],
        known: Callable[[str, Address], bool],
        tags: Callable[[], Mapping[str, str]],
    ) -> None:
        self._name = name
        self._clock = clock
        self._counters = counters
        self._rng = rng
        self._fanout = min(fanout, FANOUT)
        self._alive = alive
        self._known = known
        self._tags = tags
        self._seen: OrderedDict[int, set[int]] = OrderedDict()
        self._open: dict[tuple[int, int], Answers] = {}
        self._asked: list[Asked] = []
        self._direct: list[Direct] = []
        self._strangers = 0
        self._strangers_since = -STRANGERS_SECONDS

    # -- from the network --------------------------------------------------------------------

    def receive(self, query: Query, message: bytes, now: float) -> bool:
        """Take a query, and the message that it came in; tell whether it is to be passed on."""
        self._clock.witness(query.ltime)
        if query.ltime + QUERY_BUFFER < self._clock.time:
            self._counters["old_queries"] += 1
            return False
        ids = self._seen.setdefault(query.ltime, set())
        if query.id in ids:
            self._counters["duplicates"] += 1
            return False
        if len(ids) >= MAX_QUERIES_PER_TICK or len(self._asked) >= MAX_WAITING:
            self._counters["overflowed"] += 1
            return False
        ids.add(query.id)
        self._forget()
        self._counters["queries"] += 1
        if self._is_for_us(query):
            if query.flags & ACK:
                self._respond(query, QueryResponse(query.ltime, query.id, self._name, ACK), now)
            self._asked.append(Asked(query, now + query.timeout / 1e9))
        if query.flags & NO_BROADCAST:
            return False
        self.say(message, query.source)
        return True

    def say(self, message: bytes, source: str) -> None:
        """Say a message, which is gossiped too, to some members directly; `source` knows it.

        Differs from Serf: there it is gossiped only, and in a small cluster so few times that somebody is missed.
        """
        others = sorted((name for name in self._alive() if name != source), key=lambda n: (n < self._name, n))
        self._direct += [Direct(message, name) for name in others[: self._fanout]]

    def take_response(self, response: QueryResponse) -> None:
        """Take an acknowledgement of, or an answer to, a query of ours."""
        answers = self._open.get((response.ltime, response.id))
        if answers is None:
            self._counters["late_responses"] += 1
            return
        if response.flags & ACK:
            if len(answers.acks) < MAX_ANSWERS:
                answers.acks.add(response.sender)
            return
        size = len(response.payload)
        if response.sender in answers.responses:
            self._counters["duplicates"] += 1
        elif len(answers.responses) >= MAX_ANSWERS or answers.bytes + size > MAX_ANSWER_BYTES:
            self._counters["overflowed"] += 1
        else:
            answers.responses[response.sender] = response.payload
            answers.bytes += size

    def relay(self, relay: Relay, now: float) -> None:
        """Send on what another node wants to reach a third one."""
        self._tell(relay.message, relay.name, (relay.addr, relay.port), now)

    # -- from this node ------------------------------------------------------------------------

    def ask(
        self,
        name: str,
        payload: bytes,
        at: Address,
        now: float,
        *,
        nodes: Iterable[str],
        tags: Mapping[str, str],
        relays: int,
        timeout: float,
        limit: int,
    ) -> tuple[Query, bytes]:
        """Begin a query that is answered to `at`, within `timeout` seconds; return it, and the message to gossip.

        ``answers`` tells what has come; ``close`` ends it.

        Raises:
            ConfigError: encoded it takes more than `limit` bytes; a filter is wrong.
            QueueFull: too many of ours are open.
        """
        if len(self._open) >= MAX_OPEN:
            raise QueueFull(f"{MAX_OPEN} queries wait for answers", hint="ask less often, or with a shorter timeout")
        query = Query(
            self._clock.time, self._rng.getrandbits(31), at[0], at[1], self._name, encode_filters(nodes, tags), ACK,
            relays, int(timeout * 1e9), name, payload,
        )  # fmt: skip
        message = encode_query_message(query)
        if len(message) > limit:
            text = f"query {name!r:.40} takes {len(message)} bytes, the limit is {limit}"
            raise ConfigError("payload", text, hint="send a reference to the data, or raise query_size_limit")
        self._open[query.ltime, query.id] = Answers()
        self.receive(query, message, now)
        return query, message

    def answer(self, query: Query, payload: bytes, now: float, limit: int) -> None:
        """Answer a query that was for us.

        Raises:
            ConfigError: encoded it takes more than `limit` bytes.
        """
        response = QueryResponse(query.ltime, query.id, self._name, 0, payload)
        size = len(encode_query_message(response))
        if size > limit:
            text = f"answering {query.name!r:.40} takes {size} bytes, the limit is {limit}"
            raise ConfigError("response", text, hint="answer with a reference, or raise response_size_limit")
        self._respond(query, response, now)

    def answers(self, query: Query) -> Answers:
        """Return what came to a query of ours that is open."""
        return self._open[query.ltime, query.id]

    def close(self, query: Query) -> None:
        """Wait no longer for answers; what comes now is counted as late."""
        self._open.pop((query.ltime, query.id), None)

    # -- outputs --------------------------------------------------------------------------------

    def to_send(self) -> list[Direct]:
        """Take the messages for single nodes."""
        direct, self._direct = self._direct, []
        return direct

    def asked(self) -> list[Asked]:
        """Take the queries for this node, in the order of arrival."""
        asked, self._asked = self._asked, []
        return asked

    # -- private ----------------------------------------------------------------------------------

    def _is_for_us(self, query: Query) -> bool:
        try:
            return passes(query, self._name, self._tags())
        except MycorrizalError:
            self._counters["bad_filters"] += 1
            return False

    def _forget(self) -> None:
        oldest = self._clock.time - QUERY_BUFFER
        for ltime in [ltime for ltime in self._seen if ltime < oldest]:
            del self._seen[ltime]

    def _respond(self, query: Query, response: QueryResponse, now: float) -> None:
        if query.source == self._name and (query.ltime, query.id) in self._open:
            self.take_response(response)
            return
        message = encode_query_message(response)
        self._tell(message, query.source, (query.addr, query.port), now)
        others = [name for name in self._alive() if name != query.source]
        if 0 < query.relays <= len(others):  # too few others: not worth it, as in Serf
            relayed = encode_query_message(Relay(query.addr, query.port, query.source, message))
            self._direct += [Direct(relayed, name) for name in self._rng.sample(others, query.relays)]

    def _tell(self, message: bytes, name: str, address: Address, now: float) -> None:
        """Differs from Serf: what goes to addresses that are no member's is bounded in time.

        Without a key anybody writes a query, and each member would answer to whatever address it names.
        """
        if not self._known(name, address):
            if now - self._strangers_since >= STRANGERS_SECONDS:
                self._strangers, self._strangers_since = 0, now
            self._strangers += 1
            if self._strangers > STRANGERS:
                self._counters["answers_withheld"] += 1
                return
        self._direct.append(Direct(message, name, address))
