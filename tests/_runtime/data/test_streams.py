"""Streams between two planes of this process, over loopback."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import threading
from ctypes import c_int
from typing import Any

import pytest

from mycorrizal._data import peer
from mycorrizal._runtime.data.streams import WRITE_AHEAD, Stream
from mycorrizal._wire.frames import BULK_INITIAL, STREAM_WINDOW
from mycorrizal.dataconfig import DataConfig
from mycorrizal.dataplane import DataPlane
from mycorrizal.exceptions import (
    ConfigError,
    NotRunningError,
    OperationCancelled,
    OperationTimeout,
    PeerBusy,
    PeerUnreachable,
    QueueFull,
)
from mycorrizal.types import Request

from .couple import KEY, MIB, SECONDS, Pair, Task, left_open, until


def echo(stream: Stream) -> None:
    stream.timeout = SECONDS
    while data := stream.read(1 << 16):
        stream.write(data)


def digest(stream: Stream) -> None:
    stream.timeout = SECONDS
    found, size = hashlib.sha256(), 0
    while data := stream.read(MIB):
        found.update(data)
        size += len(data)
    stream.write(f"{size} {found.hexdigest()}".encode())


# -- both ways ------------------------------------------------------------------------------


def test_half_close_echo(pair: Pair) -> None:
    pair.bob.on_stream("echo")(echo)
    with pair.open("echo") as stream:
        assert (stream.node, stream.name) == ("bob", "echo")
        for word in (b"spore", b"hypha"):
            assert stream.write(word) == 5
            assert stream.read(100) == word
        stream.write(b"the end")
        stream.close_write()
        stream.close_write()
        with pytest.raises(ValueError, match="close_write"):
            stream.write(b"more")
        assert stream.read() == b"the end"
        assert stream.read(1) == b""
        assert stream.read() == b""
    assert stream.closed
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)
    until(pair.quiet)


def test_both_sides_open_streams_over_one_connection(pair: Pair) -> None:
    pair.bob.on_stream("echo")(echo)
    pair.alice.on_stream("echo")(echo)
    with pair.open("echo") as there:
        there.write(b"a")
        assert there.read(1) == b"a"
        with pair.bob.open_stream("alice", "echo", timeout=SECONDS) as back:
            back.timeout = SECONDS
            back.write(b"b")
            assert back.read(1) == b"b"
    assert len(pair.alice.peers()) == 1


def test_bulk_with_content_check(pair: Pair) -> None:
    pair.bob.on_stream("digest")(digest)
    blob = os.urandom(MIB) * 64
    with pair.open("digest") as stream:
        assert stream.write(blob) == len(blob)
        stream.close_write()
        assert stream.read() == f"{len(blob)} {hashlib.sha256(blob).hexdigest()}".encode()
        assert stream.written == len(blob)
        assert stream.pending == 0
    until(pair.quiet)


def test_request_is_answered_while_bulk_runs(pair: Pair) -> None:
    begun = threading.Event()

    @pair.bob.on_stream("digest")
    def take(stream: Stream) -> None:
        stream.read(1)
        begun.set()
        digest(stream)

    pair.bob.on_request("echo")(lambda request: request.value)
    with pair.open("digest") as stream:
        blob = bytes(64 * MIB)

        def write() -> None:
            stream.write(blob)
            stream.close_write()

        writing = Task(write)
        assert begun.wait(SECONDS)
        assert pair.alice.request("bob", "echo", b"quick", timeout=SECONDS) == b"quick"
        assert writing.thread.is_alive()  # the bulk is not through
        writing.result()
        assert stream.read().startswith(b"%d " % (64 * MIB - 1))


def test_slow_reader_bounds_memory_on_both_sides(pair: Pair) -> None:
    held: list[Stream] = []
    go = threading.Event()

    @pair.bob.on_stream("digest")
    def slow(stream: Stream) -> None:
        held.append(stream)
        assert go.wait(SECONDS)
        digest(stream)

    blob = os.urandom(MIB) * 32
    with pair.open("digest") as stream:
        stream.timeout = 0.3
        with pytest.raises(OperationTimeout, match="does not take") as caught:
            stream.write(blob)
        assert caught.value.indeterminate
        assert WRITE_AHEAD <= stream.written <= WRITE_AHEAD + BULK_INITIAL + MIB
        assert held[0]._fed <= BULK_INITIAL  # nothing was read: no more is granted
        go.set()
        stream.timeout = SECONDS
        stream.write(memoryview(blob)[stream.written :])  # it is still usable
        stream.close_write()
        assert stream.read() == f"{len(blob)} {hashlib.sha256(blob).hexdigest()}".encode()


def test_reader_that_stops_in_the_middle_holds_at_most_a_window(pair: Pair) -> None:
    held: list[Stream] = []
    go = threading.Event()

    @pair.bob.on_stream("first")
    def first(stream: Stream) -> None:
        held.append(stream)
        stream.read(10)
        assert go.wait(SECONDS)

    with pair.open("first") as stream:
        stream.timeout = 0.5
        with pytest.raises(OperationTimeout):
            stream.write(bytes(32 * MIB))
        assert held[0]._fed - held[0]._read <= STREAM_WINDOW
        go.set()
        stream.timeout = SECONDS
        with pytest.raises(PeerUnreachable, match="gave the stream up"):
            stream.write(bytes(32 * MIB))
    until(pair.quiet)


# -- as a file object -------------------------------------------------------------------------


def test_wrapped_in_the_io_library(pair: Pair) -> None:
    pair.bob.on_stream("echo")(echo)
    stream = pair.open("echo")
    both: Any = io.BufferedRWPair(stream, stream)
    lines = io.TextIOWrapper(both, encoding="utf-8", newline="\n", write_through=True)
    lines.write("Myzel\nHüte\n")
    lines.flush()
    assert [lines.readline(), lines.readline()] == ["Myzel\n", "Hüte\n"]
    lines.close()
    assert stream.closed

    with pair.open("echo") as stream, io.BufferedWriter(stream) as writer:
        for number in range(1000):
            writer.write(b"%04d" % number)
        writer.flush()
        reader = io.BufferedReader(stream)
        assert reader.read(4000) == b"".join(b"%04d" % number for number in range(1000))


def test_any_buffer_is_written_and_may_change_afterwards(pair: Pair) -> None:
    pair.bob.on_stream("echo")(echo)
    with pair.open("echo") as stream:
        data = bytearray(b"before")
        stream.write(data)
        data[:] = b"after!"
        stream.write(memoryview(b"0123456789")[2:5])
        assert stream.write(memoryview(b"abcdefgh").cast("I")) == 8
        assert stream.write(b"") == 0
        assert stream.write((c_int * 3 * 0)()) == 0
        stream.close_write()
        into = bytearray(4)
        assert stream.readinto(into) in range(1, 5)
        assert (bytes(into) + stream.read()).replace(b"\0", b"").endswith(b"re234abcdefgh")
        assert stream.read(0) == b""


def test_what_is_written_before_close_arrives(pair: Pair) -> None:
    blob = os.urandom(MIB)
    found: list[bytes] = []
    done = threading.Event()

    @pair.bob.on_stream("keep")
    def keep(stream: Stream) -> None:
        found.append(stream.read())
        done.set()

    with pair.open("keep") as stream:
        stream.write(blob)
    pair.alice.close()
    assert done.wait(SECONDS)
    assert found == [blob]


def test_reading_goes_on_after_the_other_side_has_closed(pair: Pair) -> None:
    @pair.bob.on_stream("greet")
    def greet(stream: Stream) -> None:
        stream.write(b"welcome")

    with pair.open("greet") as stream:
        until(lambda: stream._refusal is not None)
        with pytest.raises(PeerUnreachable):
            stream.write(b"thanks")
        assert stream.read() == b"welcome"


# -- time and threads ----------------------------------------------------------------------------


def test_timeout_leaves_the_stream_usable(pair: Pair) -> None:
    pair.bob.on_stream("echo")(echo)
    with pair.open("echo") as stream:
        for timeout in (0, 0.02):
            stream.timeout = timeout
            with pytest.raises(OperationTimeout, match="nothing came"):
                stream.read(1)
        stream.timeout = SECONDS
        stream.write(b"x")
        assert stream.read(1) == b"x"


def test_read_to_the_end_that_times_out_keeps_what_came(pair: Pair) -> None:
    pair.bob.on_stream("echo")(echo)
    with pair.open("echo") as stream:
        stream.write(b"kept")
        stream.timeout = 0.2
        with pytest.raises(OperationTimeout):
            stream.read()
        stream.timeout = SECONDS
        stream.write(b", and more")
        stream.close_write()
        assert stream.read() == b"kept, and more"


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="needs the main thread")
def test_ctrl_c_leaves_the_stream_usable(pair: Pair) -> None:
    pair.bob.on_stream("echo")(echo)
    with pair.open("echo") as stream:
        main = threading.get_ident()

        def interrupt() -> None:
            until(lambda: stream._reader is not None)
            signal.pthread_kill(main, signal.SIGINT)

        task = Task(interrupt)
        with pytest.raises(KeyboardInterrupt):
            stream.read(1)
        task.result()
        stream.write(b"on")
        assert stream.read(2) == b"on"


def test_one_thread_reads_while_another_writes_and_a_third_closes(pair: Pair) -> None:
    pair.bob.on_stream("echo")(echo)
    stream = pair.open("echo")
    reading = Task(lambda: stream.read(1))
    until(lambda: stream._reader is not None)
    stream.timeout = 0.01
    with pytest.raises(OperationTimeout, match="another thread"):
        stream.read(1)
    stream.write(b"1")
    assert reading.result() == b"1"
    reading = Task(lambda: stream.read(1))
    stream.timeout = SECONDS
    until(lambda: stream._reader is not None)
    stream.close()
    with pytest.raises((OperationCancelled, OperationTimeout)):
        reading.result()
    until(pair.quiet)


# -- ends that come early ------------------------------------------------------------------------


def test_abort_by_the_opener(pair: Pair) -> None:
    errors: list[Exception] = []
    done = threading.Event()

    @pair.bob.on_stream("take")
    def take(stream: Stream) -> None:
        try:
            while stream.read(100):
                pass
        except PeerUnreachable as error:
            errors.append(error)
            with pytest.raises(PeerUnreachable):
                stream.write(b"too late")
        done.set()

    def leave() -> None:
        with pair.open("take") as stream:
            stream.write(b"half a sent")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()
    assert done.wait(SECONDS)
    assert "gave the stream up" in str(errors[0])
    until(pair.quiet)


def test_handler_that_raises_aborts(pair: Pair) -> None:
    @pair.bob.on_stream("bad")
    def bad(stream: Stream) -> None:
        stream.read(1)
        raise ZeroDivisionError("a mistake")

    with pair.open("bad") as stream:
        stream.write(b"xyz")
        for call in (stream.read, lambda: stream.write(b"x")):
            with pytest.raises(PeerUnreachable, match="gave the stream up"):
                call()
    until(lambda: pair.bob.metrics().get("streams.raised") == 1)
    until(pair.quiet)


def test_writer_hears_of_a_reader_that_went_and_the_connection_lives(pair: Pair) -> None:
    @pair.bob.on_stream("brief")
    def brief(stream: Stream) -> None:
        stream.read(1)

    pair.bob.on_request("echo")(lambda request: request.value)
    with pair.open("brief") as stream, pytest.raises(PeerUnreachable):
        stream.write(bytes(64 * MIB))
    assert pair.alice.request("bob", "echo", 1, timeout=SECONDS) == 1
    until(pair.quiet)  # what was under way then is no offence


def test_name_that_a_node_which_has_just_started_lacks_may_come(pair: Pair) -> None:
    with pair.open("nobody") as stream, pytest.raises(PeerUnreachable, match="yet: it has just started") as caught:
        stream.read(1)
    assert caught.value.retriable
    until(pair.quiet)


@pytest.mark.parametrize("act", ["read", "write"])
def test_unknown_name(pair: Pair, act: str) -> None:
    pair.bob._started._settled = 0.0
    with pair.open("nobody") as stream:
        with pytest.raises(PeerUnreachable, match="on_stream") as caught:
            stream.read(1) if act == "read" else stream.write(bytes(10))
        assert not caught.value.retriable
        assert caught.value.node == "bob"
        assert caught.value.operation == act
        for _ in range(2):
            with pytest.raises(PeerUnreachable):
                stream.write(b"x")
            with pytest.raises(PeerUnreachable):
                stream.read()
    until(pair.quiet)
    assert pair.bob.metrics()["streams.refused"] == 1


def test_unknown_name_and_much_to_write(pair: Pair) -> None:
    with pair.open("nobody") as stream, pytest.raises(PeerUnreachable, match="on_stream"):
        stream.write(bytes(16 * MIB))
    until(pair.quiet)


def test_names_are_checked(pair: Pair) -> None:
    for name in ("", "x" * 256, "mycorrizal/file"):
        with pytest.raises(ConfigError):
            pair.alice.open_stream("bob", name)
        with pytest.raises(ConfigError):
            pair.alice.on_stream(name)
    with pytest.raises(ConfigError, match="cannot be called"):
        pair.alice.on_stream("name")(3)  # type: ignore[type-var]


def test_more_streams_than_can_be_served() -> None:
    config = DataConfig(handler_spares=1)
    with DataPlane("alice", key=KEY) as alice, DataPlane("bob", key=KEY, config=config) as bob:
        alice.add_peer("bob", bob.address)
        pair = Pair(alice, bob)
        bob.on_stream("echo")(echo)
        with pair.open("echo") as stream:
            stream.write(b"1")
            with pair.open("echo") as other, pytest.raises(PeerBusy):
                other.write(b"2")
        until(lambda: left_open(bob) == (0, 0))
        until(lambda: _is_served(pair))  # the handler's thread gives its place back a moment after it closed the stream


def _is_served(pair: Pair) -> bool:
    with pair.open("echo") as stream:
        try:
            stream.write(b"3")
            return stream.read(1) == b"3"
        except PeerBusy:
            return False


def test_too_many_open_streams_are_refused_here(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "PIPES_MAX", 3)
    pair.bob.on_stream("echo")(echo)
    streams = [pair.open("echo") for _ in range(3)]
    with pytest.raises(QueueFull):
        pair.open("echo")
    for stream in streams:
        stream.close()
    until(pair.quiet)
    with pair.open("echo") as stream:
        stream.write(b"x")
        assert stream.read(1) == b"x"


def test_handlers_that_wait_leave_room_for_requests(pair: Pair) -> None:
    pair.bob.on_stream("echo")(echo)

    @pair.bob.on_request("double")
    def double(request: Request) -> object:
        return request.value * 2

    streams = [pair.open("echo") for _ in range(32)]
    for stream in streams:
        stream.write(b"x")
    assert pair.alice.request("bob", "double", 4, timeout=SECONDS) == 8
    for stream in streams:
        assert stream.read(1) == b"x"
        stream.close()
    until(pair.quiet)


# -- ends of the whole plane -----------------------------------------------------------------------


@pytest.mark.parametrize("act", ["read", "write"])
@pytest.mark.parametrize("who", ["alice", "bob"])
def test_plane_closes_while_blocked(pair: Pair, act: str, who: str) -> None:
    go = threading.Event()

    @pair.bob.on_stream("hold")
    def hold(stream: Stream) -> None:
        go.wait(SECONDS)

    stream = pair.open("hold")
    stream.write(b"x")
    task = Task(lambda: stream.read(1) if act == "read" else stream.write(bytes(32 * MIB)))
    until(lambda: (stream._reader if act == "read" else stream._writer) is not None)
    (pair.alice if who == "alice" else pair.bob).close(timeout=0.2)
    with pytest.raises(NotRunningError if who == "alice" else PeerUnreachable):
        task.result()
    for call in (lambda: stream.read(1), lambda: stream.write(b"x")):
        with pytest.raises((NotRunningError, PeerUnreachable)):
            call()
    stream.close()
    go.set()


def test_use_after_close_of_the_plane(pair: Pair) -> None:
    pair.bob.on_stream("echo")(echo)
    stream = pair.open("echo")
    stream.write(b"x")
    pair.alice.close()
    with pytest.raises(NotRunningError):
        pair.alice.open_stream("bob", "echo")
    stream.abort()
    stream.close()


def test_nobody_there() -> None:
    with DataPlane("alice", key=KEY, peers={"bob": ("127.0.0.1", 9)}) as alice:
        with pytest.raises(PeerUnreachable):
            alice.open_stream("bob", "echo")
        with pytest.raises(PeerUnreachable, match="no address"):
            alice.open_stream("carol", "echo")
        with pytest.raises(PeerUnreachable, match="oneself"):
            alice.open_stream("alice", "echo")


def test_opening_in_time(pair: Pair) -> None:
    with pytest.raises(OperationTimeout):
        pair.alice.open_stream("bob", "echo", timeout=0)
    until(lambda: not pair.alice._started.machine.peer("bob").openings)
    pair.bob.on_stream("echo")(echo)
    with pair.open("echo") as stream:
        stream.write(b"x")
        assert stream.read(1) == b"x"


def test_other_key_is_told_at_the_opening() -> None:
    with DataPlane("alice", key=KEY) as alice, DataPlane("bob", key=KEY[::-1]) as bob:
        alice.add_peer("bob", bob.address)
        with pytest.raises(PeerUnreachable, match="key"):
            alice.open_stream("bob", "echo")


# -- progress of a message ---------------------------------------------------------------------------


def test_receive_tells_progress(pair: Pair) -> None:
    blob = os.urandom(MIB) * 32
    told: list[tuple[int, int]] = []
    task = Task(lambda: pair.bob.receive(SECONDS, progress=lambda *step: told.append(step)))
    pair.alice.send("bob", blob, timeout=SECONDS)
    assert task.result().value == blob
    assert told[-1][0] == told[-1][1] >= len(blob)
    assert told == sorted(told)
    pair.alice.send("bob", "small")
    told.clear()
    assert pair.bob.receive(SECONDS, progress=lambda *step: told.append(step)).value == "small"
    assert told == []
    with pytest.raises(OperationTimeout):
        pair.bob.receive(0, progress=print)
