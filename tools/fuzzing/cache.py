"""The cache's machine as a target of tools/fuzz: requests, notices and answers of a member that lies.

What three honest machines say to each other is recorded; lies are that with one
part of it exchanged, and so they get as far as the last check of a field.
"""

from __future__ import annotations

import copy
import functools
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

from mycorrizal._cache.definition import Definition, Limits
from mycorrizal._cache.machine import CacheMachine, Later
from mycorrizal._cache.operations import Kind, Op
from mycorrizal._cache.versions import VERSION_MAX
from mycorrizal._wire.values import Codecs, decode_packed, encode_value
from mycorrizal.exceptions import MycorrizalError

NAMES = ["me", "a", "b"]
BOOTS = {name: name.encode().ljust(8) for name in NAMES}
CACHE = Definition("c", replicas=2, near=True, max_entries=40)
LIMITS = Limits(leases=8, waiting=4, graves=20, outcomes=8, operations=64, near_entries=16, backlog_records=64)
ODD: list[Any] = [
    0, 1, -1, 5, 255, 256, 1 << 53, (1 << 53) + 1, VERSION_MAX, VERSION_MAX + 1, 10**400, -(10**400), None, True, 1.5,
    math.nan, "", "text", b"", b"k", b"\0", b"k" * 5000, bytes(32), b"\xff" * 32, b"\xff" * 31, [], [[]], [[[]]], {},
]  # fmt: skip


class _Bytes:
    """A payload as it comes from a peer."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def decode(self, codecs: Codecs) -> object:
        return decode_packed(self._data, codecs)


def _machine(name: str, rng: random.Random) -> CacheMachine:
    machine = CacheMachine(name, BOOTS[name], rng=random.Random(rng.random()), wall=1.7e9, now=0.0, limits=LIMITS)
    machine.define(CACHE, 0.0)
    return machine


def _view(names: list[str]) -> dict[str, tuple[bytes, dict[str, Definition]]]:
    return {name: (BOOTS[name], {"c": CACHE}) for name in names}


def _operation(rng: random.Random) -> Op:
    return Op(
        rng.choice(list(Kind)), rng.choice((b"k", b"l", b"\0m")) + bytes((rng.randrange(9),)),
        value=rng.choice((None, encode_value(rng.randrange(99)).pack())), ttl=rng.choice((0, 0, 500)),
        number=rng.choice((0, 1, 3)), wait=rng.choice((0, 0, 300)),
    )  # fmt: skip


@functools.cache
def _talk() -> list[bytes]:
    """Return what three machines say while they are used, and while one comes and goes."""
    rng = random.Random(0)
    machines = {name: _machine(name, rng) for name in NAMES}
    said: dict[bytes, None] = {}
    for turn in range(400):
        now = turn * 0.05
        if turn % 40 == 0:
            names = NAMES if turn % 80 == 0 else NAMES[:2]
            for machine in machines.values():
                machine.members_changed(_view(names), now)
        machine = machines[rng.choice(NAMES)]
        machine.operate("c", [_operation(rng) for _ in range(rng.randrange(1, 4))], turn, now + 1.0, now)
        machine.synced("c", turn, now + 0.2, now)
        for name, each in machines.items():
            each.handle_timer(now)
            for call in each.calls_to_start():
                said[call.payload.pack()] = None
                answer = machines[call.member.name].receive(name, _Bytes(call.payload.pack()), now)
                if isinstance(answer, Later):
                    each.failed(call.id, rng.random() < 0.5, now)
                else:
                    said[answer.pack()] = None
                    each.answered(call.id, _Bytes(answer.pack()), now)
            said.update((notice.pack(), None) for _, notice in each.notices_to_send())
            said.update((reply.pack(), None) for _, reply in each.replies_to_send())
            each.completions()
    return list(said)


def corpus() -> Iterator[bytes]:
    """Yield some of everything that machines say."""
    yield from _talk()[::5]


def target(rng: random.Random) -> Callable[[bytes], str]:
    """Make the target; an input goes where it may come from, among lies that are nearly right."""
    machine = _machine("me", rng)
    machine.members_changed(_view(NAMES), 0.0)
    now = 0.0
    calls: list[int] = []

    def run(data: bytes) -> str:
        nonlocal now
        now += rng.choice((0.0, 0.01, 0.3, 2.0, 40.0))
        before = _refused(machine)
        _input(rng, machine, data, calls, now)
        machine.handle_timer(now)
        calls[:] = [*calls, *(call.id for call in machine.calls_to_start())][-64:]
        machine.notices_to_send()
        machine.replies_to_send()
        machine.completions()
        timer = machine.get_timer()
        assert timer is None or timer > now - 60.0
        _check(machine)
        return "rejected" if _refused(machine) > before else "taken"

    return run


def _input(rng: random.Random, machine: CacheMachine, data: bytes, calls: list[int], now: float) -> None:
    kind = rng.randrange(10)
    if kind == 0:
        machine.members_changed(_view(rng.choice((NAMES, NAMES[:2], NAMES[:1], ["me", "b"]))), now)
    elif kind == 1:
        try:
            machine.operate("c", [_operation(rng) for _ in range(rng.randrange(1, 6))], "ticket", now + 1.0, now)
        except MycorrizalError:
            pass  # too many are under way
    else:
        payload = _Bytes(data if rng.random() < 0.3 else _lie(rng))
        sender = rng.choice(NAMES[1:])
        if kind == 2:
            machine.notice(sender, payload, now)
        elif kind < 6 and calls:
            call = calls.pop(rng.randrange(len(calls)))
            machine.answered(call, payload, now)
        else:
            machine.receive(sender, payload, now)


def _lie(rng: random.Random) -> bytes:
    """Return something that was said, to us and from where it may come, with some part of it exchanged."""
    message = decode_packed(rng.choice(_talk()))
    assert type(message) is list
    if len(message) > 4 and type(message[1]) is bytes:
        message[1], message[2] = BOOTS["me"], BOOTS[rng.choice(NAMES[1:])]
    for _ in range(rng.randrange(3)):
        place = message
        while place:
            index = rng.randrange(len(place))
            if type(place[index]) is not list or rng.random() < 0.2:
                place[index] = copy.deepcopy(rng.choice(ODD))
                break
            place = place[index]
    return encode_value(message).pack()


def _refused(machine: CacheMachine) -> int:
    counters = machine.counters()
    return sum(counters.get(name, 0) for name in ("bad_requests", "bad_answers"))


def _check(machine: CacheMachine) -> None:
    """Bounds hold, and the store's sums are those of its entries."""
    for space in machine.spaces():
        entries = list(space.store.walk())
        assert len(entries) == space.store.entries <= 40 + sum(entry.pinned for entry in entries)
        assert sum(entry.size for entry in entries) == space.store.bytes
        assert sum(map(len, space.store.graves)) <= LIMITS.graves
        assert all(len(shard.outcomes) <= LIMITS.outcomes + 1 for shard in space.shards)
