"""Anti-entropy: whole tables exchanged over a stream, for joins and at intervals.

From memberlist ``state.go`` and ``net.go`` (memberlist-protocol §3.5, §3.6, §8.5).

Differs from memberlist, by two additions that use nothing but its own push/pull:

* *Early push/pulls.* There a gossiped alive that was lost is repaired by the
  next periodic push/pull, 30 s later or more; in one run of seven some node
  sees a joiner only then. Here a node that joined, or saw somebody join, does
  a few extra push/pulls within seconds, bounded by tokens
  (``early_push_pulls``).
* *Reconnecting.* There members lost in a partition are forgotten after
  ``gossip_to_the_dead_time`` and the halves never meet again. Here they are
  remembered (bounded), up to four are pinged in a ``reconnect_interval``, and
  the first that answers heals the cluster by push/pull (module ``lost``).

Differs from memberlist: there any push/pull is an answer, and so a program that
sends back what it was sent is a seed that was joined. Here an answer that only
repeats what was said counts when a ping over TCP is acknowledged as well, which
holds for a member that knows the same as we do, and for this node itself at
another of its addresses (``refuse_echoes``). And there the name of a seed
``name/host`` is not looked at; here whoever is there is asked for it first
(``check_seed_names``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .._wire.messages import Err, Message, PushNodeState, PushPull, Suspect
from .._wire.text import logger, printable, text_of
from ..config import META_MAX_SIZE
from ..exceptions import (
    ConnectionRefused,
    MergeRefused,
    MycorrizalError,
    PeerRefused,
    PeerUnreachable,
    RemoteProtocolError,
)
from ..types import Address, Node, NodeState, Versions
from .core import Core
from .events import MergeRejected, RemoteState
from .hearsay import Hearsay
from .lost import Lost
from .members import Member
from .probe import Prober
from .scaling import push_pull_scale
from .timers import Timer
from .transitions import Transitions

__all__ = ["Sync"]

log = logger("mycorrizal.swim")

_EARLY_FIRST = (0.4, 1.0)  # seconds after a join of our own, jittered
_EARLY_NEXT = (0.6, 1.2)  # after each further cause
_EARLY_PER_INTERVAL = 6
_EARLY_EVERYBODY = 64  # up to this size everybody reacts to somebody's join; of n, on average 64 * 64 / n
_RECONNECTS = 4  # pings of lost members in a reconnect interval, at most
_FOLLOW_UPS = (1.0, 2.5, 5.0)  # seconds after a reconnect, until the other side has refuted


class Sync:
    """Push/pull with joiners, at intervals, early, and with members that were lost."""

    def __init__(self, core: Core, transitions: Transitions, prober: Prober) -> None:
        self._core = core
        self._transitions = transitions
        self._prober = prober
        self._tokens = float(core.config.early_push_pulls)
        self._tokens_at = 0.0
        self._early: Timer | None = None
        self._lost = Lost(core.rng, core.config.reconnect_max)
        self._reconnecting = False
        self.hearsay = Hearsay(core, transitions, prober, self._lost) if core.config.check_hearsay else None

    def start(self, now: float) -> None:
        """Begin the periodic work."""
        config, rng = self._core.config, self._core.rng
        self._tokens_at = now
        if config.push_pull_interval > 0:
            # The scale is that of the cluster as it is known by then.
            stagger = rng.random() * config.push_pull_interval
            self._core.timers.call_at(now + stagger, self._schedule_periodic)

    # -- joining ----------------------------------------------------------------------

    def join(self, address: Address, now: float, *, name: str = "") -> int:
        """Push/pull with a seed; ``OperationDone`` carries its error, if any."""
        operation = self._core.new_operation()
        deadline = now + self._core.config.tcp_timeout

        def end(error: Exception | None, then: float) -> None:
            if error is None and self.hearsay is not None:
                # Whom the seed told of is there when the call returns.
                self.hearsay.when_settled(lambda later: self._core.finish(operation), then)
            else:
                self._core.finish(operation, error=error)
            if error is None:
                self._tokens = float(self._core.config.early_push_pulls)
                self._arm_early(then, _EARLY_FIRST)

        def named(error: Exception | None, then: float) -> None:
            if error is not None:
                end(error, then)
            else:
                self._push_pull(address, name, True, then, end, deadline)

        if name and self._core.config.check_seed_names:
            self._check_name(name, address, deadline, named)
        else:
            named(None, now)
        return operation

    def _check_name(
        self, name: str, address: Address, deadline: float, end: Callable[[Exception | None, float], None]
    ) -> None:
        """Find out whether the member at `address` is `name`, before it is told anything."""
        where = f"{address[0]}:{address[1]}"

        def named(error: Exception | None, now: float) -> None:
            silent = isinstance(error, PeerUnreachable) and not isinstance(error, (ConnectionRefused, PeerRefused))
            if silent:  # as a member of another name is; but so is one with another label
                self._prober.ask("", address, deadline, lambda failure, then: end(failure or other, then))
            else:
                end(error, now)

        other = PeerUnreachable(
            f"the member at {where} is not {name!r}", node=where, operation="join",
            hint="write the name that it has, or the address without a name",
        )  # fmt: skip
        self._prober.ask(name, address, deadline, named)

    def _push_pull(
        self,
        address: Address,
        name: str,
        join: bool,
        now: float,
        end: Callable[[Exception | None, float], None] | None = None,
        deadline: float | None = None,
    ) -> None:
        core = self._core
        deadline = now + core.config.tcp_timeout if deadline is None else deadline
        said = self._local_table(join)

        def done(answer: Message | None, error: Exception | None, then: float) -> None:
            if isinstance(error, ConnectionRefusedError):
                self._transitions.refused(name, address, then)
            if error is None and isinstance(answer, PushPull) and self._repeats(answer, said):
                self._prober.ask(name, address, deadline, lambda failure, later: asked(answer, failure, later))
            else:
                take(answer, error, then)

        def asked(answer: PushPull, failure: Exception | None, then: float) -> None:
            take(answer, failure and _echo(address, failure), then)

        def take(answer: Message | None, error: Exception | None, then: float) -> None:
            if error is None:
                error = self._take_answer(answer, address, join, then)
            if error is None:
                core.times["push_pull"].observe(then - now)
            else:
                core.count("push_pulls_failed")
                log.debug("%s: push/pull with %s:%d failed: %s", core.name, *address, error)
            if end is not None:
                end(error, then)

        core.count("push_pulls")
        core.request_exchange(said, address, name, deadline, done)

    def _repeats(self, answer: PushPull, said: PushPull) -> bool:
        """Return whether an answer may be an echo: of a join, if it knows nobody that we did not speak of."""
        if not self._core.config.refuse_echoes:
            return False
        if not said.join:
            return answer == said
        known = {node.name: node.incarnation for node in said.nodes if node.name != self._core.name}
        others = (node for node in answer.nodes if node.name != self._core.name)
        return all(node.incarnation <= known.get(node.name, -1) for node in others)

    def _take_answer(self, answer: Message | None, address: Address, join: bool, now: float) -> Exception | None:
        where = f"{address[0]}:{address[1]}"
        if isinstance(answer, Err):
            return PeerRefused(f"{where} refused: {printable(answer.error)}", node=where, hint=_ERR_HINT)
        if not isinstance(answer, PushPull):
            what = "nothing" if answer is None else f"a message of type {answer.TYPE.name}"
            return RemoteProtocolError(f"{where} answered a push/pull with {what}", node=where)
        try:
            self._merge(answer, join, now, answer=True, teller=address)
        except MycorrizalError as exc:
            return exc
        return None

    def answer(self, request: PushPull, address: Address, now: float) -> PushPull:
        """Merge what somebody pushed to us; return our table as it was before."""
        answer = self._local_table(request.join)
        try:
            self._merge(request, request.join, now, teller=address)
        except MergeRefused as exc:
            self._core.count("merges_refused")
            log.warning("%s: state from %s:%d refused: %s", self._core.name, *address, exc)
            self._core.emit(MergeRejected(address, exc))
        return answer

    def _local_table(self, join: bool) -> PushPull:
        nodes = tuple(member.push_state() for member in self._core.table)
        return PushPull(nodes, self._core.local_state(join), join)

    def _merge(
        self, remote: PushPull, join: bool, now: float, *, answer: bool = False, teller: Address | None = None
    ) -> None:
        nodes = tuple(node for node in remote.nodes if self._core.name_allowed(node.name))
        if len(nodes) < len(remote.nodes):
            remote = PushPull(nodes, remote.user_state, remote.join)
        self._transitions.verify(remote.nodes)
        delegate = self._core.merge_delegate
        if join and delegate is not None:
            try:
                delegate.notify_merge(_as_nodes(remote))
            except Exception as exc:
                raise MergeRefused(f"notify_merge refused: {text_of(exc)}", operation="join") from exc
        told: Sequence[PushNodeState] = remote.nodes
        if self.hearsay is not None and teller is not None:
            told = self.hearsay.sift(told, teller, dialled=answer, joining=join and answer, now=now)
        self._transitions.merge(told, now)
        if remote.user_state and self._core.delegate is not None:
            self._core.emit(RemoteState(remote.user_state, join, answer))

    # -- at intervals ---------------------------------------------------------------------

    def _periodic(self, now: float) -> None:
        self._schedule_periodic(now)
        self._with_anyone(now)

    def _schedule_periodic(self, now: float) -> None:
        interval = self._core.config.push_pull_interval * push_pull_scale(len(self._core.table))
        self._core.timers.call_at(now + interval, self._periodic)

    def _with_anyone(self, now: float) -> None:
        core = self._core
        for member in core.table.sample(1, lambda m: m.state == NodeState.ALIVE and not core.is_self(m)):
            self._push_pull(member.address, member.name, False, now)

    # -- early ------------------------------------------------------------------------------

    def saw_join(self, member: Member, now: float) -> None:
        """Somebody joined: soon compare tables with one node, if a token is left."""
        if self._lost.forget(member.name):
            member.back = now
        # A larger cluster sends each broadcast more often, and its tables cost more: there few react.
        share = (_EARLY_EVERYBODY / len(self._core.table)) ** 2
        if share >= 1 or self._core.rng.random() < share:
            self._arm_early(now, _EARLY_NEXT)

    def hasten(self, now: float) -> None:
        """Compare tables soon, for we may have missed something (a stall)."""
        self._tokens = max(self._tokens, 1.0)
        self._arm_early(now, _EARLY_NEXT)

    def _arm_early(self, now: float, window: tuple[float, float]) -> None:
        config = self._core.config
        if self._early is not None or not config.early_push_pulls or config.push_pull_interval <= 0:
            return
        # Tokens come back a few times in a push/pull interval, which bounds the cost of constant change.
        refill = (now - self._tokens_at) * _EARLY_PER_INTERVAL / config.push_pull_interval
        self._tokens = min(float(config.early_push_pulls), self._tokens + refill)
        self._tokens_at = now
        if self._tokens < 1:
            return
        self._tokens -= 1
        self._early = self._core.timers.call_at(now + self._core.rng.uniform(*window), self._early_due)

    def _early_due(self, now: float) -> None:
        self._early = None
        self._core.count("push_pulls_early")
        self._with_anyone(now)
        self._arm_early(now, _EARLY_NEXT)

    # -- members lost in a partition ------------------------------------------------------------

    @property
    def lost(self) -> int:
        """How many lost members are remembered."""
        return len(self._lost)

    def saw_death(self, member: Member, now: float) -> None:
        """Somebody is gone: remember it if it did not leave by itself."""
        config = self._core.config
        self._lost.forget(member.name)
        if member.state != NodeState.DEAD or not config.reconnect_interval or not config.reconnect_max:
            return
        self._forgotten(self._lost.add(member, now))
        if not self._reconnecting:
            self._reconnecting = True
            self._arm_reconnect(now)

    def _arm_reconnect(self, now: float) -> None:
        share = self._core.config.reconnect_interval / min(_RECONNECTS, len(self._lost))
        self._core.timers.call_at(now + share * self._core.rng.uniform(0.5, 1.5), self._reconnect)

    def _forgotten(self, count: int) -> None:
        if count:
            self._core.count("lost_members_forgotten", count)

    def _reconnect(self, now: float) -> None:
        core, config = self._core, self._core.config
        self._forgotten(self._lost.expire(now - config.reconnect_timeout))
        self._reconnecting = bool(self._lost) and not core.has_left
        if not self._reconnecting:
            return
        self._arm_reconnect(now)
        lost = self._lost.choose({member.address for member in core.table if not member.gone})
        core.count("reconnect_pings")
        # The suspicion in the same packet makes it refute, so that its answer beats our record of its death.
        self._prober.check(
            lost.name, lost.address, now + config.probe_timeout,
            lambda then: self._found(lost.name, lost.address, 0, then), lambda then: None,
            Suspect(lost.incarnation, lost.name, core.name),
        )  # fmt: skip

    def _found(self, name: str, address: Address, attempt: int, now: float) -> None:
        """A lost member answers: push/pull, and again until both sides hold each other for alive."""
        core = self._core
        if core.has_left or (name not in self._lost and attempt == 0):
            return
        if attempt == 0:
            core.count("reconnects")
            log.warning("%s: lost member %s answers again", core.name, name)
        self._push_pull(address, name, False, now)
        if attempt < len(_FOLLOW_UPS):
            core.timers.call_at(now + _FOLLOW_UPS[attempt], lambda then: self._found(name, address, attempt + 1, then))


_ERR_HINT = "compare the encryption keys, the label and wire= of both sides"


def _echo(address: Address, failure: Exception) -> Exception:
    where = f"{address[0]}:{address[1]}"
    error = RemoteProtocolError(
        f"{where} says only what it was told, and acknowledges no ping", node=where, operation="join",
        hint="is it a member? another program that sends back what it is sent looks like this",
    )  # fmt: skip
    error.__cause__ = failure
    return error


def _as_nodes(remote: PushPull) -> tuple[Node, ...]:
    states = {int(state): state for state in NodeState}
    return tuple(
        Node(
            n.name, n.addr or b"", n.port, (n.meta or b"")[:META_MAX_SIZE], states[n.state], n.incarnation,
            Versions(*n.vsn[:6]) if n.vsn is not None and len(n.vsn) >= 6 else Versions(),
        )
        for n in remote.nodes
        if n.state in states
    )  # fmt: skip
