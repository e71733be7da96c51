"""Who is let in: the key, the cluster, the name; and keys that change while requests flow."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mycorrizal import ConfigError, DataConfig, MycorrizalError, OperationTimeout, PeerUnreachable
from mycorrizal._runtime.quic import endpoint
from mycorrizal._runtime.quic.trust.keys import KeyTrust
from mycorrizal._wire.frames import Close
from mycorrizal._wire.security import Keyring
from mycorrizal._wire.values import encode_value
from mycorrizal.dataplane import DataPlane
from tests._runtime.quic.trust.authority import CLIENT, Authority
from tests.keys import key_of
from tests.needs import lacks

from .conftest import until
from .planes import KEY, Task, introduce, mesh, spawn
from .raw_client import RawClient

OTHER = key_of("other")


@pytest.mark.parametrize(
    ("server", "client"),
    [
        ({"key": KEY}, {"key": None}),
        ({"key": None}, {"key": KEY}),
        ({"key": KEY}, {"key": OTHER}),
        ({"key": KEY, "cluster": "one"}, {"key": KEY, "cluster": "two"}),
        ({"key": KEY}, {"key": None, "insecure": True}),
        ({"key": None, "cluster": "one"}, {"key": None, "cluster": "two"}),
    ],
    ids=["no key", "a key too many", "another key", "another cluster", "insecure", "another cluster, insecure"],
)
def test_who_does_not_hold_the_key_gets_nothing_and_is_counted(server: dict[str, Any], client: dict[str, Any]) -> None:
    with DataPlane("server", **server) as b, DataPlane("client", peers={"server": b.address}, **client) as a:
        ran: list[object] = []
        b.on_request("echo")(ran.append)
        for call in (
            lambda: a.request("server", "echo", "secret"), lambda: a.send("server", "secret"),
            lambda: a.open_stream("server", "quiet"), lambda: a.connect(b.address),
        ):  # fmt: skip
            began = time.monotonic()
            with pytest.raises(PeerUnreachable, match="cluster=") as caught:
                call()
            assert time.monotonic() - began < 3
            assert not caught.value.indeterminate
        assert ran == []
        assert b.metrics()["inbox.messages"] == b.metrics()["peers"] == 0
        assert b.peers() == []
        until(lambda: b.metrics()["connections"] == 0)
        until(lambda: b.metrics().get("quic.handshake_failed", 0) >= 4)


def test_a_stranger_that_takes_any_certificate_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_UNPROVEN_SECONDS", 1.0)
    with DataPlane("server", key=KEY) as server:
        ran: list[object] = []
        server.on_request("echo")(ran.append)
        value = encode_value("secret").pack()
        with RawClient(server.address, "server", key=None) as raw:  # says nothing
            raw.handshake()
            began = time.monotonic()
            assert raw.ended() == Close.NOT_PROVED
            assert 0.5 < time.monotonic() - began < 3
            assert server.metrics()["quic.unproven_timeouts"] == 1
        with RawClient(server.address, "server", key=None) as raw:  # says something else
            raw.handshake()
            raw.say(raw.request(1, "echo", value))
            assert raw.ended() == Close.NOT_PROVED
            assert raw.frames == []
        with RawClient(server.address, "server", key=None) as raw:  # opens other streams
            raw.handshake()
            raw.quic.get_next_available_stream_id(is_unidirectional=True)
            raw.quic.send_stream_data(6, b"\0\1\4")
            assert raw.ended() == Close.NOT_PROVED
        with RawClient(server.address, "server", key=None) as raw:  # proves another key
            challenge = raw.handshake()
            raw.say(raw.proof(challenge, KeyTrust(Keyring(primary=OTHER), "raw", "default")))
            assert raw.ended() == Close.NOT_PROVED
        assert server.metrics()["quic.not_proved"] == server.metrics()["offences.not_proved"] == 3
        with RawClient(server.address, "server") as raw:  # the proof of another session
            challenge = raw.handshake()
            with RawClient(server.address, "server") as second:
                other = second.handshake()
                proof = second.proof(other)
            raw.say(proof)
            assert raw.ended() == Close.NOT_PROVED
        with RawClient(server.address, "server", key=None) as raw:  # says too much before it proves anything
            raw.handshake()
            raw.say(b"\0\0\x7f\0\2" + bytes(60_000))
            assert raw.ended() in (Close.NOT_PROVED, Close.PROTOCOL)
        assert ran == []
        assert server.metrics()["inbox.messages"] == server.metrics()["peers"] == 0
        until(lambda: server.metrics()["connections"] == 0)
        with RawClient(server.address, "server") as raw:
            raw.join().say(raw.request(1, "echo", value))  # and who proves it is served
            assert raw.pump(lambda: raw.frames)
        assert len(ran) == 1


def test_keys_are_rotated_while_requests_flow() -> None:
    old, new = KEY, OTHER
    rings = [Keyring(primary=old), Keyring(primary=old)]
    stop = threading.Event()
    with DataPlane("a", key=rings[0]) as a, DataPlane("b", key=rings[1]) as b:
        introduce(a, b)
        for plane in (a, b):
            plane.on_request("echo")(lambda request: request.value)
        made = [0]

        def flow(me: DataPlane, other: str) -> list[MycorrizalError]:
            failed = []
            while not stop.is_set():
                try:
                    assert me.request(other, "echo", made[0], timeout=10) is not None
                    made[0] += 1
                except MycorrizalError as error:
                    failed.append(error)
            return failed

        tasks = [Task(flow, *way) for way in ((a, "b"), (b, "a"), (a, "b"), (b, "a"))]

        def on() -> None:
            before = made[0]
            until(lambda: made[0] > before + 50)

        on()
        connections = b.metrics().get("quic.accepted", 0)
        for step in (Keyring.add, Keyring.use):
            for ring in rings:
                step(ring, new)
                on()
        assert b.metrics().get("quic.accepted", 0) == connections, "so far every connection has held"
        for ring in rings:
            ring.remove(old)
            on()
        stop.set()
        errors = [error for task in tasks for error in task.result()]
        # What was under way when its connection was closed may have run: it is not sent again, its caller is told.
        assert len(errors) <= 16
        assert all(isinstance(error, PeerUnreachable) and "key" in str(error) for error in errors), errors
        assert a.metrics().get("quic.key_removed", 0) + b.metrics().get("quic.key_removed", 0) >= 1
        assert a.request("b", "echo", "new") == b.request("a", "echo", "new") == "new"
        with DataPlane("late", key=old, peers={"a": a.address}) as late, pytest.raises(PeerUnreachable):
            late.request("a", "echo", 1)
        with DataPlane("late", key=new, peers={"a": a.address}) as late:
            assert late.request("a", "echo", 1) == 1


def test_removing_a_key_closes_what_was_proved_with_it() -> None:
    ring = Keyring(keys=[KEY], primary=OTHER)
    with DataPlane("server", key=ring) as server:
        release = threading.Event()
        server.on_request("hang")(lambda request: release.wait(20))
        with (
            DataPlane("old", key=OTHER, peers={"server": server.address}) as old,
            DataPlane("new", key=Keyring(keys=[OTHER], primary=KEY), peers={"server": server.address}) as new,
        ):
            calls = [plane.request_async("server", "hang", timeout=None) for plane in (old, new)]
            until(lambda: server.metrics()["handlers.busy"] == 2)
            ring.use(KEY)
            ring.remove(OTHER)
            error = calls[0].exception(5)
            assert isinstance(error, PeerUnreachable) and error.indeterminate
            assert "key" in str(error)
            assert server.metrics()["quic.key_removed"] == 1
            with pytest.raises(PeerUnreachable):
                old.send("server", 1)
            release.set()
            assert calls[1].result(10) is True
            assert [peer.name for peer in server.peers() if peer.state == "connected"] == ["new"]


def test_a_second_process_with_a_taken_name_is_refused_and_the_first_goes_on() -> None:
    with mesh("a", "b") as (a, b), spawn("""
        second = DataPlane("a", key=KEY, peers={"b": ("127.0.0.1", int(hear()))})
        for call in (lambda: second.request("b", "who", timeout=10), lambda: second.send("b", "stolen", timeout=10)):
            began = time.monotonic()
            try:
                say("passed", call())
            except PeerUnreachable as error:
                say("refused", time.monotonic() - began < 5, "name" in str(error))
    """) as child:  # fmt: skip
        b.on_request("who")(lambda request: request.sender)
        stop = threading.Event()

        def flow() -> int:
            made = 0
            while not stop.is_set():
                assert a.request("b", "who", timeout=5) == "a"
                made += 1
            return made

        first = Task(flow)
        until(lambda: a.peers()[0].state == "connected")
        child.tell(b.port)
        assert child.read() == "refused True True"
        assert child.read() == "refused True True"
        stop.set()
        assert first.result() > 10
        assert b.metrics()["quic.name_conflicts"] >= 1
        assert b.metrics()["inbox.messages"] == 0
        b.send("a", "to the first")
        assert a.receive(10).value == "to the first"


def test_a_name_whose_holder_is_gone_is_free_again() -> None:
    """It was killed, and what it left behind has not timed out yet; its successor listens elsewhere."""
    script = """
        plane = DataPlane("worker", key=KEY, peers={"b": ("127.0.0.1", int(hear()))})
        say(plane.request("b", "pid", os.getpid(), timeout=10))
        hear()
    """
    with mesh("b", config=DataConfig(silence_timeout=30)) as (b,), spawn(script) as first, spawn(script) as second:
        b.on_request("pid")(lambda request: request.value)
        assert int(first.ask(b.port)) == first.process.pid
        first.process.kill()
        began = time.monotonic()
        assert int(second.ask(b.port)) == second.process.pid
        assert time.monotonic() - began < 6


def test_a_node_that_dials_its_own_address_or_a_wrong_one_is_told() -> None:
    with mesh("a", "b") as (a, b):
        a.add_peer("someone", b.address)
        with pytest.raises(PeerUnreachable) as caught:
            a.request("someone", "x")
        assert not isinstance(caught.value, OperationTimeout)
        assert a.connect(b.address) == "b"
        a.add_peer("me", a.address)
        with pytest.raises(PeerUnreachable):
            a.request("me", "x")
        b.on_request("x")(lambda request: 1)
        assert a.request("b", "x") == 1


# -- what passes by on the wire -------------------------------------------------------------------

MARKER = b"payload-marker-that-nobody-may-read"


@pytest.fixture
def tshark(need_peer: Callable[[str], str]) -> str:
    return need_peer("tshark")


def test_nothing_of_the_payload_is_in_clear_on_the_wire(tshark: str, tmp_path: Path) -> None:
    file = tmp_path / "session.pcapng"
    with (
        mesh("unmistakable-alice", "unmistakable-bob") as (a, b),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain,
    ):
        b.on_request("unmistakable-handler")(lambda request: request.value)
        capture = subprocess.Popen(
            [tshark, "-i", "lo", "-f", f"udp port {a.port} or udp port {b.port} or udp port 9", "-w", str(file), "-q"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert capture.stderr is not None
            line = capture.stderr.readline()
            while "Capturing on" not in line:
                assert line or capture.poll() is None, "tshark has ended"
                if "permission" in line.lower():
                    lacks(f"no permission to capture; run the tests as root: {line}")
                line = capture.stderr.readline()

            def captured(marker: bytes) -> bool:
                plain.sendto(marker, ("127.0.0.1", 9))  # until the capture has really begun, and to see its end
                return file.exists() and marker in file.read_bytes()

            until(lambda: captured(b"control-before"), 20)
            assert a.request("unmistakable-bob", "unmistakable-handler", MARKER.decode()) == MARKER.decode()
            assert b.request_all([], "x") == {}
            a.send("unmistakable-bob", {"key": MARKER * 10})
            b.send("unmistakable-alice", MARKER * 20_000)
            assert len(a.receive(10).value) > len(b.receive(10).value)
            until(lambda: captured(b"control-after"), 20)
        finally:
            capture.terminate()
            capture.communicate(timeout=20)
    data = file.read_bytes()
    assert len(data) > len(MARKER) * 20_000
    for secret in (MARKER, MARKER[:12], b"unmistakable", KEY, b"mycorrizal client proof"):
        assert secret not in data
    found = subprocess.run(
        [tshark, "-r", str(file), "-d", f"udp.port=={b.port},quic",
         "-Y", "quic.long.packet_type == 0 && tls.handshake.type == 1",
         "-T", "fields", "-e", "tls.handshake.extensions_server_name", "-e", "tls.handshake.extensions_alpn_str"],
        capture_output=True, text=True, check=True, timeout=30,
    ).stdout.split()  # fmt: skip
    # What a QUIC Initial shows to anyone: that it is us, and a name that is hashed.
    assert "mycorrizal/1" in found
    assert not any("unmistakable" in word for word in found)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("thief", [{"names": ("*.example.com",)}, {"uses": (CLIENT,)}], ids=["wildcard", "no server"])
def test_server_that_tls_takes_and_we_do_not_hears_nothing(tmp_path: Path, thief: dict[str, Any]) -> None:
    root, name = Authority(tmp_path), "b.example.com"
    alice, bob = ([str(path) for path in root.issue(node)] for node in ("alice", name))
    stolen = root.issue(name, **thief)
    with (
        DataPlane(name, certificates=(bob[0], bob[1], bob[2])) as b,
        DataPlane("alice", certificates=(alice[0], alice[1], alice[2]), peers={name: b.address}) as a,
    ):
        heard: list[object] = []
        b.on_request("tell")(lambda request: heard.append(request.value))
        a.request(name, "tell", "to the real one")
        a.remove_peer(name)
        identity: Any = b._started.trust
        private = load_pem_private_key(stolen.keyfile.read_bytes(), None)
        chain = x509.load_pem_x509_certificates(stolen.certfile.read_bytes())
        identity._identity = type(identity._identity)(private, chain, identity._identity.roots)
        a.add_peer(name, b.address)
        with pytest.raises(PeerUnreachable):
            a.request(name, "tell", "secret")
        with pytest.raises(PeerUnreachable):
            a.send(name, "secret")
        assert heard == ["to the real one"] and b.metrics()["inbox.messages"] == 0
        assert a.metrics()["quic.not_proved"] == 2


def test_with_certificates_an_address_alone_is_refused_and_nothing_else_happens(tmp_path: Path) -> None:
    root = Authority(tmp_path)
    papers = {name: tuple(str(path) for path in root.issue(name)) for name in "ab"}
    with (
        DataPlane("b", certificates=papers["b"]) as b,
        DataPlane("a", certificates=papers["a"], peers={"b": b.address}) as a,
    ):
        with pytest.raises(ConfigError):
            a.connect(b.address)
        a.send("b", "still here")
        assert b.receive(timeout=5).value == "still here"
