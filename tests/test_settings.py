"""The settings as one agent sees them, without a network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mycorrizal._replica.outputs import Setting
from mycorrizal._runtime.shared.sharing import _LANE_BUSY, Sharing, _Lane
from mycorrizal._wire.values import DEFAULT, Codecs, encode_value
from mycorrizal.exceptions import ConfigError, QueueFull, ValueDecodeError
from mycorrizal.settings import Settings
from tests._runtime.shared.alone import Alone, sharing_of, watching_of


@pytest.fixture
def alone() -> Iterator[Alone]:
    one = Alone()
    yield one
    one.close()


@pytest.fixture
def sharing(alone: Alone) -> Sharing:
    return sharing_of(alone)


@pytest.fixture
def settings(alone: Alone, sharing: Sharing) -> Settings:
    return Settings(sharing, watching_of(alone, sharing), DEFAULT, "me")


def test_a_dict_in_the_order_of_its_keys(settings: Settings) -> None:
    settings.update({"b": [1], "a": None})
    assert list(settings) == ["a", "b"] and len(settings) == 2 and "a" in settings and "c" not in settings
    assert settings["b"] == [1] and settings["b"] is not settings["b"]
    assert settings.writer("a") == "me"
    del settings["a"]
    assert list(settings) == ["b"]


def test_what_is_not_there_is_an_error_but_for_delete(settings: Settings) -> None:
    with pytest.raises(KeyError):
        settings["a"]
    with pytest.raises(KeyError):
        del settings["a"]
    with pytest.raises(KeyError):
        settings.writer("a")
    settings.delete("a")


@pytest.mark.parametrize("key", ["", 7, "x" * 256, None])
def test_what_is_no_key_is_refused_before_anything_is_told(settings: Settings, key: object) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.set(key, 1)  # type: ignore[arg-type]
    assert caught.value.hint is not None
    with pytest.raises(ConfigError):
        settings.delete(key)  # type: ignore[arg-type]
    assert len(settings) == 0


def test_who_sets_or_deletes_waits_for_those_behind(settings: Settings, sharing: Sharing) -> None:
    settings["k"] = 1
    lane = sharing._lanes["bob"] = _Lane(1e18)
    lane.begun = _LANE_BUSY
    with pytest.raises(QueueFull):
        settings.set("k", 2, timeout=0)
    with pytest.raises(QueueFull):
        settings.delete("k", timeout=0)
    assert settings["k"] == 1


def test_one_that_cannot_be_read_keeps_nobody_from_the_others(settings: Settings, sharing: Sharing) -> None:
    codecs = Codecs()
    codecs.register(complex, "complex", lambda z: [z.real, z.imag], lambda pair: complex(*pair))
    settings.update({"a": 1, "c": 3})
    sharing.replica.settings["bad"] = Setting(encode_value(1j, codecs).pack(), "bob")
    assert dict(settings) == dict(settings.items()) == {"a": 1, "c": 3}
    assert list(settings) == ["a", "c"] and len(settings) == 2 and list(settings.values()) == [1, 3]
    error = settings.errors["bad"]
    assert list(settings.errors) == ["bad"] and isinstance(error, ValueDecodeError) and error.node == "bob"
    assert "bad" in settings, "or who sets what is missing would write over it"
    for read in (settings.__getitem__, settings.get, settings.setdefault, settings.pop):
        with pytest.raises(ValueDecodeError, match="the setting 'bad' of bob: .*'complex'"):
            read("bad")
    assert "bad" in settings and settings.popitem() == ("a", 1)
    sharing.replica.settings["bad"] = Setting(encode_value(1j, codecs).pack(), "bob")
    settings.clear()
    assert "bad" not in settings and settings.errors == {} and len(settings) == 0


def test_who_counts_decodes_nothing_twice(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.update({f"k{number}": number for number in range(10)})
    decoded: list[bytes] = []
    decode = settings._watching.decode

    def noted(value: bytes, sender: str, what: str) -> object:
        decoded.append(value)
        return decode(value, sender, what)

    monkeypatch.setattr(settings._watching, "decode", noted)
    for _ in range(2):
        assert len(settings) == len(list(settings)) == 10 and len(decoded) == 10
    settings["k1"] = "other"
    del settings["k2"]
    assert len(settings) == 9 and "k2" not in list(settings) and len(decoded) == 11
    assert settings["k1"] == "other"


def test_one_that_cannot_be_read_has_no_other_decoded_again(
    settings: Settings, sharing: Sharing, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.update({f"k{number}": number for number in range(10)})
    sharing.replica.settings["bad"] = Setting(b"rubbish", "bob")
    assert len(settings) == 10
    decoded: list[str] = []
    decode = settings._watching.decode

    def noted(value: bytes, sender: str, what: str) -> object:
        decoded.append(what)
        return decode(value, sender, what)

    monkeypatch.setattr(settings._watching, "decode", noted)
    settings["k3"] = "new"
    assert len(settings) == 10 and decoded == ["the setting 'bad'", "the setting 'k3'"], "a codec may be there by now"
    settings.errors.clear()
    assert list(settings.errors) == ["bad"]


def test_what_cannot_be_read_is_shown_as_that(settings: Settings, sharing: Sharing) -> None:
    settings["good"] = 1
    sharing.replica.settings["bad"] = Setting(b"rubbish", "bob")
    shown = settings._repr_html_()
    assert "(cannot be read)" in shown and "good" in shown
