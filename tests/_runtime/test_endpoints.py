"""Where a control plane may listen, and how it opens."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from mycorrizal import BindError, ConfigError
from mycorrizal._runtime.endpoints import Endpoint, reachable


@pytest.mark.parametrize(
    ("text", "secured", "why"),
    [
        ("tcp://127.0.0.1:5000", False, "without CURVE keys"),
        ("tcp://0.0.0.0:5000", True, "is not loopback"),
        ("tcp://192.0.2.1:5000", True, "is not loopback"),
        ("tcp://localhost:5000", True, "is no IP address"),
        ("tcp://*:5000", True, "is no IP address"),
        ("tcp://127.0.0.1:http", True, "is no port"),
        ("tcp://127.0.0.1:70000", True, "is no port"),
        ("tcp://127.0.0.1", True, "is no IP address"),
        ("ipc://relative", False, "must be absolute"),
        ("ipc://@abstract", False, "must be absolute"),
        ("ipc:///" + "x" * 107, False, "107 bytes at most"),
        ("inproc://x", False, "neither"),
        ("udp://127.0.0.1:1", True, "neither"),
        ("", True, "neither"),
    ],
)
def test_what_others_could_reach_is_refused(text: str, secured: bool, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Endpoint.parse(text, secured=secured)


@pytest.mark.parametrize("text", ["ipc:///run/a.sock", "tcp://127.0.0.1:5000", "tcp://[::1]:5000"])
def test_endpoint_is_written_as_it_was_read(text: str) -> None:
    assert str(Endpoint.parse(text, secured=True)) == text


def test_socket_file_is_private_and_replaces_one_that_was_left(tmp_path: Path) -> None:
    endpoint = Endpoint.parse(f"ipc://{tmp_path}/a", secured=False)
    assert not reachable(endpoint)
    _, left = endpoint.listen()
    left.close()
    assert not reachable(endpoint)
    endpoint, listener = endpoint.listen()
    with listener:
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
        assert reachable(endpoint)
    endpoint.remove()
    endpoint.remove()
    assert not (tmp_path / "a").exists()


def test_socket_file_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    endpoint, listener = Endpoint.parse(f"ipc://{tmp_path}/a", secured=False).listen()
    listener.close()
    os.utime(tmp_path / "a", ns=(0, 0))  # made at another time: not the one that we made
    endpoint.remove()
    assert (tmp_path / "a").exists()


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("precious")
    with pytest.raises(BindError, match="is no socket"):
        Endpoint.parse(f"ipc://{tmp_path}/a", secured=False).listen()
    assert (tmp_path / "a").read_text() == "precious"


def test_directory_that_is_missing_is_an_error_with_a_name(tmp_path: Path) -> None:
    with pytest.raises(BindError, match=f"ipc://{tmp_path}/none/a: No such file"):
        Endpoint.parse(f"ipc://{tmp_path}/none/a", secured=False).listen()


def test_port_that_is_taken_is_an_error_and_port_0_gets_one() -> None:
    endpoint, listener = Endpoint.parse("tcp://127.0.0.1:0", secured=True).listen()
    with listener:
        assert endpoint.port == listener.getsockname()[1]
        assert reachable(endpoint)
        with pytest.raises(BindError, match=f"{endpoint}: Address already in use"):
            endpoint.listen()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert not reachable(Endpoint(host="127.0.0.1", port=free.getsockname()[1]))
