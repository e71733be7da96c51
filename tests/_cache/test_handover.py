"""Claims, pulls, releases: a new primary has everything before it serves, and two never complete a write."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from mycorrizal._cache import handover
from mycorrizal._cache.columns import pack_outcomes
from mycorrizal._cache.core import Call
from mycorrizal._cache.definition import Definition, Limits
from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.messages import Answer, Message, Reply, Request, decode_request, partitions
from mycorrizal._cache.operations import Kind, Op, Status
from mycorrizal._cache.placement import Owner, bitmap, partition_of
from mycorrizal._cache.shard import Outcome
from mycorrizal._wire.values import Encoded
from mycorrizal.exceptions import CacheOutcomeUnknown, RemoteProtocolError
from tests._cache.harness import Caches, arrived, make_machine, reply_of, space_in


def counters(caches: Caches, index: int) -> dict[str, int]:
    return caches.nodes[index].machine.counters()


def test_lone_member_serves_at_once() -> None:
    assert all(shard.serving for shard in space_in(make_machine()).shards)


def test_new_primary_does_not_serve_before_it_has_heard_everybody() -> None:
    caches = Caches(3)
    keys = caches.owned_by(0, count=30)
    for key in keys:
        caches.set(1, key, key)
    caches.cluster.crash(caches.nodes[0])
    caches.cluster.run(0.5)
    caches.cluster.links.cut(2, 0)  # node 2 cannot be asked
    caches.cluster.restart(caches.nodes[0])
    caches.cluster.run(2.0)
    assert not any(shard.serving for shard in caches.space(0).shards if shard.primary == caches.space(0).core.me)
    caches.cluster.heal()
    caches.cluster.run(6.0)
    assert all(caches.get(2, key) == key for key in keys)


def test_member_that_never_agrees_holds_a_takeover_up_for_so_long_only() -> None:
    caches = Caches(3, limits=Limits(takeover_patience=3.0))
    (key,) = caches.owned_by(0)
    caches.set(1, key, b"v")
    caches.cluster.suspect([caches.nodes[1]], caches.nodes[0], 60.0)  # node 1 alone holds node 0 for dead
    caches.cluster.run(1.0)
    assert caches.owners(key, 1)[0] == 1 or caches.owners(key, 1)[0] == 2
    caches.cluster.run(4.0)
    forced = sum(counters(caches, index).get("takeovers_forced", 0) for index in range(3))
    assert forced > 0
    assert not caches.synced(1, timeout=0.5)


def test_primary_that_was_deposed_unawares_completes_no_write() -> None:
    """Node 1 and 2 hold node 0 for dead; node 0 does not know it."""
    caches = Caches(3)
    (key,) = caches.owned_by(0)
    caches.set(1, key, b"before")
    caches.cluster.suspect(caches.nodes[1:], caches.nodes[0], 3.0)
    caches.cluster.run(1.0)
    caches.set(1, key, b"after")
    (outcome,) = caches.do(0, Op(Kind.SET, key, value=b"never seen"), timeout=0.5)
    assert isinstance(outcome, CacheOutcomeUnknown)
    assert caches.get(2, key) == b"after"


def test_deposed_primary_that_comes_back_learns_what_was_written_without_it() -> None:
    caches = Caches(3)
    keys = caches.owned_by(0, count=20)
    for key in keys:
        caches.set(1, key, b"before")
    caches.cluster.suspect(caches.nodes[1:], caches.nodes[0], 2.0)
    caches.cluster.run(1.0)
    for key in keys:
        caches.set(1, key, b"after")
    caches.cluster.run(4.0)
    assert [caches.get(0, key) for key in keys] == [b"after"] * 20
    assert counters(caches, 0)["reclaims"] > 0


def test_claims_are_answered_by_what_the_view_says() -> None:
    machine = make_machine("a")
    space = space_in(machine)
    assert space.handover.agree(Owner("b", b"12345678"), [b"\xff" * 32], 0.0) == [[], bytes(32)]
    assert machine.counters()["claims_refused"] == 256


def seen(*names: str) -> dict[str, Any]:
    return {name: (name.encode().ljust(8), {"c": Definition("c")}) for name in names}


def questions(machine: CacheMachine) -> list[tuple[Message, list[int]]]:
    """Return what is asked, and of which partitions, each answered by nobody."""
    found = []
    for call in machine.calls_to_start():
        kind, *_, body = decode_request(arrived(call.payload))
        rows = body if kind == Message.MANY else [[kind, "c", *body]]
        found += [(Message(row[0]), partitions(row[2])) for row in rows]
    return found


def test_who_refused_a_claim_says_when_it_would_agree() -> None:
    """So whoever was refused need not ask all the time, where views differ for long since all are late."""
    machine = make_machine("me")
    machine.members_changed(seen("bob", "eve"), 0.5)
    bob, space = Owner("bob", b"bob     "), space_in(machine)
    space.handover.agree(bob, [b"\xff" * 32], 1.0)
    assert not questions(machine)
    refused = [shard.partition for shard in space.shards if shard.primary != bob]
    machine.members_changed(seen("bob"), 2.0)
    theirs = [place for place in refused if space.shards[place].primary == bob]
    assert (Message.RELEASE, theirs) in questions(machine) and 30 < len(theirs) < len(refused)
    machine.members_changed(seen("bob", "joe"), 3.0)
    assert Message.RELEASE not in [kind for kind, _ in questions(machine)], "it was told once"


def test_who_was_refused_asks_again_as_soon_as_it_is_told_to() -> None:
    machine = make_machine("me")
    machine.members_changed(seen("bob", "eve"), 0.0)
    machine.members_changed(seen("bob"), 0.0)
    now, (call,) = 0.0, machine.calls_to_start()
    for _ in range(9):
        asked = now
        machine.answered(call.id, arrived(Reply(Answer.OK, 0, [[], bytes(32)])), now)
        while not (asking := machine.calls_to_start()):
            now = machine.get_timer() or now
            machine.handle_timer(now)
        (call,) = asking
    assert now - asked > 1.0
    machine.answered(call.id, arrived(Reply(Answer.OK, 0, [[], bytes(32)])), now)
    places = decode_request(arrived(call.payload)).body
    machine.receive("bob", arrived(Request(Message.RELEASE, b"me      ", b"bob     ", 0, "c", places)), now + 0.1)
    assert questions(machine) == [(Message.CLAIM, partitions(places[0]))]


def test_who_says_that_it_holds_something_is_asked_while_others_are() -> None:
    """It need not announce the cache."""
    machine = make_machine("me")
    machine.members_changed(seen("bob", "joe") | {"eve": (b"eve     ", {})}, 0.0)
    machine.members_changed(seen("bob") | {"eve": (b"eve     ", {})}, 0.0)
    ((claim, places),) = questions(machine)
    request = Request(Message.RELEASE, b"me      ", b"eve     ", 0, "c", [bitmap(places[:3])])
    assert reply_of(machine.receive("eve", arrived(request), 0.1)).status == Answer.OK
    assert claim == Message.CLAIM and questions(machine) == [(Message.CLAIM, places[:3])]


def test_partition_is_pulled_in_pieces() -> None:
    caches = Caches(2, replicas=1, limits=Limits(batch_records=3, batch_bytes=500))
    place = partition_of(b"k")
    keys = [key for key in (b"%d" % index for index in range(20_000)) if partition_of(key) == place][:40]
    owner = caches.owners(b"k")[0]
    for key in keys:
        caches.set(owner, key, b"x" * 50)
    view = {
        node.name: (node.boot, {} if node.index == owner else {"c": caches.cluster.definition})
        for node in caches.nodes
    }
    for node in caches.nodes:
        if node.index == owner:
            node.machine.retire("c", caches.cluster.now + node.offset)
        node.machine.members_changed(view, caches.cluster.now + node.offset)
        caches.cluster.pull(node)
    caches.cluster.run(3.0)
    assert caches.nodes[owner].machine.retired("c")
    assert sorted(caches.space(1 - owner).store.tables[place]) == sorted(keys)


def test_many_partitions_are_pulled_in_few_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    caches = Caches(2, replicas=1)
    caches.cluster.crash(caches.nodes[1])
    caches.cluster.run(2.0)
    keys = [b"%d" % index for index in range(2000)]
    for start in range(0, 2000, 500):
        caches.do(0, *[Op(Kind.SET, key, value=b"v%s" % key) for key in keys[start : start + 500]])
    pulls: list[Any] = []
    give = caches.space(0).handover.give

    def seen(sender: Owner, body: list[Any], now: float) -> tuple[list[Any], int] | None:
        pulls.append(body)
        return give(sender, body, now)

    monkeypatch.setattr(caches.space(0).handover, "give", seen)
    caches.cluster.restart(caches.nodes[1])
    caches.cluster.run(3.0)
    assert caches.synced(1)
    moved = [key for key in keys if caches.owners(key)[0] == 1]
    assert len(moved) > 800 and {caches.holders(key)[-1] for key in moved} == {1}
    assert 1 <= len(pulls) <= 6, "some 128 partitions"
    assert all(caches.get(0, key) == b"v%s" % key for key in moved[::20])


def test_a_piece_of_a_copy_that_nobody_asked_for_is_refused() -> None:
    machine = make_machine()
    space = space_in(machine)
    claim = handover.Claim()
    pull = handover._Pull(Owner("peer", b"peerboot"), space.shards[0], claim, handover.copy_of(space, space.shards[0]))
    other = next(key for key in (b"%d" % index for index in range(99)) if partition_of(key))
    bodies: list[Any] = [
        [[[other, b"v", 5]], [[b"", []]]], [[], []], [[], [[b"", []]] * 2], [[], 7], [[], [5]],
    ]  # fmt: skip
    for body in bodies:
        with pytest.raises(RemoteProtocolError):
            space.handover._given(handover._Peer(), [pull], body, 0.0)
    assert space.store.entries == 0


def test_delete_stays_a_delete_when_its_tombstone_is_gone() -> None:
    """One side deleted and forgot that it did; the other side still has the entry."""
    caches = Caches(2, limits=Limits(graves_age=2.0))
    caches.set(0, b"k", b"v")
    caches.set(0, b"other", b"v")
    caches.cluster.split({0}, {1})
    caches.cluster.run(0.5)
    caches.one(0, Op(Kind.DELETE, b"k"))
    caches.cluster.run(5.0)
    assert not any(caches.space(0).store.graves)
    assert caches.get(1, b"k") == b"v"
    caches.cluster.heal()
    caches.cluster.run(2.0)
    assert [caches.get(node, b"k") for node in range(2)] == [None, None]
    assert [caches.get(node, b"other") for node in range(2)] == [b"v", b"v"]


def test_expired_write_is_not_undone_by_what_it_overwrote() -> None:
    caches = Caches(2)
    caches.set(0, b"k", b"older")
    caches.cluster.split({0}, {1})
    caches.cluster.run(0.5)
    caches.set(0, b"k", b"newer", ttl=500)
    caches.cluster.run(3.0)
    assert caches.get(0, b"k") is None and caches.get(1, b"k") == b"older"
    caches.cluster.heal()
    caches.cluster.run(2.0)
    assert [caches.get(node, b"k") for node in range(2)] == [None, None]


def test_cleared_entries_do_not_come_back() -> None:
    from mycorrizal._cache.survey import CLEAR_KEYS

    caches = Caches(2)
    caches.set(0, b"k", b"v")
    caches.cluster.split({0}, {1})
    caches.cluster.run(0.5)
    caches.do(0, *[Op(Kind.CLEAR, key) for key in CLEAR_KEYS])
    caches.set(0, b"new", b"v")
    caches.cluster.heal()
    caches.cluster.run(2.0)
    assert [caches.get(node, b"k") for node in range(2)] == [None, None]
    assert [caches.get(node, b"new") for node in range(2)] == [b"v", b"v"]


def test_surplus_copy_is_kept_while_an_owner_lacks_its_own() -> None:
    caches = Caches(3)
    keys = [b"key%d" % index for index in range(200)]
    caches.do(0, *[Op(Kind.SET, key, value=key) for key in keys])
    caches.cluster.crash(caches.nodes[2])
    caches.cluster.run(1.0)
    assert caches.synced(0)
    caches.cluster.links.cut(2, 0)
    caches.cluster.links.cut(2, 1)
    caches.cluster.restart(caches.nodes[2])
    caches.cluster.run(5.0)
    assert all(caches.holders(key) == [0, 1] for key in keys)
    caches.cluster.heal()
    caches.cluster.run(8.0)
    assert all(sorted(caches.holders(key)) == sorted(caches.owners(key)) for key in keys)


def test_moving_is_paced() -> None:
    def seconds(rate: float) -> float:
        caches = Caches(2, limits=Limits(rebalance_rate=rate, batch_bytes=20_000))
        caches.do(0, *[Op(Kind.SET, b"key%d" % index, value=b"x" * 1000) for index in range(300)])
        caches.cluster.crash(caches.nodes[1], noticed=False)
        caches.cluster.restart(caches.nodes[1])
        began = caches.cluster.now
        assert caches.synced(0)
        return caches.cluster.now - began

    fast, slow = seconds(1e9), seconds(100e3)
    assert fast < 0.5 and 1.2 < slow < 8.0


def test_member_that_announces_a_cache_before_it_has_it_is_asked_again() -> None:
    early = CacheMachine("early", b"earlyboo", rng=Random(1), wall=1.8e9, now=0.0)
    machine = CacheMachine("me", b"me      ", rng=Random(1), wall=1.8e9, now=0.0)
    machine.members_changed({"early": (b"earlyboo", {"c": Definition("c")})}, 0.0)
    machine.define(Definition("c"), 0.0)
    (call,) = machine.calls_to_start()
    answer = early.receive("me", arrived(call.payload), 0.1)
    assert isinstance(answer, Encoded)
    assert reply_of(answer).status == Answer.UNKNOWN_CACHE
    machine.answered(call.id, arrived(answer), 0.1)
    assert not any(shard.serving for shard in space_in(machine).shards)
    machine.handle_timer(0.6)
    (again,) = machine.calls_to_start()
    early.members_changed({"me": (b"me      ", {"c": Definition("c")})}, 0.7)
    early.define(Definition("c"), 0.7)
    answer = early.receive("me", arrived(again.payload), 0.7)
    assert isinstance(answer, Encoded)
    machine.answered(again.id, arrived(answer), 0.7)
    assert any(shard.serving for shard in space_in(machine).shards)


def test_member_that_retires_is_asked_what_it_holds() -> None:
    caches = Caches(3)
    definition = caches.cluster.definition
    view = {node.name: (node.boot, {"c": definition} if node.index else {}) for node in caches.nodes}
    node = caches.nodes[1]
    node.machine.members_changed(view, caches.cluster.now + node.offset)
    asked = {call.member.name for call in node.machine.calls_to_start() if kind_of(call) == Message.CLAIM}
    assert asked == {"n0", "n2"}
    gone = {name: known for name, known in view.items() if name != "n0"}
    node.machine.members_changed(gone, caches.cluster.now + node.offset)
    assert not caches.space(1).former


def test_former_member_that_has_forgotten_the_cache_holds_nothing() -> None:
    other = CacheMachine("other", b"otherboo", rng=Random(1), wall=1.8e9, now=0.0)
    machine = make_machine("me")
    owner = Owner("other", b"otherboo")
    machine.members_changed({"other": (owner.boot, {"c": Definition("c")})}, 0.0)
    machine.calls_to_start()
    machine.members_changed({"other": (owner.boot, {})}, 0.1)
    assert owner in space_in(machine).former
    (call,) = [call for call in machine.calls_to_start() if kind_of(call) == Message.CLAIM]
    answer = other.receive("me", arrived(call.payload), 0.1)
    assert isinstance(answer, Encoded)
    machine.answered(call.id, arrived(answer), 0.2)
    assert all(shard.serving for shard in space_in(machine).shards)


def see(caches: Caches, index: int, *others: int) -> None:
    """From now on node `index` sees itself and these `others`, as long as nothing else happens in the cluster."""
    node, definition = caches.nodes[index], {"c": caches.cluster.definition}
    view = {caches.nodes[other].name: (caches.nodes[other].boot, definition) for other in (index, *others)}
    node.machine.members_changed(view, caches.cluster.now + node.offset)
    caches.cluster.pull(node)


def test_new_primary_serves_one_round_trip_after_the_views_meet() -> None:
    """Where it was a backup, and so lacks nothing."""
    caches = Caches(3)
    caches.do(0, *[Op(Kind.SET, b"key%d" % index, value=b"v") for index in range(500)])
    space = caches.space(1)
    before = [shard.partition for shard in space.shards if [owner.name for owner in shard.owners] == ["n0", "n1"]]
    caches.cluster.crash(caches.nodes[0], noticed=False)
    see(caches, 2, 1)
    see(caches, 1, 2)
    mine = [space.shards[place] for place in before if space.shards[place].primary == space.core.me]
    assert len(mine) > 10 and not any(shard.serving for shard in mine)
    caches.cluster.run(0.0025)  # a message takes 0.001
    assert all(shard.serving for shard in mine)


def until_node_0_has_agreed_with_2_and_not_heard_it(caches: Caches, key: bytes) -> None:
    shard, owner = caches.space(0).shards[partition_of(key)], caches.nodes[2].owner
    for _ in range(2000):
        if shard.claim is not None and owner in shard.claim.pulling:
            return
        caches.cluster.run(0.0005)  # a message takes 0.001
    raise AssertionError("no claim")


def test_copy_that_was_not_heard_is_no_surplus() -> None:
    """Seed 401220: its holder has agreed, and does not know that it was out of the primary's view ever since."""
    caches = Caches(3, replicas=1)
    (key,) = caches.owned_by(0)
    see(caches, 0, 1)
    see(caches, 2)
    caches.set(2, key, b"nobody else has it")
    see(caches, 2, 0, 1)
    see(caches, 0, 1, 2)
    until_node_0_has_agreed_with_2_and_not_heard_it(caches, key)
    see(caches, 0, 1)
    caches.cluster.run(4.0)
    assert caches.space(0).shards[partition_of(key)].serving
    assert caches.holders(key) == [2]
    see(caches, 0, 1, 2)
    caches.cluster.run(4.0)
    assert caches.holders(key) == [0] and caches.get(1, key) == b"nobody else has it"


