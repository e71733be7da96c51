"""Small questions to one member share a message, of whatever cache, and wait for the answer to those before."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal._cache.core import Core, Failure
from mycorrizal._cache.definition import Definition, Limits
from mycorrizal._cache.machine import CacheMachine
from mycorrizal._cache.messages import (
    QUESTIONS_MAX,
    Answer,
    Copy,
    Message,
    Reply,
    Request,
    decode_request,
    pack_copies,
    parse_copies,
)
from mycorrizal._cache.placement import PARTITIONS, Owner, from_bitmap
from mycorrizal._cache.versions import VersionClock
from mycorrizal.exceptions import RemoteProtocolError
from tests._cache.harness import arrived, make_machine, reply_of, run_due

EVERY = b"\xff" * (PARTITIONS // 8)
BOB, EVE = Owner("bob", b"bob     "), Owner("eve", b"eve     ")


def cache(name: str, used: bool = True) -> Any:
    return SimpleNamespace(name=name, used=used)


class Asking:
    """A core that asks, and what came of it."""

    def __init__(self) -> None:
        me = Owner("me", b"me      ")
        clock = VersionClock(*me, wall=1.8e9, now=0.0)
        self.core = Core(me, clock, Random(1), Limits())
        self.core.alive = dict.fromkeys([me, BOB, EVE])
        self.answers: list[Any] = []

    def ask(self, *numbers: int, member: Owner = BOB, kind: Message = Message.SYNCED) -> None:
        for number in numbers:
            space = cache(f"c{number}")
            self.core.ask(member, kind, space, lambda: [], lambda outcome, now: self.answers.append(outcome))
        self.core.send_questions(0.0)

    def sent(self) -> list[Request]:
        calls, self.core.outgoing = self.core.outgoing, []
        self.calls = [call.id for call in calls]
        return [decode_request(arrived(call.payload)) for call in calls]


def test_what_is_asked_meanwhile_goes_together_after_the_answer() -> None:
    asking = Asking()
    asking.ask(1)
    asking.ask(2, 3)
    asking.ask(4, member=EVE)
    one, other = asking.sent()
    assert (one.kind, one.cache) == (Message.SYNCED, "c1") and other.cache == "c4"
    asking.core.end_call(asking.calls[0], Reply(Answer.OK, 0, [True, b"view"]), 0.0)
    asking.core.send_questions(0.0)
    (many,) = asking.sent()
    assert many.kind == Message.MANY and many.body == [[int(Message.SYNCED), "c2"], [int(Message.SYNCED), "c3"]]
    asking.core.end_call(asking.calls[0], Reply(Answer.OK, 7, [[0, True, b"x"], [2]]), 0.0)
    assert asking.answers == [Reply(0, 0, [True, b"view"]), Reply(0, 7, [True, b"x"]), Reply(2, 7, [])]
    asking.core.send_questions(0.0)
    assert not asking.sent()


def test_not_more_than_so_many_at_a_time() -> None:
    asking = Asking()
    asking.ask(*range(QUESTIONS_MAX + 2))
    (many,) = asking.sent()
    assert len(many.body) == QUESTIONS_MAX
    asking.core.end_call(asking.calls[0], Failure(indeterminate=True), 0.0)
    assert asking.answers == [Failure(indeterminate=True)] * QUESTIONS_MAX
    asking.core.send_questions(0.0)
    (many,) = asking.sent()
    assert [row[1] for row in many.body] == [f"c{QUESTIONS_MAX}", f"c{QUESTIONS_MAX + 1}"]


def test_a_body_says_what_holds_when_it_is_sent() -> None:
    asking, held = Asking(), [1]
    asking.ask(1)
    asking.core.ask(BOB, Message.OFFER, cache("c2"), lambda: [list(held)], lambda *_: None)
    asking.core.send_questions(0.0)
    asking.sent()
    held.append(2)
    asking.core.end_call(asking.calls[0], Reply(Answer.OK, 0, []), 0.0)
    asking.core.send_questions(0.0)
    assert asking.sent()[0].body == [[1, 2]]


@pytest.mark.parametrize("body", [[], [[0, True]], [[0], [0], [0]], [0, 0], [[], [0]], [["a"], [0]], [[0], [-1]]])
def test_answers_that_do_not_fit_are_failures_of_all(body: list[Any]) -> None:
    asking = Asking()
    asking.ask(1, 2)
    asking.sent()
    asking.core.end_call(asking.calls[0], Reply(Answer.OK, 0, body), 0.0)
    assert asking.answers == [Failure(indeterminate=True)] * 2
    assert asking.core.counters["bad_answers"] == 1
    asking.ask(3)
    assert asking.sent(), "and it is asked again"


def test_one_answer_that_cannot_be_read_spoils_no_other() -> None:
    asking = Asking()

    def strict(outcome: Reply | Failure, now: float) -> None:
        if isinstance(outcome, Reply):
            raise RemoteProtocolError("bad")
        asking.answers.append(outcome)

    asking.core.ask(BOB, Message.SYNCED, cache("c1"), list, strict)
    asking.ask(2)
    asking.sent()
    asking.core.end_call(asking.calls[0], Reply(Answer.OK, 0, [[0], [0]]), 0.0)
    assert asking.answers == [Failure(indeterminate=True), Reply(0, 0, [])]


def test_a_refusal_of_the_message_is_one_of_each_question() -> None:
    asking = Asking()
    asking.ask(1, 2)
    asking.sent()
    asking.core.end_call(asking.calls[0], Reply(Answer.WRONG_PROCESS, 0, []), 0.0)
    assert asking.answers == [Reply(Answer.WRONG_PROCESS, 0, [])] * 2


def test_of_who_is_gone_nothing_is_asked_and_nothing_stays() -> None:
    asking = Asking()
    asking.ask(1)
    asking.ask(2, 3)
    asking.sent()
    del asking.core.alive[BOB]
    asking.core.bury(1.0)
    asking.core.send_questions(1.0)
    assert not asking.sent()
    assert asking.answers == [Failure(True), Failure(False), Failure(False)]
    assert not asking.core.questions and not asking.core._asked


def test_what_nobody_waits_for_goes_to_a_few_at_a_time_and_first_to_the_next_by_name() -> None:
    """Thirty agents each made a connection to all others at one moment: 870 handshakes, each late for the others'."""
    asking, unused = Asking(), cache("c", used=False)
    others = [Owner(name, b"12345678") for name in ("amy", "bob", "lea", "pia", "tom", "zoe")]
    asking.core.alive |= dict.fromkeys(others)
    for member in others:
        asking.core.ask(member, Message.CLAIM, unused, lambda: [EVERY], lambda *_: None)
    asking.core.send_questions(0.0)

    def sent() -> list[str]:
        calls, asking.core.outgoing = asking.core.outgoing, []
        asking.calls += [call.id for call in calls]
        return [call.member.name for call in calls]

    asking.calls = []
    assert sent() == ["pia", "tom", "zoe", "amy"]
    asking.core.end_call(asking.calls.pop(0), Reply(Answer.OK, 0, []), 0.1)
    asking.core.send_questions(0.1)
    assert sent() == ["bob"]
    unused.used = True
    asking.core.send_questions(0.2)
    assert sent() == ["lea"], "somebody waits for it now"


