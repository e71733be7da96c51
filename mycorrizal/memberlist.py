"""``Memberlist``: membership of a cluster for plain, blocking Python.

The verbs are memberlist's. What each does on the wire and to the member table
is in ``_swim``; threads and sockets are in ``_runtime``; this module is the
door::

    config = Config.lan(name="alice", bind_addr="10.0.0.4")
    with Memberlist(config) as alice:
        alice.join(["10.0.0.5"])
        alice.members()

*Threads.* Every method may be called on any thread, also inside delegates.
Reads (``members``, ``num_members``, ``local_node``, ``health_score``,
``metrics``) and best-effort sends never block. Calls that block take
``timeout`` in seconds, where None waits; they raise ``ReentrantCallError`` inside
supply and admission delegates, which run on the thread that would have to
answer. Ctrl-C interrupts them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from types import TracebackType

from ._endings import named
from ._runtime.net import addresses
from ._runtime.swim import joining
from ._runtime.swim.companion import Companion
from ._runtime.swim.membership import Delegates, Membership
from ._runtime.threads.deadline import Deadline
from ._runtime.threads.lifecycle import Handle
from ._runtime.threads.subscribers import EventStream
from ._wire.limits import USER_BYTES_SENT_MAX
from ._wire.security import Keyring
from .config import Config
from .delegates import AliveDelegate, ConflictDelegate, Delegate, EventDelegate, MergeDelegate, PingDelegate
from .events import MemberEvent
from .exceptions import ConfigError, LocalProtocolError, MycorrizalError, NotRunningError, PeerUnreachable
from .types import Address, JoinResult, Node, NodeState, as_builtin

__all__ = ["Memberlist"]

_EXIT_LEAVE_SECONDS = 2.0
_SHUTDOWN_SECONDS = 5.0


class Memberlist(Handle):
    """One node of a cluster: listening, probing and gossiping from construction to ``shutdown``.

    As a context manager it leaves (for at most 2 s) and shuts down at the end
    of the block. One that was never shut down is stopped at interpreter exit,
    or when it is garbage collected (with a ``ResourceWarning``); to the others
    it has then failed. After ``fork`` the child's copy refuses every call.

    Args:
        config: settings; ``Config.lan()`` and its siblings make them.
        delegate: metadata, user messages, broadcasts, state sync. Two further
            methods are called if it has them: ``starting(config)`` before
            anything else, which may raise, or return a ``Config`` to be used instead, and ``leaving()`` on the gossip
            thread when a leave begins. Bytes that it returns are a message that
            members get directly, just before the leave itself (``leave_fanout``).
        events: joins, leaves, updates.
        conflict: two nodes of one name.
        merge: may refuse a join's members.
        ping: payloads and round trips of probes.
        alive: may refuse a member.

    Raises:
        BindError: the address or port cannot be listened on.
        ResourcesExhausted: no descriptor, thread or memory is left.
        ConfigError: there is no address to advertise, or ``cidrs_allowed`` or
            the alive delegate refuses the node itself.
        MetaTooLarge: ``node_meta`` returned more than 512 bytes.
    """

    def __init__(
        self,
        config: Config,
        *,
        delegate: Delegate | None = None,
        events: EventDelegate | None = None,
        conflict: ConflictDelegate | None = None,
        merge: MergeDelegate | None = None,
        ping: PingDelegate | None = None,
        alive: AliveDelegate | None = None,
        _companion: Companion | None = None,
    ) -> None:
        self._membership: Membership | None = None
        if not isinstance(config, Config):
            raise TypeError(f"config must be a mycorrizal.Config, not {type(config).__name__}")
        self._membership = Membership(config, Delegates(delegate, events, conflict, merge, ping, alive, _companion))

    # -- joining and leaving --------------------------------------------------------------

    @named("join")
    def join(self, addresses: Iterable[str], timeout: float | None = 30.0) -> JoinResult:
        """Join the cluster that any of `addresses` belongs to, by exchanging member tables with each.

        When it returns, the members that the seeds knew are in ``members()``, and the delegates have been told what
        the seeds told: ``notify_join``, ``merge_remote_state``. It waits for the delegate thread within `timeout`;
        if that is over, the join has succeeded all the same, and ``delegates_pending`` says so. On the delegate thread
        itself it does not wait for that. Everybody else learns of this node by gossip. Blocks.

        Args:
            addresses: entries ``host``, ``host:port`` or ``name/host:port``; the port defaults to our own, a host's
                name stands for all its addresses, and the member there must have the node's name that is given.
            timeout: seconds for all of it; each seed also has ``tcp_timeout``.

        Returns:
            How many addresses were reached, the error of each entry that was
            not, and whether delegates are still to be told. An empty list gives
            ``JoinResult(0, {})``.

        Raises:
            JoinError: no address was reached; text and ``failures`` say why, seed by seed.
            LocalProtocolError: this node has left.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        membership = self._blocking("join")
        deadline = Deadline(timeout)
        if membership.view().local_node.state == NodeState.LEFT:
            raise LocalProtocolError(
                "a node that has left cannot join again", operation="join", hint="shut it down and create a new one"
            )
        return joining.join(membership, addresses, deadline)

    @named("leave")
    def leave(self, timeout: float | None = 10.0) -> None:
        """Tell the others that this node goes, and wait until that was gossiped out. Blocks; idempotent.

        The node still answers afterwards, as one that has left, until ``shutdown``.

        Raises:
            OperationTimeout: not gossiped out within `timeout` seconds; this node counts as left all the same.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        membership = self._blocking("leave")
        deadline = Deadline(timeout)
        membership.operate(membership.machine.leave, deadline, "leave")

    def shutdown(self, timeout: float | None = _SHUTDOWN_SECONDS) -> None:
        """Stop without a word to the others, who will find this node failed; call ``leave`` first to say goodbye.

        Idempotent, and allowed everywhere: a delegate may call it too, and
        then it does not wait for the thread it runs on. Delegate callbacks
        that are queued still run; a callback that takes longer than `timeout`
        seconds is left behind to end by itself. Afterwards blocking calls raise
        ``NotRunningError``, and reads give the last state.
        """
        membership = self._membership
        if membership is not None:
            membership.check_process()
            membership.stop()
            membership.join(Deadline(timeout))

    def __enter__(self) -> Memberlist:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        membership = self._membership
        if membership is None or membership.forked:
            return  # a child of fork runs out of the parent's block
        try:
            if not membership.stopped:
                self.leave(_EXIT_LEAVE_SECONDS)
        except MycorrizalError:
            pass  # nobody left to hear it, or shut down meanwhile: we are going anyway
        finally:
            self.shutdown()

    def __del__(self) -> None:
        membership: Membership | None = getattr(self, "_membership", None)
        if membership is not None and not membership.stopped and not membership.forked:
            membership.stop()
            warnings.warn(f"unclosed {self!r}; call shutdown()", ResourceWarning, source=self, stacklevel=2)

    # -- reading ------------------------------------------------------------------------

    def members(self, *, all: bool = False) -> tuple[Node, ...]:  # noqa: A002
        """Return the members, alive and suspect, this node included, by name. Never blocks, any thread.

        Args:
            all: also those that left or failed (``node.state``) within a day, the last 4,096 of them.

        Raises:
            ServiceCrashed: the gossip thread died, so the list would be stale.
        """
        members = self._running.view().members
        if not all:
            return members
        here = {node.name for node in members}
        gone = [node for node, _ in self._running.gone() if node.name not in here]
        return tuple(sorted((*members, *gone), key=lambda node: node.name))

    def num_members(self) -> int:
        """Return how many ``members()`` there are."""
        return len(self._running.view().members)

    @property
    def local_node(self) -> Node:
        """This node's own record."""
        return self._running.view().local_node

    @property
    def health_score(self) -> int:
        """How unwell this node thinks it is: 0 is healthy, at most ``awareness_max_multiplier`` - 1."""
        membership = self._running
        membership.view()
        return membership.gossip.health_score

    @property
    def protocol_version(self) -> int:
        """The configured memberlist protocol."""
        return self._running.config.protocol_version

    @property
    def config(self) -> Config:
        """The settings, with the port that was really bound."""
        return self._running.config

    @property
    def keyring(self) -> Keyring:
        """The keys: ``add``, ``use``, ``remove``, ``keys``. Changes take effect at once; any thread."""
        return self._running.keyring

    def events(self) -> EventStream[MemberEvent]:
        """Return a new iterator of what happens from now on (``mycorrizal.events``); any thread.

        It ends when this ``Memberlist`` shuts down. A reader that falls
        ``event_queue_depth`` events behind loses the oldest and gets one
        ``EventsLost``. ``get(timeout=)`` waits for one event, ``close()`` ends it.
        """
        membership = self._running
        membership.check_process()
        return membership.subscribers.subscribe()

    def metrics(self) -> dict[str, int]:
        """Return counters and gauges. Never blocks, any thread.

        Counters, since the start (memberlist's names where it has one):

        * ``udp.sent``, ``udp.received``, ``tcp.sent``, ``tcp.received``: bytes;
          ``udp.packets_sent``, ``udp.packets_received``: datagrams.
        * ``tcp.connect``, ``tcp.accept``: conversations we dialled, others dialled.
        * ``udp.send_dropped`` (send buffer full), ``udp.write_errors``, ``udp.read_errors``,
          ``tcp.accept_errors``, ``tcp.broken``, ``tcp.timeouts``: trouble with sockets.
        * ``packets_rejected``, ``tcp.rejected``: what peers sent and we refused; ``pings_echoed``: pings of ours
          that came back; ``answers_withheld``: what one datagram asked for beyond the limit (``limit_answers``);
          ``tcp.address_refused`` (``cidrs_allowed``), ``tcp.dials_dropped`` (no thread for ours);
          ``names_refused``: names no node may have (``wire="cbor"``).
        * Those that dialled us and were ended: ``tcp.silent`` (said nothing), ``tcp.displaced`` (said little, and
          others waited for a place), ``tcp.flooded`` (too many bytes were held), ``tcp.crowded`` (found no place).
        * ``delegate.slow``, ``delegate.faults``, and the same with ``.<method>`` behind: supply and admission
          calls over 10 ms, delegate methods that raised or gave too much.
        * ``dropped.<method>``: callbacks dropped because delegates were too slow.
        * ``events.lost``: by slow ``events()`` readers; ``events.folded``: for slow event delegates.
        * ``user.replayed``, ``user.misdirected``: numbered user messages dropped, since they came before or are for
          another node.
        * ``stalls``: times this process did not run; ``msg.alive``, ``msg.suspect``, ``msg.dead``, ``msg.user``
          and further counters of the protocol.

        Gauges: ``members``, ``nodes`` (all states), ``health.score``, ``queue.broadcasts``,
        ``queue.delegates``, ``queue.commands``, ``queue.events`` (the slowest subscriber's),
        ``subscribers``, ``exchanges.dialled``, ``exchanges.accepted``, ``exchanges.threads``,
        ``state.local``, ``state.remote`` (bytes of the last whole state that was sent, that came),
        ``tcp.held`` (bytes that conversations hold), ``tcp.refusing`` (1 while some are turned away),
        ``timers.late_ms`` (the most that a timer was late in the last half minute, without stalls),
        ``replays.windows`` (senders of numbered messages that are remembered, twice: packets and streams), and
        ``key.sealed``: packets and streams that this process encrypted with the present primary key; rotate it before
        all members together reach 2**32.
        """
        membership = self._running
        membership.check_process()
        return membership.metrics()

    # -- telling and asking ------------------------------------------------------------------

    @named("update_node")
    def update_node(self, timeout: float | None = 10.0) -> None:
        """Ask the delegate's ``node_meta`` again and wait until the answer was gossiped out. Blocks.

        Raises:
            MetaTooLarge: more than 512 bytes; the old metadata stays.
            OperationTimeout: not gossiped out within `timeout` seconds; the new metadata holds all the same.
            LocalProtocolError: this node has left.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        self._update(timeout, "update_node")

    @named("ping")
    def ping(self, node: Node | str, timeout: float | None = 10.0) -> float:
        """Ping a member once over UDP and return the round trip in seconds. Blocks.

        Args:
            node: a member, or its name.
            timeout: seconds; ``probe_timeout`` ends the wait in any case.

        Raises:
            NoPingResponse: no answer within ``probe_timeout``.
            PeerUnreachable: no member has this name.
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        membership = self._blocking("ping")
        deadline = Deadline(timeout)
        target = self._member(node, "ping")
        future = membership.gossip.operation(lambda now: membership.machine.ping(target.name, target.address, now))
        return float(membership.wait(future, deadline, "ping"))

    @named("send_reliable")
    def send_reliable(self, node: Node | str, data: bytes, timeout: float | None = 10.0) -> None:
        """Send a user message over TCP; it reaches the peer's ``notify_msg``. Blocks.

        Success means that the peer's system has taken the bytes, not that the peer has
        looked at them: memberlist's messages are not acknowledged. On failure it may have arrived.

        Args:
            node: a member, or its name.
            data: 1 byte to 19 MiB.
            timeout: seconds to dial and write.

        Raises:
            ConfigError: `data` is empty (memberlist does not deliver that) or too large.
            PeerUnreachable: no such member, refused, or broken off.
            OperationTimeout, NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        membership = self._blocking("send_reliable")
        payload = _payload(data)
        if not payload:
            raise ConfigError("data", "is empty", hint="receivers do not deliver empty messages over TCP")
        if len(payload) > USER_BYTES_SENT_MAX:
            hint = f"at most {USER_BYTES_SENT_MAX} (19 MiB) fit one encrypted frame; split it"
            raise ConfigError("data", f"is {len(payload)} bytes long", hint=hint)
        target = self._member(node, "send_reliable")
        deadline = Deadline(timeout)
        message = membership.user(payload, target.name)
        membership.wait(membership.converse(target.address, message, deadline), deadline, "send_reliable")

    @named("send_best_effort")
    def send_best_effort(self, node: Node | str, data: bytes) -> None:
        """Send a user message in one UDP packet, which may be lost. Never blocks, any thread.

        Over about 1,400 bytes the network has to fragment it, and loss is likelier.

        Args:
            node: a member, or its name.
            data: what one datagram carries, a little under 64 KiB.

        Raises:
            ConfigError: `data` does not fit into a datagram.
            PeerUnreachable: no member has this name.
            QueueFull: thousands of sends wait already; nothing was sent.
            NotRunningError, ServiceCrashed, ForkedProcessError
        """
        membership = self._running
        membership.check_process()
        if membership.stopped:
            raise membership.gossip.service.refusal()
        target = self._member(node, "send_best_effort")
        self._send_packet(target.address, data, target.name)

    @named("send_to_address")
    def send_to_address(self, address: str | Address, data: bytes, *, name: str = "") -> None:
        """Send a user message in one UDP packet to an address, member or not. Never blocks, any thread.

        Args:
            address: ``"10.0.0.5:7946"``, ``"name/10.0.0.5"`` or ``("10.0.0.5", 7946)``; names are not resolved.
            data: as in ``send_best_effort``.
            name: the node's name; needed with ``require_node_names``.

        Raises:
            ConfigError: a bad address, or too much data.
            QueueFull, NotRunningError, ServiceCrashed, ForkedProcessError
        """
        config = self._running.config
        entry = addresses.parse_address(address, config.bind_port)
        name = name or entry.name
        if config.require_node_names and not name:
            raise ConfigError("name", "is missing", hint="require_node_names wants the node's name with every address")
        self._send_packet((entry.host, entry.port), data, name)

    # -- private ------------------------------------------------------------------------

    @property
    def _running(self) -> Membership:
        if self._membership is None:
            raise NotRunningError("this Memberlist was never started")
        return self._membership

    def _update(self, timeout: float | None, operation: str) -> None:
        membership = self._blocking(operation)
        membership.operate(membership.machine.update_meta, Deadline(timeout), operation)

    def _blocking(self, operation: str) -> Membership:
        membership = self._running
        membership.guard(operation)
        if membership.stopped or membership.gossip.service.crashed is not None:
            raise membership.gossip.service.refusal()
        return membership

    def _member(self, node: Node | str, operation: str) -> Node:
        if isinstance(node, Node):
            return node
        node = as_builtin(node)
        if not isinstance(node, str):
            raise TypeError(f"node must be a Node or a name, not {type(node).__name__}")
        for member in self._running.view().members:
            if member.name == node:
                return member
        raise PeerUnreachable(
            f"no member is named {node!r}", node=node, operation=operation, hint="members() lists who is there"
        )

    def _send_packet(self, address: Address, data: bytes, name: str) -> None:
        membership = self._running
        membership.check_process()
        payload = _payload(data)
        message = membership.user(payload, name)
        room = membership.datagram_room(message)
        if len(payload) > room:
            raise ConfigError(
                "data", f"is {len(payload)} bytes long", hint=f"one datagram carries {room}; use send_reliable()"
            )
        machine = membership.machine
        sent = membership.mailbox.tell(lambda now: machine.send_user(message, address, now, name=name), bounded=True)
        if membership.stopped or not sent:
            raise membership.gossip.service.refusal()

    def __repr__(self) -> str:
        membership = self._membership
        if membership is None:
            return "<Memberlist (not started)>"
        view = membership.gossip.view
        count = len(view.members) if view is not None else 0
        seen = "1 member" if count == 1 else f"{count} members"
        state = "stopped" if membership.stopped else "starting" if view is None else seen
        config = membership.config
        return f"<Memberlist {config.name!r} on {config.bind_addr} port {config.bind_port}, {state}>"


def _payload(data: bytes) -> bytes:
    """Return `data` as bytes that nobody else can change."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"data must be bytes, not {type(data).__name__}")
