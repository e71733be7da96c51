"""The same-host carrier between two planes of this process: taken where it can be, and QUIC wherever it cannot."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from mycorrizal import DataConfig, DataPlane, Keyring, OperationTimeout, PeerUnreachable
from mycorrizal._data.link import Link
from mycorrizal._runtime.local import place
from mycorrizal._runtime.local.carrier import HostCarrier, Neighbour
from mycorrizal._runtime.local.connection import HostConnection
from mycorrizal._runtime.threads import shortage
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._wire.frames import Close
from mycorrizal._wire.pieces import Hello, Piece, PieceReader, code_piece, piece_head
from tests._runtime.data.couple import KEY, SECONDS, Task, until
from tests.keys import key_of

from .meeting import folder, meet, open_carrier, ways


class Couple:
    """alice and bob, who know each other's addresses and sockets."""

    def __init__(self, path: str, alice: DataPlane, bob: DataPlane) -> None:
        self.path = path
        self.alice, self.bob = alice, bob
        alice.add_peer("bob", bob.address)
        bob.add_peer("alice", alice.address)
        bob.on_request("echo")(lambda request: request.value)
        self.known = meet(path, alice, bob)
        until(lambda: alice._started.host and bob._started.host)

    def echo(self, value: Any = 1) -> Any:
        return self.alice.request("bob", "echo", value, timeout=SECONDS)

    def count(self, name: str) -> int:
        return self.alice.metrics().get(name, 0)

    def conn(self) -> HostConnection:
        """Return alice's end of the connection by socket."""
        core = self.alice._started
        (found,) = core.ask(lambda: [conn for conn in core.machine.links if isinstance(conn, HostConnection)], "test")
        assert isinstance(found, HostConnection)
        return found


@pytest.fixture
def couple() -> Iterator[Couple]:
    with folder() as path, DataPlane("alice", key=KEY) as alice, DataPlane("bob", key=KEY) as bob:
        yield Couple(path, alice, bob)


def test_peers_show_the_carrier_and_why(couple: Couple) -> None:
    assert couple.echo("x") == "x"
    for plane, dialled in ((couple.alice, True), (couple.bob, False)):
        (peer,) = plane.peers()
        assert (peer.carrier, peer.why, peer.dialled) == ("host", "the same host", dialled)
        assert peer.rtt > 0 and peer.mtu == 0 and peer.path["bytes_sent"] > 100
    assert couple.bob.peers()[0].address == couple.alice.address
    assert couple.count("host.dialled") == 1 and couple.count("quic.accepted") == 0


def test_all_that_travels_by_quic_travels_here(couple: Couple) -> None:
    alice, bob = couple.alice, couple.bob
    large = os.urandom(5 << 20)
    assert couple.echo(large) == large
    alice.send("bob", [1, large], timeout=SECONDS)
    assert bob.receive(SECONDS).value == [1, large]
    bob.send("alice", "back", timeout=SECONDS)  # by the same connection
    assert alice.receive(SECONDS).sender == "bob"

    @bob.on_stream("upper")
    def upper(stream: Any) -> None:
        while data := stream.read(1 << 16):
            stream.write(data.upper())

    with alice.open_stream("bob", "upper") as stream:
        stream.timeout = SECONDS
        writer = Task(partial(write, stream, b"a" * (9 << 20)))
        assert len(stream.read()) == 9 << 20
        writer.result()
    assert ways(alice) == {"bob": "host"} and ways(bob) == {"alice": "host"}
    assert couple.count("quic.accepted") == 0


def write(stream: Any, data: bytes) -> None:
    stream.write(data)
    stream.close_write()


def test_a_slow_reader_bounds_what_waits(couple: Couple) -> None:
    gate = threading.Event()

    @couple.bob.on_stream("slow")
    def slow(stream: Any) -> None:
        gate.wait(SECONDS)
        while stream.read(1 << 20):
            pass

    with couple.alice.open_stream("bob", "slow") as stream:
        stream.timeout = SECONDS
        writer = Task(lambda: stream.write(bytes(64 << 20)))
        core = couple.alice._started
        until(lambda: couple.conn().stats()["bytes_sent"] >= 200 << 10)
        assert core.ask(lambda: couple_backlog(core), "test") <= 4 << 20
        assert couple.conn().stats()["bytes_sent"] <= 16 << 20
        gate.set()
        writer.result()


