"""Which packet path is taken, and what is said where it is not the fast one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator

import aioquic
import pytest
from aioquic.quic.logger import QuicLoggerTrace

from mycorrizal._runtime.quic import choice
from mycorrizal._runtime.quic.choice import packet_path
from mycorrizal._runtime.quic.fast import aio, lean
from mycorrizal._runtime.quic.fast.aio import FastPath
from mycorrizal._runtime.quic.fast.sender import pull_varint
from mycorrizal._runtime.quic.stock import StockPath
from mycorrizal._runtime.quic.transport import PacketPath
from mycorrizal._runtime.quic.trial import try_out
from mycorrizal.exceptions import ConfigError, NotRunningError

VARIABLE = "MYCORRIZAL_PACKET_PATH"


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what was found out in this process, before and after."""
    monkeypatch.delenv(VARIABLE, raising=False)
    choice._choice.cache_clear()
    yield
    choice._choice.cache_clear()


@pytest.mark.parametrize("client", [FastPath(), StockPath()], ids=lambda path: path.name)
@pytest.mark.parametrize("server", [FastPath(), StockPath()], ids=lambda path: path.name)
def test_the_paths_get_on_with_each_other(client: PacketPath, server: PacketPath) -> None:
    assert try_out(client, server) is None


def test_the_fast_path_is_taken_where_it_fits() -> None:
    found = packet_path()
    assert found.path.name == "fast" and found.problem is None
    assert packet_path() is found, "found out once"


@pytest.mark.parametrize(("wanted", "name"), [("fast", "fast"), ("stock", "stock"), ("auto", "fast"), ("", "fast")])
def test_a_variable_decides(wanted: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, wanted)
    found = packet_path()
    assert found.path.name == name and found.problem is None, "who asks for it has no problem"


@pytest.mark.parametrize("wanted", ["Stock", "slow", "1", "\x1b[31m"])
def test_another_value_is_refused(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, wanted)
    with pytest.raises(ConfigError, match=VARIABLE) as caught:
        packet_path()
    assert "\x1b" not in str(caught.value)


def test_an_old_aioquic_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioquic, "__version__", "1.7.1")
    with pytest.raises(NotRunningError, match="too old"):
        packet_path()


def _name_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(aio._PRIVATE, "QuicStream", "_what_it_was_called")


def _module_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mycorrizal._runtime.quic.fast.aio", None)


def _other_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "push_ack_frame", lambda buf: 1)


def _other_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "pull_varint", lambda data, at: (pull_varint(data, at)[0] + 1, pull_varint(data, at)[1]))


def _endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean.LeanConnection, "next_timer", lambda self: 0.0)
    monkeypatch.setattr(lean.LeanConnection, "give_datagrams", lambda self, send, now: True)


@pytest.mark.parametrize(
    ("misfit", "text"),
    [
        (_name_gone, "lacks QuicStream._what_it_was_called"),
        (_module_gone, "lacks a part"),
        (_other_signature, "behaves otherwise"),
        (_other_meaning, "behaves otherwise"),
        (_endless, "behaves otherwise"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("version", ["1.7.2", "1.8.0"])
def test_what_does_not_fit_brings_the_stock_path_and_one_warning(
    misfit: Callable[[pytest.MonkeyPatch], None],
    text: str,
    version: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(aioquic, "__version__", version)
    caplog.set_level(logging.WARNING)
    misfit(monkeypatch)
    found = packet_path()
    assert found.path.name == "stock" and found.problem is not None and text in found.problem
    assert f"aioquic {version}" in found.problem and "slower" in found.problem
    packet_path()
    assert [record.getMessage() for record in caplog.records] == [found.problem]
    monkeypatch.setenv(VARIABLE, "fast")
    with pytest.raises(NotRunningError, match=text):
        packet_path()


def test_where_not_even_the_stock_path_fits_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of another kind would leave it without acknowledgements: everybody would wait for ever."""
    monkeypatch.setattr(QuicLoggerTrace, "packet_type", lambda self, kind: "one round trip")
    monkeypatch.setenv(VARIABLE, "stock")
    with pytest.raises(NotRunningError, match=r"behaves otherwise \(stock to stock\)"):
        packet_path()
