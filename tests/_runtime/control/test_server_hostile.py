"""Clients of the control plane that flood, send rubbish, do not read or go away: the agent lives, others are served."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import cbor2
import pytest
import zmq

from mycorrizal._control.messages import REQUEST_MAX, encode_request
from mycorrizal._runtime.control import server as zeromq
from mycorrizal._runtime.control import sockets as control_sockets
from mycorrizal._runtime.control.server import ControlService
from mycorrizal.control import ControlClient
from tests._control.fake import FakeAgent

from .raw_control import Raw

ROOT = Path(__file__).resolve().parents[3]

MALFORMED = [b"", b"\xff" * 10, cbor2.dumps({"id": 1}), b"\x81" * 5000, cbor2.dumps("ping"), cbor2.dumps({"id": {}})]


@pytest.mark.parametrize("data", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_request_gets_an_error_reply(client: ControlClient, raw: Callable[..., Raw], data: bytes) -> None:
    reply = raw().ask(data)
    assert reply["error"]["code"] == "malformed" and reply["id"] is None
    assert client.call("ping")


def test_message_of_many_frames_is_refused_and_counted(
    client: ControlClient, raw: Callable[..., Raw], plane: ControlService
) -> None:
    assert raw().ask(b"a", b"b", b"c")["error"]["code"] == "malformed"
    assert plane.metrics()["control.malformed"] == 1
    endless = raw(RECONNECT_IVL=-1)
    endless.send(b"a", *[b"x"] * 10_000)
    while plane.metrics()["control.malformed"] < 2:
        client.call("ping")
    assert not endless.socket.poll(0)


def test_request_that_is_too_large(client: ControlClient, raw: Callable[..., Raw], plane: ControlService) -> None:
    assert raw().ask(bytes(REQUEST_MAX + 1))["error"]["code"] == "too_large"
    hostile = raw(RECONNECT_IVL=-1)
    hostile.send(bytes(2 * REQUEST_MAX))
    while not plane.metrics()["control.malformed"]:
        client.call("ping")
    assert not hostile.socket.poll(0)


def test_flood_is_refused_without_harm_to_others(
    client: ControlClient, agent: FakeAgent, raw: Callable[..., Raw], plane: ControlService
) -> None:
    flood = raw(RCVHWM=0)
    for number in range(500):
        flood.send(encode_request(number, "request", {"node": "bob", "name": "wait", "timeout": 30}))
    first = flood.reply()
    assert first["error"]["code"] == "busy" and first["error"]["retriable"] and isinstance(first["id"], int)
    assert client.call("ping")
    assert plane.metrics()["control.open"] <= zeromq.PER_CLIENT + 1
    agent.gate.set()


def test_client_that_never_reads_loses_its_replies(
    client: ControlClient, agent: FakeAgent, raw: Callable[..., Raw], plane: ControlService
) -> None:
    agent.handlers["big"] = lambda value: bytes(1 << 20)
    deaf = raw(RCVHWM=1, RCVBUF=1024)
    number = 0
    while not plane.metrics()["control.replies_dropped"]:
        deaf.socket.send(encode_request(number, "request", {"node": "bob", "name": "big"}), zmq.NOBLOCK)
        number += 1
        assert client.call("ping")
        assert number < 1000


def test_reply_to_a_client_that_is_gone_is_dropped_and_counted(
    client: ControlClient, agent: FakeAgent, raw: Callable[..., Raw], plane: ControlService
) -> None:
    gone = raw()
    gone.send(encode_request(1, "request", {"node": "bob", "name": "wait", "timeout": 30}))
    while not agent.calls:
        client.call("ping")
    gone.close()
    while not plane.metrics()["control.disconnects"]:
        client.call("ping")
    agent.gate.set()
    while not plane.metrics()["control.replies_dropped"]:
        client.call("ping")


def test_bytes_of_open_requests_are_bounded(
    agent: FakeAgent, raw: Callable[..., Raw], plane: ControlService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeromq, "REQUEST_BYTES", 100_000)
    large = {"node": "bob", "name": "wait", "value": bytes(60_000), "timeout": 30}
    one = raw()
    one.send(encode_request(1, "request", large))
    assert one.ask(encode_request(2, "request", large))["error"]["code"] == "busy"
    agent.gate.set()
    assert one.reply()["ok"]
    assert plane._bytes == 0 and not plane._open and not plane._by_client


# -- below ZeroMQ ---------------------------------------------------------------------------


def connected(endpoint: str) -> socket.socket:
    """Return a plain socket that is connected there."""
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(10)
    while True:
        try:
            one.connect(endpoint.removeprefix("ipc://"))
            return one
        except BlockingIOError:  # its queue is full for the moment
            pass


def ended(one: socket.socket) -> bool:
    """Return whether the other side closed the connection, once it has said all."""
    try:
        while one.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("data", [b"GET / HTTP/1.0\r\n\r\n", b"\xff" + bytes(9), bytes(100), b"\xff" * 100])
def test_who_does_not_speak_zeromq_is_disconnected(client: ControlClient, plane: ControlService, data: bytes) -> None:
    for endpoint in (plane.commands, plane.events):
        with connected(endpoint) as one:
            one.sendall(data)
            assert ended(one)
    assert plane.metrics()["control.handshakes_failed"] == 2
    assert client.call("ping")


def test_who_says_nothing_is_disconnected(
    client: ControlClient, plane: ControlService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_sockets, "HANDSHAKE_SECONDS", 0.2)
    with connected(plane.commands) as silent, connected(plane.commands) as slow:
        slow.sendall(b"\xff")
        assert ended(silent) and ended(slow)
    assert plane.metrics()["control.handshakes_failed"] == 2
    assert client.call("ping")


def test_connections_are_bounded_and_the_longest_silent_goes(client: ControlClient, plane: ControlService) -> None:
    with ExitStack() as stack:
        crowd = [stack.enter_context(connected(plane.commands)) for _ in range(control_sockets.CLIENTS_MAX + 10)]
        assert ended(crowd[0])
        while plane.metrics()["control.refused"] < 10:
            pass
        assert client.call("ping")
        assert crowd[-1].recv(64)[:1] == b"\xff"


def test_subscriptions_are_bounded(client: ControlClient, plane: ControlService) -> None:
    greedy = Raw(plane.events, zmq.SUB, RECONNECT_IVL=-1)
    for number in range(control_sockets.SUBSCRIPTIONS_MAX + 1):
        greedy.socket.setsockopt(zmq.SUBSCRIBE, b"topic %d" % number)
    while not plane.metrics()["control.malformed"]:
        client.call("ping")
    greedy.close()
    with client.events() as events:
        plane.publish("event.x", {})
        assert events.get(10).topic == "event.x"


def test_subscription_ends_when_it_is_cancelled(client: ControlClient, plane: ControlService) -> None:
    reader = Raw(plane.events, zmq.SUB)
    for topic in (b"event.a", b"event.b", b"control.hello.1"):
        reader.socket.setsockopt(zmq.SUBSCRIBE, topic)
    assert reader.reply()["topic"] == "control.hello.1"
    reader.socket.setsockopt(zmq.UNSUBSCRIBE, b"event.a")
    reader.socket.setsockopt(zmq.SUBSCRIBE, b"control.hello.2")
    assert reader.reply()["topic"] == "control.hello.2"
    plane.publish("event.a", {})
    plane.publish("event.b", {})
    assert reader.reply()["topic"] == "event.b"
    reader.close()


def test_subscriber_that_does_not_read_loses_events_which_are_counted(
    client: ControlClient, plane: ControlService
) -> None:
    deaf = Raw(plane.events, zmq.SUB, RCVHWM=1, RCVBUF=1024)
    for topic in (b"event.", b"control.hello.1"):
        deaf.socket.setsockopt(zmq.SUBSCRIBE, topic)
    assert deaf.reply()["topic"] == "control.hello.1"
    with client.events() as events:
        while not plane.metrics()["control.events_dropped"]:
            plane.publish("event.x", {"fill": bytes(10_000)})
            assert events.get(10).lost == 0  # who reads loses nothing
    deaf.close()


POOR = """
import os, resource, socket, sys
from pathlib import Path
from tests._control.fake import FakeAgent
from mycorrizal.control import ControlService

