"""sd_notify: what arrives at the socket that the environment names, and that its want harms nobody."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mycorrizal._runtime.host.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[tuple[str, socket.socket]]:
    """The name for ``$NOTIFY_SOCKET``, and the socket at which a service manager listens."""
    with tempfile.TemporaryDirectory(prefix="myc-") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = str(Path(folder, "notify")) if request.param == "path" else f"@{folder}"
        sock.bind(name if name.startswith("/") else "\0" + name[1:])
        sock.setblocking(False)
        yield name, sock


def test_what_is_told_arrives_as_lines(manager: tuple[str, socket.socket]) -> None:
    name, sock = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())})
    assert notifier.watchdog == 3.0
    assert notifier.tell("READY=1", "STATUS=a\nFORGED=1")
    assert sock.recv(4096) == b"READY=1\nSTATUS=a FORGED=1"


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1234", "/nowhere/at/all", "/" + "x" * 200, "@" + "x" * 200])
def test_nobody_there_harms_nobody(name: str) -> None:
    assert not Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1"}).tell("READY=1")


def test_a_manager_that_reads_nothing_keeps_nobody_waiting(manager: tuple[str, socket.socket]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager[0]})
    assert not all(notifier.tell("WATCHDOG=1") for _ in range(10_000))


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        ({}, None), ({"WATCHDOG_USEC": "0"}, None), ({"WATCHDOG_USEC": "x"}, None), ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "500000"}, 0.5), ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
    ],
)  # fmt: skip
def test_watchdog_is_for_this_process(found: dict[str, str], seconds: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/x", **found}).watchdog == seconds
    assert Notifier(found).watchdog is None


def test_a_system_without_unix_sockets_has_no_manager(
    manager: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    assert not Notifier({"NOTIFY_SOCKET": manager[0]}).tell("READY=1")
