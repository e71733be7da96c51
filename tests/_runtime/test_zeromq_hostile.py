"""Clients of the control plane that flood, send rubbish, do not read or go away: the agent lives, others are served."""

from __future__ import annotations

from collections.abc import Callable

import cbor2
import pytest
import zmq

from mycorrizal._control.messages import REQUEST_MAX, encode_request
from mycorrizal._runtime import zeromq
from mycorrizal._runtime.zeromq import ControlService
from mycorrizal.control import ControlClient
from tests._control.fake import FakeAgent

from .raw_control import Raw

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
    assert raw().ask(b"a", *[b"x"] * 10_000)["error"]["code"] == "malformed"
    assert plane.metrics()["control.malformed"] == 2
    assert client.call("ping")


def test_request_that_is_too_large(client: ControlClient, raw: Callable[..., Raw], plane: ControlService) -> None:
    assert raw().ask(bytes(REQUEST_MAX + 1))["error"]["code"] == "too_large"
    hostile = raw(RECONNECT_IVL=-1)
    hostile.send(bytes(2 * REQUEST_MAX))
    while not plane.metrics()["control.disconnects"]:
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
