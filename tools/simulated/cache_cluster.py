"""Cache machines on a simulated network, each with clocks and a view of its own.

Membership is not simulated by its protocol but by what comes out of it: views
that change at different times on different nodes, sometimes wrongly. Calls are
whole, slow, or broken in the request or in the answer; bytes go through the
real codec. Every other single write lends its value, and some of these are
given up in the middle; a call that reads such a value late is a fault. All
dice of a call are thrown before any odds are looked at.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from random import Random
from typing import Any

from mycorrizal._cache.core import Call
from mycorrizal._cache.definition import Definition, Limits
from mycorrizal._cache.machine import CacheMachine, Job, Later
from mycorrizal._cache.operations import Batch, Kind, Op
from mycorrizal._cache.placement import Owner
from mycorrizal._wire.lent import Lent
from mycorrizal._wire.values import Codecs, Encoded, decode_packed, decode_parts, encode_value
from mycorrizal.simulation.checkers import CheckFailed
from mycorrizal.simulation.clock import VirtualClock
from mycorrizal.simulation.faults import Faults, Links

__all__ = ["CacheCluster", "CacheNode"]

_WRITES = frozenset({Kind.SET, Kind.ADD, Kind.CAS})
_WALL = 1.8e9  # what a right wall clock shows at virtual time 0


class _Bytes:
    """A payload as it arrives."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def decode(self, codecs: Codecs) -> object:
        return decode_packed(self._data, codecs)


_GATHER = 0.02
"""Seconds within which callers of one node may submit together."""

_PATIENCE = 0.05
"""Seconds after which every 32nd caller gives up."""


class _Loan:
    """A value in a caller's memory, who changes that as soon as the call is over."""

    def __init__(self, value: bytes) -> None:
        self._memory = bytearray(value)
        self.lent = Lent(Encoded(b"", (memoryview(self._memory),), b"", len(value)))

    def take_back(self) -> None:
        """The call is over."""
        self.lent.over = True
        self._memory[:] = b"#" * len(self._memory)


class CacheNode:
    """One slot: a name, and the process that has it at present."""

    def __init__(self, index: int, rng: Random) -> None:
        self.index = index
        self.name = f"n{index}"
        self.rng = rng
        self.lives = 0
        self.running = False
        self.machine: CacheMachine
        self.boot = b""
        self.offset = 0.0
        self.known: dict[str, tuple[int, bytes | None]] = {}  # by name: when it was news, boot id
        self.jobs: list[Job] = []  # operations of callers that will be submitted in one turn

    @property
    def owner(self) -> Owner:
        """Name and boot of the process."""
        return Owner(self.name, self.boot)


