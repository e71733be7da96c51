"""A stranger's text over real sockets: an error answer without a key, and a close of QUIC before any proof."""

from __future__ import annotations

import logging
import socket
import threading

import pytest

from mycorrizal import Config, DataPlane, JoinError, Memberlist, PeerUnreachable
from mycorrizal._data.link import Link
from mycorrizal._wire.frames import Close
from mycorrizal._wire.messages import Err
from mycorrizal._wire.security import Keyring
from mycorrizal._wire.stream import StreamCodec

EVIL = "EVIL\nERROR forged\r\x1b[2J\x9b\u202e\u2028"
SHOWN = r"EVIL\nERROR forged\r\x1b[2J\x9b\u202e\u2028"


def expect_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Every record is one printable line, and one at least has the text."""
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("mycorrizal")]
    assert all(line.isprintable() for line in lines)
    assert any(SHOWN in line for line in lines)


def test_an_error_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mycorrizal")
    config = Config.local(name="a", bind_addr="127.0.0.1", bind_port=0)
    answer = StreamCodec(config, Keyring(), lambda: bytes(12)).seal(Err(EVIL), answer=True)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as conn:
                conn.recv(65536)
                conn.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        with Memberlist(config) as members, pytest.raises(JoinError) as caught:
            members.join([f"127.0.0.1:{server.getsockname()[1]}"], timeout=10)
    assert SHOWN in str(caught.value) and str(caught.value).isprintable()
    expect_lines(caplog)


def test_a_close_before_any_proof(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mycorrizal")
    with DataPlane("a", insecure=True) as a, DataPlane("b", insecure=True) as b:
        machine = b._started.machine

        def claim(link: Link, name: str, boot: bytes, now: float) -> None:
            link.conn._quic.close(error_code=int(Close.NOT_PROVED), reason_phrase=EVIL)  # type: ignore[attr-defined]
            link.conn.touch()

        machine.claim = claim  # type: ignore[method-assign]
        a.add_peer("b", b.address)
        with pytest.raises(PeerUnreachable) as caught:
            a.request("b", "name", 1, timeout=10)
    assert SHOWN in str(caught.value) and str(caught.value).isprintable()
    expect_lines(caplog)
