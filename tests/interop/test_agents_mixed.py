"""Agents among Go's memberlist and Serf: what they share goes over QUIC, and the gossip is the others' alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from mycorrizal import Agent, Config, JoinError, Memberlist, OperationTimeout, SerfDelegate
from mycorrizal.types import Request
from tests.integration.agents import meeting_place

from .peers import GoPeer, SerfAgent, wait_until
from .test_memberlist_go import Recorder, names

GoMaker = Callable[..., GoPeer]
SerfMaker = Callable[..., SerfAgent]
MemberMaker = Callable[..., Memberlist]
Make = Callable[..., Agent]

SERF_VERSIONS = ("-delegate-versions", "2,5,5")
# Serf's nodes pass on each other's messages; plain Go nodes swallow them, so some more copies are needed.
OFTEN = Config.local(bind_addr="127.0.0.1", bind_port=0, retransmit_mult=8)
BUSY = ("Refuting a suspect message", "but other probes failed")
ENVELOPE = b"\xd9\x6d\x79"


class Loud(Recorder):
    """Puts what it has to tell into one packet after the other, so that all hear it."""

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        return [self.broadcasts.pop(0)] if self.broadcasts else []


@pytest.fixture
def agent(stack: ExitStack) -> Iterator[Make]:
    """Start agents in this process: ``agent("a1", join=[...])``. None may have been told nonsense at the end."""
    stack.enter_context(meeting_place())
    started: list[Agent] = []

    def start(name: str, **options: Any) -> Agent:
        ours: dict[str, Any] = {"wire": "msgpack", "bind": "127.0.0.1", "port": 0, "discover": False}
        started.append(Agent(name, **ours | options))
        stack.callback(started[-1].close)
        return started[-1]

    yield start
    for one in started:
        metrics = one.metrics()
        assert (metrics["delegate.faults"], metrics.get("share.rejected", 0)) == (0, 0)


def address(agent: Agent) -> str:
    return f"127.0.0.1:{agent.address[1]}"


def tags_of(agent: Agent, name: str) -> dict[str, str]:
    return next((dict(member.tags) for member in agent.members() if member.name == name), {})


def complaints(peer: GoPeer | SerfAgent) -> list[str]:
    """Return the lines of a peer's log that are worse than information, but for those about a busy machine."""
    lines = [line for line in list(peer.process.lines) if "[ERR]" in line or "[WARN]" in line]
    return [line for line in lines if not any(text in line for text in BUSY)]


def share(one: Agent) -> None:
    """Let an agent write a setting, offer a service and answer a request."""
    one.settings[f"from {one.name}"] = one.name
    one.services.register("api", port=one.quic_port)

    @one.on_request("who")
    def who(request: Request) -> str:
        return one.name


def lacking(one: Agent, names: Iterable[str]) -> list[str]:
    """Return what an agent does not have of what those named have shared."""
    services = {service.node for service in one.services.find("api")}
    return [name for name in names if one.settings.get(f"from {name}") != name or name not in services]


def all_share(agents: list[Agent]) -> None:
    """Check that what one writes, broadcasts or answers reaches all others."""
    streams = [one.subscribe("epoch") for one in agents]
    for number, one in enumerate(agents):
        one.settings["latest"] = number
        for other in agents:
            wait_until(lambda n=number, o=other: o.settings.get("latest") == n, f"{other.name} has {number}", 5)
        others = {other.name: other.name for other in agents if other is not one}
        assert dict(one.request_all("who")) == others
        one.broadcast("epoch", number)
        assert [(e.sender, e.value) for e in (s.get(5) for s in streams)] == [(one.name, number)] * len(agents)  # type: ignore[union-attr]
    for stream in streams:
        stream.close()


