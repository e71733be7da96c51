"""What an agent holds, made plain."""

from __future__ import annotations

import mycorrizal
from mycorrizal._control.plain import event_fields, plain
from mycorrizal._wire.meta import AgentMeta, agent_meta

from .fake import UserEvent

META = agent_meta(AgentMeta(9000, bytes(range(1, 9)), {"role": "web"}), 512)
NODE = mycorrizal.Node("bob", b"\x7f\0\0\1", 7946, META, mycorrizal.NodeState.SUSPECT, 3)
TOLD: dict[str, object] = {"name": "bob", "host": "127.0.0.1", "port": 7946, "quic_port": 9000}
TOLD |= {"tags": {"role": "web"}, "state": "suspect", "boot": "0102030405060708", "incarnation": 3}


def test_events_have_a_topic_and_plain_fields() -> None:
    assert event_fields(mycorrizal.MemberJoined(NODE)) == ("event.member_joined", {"node": TOLD})
    assert event_fields(mycorrizal.EventsLost(3, (NODE,))) == ("event.events_lost", {"count": 3, "members": [TOLD]})
    assert event_fields(mycorrizal.Stalled(1.5)) == ("event.stalled", {"seconds": 1.5})
    blocked = mycorrizal.UdpBlocked(NODE, 7946, "inbound")
    assert event_fields(blocked) == ("event.udp_blocked", {"node": TOLD, "port": 7946, "direction": "inbound"})
    refused = mycorrizal.TcpBlocked(NODE, 7946, "outbound")
    assert event_fields(refused) == ("event.tcp_blocked", {"node": TOLD, "port": 7946, "direction": "outbound"})


def test_event_of_a_user_has_the_users_topic() -> None:
    topic, fields = event_fields(UserEvent("deploy", {"v": 1}, "bob", 7))
    assert topic == "event.user.deploy"
    assert fields == {"topic": "deploy", "value": {"v": 1}, "sender": "bob", "number": 7}


def test_event_that_cannot_be_read_tells_why_in_place_of_its_value() -> None:
    broken = mycorrizal.UserEvent.unreadable(mycorrizal.ValueDecodeError("why"), topic="t", sender="bob", number=7)
    topic, fields = event_fields(broken)
    assert topic == "event.user.t"
    told = {"error": "ValueDecodeError", "text": "why"}
    assert fields == {"topic": "t", "value": None, "sender": "bob", "number": 7, "error": told}
    assert "error" not in event_fields(mycorrizal.UserEvent("t", 1, "bob", 7))[1]


def test_foreign_name_is_readable_text() -> None:
    assert plain(mycorrizal.Node("b\udcffb", b"\x7f\0\0\1", 1))["name"] == "b?b"


def test_what_is_none_of_ours_stays_as_it_is() -> None:
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    assert plain(deep) == deep
    assert plain(ValueError("no")) == {"error": "ValueError", "text": "no"}
    thing = object()
    assert plain({"a": (thing,)}) == {"a": [thing]}
