"""Where a control plane may listen, and how it opens."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mycorrizal import BindError, ConfigError
from mycorrizal._runtime.control.endpoints import Endpoint, reachable


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tcp://127.0.0.1:5000", "is not ipc:///path .the control plane is a file that only its user can open"),
        ("tcp://0.0.0.0:5000", "is not ipc:///path"),
        ("inproc://x", "is not ipc:///path"),
        ("", "is not ipc:///path"),
        ("/run/a.sock", "is not ipc:///path"),
        ("ipc://relative", "must be absolute"),
        ("ipc://@abstract", "must be absolute"),
        ("ipc:///" + "x" * 107, "107 bytes at most"),
    ],
)
def test_what_others_could_reach_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Endpoint.parse(text)


def test_endpoint_is_written_as_it_was_read() -> None:
    assert str(Endpoint.parse("ipc:///run/a.sock")) == "ipc:///run/a.sock"


def test_socket_file_is_private_and_replaces_one_that_was_left(tmp_path: Path) -> None:
    endpoint = Endpoint.parse(f"ipc://{tmp_path}/a")
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
    endpoint, listener = Endpoint.parse(f"ipc://{tmp_path}/a").listen()
    listener.close()
    os.utime(tmp_path / "a", ns=(0, 0))  # made at another time: not the one that we made
    endpoint.remove()
    assert (tmp_path / "a").exists()


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("precious")
    with pytest.raises(BindError, match="is no socket"):
        Endpoint.parse(f"ipc://{tmp_path}/a").listen()
    assert (tmp_path / "a").read_text() == "precious"


def test_directory_that_is_missing_is_an_error_with_a_name(tmp_path: Path) -> None:
    with pytest.raises(BindError, match=f"ipc://{tmp_path}/none/a: No such file"):
        Endpoint.parse(f"ipc://{tmp_path}/none/a").listen()
