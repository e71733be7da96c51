"""Queries of a ``SerfDelegate``: those of its own, and those that its handlers answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import ceil, log10

from ..._serf import Asked
from ...exceptions import NotRunningError
from ..threads.deadline import Deadline
from .core import SerfCore

__all__ = ["INTERNAL", "PING", "Asking", "Handler", "Outcome", "SerfQuery"]

INTERNAL = "_serf_"
"""Names that begin so are Serf's own."""
PING = INTERNAL + "ping"
TIMEOUT_MULT = 16
"""Gossip intervals that a query lasts for each digit of the number of members (Serf's ``QueryTimeoutMult``)."""


@dataclass(frozen=True, slots=True)
class SerfQuery:
    """A query as a handler sees it.

    Attributes:
        name, payload: what is asked.
        source: name of the node that asks; empty if it does not say.
        deadline: seconds that were left to answer when the handler began.
    """

    name: str
    payload: bytes
    source: str
    deadline: float


Handler = Callable[[SerfQuery], "bytes | None"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a query brought.

    Attributes:
        responses: answers by node name.
        acks: names of those who have the query.
        missing: members that it was for and who did not answer; of a ping, did not acknowledge.
    """

    responses: dict[str, bytes]
    acks: set[str]
    missing: list[str]


class Asking:
    """Asks, and has handlers answer. Any thread, but for ``ask``.

    Args:
        limit: most bytes of a query and of an answer.
    """

    def __init__(self, core: SerfCore, limit: int) -> None:
        self.handlers: dict[str, Handler] = {}
        self._core = core
        self._limit = limit

    def ask(
        self,
        name: str,
        payload: bytes,
        nodes: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
        timeout: float | None = None,
        relays: int = 0,
    ) -> Outcome:
        """Ask, and wait until all who are asked have answered, or the time is over. Blocks.

        Raises: as ``SerfDelegate.query``.
        """
        core, ground = self._core, self._core.ground
        if ground is None:
            raise NotRunningError("this SerfDelegate has no Memberlist yet", hint="pass it as delegate= to one")
        ground.guard("query")
        node = ground.local_node
        with core.changed:
            queries = core.machine.queries
            if timeout is None:
                timeout = ground.config.gossip_interval * TIMEOUT_MULT * ceil(log10(core.size() + 1))
            query, message = queries.ask(
                name, payload, (node.addr, node.port), ground.now(), nodes=nodes, tags=tags or {}, relays=relays,
                timeout=timeout, limit=self._limit,
            )  # fmt: skip
            core.machine.query(message)
            asked = core.pull().asked
            answers, expected = queries.answers(query), core.expected(query)
        try:
            deadline = Deadline(timeout)
            for one in asked:
                self.answer(one)
            came: Mapping[str, bytes] | set[str] = answers.acks if name == PING else answers.responses
            with core.changed:
                core.changed.wait_for(lambda: all(one in came for one in expected), deadline)
                return Outcome(dict(answers.responses), set(answers.acks), sorted(expected - set(came)))
        finally:
            with core.changed:
                queries.close(query)

    def answer(self, asked: Asked) -> None:
        """Have a query answered by its handler, on this thread."""
        query, core = asked.query, self._core
        handler = self.handlers.get(query.name)
        if handler is None:
            core.counters["queries_unhandled"] += not query.name.startswith(INTERNAL)
            return
        left = asked.deadline - core.now()
        if left <= 0:
            core.counters["queries_late"] += 1
            return
        answer = handler(SerfQuery(query.name, query.payload, query.source, left))
        if answer is not None:
            self.respond(asked, answer)

    def respond(self, asked: Asked, answer: bytes) -> None:
        """Send an answer, if it is not too late for it.

        Raises:
            ConfigError: it is too large.
            TypeError: it is not bytes.
        """
        if not isinstance(answer, (bytes, bytearray, memoryview)):
            raise TypeError(f"a query is answered with bytes or None, not {type(answer).__name__}")
        core = self._core
        with core.changed:
            now = core.now()
            if now > asked.deadline:
                core.counters["queries_late"] += 1
                return
            core.machine.queries.answer(asked.query, bytes(answer), now, self._limit)
            core.pull()
            core.changed.notify()
