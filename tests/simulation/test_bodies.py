"""What the members of a simulated cluster share, and that it is each one's own as soon as it differs."""

from __future__ import annotations

import pytest

from mycorrizal import Config
from mycorrizal._wire.codec import body_codec
from mycorrizal._wire.messages import Alive, Body, Ping, PushNodeState, Suspect
from mycorrizal.exceptions import LocalProtocolError, RemoteProtocolError
from mycorrizal.simulation import Cluster
from mycorrizal.simulation.bodies import SharedBodies


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
def test_shared_bodies_are_those_of_the_real_codec(wire: str) -> None:
    real, shared = body_codec(wire), SharedBodies(wire)
    claims = [Alive(n, f"member{n % 3}", b"\x0a\0\0\1", 7946, b"m" * n, bytes(6)) for n in range(60)]
    records = [PushNodeState(f"member{n % 3}", b"\x0a\0\0\1", 7946, None, n, n % 3, bytes(6)) for n in range(60)]
    bodies: list[Body] = [*claims, *records, Suspect(1, "a", "b"), Ping(1, "a")]
    for body in bodies:
        data = real.encode(body)
        for _ in range(2):
            assert shared.encode(body) == data
            assert shared.decode(type(body), b"??" + data + data, 2) == (body, 2 + len(data))
    whole = real.encode(records[0])
    assert shared.decode(PushNodeState, whole)[0] is shared.decode(PushNodeState, whole)[0]
    with pytest.raises(RemoteProtocolError):
        shared.decode(PushNodeState, whole[:-1])


def test_what_is_opened_once_is_not_opened_again_unless_it_was_encrypted() -> None:
    for key, alike in ((b"", True), (bytes(range(32)), False)):
        cluster = Cluster.converged(3, config=Config.lan(name="template", secret_key=key or None))
        one, other, third = (member.machine._core.codec for member in cluster.members)
        [packet] = one.seal([one.encode(Suspect(1, "m0", "m1"))], crc=True)
        assert other.open(packet).messages == [Suspect(1, "m0", "m1")]
        assert (third.open(packet) is other.open(packet)) is alike


def test_what_members_know_alike_is_one_record_until_one_of_them_knows_better() -> None:
    cluster = Cluster.converged(40, 1)
    tables = [member.machine._core.table for member in cluster.members]
    assert len({id(table.get("m7")) for table in tables}) == 2, "m7 itself has its own"
    record = tables[0].get("m7")
    assert record is not None
    with pytest.raises(LocalProtocolError, match="not copied"):
        record.incarnation = 5
    cluster.crash(cluster.members[7])
    assert cluster.run_while(lambda: not cluster.agreed, 60.0)
    assert record.incarnation == 1 and not record.gone, "nobody wrote to what is shared"
    assert all(table.get("m7") is not record for n, table in enumerate(tables) if n != 7)
    assert sum(member.shared for table in tables for member in table) > 500, "who was not spoken of is shared still"
    for table in tables:
        assert sorted(member.name for member in table) == sorted(f"m{n}" for n in range(40))
        assert all(table.get(member.name) is member for member in table)