def test_who_was_not_heard_is_asked_by_a_primary_that_was_none_for_a_while() -> None:
    """Node 2 takes it for the primary all the time, and would let it push over what it has."""
    caches = Caches(3)
    key = next(key for key in caches.owned_by(1, count=1000) if caches.owners(key) == [1, 0])
    see(caches, 0, 2)
    see(caches, 1)
    see(caches, 2)
    caches.set(2, key, b"nobody else has it")
    see(caches, 2, 0)
    until_node_0_has_agreed_with_2_and_not_heard_it(caches, key)
    see(caches, 0, 1, 2)
    see(caches, 0)
    see(caches, 0, 2)
    caches.cluster.run(4.0)
    assert sorted(caches.holders(key)) == [0, 2] and caches.get(0, key) == b"nobody else has it"


def test_outcome_of_a_write_that_ours_were_made_without_is_doubtful() -> None:
    """Whether it counts in what is here now, nobody can say: a retry is told so."""
    machine = make_machine("me")
    space = space_in(machine)
    shard = space.shards[0]
    known = pack_outcomes(shard.complete_since, {**shard.outcomes, 77: Outcome(0, 6, 1 << 50, -0.1)}, 0.0)
    space.learn(shard, known, 1.0, doubtful=True)
    assert shard.outcomes[77].status == Status.FORGOTTEN
    space.learn(shard, pack_outcomes(1.0, {78: Outcome(0, 6, 1 << 50, 0.9)}, 1.0), 1.0)
    assert shard.outcomes[78].status == Status.OK


