"""Go's ``config_test.go``: which addresses members may have."""

from __future__ import annotations

import pytest

from mycorrizal.config import Config
from mycorrizal.exceptions import ConfigError
from tests._swim.harness import alive, make, state, tell


def admitted(host: str, own_host: str, allow: tuple[str, ...] | None) -> bool:
    """Whether a node at `host`, announced from there, becomes a member."""
    swim = make(host=own_host, cidrs_allowed=allow)
    tell(swim, alive("other", host), sender=(host, 7946))
    return state(swim, "other") is not None


def test__IsValidAddressDefaults() -> None:
    hosts = ["127.0.0.1", "127.0.0.5", "10.0.0.9", "172.16.0.7", "192.168.2.1", "fe80::aede:48ff:fe00:1122", "::1"]
    for profile in (Config.lan(), Config.wan()):
        assert profile.networks == ()
        for host in hosts:
            assert admitted(host, "10.0.0.1", profile.cidrs_allowed), host


@pytest.mark.parametrize(
    ("allow", "own", "good", "bad"),
    [
        (None, "127.0.0.1", ["127.0.0.5", "10.0.0.9", "192.168.1.7", "::1"], []),
        ((), "127.0.0.1", ["127.0.0.5", "10.0.0.9", "192.168.1.7", "::1"], []),
        (("0.0.0.0/0",), "127.0.0.1", ["127.0.0.5", "10.0.0.9", "192.168.1.7"], ["fe80::38bc:4dff:fe62:b1ae", "::1"]),
        (("::0/0",), "::1", ["fe80::38bc:4dff:fe62:b1ae", "::1"], ["127.0.0.5", "10.0.0.9", "192.168.1.7"]),
        (
            ("::1/128", "127.0.0.0/8"), "127.0.0.1", ["127.0.0.5", "::1"],
            ["::2", "178.250.0.187", "10.0.0.9", "192.168.1.7", "fe80::38bc:4dff:fe62:b1ae"],
        ),
    ],
    ids=["none", "empty", "IPv4", "IPv6", "loopback"],
)  # fmt: skip
def test__IsValidAddressOverride(allow: tuple[str, ...] | None, own: str, good: list[str], bad: list[str]) -> None:
    assert [host for host in good + bad if admitted(host, own, allow)] == good


def test_bad_networks_are_all_named() -> None:
    with pytest.raises(ConfigError, match=r"cidrs_allowed.*'nonsense'.*'10\.0\.0\.0/99'") as caught:
        Config(cidrs_allowed=("10.0.0.0/8", "nonsense", "10.0.0.0/99"))
    assert caught.value.field == "cidrs_allowed"


def test_an_address_in_mapped_form_is_the_IPv4_one() -> None:
    swim = make(host="10.0.0.1", cidrs_allowed=("10.0.0.0/8",))
    mapped = alive("mapped", "10.0.0.2")
    mapped = type(mapped)(1, "mapped", bytes(10) + b"\xff\xff" + (mapped.addr or b""), 7946, b"", mapped.vsn)
    tell(swim, mapped, sender=("10.0.0.2", 7946))
    assert state(swim, "mapped") is not None
