"""Keys of a control plane on TCP, and who is let in."""

from __future__ import annotations

import pytest
from zmq.utils import z85

from mycorrizal import ConfigError
from mycorrizal._runtime.curve import ControlKeys, zap_answer
from tests.keys import WEAK, key_of

KEYS = ControlKeys.derive(key_of("a"))


def test_keys_are_the_same_on_both_sides_and_differ_by_secret_and_side() -> None:
    assert ControlKeys.derive(key_of("a")) == KEYS
    other = ControlKeys.derive(key_of("b"))
    found = {KEYS.server_secret, KEYS.client_secret, KEYS.server_public, KEYS.client_public, other.server_secret}
    assert len(found) == 5
    assert all(len(key) == 40 for key in found)


def test_secrets_are_not_shown() -> None:
    assert KEYS.server_secret.decode() not in repr(KEYS)
    assert KEYS.client_secret.decode() not in repr(KEYS)


def test_short_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="16 are the least"):
        ControlKeys.derive(b"short")


def question(key: bytes = z85.decode(KEYS.client_public), mechanism: bytes = b"CURVE") -> list[bytes]:
    return [b"1.0", b"7", b"mycorrizal", b"127.0.0.1", b"", mechanism, key]


def test_who_has_the_key_is_let_in() -> None:
    assert zap_answer(question(), KEYS.client_public) == [b"1.0", b"7", b"200", b"", b"", b""]


@pytest.mark.parametrize(
    "frames",
    [
        *(question(bytes(32)), question(b"short"), question(mechanism=b"NULL")),
        *(question()[:6], [b"2.0", *question()[1:]], []),
    ],
)
def test_others_are_not(frames: list[bytes]) -> None:
    assert zap_answer(frames, KEYS.client_public)[2] == b"400"


@pytest.mark.parametrize(("secret", "why"), WEAK.values(), ids=WEAK)
def test_secret_that_can_be_guessed_is_refused(secret: bytes, why: str) -> None:
    with pytest.raises(ConfigError, match=f"control: the secret {why}|the least"):
        ControlKeys.derive(secret)
    with pytest.raises(ConfigError, match="must be bytes, not str"):
        ControlKeys.derive("x" * 32)  # type: ignore[arg-type]
