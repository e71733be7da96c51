"""Bindings, transcripts and derived keys, without a connection."""

from __future__ import annotations

import hmac
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mycorrizal._runtime.quic.trust.proof import Binding, SecretsTap, derive, transcript
from mycorrizal.exceptions import ProofError

S = Binding(bytes(32), bytes([1]) * 32, bytes([2]) * 32, "a", "b")


def test_derive_is_hkdf_of_rfc_5869() -> None:
    info = b"mycorrizal \x00\x05knock\x00\x04blue"
    prk = hmac.digest(bytes(32), b"k" * 32, "sha256")
    assert derive(b"k" * 32, "knock", "blue") == hmac.digest(prk, info + b"\x01", "sha256")


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_derive_keeps_purpose_and_cluster_apart(a: str, b: str, c: str, d: str) -> None:
    assert (derive(b"k" * 16, a, b) == derive(b"k" * 16, c, d)) == ((a, b) == (c, d))


@example(["ab", "c", "a", "bc"])
@given(st.lists(st.text(min_size=1, max_size=5), min_size=4, max_size=4))
def test_transcripts_of_different_names_differ(names: list[str]) -> None:
    a, b, c, d = names
    one, two = replace(S, client=a, server=b), replace(S, client=c, server=d)
    assert (transcript("t", one) == transcript("t", two)) == ((a, b) == (c, d))


def test_transcript_covers_everything() -> None:
    base = transcript("t", S)
    others = [
        transcript("u", S),
        transcript("t", S, b"x"),
        transcript("t", replace(S, channel=bytes([9]) * 32)),
        transcript("t", replace(S, server_nonce=bytes([9]) * 32)),
        transcript("t", replace(S, client_nonce=bytes([9]) * 32)),
        transcript("t", replace(S, server_nonce=S.client_nonce, client_nonce=S.server_nonce)),
        transcript("t", replace(S, client="b", server="a")),
    ]
    assert len({base, *others}) == 8


@pytest.mark.parametrize(
    "s",
    [
        replace(S, channel=b""),
        replace(S, channel=bytes(31)),
        replace(S, server_nonce=b""),
        replace(S, client_nonce=bytes(33)),
        replace(S, client=""),
        replace(S, server="x" * 1025),
    ],
)
def test_nothing_is_proved_without_channel_nonces_and_names(s: Binding) -> None:
    with pytest.raises(ProofError):
        transcript("t", s)


def test_binding_does_not_show_its_channel() -> None:
    assert "channel" not in repr(S) and repr(SecretsTap()) == "<SecretsTap>"


def line(label: str, secret: bytes) -> str:
    return f"{label} {bytes(32).hex()} {secret.hex()}\n"


def test_tap_needs_both_secrets_and_takes_no_other() -> None:
    tap = SecretsTap()
    tap.write(line("CLIENT_HANDSHAKE_TRAFFIC_SECRET", b"h" * 32))
    tap.write(line("CLIENT_TRAFFIC_SECRET_0", b"c" * 32))
    tap.flush()
    assert tap.binding() is None
    tap.write(line("SERVER_HANDSHAKE_TRAFFIC_SECRET", b"h" * 32))
    tap.write(line("SERVER_TRAFFIC_SECRET_0", b"s" * 32))
    binding = tap.binding()
    assert binding is not None and len(binding) == 32
    other = SecretsTap()  # the order in which they come is not the same on both sides
    other.write(line("SERVER_TRAFFIC_SECRET_0", b"s" * 32))
    other.write(line("CLIENT_TRAFFIC_SECRET_0", b"c" * 32))
    assert other.binding() == binding


def test_tap_erases_its_secrets_and_does_not_change_its_mind() -> None:
    tap, plain = SecretsTap(), SecretsTap()
    for each in (tap, plain):
        each.write(line("CLIENT_TRAFFIC_SECRET_0", b"c" * 32))
    tap.write(line("CLIENT_TRAFFIC_SECRET_0", b"x" * 32))  # the first one counts
    for each in (tap, plain):
        each.write(line("SERVER_TRAFFIC_SECRET_0", b"s" * 32))
    kept = list(tap._secrets.values())
    binding = tap.binding()
    assert binding == plain.binding()
    assert len(kept) == 2 and all(secret == bytes(32) for secret in kept) and not tap._secrets
    tap.write(line("CLIENT_TRAFFIC_SECRET_0", b"y" * 32))
    tap.write(line("SERVER_TRAFFIC_SECRET_0", b"y" * 32))
    assert not tap._secrets
    assert tap.binding() == binding


def test_tap_refuses_what_is_no_secret() -> None:
    with pytest.raises(ValueError, match="strange length"):
        SecretsTap().write(line("CLIENT_TRAFFIC_SECRET_0", b"c" * 65))