def couple_backlog(core: Any) -> int:
    return sum(conn.outlet.backlog() for conn in core.machine.links)


# -- where it cannot be ------------------------------------------------------------------------


def test_who_has_no_record_is_reached_by_quic(couple: Couple) -> None:
    del couple.known["bob"]
    assert couple.echo() == 1
    (peer,) = couple.alice.peers()
    assert (peer.carrier, peer.why) == ("quic", "no record of it on this host")
    assert couple.bob.peers()[0].why == "the peer dialled it"
    assert couple.count("host.fallbacks") == 0


def test_a_plane_without_a_record_stays_on_quic() -> None:
    with DataPlane("alice", key=KEY) as alice, DataPlane("bob", key=KEY) as bob:
        alice.add_peer("bob", bob.address)
        alice.send("bob", 1, timeout=SECONDS)
        assert [(peer.carrier, peer.why) for peer in alice.peers()] == [("quic", "this plane has no runtime record")]


def symlink(path: str) -> None:
    os.rename(path, path + ".real")
    os.symlink(path + ".real", path)


def stale(path: str) -> None:
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def plain(path: str) -> None:
    os.unlink(path)
    with open(path, "wb"):
        pass


@pytest.mark.parametrize("spoil", [os.unlink, symlink, stale, plain])
def test_what_is_no_living_socket_is_not_waited_for(couple: Couple, spoil: Callable[[str], None]) -> None:
    spoil(couple.known["bob"].path)
    assert couple.echo() == 1
    (peer,) = couple.alice.peers()
    assert peer.carrier == "quic" and "socket" in peer.why
    assert couple.count("host.fallbacks") == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pid": 1}, "has taken its socket's place"),
        ({"boot": b"another."}, "another process than the one in the record"),
    ],
)
def test_another_process_than_the_record_says_gets_nothing(couple: Couple, change: dict[str, Any], said: str) -> None:
    couple.known["bob"] = couple.known["bob"]._replace(**change)
    assert couple.echo() == 1
    (peer,) = couple.alice.peers()
    assert peer.carrier == "quic" and said in peer.why
    assert couple.count("host.fallbacks") == 1


def test_another_place_is_refused(couple: Couple) -> None:
    with DataPlane("carol", key=KEY) as carol:
        carol.add_peer("bob", couple.bob.address)
        open_carrier(carol, couple.path + "/c", lambda name: couple.known["bob"], where="another network")
        assert carol.request("bob", "echo", 1, timeout=SECONDS) == 1
        assert ways(carol) == {"bob": "quic"}
        assert couple.bob.metrics()["host.errors"] == 1


