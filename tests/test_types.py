"""One address is one, however it is spelt: in tables, limits, and lists of who is allowed. What brings a value."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from enum import IntEnum, StrEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mycorrizal._cache.definition import Definition
from mycorrizal._wire.arrays import is_integer, is_numpy
from mycorrizal.agentconfig import AgentSettings
from mycorrizal.config import Config, allowed
from mycorrizal.dataconfig import DataConfig
from mycorrizal.events import SettingChange, UserEvent
from mycorrizal.exceptions import ConfigError, ValueDecodeError
from mycorrizal.types import (
    MaybeUnreadable,
    Message,
    Service,
    as_builtin,
    find_numpy,
    host_of,
    is_loopback,
    pack_host,
    parse_host,
)

SPELT = {
    "10.0.0.5": ["::ffff:10.0.0.5", "::FFFF:10.0.0.5", "::ffff:a00:5", "0:0:0:0:0:FFFF:A00:5", "::ffff:10.0.0.5%eth0"],
    "2001:db8::1": ["2001:DB8::1", "2001:db8:0:0:0:0:0:1", "2001:0db8::0001", "2001:db8::1%eth0", "2001:DB8::0.0.0.1"],
    "::1": ["0:0:0:0:0:0:0:1", "::0001", "::1%lo", "0::1"],
    "fe80::1": ["fe80::1%eth0", "FE80::1%2", "fe80:0::1%eth1"],
    "127.0.0.2": ["::ffff:127.0.0.2", "::ffff:7f00:2"],
}
ALL = [(plain, spelling) for plain, spellings in SPELT.items() for spelling in spellings]


@pytest.mark.parametrize(("plain", "spelling"), ALL)
def test_spellings_of_one_address_are_one(plain: str, spelling: str) -> None:
    assert parse_host(spelling) == parse_host(plain)
    assert pack_host(spelling) == pack_host(plain)
    assert host_of(pack_host(spelling)) == plain
    assert is_loopback(spelling) == is_loopback(plain) == (plain in ("::1", "127.0.0.2"))
    for network in ("10.0.0.0/8", "2001:db8::/64", "::1/128", "fe80::/10", "127.0.0.0/8", "::/0", "0.0.0.0/0"):
        networks = Config(cidrs_allowed=(network,)).networks
        assert allowed(spelling, networks) == allowed(plain, networks), network


@pytest.mark.parametrize("text", ["", "%", "no address", "10.0.0.256", "::1::", "[::1]", "localhost"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        parse_host(text)
    assert not is_loopback(text)
    assert not allowed(text, Config(cidrs_allowed=("0.0.0.0/0", "::/0")).networks)
    assert allowed(text, ())


def test_a_network_in_mapped_form_is_the_IPv4_one() -> None:
    """As in Go, whose ``ParseCIDR`` takes it for one."""
    networks = Config(cidrs_allowed=("::ffff:10.0.0.0/104", "::FFFF:192.168.1.7/128")).networks
    assert [str(network) for network in networks] == ["10.0.0.0/8", "192.168.1.7/32"]
    assert allowed("10.1.2.3", networks) and allowed("::ffff:10.1.2.3", networks) and allowed("192.168.1.7", networks)
    assert not allowed("11.0.0.1", networks) and not allowed("::a00:1", networks)
    wide = Config(cidrs_allowed=("::/64",)).networks
    assert not allowed("10.1.2.3", wide) and allowed("::5", wide)


UNREADABLE = [
    Message.unreadable(ValueDecodeError("why"), sender="bob"),
    UserEvent.unreadable(ValueDecodeError("why"), topic="t", sender="bob", number=3),
    SettingChange.unreadable(ValueDecodeError("why"), key="k", deleted=False, writer="bob"),
    Service.unreadable(ValueDecodeError("why"), name="api", node="bob", host="h", port=1, healthy=True, id="api"),
]
KINDS = {"Message": Message("bob", 1), "UserEvent": UserEvent("t", 1, "bob", 3)}
KINDS |= {"SettingChange": SettingChange("k", 1, False, "bob")}
KINDS |= {"Service": Service("api", "bob", "h", 1, 1, True, "api")}


@pytest.mark.parametrize("broken", UNREADABLE, ids=lambda broken: type(broken).__name__)
def test_what_cannot_be_read_can_be_held_shown_copied_and_compared(broken: MaybeUnreadable) -> None:
    other = KINDS[type(broken).__name__]
    for one in (broken, copy.copy(broken), copy.deepcopy(broken), pickle.loads(pickle.dumps(broken))):
        raised = []
        for _ in range(2):
            with pytest.raises(ValueDecodeError, match="^why$") as caught:
                getattr(one, broken.carries)
            raised.append(caught.value)
        assert raised[0] is not raised[1], "each reader has its own, with its own traceback"
        assert one == broken and hash(one) == hash(broken) and one not in (other, 3)
        assert "error=ValueDecodeError('why')" in repr(one) and f"{broken.carries}=" not in repr(one)
        with pytest.raises(AttributeError, match="no attribute 'valu'"):
            one.valu  # noqa: B018


@pytest.mark.parametrize("good", KINDS.values(), ids=KINDS)
def test_what_can_be_read_is_as_it_was(good: MaybeUnreadable) -> None:
    again = pickle.loads(pickle.dumps(good))
    assert again == good and hash(again) == hash(good) and getattr(again, good.carries) == 1
    assert eval(repr(good)) == good and "error" not in repr(good)
    assert dataclasses.replace(good, **{good.carries: [2]}) != good  # type: ignore[type-var]


# -- texts and numbers of other classes -------------------------------------------------------------------------------


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    LOW = 3


class Odd(str):
    def __str__(self) -> str:
        return "another"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Colour.RED, "red"),
        (Odd("text"), "text"),
        (np.str_("text"), "text"),
        (Level.LOW, 3),
        (np.int16(3), 3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (True, True),
        (None, None),
        (b"x", b"x"),
    ],
)
def test_texts_and_numbers_of_other_classes_are_made_plain(value: Any, plain: Any) -> None:
    got = as_builtin(value)
    assert got == plain and type(got) is type(plain)


def test_numpy_that_another_thread_is_importing_is_not_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in ``sys.modules`` before it has its names; a thread of ours that looked then was ended by it."""
    begun = ModuleType("numpy")
    begun.__spec__ = SimpleNamespace(_initializing=True)  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "numpy", begun)
    assert find_numpy() is None
    for value in (object(), [1], np.int64(3), None):
        assert as_builtin(value) is value
        assert not is_numpy(value) and not is_integer(value)
    monkeypatch.undo()
    assert find_numpy() is np and as_builtin(np.int64(3)) == 3


