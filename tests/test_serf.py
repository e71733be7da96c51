"""``SerfDelegate`` as a ``Memberlist`` and a user call it; its rules are tested in _serf/."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from mycorrizal._runtime import serfcore
from mycorrizal._serf.asking import (
    ACK,
    Query,
    QueryResponse,
    decode_query_message,
    encode_query_message,
    pack_conflict,
    read_conflict,
)
from mycorrizal._serf.machine import SerfStatus
from mycorrizal._serf.messages import LeaveIntent, UserEvent, decode_state, encode
from mycorrizal._wire.security import Keyring
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
from mycorrizal.serf import SerfDelegate, SerfEvent, SerfQuery
from mycorrizal.types import Node, NodeState
from tests._serf.seen import SEEN_EVENT, SEEN_META, SEEN_QUERY, SEEN_STATE


def a_node(name: str, meta: bytes = b"\xff\x80", state: NodeState = NodeState.ALIVE) -> Node:
    return Node(name, bytes((127, 0, 0, 1)), 7946, meta, state, 1)


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

    @pytest.mark.parametrize(
        ("settings", "field"),
        [
            ({}, "wire"),
            ({"wire": "msgpack"}, "delegate_protocol_version"),
            (
                {
                    "wire": "msgpack",
                    "delegate_protocol_min": 2,
                    "delegate_protocol_max": 4,
                    "delegate_protocol_version": 4,
                },
                "delegate_protocol_version",
            ),
        ],
    )
    def test_settings_that_serf_refuses(self, settings: dict[str, object], field: str) -> None:
        with pytest.raises(ConfigError, match=r"SerfDelegate\.config") as caught:
            SerfDelegate().starting(Config.lan(name="py", **settings))
        assert caught.value.field == field

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


class FakeGround:
    """A node without threads or sockets: what is sent and handed over is written down."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.keyring = Keyring.of(config)
        self.local_node = a_node("py")
        self.time = 0.0
        self.sent: list[tuple[tuple[str, int], bytes, str]] = []
        self.handed: list[tuple[str, Callable[[], object]]] = []
        self.jobs: list[Callable[[], object]] = []
        self.stopped = False
        self.full = False

    def now(self) -> float:
        return self.time

    def guard(self, operation: str) -> None:
        assert not self.stopped

    def send(self, address: tuple[str, int], data: bytes, name: str) -> bool:
        if self.full:
            raise QueueFull("thousands wait")
        self.sent.append((address, data, name))
        return True

    def later(self, call: str, function: Callable[..., object], *args: Any, size: int) -> None:
        self.handed.append((call, lambda: function(*args)))

    def aside(self, job: Callable[[], object]) -> bool:
        self.jobs.append(job)
        return True

    def stop(self) -> None:
        self.stopped = True


