"""``SerfDelegate`` as a ``Memberlist`` and a user call it; its rules are tested in _serf/."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mycorrizal._runtime.serf import core as serfcore
from mycorrizal._serf.machine import SerfStatus
from mycorrizal._serf.messages import LeaveIntent, UserEvent, decode_state, encode
from mycorrizal.config import Config
from mycorrizal.exceptions import (
    ConfigError,
    MetaTooLarge,
    MycorrizalError,
    NotRunningError,
    OperationTimeout,
    PeerUnreachable,
    QueueFull,
)
from mycorrizal.serf import SerfDelegate, SerfEvent
from mycorrizal.types import Node, NodeState
from tests._serf.ground import a_node
from tests._serf.seen import SEEN_EVENT, SEEN_META, SEEN_STATE


class Members:
    """The part of a ``Memberlist`` that ``leave`` calls."""

    def __init__(self, *names: str, trouble: MycorrizalError | None = None) -> None:
        self.names = names
        self.trouble = trouble
        self.told: list[tuple[str, bytes]] = []
        self.left: list[float | None] = []

    def members(self) -> list[Node]:
        return [a_node(name) for name in self.names]

    def send_best_effort(self, node: Node, data: bytes) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.told.append((node.name, data))

    def leave(self, timeout: float | None = None) -> None:
        self.left.append(timeout)


class TestDelegate:
    def start(self, **options: object) -> SerfDelegate:
        serf = SerfDelegate(**options)  # type: ignore[arg-type]
        serf.config(Config.local(name="py"))
        serf.notify_join(a_node("py"))
        return serf

    def test_config(self) -> None:
        serf = SerfDelegate()
        config = serf.config(Config.local(name="py", bind_port=0), bind_addr="127.0.0.1")
        assert (config.wire, config.bind_addr, config.gossip_interval) == (
            "msgpack",
            "127.0.0.1",
            0.1,
        )
        versions = (
            config.delegate_protocol_min,
            config.delegate_protocol_max,
            config.delegate_protocol_version,
        )
        assert versions == (2, 5, 5)

    @pytest.mark.parametrize("settings", [{}, {"wire": "msgpack"}])
    def test_a_memberlist_needs_no_second_step(self, settings: dict[str, Any]) -> None:
        config = SerfDelegate().starting(Config.lan(name="py", **settings))
        versions = (config.delegate_protocol_min, config.delegate_protocol_version, config.delegate_protocol_max)
        assert (config.wire, versions) == ("msgpack", (2, 5, 5))

    def test_versions_that_were_set_stay(self) -> None:
        set_ = {"delegate_protocol_min": 3, "delegate_protocol_max": 5, "delegate_protocol_version": 5}
        config = SerfDelegate().starting(Config.lan(name="py", **set_))
        assert (config.delegate_protocol_min, config.wire) == (3, "msgpack")

    @pytest.mark.parametrize("versions", [(2, 4, 4), (0, 1, 0), (0, 5, 1)])
    def test_settings_that_serf_refuses(self, versions: tuple[int, int, int]) -> None:
        least, most, current = versions
        config = Config.lan(
            name="py", delegate_protocol_min=least, delegate_protocol_max=most, delegate_protocol_version=current
        )
        with pytest.raises(ConfigError, match=r"SerfDelegate\.config") as caught:
            SerfDelegate().starting(config)
        assert caught.value.field == "delegate_protocol_version"

    def test_tags_beyond_the_limit(self) -> None:
        with pytest.raises(MetaTooLarge, match="512"):
            SerfDelegate(tags={"a": "x" * 512})
        serf = SerfDelegate(tags={"a": "b"})
        with pytest.raises(MetaTooLarge):
            serf.tags = {"a": "x" * 512}
        assert serf.tags == {"a": "b"}
        serf.tags = {"c": "d"}
        assert serf.node_meta(512) == b"\xff\x81\xa1c\xa1d"
        with pytest.raises(ConfigError, match="not text"):
            serf.tags = {"a": 5}  # type: ignore[dict-item]

    def test_members(self) -> None:
        serf = self.start(tags={"a": "b"})
        serf.notify_join(a_node("s1"))
        serf.notify_update(a_node("s1", SEEN_META))
        serf.notify_join(a_node("s2"))
        serf.notify_leave(a_node("s2", state=NodeState.DEAD))
        found = {member.name: member for member in serf.members()}
        assert found["s1"].tags == {"dc": "x", "role": "web"}
        assert found["s1"].node is not None
        assert serf.tags_of(found["s1"].node) == found["s1"].tags
        assert (found["s1"].status, found["s2"].status) == (
            SerfStatus.ALIVE,
            SerfStatus.FAILED,
        )

    def test_events_both_ways(self) -> None:
        serf = self.start()
        serf.notify_msg(SEEN_EVENT)
        serf.notify_msg(SEEN_EVENT)
        assert serf.next_event(1) == SerfEvent(1, "deploy", b"v1.2", True)
        serf.user_event("hello", b"there", coalesce=False)
        assert serf.next_event(1) == SerfEvent(2, "hello", b"there", False)
        messages = list(serf.get_broadcasts(3, 1400))
        assert sorted(messages) == sorted([SEEN_EVENT, encode(UserEvent(2, "hello", b"there", False))])
        with pytest.raises(OperationTimeout):
            serf.next_event(0)

    def test_intents_go_before_events_within_the_budget(self) -> None:
        serf = self.start()
        serf.user_event("hello")
        intent = encode(LeaveIntent(1, "py"))
        assert [serf.leaving(), serf.leaving()] == [intent, None], "for the farewell, once"
        assert list(serf.get_broadcasts(3, len(intent) + 3)) == [intent]
        assert next(iter(serf.get_broadcasts(3, 1400))) == intent

    def test_callback_runs_without_the_lock(self) -> None:
        seen: list[SerfEvent] = []
        done = threading.Event()

        def look() -> None:
            serf.members()
            done.set()

        def on_event(event: SerfEvent) -> None:
            seen.append(event)
            other = threading.Thread(target=look)
            other.start()
            assert done.wait(5)
            other.join()

        serf = self.start(on_event=on_event)
        serf.notify_msg(SEEN_EVENT)
        assert [event.name for event in seen] == ["deploy"]

    def test_a_callback_that_raises_loses_no_event(self) -> None:
        seen: list[str] = []

        def on_event(event: SerfEvent) -> None:
            seen.append(event.name)
            raise RuntimeError(event.name)

        serf = self.start(on_event=on_event, replay_events=True)
        with pytest.raises(RuntimeError, match="nopayload"):
            serf.merge_remote_state(SEEN_STATE, True)
        assert seen == ["nopayload", "deploy"]

    def test_a_second_memberlist_starts_afresh(self) -> None:
        serf = self.start()
        config = serf.config(Config.local(name="py"))
        serf.node_meta(512)
        serf.leaving()
        serf.notify_join(a_node("s1"))
        serf.starting(config)
        assert [(member.name, member.status) for member in serf.members()] == [("py", SerfStatus.ALIVE)]
        assert list(serf.get_broadcasts(3, 1400)) == []

    def test_state_both_ways(self) -> None:
        serf = self.start(replay_events=True)
        serf.merge_remote_state(SEEN_STATE, True)
        assert serf.next_event(1).name == "nopayload"
        assert decode_state(serf.local_state(False)).events == decode_state(SEEN_STATE).events
        serf.merge_remote_state(b"\x02\xc1", True)
        serf.merge_remote_state(b"something else", False)
        assert serf.metrics()["bad_states"] == 2

    def test_what_we_do_not_take_is_counted(self) -> None:
        serf = self.start()
        for data in (b"\x0aunknown", b"\x08junk", b"\xff", b"", b"\x00junk"):
            serf.notify_msg(data)
        metrics = serf.metrics()
        assert (metrics["unknown_type"], metrics["refused"]) == (3, 2)
        assert list(serf.get_broadcasts(3, 1400)) == []

    def test_too_large_events(self) -> None:
        serf = self.start()
        with pytest.raises(ConfigError, match="512"):
            serf.user_event("big", bytes(512))
        serf.notify_msg(encode(UserEvent(1, "big", bytes(8000))))
        assert serf.next_event(1).name == "big"
        assert serf.metrics()["too_large_to_gossip"] == 1

    def test_what_waits_to_be_gossiped_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serfcore, "MAX_QUEUED", 2)
        serf = self.start()
        for name in ("a", "b", "c"):
            serf.user_event(name)
        assert (serf.metrics()["queued_events"], serf.metrics()["queue_full"]) == (2, 1)

    def test_an_intent_that_fits_no_packet_holds_up_no_leave(self) -> None:
        serf = SerfDelegate()
        serf.config(Config.local(name="p" * 250))
        serf._core.packet = 236  # no packet is so small today
        serf.notify_join(a_node("s1"))
        members = Members("s1")
        serf.leave(members, timeout=None)
        assert members.left == [None]
        assert serf.metrics()["too_large_to_gossip"] == 1

    def test_misuse(self) -> None:
        serf = self.start()
        for name, payload in (("a", "text"), (b"a", b""), ("a", 5)):
            with pytest.raises(TypeError, match="text and bytes"):
                serf.user_event(name, payload)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="event_queue_depth"):
            SerfDelegate(event_queue_depth=0)

    def test_unread_events_are_bounded(self) -> None:
        serf = self.start(event_queue_depth=2)
        for ltime in (1, 2, 3):
            serf.notify_msg(encode(UserEvent(ltime, f"e{ltime}")))
        assert serf.next_event().name == "e2"
        assert serf.metrics()["events_unread"] == 1

    def test_leave_waits_for_the_intent(self) -> None:
        serf = self.start()
        serf.notify_join(a_node("s1"))
        members = Members("s1", "g1", "g2", "py")
        leaver = threading.Thread(target=lambda: serf.leave(members, timeout=10))
        leaver.start()
        sent: list[bytes] = []
        while leaver.is_alive():
            sent += serf.get_broadcasts(3, 1400)
            leaver.join(0.001)
        intent = encode(LeaveIntent(1, "py"))
        assert sent == [intent] * 2  # retransmit_mult of the local profile
        assert sorted(members.told) == [("g1", intent), ("g2", intent), ("s1", intent)], "and each directly"
        assert len(members.left) == 1
        serf.leave(members, timeout=0.1)
        assert (len(members.told), len(members.left)) == (3, 2), "the intent is said once"

    @pytest.mark.parametrize("trouble", [PeerUnreachable("no such member"), QueueFull("thousands wait")])
    def test_a_farewell_that_cannot_be_sent_holds_up_no_leave(self, trouble: MycorrizalError) -> None:
        serf = self.start()
        members = Members("s1", "s2", trouble=trouble)
        serf.leave(members, timeout=0.1)
        assert len(members.left) == 1
        assert serf.metrics()["farewells_unsent"] == 2

    def test_force_leave_waits_until_it_is_out(self) -> None:
        serf = self.start()
        for name in ("s1", "s2"):
            serf.notify_join(a_node(name))
        serf.notify_leave(a_node("s2", state=NodeState.DEAD))
        asker = threading.Thread(target=lambda: serf.force_leave("s2"))
        asker.start()
        sent: list[bytes] = []
        while asker.is_alive():
            sent += serf.get_broadcasts(3, 1400)
            asker.join(0.001)
        assert set(sent) == {encode(LeaveIntent(1, "s2"))}
        assert {m.name: m.status for m in serf.members()}["s2"] is SerfStatus.LEFT
        with pytest.raises(OperationTimeout, match="not gossiped out"):
            serf.force_leave("s2", prune=True, timeout=0.001)
        assert [m.name for m in serf.members()] == ["py", "s1"], "it counts all the same"
        assert "s2" not in serf._core.nodes
        with pytest.raises(ConfigError, match="this node itself"):
            serf.force_leave("py")

    def test_alone_there_is_nobody_to_wait_for(self) -> None:
        serf = self.start()
        serf.notify_join(a_node("s1"))
        serf.notify_leave(a_node("s1", state=NodeState.DEAD))
        serf.force_leave("s1", prune=True, timeout=0)
        assert [m.name for m in serf.members()] == ["py"]

    def test_farewells_are_bounded(self) -> None:
        serf = SerfDelegate()
        serf.config(Config.local(name="py", leave_fanout=3))
        members = Members("py", "aa", "zz", "ab", "pz")
        serf.leave(members, timeout=0.1)
        assert [name for name, _ in members.told] == ["pz", "zz", "aa"], "the next by name"

    def test_without_a_node(self) -> None:
        serf = SerfDelegate()
        assert (
            serf.members(),
            serf.local_state(True),
            list(serf.get_broadcasts(3, 1400)),
        ) == ((), b"", [])
        serf.leaving()
        assert serf.metrics()["bad_states"] == 0
        with pytest.raises(NotRunningError, match="config"):
            serf.user_event("x")
