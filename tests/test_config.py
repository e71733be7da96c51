"""Every wrong setting is one error that names the field and says what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest

from mycorrizal import Config, ConfigError
from mycorrizal.config import check_function, weakness
from tests.keys import WEAK, key_of

WRONG: list[tuple[str, Any, str]] = [
    ("name", "", "empty"),
    ("name", b"x", "bytes"),
    ("name", None, "NoneType"),
    ("name", "é" * 128, "256 bytes"),
    ("name", "a/b", "'/'"),
    ("name", "a\nb", "control"),
    ("name", "a\x7f", "control"),
    ("name", "a\x9b31m", "control"),
    ("name", "a\u2028b", "control"),
    ("name", "a\u202eb", "unseen"),
    ("name", "a\u200bb", "unseen"),
    ("name", "a\udc80", "UTF-8"),
    ("name", " a", "space"),
    ("name", " ", "space"),
    ("bind_addr", "localhost", "IP literal"),
    ("bind_addr", "127.0.0.1:7946", "IP literal"),
    ("bind_addr", "", "IP literal"),
    ("bind_addr", None, "IP literal"),
    ("bind_addr", b"1234", "IP literal"),
    ("bind_port", "7946", "whole number"),
    ("bind_port", 65536, "0..65535"),
    ("advertise_addr", "my.host", "IP literal"),
    ("advertise_addr", "0.0.0.0", "nobody can dial"),
    ("advertise_addr", "FE80::1", "link-local"),
    ("bind_addr", "fe80::1%eth0", "link-local"),
    ("advertise_addr", "::", "nobody can dial"),
    ("advertise_port", -1, "1..65535"),
    ("advertise_port", 80, "without advertise_addr"),
    ("protocol_version", 6, "1..5"),
    ("delegate_protocol_max", 256, "0..255"),
    ("wire", "json", "msgpack"),
    ("label", "x" * 256, "255 bytes"),
    ("label", b"x", "bytes"),
    ("label", None, "NoneType"),
    ("label", "\ud800", "UTF-8"),
    ("secret_key", "x" * 16, "base64"),
    ("secret_key", b"short", "16, 24 or 32"),
    ("keys", (key_of("a", 16),), "secret_key"),
    ("keys", None, "tuple"),
    ("keys", bytes(16), "tuple"),
    ("cidrs_allowed", "10.0.0.0/8", "tuple"),
    ("cidrs_allowed", ("10/x",), "10/x"),
    ("enable_compression", "no", "True or False"),
    ("disable_tcp_pings_for_node", True, "callable"),
    ("probe_interval", "1s", "seconds"),
    ("probe_interval", -1, "0 disables"),
    ("probe_interval", True, "seconds"),
    ("tcp_timeout", 0, "above 0"),
    ("suspicion_min_timeout", -1, "0 disables"),
    ("suspicion_min_nodes", 1, "2.."),
    ("trust_refusals", 1, "True or False"),
    ("trust_kernel", 1, "True or False"),
    ("number_messages", "no", "True or False"),
    ("limit_answers", 4, "True or False"),
    ("refuse_echoes", 1, "True or False"),
    ("check_hearsay", 1, "True or False"),
    ("check_seed_names", 1, "True or False"),
    ("tcp_timeout", float("nan"), "seconds"),
    ("gossip_nodes", 2.5, "whole number"),
    ("udp_buffer_size", 100, "1024"),
    ("probe_intervall", 1, "no such setting"),
]


@pytest.mark.parametrize(
    ("field", "value", "words"), WRONG, ids=[f"{field}={value!a:.20}" for field, value, _ in WRONG]
)
def test_what_is_wrong_is_named(field: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.lan(**{"name": "x", field: value})
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a", "käse 🧀", "node-1.example.org", "x" * 255, "a:b", "名前"])
def test_names_may_be_any_readable_text(name: str) -> None:
    assert Config.lan(name=name).name == name


def test_a_key_is_never_shown() -> None:
    secret, other = b"\x80\x810123456789abcd", b"\x80\x81fedcba98765432"
    config = Config.lan(name="x", secret_key=secret, keys=(other,))
    assert "0123" not in repr(config)
    assert "fedc" not in repr(config)
    with pytest.raises(ConfigError) as caught:
        Config.lan(name="x", secret_key="supersecret")
    assert "supersecret" not in str(caught.value)


@pytest.mark.parametrize(("key", "why"), WEAK.values(), ids=WEAK)
def test_keys_that_can_be_guessed_are_for_go_clusters_only(key: bytes, why: str) -> None:
    assert weakness(key) is not None
    for given in ({"secret_key": key}, {"secret_key": key_of("a"), "keys": (key,)}):
        with pytest.raises(ConfigError, match=f"{list(given)[-1]}: {why}.*mycorrizal keygen") as caught:
            Config(name="x", **given)
        assert repr(key)[2:-1] not in str(caught.value) and key.hex() not in str(caught.value)
        go = Config(name="x", wire="msgpack", **given)
        with pytest.raises(ConfigError, match=why):
            go.replace(wire="cbor")


@pytest.mark.parametrize("size", [16, 24, 32])
def test_keys_that_may_be_random_are_taken(size: int) -> None:
    text = b"a passphrase of 31 characters!!"
    keys = [bytes(range(size)), key_of("a", size), bytes([1, 2, 3, 4, 5]) * 7, text[: size - 1] + b"\x80"]
    for key in keys:
        assert weakness(key[:size]) is None
        assert Config(name="x", secret_key=key[:size]).secret_key == key[:size]


class Coroutine:
    async def __call__(self) -> int:
        return 1

    def method(self) -> Iterator[int]:
        yield 1

    async def both(self) -> AsyncIterator[int]:
        yield 1


ODD = Coroutine()


@pytest.mark.parametrize("function", [ODD, ODD.method, partial(ODD.method), ODD.both, 3])
def test_a_function_that_would_not_run_is_refused(function: Any) -> None:
    with pytest.raises(ConfigError, match="check: ") as caught:
        check_function("check", function)
    assert caught.value.hint


@pytest.mark.parametrize("function", [print, int, Coroutine, lambda: ODD, partial(int, "1")])
def test_a_function_that_runs_is_taken(function: Any) -> None:
    check_function("check", function)
