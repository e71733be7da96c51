"""Two endpoints over real sockets: dialling, streams, every kind of end, and what strangers get."""

from __future__ import annotations

import errno
import gc
import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from mycorrizal._runtime.quic import endpoint
from mycorrizal._runtime.quic.connection import Connection
from mycorrizal._runtime.quic.transport import UNPROVEN_BYTES
from mycorrizal._runtime.quic.trust.keys import KeyTrust
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._wire.security import Keyring
from mycorrizal.dataconfig import DataConfig
from tests._runtime.data.couple import until
from tests._runtime.quic.rig import SECONDS, Side, inside
from tests.keys import key_of
from tests.needs import fast_path, lacks

KEY = bytes(range(32))
NO_STRANGERS = DataConfig(retry_threshold=0)


def keyed(name: str, key: bytes = KEY) -> KeyTrust:
    return KeyTrust(Keyring((), key), name, "test")


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    a, b = Side("a"), Side("b")
    yield a, b
    a.stop()
    b.stop()


def test_echo_both_ways_and_channel_binding(sides: tuple[Side, Side]) -> None:
    a, b = sides
    b.owner.echo = True
    conn = a.connect(b)
    assert conn.local and conn.mtu == 16384 and conn.dialled and conn.address == b.address
    b.owner.wait(lambda: b.owner.accepted)
    assert conn.channel and conn.channel == b.owner.accepted[0].channel
    sent = os.urandom(3_000_000)

    def send(now: float) -> int:
        stream = conn.open_stream(uni=False)
        conn.send(stream, memoryview(sent), True)
        assert conn.backlog(stream) == len(sent)
        return stream

    stream = a.run(send)
    a.owner.wait(lambda: (conn, stream) in a.owner.fins)
    assert a.owner.data[conn, stream] == sent
    stats = a.run(lambda now: conn.stats())
    assert stats["bytes_sent"] > len(sent) and stats["rtt"] > 0


def test_close_is_told_once_to_both_with_code_and_reason(sides: tuple[Side, Side]) -> None:
    a, b = sides
    b.owner.echo = True
    conn = a.connect(b)
    a.run(lambda now: conn.send(conn.open_stream(uni=False), b"confirm the handshake"))
    a.owner.wait(lambda: a.owner.data)
    a.do(lambda now: conn.close(7, "bye", now), lambda now: conn.close(8, "again", now))
    a.owner.wait(lambda: a.owner.ends)
    b.owner.wait(lambda: b.owner.ends)
    assert a.owner.ends == {conn: (7, "bye", False, "local")}
    assert list(b.owner.ends.values()) == [(7, "bye", True, "closed")]
    assert not conn.connected and conn.closed and conn.mtu == 0
    a.do(lambda _: conn.send(0, b"x"), lambda _: conn.reset(0, 1), lambda _: conn.stop(0, 1), lambda _: conn.ping())
    assert a.run(lambda _: conn.stats())["datagrams_sent"]


