"""The replicated state as a target of tools/fuzz: messages, states, fetches and answers of a member that lies."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from mycorrizal._replica import messages as r
from mycorrizal._replica.clock import COUNTER_MAX, WALL_MAX, Stamp
from mycorrizal._replica.limits import NUMBER_MAX, Limits
from mycorrizal._replica.machine import Replica
from mycorrizal._replica.outputs import EventReceived, EventsMissed
from mycorrizal._replica.share import PREFIX, Share
from mycorrizal._swim.broadcasts import TransmitLimitedQueue

BOOTS = [b"bootboot", b"tobotobo"]
NAMES = ["fuzzed", "a", "b", "é" * 20, "x"]
OWN = "own"
LIMITS = Limits(
    settings=20, setting_bytes=4000, value=600, tombstones=10, services_per_node=4, services=12, service_bytes=2000,
    service_tombstones=8, record=300, remembered=16, remembered_bytes=4000, held=8, held_bytes=3000, senders=12,
    fetches=4, queue=40, gossip_backlog=8, batch_bytes=300, pushes=8, orphan_seconds=20.0, tombstone_seconds=4000.0,
)  # fmt: skip


def corpus() -> Iterator[bytes]:
    """Yield one of everything that replicas say."""
    sender, stamp = r.Sender("a", BOOTS[0]), Stamp(1_700_000_000_000, 3, "a", BOOTS[0])
    said: list[r.Message] = [
        r.Setting("key", b"value", stamp), r.Setting("key", None, stamp), r.Service("web", b"80", stamp),
        r.Service("web", None, stamp), r.Event(sender, 1, "t", b"value"), r.Highest(sender, 9, 1),
    ]  # fmt: skip
    raws = [one.encode() for one in said]
    raws += [r.Batch(sender, 3, tuple(raws[:4])).encode(), r.LastBatch(sender, 4, 1).encode()]
    yield from raws
    yield from (PREFIX + b"\x01" + raw for raw in raws)
    state = r.pack(r.State(bytes(16), ((sender, 4),), ((sender, 2),)), [(raw, 7.0) for raw in raws[:4]])
    yield state
    yield PREFIX + b"\x03" + len(state).to_bytes(4, "big") + state + b"user"
    yield r.pack(r.Want(sender, ((1, 3), (5, 9))), ())
    yield r.pack(r.Have(sender, 9), [(raws[4], 0.0)])


def target(rng: random.Random) -> Callable[[bytes], str]:
    """Make the target; an input goes where it may come from, among well-formed lies."""
    machine = Replica(
        "fuzzed", BOOTS[0], rng=random.Random(rng.random()), queue=TransmitLimitedQueue(2, lambda: 5),
        wall=1_700_000_000.0, limits=LIMITS, now=0.0, gossip=rng.random() < 0.8,
    )  # fmt: skip
    share = Share(machine, None)
    now = 0.0
    last: dict[str, int] = {}
    open_fetches: list[int] = []

    def run(data: bytes) -> str:
        nonlocal now
        now += rng.choice((0.0, 0.01, 0.4, 3.0, 40.0))
        before = machine.counters.get("rejected", 0)
        _input(rng, machine, share, data, now)
        for fetch_id in open_fetches:
            if rng.random() < 0.7:
                machine.fetched(fetch_id, data if rng.random() < 0.3 else _pack(rng), now)
            else:
                machine.fetch_failed(fetch_id, now)
        open_fetches[:] = _drain(machine, rng, now, last)
        _check(machine)
        return "rejected" if machine.counters.get("rejected", 0) > before else "taken"

    return run


def _input(rng: random.Random, machine: Replica, share: Share, data: bytes, now: float) -> None:
    lie = data if rng.random() < 0.4 else _message(rng)
    kind = rng.randrange(12)
    if kind < 3:
        machine.receive(lie, now, pushed=rng.random() < 0.5)
    elif kind < 5:
        share.take_message(data if rng.random() < 0.5 else PREFIX + b"\x01" + lie, now)
    elif kind == 5:
        share.take_state(data if rng.random() < 0.5 else PREFIX + b"\x03" + data, False, now)
    elif kind == 6:
        machine.merge_state(data if rng.random() < 0.5 else _pack(rng), False, now)
    elif kind == 7:
        machine.answer_fetch(data if rng.random() < 0.5 else _pack(rng), now)
    elif kind == 8:
        machine.member_up(rng.choice(NAMES), rng.choice([*BOOTS, None]), now)
    elif kind == 9:
        machine.member_down(rng.choice(NAMES), now)
    elif kind == 10:
        machine.joined(now)
    else:
        _call(rng, machine, now)


def _call(rng: random.Random, machine: Replica, now: float) -> None:
    """A call of our own user's; what it refuses is documented."""
    calls: list[Callable[[], object]] = [
        lambda: machine.set_setting(rng.choice("kl"), rng.choice([None, b"", bytes(700)]), now),
        lambda: machine.register(rng.choice("st"), b"record", now),
        lambda: machine.deregister(rng.choice("st"), now),
        lambda: machine.publish(OWN, rng.choice([b"", bytes(1000)]), now),
        lambda: machine.sync("a", now),
    ]
    try:
        rng.choice(calls)()
    except Exception as error:
        if not type(error).__module__.startswith("mycorrizal"):
            raise


