"""Binding, and addresses as sockets see them."""

from __future__ import annotations

import errno
import socket

import pytest

from mycorrizal import BindError, Config, ConfigError
from mycorrizal._runtime.net import addresses, sockets
from mycorrizal.types import pack_host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])
def test_both_sockets_share_a_free_port(host: str) -> None:
    bound = sockets.bind(host, 0)
    try:
        assert bound.port == bound.udp.getsockname()[1] == bound.tcp.getsockname()[1] > 0
        assert bound.udp.getblocking() is bound.tcp.getblocking() is False
    finally:
        bound.close()


def test_two_stack_socket_hears_both_families() -> None:
    bound = sockets.bind("::", 0)
    try:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x", (host, bound.port))
                bound.udp.settimeout(10)
                assert sockets.from_sockaddr(bound.udp.recvfrom(10)[1])[0] == host
    finally:
        bound.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_port_in_use_is_said_with_what_to_do(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BindError, match=rf"127\.0\.0\.1:{port}.*choose another bind_port") as caught:
            sockets.bind("127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE
    assert isinstance(caught.value, OSError)


def test_foreign_address_is_said() -> None:
    with pytest.raises(BindError, match="not an address of this host"):
        sockets.bind("192.0.2.200", 0)
    with pytest.raises(BindError, match=r"\[2001:db8::dead\]:7946"):
        sockets.bind("2001:db8::dead", 7946)


def test_free_for_tcp_but_not_for_udp_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []
    real = sockets._bind_once

    def unlucky(family: socket.AddressFamily, host: str, port: int) -> sockets.BoundSockets:
        tries.append(port)
        if len(tries) < 10:
            raise OSError(errno.EADDRINUSE, "taken")
        return real(family, host, port)

    monkeypatch.setattr(sockets, "_bind_once", unlucky)
    sockets.bind("127.0.0.1", 0).close()
    assert tries == [0] * 10
    tries.clear()
    monkeypatch.setattr(sockets, "_bind_once", lambda *args: (_ for _ in ()).throw(OSError(errno.EADDRINUSE, "taken")))
    with pytest.raises(BindError):
        sockets.bind("127.0.0.1", 0)


def test_receive_buffer_is_halved_until_accepted() -> None:
    class Picky:
        asked: list[int] = []  # noqa: RUF012

        def setsockopt(self, level: int, option: int, size: int) -> None:
            self.asked.append(size)
            if size > 300:
                raise OSError

    picky = Picky()
    assert sockets.set_receive_buffer(picky, 1000) == 250  # type: ignore[arg-type]
    assert picky.asked == [1000, 500, 250]
    picky.setsockopt = lambda *args: (_ for _ in ()).throw(OSError)  # type: ignore[method-assign]
    assert sockets.set_receive_buffer(picky, 1000) == 0  # type: ignore[arg-type]


def test_addresses_of_sockets() -> None:
    assert sockets.from_sockaddr(("::ffff:10.0.0.5", 1, 0, 0)) == ("10.0.0.5", 1)
    assert sockets.from_sockaddr(("10.0.0.5", 1)) == ("10.0.0.5", 1)
    assert sockets.to_sockaddr(socket.AF_INET6, ("10.0.0.5", 1)) == ("::ffff:10.0.0.5", 1)
    assert sockets.to_sockaddr(socket.AF_INET6, ("::1", 1)) == ("::1", 1)
    assert sockets.to_sockaddr(socket.AF_INET, ("10.0.0.5", 1)) == ("10.0.0.5", 1)


def test_advertised_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def advertised(**settings: object) -> tuple[bytes, int]:
        return sockets.advertised(Config.lan(name="a", **settings), 1234)

    monkeypatch.setattr(addresses, "interface_addresses", lambda: ["8.8.8.8", "fd00::1", "10.9.9.9"])
    assert advertised(advertise_addr="1.2.3.4", advertise_port=80) == (pack_host("1.2.3.4"), 80)
    assert advertised(advertise_addr="1.2.3.4") == (pack_host("1.2.3.4"), 1234)
    assert advertised() == (pack_host("10.9.9.9"), 1234)  # four bytes, where Go sends sixteen
    assert advertised(bind_addr="::") == (pack_host("fd00::1"), 1234)
    monkeypatch.setattr(addresses, "interface_addresses", lambda: ["8.8.8.8", "127.0.0.1"])
    with pytest.raises(ConfigError, match="advertise_addr.*no private address"):
        advertised()
    monkeypatch.setattr(addresses, "interface_addresses", lambda: ["127.0.0.1", "fe80::1", "2a00:1450::5", "fd00::1"])
    assert advertised(bind_addr="::") == (pack_host("fd00::1"), 1234)
    monkeypatch.setattr(addresses, "interface_addresses", lambda: ["8.8.8.8", "::1", "fe80::1", "2a00:1450::5"])
    assert advertised(bind_addr="::") == (pack_host("2a00:1450::5"), 1234)
    with pytest.raises(ConfigError, match="no private address"):
        advertised()
