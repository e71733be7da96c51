"""The member table: one record per node, in probe order.

Knows nothing of why a record changes (``transitions`` does). From memberlist
``state.go`` (memberlist-protocol §6.1, §6.7, §6.8, §8.6).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping

from .._wire.messages import PushNodeState
from ..exceptions import MergeRefused
from ..types import Address, Node, NodeState, Versions, host_of
from .suspicion import Suspicion
from .timers import Timer

__all__ = ["NO_VERSIONS", "Member", "MemberTable", "verify_protocol"]

NO_VERSIONS = bytes(6)
"""What a record holds when its node announced no versions."""

_versions: dict[bytes, Versions] = {}
_VERSIONS_CACHED = 256


class Member:
    """One node as this one knows it; owned by the machine's thread. Who changes it asks ``MemberTable.own`` before."""

    __slots__ = (
        "addr", "address", "back", "changed", "fallback_heard", "fallback_seq", "fallbacks", "heard", "heard_seq",
        "incarnation", "joined", "meta", "name", "node_cache", "port", "refused", "reported", "state", "suspicion",
        "suspicion_timer", "tcp_only", "vsn",
    )  # fmt: skip
    shared = False

    def __init__(self, name: str, addr: bytes | None, port: int, meta: bytes | None, vsn: bytes) -> None:
        self.name = name
        self.meta = meta
        self.vsn = vsn
        self.incarnation = 0
        self.state = NodeState.DEAD
        self.changed = float("-inf")
        self.back = float("-inf")  # when it was last heard of again after it had been suspect or lost
        self.joined = float("-inf")  # when its present life was first heard of
        self.suspicion: Suspicion | None = None
        self.suspicion_timer: Timer | None = None
        self.heard = float("-inf")  # when its last UDP ping came
        self.heard_seq = -1  # and the number of that ping
        self.fallbacks = 0  # pings of it that came over TCP, one after the other without a good one between
        self.fallback_seq = -1  # number of the last of them
        self.fallback_heard = False  # and whether it came over UDP too
        self.tcp_only = 0  # our probes of it that only TCP answered, one after the other
        self.refused = False  # its host refuses connections, and it has not answered since
        self.reported = float("-inf")  # when UDP to it was last reported as blocked
        self.node_cache: Node | None = None
        self.addr: bytes | None
        self.port: int
        self.address: Address
        self.move(addr, port)

    def move(self, addr: bytes | None, port: int) -> None:
        """Take over an address as announced."""
        self.addr = addr
        self.port = port
        self.address = (host_of(addr or b""), port)

    @property
    def gone(self) -> bool:
        """Whether the node is dead or left."""
        return self.state >= NodeState.DEAD

    @property
    def protocol_max(self) -> int:
        """The newest protocol the node understands; turns features on (memberlist-protocol §1.5)."""
        return self.vsn[1]

    def node(self) -> Node:
        """Return the record as an immutable value."""
        node = self.node_cache
        if node is None:
            versions = _versions.get(self.vsn)
            if versions is None:
                versions = Versions(*self.vsn)
                if len(_versions) < _VERSIONS_CACHED:
                    _versions[self.vsn] = versions
            node = self.node_cache = Node(
                self.name, self.addr or b"", self.port, self.meta or b"", self.state, self.incarnation, versions
            )
        return node

    def push_state(self) -> PushNodeState:
        """Return the record as it travels in a push/pull."""
        return PushNodeState(self.name, self.addr, self.port, self.meta, self.incarnation, int(self.state), self.vsn)


