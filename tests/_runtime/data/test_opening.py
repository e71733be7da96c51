"""Addresses by name, as a plane is told them."""

from __future__ import annotations

import pytest

from mycorrizal._runtime.data.opening import Directory
from mycorrizal.exceptions import ConfigError


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("10.0.0.5", "10.0.0.5"), ("::ffff:10.0.0.5", "10.0.0.5"), ("::FFFF:10.0.0.5%x", "10.0.0.5"),
        ("2001:DB8:0::1", "2001:db8::1"), ("fe80:0::1%eth0", "fe80::1%eth0"), ("0:0:0:0:0:0:0:1", "::1"),
    ],
)  # fmt: skip
def test_an_address_is_kept_as_connections_spell_it(given: str, kept: str) -> None:
    """A name whose address only looks like another one is not dialled anew."""
    directory = Directory(loopback_only=False)
    directory.add("bob", (given, 7))
    assert directory.resolve("bob") == (kept, 7)
    directory.remove("bob")
    assert directory.resolve("bob") is None


def test_without_a_key_only_loopback_is_dialled_however_it_is_spelt() -> None:
    directory = Directory(loopback_only=True)
    for host in ("127.0.0.1", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::1%lo"):
        directory.add("bob", (host, 7))
        directory.remove("bob")
        directory.fallback = lambda name, host=host: (host, 7)
        assert directory.resolve("bob") == (host, 7)
    for host in ("10.0.0.5", "::ffff:10.0.0.5", "2001:db8::1"):
        with pytest.raises(ConfigError, match="not loopback"):
            directory.add("bob", (host, 7))
        directory.fallback = lambda name, host=host: (host, 7)
        assert directory.resolve("bob") is None
