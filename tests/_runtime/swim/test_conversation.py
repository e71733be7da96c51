"""TCP conversations over real loopback sockets, without a machine."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from mycorrizal import (
    Config,
    ConnectionRefused,
    DecryptError,
    LabelMismatch,
    NotRunningError,
    OperationTimeout,
    PeerUnreachable,
    RemoteProtocolError,
)
from mycorrizal._runtime.swim import places
from mycorrizal._runtime.swim.conversation import Conversations, Heard
from mycorrizal._runtime.swim.exchanges import ExchangePool
from mycorrizal._runtime.swim.lobby import Guest, Lobby
from mycorrizal._runtime.threads import clock
from mycorrizal._runtime.threads.counters import Counters
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._runtime.threads.mailbox import Mailbox
from mycorrizal._wire.messages import AckResp, Err, Message, MessageType, Ping, PushNodeState, PushPull, User
from mycorrizal._wire.security import Keyring
from mycorrizal._wire.stream import StreamCodec
from mycorrizal.types import Address
from tests.keys import key_of

VSN = bytes((1, 5, 2, 0, 0, 0))
STATE = PushPull(tuple(PushNodeState(f"n{index}", b"\x7f\0\0\1", 1, None, 1, 0, VSN) for index in range(500)))


class Party:
    """One side: a codec, a pool that nobody runs on, a loop for who dials it, and what it was told."""

    def __init__(self, answer: Message | None = None, tcp_timeout: float = 5.0, **settings: object) -> None:
        config = Config.local(name="alice", tcp_timeout=tcp_timeout, **settings)
        keyring = Keyring.of(config)
        self.pool = ExchangePool(2, 2, "alice")
        self.counters = Counters()
        self.heard: list[Message] = []
        self.told = threading.Event()
        self.answer = answer
        codec = StreamCodec(config, keyring, lambda: os.urandom(12))
        self.talk = Conversations(codec, self.pool, self.counters, "alice", self._reply)
        self.config = config

    def _reply(self, message: Message, address: Address) -> Future[Message | None]:
        self.heard.append(message)
        self.told.set()
        future: Future[Message | None] = Future()
        future.set_result(self.answer)
        return future

    @contextlib.contextmanager
    def listening(self) -> Iterator[Address]:
        """Let others dial us: a lobby on a thread, as the gossip thread drives it."""
        done = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listener, selectors.PollSelector() as selector:
            listener.setblocking(False)
            mailbox = Mailbox()
            selector.register(mailbox, selectors.EVENT_READ, mailbox)
            lobby = Lobby(self.config, listener, selector, mailbox, self.pool, self.talk, self.counters)

            def run() -> None:
                while not done.is_set():
                    found = [key.data for key, _ in selector.select(0.01)]
                    lobby.ready([one for one in found if isinstance(one, Guest)], None in found)
                    mailbox.run()
                    lobby.handle_timer(clock.now())
                lobby.close()

            thread = threading.Thread(target=run)
            thread.start()
            try:
                yield listener.getsockname()
            finally:
                done.set()
                thread.join(10)
                assert not thread.is_alive()
                self.pool.close()
                assert self.pool.join(Deadline(10))
                mailbox.close()


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket, Address], None]) -> Iterator[Address]:
    """Accept one connection and hand it to `serve`, on a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with contextlib.suppress(OSError):
                sock, address = listener.accept()
                serve(sock, address)

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()
        thread.join(10)
        assert not thread.is_alive()


def hold(
    party: Party, address: Address, message: Message, *, reply: bool = True, timeout: float = 5.0
) -> Message | None:
    return party.talk.hold(address, message, reply, Deadline(timeout))


@pytest.mark.parametrize("wire", ["cbor", "msgpack"])
@pytest.mark.parametrize("key", [None, bytes(range(32))])
def test_question_and_answer(wire: str, key: bytes | None) -> None:
    dialler, other = (Party(answer=STATE, wire=wire, secret_key=key, label="blue") for _ in range(2))
    with other.listening() as address:
        assert hold(dialler, address, STATE) == STATE
    assert other.heard == [STATE]
    assert dialler.counters["tcp.connect"] == 1
    assert dialler.counters["tcp.received"] == other.counters["tcp.sent"] > 0


def test_user_message_wants_no_answer() -> None:
    dialler, other = Party(), Party()
    with other.listening() as address:
        assert hold(dialler, address, User(b"x" * 300000), reply=False) is None
        assert other.told.wait(60)  # nobody waits for an answer: the end comes while the other one still reads
    assert other.heard == [User(b"x" * 300000)]


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(ConnectionRefused, match=r"cannot connect to 127\.0\.0\.1:\d+: Connection refused") as caught:
        hold(Party(), address, Ping())
    assert isinstance(caught.value, PeerUnreachable)
    assert isinstance(caught.value, ConnectionRefusedError)


def test_silent_listener_ends_with_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(OperationTimeout, match="did not answer in time") as caught:
            hold(Party(), listener.getsockname(), Ping(), timeout=0.05)
        with pytest.raises(OperationTimeout):
            hold(Party(), listener.getsockname(), Ping(), timeout=0)
    assert isinstance(caught.value.__cause__, TimeoutError)


