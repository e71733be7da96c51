"""What somebody sees who records all packets of two agents: docs/security.md says what, and that it is no more."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mycorrizal import DataConfig
from tests.needs import lacks

from .agents import QUICK, Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until

KEY = bytes(range(32))
ALL_PROTOCOLS = 3  # ETH_P_ALL
CLUSTER = "unmistakable-cluster"
SECRET = b"secret-marker"


class Tap:
    """Everything on loopback from or to some ports, as it stands on the wire."""

    def __init__(self, sock: socket.socket) -> None:
        self.ports: frozenset[int] = frozenset()
        self.packets: set[bytes] = set()
        self._sock = sock
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                frame = self._sock.recv(1 << 17)
            except TimeoutError:
                continue
            ip = frame[14:]
            transport = ip[4 * (ip[0] & 15) :]
            ports = {int.from_bytes(transport[:2], "big"), int.from_bytes(transport[2:4], "big")}
            if not self.ports or ports & self.ports:
                self.packets.add(transport[4:])

    def has(self, text: bytes) -> bool:
        return any(text in packet for packet in list(self.packets))

    def end(self) -> None:
        self._over.set()
        self._thread.join(10)


@pytest.fixture
def tap() -> Iterator[Tap]:
    if not hasattr(socket, "AF_PACKET"):
        lacks("no packet sockets here; run the tests on Linux")
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    except PermissionError:
        lacks("no permission to record packets; run the tests as root")
    with sock:
        sock.bind(("lo", ALL_PROTOCOLS))
        sock.settimeout(0.1)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUFFORCE", 33), 64 << 20)
        one = Tap(sock)
        try:
            yield one
        finally:
            one.end()


def talk(agents: Make, tap: Tap, settings: dict[str, Any]) -> None:  # noqa: F811
    """Let two agents say something over every way there is, uncompressed, so that nothing hides behind that."""
    config = QUICK.replace(push_pull_interval=0.3, enable_compression=False)
    ways = DataConfig(same_host=False)  # a socket of the host is no wire
    common = {"cluster": CLUSTER, "config": config, "data_config": ways, "bind": "127.0.0.1", **settings}
    tags = {"tag": SECRET.decode()}
    alice, bob = agents("secret-marker-alice", tags=tags, **common), agents("secret-marker-bob", tags=tags, **common)
    tap.ports = frozenset((alice.address[1], alice.quic_port, bob.address[1], bob.quic_port))
    for agent in (alice, bob):
        agent.wait_for(2, timeout=20)
    events = bob.events()
    bob.on_request("secret-marker-handler")(lambda request: request.value)
    alice.settings["secret-marker-key"] = SECRET.decode()
    alice.services.register("secret-marker-service", port=80)
    alice.broadcast("secret-marker-topic", SECRET.decode())
    alice.broadcast("secret-marker-topic", SECRET * 5000)
    alice.send(bob.name, {"key": SECRET})
    alice.send(bob.name, SECRET * 50_000)
    assert alice.request(bob.name, "secret-marker-handler", SECRET, timeout=10) == SECRET
    assert bob.receive(10).value and bob.receive(10).value
    alice.cache("secret-marker-cache").set("secret-marker", SECRET)
    heard: list[Any] = []
    for event in events:
        heard += [event] if getattr(event, "topic", "") == "secret-marker-topic" else []
        if len(heard) == 2:
            break
    until(lambda: bob.settings.get("secret-marker-key") and bob.services.find("secret-marker-service"))
    alice.update_tags({**tags, "more": "x"})
    until(lambda: any("more" in member.tags for member in bob.members()))


@pytest.mark.parametrize(
    "settings",
    [{"key": KEY}, {}, {"key": KEY, "wire": "msgpack", "label": CLUSTER}],
    ids=["a key", "the key of the host", "msgpack"],
)  # fmt: skip
def test_nothing_that_agents_say_is_in_clear(agents: Make, tap: Tap, settings: dict[str, Any]) -> None:  # noqa: F811
    talk(agents, tap, settings)
    until(lambda: tap.has(CLUSTER.encode()))  # this is seen, and the page says so
    until(lambda: sum(map(len, list(tap.packets))) > 50_000 * len(SECRET))  # the large values were recorded too
    assert not tap.has(SECRET)
    assert not tap.has(KEY)


def test_without_a_key_the_recorder_reads_gossip(agents: Make, tap: Tap) -> None:  # noqa: F811
    """The same look finds what is there; and the data plane is encrypted even so."""
    talk(agents, tap, {"insecure": True})
    until(lambda: tap.has(b"secret-marker-alice") and tap.has(b"secret-marker-bob"))
    until(lambda: tap.has(b"secret-marker-topic") and tap.has(b"secret-marker-key"))
    assert not tap.has(b"secret-marker-handler")
