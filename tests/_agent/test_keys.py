"""The rings of both planes: what is added to one is added to the other, or to none."""

from __future__ import annotations

import pytest

from mycorrizal import ConfigError
from mycorrizal._agent.keys import Rings, derivation
from mycorrizal._wire.security import Keyring
from tests.keys import WEAK, key_of


def rings(wire: str) -> tuple[Rings, Keyring, Keyring]:
    """Return the rings of an agent with this wire."""
    derive = derivation(wire, "c")
    data = Keyring(primary=key_of("a"), allow_weak=wire == "msgpack")
    gossip = Keyring(primary=derive(key_of("a")), allow_weak=wire == "msgpack")
    return Rings(data, gossip, derive, None), data, gossip


@pytest.mark.parametrize(("key", "why"), WEAK.values(), ids=WEAK)
def test_weak_key_is_refused_or_beside_go_peers_warned_about(
    key: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    ours, data, gossip = rings("cbor")
    with pytest.raises(ConfigError, match=why):
        ours.change("add", key)
    assert (len(data.keys()), len(gossip.keys())) == (1, 1)
    assert caplog.records == []
    mixed, data, gossip = rings("msgpack")
    mixed.change("add", key_of("b"))
    assert caplog.records == []
    mixed.change("add", key)
    assert why in caplog.text and repr(key)[2:-1] not in caplog.text
    mixed.change("use", key)
    mixed.change("remove", key_of("a"))
    assert data.keys() == gossip.keys() == (key, key_of("b"))
    mixed.change("use", key_of("b"))
    mixed.change("remove", key)
    assert len(caplog.records) == 1
