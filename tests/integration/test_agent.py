"""Agents in one process: finding each other, talking, sharing, and the errors of a start that fails."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from mycorrizal import (
    Agent,
    BaseDelegate,
    BindError,
    ConfigError,
    JoinError,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MetaTooLarge,
    NameInUse,
    NotRunningError,
    OperationTimeout,
    SerfDelegate,
    SettingChange,
    UserEvent,
    ValueEncodeError,
    ValueTooLarge,
)
from mycorrizal._agent.keytable import KeyTable
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._wire.values import encode_value
from tests.keys import key_of

from .agents import QUICK, Make, agents, meeting_place, runtime_dir  # noqa: F401 - fixtures
from .conftest import until

pytestmark = pytest.mark.usefixtures("runtime_dir")


def test_agents_on_one_host_find_each_other_without_an_address(agents: Make) -> None:  # noqa: F811
    alice, bob, carol = agents("alice"), agents("bob"), agents("carol")
    for agent in (alice, bob, carol):
        assert agent.wait_for(3, 10).names == ["alice", "bob", "carol"]


def test_other_clusters_and_names(agents: Make) -> None:  # noqa: F811
    one, other = agents("alice"), agents("alice", cluster="other")
    first, second = agents(), agents()
    assert first.name != second.name
    assert second.name == f"{first.name}-2"
    assert other.members().names == ["alice"]
    assert one.wait_for(3, 10).names == sorted(["alice", first.name, second.name])


def test_the_data_plane_goes_by_member_names(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")

    @bob.on_request("double")
    def double(request: Any) -> Any:
        return request.value * 2

    bob.wait_for(2)
    alice.wait_for(2)
    alice.send("bob", {"step": 1})
    assert bob.receive(5).value == {"step": 1}
    assert alice.request("bob", "double", 21) == 42
    assert dict(alice.request_all("double", [1])) == {"bob": [1, 1]}
    with pytest.raises(ConfigError, match="library's own"):
        alice.on_request("mycorrizal.share")


def test_members_show_tags_and_addresses(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice", tags={"role": "trainer"}), agents("bob")
    members = {member.name: member for member in bob.wait_for(2)}
    assert members["alice"].tags == {"role": "trainer"}
    assert members["alice"].quic_port == alice.quic_port
    assert members["alice"].boot == alice.boot
    alice.update_tags({"role": "judge", "zone": "a"})
    until(lambda: {m.name: dict(m.tags) for m in bob.members()}["alice"] == {"role": "judge", "zone": "a"})
    with pytest.raises(MetaTooLarge):
        alice.update_tags({"role": "x" * 600})
    with pytest.raises(ConfigError, match="no text"):
        alice.update_tags({"role": "\ud800"})
    assert alice.tags == {"role": "judge", "zone": "a"}
    html = bob.members()._repr_html_()
    assert "role=judge" in html and "<table>" in html


def test_tags_and_a_delegates_metadata_share_the_room(agents: Make) -> None:  # noqa: F811
    limits = []

    class Wordy(BaseDelegate):
        says = 300

        def node_meta(self, limit: int) -> bytes:
            limits.append(limit)
            return bytes(min(self.says, limit))

    alice = agents("alice", tags={"role": "trainer"}, delegate=Wordy())
    Wordy.says = 1000  # all that it may
    alice.update_tags({"zone": "a"})
    assert 300 < limits[-1] < 500
    alice.update_tags({"role": "x" * 300})
    assert limits[-1] < 200 and 508 <= len(alice.local_node.meta) <= 512

    class Deaf(BaseDelegate):
        def node_meta(self, limit: int) -> bytes:
            return bytes(300)

    bob = agents("bob", delegate=Deaf())
    with pytest.raises(MetaTooLarge):
        bob.update_tags({"role": "x" * 300})
    assert bob.tags == {}


def user_events(stream: Any, count: int) -> list[UserEvent]:
    found = [stream.get(10) for _ in range(count)]
    assert all(isinstance(event, UserEvent) for event in found)
    return found


def test_events_reach_each_subscriber_once_and_in_order(agents: Make) -> None:  # noqa: F811
    team = [agents(name) for name in ("alice", "bob", "carol")]
    for agent in team:
        agent.wait_for(3)
    streams = [agent.subscribe("epoch") for agent in team]
    for number in range(20):
        team[0].broadcast("epoch", number)
        team[0].broadcast("noise", number)
    team[1].broadcast("epoch", b"x" * 100_000)  # over QUIC
    for stream in streams:
        got = user_events(stream, 21)
        assert [event.value for event in got if event.sender == "alice"] == list(range(20))
        assert [event.value for event in got if event.sender == "bob"] == [b"x" * 100_000]
        with pytest.raises(OperationTimeout):
            stream.get(0.3)


def test_a_flood_of_events_makes_the_sender_wait_and_loses_none(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    for number in range(5000):
        alice.broadcast("alone", number)  # nobody to tell: no queue fills up
    bob = agents("bob")
    alice.wait_for(2)
    stream = bob.subscribe("flood", depth=4000)
    for number in range(3000):
        alice.broadcast("flood", number, timeout=30)
    assert [event.value for event in user_events(stream, 3000)] == list(range(3000))


def test_a_late_subscriber_gets_the_last_events(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    for number in range(5):
        alice.broadcast("epoch", number)
    bob = agents("bob")
    bob.wait_for(2)
    late = bob.subscribe("epoch", last=3)
    assert [event.value for event in user_events(late, 3)] == [2, 3, 4]
    alice.broadcast("epoch", 5)
    assert user_events(late, 1)[0].value == 5
    local = alice.subscribe("epoch", last=2)
    assert [event.value for event in user_events(local, 2)] == [4, 5]


def test_settings_are_here_when_the_join_returns_and_follow(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    alice.settings["rate"] = 0.5
    alice.settings["names"] = ["a", "b"]
    bob = agents("bob")
    assert dict(bob.settings) == {"rate": 0.5, "names": ["a", "b"]}
    changes = bob.settings.watch("rate")
    alice.settings["rate"] = 0.25
    assert changes.get(5) == SettingChange("rate", 0.25, False, "alice")
    del bob.settings["names"]
    until(lambda: "names" not in alice.settings)
    with pytest.raises(KeyError):
        alice.settings["names"]
    with pytest.raises(KeyError):
        del alice.settings["names"]
    with pytest.raises(ValueEncodeError):
        alice.settings["rate"] = object()
    with pytest.raises(ValueTooLarge):
        alice.settings["rate"] = b"x" * 100_000
    assert alice.settings["rate"] == 0.25


def test_a_watching_callback_runs_in_order_and_may_block_nobody(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    seen: list[Any] = []
    done = threading.Event()

    def note(change: Any) -> None:
        bob.members()
        seen.append(change.value)
        if change.value == 4:
            done.set()
        if change.value == 1:
            raise RuntimeError("a watcher's own fault")

    bob.settings.watch("n", note)
    for number in range(5):
        alice.settings["n"] = number
    assert done.wait(10)
    assert seen == sorted(seen) and seen[-1] == 4
    assert bob.metrics().get("watchers.faults", 0) == seen.count(1)


def test_a_service_that_cannot_be_read_is_left_out_and_counted(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    parts = alice._parts
    assert parts is not None
    replica = parts.sharing.replica
    for record in (encode_value("no record").pack(), b"\xff"):
        parts.sharing.call(lambda now, record=record: replica.register("odd", record, now), Deadline(5), "test")
        assert alice.services.find(healthy=None) == []
    assert alice.metrics()["share.values_bad"] == 2


def test_services_come_and_go_with_their_nodes(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    healthy = threading.Event()
    healthy.set()
    alice.services.register("api", port=8080, meta={"v": 2}, check=healthy.is_set, interval=0.05)
    bob = agents("bob")
    (service,) = bob.services.find("api")
    assert (service.node, service.host, service.port, service.meta) == ("alice", "127.0.0.1", 8080, {"v": 2})
    news = bob.services.watch("api")
    healthy.clear()
    assert news.get(5).kind == "updated"
    assert bob.services.find("api") == [] and len(bob.services.find("api", healthy=False)) == 1
    healthy.set()
    assert news.get(5).kind == "updated"
    with bob.services.register("job", service_id="job-1"):
        until(lambda: alice.services.find("job"))
    until(lambda: not alice.services.find("job"))
    alice.leave()
    assert news.get(5).kind == "removed"
    assert bob.services.find() == []


def test_what_was_written_just_before_a_leave_stays(agents: Make, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    bob.wait_for(2, 10)
    carrier = alice._running.sharing._carrier
    assert carrier is not None
    ask = carrier.ask

    def slow(*args: Any) -> None:  # as on a machine that is busy
        threading.Timer(0.5, ask, args).start()

    monkeypatch.setattr(carrier, "ask", slow)
    alice.settings["large"] = "x" * 10_000  # goes over QUIC
    alice.leave()
    alice.close()
    until(lambda: bob.settings.get("large") == "x" * 10_000)


def test_events_tell_who_came_left_and_failed(agents: Make) -> None:  # noqa: F811
    alice = agents("alice", config=QUICK)
    with alice.events() as news:
        bob = agents("bob", config=QUICK)
        assert isinstance(event := news.get(5), MemberJoined) and event.node.name == "bob"
        bob.broadcast("hello", 1)
        event = news.get(5)
        assert isinstance(event, UserEvent) and (event.topic, event.sender) == ("hello", "bob")
        bob.leave()
        bob.close()
        while not isinstance(event := news.get(5), MemberLeft):
            pass
        carol = agents("carol", config=QUICK)
        carol.close()
        while not isinstance(event := news.get(20), MemberFailed):
            pass
        assert event.node.name == "carol"


def test_a_users_delegate_keeps_its_five_calls(agents: Make) -> None:  # noqa: F811
    class Mine(BaseDelegate):
        def __init__(self, meta: bytes, say: list[bytes]) -> None:
            self.meta, self.say = meta, say
            self.heard: list[bytes] = []
            self.states: list[bytes] = []

        def node_meta(self, limit: int) -> bytes:
            return self.meta

        def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
            say, self.say = self.say, []
            return say

        def notify_msg(self, data: bytes) -> None:
            self.heard.append(data)

        def local_state(self, join: bool) -> bytes:
            return b"state of " + self.meta

        def merge_remote_state(self, buf: bytes, join: bool) -> None:
            self.states.append(buf)

    one, two = Mine(b"one", []), Mine(b"two", [])
    alice, bob = agents("alice", delegate=one, tags={"a": "b"}), agents("bob", delegate=two)
    alice.wait_for(2)
    alice.settings["beside"] = 1
    one.say = [b"plain", b"\xd9\x6d\x79 looks like ours"]
    until(lambda: {b"plain", b"\xd9\x6d\x79 looks like ours"} <= set(two.heard))
    until(lambda: b"state of one" in two.states and b"state of two" in one.states)
    until(lambda: bob.settings.get("beside") == 1)
    assert all(not message.startswith(b"\xd9\x6d\x79") or b"looks" in message for message in two.heard)


@pytest.mark.parametrize(
    ("options", "warned", "problem"),
    [
        ({"wire": "msgpack"}, True, True),
        ({"wire": "msgpack", "config": QUICK}, True, True),
        ({"wire": "msgpack", "insecure": True, "bind": "127.0.0.1"}, True, False),  # it was asked for
        ({"insecure": True, "bind": "::1"}, True, False),
        ({"wire": "msgpack", "key": key_of("k"), "bind": "127.0.0.1"}, False, False),
        ({}, False, False),  # this user's agents share a key
        ({"discover": False, "control": False}, False, False),
    ],
)
def test_agent_that_every_user_of_the_host_gets_in_to_says_so(
    agents: Make,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    warned: bool,
    problem: bool,
) -> None:
    alice = agents("alice", port=None if "config" in options else 0, **options)
    found = [record.getMessage() for record in caplog.records if "without a key" in record.getMessage()]
    text = "without a key: every user of this host can join, read and forge; give key="
    assert [text in message for message in found] == [True] * warned  # once
    problems = [each for each in alice.health().problems if each.startswith("no key: every user of this host")]
    assert len(problems) == problem


def test_agent_beside_go_peers_takes_a_weak_key_and_says_so(
    agents: Make,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    key, weak = key_of("k"), b"correct horse battery staple 123"
    alice = agents("alice", wire="msgpack", key=weak, bind="127.0.0.1", port=0)
    text = "alice: a key is text, as a passphrase is, and can be guessed; give the cluster another one"
    assert [record.getMessage() for record in caplog.records if "guessed" in record.getMessage()] == [text]
    bob = agents("bob", wire="msgpack", key=weak, bind="127.0.0.1", port=0, join="{}:{}".format(*alice.address))
    assert bob.request_all("nothing", nodes=["alice"]).errors  # the data planes proved it to each other
    for step, value in (("add", key), ("use", key), ("remove", weak)):
        assert getattr(bob.keys, step)(value).errors == {}
    assert alice.keys.list() == bob.keys.list() == (key,)
    with pytest.raises(ConfigError, match="key: is text, as a passphrase is, and can be guessed, in argument key"):
        Agent("carol", key=weak)


def test_weak_key_is_refused_by_every_agent_that_is_asked_to_add_it(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    bob.wait_for(2)
    with pytest.raises(ConfigError, match="different bytes"):
        alice.keys.add(bytes(32))
    table = KeyTable.start(alice.keys.list()[0]).changed("add", bytes(32), (9, "alice"))
    answer = alice._running.ask_all("mycorrizal.keys", table.pack(), 10.0)  # as one that does not judge would
    assert "different bytes" in str(answer.errors["bob"])
    assert len(alice.keys.list()) == len(bob.keys.list()) == 1


def test_a_start_that_cannot_be_says_why(agents: Make, tmp_path: Any) -> None:  # noqa: F811
    alice = agents("alice")
    with pytest.raises(NameInUse, match="this process"):
        Agent("alice")
    with pytest.raises(BindError):
        Agent("bob", port=alice.address[1])
    with pytest.raises(ConfigError, match="key"):
        Agent("bob", key=b"short")
    with pytest.raises(ConfigError, match="not loopback"):
        Agent("bob", bind="0.0.0.0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        seed = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(JoinError) as caught:
            Agent("bob", join=[seed], join_timeout=0.5)
        assert list(caught.value.failures) == [seed]
    with pytest.raises(JoinError):
        Agent("bob", join=[f"127.0.0.1:{alice.address[1]}"], key=key_of("other"), bind="127.0.0.1", join_timeout=0.5)
    assert alice.members().names == ["alice"]
    agents("bob", join=[f"127.0.0.1:{alice.address[1]}"])


def test_a_name_that_is_taken_on_another_host_is_refused_unless_its_owner_is_gone(agents: Make) -> None:  # noqa: F811
    common: dict[str, Any] = {"key": key_of("other"), "bind": "127.0.0.1"}
    alice, bob = agents("alice", **common), agents("bob", **common)
    bob.wait_for(2)
    seed = "{}:{}".format(*alice.address)
    with meeting_place():  # where no file tells of bob, as on another host
        with pytest.raises(NameInUse) as caught:
            Agent("bob", join=[seed], **common)
        assert caught.value.where == "{}:{}".format(*bob.address)
        assert alice.members().names == ["alice", "bob"]
        bob.close()  # without a word: the others still take it for alive
        with Agent("bob", join=[seed], **common) as again:
            until(lambda: {m.name: m.port for m in alice.members()}.get("bob") == again.address[1])


def test_a_seed_list_that_holds_only_oneself_is_fine(agents: Make) -> None:  # noqa: F811
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert agents("alice", port=port, join=[f"127.0.0.1:{port}"]).members().names == ["alice"]


def test_after_close_calls_say_so_and_the_name_is_free(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    subscription, watch = alice.subscribe("x"), alice.settings.watch()
    alice.close()
    alice.close()
    for call in (
        lambda: alice.send("bob", 1),
        lambda: alice.broadcast("x", 1),
        lambda: alice.settings.set("a", 1),
        lambda: alice.services.register("a"),
        lambda: alice.update_tags({}),
        lambda: subscription.get(1),
        lambda: watch.get(1),
        lambda: alice.wait_for(2, 1),
    ):
        with pytest.raises(NotRunningError):
            call()
    assert "closed" in repr(alice)
    agents("alice")


def test_keys_are_rotated_on_all_agents(agents: Make) -> None:  # noqa: F811
    old, new = key_of("old"), key_of("new")
    alice, bob = agents("alice", key=old, bind="127.0.0.1"), agents("bob", key=old, bind="127.0.0.1")
    alice.wait_for(2)
    for step in (alice.keys.add, alice.keys.use):
        results = step(new)
        assert dict(results) == {"alice": True, "bob": True} and not results.errors
    assert not alice.keys.remove(old).errors
    assert alice.keys.list() == bob.keys.list() == (new,)
    bob.send("alice", "still here")
    assert alice.receive(5).value == "still here"
    with pytest.raises(JoinError):
        Agent("carol", key=old, bind="127.0.0.1", join=["{}:{}".format(*alice.address)], join_timeout=1)
    agents("carol", key=new, bind="127.0.0.1", join=["{}:{}".format(*alice.address)]).wait_for(3)


def test_a_label_of_its_own_is_refused_where_the_cluster_is_the_label() -> None:
    with pytest.raises(ConfigError, match="cluster="):
        Agent("alice", label="blue", bind="127.0.0.1")


def test_the_key_of_a_host_is_found_by_who_comes_after_a_rotation(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    alice.wait_for(2)
    (old,), new = alice.keys.list(), bytes(range(32))
    for step, key in ((alice.keys.add, new), (bob.keys.use, new), (alice.keys.remove, old)):
        assert not step(key).errors
    agents("carol").wait_for(3)


def test_a_serf_delegate_keeps_its_tags_beside_those_of_the_agent(agents: Make) -> None:  # noqa: F811
    one = {"wire": "msgpack", "insecure": True, "bind": "127.0.0.1"}
    delegate = SerfDelegate(tags={"zone": "a", "role": "worker"})
    alice = agents("alice", delegate=delegate, tags={"role": "judge"}, **one)
    assert alice.tags == {"zone": "a", "role": "judge"}
    assert delegate.tags["zone"] == "a" and delegate.tags["quic_port"]
    alice.update_tags({"role": "none"})
    assert alice.tags == {"role": "none"} and "zone" not in delegate.tags


def test_health_and_metrics(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    health = alice.health()
    assert (health.name, health.members, health.problems) == ("alice", 1, ())
    alice.settings["x"] = 1
    assert alice.metrics()["members"] == 1
