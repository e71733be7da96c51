"""Many reads in one message: their answer is one that can be sent, and received."""

from __future__ import annotations

import pytest

from mycorrizal._cache.messages import Message, Request, pack_ops, parse_operate, parse_results
from mycorrizal._cache.operations import DOUBTS_MAX, Kind, Op, Result, Status
from mycorrizal._cache.placement import Owner
from mycorrizal._wire.values import encode_value
from mycorrizal.exceptions import RemoteProtocolError

from .harness import Caches, arrived, make_machine, reply_of, space_in


@pytest.mark.parametrize(("values", "size"), [(400, 60_000), (6, 200 << 20)], ids=["header of 24 MB", "1.2 GB"])
def test_answer_to_many_reads_can_be_sent(values: int, size: int) -> None:
    machine = make_machine()
    machine.members_changed({}, 0.0)
    packed = encode_value(bytes(size)).pack()
    keys = [b"key%d" % number for number in range(values)]
    for number, key in enumerate(keys):
        space_in(machine).store.put(key, packed, 10 + number, float("inf"))
    ops = pack_ops([Op(Kind.GET, key) for key in keys])
    request = Request(Message.OPERATE, b"me".ljust(8), b"peer".ljust(8), 0, "c", [5000, 0, *ops])
    reply = reply_of(machine.receive("peer", arrived(request), 1.0))
    results = parse_results(reply.body)
    assert {result.status for result in results} <= {Status.OK, Status.ALONE} and len(results) == values


def test_what_had_no_room_in_an_answer_is_asked_for_alone() -> None:
    caches = Caches(2, replicas=1)
    keys = caches.owned_by(1, count=5, by=0)
    for key in keys:
        caches.space(1).store.put(key, bytes(3 << 20), 10, float("inf"))
    results = caches.do(0, *[Op(Kind.GET, key) for key in keys])
    assert [result.value for result in results if isinstance(result, Result)] == [bytes(3 << 20)] * 5


def test_operation_names_who_may_have_done_it() -> None:
    doubts = tuple([Owner(f"n{number}", bytes(8)) for number in range(DOUBTS_MAX)])
    op = Op(int(Kind.ADD), b"k", 7, 250, b"v", doubts=doubts)
    rows = [[list(owner) for owner in field] if field is doubts else field for field in pack_ops([op])[0]]
    assert parse_operate([1000, 0, rows])[2] == [op]
    for wrong in ([list(doubts[0])] * (DOUBTS_MAX + 1), [["n"]], [[b"n", b"x"]], [["n", "x"]], 7):
        with pytest.raises(RemoteProtocolError):
            parse_operate([1000, 0, [*op[:5], 0, 0, 0, 0, None, wrong]])