def _message(rng: random.Random) -> bytes:
    makers: list[Callable[[random.Random], Any]] = [_setting, _service, _event, _highest, _batch, _last_batch]
    return bytes(rng.choice(makers)(rng).encode())


def _stamp(rng: random.Random) -> Stamp:
    wall = rng.choice((0, 1_700_000_000_000 + rng.randrange(10**6), WALL_MAX - 1))
    return Stamp(wall, rng.choice((0, 1, COUNTER_MAX - 2)), rng.choice(NAMES), rng.choice(BOOTS))


def _value(rng: random.Random) -> bytes | None:
    return rng.choice((None, b"", rng.randbytes(rng.randrange(400))))


def _setting(rng: random.Random) -> Any:
    return r.Setting(f"k{rng.randrange(60)}", _value(rng), _stamp(rng))


def _service(rng: random.Random) -> Any:
    return r.Service(f"s{rng.randrange(9)}", _value(rng), _stamp(rng))


def _sender(rng: random.Random) -> r.Sender:
    name = rng.choice(NAMES) if rng.random() < 0.9 else f"n{rng.randrange(99)}"
    return r.Sender(name, rng.choice(BOOTS))


def _event(rng: random.Random) -> Any:
    number = rng.choice((1, 2, 3, rng.randrange(1, 30), NUMBER_MAX - 1))
    return r.Event(_sender(rng), number, "t", rng.randbytes(rng.randrange(900)))


def _highest(rng: random.Random) -> Any:
    return r.Highest(_sender(rng), rng.choice((1, 5, NUMBER_MAX - 1)), rng.randrange(4))


def _batch(rng: random.Random) -> Any:
    number = rng.choice((1, 2, 3, rng.randrange(1, 30), NUMBER_MAX - 1))
    makers: list[Callable[[random.Random], Any]] = [_setting, _service, _event]
    return r.Batch(_sender(rng), number, tuple(rng.choice(makers)(rng).encode() for _ in range(rng.randrange(1, 5))))


def _last_batch(rng: random.Random) -> Any:
    return r.LastBatch(_sender(rng), rng.choice((1, 5, NUMBER_MAX - 1)), rng.randrange(4))


def _pack(rng: random.Random) -> bytes:
    seen = tuple((_sender(rng), rng.choice((0, 3, NUMBER_MAX - 1))) for _ in range(rng.randrange(4)))
    headers: list[r.Header] = [
        r.State(rng.randbytes(16), seen, seen[: rng.randrange(4)]),
        r.Have(_sender(rng), rng.choice((0, 9, NUMBER_MAX - 1))),
        r.Want(_sender(rng), ((1, rng.choice((1, 9, NUMBER_MAX - 1))),)),
    ]
    content = [(_message(rng), rng.choice((0.0, 5.0, 1e9))) for _ in range(rng.randrange(6))]
    return r.pack(rng.choice(headers), content)


def _drain(machine: Replica, rng: random.Random, now: float, last: dict[str, int]) -> list[int]:
    timer = machine.get_timer()
    for _ in range(4):
        if timer is None or timer > now:
            break
        machine.handle_timer(now)
        timer = machine.get_timer()
    assert timer is None or timer > now, "a timer that fires without end"
    machine.get_broadcasts(3, rng.randrange(1400))
    machine.pushes_to_send()
    machine.direct_to_send(now)
    while (event := machine.next_event()) is not None:
        if isinstance(event, EventsMissed):
            assert event.count > 0
        elif isinstance(event, EventReceived) and event.topic == OWN:
            assert event.number == last.get(OWN, 0) + 1, "an event of ours twice, or not at all"
            last[OWN] = event.number
    return [fetch.fetch_id for fetch in machine.fetches_to_start()]


def _check(machine: Replica) -> None:
    """Nothing grows beyond its bound, and the views are what the tables say."""
    gauges, slack = machine.gauges, LIMITS.slack
    bounds = {
        "settings": LIMITS.settings * slack, "settings.bytes": LIMITS.setting_bytes * slack,
        "settings.tombstones": LIMITS.tombstones, "services": LIMITS.services * slack,
        "services.bytes": LIMITS.service_bytes * slack, "events.senders": LIMITS.senders,
        "events.held_bytes": LIMITS.held_bytes, "events.remembered": LIMITS.remembered,
        "events.remembered_bytes": LIMITS.remembered_bytes, "events.holes": LIMITS.senders,
        "fetches": LIMITS.fetches, "queue": LIMITS.queue,
    }  # fmt: skip
    over = {name: gauges[name] for name, most in bounds.items() if gauges[name] > most}
    assert not over, f"beyond their bounds: {over}"
    assert len(machine.settings) == gauges["settings"]
    assert len(machine.services) <= gauges["services"]
    assert len(machine.local_state(False)) < 60_000