def events_both_ways(serf: SerfAgent, delegates: list[SerfDelegate]) -> None:
    """Check that Serf's user events reach all, and ours Serf. Go nodes pass none on, so it may take several."""
    reached: set[int] = set()

    def reach() -> bool:
        serf.event("deploy", "v1", coalesce=False)
        for number, delegate in enumerate(delegates):
            with suppress(OperationTimeout):
                assert delegate.next_event(0.2).name == "deploy"
                reached.add(number)
        return len(reached) == len(delegates)

    def told() -> bool:
        delegates[0].user_event("from-a0", b"x", coalesce=False)
        return serf.logged("Received event: user-event: from-a0") > 0

    wait_until(reach, "each agent has one of Serf's", every=0.2)
    wait_until(told, "Serf has ours", every=0.5)


@pytest.mark.parametrize("key", [None, os.urandom(32)], ids=["plain", "encrypted"])
def test_three_go_one_serf_three_agents(
    go_peer: GoMaker, serf_agent: SerfMaker, agent: Make, key: bytes | None
) -> None:
    serf = serf_agent("s1", tags={"role": "web"}, key=key)
    peers = [go_peer(f"g{i}", "-verbose", *SERF_VERSIONS, key=key) for i in range(3)]
    delegates = [SerfDelegate() for _ in range(3)]
    agents = [agent("a0", delegate=delegates[0], config=OFTEN, join=serf.address, key=key, tags={"role": "worker"})]
    share(agents[0])
    peers[0].do("join", addrs=[serf.address])
    peers[1].do("join", addrs=[peers[0].address])
    peers[2].do("join", addrs=[address(agents[0])])
    wait_until(lambda: "a0" in peers[1].members(), "known there")
    for number in (1, 2):  # through Go, which knows nothing of what agents share
        seed, delegate = peers[number].address, delegates[number]
        agents.append(agent(f"a{number}", delegate=delegate, config=OFTEN, join=seed, key=key))
        assert lacking(agents[-1], ["a0"]) == []
        share(agents[-1])
    everybody = {"s1", "g0", "g1", "g2", "a0", "a1", "a2"}

    def views() -> list[set[str]]:
        return [
            *(set(peer.members()) for peer in peers),
            *(set(one.members().names) for one in agents),
            *({member.name for member in delegate.members()} for delegate in delegates),
            {name for name, status in serf.statuses().items() if status == "alive"},
        ]

    wait_until(lambda: views() == [everybody] * 10, "all see all", timeout=40)
    for one in agents:
        wait_until(lambda one=one: not lacking(one, ["a0", "a1", "a2"]), f"{one.name} has all", 5)
    all_share(agents)

    tags = serf.members()["a0"]["tags"]
    assert tags == {"role": "worker", "quic_port": str(agents[0].quic_port), "mycorrizal_boot": agents[0].boot.hex()}
    assert (tags_of(agents[1], "s1"), tags_of(agents[1], "a0")) == ({"role": "web"}, {"role": "worker"})
    agents[2].update_tags({"role": "boss"})
    wait_until(lambda: serf.members()["a2"]["tags"].get("role") == "boss", "new tags at Serf")
    wait_until(lambda: tags_of(agents[0], "a2") == {"role": "boss"}, "and here")
    assert agents[0].request("a2", "who") == "a2", "the port is still announced"

    events_both_ways(serf, delegates)
    agents[2].leave()
    agents[2].close()
    wait_until(lambda: serf.statuses()["a2"] == "left", "left")
    wait_until(lambda: lacking(agents[0], ["a2"]) == ["a2"], "its service is gone")
    failed = [line for line in list(serf.process.lines) if "EventMemberFailed" in line]
    assert [line for line in failed if "EventMemberFailed: a2" not in line] == []  # whose intent a Go node may swallow
    assert [complaints(serf), *(complaints(peer) for peer in peers)] == [[]] * 4
    heard = [data for peer in peers for kind in ("msg", "merge_state") for data in peer.data(kind)]
    assert heard, "Go heard Serf's own messages"
    assert [data for data in heard if ENVELOPE in data] == []


