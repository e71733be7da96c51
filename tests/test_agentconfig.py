"""An agent's settings as a value: what is refused, and what is never shown."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from mycorrizal import Config, ConfigError
from mycorrizal.agentconfig import AgentSettings, check_cluster, parse_key
from tests.keys import WEAK

SECRET = bytes(range(32))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a/b"), ("name", ""), ("cluster", ""), ("cluster", "x" * 256), ("cluster", 7), ("cluster", "\ud800"),
        ("join", ["a"]), ("join", "a"), ("join", (1,)), ("key", "x" * 32), ("key", b"x" * 31), ("bind", "host"),
        ("bind", 7), ("port", -1), ("port", 65536), ("port", True), ("port", "1"), ("quic_port", None),
        ("tags", []), ("tags", {"a": 1}), ("tags", {1: "a"}), ("tags", {"": "a"}), ("wire", "json"), ("label", 7),
        ("label", "x" * 256), ("insecure", 1), ("discover", None), ("control", "yes"), ("join_timeout", -1),
        ("join_timeout", "1"), ("join_timeout", float("inf")), ("join_timeout", True), ("config", {}),
        ("data_config", {}), ("advertise", "host"), ("advertise", 7), ("advertise", "0.0.0.0"), ("advertise", "::"),
        ("advertise", "10.0.0.1:0"), ("advertise", "10.0.0.1:65536"), ("advertise", "10.0.0.1:x"),
        ("advertise", "[::1]"), ("advertise", "[::1]:123456"), ("settings_file", 5), ("settings_file", b"x"),
        ("settings_file", ""), ("settings_file", "a\0b"), ("bind", "fe80::1%eth0"), ("advertise", "[febf::1]:7946"),
        ("seed_port", 0), ("seed_port", "1"), ("join_retry", -1), ("join_retry", float("nan")), ("expect", -1),
        ("metrics_port", -1), ("metrics_port", True), ("metrics_port", "9464"),
        ("expect", True), ("certificates", ("a", "b")), ("certificates", ["a", "b", "c"]), ("certificates", "abc"),
        ("certificates", ("a", "b", 3)), ("certificates", ("a", "b", "")), ("certificates", ("a", "b", "c\0")),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        AgentSettings(**{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", ("10.0.0.1", None)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("::1", ("::1", None)),
        ("[::1]:80", ("::1", 80)),
        (None, None),
    ],
)
def test_advertise_is_taken_apart(text: str | None, expected: object) -> None:
    assert AgentSettings(advertise=text).advertised == expected


def test_a_config_is_given_whole_or_in_fields() -> None:
    AgentSettings(config_fields={"probe_interval": 1.0}, join_timeout=None)
    with pytest.raises(ConfigError, match="given as a whole and in single fields"):
        AgentSettings(config=Config(name="x"), config_fields={"probe_interval": 1.0})
    with pytest.raises(ConfigError, match="probe_interval"):
        AgentSettings(config_fields={"probe_interval": -1.0})


def test_the_key_is_not_shown() -> None:
    assert "key" not in repr(AgentSettings(key=SECRET))
    assert str(SECRET)[2:20] not in repr(AgentSettings(key=SECRET))


@pytest.mark.parametrize("size", [16, 24, 32])
def test_keys_as_bytes_and_as_text(size: int) -> None:
    key = SECRET[:size]
    text = base64.b64encode(key).decode()
    assert parse_key(key) == parse_key(bytearray(key)) == parse_key(text) == parse_key(f" {text}\n") == key
    assert parse_key(b"0" * size) == b"0" * size  # bytes are the key, whatever they look like


WRONG = ["", "x", "0" * 20, "é" * 32, SECRET[:31], b"", base64.b64encode(SECRET)[:-1], 7, None]


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_key_is_not_shown(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="mycorrizal keygen") as caught:
        parse_key(wrong)
    assert caught.value.field == "key"
    if isinstance(wrong, (str, bytes)) and len(wrong) > 1:
        assert str(wrong)[2:18] not in str(caught.value)


@pytest.mark.parametrize(("key", "why"), WEAK.values(), ids=WEAK)
def test_a_key_that_can_be_guessed_is_for_a_go_cluster(key: bytes, why: str) -> None:
    for given in (key, base64.b64encode(key).decode()):  # of base64 it is the bytes that count
        with pytest.raises(ConfigError, match=f"key: {why}"):
            AgentSettings(key=parse_key(given))
        assert AgentSettings(key=parse_key(given), wire="msgpack").key == key


def test_clusters() -> None:
    check_cluster("é" * 127)
    with pytest.raises(ConfigError, match="is 256 bytes long"):
        check_cluster("é" * 128)