@pytest.mark.parametrize("value", [np.bool_(1), object(), [1], 1j, np.array(1)])
def test_what_is_neither_stays_what_it_is(value: Any) -> None:
    assert as_builtin(value) is value


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Config, {"name": Colour.RED, "bind_port": np.int64(7946), "label": Colour.RED, "indirect_checks": Level.LOW}),
        (Config, {"name": "n", "probe_interval": np.float32(0.5), "probe_timeout": np.int8(1)}),
        (DataConfig, {"handlers": np.int32(4), "idle_timeout": np.float32(30), "max_value": Level.LOW * 100_000}),
        (AgentSettings, {"name": Colour.RED, "cluster": np.str_("lab"), "port": np.int32(7), "join": (Colour.RED,)}),
        (Definition, {"name": Colour.RED, "max_entries": np.int64(5), "replicas": Level.LOW, "ttl": np.int8(60)}),
    ],
)
def test_settings_take_them_everywhere(kind: Any, given: dict[str, Any]) -> None:
    settings = kind(**given)
    for name, odd in given.items():
        value = getattr(settings, name)
        assert type(value) in (str, int, float, tuple) and value == odd
        assert not isinstance(value, tuple) or {type(item) for item in value} == {str}


@pytest.mark.parametrize(
    ("kind", "given"),
    [(Config, {"bind_port": True}), (DataConfig, {"handlers": np.bool_(1)}), (DataConfig, {"handlers": np.float64(2)})],
)
def test_settings_take_no_other_kind_of_number(kind: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        kind(**given)