def test_reset_and_stop_reach_the_owner_and_gone_streams_are_harmless(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn = a.connect(b)
    one, two = a.run(lambda now: (conn.open_stream(uni=True), conn.open_stream(uni=False)))
    a.do(lambda _: conn.send(one, b"a"), lambda _: conn.send(two, b"b"))
    b.owner.wait(lambda: len(b.owner.data) == 2)
    other = b.owner.accepted[0]
    a.do(lambda _: conn.reset(one, 3), lambda _: conn.reset(one, 3), lambda _: conn.send(one, b"late"))
    b.do(lambda _: other.stop(two, 4), lambda _: other.stop(99, 4), lambda _: other.reset(99, 4))
    a.owner.wait(lambda: a.owner.stops)
    b.owner.wait(lambda: len(b.owner.resets) == 2)  # who is told to stop resets its stream
    assert sorted(b.owner.resets, key=lambda item: item[1]) == [(other, two, 4), (other, one, 3)]
    assert a.owner.stops == [(conn, two, 4)]


def test_nobody_there_is_known_at_once(sides: tuple[Side, Side]) -> None:
    a, _ = sides
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    conn = a.dial(address)
    a.owner.wait(lambda: conn in a.owner.ends, 2.0)
    assert a.owner.ends[conn][3] == "refused"


def test_wrong_family_is_refused(sides: tuple[Side, Side]) -> None:
    a, _ = sides
    conn = a.dial(("::1", 9))
    a.owner.wait(lambda: conn in a.owner.ends, 2.0)
    assert a.owner.ends[conn][3] == "refused"


def test_a_dial_that_nobody_answers_is_silent() -> None:
    a = Side("a", config=DataConfig(connect_timeout=0.3))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        conn = a.dial(deaf.getsockname())
        a.owner.wait(lambda: conn in a.owner.ends)
        assert a.owner.ends[conn][3] == "silent"
        a.stop()


def test_peer_process_gone_is_refused_at_the_second_look(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn = a.connect(b)
    b.loop.stop()
    assert b.loop.join(Deadline(SECONDS))
    b.sock.close()

    def poke(now: float) -> None:
        if not conn.closed:
            conn.ping()
            a.loop.call_at(now + 0.03, poke)

    a.run(poke)
    a.owner.wait(lambda: conn in a.owner.ends, 5.0)
    assert a.owner.ends[conn][3] == "refused"


@fast_path("its connection ids are aioquic's, so it does not know them again after a restart")
def test_restarted_peer_resets_what_it_has_forgotten() -> None:
    a, b = Side("a", trust=keyed("a")), Side("b", trust=keyed("b"))
    b.owner.echo = True
    conn = a.connect(b)
    a.run(lambda now: conn.send(conn.open_stream(uni=False), b"confirm the handshake"))
    a.owner.wait(lambda: a.owner.data)
    port = b.address[1]
    b.loop.stop()
    assert b.loop.join(Deadline(SECONDS))
    b.sock.close()
    again = Side("b", trust=keyed("b"), port=port)
    a.run(lambda now: conn.ping())
    a.owner.wait(lambda: conn in a.owner.ends, 5.0)
    assert a.owner.ends[conn] == (0, "the peer has forgotten this connection", True, "reset")
    until(lambda: again.counters["quic.resets_sent"] >= 1)  # counted once it was sent
    a.stop()
    again.stop()


def test_a_node_resets_no_other_nodes_connection() -> None:
    """Who shares the key could otherwise be asked for the token that ends a stranger's connection."""
    a, b, c = (Side(name, trust=keyed(name)) for name in "abc")
    conn = a.connect(b)
    datagram = b"\x41" + conn.peer_cid + os.urandom(60)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as eve:
        eve.bind(("127.0.0.1", 0))
        eve.sendto(datagram, c.address)
        eve.sendto(os.urandom(80), c.address)
    d = a.connect(c)  # c has handled what came before
    assert c.counters["quic.resets_sent"] == 0 and c.counters["quic.strays"] >= 1
    assert not conn.closed and not d.closed
    for side in (a, b, c):
        side.stop()


def test_other_key_fails_in_the_handshake() -> None:
    a, b = Side("a", trust=keyed("a")), Side("b", trust=keyed("b", key_of("other")))
    conn = a.dial(b.address)
    a.owner.wait(lambda: conn in a.owner.ends)
    code, reason, by_peer, kind = a.owner.ends[conn]
    assert kind == "handshake" and code == 0x12A and reason and not by_peer
    b.owner.wait(lambda: b.owner.ends)
    assert [end[3] for end in b.owner.ends.values()] == ["handshake"]
    a.stop()
    b.stop()


@fast_path("it cannot withhold credit, and ends the connection instead")
def test_unproven_clients_may_send_little(sides: tuple[Side, Side]) -> None:
    a, b = sides
    b.owner.prove = False
    conn = a.connect(b)
    stream = a.run(lambda now: conn.open_stream(uni=False))
    a.run(lambda now: conn.send(stream, bytes(1 << 20)))
    b.owner.wait(lambda: b.owner.accepted and sum(map(len, b.owner.data.values())) >= UNPROVEN_BYTES)
    other = b.owner.accepted[0]
    assert len(b.owner.data[other, stream]) == UNPROVEN_BYTES and not other.closed
    b.run(lambda now: other.mark_proved())
    b.owner.wait(lambda: len(b.owner.data[other, stream]) == 1 << 20)


def test_feeding_before_transmit_moves_bulk(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn = a.connect(b)
    stream = a.run(lambda now: conn.open_stream(uni=True))
    whole = memoryview(os.urandom(16 << 20))
    at = 0

    def feed(fed: Connection, now: float) -> None:
        nonlocal at
        while at < len(whole) and fed.backlog(stream) < 2 << 20:
            stop = min(len(whole), at + (256 << 10))
            fed.send(stream, whole[at:stop], stop == len(whole))
            at = stop

    a.owner.feeds.append(feed)
    a.run(lambda now: conn.touch())
    b.owner.wait(lambda: b.owner.fins)
    assert next(iter(b.owner.data.values())) == whole


def test_closing_the_endpoint_says_goodbye(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn = a.connect(b)
    b.stop()
    a.owner.wait(lambda: conn in a.owner.ends)
    assert a.owner.ends[conn][2:] == (True, "closed")


def test_idle_connection_ends() -> None:
    config = DataConfig(idle_timeout=0.2, silence_timeout=0.2)
    a, b = Side("a", config=config), Side("b", config=config)
    conn = a.connect(b)
    a.owner.wait(lambda: conn in a.owner.ends)
    assert a.owner.ends[conn][3] == "idle"
    a.stop()
    b.stop()


def test_retry_is_asked_for_above_the_threshold_and_answered() -> None:
    class Shy(KeyTrust):
        def knock(self) -> bytes:
            return b""

    a, b = Side("a", trust=Shy(Keyring((), KEY), "a", "test")), Side("b", trust=keyed("b"), config=NO_STRANGERS)
    a.connect(b)
    assert b.counters["quic.retried"] == 1 and b.counters["quic.accepted"] == 1
    a.stop()
    b.stop()


def test_members_knock_and_pass_without_retry() -> None:
    a, b = Side("a", trust=keyed("a")), Side("b", trust=keyed("b"), config=NO_STRANGERS)
    a.connect(b)
    assert b.counters["quic.retried"] == 0 and b.counters["quic.accepted"] == 1
    a.stop()
    b.stop()


def test_more_members_than_places_all_get_in_without_long_pauses() -> None:
    a, b = Side("a", trust=keyed("a")), Side("b", trust=keyed("b"), config=DataConfig(max_unproven=2))
    conns = a.run(lambda now: [a.endpoint.dial(b.address, None, now) for _ in range(40)])
    a.owner.wait(lambda: a.owner.open.issuperset(conns))
    assert b.counters["quic.refused_full"] > 0
    a.stop()
    b.stop()


def test_strangers_mistakes_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    a, b = Side("a", trust=keyed("a")), Side("b", trust=keyed("b", key_of("other")))
    conn = a.dial(b.address)
    a.owner.wait(lambda: conn in a.owner.ends)
    b.owner.wait(lambda: b.owner.ends)
    assert [record for record in caplog.records if record.levelno > 10] == []
    a.stop()
    b.stop()


def test_garbage_does_no_harm(sides: tuple[Side, Side]) -> None:
    a, b = sides
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as eve:
        eve.bind(("127.0.0.1", 0))
        for first in range(256):
            eve.sendto(bytes([first]) + os.urandom(1300), b.address)
            eve.sendto(bytes([first]) + os.urandom(first % 40), b.address)
        eve.sendto(b"\xc0\x12\x34\x56\x78\x08" + bytes(1300), b.address)  # an unknown version
        eve.settimeout(SECONDS)
        assert eve.recv(2000)[1:5] == bytes(4)  # version negotiation
    a.connect(b)


def test_closed_connections_leave_no_cycles_behind(sides: tuple[Side, Side]) -> None:
    a, b = sides
    gc.collect()
    gc.disable()
    try:
        parts = _connect_and_close(a, b)
        a.owner.ends.clear()
        a.run(lambda now: None)
        assert [part() for part in parts] == [None, None]
    finally:
        gc.enable()


def _connect_and_close(a: Side, b: Side) -> list[Callable[[], object]]:
    conn = a.connect(b)
    parts: list[Callable[[], object]] = [weakref.ref(inside(conn)), weakref.ref(inside(conn).tls)]
    a.run(lambda now: conn.close(0, "", now))
    a.owner.wait(lambda: a.owner.ends)
    b.owner.wait(lambda: b.owner.ends)
    return parts


def test_ipv6_and_dual_stack() -> None:
    try:
        a = Side("a", bind="::")
    except OSError:
        lacks("no IPv6 here; `sysctl net.ipv6.conf.all.disable_ipv6=0` gives it")
    b, c = Side("b", bind="::1"), Side("c")
    a.connect(b)
    a.connect(c)
    for side in (a, b, c):
        side.stop()


class Narrow:
    """A socket whose path has become too small for what its owner believes."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def sendto(self, data: bytes, address: Any) -> int:
        if len(data) > 1200:
            raise OSError(errno.EMSGSIZE, "too long")
        return self._sock.sendto(data, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_a_dial_that_does_not_fit_begins_over(sides: tuple[Side, Side]) -> None:
    a, b = sides
    a.endpoint._sock = Narrow(a.sock)  # type: ignore[assignment]
    conn = a.connect(b)
    a.endpoint._sock = a.sock
    assert conn.mtu == 1200 and a.counters["quic.path_retries"]


def test_closing_the_endpoint_ends_connections_that_wait_for_their_turn(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn = a.connect(b)

    def close(now: float) -> None:
        conn.touch_again()
        a.endpoint.close(now)
        assert conn in a.owner.ends

    a.run(close)
    b.owner.wait(lambda: b.owner.ends)
    assert [end[2:] for end in b.owner.ends.values()] == [(True, "closed")]


def test_forged_datagrams_are_no_sign_of_life(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn = a.connect(b)
    heard = conn.last_received
    assert heard > conn.created
    forged = b"\x40" + conn.host_cid + os.urandom(100)
    a.run(lambda now: conn.receive(forged, conn.sockaddr, now + 10.0))
    assert conn.last_received < heard + 10.0


def test_forged_icmp_does_not_end_a_connection_that_lives(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn = a.connect(b)

    def say(after: float) -> bool:
        def call(now: float) -> bool:
            conn.last_received = 0.0
            conn.refused("nobody there", began + after)
            return conn.closed

        return a.run(call)

    began = a.run(lambda now: now)
    patience = a.run(lambda now: conn._quic.closing_time())
    assert patience > 0.05
    assert [say(0.0), say(0.05), say(patience / 2), say(patience + 1.0)] == [False, False, False, True]
    a.owner.wait(lambda: conn in a.owner.ends)
    assert a.owner.ends[conn][3] == "refused"


def test_forged_icmp_without_end_does_not_end_a_connection_whose_peer_answers(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn = a.connect(b)
    began = a.run(lambda now: now)

    def say(after: float) -> bool:
        def call(now: float) -> bool:
            conn.last_received = began + after - 0.01
            conn.refused("nobody there", began + after)
            return conn.closed

        return a.run(call)

    assert a.run(lambda now: conn._quic.closing_time()) < 2.0
    assert [say(2.0 * number) for number in range(1, 6)] == [False] * 5


def test_who_takes_the_id_of_another_does_not_take_its_reset(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn, thief = a.connect(b), a.connect(b)
    token = conn.reset_token
    assert token is not None

    def steal(now: float) -> None:
        inside(thief)._peer_cid.cid = conn.peer_cid
        a.endpoint._resets.pop(thief.reset_token or b"")
        thief.reset_token = None
        a.endpoint.established(thief)
        thief.end(0, "", by_peer=True, kind="closed", now=now, tell=False)

    a.run(steal)
    a.owner.wait(lambda: thief in a.owner.ends)
    assert a.endpoint._resets[token] is conn


def test_an_id_that_is_announced_again_is_noted_once(sides: tuple[Side, Side]) -> None:
    a, b = sides
    conn = a.connect(b)

    def again(now: float) -> bool:
        before = list(conn.cids)
        for cid in before:
            a.endpoint.issued(conn, cid)
        return conn.cids == before

    assert a.run(again)


# -- places ---------------------------------------------------------------------------------


def check_places(side: Side) -> None:
    """What is counted as taken is taken by a connection that has not ended."""

    def look(now: float) -> None:
        endpoint, gate = side.endpoint, side.endpoint._admission
        conns = endpoint.connections
        unproven = [conn for conn in conns if conn.counted]
        assert (gate.members, gate.strangers) == (
            sum(conn.knocked for conn in unproven),
            sum(not conn.knocked for conn in unproven),
        )
        assert not any(conn.dialled or conn.proved for conn in unproven)
        assert {conn for conn in conns if not conn.dialled and not conn.proved} == set(unproven)
        assert gate.unproven <= endpoint._config.max_unproven
        assert sum(not conn.dialled for conn in conns) <= endpoint._config.max_connections
        for cid, holder in endpoint._cids.items():
            assert holder in (conns if isinstance(holder, Connection) else endpoint._late) and cid in holder.cids
        assert set(endpoint._resets.values()) <= conns and set(endpoint._farewells) <= conns
        assert not any(conn.closed and conn._ending is None for conn in conns), "it has ended, and keeps its place"

    failed: list[BaseException] = []

    def run(now: float) -> None:
        try:
            look(now)
        except AssertionError as error:
            failed.append(error)

    side.run(run)
    if failed:
        raise failed[0]


@pytest.mark.parametrize("seed", range(4))
def test_places_are_given_back_however_connections_end(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proved or not, refused, closed here or there, too slow, or with another key: looked at after every step."""
    monkeypatch.setattr(endpoint, "_UNPROVEN_SECONDS", 0.1)
    rng = Random(seed)
    few = DataConfig(max_connections=6, max_unproven=3, retry_threshold=1, connect_timeout=0.4)
    a, b = Side("a", trust=keyed("a"), config=few), Side("b", trust=keyed("b"), config=few)
    stranger = Side("s", trust=keyed("s", key_of("stranger")))
    every = (a, b, stranger)
    dialled: list[tuple[Side, Connection]] = []
    for _ in range(40):
        kind = rng.choice(("dial", "dial", "dial", "stranger", "unproven", "close", "close", "pause"))
        b.owner.prove = kind != "unproven"
        if kind in ("dial", "unproven", "stranger"):
            side = stranger if kind == "stranger" else a
            conn = side.dial(b.address)
            dialled.append((side, conn))
            if rng.random() < 0.7:
                side.owner.wait(lambda side=side, conn=conn: conn in side.owner.open or conn in side.owner.ends)
        elif kind == "close" and dialled:
            side, conn = dialled.pop(rng.randrange(len(dialled)))
            side.run(lambda now, conn=conn: conn.close(0, "bye", now))
        elif kind == "close" and b.owner.open:
            one = rng.choice(sorted(b.owner.open, key=id))
            b.run(lambda now, one=one: one.close(0, "bye", now))
        else:
            threading.Event().wait(0.02)
        for side in every:
            check_places(side)
    for side, conn in dialled:
        side.run(lambda now, conn=conn: conn.close(0, "bye", now))
    for side in every:
        until(lambda side=side: side.run(lambda now: not side.endpoint.connections))
        check_places(side)
        assert side.run(lambda now, side=side: side.endpoint._admission.unproven) == 0
    b.owner.prove = True
    a.connect(b)
    for side in every:
        side.stop()


def test_no_connection_above_the_limit_and_one_more_when_one_has_ended() -> None:
    a, b = Side("a", trust=keyed("a")), Side("b", trust=keyed("b"), config=DataConfig(max_connections=2))
    first, second = a.connect(b), a.connect(b)
    third = a.dial(b.address)
    until(lambda: b.counters["quic.refused_connections"])
    assert len(b.run(lambda now: set(b.endpoint.connections))) == 2 and third not in a.owner.open
    a.run(lambda now: first.close(0, "", now))
    a.owner.wait(lambda: third in a.owner.open)
    assert len(b.run(lambda now: set(b.endpoint.connections))) == 2 and not second.closed
    a.stop()
    b.stop()


def test_an_unproven_connection_that_ends_makes_room_for_the_next() -> None:
    a, b = Side("a", trust=keyed("a")), Side("b", trust=keyed("b"), config=DataConfig(max_unproven=1))
    b.owner.prove = False
    for _ in range(5):
        conn = a.connect(b)
        assert b.run(lambda now: b.endpoint._admission.unproven) == 1
        a.run(lambda now, conn=conn: conn.close(0, "", now))
        until(lambda: not b.run(lambda now: b.endpoint._admission.unproven))
    a.stop()
    b.stop()
