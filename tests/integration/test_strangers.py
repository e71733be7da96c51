"""Strangers at the gossip port: silent, trickling, pouring, deaf. Members join, and memory stays bounded."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mycorrizal import Agent, BaseDelegate, Config, Memberlist
from mycorrizal._runtime.swim import lobby, places
from mycorrizal._wire.codec import body_codec
from mycorrizal._wire.compression import compress_message
from mycorrizal._wire.messages import MessageType, PushPull, User, UserMsgHeader
from mycorrizal._wire.security import Keyring
from mycorrizal._wire.stream import StreamCodec
from mycorrizal.types import Address

from .conftest import Start, address_of, fast, until

KEY = bytes(range(32))
MIB = 1 << 20


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Have as many as the strangers here need, who live in the same process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def strangers(address: Address, count: int, hosts: int = 1) -> Iterator[list[socket.socket]]:
    """Connect `count` times, from as many addresses as `hosts`."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(address, 10, source_address=(f"127.0.0.{1 + n % hosts}", 0)))
            for n in range(count)
        ]


@contextlib.contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` again and again on a thread."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(0.02):
            act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(10)


def join_seconds(start: Start, seed: Memberlist, **settings: object) -> float:
    newcomer = start("newcomer", tcp_timeout=10.0, **settings)
    begun = time.monotonic()
    newcomer.join([address_of(seed)], timeout=20)
    return time.monotonic() - begun


def patient(start: Start, **settings: object) -> Memberlist:
    return start("seed", tcp_timeout=10.0, **settings)


@pytest.mark.parametrize(("count", "hosts"), [(24, 1), (60, 1), (500, 1), (500, 10)])
def test_silent_connections_do_not_delay_a_join(start: Start, count: int, hosts: int) -> None:
    seed = patient(start)
    with strangers(seed.local_node.address, count, hosts):
        assert join_seconds(start, seed) < 3
        mine = places.ADDRESS_PLACES_MAX * hosts
        assert seed.metrics()["exchanges.accepted"] <= min(mine, places.PLACES_MAX)
        assert seed.metrics()["exchanges.threads"] < 10


def test_who_stays_silent_is_closed_after_a_second_and_counted(start: Start) -> None:
    seed = patient(start)
    with strangers(seed.local_node.address, 5) as socks:
        begun = time.monotonic()
        assert [sock.recv(1) for sock in socks] == [b""] * 5
        assert 0.5 < time.monotonic() - begun < 5
    until(lambda: seed.metrics()["tcp.silent"] == 5)
    assert seed.metrics()["tcp.displaced"] == seed.metrics()["tcp.refusing"] == 0


def test_who_trickles_gives_way_and_holds_no_thread(start: Start) -> None:
    seed = patient(start, secret_key=KEY)
    with strangers(seed.local_node.address, 300, 6) as socks:

        def trickle() -> None:
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.send(b"\x0a\0\x20\0\0" if sock not in begun else b"\0", socket.MSG_DONTWAIT)
                begun[sock] = True

        begun: dict[socket.socket, bool] = {}
        with meanwhile(trickle):
            until(lambda: len(begun) == len(socks))
            assert join_seconds(start, seed, secret_key=KEY) < 3
    assert seed.metrics()["tcp.displaced"] > 0


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads memory in /proc")
@pytest.mark.parametrize("key", [KEY, None], ids=["key", "open"])
def test_what_strangers_pour_is_bounded_for_all_together(start: Start, key: bytes | None) -> None:
    seed = patient(start, secret_key=key)
    head = b"\x0a" + (20 * MIB).to_bytes(4, "big")
    if key is None:
        head = StreamCodec(fast("x", enable_compression=False), Keyring(), lambda: b"").seal(
            PushPull((), bytes(20 * MIB - 1), True), answer=False
        )[:100]
    pieces = memoryview(bytes(MIB))
    before = resident()
    most = held = 0

    def look() -> None:
        nonlocal most, held
        most, held = max(most, resident() - before), max(held, seed.metrics()["tcp.held"])

    def pour(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.sendall(head)
            for _ in range(19):
                sock.sendall(pieces)

    with strangers(seed.local_node.address, 40) as socks, meanwhile(look):
        pourers = [threading.Thread(target=pour, args=(sock,)) for sock in socks]
        for thread in pourers:
            thread.start()
        assert join_seconds(start, seed, secret_key=key) < 5
        until(lambda: seed.metrics()["tcp.flooded"] > 0, 20)
        for thread in pourers:
            thread.join(20)
    assert held <= places.BYTES_MAX
    assert most < 120 * MIB, most // MIB
    assert seed.metrics()["tcp.refusing"] == 1


def test_a_declared_length_takes_no_memory(start: Start) -> None:
    seed = patient(start, secret_key=KEY)
    with strangers(seed.local_node.address, 50) as socks:
        for sock in socks:
            sock.sendall(b"\x0a" + (20 * MIB).to_bytes(4, "big"))
        until(lambda: seed.metrics()["tcp.received"] >= 5 * 50)
        assert seed.metrics()["tcp.held"] < 1000


class Large(BaseDelegate):
    def local_state(self, join: bool) -> bytes:
        return bytes(8 * MIB)


def test_who_does_not_read_the_answer_holds_no_thread(start: Start) -> None:
    seed = patient(start, delegate=Large(), enable_compression=False)
    ask = StreamCodec(fast("x"), Keyring(), lambda: b"").seal(PushPull((), b"", False), answer=False)
    with strangers(seed.local_node.address, 30) as socks:
        for sock in socks:
            sock.sendall(ask)
        until(lambda: seed.metrics()["tcp.flooded"] > 0)
        assert join_seconds(start, seed, enable_compression=False) < 3
        assert seed.metrics()["tcp.held"] <= places.BYTES_MAX


def test_a_burst_from_one_address_larger_than_its_places_is_served(start: Start) -> None:
    seed = patient(start)
    count = 2 * places.ADDRESS_PLACES_MAX - 8
    codec = StreamCodec(Config.local(name="x"), Keyring(), lambda: b"")
    ask = codec.seal(PushPull((), b"", False), answer=False)
    with strangers(seed.local_node.address, 0):
        answers: list[object] = []

        def converse() -> None:
            reader = codec.reader(answer=True)
            with socket.create_connection(seed.local_node.address, 10) as sock:
                sock.sendall(ask)
                while (answer := reader.feed(sock.recv(65536))) is None:
                    pass
            answers.append(answer)

        threads = [threading.Thread(target=converse) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(answers) == count
    assert seed.metrics()["tcp.crowded"] == seed.metrics()["tcp.displaced"] == 0


def test_without_descriptors_the_silent_go_and_nothing_spins(start: Start) -> None:
    seed = patient(start)
    hall = seed._running.gossip.lobby
    real = hall._listener
    gone = threading.Event()

    class Exhausted:
        """Has no descriptor while a stranger has one."""

        tries = 0

        def accept(self) -> tuple[socket.socket, Address]:
            self.tries += 1
            if len(hall.places) >= 3:
                raise OSError(errno.EMFILE, "no descriptor")
            return real.accept()

        def fileno(self) -> int:
            return real.fileno()

    exhausted = Exhausted()

    def replace(now: float) -> None:
        hall._selector.unregister(real)
        hall._listener = exhausted  # type: ignore[assignment]
        hall._selector.register(exhausted, 1)
        gone.set()

    seed._running.mailbox.tell(replace)
    assert gone.wait(10)
    with strangers(seed.local_node.address, 3):
        until(lambda: len(hall.places) == 3)
        assert join_seconds(start, seed) < 3
        assert exhausted.tries < 100
    assert seed.metrics()["tcp.displaced"] > 0


def test_health_tells_while_places_are_refused() -> None:
    with Agent(name="seed", cluster="strangers", bind="127.0.0.1", port=0) as agent:
        assert agent.health().problems == ()
        with strangers(agent.address, places.ADDRESS_PLACES_MAX + 2):
            until(lambda: any("turned away" in problem for problem in agent.health().problems))
        assert agent.metrics()["tcp.displaced"] > 0


def test_ping_opens_a_stream_even_in_single_bytes(start: Start) -> None:
    """A slow member is no stranger: what it says is put together whatever the pieces."""
    seed = patient(start)
    codec = StreamCodec(Config.local(name="x"), Keyring(), lambda: b"")
    ask = codec.seal(PushPull((), b"", False), answer=False)
    with strangers(seed.local_node.address, 1) as (sock,):
        for byte in ask:
            sock.sendall(bytes((byte,)))
        assert sock.recv(1)[0] in (MessageType.PUSH_PULL, MessageType.COMPRESS)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads memory in /proc")
def test_what_unpacks_to_much_is_unpacked_one_at_a_time(start: Start) -> None:
    seed = patient(start)
    body = body_codec("cbor")
    inside = bytes((MessageType.USER,)) + body.encode(UserMsgHeader(18 * MIB)) + bytes(18 * MIB)
    bomb = compress_message(body, inside)
    assert len(bomb) < MIB
    del inside
    before, most = resident(), 0

    def look() -> None:
        nonlocal most
        most = max(most, resident() - before)

    with strangers(seed.local_node.address, 24) as socks, meanwhile(look):
        for sock in socks:
            sock.sendall(bomb)
        assert join_seconds(start, seed) < 5
        until(lambda: seed.metrics()["msg.user"] >= 1, 20)
    assert most < 200 * MIB, most // MIB


def test_who_waits_at_the_door_enters_as_soon_as_a_place_is_free(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "GRACE_SECONDS", 30.0)
    monkeypatch.setattr(places, "PATIENCE_SECONDS", 30.0)
    monkeypatch.setattr(lobby, "FIRST_BYTES_SECONDS", 30.0)
    monkeypatch.setattr(places, "ADDRESS_BUSY_MAX", 0)  # all count
    seed = patient(start)
    count = places.ADDRESS_PLACES_MAX
    codec = StreamCodec(Config.local(name="x"), Keyring(), lambda: b"")
    with strangers(seed.local_node.address, count + 1) as socks:
        until(lambda: seed.metrics()["tcp.accept"] == count + 1)
        assert seed.metrics()["exchanges.accepted"] == count
        late = socks[-1]
        late.sendall(codec.seal(PushPull((), b"", False), answer=False))
        late.settimeout(0.3)
        with pytest.raises(TimeoutError):
            late.recv(1)
        socks[0].sendall(codec.seal(User(b"over"), answer=False))  # a thread ends it, not its silence
        late.settimeout(5)
        assert late.recv(1)
    assert seed.metrics()["tcp.displaced"] == seed.metrics()["tcp.crowded"] == 0