def reset(sock: socket.socket, address: Address) -> None:
    sock.recv(1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def drained(sock: socket.socket, address: Address) -> None:
    sock.recv(65536)
    sock.close()


@pytest.mark.parametrize("serve", [reset, drained])
def test_peer_that_closes_without_a_word_hints_at_the_settings(serve: Callable[..., None]) -> None:
    with listening(serve) as address, pytest.raises(PeerUnreachable, match=r"without a word.*wire=.*key.*label"):
        hold(Party(), address, Ping())


def test_answer_that_is_none_names_the_peer() -> None:
    def serve(sock: socket.socket, address: Address) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        sock.close()

    with listening(serve) as address, pytest.raises(RemoteProtocolError) as caught:
        hold(Party(), address, Ping())
    assert caught.value.node == f"127.0.0.1:{address[1]}"


def test_answers_count_too_and_one_that_is_too_much_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "BYTES_MAX", 1 << 20)
    dialler = Party(secret_key=key_of("a", 16))

    def pour(sock: socket.socket, address: Address) -> None:
        with contextlib.suppress(OSError):
            sock.sendall(b"\x0a" + (8 << 20).to_bytes(4, "big") + bytes(8 << 20))
        sock.close()

    with listening(pour) as address, pytest.raises(PeerUnreachable, match="too much memory") as caught:
        hold(dialler, address, STATE)
    assert caught.value.node == f"127.0.0.1:{address[1]}"
    assert dialler.counters["tcp.flooded"] == 1
    assert dialler.counters["tcp.received"] < 2 << 20
    assert dialler.talk.dialled.held == 0


def test_wrong_key_is_answered_with_an_error() -> None:
    dialler, other = Party(secret_key=key_of("a", 16)), Party(secret_key=key_of("b", 16))
    with other.listening() as address, pytest.raises(DecryptError):
        hold(dialler, address, STATE)  # the error message comes under the other's key
    assert other.heard == []
    assert other.counters["tcp.rejected"] == 1


def test_key_on_one_side_only_is_answered_in_clear(caplog: pytest.LogCaptureFixture) -> None:
    dialler, other = Party(secret_key=key_of("a", 16), gossip_verify_incoming=False), Party()
    with other.listening() as address:
        answer = hold(dialler, address, STATE)
    assert isinstance(answer, Err)
    assert "encryption is not configured" in answer.error
    assert "stream from 127.0.0.1" in caplog.text


def test_wrong_label_is_closed_in_silence() -> None:
    dialler, other = Party(label="blue"), Party(label="green")
    with other.listening() as address, pytest.raises((PeerUnreachable, LabelMismatch), match="label"):
        hold(dialler, address, STATE)
    assert other.counters["tcp.rejected"] == 1


def test_what_does_not_open_a_stream_is_refused() -> None:
    other = Party()
    with other.listening() as address, socket.create_connection(address) as sock:
        sock.sendall(StreamCodec(Config.local(name="b"), Keyring(), lambda: b"").seal(AckResp(1, None), answer=True))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1000):
            pass
    assert other.heard == []
    assert other.counters["tcp.rejected"] == 1


def test_dialler_that_says_nothing_or_half_is_given_up() -> None:
    other = Party(tcp_timeout=0.05)
    with other.listening() as address:
        with socket.create_connection(address) as sock:
            assert sock.recv(10) == b""
        assert other.counters["tcp.silent"] == 1
        with socket.create_connection(address) as sock:
            sock.sendall(bytes((MessageType.PUSH_PULL,)))
            assert sock.recv(10) == b""
        assert other.counters["tcp.timeouts"] == 1
        with socket.create_connection(address) as sock:
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(10) == b""
    assert other.counters["tcp.rejected"] == other.counters["tcp.broken"] == 0


def test_dialler_that_ends_in_the_middle_is_refused() -> None:
    other = Party()
    with other.listening() as address, socket.create_connection(address) as sock:
        sock.sendall(bytes((MessageType.PUSH_PULL,)))
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(10) == b""
    assert other.counters["tcp.rejected"] == 1


def test_closing_the_pool_ends_it_as_not_running() -> None:
    dialler = Party()

    def serve(sock: socket.socket, address: Address) -> None:
        dialler.pool.close()
        sock.recv(10)
        sock.close()

    with listening(serve) as address:
        with pytest.raises(NotRunningError):
            hold(dialler, address, Ping(), timeout=10)
        with pytest.raises(NotRunningError):
            hold(dialler, address, Ping())


def test_address_that_cannot_be_one() -> None:
    with pytest.raises(PeerUnreachable, match="cannot connect"):
        hold(Party(), ("not-a-literal", 1), Ping())


def test_machine_that_does_not_answer_is_counted() -> None:
    other = Party(answer=STATE)
    reader = other.talk.reader()
    assert reader.hold(StreamCodec(Config.local(name="b"), Keyring(), lambda: b"").seal(STATE, answer=False))
    over = Party(answer=STATE)
    over._reply = lambda message, address: Future()  # type: ignore[method-assign]
    over.talk._answerer = over._reply
    assert over.talk.advance(reader, ("127.0.0.1", 1), Deadline(0)) == Heard()
    assert over.counters["tcp.timeouts"] == 1