def kind_of(call: Call) -> int:
    return decode_request(arrived(call.payload)).kind


def test_add_that_says_false_after_two_sides_met_has_done_nothing() -> None:
    """Its first try was under way at the primary of the other side, who was not heard before it was tried again."""
    caches = Caches(4)
    key = next(key for key in caches.owned_by(2, count=1000) if caches.owners(key) == [2, 3])
    for side in ((0, 1), (2, 3)):
        for index in side:
            see(caches, index, *side)
    caches.set(2, key, b"from the other side")
    here, backup = caches.owners(key, 0)
    caches.cluster.links.cut(here, backup)
    found = caches.start(here, Op(Kind.ADD, key, value=b"from here"))
    caches.cluster.run(0.1)
    assert not found
    for index in range(4):
        see(caches, index, *range(4))
    caches.cluster.run(4.0)
    ((outcome,),) = found
    assert isinstance(outcome, CacheOutcomeUnknown)  # the other side has written the key since
    assert caches.get(3, key) == b"from here"
    assert counters(caches, 2)["reclaims"] > 0


def test_what_is_kept_of_processes_that_went_unheard_is_bounded() -> None:
    machine = make_machine()
    most = handover._UNHEARD_MAX
    for number in range(most + 50):  # each comes, is asked when another goes, and goes before it has answered
        machine.members_changed({f"n{number}": (b"%08d" % number, {"c": Definition("c")})}, float(number))
    kept = space_in(machine).handover._unheard
    assert len(kept) <= most and len(kept) > most // 2
    assert machine.counters()["unheard_dropped"] > 0
    machine.calls_to_start()
    name = next(iter(kept)).name
    machine.members_changed({name: (next(iter(kept)).boot, {"c": Definition("c")})}, most + 60.0)
    asked = [call for call in machine.calls_to_start() if call.member.name == name]
    assert asked and name not in {owner.name for owner in kept}, "who is back is asked"
