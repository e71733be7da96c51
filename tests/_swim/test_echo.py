"""Our own bytes, sent back, prove nobody: no seed, no member, no rival. And a seed has the name it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mycorrizal import Config
from mycorrizal._swim.events import NodeConflict, OperationDone, RemoteState
from mycorrizal._swim.machine import Swim
from mycorrizal._wire.messages import AckResp, Err, IndirectPing, Message, Ping, PushNodeState, PushPull
from mycorrizal._wire.stream import StreamCodec
from mycorrizal.delegates import BaseDelegate
from mycorrizal.exceptions import (
    ConnectionRefused,
    NoPingResponse,
    OperationTimeout,
    PeerRefused,
    PeerUnreachable,
    RemoteProtocolError,
)
from mycorrizal.types import Address, NodeState, pack_host
from tests._swim import harness
from tests._swim.harness import VSN, alive, drain, events, host_for, make, run_timers, sent, state, tell
from tests.keys import key_of

SEED: Address = ("10.0.0.2", 7946)
HERE: Address = ("10.0.0.1", 7946)
PEER: Address = (host_for("peer"), 7946)

Answer = Callable[[Message], "Message | Exception | None"]


def converse(swim: Swim, answer: Answer, now: float = 0.0) -> list[Message]:
    """Let everybody who is dialled answer so; return what was said to them."""
    said: list[Message] = []
    while requests := swim.exchanges_to_start():
        for request in requests:
            said.append(request.message)
            outcome = answer(request.message)
            if isinstance(outcome, Exception):
                swim.exchange_failed(request.exchange_id, outcome, now)
            else:
                swim.exchange_answered(request.exchange_id, outcome, now)
    return said


def joined(swim: Swim, answer: Answer, *, name: str = "", address: Address = SEED) -> tuple[Any, list[Message]]:
    """Join a seed that answers so; return the error, and what was said to it."""
    drain(swim)
    operation = swim.join(address, 0.0, name=name)
    said = converse(swim, answer)
    [end] = [e for e in events(swim) if isinstance(e, OperationDone) and e.operation_id == operation]
    return end.error, said


def mirror(message: Message) -> Message:
    return message


def member(swim: Swim, name: str = "", nodes: tuple[PushNodeState, ...] | None = None) -> Answer:
    """Answer as a live member does, which knows what `swim` knows, or `nodes`."""

    def answer(message: Message) -> Message | None:
        if isinstance(message, Ping):
            return AckResp(message.seq_no, None) if message.node in ("", name) else None
        assert isinstance(message, PushPull)
        return message if nodes is None else PushPull(nodes, b"", message.join)

    return answer


def entry(name: str, incarnation: int = 1, host: str = "10.0.0.2") -> PushNodeState:
    return PushNodeState(name, pack_host(host), 7946, None, incarnation, 0, VSN)


# -- a mirror for a seed -------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
@pytest.mark.parametrize("others", [(), ("peer", "other")], ids=["alone", "with members"])
def test_a_mirror_is_no_seed(wire: str, others: tuple[str, ...]) -> None:
    swim = make(wire=wire)
    tell(swim, *(alive(name) for name in others))
    error, said = joined(swim, mirror)
    assert isinstance(error, RemoteProtocolError)
    assert "10.0.0.2:7946 says only what it was told" in str(error)
    assert [type(m) for m in said] == [PushPull, Ping]
    assert swim.counters["push_pulls_failed"] == 1
    assert len(swim.members()) == 1 + len(others)


@pytest.mark.parametrize("incarnation", [0, 1, 9])
def test_nor_is_who_plays_an_older_word_of_ours(incarnation: int) -> None:
    swim = make()
    tell(swim, alive("peer", incarnation=3))
    old = (entry("self", incarnation, HERE[0]), entry("peer", 2, PEER[0]))
    error, _ = joined(swim, lambda m: PushPull(old, b"state", True) if isinstance(m, PushPull) else m)
    assert isinstance(error, RemoteProtocolError)
    error, _ = joined(swim, lambda m: PushPull(old[:1], b"state", True) if isinstance(m, PushPull) else None)
    assert isinstance(error, RemoteProtocolError)
    assert not [e for e in events(swim) if isinstance(e, RemoteState)]
    error, _ = joined(swim, lambda m: PushPull((), b"", True) if isinstance(m, PushPull) else m)
    assert isinstance(error, RemoteProtocolError)


def test_a_wrong_acknowledgement_helps_no_mirror() -> None:
    swim = make()
    for forged in (AckResp(1, None), Err("no"), TimeoutError(), PeerUnreachable("closed")):
        error, _ = joined(swim, lambda m, forged=forged: m if isinstance(m, PushPull) else forged)
        assert isinstance(error, RemoteProtocolError)


def test_a_member_that_knows_what_we_know_is_joined() -> None:
    swim = make()
    tell(swim, alive("peer"))
    error, said = joined(swim, member(swim))
    assert error is None
    assert [type(m) for m in said] == [PushPull, Ping]


def test_a_member_that_knows_more_is_not_asked_twice() -> None:
    swim = make()
    error, said = joined(swim, member(swim, nodes=(entry("seed"),)))
    assert (error, [type(m) for m in said]) == (None, [PushPull])


@pytest.mark.parametrize("address", [HERE, ("192.168.7.7", 7946)], ids=["our address", "another of ours"])
@pytest.mark.parametrize("name", ["", "self"])
def test_this_node_itself_is_a_fine_seed(address: Address, name: str) -> None:
    swim = make()
    error, _ = joined(swim, lambda m: swim.answer_exchange(m, HERE, 0.0), name=name, address=address)
    assert error is None
    assert len(swim.members()) == 1


def test_where_echoes_are_not_looked_for_any_push_pull_counts() -> None:
    error, said = joined(make(refuse_echoes=False), mirror)
    assert (error, [type(m) for m in said]) == (None, [PushPull])


# -- a mirror for a member -------------------------------------------------------------------------


class State(BaseDelegate):
    def local_state(self, join: bool) -> bytes:
        return b"ours"


def periodic(answer: Answer) -> tuple[Swim, list[Message]]:
    """Let a push/pull with "peer" come due."""
    swim = make(push_pull_interval=30.0, early_push_pulls=0, delegates={"delegate": State()})
    tell(swim, alive("peer"))
    drain(swim)
    swim._sync._with_anyone(1.0)
    return swim, converse(swim, answer, 1.0)


def test_a_mirror_in_a_members_place_tells_nothing() -> None:
    swim, said = periodic(mirror)
    assert [type(m) for m in said] == [PushPull, Ping]
    assert said[1] == Ping(swim._core._sequence, "peer")
    assert [e for e in events(swim) if isinstance(e, RemoteState)] == []
    assert swim.counters["push_pulls_failed"] == 1


def test_a_member_with_the_same_state_is_merged() -> None:
    swim, _ = periodic(lambda m: AckResp(m.seq_no, None) if isinstance(m, Ping) else m)
    assert [e.data for e in events(swim) if isinstance(e, RemoteState)] == [b"ours"]
    assert "push_pulls_failed" not in swim.counters


def echoing(swim: Swim, now: float, sender: Address) -> None:
    """Send everything back that the machine sends."""
    for data, _ in swim.datagrams_to_send():
        swim.receive_datagram(data, sender, now)


@pytest.mark.parametrize("relays", [(), ("other", "third")], ids=["alone", "with relays"])
def test_a_member_whose_place_a_mirror_took_is_found_out(relays: tuple[str, ...]) -> None:
    swim = make(suspicion_min_timeout=0)
    tell(swim, alive("peer"), *(alive(name) for name in relays))
    drain(swim)
    swim._core.config.__dict__.update(probe_interval=1.0)
    target = swim._core.table.get("peer")
    assert target is not None
    score = swim.health_score
    swim._prober.probe_member(target, 0.0)
    now = 0.0
    while now < 1.7:
        echoing(swim, now, PEER)
        converse(swim, mirror, now)
        now += 0.05
        swim.handle_timer(now)
        if swim._prober._active is None:
            break
    assert state(swim, "peer") == NodeState.SUSPECT
    assert swim.counters.get("pings_echoed", 0) == len(relays)
    assert swim.health_score == score + max(1, len(relays)), "nor is a relay's nack our own"


def test_an_echo_of_our_ping_is_not_answered() -> None:
    swim = make()
    tell(swim, alive("peer"))
    operation = swim.ping("", PEER, 0.0)  # to whatever its name is: an echo could be taken for a ping of us
    echoing(swim, 0.0, PEER)
    assert sent(swim) == []
    run_timers(swim, 5.0)
    [end] = [e for e in events(swim) if isinstance(e, OperationDone) and e.operation_id == operation]
    assert isinstance(end.error, NoPingResponse)


@pytest.mark.parametrize("address", [b"\x0a\0\0\1", bytes(10) + b"\xff\xff\x0a\0\0\1"], ids=["4 bytes", "16 bytes"])
def test_an_echo_is_known_in_both_forms_of_an_address(address: bytes) -> None:
    swim = make()
    drain(swim)
    tell(swim, Ping(1, "self", address, 7946, "self"), sender=PEER)
    tell(swim, IndirectPing(1, b"\x0a\0\0\x63", 7946, "x", True, address, 7946, "self"), sender=PEER)
    run_timers(swim, 5.0)
    assert sent(swim) == []
    assert swim.counters["pings_echoed"] == 2


def test_a_ping_of_ourselves_is_none() -> None:
    swim = make()
    operation = swim.ping("self", HERE, 0.0)
    echoing(swim, 0.1, HERE)
    echoing(swim, 0.2, HERE)
    [end] = [e for e in events(swim) if isinstance(e, OperationDone) and e.operation_id == operation]
    assert end.result == pytest.approx(0.2)


def test_a_namesake_elsewhere_is_answered() -> None:
    swim = make()
    drain(swim)
    tell(swim, Ping(1, "self", pack_host(PEER[0]), 7946, "self"), sender=PEER)
    assert next((type(m), to) for m, to in sent(swim)) == (AckResp, PEER)


@pytest.mark.parametrize("refuse", [True, False])
def test_a_mirror_at_our_former_address_is_no_rival(refuse: bool) -> None:
    swim = make(refuse_echoes=refuse)
    drain(swim)
    tell(swim, alive("self", PEER[0], 1))  # what the others remember of our former life
    for step in range(40):
        for data, to in swim.datagrams_to_send():
            swim.receive_datagram(data, PEER if to == PEER else HERE, 0.1 * step)
        run_timers(swim, 0.1 * step)
    conflicts = [e for e in events(swim) if isinstance(e, NodeConflict)]
    assert len(conflicts) == (0 if refuse else 1)


def test_an_acknowledgement_of_ours_that_comes_back_is_nobodys() -> None:
    """All nodes count their pings, and two that start together would count alike."""
    first, second = make("first"), make("second", "10.0.0.2")
    assert first._core._sequence != second._core._sequence
    assert max(first._core._sequence, second._core._sequence) > 1 << 16
    operation = first.ping("peer", PEER, 0.0)
    drain(first)
    numbers = [second._core.next_sequence() for _ in range(50)]
    tell(first, *(Ping(n, "first", b"\x0a\0\0\2", 7946, "second") for n in numbers), sender=SEED)
    echoing(first, 0.1, SEED)
    assert [e for e in events(first) if isinstance(e, OperationDone) and e.operation_id == operation] == []


# -- its bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
@pytest.mark.parametrize("secret_key", [None, key_of("a", 16)], ids=["plain", "sealed"])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("label", ["", "cluster"])
def test_bytes_that_come_back(wire: Any, secret_key: bytes | None, compress: bool, label: str) -> None:
    config = Config(name="self", wire=wire, secret_key=secret_key, enable_compression=compress, label=label)
    codec = StreamCodec(config, harness.keyring(config), harness.nonces("echo"))
    swim = make(wire=wire)

    def echo(message: Message) -> Message | Exception | None:
        try:
            return codec.reader(answer=True).feed(codec.seal(message, answer=False))
        except RemoteProtocolError as error:
            return error

    error, _ = joined(swim, echo)
    assert "came back" in str(error) if label else "says only what it was told" in str(error)
    error, said = joined(swim, echo, name="peer")
    assert "what was sent came back" in str(error)
    assert [type(m) for m in said] == [Ping]


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [None, PeerUnreachable("closed the connection without a word")])
@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
def test_a_seed_of_another_name_is_told_nothing(wire: str, silent: Exception | None) -> None:
    swim = make(wire=wire)

    def carol(message: Message) -> Message | Exception | None:
        return AckResp(message.seq_no, None) if isinstance(message, Ping) and not message.node else silent

    error, said = joined(swim, carol, name="bob")
    assert isinstance(error, PeerUnreachable)
    assert "the member at 10.0.0.2:7946 is not 'bob'" in str(error)
    assert [(type(m), getattr(m, "node", None)) for m in said] == [(Ping, "bob"), (Ping, "")]
    assert len(swim.members()) == 1


def test_a_seed_of_that_name_is_joined() -> None:
    swim = make()
    error, said = joined(swim, member(swim, "bob", (entry("bob"),)), name="bob")
    assert error is None
    assert [type(m) for m in said] == [Ping, PushPull]
    assert said[0] == Ping(swim._core._sequence, "bob"), "without our name: it is no fallback ping"
    assert state(swim, "bob") == NodeState.ALIVE


@pytest.mark.parametrize(
    "failure",
    [ConnectionRefused("refused"), OperationTimeout("late"), PeerRefused("no keys"), RemoteProtocolError("?")],
)
def test_what_else_is_wrong_with_a_seed_is_said(failure: Exception) -> None:
    error, said = joined(make(), lambda message: failure, name="bob")
    assert error is failure
    assert len(said) == 1


def test_a_seed_that_answers_nobody_has_no_other_name() -> None:
    error, said = joined(make(), lambda message: None, name="bob")
    assert "does not answer a ping" in str(error)
    assert len(said) == 2


def test_all_of_it_has_one_deadline() -> None:
    swim = make(tcp_timeout=10.0)
    drain(swim)
    swim.join(SEED, 0.0, name="bob")
    deadlines = []
    now = 0.0
    answers = member(swim, "bob")
    while requests := swim.exchanges_to_start():
        now += 1.0
        for request in requests:
            deadlines.append(request.deadline)
            answer = answers(request.message)
            assert answer is None or not isinstance(answer, Exception)
            swim.exchange_answered(request.exchange_id, answer, now)
    assert deadlines == [10.0, 10.0, 10.0], "name, tables, and whether it is an echo"


def test_where_names_are_not_looked_at_it_is_Go_s_rule() -> None:
    swim = make(check_seed_names=False)
    error, said = joined(swim, member(swim, "carol", (entry("carol"),)), name="bob")
    assert (error, [type(m) for m in said]) == (None, [PushPull])
    assert state(swim, "carol") == NodeState.ALIVE
