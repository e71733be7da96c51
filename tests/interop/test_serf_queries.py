"""Queries between ``serf agent`` and Python members: who gets them, who answers, and whose a name is."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import Agent, ConfigError, Memberlist, SerfDelegate, SerfQuery
from mycorrizal._runtime.host.keyringfile import KeyringFile
from tests.keys import key_of

from .peers import SerfAgent, wait_until
from .test_serf import MemberMaker, SerfMaker, address, serf_member

Cluster = tuple[list[SerfAgent], list[SerfDelegate], list[Memberlist]]
Make = Callable[..., Cluster]


@pytest.fixture
def cluster(serf_agent: SerfMaker, member: MemberMaker) -> Make:
    """Start so many agents and Python members, who all see all."""

    def make(agents: int, pythons: int, key: bytes | None = None, **options: object) -> Cluster:
        # With the local profile agents gossip each query twice, and miss one of five members now and then.
        serfs = [serf_agent(f"s{number}", key=key, tags={"role": "web"}, profile="lan") for number in range(agents)]
        delegates = [SerfDelegate(tags={"role": f"py{number}"}, **options) for number in range(pythons)]  # type: ignore[arg-type]
        nodes = []
        for number, serf in enumerate(delegates):
            nodes.append(serf_member(member, f"p{number}", serf, secret_key=key))
            nodes[-1].join([serfs[number % agents].address])
        for agent in serfs[1:]:
            agent.join(serfs[0].address)
        everybody = agents + pythons
        wait_until(lambda: all(len(one.statuses()) == everybody for one in serfs), "agents see all")
        wait_until(lambda: all(node.num_members() == everybody for node in nodes), "Python sees all")
        return serfs, delegates, nodes

    return make


@pytest.mark.parametrize(
    ("agents", "pythons", "key"), [(1, 4, None), (3, 4, key_of("queries")), (4, 1, None)], ids=["1+4", "3+4", "4+1"]
)
def test_a_query_reaches_everybody(cluster: Make, agents: int, pythons: int, key: bytes | None) -> None:
    serfs, delegates, _ = cluster(agents, pythons, key)
    for number, serf in enumerate(delegates):
        serf.on_query("load")(lambda query, number=number: query.payload + b"%d" % number)
    everybody = sorted([f"s{number}" for number in range(agents)] + [f"p{number}" for number in range(pythons)])
    for _ in range(5):
        acks, answers = serfs[0].query("load", "x", timeout="2s")
        assert sorted(set(acks)) == everybody
        assert answers == {f"p{number}": f"x{number}" for number in range(pythons)}
    reached = serfs[0].reachability()
    assert reached.returncode == 0, reached.stdout
    assert [serf.metrics()["refused"] + serf.metrics()["unknown_type"] for serf in delegates] == [0] * pythons


def test_keys_are_changed_on_python_members_too(cluster: Make) -> None:
    old, new = os.urandom(32), os.urandom(32)
    one, two = (base64.b64encode(key).decode() for key in (old, new))
    serfs, _, nodes = cluster(2, 3, old)
    for args, keys in (
        (("-install", two), {old, new}), (("-use", two), {old, new}), (("-remove", one), {new}), (("-list",), {new}),
    ):  # fmt: skip
        done = serfs[0].keys(*args)
        assert done.returncode == 0, done.stdout
        assert [set(node.keyring.keys()) for node in nodes] == [keys] * 3
    assert two in done.stdout and "[5/5]" in done.stdout, done.stdout
    assert [node.keyring.primary for node in nodes] == [new] * 3
    reached = serfs[1].reachability()
    assert reached.returncode == 0, reached.stdout


def test_an_agents_keys_are_changed_on_both_of_its_planes(serf_agent: SerfMaker, tmp_path: Path) -> None:
    old, new = os.urandom(32), os.urandom(32)
    path = str(tmp_path / "keyring")
    seed = serf_agent("s0", key=old)
    options: dict[str, Any] = {"bind": "127.0.0.1", "port": 0, "control": False}
    with Agent("p0", join=[seed.address], key=old, delegate=SerfDelegate(keyring_file=path), **options) as agent:
        for change, key, keys in (("install", new, {old, new}), ("use", new, {old, new}), ("remove", old, {new})):
            done = seed.keys(f"-{change}", base64.b64encode(key).decode())
            assert done.returncode == 0, done.stdout
            assert set(agent.keys.list()) == set(agent._running.members.keyring.keys()) == keys
        wait_until(lambda: KeyringFile(path).load() == (new,), "kept")
    with Agent("p1", join=[seed.address], key=old, delegate=SerfDelegate(keyring_file=path), **options) as agent:
        assert agent.keys.list() == agent._running.members.keyring.keys() == (new,), "the file counts"
    with pytest.raises(ConfigError, match="does not understand"):
        Agent("p2", wire="cbor", key=old, delegate=SerfDelegate(), **options)


def test_a_member_that_does_not_let_serf_change_keys_says_so(cluster: Make) -> None:
    key = os.urandom(32)
    serfs, _, nodes = cluster(2, 1, key, change_keys=False)
    done = serfs[0].keys("-install", base64.b64encode(os.urandom(32)).decode())
    assert done.returncode == 1
    assert "change_keys=False" in done.stdout, done.stdout
    assert nodes[0].keyring.keys() == (key,)


def test_a_keyring_file_is_the_same_for_both(serf_agent: SerfMaker, member: MemberMaker, tmp_path: Path) -> None:
    path, key, new = tmp_path / "keyring", os.urandom(32), os.urandom(32)
    serf = SerfDelegate(keyring_file=str(path))
    node = serf_member(member, "p0", serf, secret_key=key)
    agent = serf_agent("s0", keyring_file=str(path))
    node.join([agent.address])
    assert agent.keys("-install", base64.b64encode(new).decode()).returncode == 0
    assert set(KeyringFile(path).load()) == set(node.keyring.keys()) == {key, new}
    assert SerfDelegate(keyring_file=str(path)).config().secret_key == key


def test_filters_and_relays(cluster: Make) -> None:
    serfs, delegates, _ = cluster(2, 4)
    for serf in delegates:
        serf.on_query("who")(lambda query: query.source.encode())
    acks, answers = serfs[0].query("who", timeout="1s")
    assert set(answers) == {"p0", "p1", "p2", "p3"}
    assert set(answers.values()) == {"s0"}
    options = ("-node=p1", "-node=s1", "-node=p2")
    acks, answers = serfs[0].query("-relay-factor=3", *options, "who", timeout="1s")
    assert set(acks) == {"p1", "p2", "s1"}
    assert set(answers) == {"p1", "p2"}
    acks, _ = serfs[1].query("-tag", "role=^py[0-2]$", "-node=p2", "-node=p3", "who", timeout="1s")
    assert set(acks) == {"p2"}


def test_python_asks(serf_agent: SerfMaker, cluster: Make) -> None:
    serfs, delegates, _ = cluster(1, 2)
    answering = serf_agent("s9", handler="query:load=echo answer", tags={"role": "db"})
    answering.join(serfs[0].address)
    asked: list[SerfQuery] = []

    @delegates[1].on_query("load")
    def load(query: SerfQuery) -> bytes:
        asked.append(query)
        return b"from python"

    wait_until(lambda: len(delegates[0].members()) == 4, "all are members")
    results = delegates[0].query("load", b"now", timeout=2)
    assert results == {"s9": b"answer\n", "p1": b"from python"}
    assert sorted(results.errors) == ["p0", "s0"], "they have no handler"
    assert all("did not answer" in str(error) for error in results.errors.values()), results.errors
    assert [(query.name, query.payload, query.source) for query in asked] == [("load", b"now", "p0")]
    assert delegates[0].query("load", tags={"role": "d[bc]"}, nodes=["s9", "s0"], timeout=5) == {"s9": b"answer\n"}
    everybody = delegates[0].query("_serf_ping", timeout=5, relay_factor=2)
    assert (set(everybody), everybody.errors) == ({"p0", "p1", "s0", "s9"}, {})


@pytest.mark.parametrize("agents", [2, 3])
def test_a_newcomer_with_an_agents_name_ends_and_the_rightful_agent_stays(
    serf_agent: SerfMaker, cluster: Make, agents: int
) -> None:
    serfs, delegates, _ = cluster(agents, 4)
    newcomer = serf_agent("s0")
    try:
        newcomer.join(serfs[1].address)
    except AssertionError:
        pass  # it may end while it joins
    wait_until(lambda: not newcomer.process.running, "the newcomer ends", timeout=60)
    assert all(agent.process.running for agent in serfs)
    assert serfs[0].logged("minority in name conflict resolution") == 0
    assert next(m.node for m in delegates[0].members() if m.name == "s0").port == serfs[0].port  # type: ignore[union-attr]


def test_a_python_newcomer_with_a_members_name_ends(cluster: Make, member: MemberMaker) -> None:
    serfs, _, nodes = cluster(2, 2)
    newcomer = serf_member(member, "p0", SerfDelegate())
    newcomer.join([serfs[0].address, address(nodes[1])])
    wait_until(lambda: newcomer._running.stopped, "the newcomer ends", timeout=60)
    assert serfs[0].members()["p0"]["addr"] == address(nodes[0])
    assert not nodes[0]._running.stopped