class CacheCluster:
    """The event loop of it all.

    Args:
        size: how many nodes there are; they run and know each other at the start.
        seed: of everything.
        definition: the one cache.
        skew: greatest difference of a wall clock from the right time, in seconds.
        spread: greatest time from a change of membership until a node has noticed.
        machine: the class to run; tests plant faults in a subclass.
        telling: every other process that starts waits until the others have heard of it, as an agent does.
    """

    def __init__(
        self,
        size: int,
        *,
        seed: object,
        definition: Definition,
        limits: Limits | None = None,
        faults: Faults | None = None,
        skew: float = 0.0,
        spread: float = 0.5,
        machine: type[CacheMachine] = CacheMachine,
        telling: bool = False,
    ) -> None:
        self.clock = VirtualClock()
        self.faults = faults or Faults()
        self.links = Links()
        self.definition = self._first = definition
        self.limits = limits or Limits()
        self.skew = skew
        self.spread = spread
        self.counters: Counter[str] = Counter()
        self.random = Random(f"{seed}/network")
        self.steps = 0
        self._callers = Random(f"{seed}/callers")
        self._telling = (0.0, spread) if telling else (0.0, 0.0)
        self._machine = machine
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._news = 0
        self._retired: dict[str, bytes] = {}  # by name: the boot id of the process that announces nothing
        self._armed: dict[int, float] = {}
        self._open: dict[tuple[int, int, int], None] = {}  # (node, life, call): not ended yet
        self._later: dict[Later, Callable[[Encoded], None]] = {}
        self._tickets: dict[tuple[int, int, int], Callable[[Any], None]] = {}
        self._ticket = 0
        self._loans: dict[tuple[int, int, int], _Loan] = {}  # by ticket
        self._digest = blake2b(digest_size=8)
        self.nodes = [CacheNode(index, Random(f"{seed}/{index}")) for index in range(size)]
        for node in self.nodes:
            self._boot(node)
        for node in self.nodes:
            node.known = {other.name: (0, other.boot) for other in self.nodes}
            self._show(node)

    @property
    def now(self) -> float:
        """Virtual time."""
        return self.clock.now

    @property
    def digest(self) -> str:
        """A hash over everything that was sent: equal for equal seeds."""
        return self._digest.hexdigest()

    @property
    def running(self) -> list[CacheNode]:
        """The nodes that run."""
        return [node for node in self.nodes if node.running]

    # -- processes and views ------------------------------------------------------------

    def _boot(self, node: CacheNode) -> None:
        node.lives += 1
        node.running = True
        node.jobs = []
        node.boot = node.rng.getrandbits(64).to_bytes(8, "big")
        node.offset = node.rng.random() * 1e5
        now = self.now + node.offset
        wall = _WALL + self.now + (2 * node.rng.random() - 1) * self.skew
        node.machine = self._machine(node.name, node.boot, rng=node.rng, wall=wall, now=now, limits=self.limits)
        node.known[node.name] = (self._news, node.boot)
        self._show(node)
        node.machine.define(self._first, now, telling=self._telling[(node.index + node.lives) % 2])
        self.pull(node)

    def crash(self, node: CacheNode, *, noticed: bool = True) -> None:
        """The process is gone, and its state; unless it restarts at once, others notice after a while."""
        node.running = False
        self._digest.update(b"crash %d" % node.index)
        for key in [key for key in self._tickets if key[0] == node.index]:
            self._tickets.pop(key)(None)
            self._loans.pop(key, None)
        for key in [key for key in self._open if key[0] == node.index]:
            del self._open[key]
        if noticed:
            self._tell(node.name, None, least=self.spread)

    def restart(self, node: CacheNode) -> None:
        """A new process under the same name, empty; it joins through one of the others, and they learn of it."""
        others = [other for other in self.running if self.links.carries_stream(node.index, other.index)]
        node.known = dict(others[int(self.random.random() * len(others))].known) if others else {}
        self._boot(node)
        self._tell(node.name, node.boot)
        for other in others:
            self.at(self.now + self.random.random() * self.spread, self._relearn(node, other))

    def retire(self, node: CacheNode, seconds: float) -> bool:
        """The process announces the cache no more, hands over what it has, and ends; return whether it could."""
        node.machine.retire(self.definition.name, self.now + node.offset)
        self.pull(node)
        self._retired[node.name] = node.boot
        for other in self.running:
            self.at(self.now + self.random.random() * self.spread, self._again(other))
        done = self.run_until(lambda: node.machine.retired(self.definition.name), seconds)
        self.crash(node)
        return done

    def _again(self, node: CacheNode) -> Callable[[], None]:
        """Show `node` its view anew."""
        life = node.lives

        def again() -> None:
            if node.running and node.lives == life:
                self._show(node)

        return again

    def suspect(self, observers: list[CacheNode], subject: CacheNode, seconds: float) -> None:
        """`observers` wrongly hold `subject` for dead, each for about `seconds`."""
        self._news += 1
        for node in observers:
            began = self.now + self.random.random() * self.spread
            ends = began + seconds + self.random.random() * self.spread
            self.at(began, self._learn(node, subject.name, None, self._news))
            self.at(ends, self._relearn(node, subject))

    def redefine(self, node: CacheNode, definition: Definition) -> None:
        """A caller on `node` gives the cache other settings; the others hear of them."""
        self.definition = node.machine.define(definition, self.now + node.offset, redefine=True)
        self.pull(node)
        self._digest.update(repr(definition).encode())
        for other in self.running:
            self.at(self.now + self.random.random() * self.spread, self._again(other))

    def _announces(self, name: str, boot: bytes) -> dict[str, Definition]:
        """Return what a process announces by now."""
        if self._retired.get(name) == boot:
            return {}
        node = self.nodes[int(name[1:])]
        defined = node.machine.definitions() if node.boot == boot else []
        return {self.definition.name: defined[0] if defined else self._first}

    def set_views(self) -> None:
        """Everybody knows at once who runs."""
        self._news += 1
        for node in self.running:
            for other in self.nodes:
                self._learn(node, other.name, other.boot if other.running else None, self._news)()

    def split(self, *groups: set[int]) -> None:
        """A partition of the network; the sides notice."""
        self.links.partition(*groups)
        for one in self.running:
            for other in self.running:
                if not self.links.carries_stream(one.index, other.index):
                    self._news += 1
                    at = self.now + self.spread * (1 + self.random.random())
                    self.at(at, self._learn(one, other.name, None, self._news))

    def heal(self) -> None:
        """The network is whole again; the sides notice."""
        self.links.heal()
        for one in self.running:
            for other in self.running:
                self.at(self.now + self.random.random() * self.spread, self._relearn(one, other))

    def _tell(self, name: str, boot: bytes | None, least: float = 0.0) -> None:
        self._news += 1
        for node in self.nodes:
            self.at(self.now + least + self.random.random() * self.spread, self._learn(node, name, boot, self._news))

    def _learn(self, node: CacheNode, name: str, boot: bytes | None, news: int) -> Callable[[], None]:
        life = node.lives

        def learn() -> None:
            if not node.running or node.lives != life or node.known.get(name, (-1, None))[0] > news:
                return
            if boot is not None and not self.links.carries_stream(node.index, int(name[1:])):
                return
            changed = node.known.get(name, (0, None))[1] != boot
            node.known[name] = (news, boot)
            if changed:
                self._show(node)

        return learn

    def _relearn(self, node: CacheNode, subject: CacheNode) -> Callable[[], None]:
        """The truth about `subject`, as it is then."""

        def relearn() -> None:
            self._news += 1
            self._learn(node, subject.name, subject.boot if subject.running else None, self._news)()

        return relearn

    def _show(self, node: CacheNode) -> None:
        self.counters["views"] += 1
        view = {
            name: (boot, self._announces(name, boot)) for name, (_, boot) in node.known.items() if boot is not None
        }
        node.machine.members_changed(view, self.now + node.offset)
        self.pull(node)

    # -- operations ---------------------------------------------------------------------

    def ask(
        self, node: CacheNode, what: Callable[[CacheMachine, Any, float], None], done: Callable[[Any], None]
    ) -> None:
        """Call ``what(machine, ticket, now)``; ``done`` gets the completion, or None if the process dies."""
        self._ticket += 1
        ticket = (node.index, node.lives, self._ticket)
        self._tickets[ticket] = done
        what(node.machine, ticket, self.now + node.offset)
        self.pull(node)

    def operate(
        self, node: CacheNode, ops: Sequence[Op] | Batch, timeout: float, done: Callable[[Any], None]
    ) -> None:
        """Run operations of one caller; half of them together with what others ask within some milliseconds."""
        self._ticket += 1
        ticket = (node.index, node.lives, self._ticket)
        self._tickets[ticket] = done
        lent = None
        one = None if isinstance(ops, Batch) or len(ops) > 1 else ops[0]
        if one is not None and one.value is not None and one.kind in _WRITES and self._ticket % 2:
            loan = self._loans[ticket] = _Loan(one.value)
            lent, ops = loan.lent, [one._replace(value=None)]
            if self._ticket % 32 == 1:
                self.at(self.now + _PATIENCE, lambda: self._give_up(node, ticket, loan))
        node.jobs.append(("cache", ops, ticket, self.now + node.offset + timeout, lent))
        if len(node.jobs) == 1:
            gather, life = max(0.0, self._callers.uniform(-_GATHER, _GATHER)), node.lives
            self.at(self.now + gather, lambda: self._submit(node, life))

    def _submit(self, node: CacheNode, life: int) -> None:
        if node.running and node.lives == life:
            jobs, node.jobs = node.jobs, []
            node.machine.operate_all(jobs, self.now + node.offset)
            self.pull(node)

    def _give_up(self, node: CacheNode, ticket: tuple[int, int, int], loan: _Loan) -> None:
        """The caller does not wait any longer, as after Ctrl-C."""
        if ticket in self._loans:
            self.counters["given_up"] += 1
            loan.take_back()
            node.machine.give_up("cache", loan.lent, self.now + node.offset)
            self.pull(node)

    # -- events -------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Arrange for `action`."""
        self._sequence += 1
        heapq.heappush(self._heap, (max(when, self.now), self._sequence, action))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            when, _, action = heapq.heappop(self._heap)
            self.clock.advance(when)
            self.steps += 1
            action()
        self.clock.advance(end)

    def run_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Let time pass until `condition` holds, in steps of 50 ms; return whether it does."""
        end = self.now + seconds
        while not condition():
            if self.now >= end:
                return False
            self.run(0.05)
        return True

    def pull(self, node: CacheNode) -> None:
        """Take a machine's outputs."""
        machine = node.machine
        for call in machine.calls_to_start():
            self._start(node, call)
        for number in machine.calls_to_cancel():
            self._open.pop((node.index, node.lives, number), None)
        for later, reply in machine.replies_to_send():
            deliver = self._later.pop(later, None)
            if deliver is not None:
                deliver(reply)
        for member, notice in machine.notices_to_send():
            self._notify(node, member, notice.pack())
        for ticket, outcome in machine.completions():
            loan = self._loans.pop(ticket, None)
            if loan is not None:
                loan.take_back()
            done = self._tickets.pop(ticket, None)
            if done is not None:
                done(outcome)
        timer = machine.get_timer()
        if timer is not None:
            when = max(timer - node.offset, self.now)
            if self._armed.get(node.index, -1.0) != when:
                self._armed[node.index] = when
                life = node.lives
                self.at(when, lambda: self._fire(node, life, when))

    def _fire(self, node: CacheNode, life: int, when: float) -> None:
        if self._armed.get(node.index) == when:
            del self._armed[node.index]
        if node.running and node.lives == life:
            timer = node.machine.get_timer()
            if timer is not None and timer - node.offset <= self.now + 1e-9:
                node.machine.handle_timer(max(self.now + node.offset, timer))
            self.pull(node)

    def _notify(self, source: CacheNode, member: Owner, data: bytes) -> None:
        target = self.nodes[int(member.name[1:])]
        loss, jitter = self.random.random(), self.random.random()
        if loss < self.faults.loss:
            self.counters["notices_lost"] += 1
            return

        def arrive() -> None:
            if target.running and self.links.carries_stream(source.index, target.index):
                target.machine.notice(source.name, _Bytes(data), self.now + target.offset)
                self.pull(target)

        self.at(self.now + self.faults.delay + jitter * self.faults.jitter, arrive)

    def _start(self, source: CacheNode, call: Call) -> None:
        target = self.nodes[int(call.member.name[1:])]
        data = _read(call.payload)
        self._digest.update(data)
        self.counters["calls"] += 1
        key = (source.index, source.lives, call.id)
        self._open[key] = None
        random = self.random.random
        there, back, lost, where, slow, extra = random(), random(), random(), random(), random(), random()
        faults = self.faults
        delay = faults.delay + there * faults.jitter
        return_delay = faults.delay + back * faults.jitter
        if slow < faults.exchange_slow:
            self.counters["calls_slow"] += 1
            delay += faults.exchange_slow_by * extra
        if lost < faults.loss:
            self.counters["calls_lost"] += 1
        lost_there = lost < faults.loss and where < 0.5
        lost_back = lost < faults.loss and where >= 0.5

        def end(reply: bytes | None, indeterminate: bool) -> None:
            if key not in self._open:
                return
            del self._open[key]
            now = self.now + source.offset
            if reply is None:
                source.machine.failed(call.id, indeterminate, now)
            else:
                source.machine.answered(call.id, _Bytes(reply), now)
            self.pull(source)

        def send_back(reply: Encoded) -> None:
            packed = reply.pack()
            self._digest.update(packed)
            if lost_back or not self.links.carries_stream(source.index, target.index):
                self.at(self.now + 0.05 + extra * 0.3, lambda: end(None, True))
            else:
                self.at(self.now + return_delay, lambda: end(packed, False))

        def arrive() -> None:
            if not self.links.carries_stream(source.index, target.index):
                return  # silence, until the deadline
            if lost_there or not target.running:
                self.at(self.now + extra * 0.3, lambda: end(None, lost_there))
                return
            sent = data
            if call.payload.lent is not None:  # what is sent is read as it goes
                if key not in self._open:
                    return
                if call.payload.lent.over:
                    raise CheckFailed("lent", self.now, f"{source.name} sends a value that its caller has back")
                sent = _read(call.payload)
            answer = target.machine.receive(source.name, _Bytes(sent), self.now + target.offset)
            if isinstance(answer, Later):
                self._later[answer] = send_back
            else:
                send_back(answer)
            self.pull(target)

        self.at(self.now + delay, arrive)
        self.at(call.deadline - source.offset, lambda: end(None, True))


def _read(message: Encoded) -> bytes:
    """Return a message as it travels, with what is lent as it is now; ours is too short to stand beside a header."""
    if message.lent is None:
        return message.pack()
    return encode_value(decode_parts(message.header, [b"".join(message.buffers)])).pack()