class MemberTable:
    """All known nodes, dead and left ones included until they are reaped."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._by_name: dict[str, Member] = {}
        self._order: list[Member] = []
        self._cursor = 0
        self._members_cache: tuple[int, tuple[Node, ...]] = (-1, ())
        self.version = 0

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._order)

    def get(self, name: str) -> Member | None:
        """Return the record of `name`, if there is one."""
        return self._by_name.get(name)

    def add(self, member: Member) -> None:
        """Insert at a random place of the probe order, so that nobody's place depends on when it came."""
        self._by_name[member.name] = member
        order = self._order
        order.append(member)
        place = self._rng.randrange(len(order))
        order[place], order[-1] = order[-1], order[place]
        self.version += 1

    def share(self, records: Mapping[str, Member]) -> None:
        """Insert records that other tables hold too (``simulation.acquaint``); those of names that are here are not."""
        new = [member for name, member in records.items() if name not in self._by_name]
        self._by_name = {**records, **self._by_name}
        order, randrange = self._order, self._rng.randrange
        for member in new:
            order.append(member)
            place = randrange(len(order))
            order[place], order[-1] = order[-1], order[place]
        self.version += len(new)

    def own(self, member: Member) -> Member:
        """Return the record to change: `member`, or if other tables hold it too a copy that replaces it here."""
        if not member.shared:
            return member
        mine = Member.__new__(Member)
        for name in Member.__slots__:
            setattr(mine, name, getattr(member, name))
        self._by_name[mine.name] = mine
        self._order[self._order.index(member)] = mine
        return mine

    def touch(self, member: Member) -> None:
        """Note that a record changed."""
        member.node_cache = None
        self.version += 1

    def members(self) -> tuple[Node, ...]:
        """Return alive and suspect nodes, self included, by name."""
        version, members = self._members_cache
        if version != self.version:
            members = tuple(sorted((m.node() for m in self._order if not m.gone), key=_by_name))
            self._members_cache = (self.version, members)
        return members

    def nodes(self) -> tuple[Node, ...]:
        """Return every record, by name."""
        return tuple(sorted((m.node() for m in self._order), key=_by_name))

    def next_in_order(self, reap: Callable[[], None]) -> Iterator[Member]:
        """Walk on round-robin, at most once around; `reap` is called at each wrap (memberlist-protocol §7.1)."""
        considered = 0
        while considered < len(self._order):
            considered += 1
            if self._cursor >= len(self._order):
                self._cursor = 0
                reap()
                continue
            member = self._order[self._cursor]
            self._cursor += 1
            yield member

    def reap(self, expired: Callable[[Member], bool]) -> list[Member]:
        """Forget records for which `expired` holds and shuffle the rest; return what was forgotten."""
        forgotten = [m for m in self._order if expired(m)]
        if forgotten:
            self._order = [m for m in self._order if self._by_name[m.name] is m and not expired(m)]
            for member in forgotten:
                del self._by_name[member.name]
            self.version += 1
        self._rng.shuffle(self._order)
        return forgotten

    def sample(self, count: int, wanted: Callable[[Member], bool]) -> list[Member]:
        """Return up to `count` different random records for which `wanted` holds (memberlist-protocol §8.6)."""
        order = self._order
        size = len(order)
        if size < 3 * count:
            return [m for m in self._rng.sample(order, size) if wanted(m)][:count]
        chosen: dict[str, Member] = {}
        for _ in range(3 * size):
            if len(chosen) >= count:
                break
            member = order[self._rng.randrange(size)]
            if member.name not in chosen and wanted(member):
                chosen[member.name] = member
        return list(chosen.values())


def _by_name(node: Node) -> str:
    return node.name


def verify_protocol(remote: Iterable[tuple[str, int, bytes]], local: Iterable[tuple[str, int, bytes]]) -> None:
    """Check that everyone speaks versions everyone understands (memberlist-protocol §6.8).

    Args:
        remote: (name, state, vsn of any length) of each node a peer sent.
        local: the same of our own table.

    Raises:
        MergeRefused: names the node and the range.
    """
    # A large table holds few different versions: look at each once.
    distinct: dict[tuple[bool, bytes], str] = {}
    for name, state, vsn in itertools.chain(remote, local):
        distinct.setdefault((state == NodeState.ALIVE, vsn), name)
    low, high, delegate_low, delegate_high = 0, 255, 0, 255
    for alive, vsn in distinct:
        if alive and len(vsn) >= 5:
            low, high = max(low, vsn[0]), min(high, vsn[1])
            delegate_low, delegate_high = max(delegate_low, vsn[3]), min(delegate_high, vsn[4])
    for (_, vsn), name in distinct.items():
        protocol, delegate = (vsn[2], vsn[5]) if len(vsn) >= 6 else (0, 0)
        if not low <= protocol <= high:
            raise MergeRefused(
                f"protocol version {protocol} of node {name!r} is outside {low}..{high}, which all understand",
                node=name,
                hint="set protocol_version alike on all nodes",
            )
        if not delegate_low <= delegate <= delegate_high:
            raise MergeRefused(
                f"delegate protocol version {delegate} of node {name!r} is outside {delegate_low}..{delegate_high}",
                node=name,
                hint="set delegate_protocol_version, _min and _max as the other nodes do",
            )
