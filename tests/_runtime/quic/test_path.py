"""The socket, and what the system says about ways to peers."""

from __future__ import annotations

import errno
import select
import socket
import sys

import pytest

from mycorrizal._runtime.quic import path
from mycorrizal.exceptions import BindError
from tests.needs import lacks

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")


def test_socket_is_bound_and_large() -> None:
    with path.open_socket("127.0.0.1", 0) as sock:
        assert 0 < sock.getsockname()[1] < 65280 and not sock.getblocking()
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 200_000
        assert 1 << 16 <= path.receive_window(sock) <= 1 << 20
        with pytest.raises(BindError) as info:
            path.open_socket("127.0.0.1", sock.getsockname()[1])
        assert info.value.errno == errno.EADDRINUSE
    with pytest.raises(BindError):
        path.open_socket("192.0.2.1", 0)


def test_ports_above_are_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "_PORTS_BELOW", 0)
    monkeypatch.setattr(path, "_PORT_TRIES", 3)
    path.open_socket("127.0.0.1", 0).close()  # the last try takes what there is


@linux
def test_loopback_is_local_and_large() -> None:
    assert path.inspect(("127.0.0.1", 9)) == (True, 16384)
    assert path.inspect(("127.0.0.5", 9), 4000) == (True, 4000)


def test_unreachable_is_small_and_not_local() -> None:
    info = path.inspect(("240.0.0.1", 9))
    assert not info.local and info.mtu >= 1200
    assert path.inspect(("not an address", 9)) == (False, 1200)


def test_sockaddr_compares_with_what_arrives() -> None:
    with path.open_socket("127.0.0.1", 0) as sock:
        assert path.sockaddr_of(sock, ("127.0.0.1", 5)) == ("127.0.0.1", 5)
        for wrong in ("::1", "localhost", ""):
            with pytest.raises(OSError, match=r"[Nn]ame|illegal"):
                path.sockaddr_of(sock, (wrong, 5))
    try:
        six = path.open_socket("::", 0)
    except BindError:
        lacks("no IPv6 here; `sysctl net.ipv6.conf.all.disable_ipv6=0` gives it")
    with six, path.open_socket("127.0.0.1", 0) as four:
        four.sendto(b"x", ("127.0.0.1", six.getsockname()[1]))
        select.select([six], [], [], 5.0)
        _, source = six.recvfrom(10)
        assert source == path.sockaddr_of(six, ("127.0.0.1", four.getsockname()[1]))


@linux
def test_refusals_are_queued_with_their_address() -> None:
    with path.open_socket("127.0.0.1", 0) as sock:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            nobody = free.getsockname()
        sock.sendto(b"x", nobody)
        select.select([sock], [], [], 5.0)
        assert path.pending_errors(sock) == [path.SocketError(nobody, errno.ECONNREFUSED, 0)]
        assert path.pending_errors(sock) == []


@linux
def test_too_large_is_an_error_not_a_fragment() -> None:
    with path.open_socket("127.0.0.1", 0) as sock:
        with pytest.raises(OSError, match="long") as info:
            sock.sendto(bytes(65_600), ("127.0.0.1", 9))
        assert info.value.errno == errno.EMSGSIZE


def test_text_of_errors() -> None:
    assert "refused" in path.strerror(errno.ECONNREFUSED)