def test_another_user_is_refused(couple: Couple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert couple.echo() == 1
    assert ways(couple.alice) == {"bob": "quic"} and couple.count("host.strangers") == 1
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        sock.connect(couple.known["bob"].path)
        assert sock.recv(1) == b""
    assert couple.bob.metrics()["host.strangers"] == 2


def test_two_keys_do_not_meet_by_socket_either(couple: Couple) -> None:
    with DataPlane("carol", key=key_of("another"), peers={"bob": couple.bob.address}) as carol:
        open_carrier(carol, couple.path + "/c", lambda name: couple.known["bob"])
        with pytest.raises(PeerUnreachable, match="the handshake failed"):
            carol.request("bob", "echo", 1, timeout=SECONDS)
        assert carol.metrics()["host.fallbacks"] == 1 and carol.metrics()["quic.not_proved"] == 1


# -- who stands in between --------------------------------------------------------------------------


class Relay:
    """Takes the place of a socket and hands on all that comes, both ways."""

    def __init__(self, path: str) -> None:
        os.rename(path, path + ".real")
        self._real = path + ".real"
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(path)
        self._sock.listen()
        self.carried = 0
        self._task = Task(self._run)

    def _run(self) -> None:
        near, _ = self._sock.accept()
        far = socket.socket(socket.AF_UNIX)
        far.connect(self._real)
        back = Task(lambda: self._copy(far, near))
        self._copy(near, far)
        back.result()
        near.close()
        far.close()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
                self.carried += len(data)
        except OSError:
            pass
        other.close()

    def end(self) -> None:
        self._task.result()
        self._sock.close()


def test_a_relay_is_seen(couple: Couple, monkeypatch: pytest.MonkeyPatch) -> None:
    # In this one process the relay has its victims' number; each end is told another one for what it talks to.
    real = place.credentials
    relay = Relay(couple.known["bob"].path)
    monkeypatch.setattr(place, "credentials", lambda sock: real(sock)._replace(pid=4711))
    couple.known["bob"] = couple.known["bob"]._replace(pid=4711)  # alice's record is forged too
    assert couple.echo() == 1
    assert ways(couple.alice) == {"bob": "quic"}
    assert relay.carried > 100 and couple.bob.metrics()["quic.not_proved"] == 1
    relay.end()


class Impostor:
    """Listens in the place of a socket, says hello as its owner would, and has no key."""

    def __init__(self, path: str, hello: Hello, say: bytes) -> None:
        os.unlink(path)
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(path)
        self._sock.listen()
        self._hello, self._say = hello, say
        self.heard: list[tuple[int, int, bytes]] = []
        self._task = Task(self._run)

    def _run(self) -> None:
        sock, _ = self._sock.accept()
        sock.sendall(self._hello.pack() + self._say)
        reader = PieceReader()
        while data := sock.recv(1 << 16):
            self.heard += reader.feed(data)
        sock.close()

    def end(self) -> None:
        self._task.result()
        self._sock.close()


CHALLENGES = {
    "silence": b"",
    "nonsense": piece_head(99, 0, 0),
    "a goodbye": code_piece(Piece.CLOSE, 0, Close.NOT_PROVED, "not proved"),
    "frames before the proof": piece_head(Piece.DATA, 3, 6) + b"\0\0\0\2\4x",
}


@pytest.mark.parametrize("say", CHALLENGES)
def test_who_cannot_prove_the_key_gets_nothing_and_holds_nothing_up(couple: Couple, say: str) -> None:
    core = couple.bob._started
    carrier = core.host
    assert isinstance(carrier, HostCarrier)
    hello = Hello(carrier.mark, carrier.boot, bytes(32), *couple.bob.address)
    impostor = Impostor(couple.known["bob"].path, hello, CHALLENGES[say])
    alice = couple.alice._started.host
    assert isinstance(alice, HostCarrier)
    alice.patience = 0.5
    assert couple.echo("secret") == "secret"
    assert ways(couple.alice) == {"bob": "quic"} and couple.count("host.fallbacks") == 1
    impostor.end()
    assert b"secret" not in b"".join(body for _, _, body in impostor.heard)


# -- in the middle of a connection --------------------------------------------------------------------


def test_a_socket_that_fails_is_followed_by_quic_and_messages_arrive_once(couple: Couple) -> None:
    for number in range(50):
        couple.alice.send_async("bob", number)
        if number == 25:
            couple.conn().sock.shutdown(socket.SHUT_RDWR)
    assert [couple.bob.receive(SECONDS).value for _ in range(50)] == list(range(50))
    assert couple.echo() == 1
    (peer,) = couple.alice.peers()
    assert peer.carrier == "quic" and peer.why.startswith("its socket has failed")
    assert couple.count("host.fallbacks") == 1


def test_a_request_that_a_failed_socket_may_have_brought_is_not_sent_again(couple: Couple) -> None:
    ran = []
    gate = threading.Event()

    @couple.bob.on_request("slow")
    def slow(request: Any) -> None:
        ran.append(request.value)
        gate.wait(SECONDS)

    call = Task(lambda: couple.alice.request("bob", "slow", 1, timeout=SECONDS))
    until(lambda: ran)
    couple.conn().sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(PeerUnreachable) as caught:
        call.result()
    gate.set()
    assert caught.value.indeterminate and ran == [1]
    assert couple.echo() == 1


def test_a_new_process_is_met_by_socket_although_the_one_before_failed(couple: Couple) -> None:
    assert couple.echo() == 1
    couple.conn().sock.shutdown(socket.SHUT_RDWR)
    couple.bob.close()
    with DataPlane("bob", key=KEY) as bob:
        couple.alice.add_peer("bob", bob.address)
        bob.on_request("echo")(lambda request: request.value)
        path = couple.path + "/new"
        couple.known["bob"] = Neighbour(path, bob._started.boot, os.getpid())
        open_carrier(bob, path, lambda name: "nobody")
        until(lambda: couple.count("host.fallbacks"))
        assert couple.echo(2) == 2
        assert ways(couple.alice) == {"bob": "host"}


def test_who_is_declared_dead_is_cut_off_here_too(couple: Couple) -> None:
    ran = threading.Event()
    gate = threading.Event()

    @couple.bob.on_request("slow")
    def slow(request: Any) -> None:
        ran.set()
        gate.wait(SECONDS)

    call = Task(lambda: couple.alice.request("bob", "slow", 1, timeout=SECONDS))
    assert ran.wait(SECONDS) and ways(couple.alice) == {"bob": "host"}
    couple.alice.remove_peer("bob", "was declared dead")
    with pytest.raises(PeerUnreachable, match="was declared dead"):
        call.result()
    gate.set()
    until(lambda: not ways(couple.bob))


def test_rotation_closes_what_was_proved_with_the_old_key() -> None:
    old, new = KEY, key_of("new")
    rings = [Keyring(primary=old), Keyring(primary=old)]
    with folder() as path, DataPlane("alice", key=rings[0]) as alice, DataPlane("bob", key=rings[1]) as bob:
        couple = Couple(path, alice, bob)
        assert couple.echo() == 1 and ways(alice) == {"bob": "host"}
        for step in ("add", "use"):
            for ring in rings:
                getattr(ring, step)(new)
        for ring in rings:
            ring.remove(old)
        until(lambda: couple.count("quic.key_removed"))
        assert couple.echo() == 1 and couple.count("host.dialled") == 2 and ways(alice) == {"bob": "host"}


# -- bounds -------------------------------------------------------------------------------------------


def test_strangers_of_this_user_are_few_and_go(couple: Couple) -> None:
    with folder() as path, DataPlane("dora", key=KEY, config=DataConfig(max_unproven=4)) as dora:
        open_carrier(dora, path + "/d", lambda name: "nobody")
        socks = [socket.socket(socket.AF_UNIX) for _ in range(8)]
        for sock in socks:
            sock.connect(path + "/d")
        until(lambda: dora.metrics().get("host.refused_full", 0) == 4)
        assert dora.metrics()["host.accepted"] == 4
        for sock in socks:
            sock.close()
        until(lambda: not dora._started.host.connections)  # type: ignore[union-attr]


def test_a_flood_before_the_proof_ends_the_connection(couple: Couple) -> None:
    carrier = couple.bob._started.host
    assert isinstance(carrier, HostCarrier)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(SECONDS)
        sock.connect(couple.known["bob"].path)
        sock.sendall(Hello(carrier.mark, b"12345678", bytes(32), "::1", 1).pack())
        sock.sendall(piece_head(Piece.DATA, 2, 1 << 30) + b"\0\0\x10\0\2")
        try:
            for _ in range(64):
                sock.sendall(bytes(4096))
            while sock.recv(1 << 16):
                pass
        except OSError:
            pass
    until(lambda: not carrier.connections)
    assert couple.echo() == 1


def test_without_a_descriptor_there_is_quic_and_later_the_socket(couple: Couple) -> None:
    for plane in (couple.alice, couple.bob):
        plane._started.ask(plane._started._door.open, "open")  # which would want descriptors to be imported
    before = shortage.metrics()["starved.descriptors"]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as probe:
        last = probe.fileno()
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 4, limits[1]))
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        result = couple.echo()
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert result == 1 and ways(couple.alice) == {"bob": "quic"}
    assert shortage.metrics()["starved.descriptors"] > before