# -- the other side --------------------------------------------------------------------------------


def serve(machine: CacheMachine, *body: Any) -> Reply:
    request = Request(Message.MANY, b"me      ", b"bob     ", 0, "", [*body])
    return reply_of(machine.receive("bob", arrived(request), 1.0))


def test_each_question_is_answered_as_if_it_came_alone() -> None:
    machine = make_machine()
    machine.define(Definition("d"), 0.0)
    machine.members_changed({"bob": (b"bob     ", {"c": Definition("c")})}, 0.5)
    reply = serve(machine, [3, "c", EVERY], [3, "none", EVERY], [9, "d"], [3, "d", EVERY])
    assert reply.status == Answer.OK
    agreed, unknown, synced, refused = reply.body
    assert agreed[:2] == [Answer.OK, []] and len(from_bitmap(agreed[2])) > 50
    assert unknown == [Answer.UNKNOWN_CACHE]
    assert synced[:2] == [Answer.OK, True]
    assert refused == [Answer.OK, [], bytes(32)], "bob has not opened that"


@pytest.mark.parametrize(
    "bad",
    [
        [int(Message.OPERATE), "c", 1000, 0, [1, b"k"]], [int(Message.MANY), "", [9, "c"]], [99, "c"], ["9", "c"],
        [[9], "c"], [9, b"c"], [9, ["c"]], [3, "c"], [3, "c", b"short"], [int(Message.ALL_SYNCED), "c", b""],
        [int(Message.PULL), "c", 1, b""], [None, None],
    ],
)  # fmt: skip
def test_a_bad_question_spoils_no_other(bad: list[Any]) -> None:
    machine = make_machine()
    reply = serve(machine, bad, [9, "c"])
    assert reply.body[0] == [Answer.BAD] and reply.body[1][0] == Answer.OK
    assert machine.counters()["bad_requests"] == 1


@pytest.mark.parametrize("body", [[7], [[9]], ["many"], [[9, "c"]] * (QUESTIONS_MAX + 1)])
def test_what_are_no_questions_or_too_many_is_refused(body: list[Any]) -> None:
    machine = make_machine()
    assert serve(machine, *body).status == Answer.BAD
    assert machine.counters()["bad_requests"] == 1


def test_of_a_partition_in_which_nothing_is_its_number_travels() -> None:
    copies = [Copy(3, 0, 0, 0, 0), Copy(0, 0, 0, 0, 0), Copy(5, 1, 99, 0, 0), Copy(6, 0, 0, 7, 0), Copy(7, 0, 0, 0, 8)]
    packed = pack_copies(copies)
    assert packed[:2] == [[3], [0]] and parse_copies(packed) == copies


# -- and again -------------------------------------------------------------------------------------


def test_caches_that_were_refused_are_claimed_again_together() -> None:
    """Each had a moment of its own: of 100 caches, as many messages to each member, every 0.3 s."""
    names = [f"c{number}" for number in range(20)]
    machine = CacheMachine("me", b"me      ", rng=Random(1), wall=1.8e9, now=0.0)
    machine.members_changed({"bob": (BOB.boot, {name: Definition(name) for name in names})}, 0.0)
    for name in names:
        machine.define(Definition(name), 0.0)
    now, sent = 0.0, []
    while now < 3.0:
        for call in machine.calls_to_start():
            sent.append(now)
            request = decode_request(arrived(call.payload))
            many = request.kind == Message.MANY
            answer = [[int(Answer.OK), [], bytes(32)] for _ in request.body] if many else [[], bytes(32)]
            machine.answered(call.id, arrived(Reply(Answer.OK, 0, answer)), now)
        due = machine.get_timer()
        assert due is not None
        now = max(now, due)
        run_due(machine, now)
    assert 10 < len(sent) < 60, len(sent)


def test_when_to_try_again_is_after_the_pause_and_the_same_for_many() -> None:
    core = Asking().core
    for attempt in range(12):
        pause = min(0.4, 0.02 * (1 << attempt))
        whens = {core.next_try(attempt, 100.0 + number * 1e-4) for number in range(100)}
        assert len(whens) <= 4 and all(100.0 + pause / 2 <= when <= 100.02 + 1.5 * pause for when in whens)
