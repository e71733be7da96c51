"""The client's end where the other end is odd: somebody else's, silent, or talking nonsense."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
import zmq

from mycorrizal import ControlError, NotRunningError, OperationTimeout, PeerUnreachable, RemoteProtocolError
from mycorrizal._control.messages import encode_event, encode_failure, encode_reply, encode_request
from mycorrizal._runtime.control import client as control_client
from mycorrizal._runtime.control import endpoints
from mycorrizal.control import ControlClient, ControlEvents

Answer = Callable[[dict[str, Any]], list[bytes]]


class Odd:
    """A ROUTER and a PUB of pyzmq that answer as a test wants."""

    def __init__(self, folder: Path, answer: Answer) -> None:
        self.endpoint, self.events = f"ipc://{folder}/c", f"ipc://{folder}/e"
        self._answer = answer
        self._context = zmq.Context()
        self._router: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._router.bind(self.endpoint)
        self.publisher: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        self.publisher.bind(self.events)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            if self._router.poll(20):
                identity, data = self._router.recv_multipart()
                for reply in self._answer(cbor2.loads(data)):
                    self._router.send_multipart([identity, reply])

    def close(self) -> None:
        self._ending.set()
        self._thread.join(10)
        self._context.destroy(linger=0)


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[Callable[[Answer], Odd]]:
    made: list[Odd] = []

    def make(answer: Answer) -> Odd:
        made.append(Odd(tmp_path, answer))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_reply_to_another_question_is_passed_over(odd: Callable[[Answer], Odd]) -> None:
    other = odd(lambda asked: [encode_reply(77, "late"), encode_reply(asked["id"], "mine")])
    with ControlClient(other.endpoint) as client:
        assert client.call("ping") == "mine"
        assert client.call("ping") == "mine"


def test_reply_that_is_none_is_an_error_and_the_next_call_is_fine(odd: Callable[[Answer], Odd]) -> None:
    answers = [[b"\xff"], [cbor2.dumps({"id": 2, "ok": False, "error": 5})]]
    other = odd(lambda asked: answers.pop() if answers else [encode_reply(asked["id"], 1)])
    with ControlClient(other.endpoint) as client:
        for _ in range(2):
            with pytest.raises(RemoteProtocolError):
                client.call("ping")
        assert client.call("ping") == 1


def test_error_without_a_number_is_for_who_asks(odd: Callable[[Answer], Odd]) -> None:
    other = odd(lambda asked: [encode_failure(None, "bad_request", ValueError("unreadable"))])
    with ControlClient(other.endpoint, timeout=10) as client, pytest.raises(ControlError, match="unreadable"):
        client.call("ping")


def test_sockets_are_used_again_unless_they_were_given_up(
    odd: Callable[[Answer], Odd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late reply would wait on one for the question after the next."""
    silent: list[bool] = []
    other = odd(lambda asked: [] if silent else [encode_reply(asked["id"], 1)])
    with ControlClient(other.endpoint, timeout=10) as client:
        channel = client._channel
        for _ in range(3):
            client.call("ping")
            assert len(channel._idle) == 1
        silent.append(True)
        with pytest.raises(OperationTimeout):
            channel.call(9, encode_request(9, "ping", {}), 0.1)
        assert channel._idle == []
        silent.clear()
        client.call("ping")
        monkeypatch.setattr(control_client, "IDLE_MAX", 0)
        client.call("ping")
        assert channel._idle == []


def test_question_that_comes_back_is_no_reply(odd: Callable[[Answer], Odd]) -> None:
    other = odd(lambda asked: [cbor2.dumps(asked)])
    with ControlClient(other.endpoint) as client, pytest.raises(RemoteProtocolError):
        client.call("ping")


def test_silence_is_a_timeout_that_says_that_it_may_have_happened(odd: Callable[[Answer], Odd]) -> None:
    other = odd(lambda asked: [])
    with ControlClient(other.endpoint, timeout=0.1) as client:
        with pytest.raises(OperationTimeout) as caught:
            client.call("ping")
        assert caught.value.indeterminate
        with pytest.raises(OperationTimeout):
            ControlEvents(other.events, ("event.",), 0.1)


def test_agent_without_events_says_so(odd: Callable[[Answer], Odd]) -> None:
    other = odd(lambda asked: [encode_reply(asked["id"], {"endpoint": None})])
    with ControlClient(other.endpoint) as client, pytest.raises(ControlError) as caught:
        client.events()
    assert caught.value.code == "unsupported"


def test_events_before_the_beginning_are_kept_and_nonsense_is_passed_over(odd: Callable[[Answer], Odd]) -> None:
    other = odd(lambda asked: [encode_reply(asked["id"], {"endpoint": other.events})])
    publisher = other.publisher

    def publish() -> None:
        while publisher.poll(10_000):
            subscribed = publisher.recv()
            if subscribed.startswith(b"\x01event."):
                publisher.send_multipart([b"event.x", encode_event("event.x", (1, 1), "a", {})])
                publisher.send_multipart([b"event.x", b"\xff"])
            elif subscribed.startswith(b"\x01control.hello."):
                publisher.send_multipart([subscribed[1:], encode_event("control.hello", (1, 0), "a", {})])
                publisher.send_multipart([b"event.x", encode_event("event.x", (9, 5), "a", {})])
                publisher.send_multipart([b"event.x", encode_event("event.x", (1, 1), "b", {})])
                # Of an agent that was started again nothing is lost, however far it has come.
                publisher.send_multipart([b"event.x", encode_event("event.x", (9, 9), "c", {})])
                return

    thread = threading.Thread(target=publish)
    thread.start()
    with ControlClient(other.endpoint) as client, client.events() as events:
        thread.join(10)
        found = [events.get(10) for _ in range(4)]
    assert [(event.publisher, event.topic_sequence, event.lost) for event in found] == [
        ("a", 1, 0),
        ("a", 5, 3),
        ("b", 1, 0),
        ("c", 9, 0),
    ]


def test_topics_that_a_reader_remembers_are_bounded(
    odd: Callable[[Answer], Odd], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = odd(lambda asked: [])
    monkeypatch.setattr(control_client, "TOPICS_MAX", 2)
    publisher = other.publisher

    def publish() -> None:
        while not (subscribed := publisher.recv()).startswith(b"\x01control.hello."):
            pass
        publisher.send_multipart([subscribed[1:], encode_event("control.hello", (1, 0), "a", {})])
        for number in range(5):
            publisher.send_multipart([b"event.%d" % number, encode_event(f"event.{number}", (number, 1), "a", {})])

    thread = threading.Thread(target=publish)
    thread.start()
    with ControlEvents(other.events, ("event.",), 10) as events:
        for _ in range(5):
            events.get(10)
        assert list(events._seen) == ["event.3", "event.4"]
    thread.join(10)


def test_somebody_elses_agent_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(endpoint: object) -> bool:
        raise PermissionError

    monkeypatch.setattr(control_client, "reachable", refuse)
    with ControlClient(f"ipc://{tmp_path}/c") as client:
        with pytest.raises(PeerUnreachable, match="belongs to another user") as caught:
            client.call("ping")
        assert not caught.value.retriable


def test_client_closed_while_it_connects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = ControlClient(f"ipc://{tmp_path}/c")

    def close(endpoint: endpoints.Endpoint) -> bool:
        client.close()
        return True

    monkeypatch.setattr(control_client, "reachable", close)
    with pytest.raises(NotRunningError):
        client.call("ping")