def test_nothing_is_left(couple: Couple) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    couple.echo()
    before = descriptors()
    for number in range(5):
        with DataPlane(f"p{number}", key=KEY, peers={"bob": couple.bob.address}) as plane:
            open_carrier(plane, f"{couple.path}/p{number}", lambda name: couple.known["bob"])
            assert plane.request("bob", "echo", number, timeout=SECONDS) == number
            assert ways(plane) == {"bob": "host"}
    until(lambda: descriptors() <= before)


# -- who sends ------------------------------------------------------------------------------------------


def test_a_caller_and_a_handler_send_themselves(couple: Couple) -> None:
    couple.echo()
    wakes = [plane._started.loop.wakes for plane in (couple.alice, couple.bob)]
    for number in range(50):
        assert couple.echo(number) == number
    assert [plane._started.loop.wakes for plane in (couple.alice, couple.bob)] == wakes


def test_who_waits_reads_itself(couple: Couple, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()

    def noted(name: str, real: Callable[..., Any], *args: Any) -> Any:
        found = real(*args)
        if found is not None:
            read.add(name)
        return found

    for name in ("answer_now", "serve_now"):
        real = getattr(Link, name)
        monkeypatch.setattr(Link, name, lambda *args, name=name, real=real: noted(name, real, *args))
    until(lambda: couple.echo() == 1 and len(read) == 2)


class Who:
    """Somebody who waits."""

    done = False


def test_who_reads_takes_no_middle_of_a_piece(couple: Couple) -> None:
    couple.echo()
    conn, core = couple.conn(), couple.bob._started
    (link,) = core.ask(lambda: list(core.machine.links.values()), "test")
    couple.alice._started.ask(lambda: list(conn._reader.feed(b"\0")), "test")
    seen: list[bytes] = []

    def take(stream: int, data: bytes) -> bool:
        seen.append(data)
        return True

    reader = Task(lambda: conn.read(Who(), take, Deadline(SECONDS)))
    until(lambda: conn.loan.taken)
    link.conn.put(link.lane, b"the end of another piece")
    assert reader.result() is False and seen == []


def test_what_else_comes_is_taken_while_a_caller_waits_at_the_socket(couple: Couple) -> None:
    gate = threading.Event()
    couple.bob.on_request("slow")(lambda request: gate.wait(SECONDS))
    couple.alice.on_request("echo")(lambda request: request.value)
    couple.echo()
    for number in range(20):
        gate.clear()
        call = Task(lambda: couple.alice.request("bob", "slow", timeout=SECONDS))
        until(lambda: couple.bob._started.machine.serving)
        couple.bob.send("alice", number, timeout=SECONDS)
        assert couple.alice.receive(SECONDS).value == number
        assert couple.bob.request("alice", "echo", number, timeout=SECONDS) == number
        assert couple.echo(number) == number
        gate.set()
        assert call.result() is True


@pytest.mark.parametrize("side", ["alice", "bob"])
def test_who_waits_at_the_socket_hears_of_the_end(couple: Couple, side: str) -> None:
    gate = threading.Event()
    couple.bob.on_request("slow")(lambda request: gate.wait(SECONDS))
    couple.echo()
    call = Task(lambda: couple.alice.request("bob", "slow", timeout=10 * SECONDS))
    until(lambda: couple.conn().loan.taken)
    core = getattr(couple, side)._started
    core.submit(lambda now: [link.close(Close.SHUTDOWN, "", now) for link in list(core.machine.links.values())])
    with pytest.raises(PeerUnreachable):
        call.result()
    gate.set()


def test_a_call_that_is_late_leaves_the_reading_to_the_loop(couple: Couple) -> None:
    gate = threading.Event()
    couple.bob.on_request("slow")(lambda request: gate.wait(SECONDS))
    couple.echo()
    with pytest.raises(OperationTimeout):
        couple.alice.request("bob", "slow", timeout=0.05)
    gate.set()
    assert [couple.echo(number) for number in range(20)] == list(range(20))
    assert ways(couple.alice) == {"bob": "host"} and couple.count("host.dialled") == 1


def test_a_request_does_not_overtake_a_message_of_its_caller(couple: Couple) -> None:
    @couple.bob.on_request("next")
    def following(request: Any) -> Any:
        return couple.bob.receive(0).value

    for number in range(200):
        couple.alice.send_async("bob", number)
        assert couple.alice.request("bob", "next", timeout=SECONDS) == number


def test_an_answer_does_not_overtake_a_message_of_its_handler(couple: Couple) -> None:
    @couple.bob.on_request("say")
    def say(request: Any) -> None:
        couple.bob.send_async("alice", request.value)

    for number in range(200):
        couple.alice.request("bob", "say", number, timeout=SECONDS)
        assert couple.alice.receive(0).value == number


def test_many_threads_each_get_their_own_answer(couple: Couple) -> None:
    def work(number: int) -> list[Any]:
        return [couple.echo([number, step, bytes(step * 331 % 90_000)]) for step in range(60)]

    tasks = [Task(partial(work, number)) for number in range(8)]
    for number, task in enumerate(tasks):
        assert [answer[:2] for answer in task.result()] == [[number, step] for step in range(60)]
    assert couple.count("offences") == couple.bob.metrics().get("offences", 0) == 0
    assert couple.count("host.dialled") == 1