class TestQueries:
    def start(self, **options: Any) -> tuple[SerfDelegate, FakeGround]:
        serf = SerfDelegate(**options)
        ground = FakeGround(serf.config(Config.local(name="py")))
        serf.attached(cast(Any, ground))
        serf.notify_join(a_node("py"))
        return serf, ground

    def sent(self, ground: FakeGround) -> list[object]:
        taken, ground.sent = ground.sent, []
        return [decode_query_message(data) for _, data, _ in taken]

    def test_a_query_is_acknowledged_at_once_and_answered_on_the_delegate_thread(self) -> None:
        serf, ground = self.start()
        asked: list[SerfQuery] = []

        @serf.on_query("q1")
        def q1(query: SerfQuery) -> bytes:
            asked.append(query)
            return b"yes"

        ground.time = 10.0
        serf.notify_msg(SEEN_QUERY)
        ((to, data, name),) = ground.sent
        assert (to, name) == (("127.0.0.1", 22001), "s1")
        assert decode_query_message(data) == QueryResponse(1, 0xF4B007E, "py", ACK)
        ground.sent.clear()
        ((call, run),) = ground.handed
        ground.time = 10.25
        run()
        assert (call, asked) == ("on_query", [SerfQuery("q1", b"hello", "s1", 0.75)])
        assert self.sent(ground) == [QueryResponse(1, 0xF4B007E, "py", 0, b"yes")]
        assert list(serf.get_broadcasts(3, 1400)) == [SEEN_QUERY]

    def test_too_late_is_counted(self) -> None:
        serf, ground = self.start()

        @serf.on_query("q1")
        def q1(query: SerfQuery) -> bytes:
            ground.time += 5
            return b"late"

        serf.notify_msg(SEEN_QUERY)
        ground.sent.clear()
        ground.handed[0][1]()
        ground.handed[0][1]()
        assert (self.sent(ground), serf.metrics()["queries_late"]) == ([], 2)

    @pytest.mark.parametrize(("answer", "error"), [("text", TypeError), (bytes(2000), ConfigError)])
    def test_what_is_no_answer_is_an_error_of_the_handler(self, answer: Any, error: type[Exception]) -> None:
        serf, ground = self.start()
        serf.on_query("q1")(lambda query: answer)
        serf.notify_msg(SEEN_QUERY)
        with pytest.raises(error):
            ground.handed[0][1]()

    def test_without_a_handler_or_an_answer_nothing_is_said(self) -> None:
        serf, ground = self.start()
        serf.notify_msg(SEEN_QUERY)
        ground.sent.clear()
        ground.handed[0][1]()
        serf.on_query("q1")(lambda query: None)
        ground.handed[0][1]()
        assert (ground.sent, serf.metrics()["queries_unhandled"]) == ([], 1)

    def test_what_cannot_be_sent_is_counted(self) -> None:
        serf, ground = self.start()
        ground.full = True
        serf.notify_msg(SEEN_QUERY)
        assert serf.metrics()["directs_unsent"] == 1

    def test_our_own(self) -> None:
        serf, _ = self.start()
        for name in ("s1", "s2"):
            serf.notify_join(a_node(name))
        serf.on_query("load")(lambda query: b"mine")
        results = serf.query("load", nodes="py", timeout=5)
        assert (results, results.errors) == ({"py": b"mine"}, {})
        results = serf.query("load", timeout=0.001)
        assert results == {"py": b"mine"}
        assert set(results.errors) == {"s1", "s2"}
        assert {type(error) for error in results.errors.values()} == {OperationTimeout}

    def test_a_ping_takes_acknowledgements_for_answers(self) -> None:
        serf, _ = self.start()
        assert serf.query("_serf_ping", timeout=5) == {"py": b""}
        assert serf.metrics()["queries_unhandled"] == 0

    def test_misuse(self) -> None:
        serf, _ = self.start()
        with pytest.raises(ConfigError, match="one of Serf's own"):
            serf.query("_serf_install-key")
        with pytest.raises(ConfigError, match="no name for a query"):
            serf.on_query("_serf_ping")
        with pytest.raises(ConfigError, match="relay_factor"):
            serf.query("a", relay_factor=256)
        with pytest.raises(TypeError, match="text and bytes"):
            serf.query("a", "text")  # type: ignore[arg-type]
        with pytest.raises(NotRunningError, match="Memberlist"):
            SerfDelegate().query("a")

    def ask(self, serf: SerfDelegate, name: str, payload: bytes, number: int = 5) -> None:
        query = Query(9, number, bytes((127, 0, 0, 1)), 7946, "s1", (), 0, 0, 10**9, name, payload)
        serf.notify_msg(encode_query_message(query))

    def test_whose_a_name_is(self) -> None:
        serf, ground = self.start()
        serf.notify_join(a_node("s1"))
        for number, name in enumerate((b"s1", b"nobody", b"py")):
            self.ask(serf, "_serf_conflict", name, number)
        told = [m.payload for m in self.sent(ground) if isinstance(m, QueryResponse)]
        assert [read_conflict(payload) for payload in told] == [(bytes((127, 0, 0, 1)), 7946), None]

    @pytest.mark.parametrize(("port", "ends"), [(7946, False), (7947, True)])
    def test_our_name_is_claimed(self, port: int, ends: bool) -> None:
        serf, ground = self.start()
        serf.notify_join(a_node("s1"))
        for _ in range(2):
            serf.notify_conflict(a_node("py"), Node("py", bytes((127, 0, 0, 1)), 1))
        serf.notify_conflict(a_node("other"), Node("other", bytes((127, 0, 0, 1)), 1))
        (job,) = ground.jobs
        asker = threading.Thread(target=job)
        asker.start()
        while not (asked := [m for m in self.sent(ground) if isinstance(m, Query)]):
            asker.join(0.001)
        (query,) = asked
        answer = pack_conflict(Node("py", bytes((127, 0, 0, 1)), port), 1)
        for sender, payload in (("s1", answer), ("s2", answer), ("s3", pack_conflict(None, 0)), ("py", b"junk")):
            serf.notify_msg(encode_query_message(QueryResponse(query.ltime, query.id, sender, 0, payload)))
        asker.join(5)
        assert ground.stopped is ends

    def test_not_if_it_is_switched_off(self) -> None:
        serf, ground = self.start(resolve_conflicts=False)
        serf.notify_conflict(a_node("py"), Node("py", bytes((127, 0, 0, 1)), 1))
        assert ground.jobs == []