plane = ControlService(FakeAgent(), commands=f"ipc://{sys.argv[1]}/c", events=f"ipc://{sys.argv[1]}/e")
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
print("ready", flush=True)
for line in sys.stdin:
    if line == "hold\\n":
        held = []
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            print("held", flush=True)
    elif line == "free\\n":
        for number in held:
            os.close(number)
        print("freed", plane.metrics()["control.refused"], flush=True)
"""


def test_process_without_descriptors_refuses_connections_and_goes_on(tmp_path: Path) -> None:
    """With libzmq's listener this is the end of the process: SIGABRT."""
    command = [sys.executable, "-c", POOR, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def tell(order: str) -> str:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(order + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        with ControlClient(f"ipc://{tmp_path}/c") as before:
            assert before.call("ping")
            assert tell("hold") == "held"
            for _ in range(3):
                with connected(f"ipc://{tmp_path}/c") as refused:
                    assert ended(refused)
            assert before.call("ping")  # who is in stays in
            word, count = tell("free").split()
            assert word == "freed" and int(count) >= 3
        with ControlClient(f"ipc://{tmp_path}/c") as after, ExitStack() as stack:
            assert after.call("ping")
            for _ in range(100):  # more than it has descriptors
                stack.enter_context(connected(f"ipc://{tmp_path}/c"))
            assert process.poll() is None
        process.stdin.close()
        assert process.wait(20) == 0
