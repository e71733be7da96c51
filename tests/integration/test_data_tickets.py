"""No session is resumed: a ticket would pass the certificate by, and 0-RTT the proof."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic.quic.connection import QuicConnection

from mycorrizal._wire.values import encode_value
from mycorrizal.dataplane import DataPlane
from tests._runtime.quic.rig import inside

from . import raw_client
from .planes import KEY, mesh
from .raw_client import RawClient


def test_a_node_gives_no_ticket_to_a_client_that_would_take_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets: list[Any] = []

    def greedy(**arguments: Any) -> QuicConnection:
        return QuicConnection(**arguments, session_ticket_handler=tickets.append)

    monkeypatch.setattr(raw_client, "QuicConnection", greedy)
    with DataPlane("server", key=KEY) as server:
        server.on_request("echo")(lambda request: request.value)
        with RawClient(server.address, "server") as raw:
            raw.join().say(raw.request(1, "echo", encode_value("x").pack()))
            assert raw.pump(lambda: raw.frames), "a ticket would have come before the answer"
    assert tickets == []


def test_a_node_that_dials_again_offers_no_ticket_and_no_early_data() -> None:
    with mesh("a", "b") as (a, b):
        b.on_request("echo")(lambda request: request.value)
        assert a.request("b", "echo", 1) == 1
        a.remove_peer("b")
        a.add_peer("b", b.address)
        assert a.request("b", "echo", 2) == 2
        seen = [inside(conn) for plane in (a, b) for conn in plane._started.endpoint.connections]
        assert seen
        for quic in seen:
            assert not quic.tls.session_resumed
            assert not quic.tls.early_data_accepted
            assert quic.configuration.session_ticket is None
