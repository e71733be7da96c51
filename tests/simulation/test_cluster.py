"""The cluster: determinism, conditions of a member, conversations, and what the protocol makes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mycorrizal import Config, LocalProtocolError
from mycorrizal._swim.events import Event, NodeLeft, NodeUpdated, Stalled, UdpBlocked
from mycorrizal.simulation import (
    CheckFailed,
    Cluster,
    Condition,
    DetectionChecker,
    FalsePositiveChecker,
    Faults,
    Member,
    check_agreement,
    detection_bound,
    spread_time,
)

ROOT = Path(__file__).resolve().parents[2]

STORY = """
from mycorrizal.simulation import Cluster, Faults, run_campaign
cluster = Cluster("story", faults=Faults(loss=0.1, duplicate=0.05, reorder=0.1, exchange_cut=0.1, exchange_slow=0.1))
first = cluster.add(meta=b"x/0/0")
for number in range(6):
    cluster.join(cluster.add(meta=b"y/0/0"), first)
cluster.run(5.0)
cluster.freeze(cluster.members[2])
cluster.crash(cluster.members[3])
cluster.update(first, b"x/0/1")
cluster.run(10.0)
cluster.resume(cluster.members[2])
cluster.restart(cluster.members[3], new_address=True)
cluster.leave(cluster.members[5])
cluster.run(10.0)
print(cluster.digest, cluster.steps)
print(run_campaign("digest", members=6, duration=30.0).digest)
"""


def joined(size: int, seed: object = 1, *, config: Config | None = None, faults: Faults | None = None) -> Cluster:
    cluster = Cluster(seed, config=config, faults=faults)
    first = cluster.add()
    for _ in range(size - 1):
        cluster.join(cluster.add(), first)
    assert cluster.run_while(lambda: not cluster.agreed, 10.0)
    return cluster


class Log:
    """Keeps events, as (member's name, event)."""

    def __init__(self, cluster: Cluster) -> None:
        self.events: list[tuple[str, Event]] = []
        cluster.watchers.append(self)

    def event(self, member: Member, event: Event, now: float) -> None:
        self.events.append((member.name, event))

    def changed(self, member: Member, now: float) -> None:
        return None

    def of(self, kind: type) -> list[tuple[str, Event]]:
        return [(name, event) for name, event in self.events if isinstance(event, kind)]


# -- determinism ----------------------------------------------------------------------


def test_same_seed_same_digest_under_two_hash_seeds() -> None:
    outputs = []
    for hash_seed in ("1", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", STORY], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 2


def test_another_seed_is_another_run() -> None:
    assert joined(3, 1).digest != joined(3, 2).digest
    assert joined(3, 1).digest == joined(3, 1).digest


def test_without_digest_there_is_none_and_nothing_else_changes() -> None:
    one, other = Cluster.converged(5, 3), Cluster.converged(5, 3, digest=False)
    one.run(20.0)
    other.run(20.0)
    assert one.steps == other.steps
    assert one.network.counters == other.network.counters
    with pytest.raises(LocalProtocolError, match="digest=False"):
        _ = other.digest


# -- building ---------------------------------------------------------------------------


def test_a_converged_cluster_is_quiet_and_stays_so() -> None:
    cluster = Cluster.converged(20)
    assert cluster.agreed
    log = Log(cluster)
    cluster.run(60.0)
    assert cluster.agreed
    assert not log.events
    assert all(member.machine.gauges["queue.broadcasts"] == 0 for member in cluster.members)
    # A probe and an acknowledgement each second, and nothing else.
    assert cluster.network.counters.datagrams == pytest.approx(2 * 20 * 60, rel=0.05)


def test_a_join_burst_is_seen_by_everyone() -> None:
    cluster = joined(12)
    check_agreement(cluster)
    assert all(done.error is None for done in cluster.results.values())


def test_encrypted_compressed_labelled_messages_go_through_the_real_codecs() -> None:
    config = Config.lan(name="template", secret_key=bytes(16), label="blue", wire="msgpack", protocol_version=5)
    cluster = joined(5, config=config)
    cluster.crash(cluster.members[4])
    assert cluster.run_while(lambda: not cluster.agreed, detection_bound(config, 5), step=0.5)


def test_metadata_reaches_everyone() -> None:
    cluster = Cluster.converged(10, metas={3: b"old"})
    log = Log(cluster)
    cluster.update(cluster.members[3], b"new")
    cluster.run(spread_time(cluster.config, 10))
    assert len(log.of(NodeUpdated)) == 10
    check_agreement(cluster)


def test_user_messages_arrive() -> None:
    cluster = Cluster.converged(2, metas={1: b""})
    one, other = cluster.members
    cluster.send_user(one, other, b"hello")
    cluster.run(1.0)
    assert other.delegate is not None
    assert other.delegate.messages == [b"hello"]


def test_misuse_is_refused() -> None:
    cluster = Cluster.converged(2)
    one, other = cluster.members
    with pytest.raises(LocalProtocolError, match="without metadata"):
        cluster.update(one, b"x")
    with pytest.raises(LocalProtocolError, match="still runs"):
        cluster.restart(one)
    cluster.crash(one)
    with pytest.raises(LocalProtocolError, match="cannot act"):
        cluster.join(one, other)


# -- crashes and restarts ---------------------------------------------------------------


def test_a_crash_is_detected_within_the_bound() -> None:
    cluster = Cluster.converged(16)
    cluster.run(5.0)
    bound = detection_bound(cluster.config, 16)
    checker = DetectionChecker(cluster, bound=bound)
    cluster.watchers.append(checker)
    cluster.crash(cluster.members[7])
    cluster.run(bound)
    checker.finish(cluster.clock.now)
    assert len(checker.times["m7"]) == 15
    assert cluster.agreed


def test_a_leave_is_seen_as_such() -> None:
    cluster = joined(6)
    log = Log(cluster)
    operation = cluster.leave(cluster.members[2])
    cluster.run(3.0)
    assert cluster.results[2, operation].error is None
    left = [event for name, event in log.of(NodeLeft) if name != "m2"]
    assert len(left) == 5
    assert {event.node.state.name for event in left if isinstance(event, NodeLeft)} == {"LEFT"}


def test_a_restart_at_the_same_address_refutes_its_past() -> None:
    cluster = joined(5)
    cluster.crash(cluster.members[1])
    again = cluster.restart(cluster.members[1], meta=b"second life")
    cluster.join(again, cluster.members[0])
    cluster.run(5.0)
    check_agreement(cluster)


@pytest.mark.parametrize("seed", range(3))
def test_same_name_at_a_new_address_is_accepted_within_seconds(seed: int) -> None:
    cluster = joined(5, seed)
    cluster.crash(cluster.members[1], silent=True)
    cluster.run(0.5)
    again = cluster.restart(cluster.members[1], new_address=True)
    cluster.join(again, cluster.members[0])
    assert cluster.run_while(lambda: not cluster.agreed, 6.0)
    assert again.address != cluster.members[1].address


# -- frozen and slow --------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [2.0, 6.0, 10.0, 40.0])
@pytest.mark.parametrize("size", [2, 3, 5, 12])
def test_a_frozen_member_accuses_nobody_on_waking(size: int, seconds: float) -> None:
    cluster = joined(size, f"{size}/{seconds}")
    cluster.run(10.0)
    frozen = cluster.members[1]
    log = Log(cluster)
    cluster.freeze(frozen)
    cluster.run(seconds)
    cluster.resume(frozen)
    cluster.run(1.0)
    assert not [event for name, event in log.of(NodeLeft) if name == frozen.name]
    accused = [m.name for m in cluster.members if m is not frozen and m.machine.incarnation > 1]
    assert not accused
    assert [name for name, _ in log.of(Stalled)] == [frozen.name]
    assert cluster.run_while(lambda: not cluster.agreed, 30.0)
    cluster.run(30.0)
    assert cluster.agreed


def test_a_frozen_members_socket_buffer_is_bounded() -> None:
    cluster = Cluster.converged(4, metas={1: b""}, faults=Faults(jitter=0.0))
    cluster.freeze(cluster.members[1])
    for number in range(1000):
        cluster.send_user(cluster.members[0], cluster.members[1], b"%d" % number)
    cluster.run(1.0)
    overflowed = cluster.network.counters.overflowed
    assert overflowed > 700
    cluster.resume(cluster.members[1])
    assert cluster.members[1].delegate is not None
    assert cluster.members[1].delegate.messages[0] == b"0"
    assert len(cluster.members[1].delegate.messages) >= 250


def test_exchanges_still_have_their_time_after_a_stall() -> None:
    cluster = joined(3)
    frozen = cluster.members[2]
    cluster.freeze(frozen)
    cluster.run(25.0)
    cluster.resume(frozen)
    cluster.run(2.0)
    failed = cluster.network.counters.exchanges_failed
    operation = cluster.join(frozen, cluster.members[0])
    cluster.run(1.0)
    assert cluster.results[frozen.index, operation].error is None
    assert cluster.network.counters.exchanges_failed == failed


def test_a_slow_member_sends_and_receives_when_it_is_over() -> None:
    cluster = Cluster.converged(4, metas={1: b""})
    slow, other = cluster.members[1], cluster.members[0]
    cluster.slow(slow)
    cluster.send_user(other, slow, b"late")
    sent = slow.sent
    cluster.run(2.5)
    assert slow.sent == sent
    assert slow.delegate is not None
    assert not slow.delegate.messages
    cluster.resume(slow)
    assert slow.delegate.messages == [b"late"]
    assert slow.sent > sent
    assert slow.condition is Condition.RUNNING


# -- the network ------------------------------------------------------------------------


def test_a_partition_heals_without_a_join() -> None:
    config = Config.local(name="template", gossip_to_the_dead_time=5.0, reconnect_interval=2.0)
    cluster = joined(8, config=config)
    cluster.network.links.partition(range(4))
    cluster.run(60.0)
    # Long enough for both sides to have buried and forgotten the other.
    assert all(len(member.machine.nodes()) == 4 for member in cluster.members)
    cluster.network.links.heal()
    assert cluster.run_while(lambda: not cluster.agreed, 20.0)
    cluster.run(30.0)
    assert cluster.agreed


def test_without_reconnecting_a_partition_does_not_heal() -> None:
    config = Config.local(name="template", gossip_to_the_dead_time=5.0, reconnect_interval=0.0)
    cluster = joined(8, config=config)
    cluster.network.links.partition(range(4))
    cluster.run(60.0)
    cluster.network.links.heal()
    cluster.run(60.0)
    with pytest.raises(CheckFailed, match=r"misses \['m4', 'm5', 'm6', 'm7'\]"):
        check_agreement(cluster)


def test_udp_that_is_blocked_one_way_is_reported_and_kills_nobody() -> None:
    cluster = joined(2)
    log = Log(cluster)
    cluster.network.links.cut(0, 1, udp_only=True)
    cluster.run(60.0)
    assert cluster.agreed
    assert {name for name, _ in log.of(UdpBlocked)} == {"m0", "m1"}
    directions = {(name, event.direction) for name, event in log.of(UdpBlocked) if isinstance(event, UdpBlocked)}
    assert ("m0", "outbound") in directions


@pytest.mark.parametrize("loss", [0.1, 0.3])
def test_loss_alone_kills_hardly_anybody(loss: float) -> None:
    cluster = joined(8, loss)
    cluster.network.faults = Faults(loss=loss, duplicate=0.05, reorder=0.1)
    checker = FalsePositiveChecker(cluster)
    cluster.watchers.append(checker)
    cluster.run(180.0)
    # 8 observers for 3 minutes: at most one wrong verdict, spread to everybody.
    assert checker.total <= (0 if loss < 0.2 else 8)


def test_cut_conversations_end_in_an_error() -> None:
    cluster = Cluster(1, faults=Faults(exchange_cut=1.0))
    first = cluster.add()
    second = cluster.add()
    operations = [cluster.join(second, first) for _ in range(20)]
    cluster.run(20.0)
    errors = [cluster.results[second.index, operation].error for operation in operations]
    assert all(error is not None for error in errors)
    assert cluster.network.counters.exchanges_cut >= 20


def test_a_refused_connection_fails_at_once_and_a_silent_one_at_the_deadline() -> None:
    for silent, within in ((False, 0.1), (True, 10.5)):
        cluster = Cluster(1)
        first, second = cluster.add(), cluster.add()
        cluster.crash(first, silent=silent)
        operation = cluster.join(second, first)
        cluster.run(within)
        assert cluster.results[second.index, operation].error is not None
        assert cluster.clock.now <= within