@pytest.mark.parametrize("key", [None, os.urandom(16)], ids=["plain", "encrypted"])
def test_without_serf_the_gossip_is_the_user_delegates(go_peer: GoMaker, agent: Make, key: bytes | None) -> None:
    peers = [go_peer(f"g{i}", "-verbose", "-quic-port", str(9000 + i), key=key) for i in range(2)]
    peers[1].do("join", addrs=[peers[0].address])
    recorders = [Loud(meta=b"mine", state=b"state of a0"), Loud(state=b"state of a1")]
    agents = [agent("a0", delegate=recorders[0], join=peers[0].address, key=key, tags={"role": "worker"})]
    share(agents[0])
    wait_until(lambda: "a0" in peers[1].members(), "known there")
    agents.append(agent("a1", delegate=recorders[1], join=peers[1].address, key=key))
    assert lacking(agents[1], ["a0"]) == []
    share(agents[1])
    wait_until(lambda: all({"g0", "g1", "a0", "a1"} == set(one.members()) for one in peers), "Go sees all")
    wait_until(lambda: not any(lacking(one, ["a0", "a1"]) for one in agents), "agents have all", 5)
    all_share(agents)

    meta = peers[1].members()["a0"]["meta"]
    assert int.from_bytes(meta[:2], "big") == agents[0].quic_port  # what memberlist's users read
    seen = {member.name: member for member in agents[1].members()}
    assert (seen["g0"].quic_port, seen["g0"].boot, dict(seen["a0"].tags)) == (9000, None, {"role": "worker"})

    like_ours = ENVELOPE + b"\x01 but the user's own"
    for data in (b"hello", like_ours):
        recorders[0].broadcasts += [data] * 30
        wait_until(lambda data=data: all(data in one.data("msg") for one in peers), "Go has ours")

        def heard(data: bytes = data + b" of g0") -> bool:  # sent twice, to random members, who do not pass it on
            peers[0].do("queue_broadcast", data=data)
            return all(data in one.messages for one in recorders)

        wait_until(heard, "we have Go's", every=0.2)
    peers[1].do("set_local_state", data=b"go's state")
    peers[1].do("join", addrs=[address(agents[1])])
    wait_until(lambda: (b"go's state", True) in recorders[1].states, "its state")
    assert set(peers[0].data("merge_state")) <= {b"", b"state of a0", b"state of a1", b"go's state"}
    assert b"state of a1" in peers[1].data("merge_state")

    sent = {b"hello", like_ours, b"hello of g0", like_ours + b" of g0"}
    assert {data for one in peers for data in one.data("msg")} <= sent
    assert [line for one in peers for line in complaints(one)] == []


def test_who_joins_through_go_has_everything_when_the_constructor_returns(go_peer: GoMaker, agent: Make) -> None:
    go = go_peer("go", "-verbose")
    first = agent("first", join=go.address)
    share(first)
    for number in range(200):
        first.settings[f"key {number}"] = "x" * number
    for number in range(10):
        late = agent(f"late{number}", join=go.address)
        assert lacking(late, ["first"]) == []
        assert len(late.settings) >= 201
        share(late)
        late.leave()
        late.close()
    wait_until(lambda: len(first.settings) == 211, "what they wrote stays")
    wait_until(lambda: [service.node for service in first.services.find("api")] == ["first"], "what they offered goes")
    assert complaints(go) == []


def test_a_label_is_gos_and_keeps_others_out(agent: Make, member: MemberMaker) -> None:
    key = os.urandom(32)
    node = member("py", config=Config.local(wire="msgpack", bind_addr="127.0.0.1", bind_port=0), label="blue",
                  secret_key=key)  # fmt: skip
    seed = f"127.0.0.1:{node.local_node.port}"
    one = agent("a0", join=seed, key=key, label="blue", cluster="name of ours")
    share(one)
    two = agent("a1", join=seed, key=key, label="blue", cluster="name of ours")
    assert lacking(two, ["a0"]) == []
    assert names(node) == {"py", "a0", "a1"}
    with pytest.raises(JoinError):
        agent("a2", join=seed, key=key, join_timeout=1)
