"""Another program at a member's address, which sends back what it is sent: nobody was joined. And seeds with a name."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mycorrizal import (
    Agent,
    DataPlane,
    JoinError,
    JoinResult,
    Memberlist,
    MycorrizalError,
    PeerUnreachable,
    RemoteProtocolError,
)
from mycorrizal._runtime.host.rundir import RuntimeDir
from mycorrizal.discovery import AgentRecord

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import address_of, fast, names, until

KEY = bytes(range(32))


class Mirror:
    """Sends back what comes, on TCP and on UDP of one port.

    Args:
        label: what it removes from the front of a stream, as only who dials sends it.
    """

    def __init__(self, label: str = "") -> None:
        self._head = bytes((0xF4, len(label))) + label.encode() if label else b""
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.address = self._tcp.getsockname()
        self.text = "{}:{}".format(*self.address)
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(self.address)
        self.streams = self.datagrams = 0
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._accept, self._reflect)]
        for thread in self._threads:
            thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._tcp.accept()
                self.streams += 1
                threading.Thread(target=self._echo, args=(peer,), daemon=True).start()

    def _echo(self, peer: socket.socket) -> None:
        head = self._head
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(65536):
                peer.sendall(data.removeprefix(head))
                head = b""

    def _reflect(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, sender = self._udp.recvfrom(65536)
                if not data:
                    return
                self.datagrams += 1
                self._udp.sendto(data, sender)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._tcp.shutdown(socket.SHUT_RDWR)
        self._udp.sendto(b"", self.address)
        for thread in self._threads:
            thread.join(5)
        self._tcp.close()
        self._udp.close()


@contextlib.contextmanager
def mirror(label: str = "") -> Iterator[Mirror]:
    made = Mirror(label)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("label", "options", "reason"),
    [
        ("", {"key": KEY}, "what was sent came back"),
        ("mirrored", {"key": KEY}, "says only what it was told"),
        ("mirrored", {"insecure": True}, "says only what it was told"),
        ("", {"key": KEY, "wire": "msgpack"}, "says only what it was told"),
        ("", {"insecure": True, "wire": "msgpack"}, "says only what it was told"),
    ],
    ids=["cbor, echo", "cbor", "cbor keyless", "msgpack", "msgpack keyless"],
)
def test_an_agent_does_not_start_alone_beside_a_mirror(
    runtime_dir: str, label: str, options: dict[str, Any], reason: str  # noqa: F811
) -> None:
    with mirror(label) as seed:
        with pytest.raises(JoinError) as caught:
            Agent("alice", cluster="mirrored", bind="127.0.0.1", join=[seed.text], join_timeout=2, **options)
        assert list(caught.value.failures) == [seed.text]
        failure = caught.value.failures[seed.text]
        assert isinstance(failure, RemoteProtocolError)
        assert reason in str(failure)
        assert seed.streams
        with pytest.raises(JoinError, match="came back"):
            Agent("alice", cluster="mirrored", bind="127.0.0.1", join=[f"bob/{seed.text}"], join_timeout=2, **options)


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
@pytest.mark.parametrize("key", [None, KEY[:16]], ids=["keyless", "keyed"])
def test_a_member_joins_no_mirror_and_gives_up_one_in_a_members_place(wire: Any, key: bytes | None) -> None:
    with mirror() as seed, Memberlist(fast("alice", wire=wire, secret_key=key)) as alice:
        with pytest.raises(JoinError, match="says only what it was told"):
            alice.join([seed.text])
        there: dict[str, Any] = {"advertise_addr": "127.0.0.1", "advertise_port": seed.address[1]}
        bob = Memberlist(fast("bob", wire=wire, secret_key=key, **there))
        try:
            bob.join([address_of(alice)])
            assert names(alice) == {"alice", "bob"}
        finally:
            bob.shutdown()
        until(lambda: names(alice) == {"alice"})
        assert seed.datagrams


def test_another_address_of_this_agents_own_is_a_fine_seed(agents: Make) -> None:  # noqa: F811
    with socket.socket() as free:
        free.bind(("0.0.0.0", 0))
        port = free.getsockname()[1]
    own = [f"127.0.0.1:{port}", f"127.0.0.7:{port}", f"alice/127.0.0.8:{port}"]
    alice = agents("alice", key=KEY, bind="0.0.0.0", port=port, advertise="127.0.0.1", join=own, join_timeout=5)
    assert alice.members().names == ["alice"]
    with Memberlist(fast("one", bind_addr="0.0.0.0", advertise_addr="127.0.0.1")) as one:
        assert one.join([f"127.0.0.9:{one.config.bind_port}"]) == JoinResult(1, {}, itself=True)


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
def test_a_seed_must_have_the_name_it_is_given(agents: Make, wire: str) -> None:  # noqa: F811
    common: dict[str, Any] = {"key": KEY, "bind": "127.0.0.1", "wire": wire}
    bob = agents("bob", **common)
    seed = "{}:{}".format(*bob.address)
    with pytest.raises(JoinError, match="is not 'dave'") as caught:
        Agent("carol", join=[f"dave/{seed}"], join_timeout=2, **common)
    assert list(caught.value.failures) == [f"dave/{seed}"]
    assert isinstance(caught.value.failures[f"dave/{seed}"], PeerUnreachable)
    assert bob.members().names == ["bob"], "who is not meant is told nothing"
    carol = agents("carol", join=[f"bob/{seed}"], **common)
    assert carol.members().names == ["bob", "carol"]
    with pytest.raises(JoinError, match="is not 'dave'"):
        carol.join(f"dave/{seed}", timeout=5)
    carol.join(f"bob/{seed}", timeout=5)


def test_what_discovery_names_must_be_there(agents: Make) -> None:  # noqa: F811
    common: dict[str, Any] = {"key": KEY, "bind": "127.0.0.1"}
    bob = agents("bob", **common)
    host, port = bob.address
    with RuntimeDir().claim("default", "ghost") as claim:  # an agent that ended, and whose port bob has now
        claim.publish(AgentRecord("ghost", "default", 1, host, port))
        carol = agents("carol", join=["local://"], **common)
        assert carol.members().names == ["bob", "carol"]
        with pytest.raises(JoinError, match="is not 'ghost'"):
            carol.join(f"ghost/{host}:{port}", timeout=5)


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
def test_a_memberlist_asks_for_the_name_too(wire: Any) -> None:
    with Memberlist(fast("alice", wire=wire)) as alice, Memberlist(fast("bob", wire=wire)) as bob:
        with pytest.raises(JoinError, match="is not 'carol'"):
            alice.join([f"carol/{address_of(bob)}"])
        assert (names(alice), names(bob)) == ({"alice"}, {"bob"})
        assert alice.join([f"bob/{address_of(bob)}", f"carol/{address_of(bob)}"]).reached == 1
        assert names(alice) == {"alice", "bob"}


@pytest.mark.parametrize("options", [{"key": KEY}, {}], ids=["keyed", "keyless"])
def test_a_data_plane_does_not_take_itself_for_a_peer(options: dict[str, Any]) -> None:
    with mirror() as other, DataPlane("alice", **options) as plane:
        with pytest.raises(MycorrizalError):
            plane.connect(other.address, timeout=2)
        plane.add_peer("bob", other.address)
        with pytest.raises(MycorrizalError):
            plane.send("bob", 1, timeout=2)
        assert other.datagrams > 1
        assert [peer.connections for peer in plane.peers() if peer.name == "alice"] == []
