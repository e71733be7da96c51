"""The parts of an agent, one at a time and not running: its metadata, its trust, its port, and what it asks others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mycorrizal import BindError, Config, ConfigError, NameInUse, OperationTimeout
from mycorrizal._agent import assembly
from mycorrizal._agent.assembly import DEFAULT_PORT, Assembly, Identity
from mycorrizal._replica.outputs import EventReceived
from mycorrizal._runtime.net import addresses
from mycorrizal._runtime.quic.trust import identity
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._wire.meta import AgentMeta, agent_meta, read_meta
from mycorrizal.agentconfig import AgentSettings
from mycorrizal.delegates import BaseDelegate
from mycorrizal.types import Request
from tests.keys import key_of

KEY = key_of("a")


@pytest.fixture(autouse=True)
def an_ordinary_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this host have an address of either family, wherever the tests run."""
    monkeypatch.setattr(addresses, "interface_addresses", lambda: ["10.0.0.5", "fd00::5"])


def assembly_of(**settings: Any) -> Any:
    """Return an assembly of which nothing has been put together."""
    parts: Any = Assembly.__new__(Assembly)
    parts.settings = AgentSettings(**{"name": "me", "cluster": "c", **settings})
    parts.name, parts.delegate, parts.event_delegate, parts.stopped = "me", None, None, False
    parts.control = parts.plane = parts.memberlist = parts.file = parts.claim = parts.discovery = None
    parts.rundir = SimpleNamespace(shared_key=lambda cluster: b"shared")
    return parts


# -- metadata ------------------------------------------------------------------------------------


def test_the_users_metadata_get_the_room_that_tags_leave() -> None:
    class Greedy(BaseDelegate):
        def node_meta(self, limit: int) -> bytes:
            return b"x" * limit

    mine = Identity(b"b" * 8, 7947, {"role": "x" * 100}, None)
    packed = mine.meta(512, Greedy())
    assert 500 <= len(packed) <= 512
    assert read_meta(packed).tags == mine.tags and set(read_meta(packed).user) == {ord("x")}
    mine.tags = {"role": "x" * 600}
    limits = []

    class Asked(BaseDelegate):
        def node_meta(self, limit: int) -> bytes:
            limits.append(limit)
            return b""

    assert read_meta(mine.meta(512, Asked())).user == b"" and limits == [0]


def test_tags_that_were_given_are_not_those_that_are_told() -> None:
    mine, given = Identity(b"b" * 8, 7947, {}, None), {"a": "b"}
    mine.change(given)
    given["a"] = "c"
    assert mine.tags == read_meta(mine.meta(512, None)).tags == {"a": "b"}


@pytest.mark.parametrize("tags", [{"a": 1}, {1: "a"}, {"a": b"x"}, {"a": "\ud800"}, {"\ud800": "a"}])
def test_tags_that_are_no_text_change_nothing(tags: Any) -> None:
    mine = Identity(b"b" * 8, 7947, {"a": "b"}, None)
    with pytest.raises(ConfigError):
        mine.change(tags)
    assert mine.tags == {"a": "b"}


