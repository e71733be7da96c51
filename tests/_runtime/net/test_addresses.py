"""Addresses as people write them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from mycorrizal._runtime.net import addresses
from mycorrizal._runtime.net.addresses import JoinEntry, ensure_port, has_port, parse_address, parse_entry
from mycorrizal.exceptions import ConfigError, PeerUnreachable

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "memberlist.json"
TABLE = [
    row
    for case in json.loads(VECTORS.read_text())["cases"]
    if case["kind"] == "formula.ensure_port"
    for row in case["output"]["table"]
]


@pytest.mark.parametrize(("text", "has", "ensured"), TABLE, ids=lambda value: repr(value))
def test_ports_as_go_sees_them(text: str, has: bool, ensured: str) -> None:
    assert has_port(text) is has
    assert ensure_port(text, 8301) == ensured


def test_vector_table_is_there() -> None:
    assert len(TABLE) == 15


@pytest.mark.parametrize("prefix", ["", "node-1/"])
@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1", "127.0.0.1", 7946),
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("localhost", "localhost", 7946),
        ("localhost:80", "localhost", 80),
        ("[2001:db8:a0b:12f0::1]", "2001:db8:a0b:12f0::1", 7946),
        ("[2001:db8:a0b:12f0::1]:80", "2001:db8:a0b:12f0::1", 80),
        ("2001:db8:a0b:12f0::1", "2001:db8:a0b:12f0::1", 7946),
        ("::1", "::1", 7946),
        ("fe80::1%eth0", "fe80::1%eth0", 7946),
    ],
)
def test_entries(prefix: str, text: str, host: str, port: int) -> None:
    entry = parse_entry(prefix + text, 7946)
    assert entry == JoinEntry(prefix + text, prefix.rstrip("/"), host, port)


@pytest.mark.parametrize(
    "text",
    [":80", "127.0.0.1:80000", "", "[::1]:x", "host:-1", "a/", "h:1٣", "host:0", "http://host:80", "a/b/c"],
)
def test_what_is_no_entry(text: str) -> None:
    with pytest.raises(ConfigError, match="addresses"):
        parse_entry(text, 7946)


def test_empty_name_and_wrong_type_are_said() -> None:
    with pytest.raises(ConfigError, match="empty node name"):
        parse_entry("/127.0.0.1", 7946)
    with pytest.raises(ConfigError, match="not text"):
        parse_entry(7, 7946)  # type: ignore[arg-type]


def test_destination_is_text_or_pair() -> None:
    assert parse_address(("10.0.0.5", 80), 7946) == JoinEntry("10.0.0.5:80", "", "10.0.0.5", 80)
    assert parse_address("bob/10.0.0.5", 7946) == JoinEntry("bob/10.0.0.5", "bob", "10.0.0.5", 7946)
    for wrong in (("10.0.0.5", 0), ("10.0.0.5", "80"), ("localhost", 80), "localhost:80"):
        with pytest.raises(ConfigError, match="address"):
            parse_address(wrong, 7946)  # type: ignore[arg-type]


def test_literals_need_no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "getaddrinfo")
    assert addresses.resolve("10.0.0.5", 1) == [("10.0.0.5", 1)]
    assert addresses.resolve("::1", 1) == [("::1", 1)]


def test_names_give_all_their_addresses_once(monkeypatch: pytest.MonkeyPatch) -> None:
    inet, inet6 = socket.AF_INET, socket.AF_INET6
    four, six = (inet, 0, 0, "", ("10.0.0.5", 1)), (inet6, 0, 0, "", ("::1", 1, 0, 0))
    answers = [four, six, four]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answers)
    assert addresses.resolve("seeds", 1) == [("10.0.0.5", 1), ("::1", 1)]


def test_resolver_s_error_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(PeerUnreachable, match=r"cannot resolve 'seeds': Name or service not known"):
        addresses.resolve("seeds", 1)


def test_private_addresses_are_chosen_in_order() -> None:
    public, loopback, link = "8.8.8.8", "127.0.0.1", "169.254.0.1"
    assert addresses.choose_private([public, loopback, link]) is None
    assert addresses.choose_private([loopback, "10.1.2.3", "192.168.0.1"]) == "10.1.2.3"
    assert addresses.choose_private(["::1", "fe80::1", "fd00::2"]) == "fd00::2"
    assert addresses.choose_private(["192.0.2.2", "100.64.0.9"]) == "100.64.0.9"  # documentation range first


def test_interfaces_of_this_host_are_literals() -> None:
    found = addresses.interface_addresses()
    assert len(found) == len(set(found))
    assert all(addresses.is_literal(host) for host in found)
    assert "127.0.0.1" in found


@pytest.mark.parametrize(
    ("hosts", "bind"),
    [
        (["10.0.0.5", "fd00::1"], "0.0.0.0"),
        (["10.0.0.5"], "0.0.0.0"),
        (["8.8.8.8", "127.0.0.1"], "0.0.0.0"),
        (["8.8.8.8", "2a00:1450::5"], "0.0.0.0"),
        (["8.8.8.8", "fd00::1"], "::"),
        (["127.0.0.1", "::1", "fe80::1"], "0.0.0.0"),
        (["127.0.0.1", "::1", "fe80::1", "2a00:1450::5"], "::"),
        (["::1", "fd00::1"], "::"),
        ([], "0.0.0.0"),
    ],
)
def test_where_to_listen_by_default(monkeypatch: pytest.MonkeyPatch, hosts: list[str], bind: str) -> None:
    monkeypatch.setattr(addresses, "interface_addresses", lambda: hosts)
    assert addresses.choose_bind(None) == bind


def test_who_advertises_an_address_listens_to_its_family() -> None:
    assert addresses.choose_bind("fd00::5") == "::"
    assert addresses.choose_bind("10.0.0.5") == "0.0.0.0"