# -- names, trust, ports ----------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 1, assembly._NAMES_TRIED])
def test_a_default_name_that_is_taken_gets_a_number(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, tried = assembly_of(name=None), []
    monkeypatch.setattr(identity, "default_name", lambda: "host-1")
    parts._make_way = lambda cluster, name, chosen: tried.append((name, chosen))

    def claim(cluster: str, name: str) -> str:
        if len(tried) <= taken:
            raise NameInUse(name, cluster, None)
        return name

    parts.rundir.claim = claim
    if taken == assembly._NAMES_TRIED:
        with pytest.raises(NameInUse):
            parts._claim()
        assert len(tried) == assembly._NAMES_TRIED
    else:
        assert parts._claim() == ("host-1", "host-1-2")[taken]
        assert not any(chosen for _, chosen in tried)


def test_without_a_key_the_hosts_own_is_used_on_loopback_and_nowhere_else() -> None:
    assert assembly_of()._trust() == ("127.0.0.1", b"shared")
    assert assembly_of(key=KEY)._trust() == ("0.0.0.0", KEY)
    assert assembly_of(insecure=True)._trust() == ("0.0.0.0", None)
    assert assembly_of(wire="msgpack")._trust() == ("127.0.0.1", None)
    for wire in ("cbor", "msgpack"):
        with pytest.raises(ConfigError, match="not loopback"):
            assembly_of(bind="0.0.0.0", wire=wire)._trust()


def test_a_label_is_for_go_clusters() -> None:
    with pytest.raises(ConfigError, match="label"):
        assembly_of(label="l")._config("127.0.0.1", None)
    assert assembly_of()._config("127.0.0.1", None).label == "c"
    assert assembly_of(label="l", wire="msgpack")._config("127.0.0.1", None).label == "l"


@pytest.mark.parametrize(
    ("settings", "ports"),
    [
        ({}, [DEFAULT_PORT, 0]),
        ({"port": 7000}, [7000]),
        ({"config": Config.local(name="me", bind_port=7000)}, [7000]),
        ({"config": Config.local(name="me")}, [DEFAULT_PORT, 0]),
    ],
)
def test_a_port_that_was_not_asked_for_may_be_another_one(
    settings: dict[str, Any], ports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def listen(config: Config, **more: Any) -> None:
        tried.append(config.bind_port)
        raise BindError("taken")

    monkeypatch.setattr(assembly, "Memberlist", listen)
    parts = assembly_of(**settings)
    parts.sharing = None
    with pytest.raises(BindError):
        parts._listen(settings.get("config", Config.local(name="me")))
    assert tried == ports


# -- what is asked of others ---------------------------------------------------------------------------


def member(name: str, boot: bytes | None) -> Any:
    return SimpleNamespace(name=name, meta=agent_meta(AgentMeta(1, boot), None))


def test_others_are_agents_and_not_this_one() -> None:
    parts = assembly_of()
    members = [member("me", b"m" * 8), member("bob", b"b" * 8), member("go", None)]
    parts.memberlist = SimpleNamespace(members=lambda: members)
    parts.plane = SimpleNamespace(request_all=lambda nodes, name, value, timeout: dict.fromkeys(nodes, value))
    assert parts.others() == ["bob"]
    assert parts.ask_all("x", 7, None) == {"bob": 7, "me": True}


def test_history_is_asked_of_a_few_others_by_who_knows_too_little() -> None:
    parts, asked = assembly_of(), []
    parts.others = lambda: [f"n{number}" for number in range(9)]
    known = [EventReceived("t", b"\xf6", "bob", number) for number in (1, 2)]
    parts.sharing = SimpleNamespace(call=lambda command, deadline, name: command(0.0), replica=SimpleNamespace())
    parts.sharing.replica.history = lambda topic, last: known[-last:]

    def request(node: str, name: str, value: Any, timeout: float) -> Any:
        asked.append(node)
        raise OperationTimeout("late")

    parts.plane = SimpleNamespace(request=request)
    assert parts.history("t", 2, Deadline(None)) == known and asked == []
    assert parts.history("t", 3, Deadline(None)) == known and asked == ["n0", "n1", "n2"]


@pytest.mark.parametrize("last", [0, 4097, "1", None])
def test_history_that_is_told_is_bounded(last: Any) -> None:
    parts = assembly_of()
    parts.sharing = SimpleNamespace(call=lambda command, deadline, name: command(0.0), replica=SimpleNamespace())
    parts.sharing.replica.history = lambda topic, count: []
    assert parts._tell_history(Request("mycorrizal.history", [None, 4096], "bob", None)) == []
    with pytest.raises(ConfigError):
        parts._tell_history(Request("mycorrizal.history", ["t", last], "bob", None))


# -- the end ------------------------------------------------------------------------------------------


def test_an_agent_that_is_dropped_stops_each_part_and_one_that_is_closed_ends_its_streams() -> None:
    parts, told = assembly_of(), []

    def part(name: str) -> Any:
        one = SimpleNamespace(stop=lambda: told.append(name), release=lambda: told.append(name))
        one._started = one._running = one
        one.close = one.shutdown = lambda timeout: told.append(name)
        return one

    for name in ("control", "seeking", "plane", "memberlist", "file", "claim"):
        setattr(parts, name, part(name))
    parts.stop()
    assert told == ["control", "seeking", "plane", "memberlist", "file", "claim"] and parts.stopped
    told.clear()
    parts.sharing = SimpleNamespace(on_end=lambda: told.append("streams"))
    parts.close(Deadline(1.0))
    assert told == ["control", "seeking", "plane", "file", "streams", "memberlist", "claim"]


# -- without a runtime directory -----------------------------------------------------------------


def no_directory() -> None:
    raise ConfigError("runtime_dir", "there is no temporary directory", hint="set MYCORRIZAL_RUNTIME_DIR")


def test_who_meets_nobody_there_starts_without_a_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "RuntimeDir", no_directory)
    parts = assembly_of(key=KEY, discover=False, control=False)
    parts.rundir = parts._rundir()
    assert parts.rundir is None
    assert parts._claim().name == "me" and parts._trust() == ("0.0.0.0", KEY)
    assert assembly_of(key=KEY, join=("10.0.0.5:7946",), control=False)._rundir() is None
    assert assembly_of(insecure=True, discover=False, control=False)._rundir() is None


@pytest.mark.parametrize(
    "settings",
    [
        {"key": KEY, "discover": False},
        {"key": KEY, "control": False},
        {"discover": False, "control": False},
        {"key": KEY, "control": False, "join": ("local://",)},
    ],
)
def test_who_needs_one_is_told_how_to_name_it(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "RuntimeDir", no_directory)
    with pytest.raises(ConfigError, match="MYCORRIZAL_RUNTIME_DIR"):
        assembly_of(**settings)._rundir()
