"""What is written like a key is not shown, whatever it was given as."""

from __future__ import annotations

import base64
import random
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import CacheConflict, Config, ConfigError, DataConfig, JoinError, PeerUnreachable
from mycorrizal._keylike import HIDDEN, file_name, masked, may_be_key
from mycorrizal._runtime.host.settings_sources import load
from mycorrizal._runtime.net import addresses
from mycorrizal._runtime.quic.trust import pki
from mycorrizal._runtime.shared.settingsfile import SettingsFile
from mycorrizal.agentconfig import AgentSettings, check_cluster
from mycorrizal.discovery import Discovery

SEED = random.Random(5)
KEYS = [SEED.randbytes(size) for size in (16, 24, 32) for _ in range(20)]
WRITTEN: dict[str, Callable[[bytes], str]] = {
    "base64": lambda key: base64.b64encode(key).decode(),
    "url": lambda key: base64.urlsafe_b64encode(key).decode(),
    "unpadded": lambda key: base64.b64encode(key).decode().rstrip("="),
    "hex": bytes.hex,
    "HEX": lambda key: key.hex().upper(),
}
UUID = "0f8fad5bd9cb469fa16570867728950e"


@pytest.mark.parametrize("way", WRITTEN)
@pytest.mark.parametrize(
    "form", ["{}", "{}\n", " {} ", "'{}'", "./{}", "~/keys/{}", "/etc/keys/{}", "{}/", "{}.txt", "file:{}"]
)
def test_key_is_not_shown_as_the_name_of_a_file(way: str, form: str) -> None:
    for key in KEYS:
        text = WRITTEN[way](key)
        if way == "unpadded" and "/" in text and form in ("{}.txt", "file:{}"):
            continue  # that is a path
        assert text[:10] not in file_name(form.format(text)), text


@pytest.mark.parametrize("way", WRITTEN)
def test_key_is_not_shown_within_a_sentence(way: str) -> None:
    for key in KEYS:
        text = WRITTEN[way](key)
        for form in ("{!r} is no port", "no such thing: {}", "'dns://{}' leads nowhere", "--key={}", "--{}", "'/{}'"):
            if way != "unpadded" or "/" not in text:
                assert text[:10] not in masked(form.format(text))


@pytest.mark.parametrize("word", ["0123456789abcdef", "correct horse battery staple", "-----BEGIN X\nAb/c\n-----END"])
def test_long_word_without_a_directory_may_be_a_key_too(word: str) -> None:
    assert may_be_key(word) and word not in file_name(word)


@pytest.mark.parametrize(
    "name",
    [
        *("key", "missing.key", "production-cluster.key", "/etc/mycorrizal/key", "./a-file-that-has-a-long-name"),
        *("/home/alice/.config/mycorrizal/cluster-key", "~/key", "..", "C:\\keys\\production", ""),
    ],
)
def test_name_of_a_file_is_shown(name: str) -> None:
    assert file_name(name) == name


@pytest.mark.parametrize("key", KEYS)
def test_bytes_as_python_writes_them_are_not_shown(key: bytes) -> None:
    for text in (f"{key!r} is none", f"{bytearray(key)!r} is none", f"{key!r:.40} is none"):
        assert repr(key)[3:16] not in masked(text)
    assert masked("b'short' is none") == "b'short' is none"


def test_names_of_nodes_that_are_uuids_stay() -> None:
    assert masked(UUID) == HIDDEN
    assert masked(f"{UUID}/10.0.0.1: no answer", names=True) == f"{UUID}/10.0.0.1: no answer"
    assert UUID in str(CacheConflict(f"{UUID} and another define it differently"))
    assert UUID in str(JoinError(f"{UUID}/10.0.0.1: no answer", failures={}))


@pytest.mark.parametrize("text", ["A" * 100_000, "b'" * 50_000, "aB1" * 40_000, "a/" * 50_000, "= " * 50_000])
def test_long_text_is_looked_through_once(text: str) -> None:
    """Tries at every place would take hours."""
    assert masked(text) == text
    assert may_be_key(text) == ("/" not in text)


# -- every error that repeats a value ----------------------------------------------------------------

TEXT = base64.b64encode(bytes(range(3, 35))).decode()
HEX = bytes(range(3, 35)).hex()
RAW = bytes(range(3, 35))


def hidden(call: Callable[[], object], *kinds: type[Exception], key: str = TEXT) -> Exception:
    """Return the error of `call`; neither it nor an error that it was made of shows the key."""
    with pytest.raises(kinds or ConfigError) as caught:
        call()
    error: BaseException | None = caught.value
    while error is not None:
        for text in (*traceback.format_exception_only(error), repr(error), str(vars(error))):
            assert not any(one[:12] in text for one in (TEXT, HEX, repr(RAW)[2:], key)), text
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return caught.value


@pytest.mark.parametrize("key", [TEXT, HEX, RAW], ids=["base64", "hex", "bytes"])
@pytest.mark.parametrize(
    "field", ["bind", "port", "quic_port", "advertise", "tags", "wire", "insecure", "join_timeout", "label", "config"]
)
def test_setting_of_an_agent_that_is_a_key(field: str, key: Any) -> None:
    if field == "label" and isinstance(key, str):
        AgentSettings(label=key)  # any text is a label
        return
    hidden(lambda: AgentSettings(**{field: key}), ConfigError, TypeError)


@pytest.mark.parametrize("key", [TEXT, HEX, RAW], ids=["base64", "hex", "bytes"])
def test_other_settings_that_are_a_key(key: Any) -> None:
    hidden(lambda: AgentSettings(tags={"": key}))
    strange: Any = key if isinstance(key, bytes) else key + "\ud800"
    hidden(lambda: check_cluster(strange))
    hidden(lambda: Config(name=strange))
    for field in ("wire", "bind_port", "probe_interval", "gossip_nodes", "cidrs_allowed", "bind_addr"):
        hidden(lambda field=field: Config(name="a", **{field: key}), ConfigError, TypeError)
    hidden(lambda: DataConfig(idle_timeout=key))
    assert str(key)[3:15] not in repr(AgentSettings(config_fields={"secret_key": RAW}))
    assert repr(RAW)[3:15] not in repr(Config(name="a", secret_key=RAW, keys=(RAW,)))


@pytest.mark.parametrize("name", ["PORT", "BIND", "WIRE", "INSECURE", "JOIN_TIMEOUT", "ADVERTISE", "KEY_FILE"])
@pytest.mark.parametrize("key", [TEXT, HEX])
def test_variable_that_is_a_key(name: str, key: str) -> None:
    assert f"MYCORRIZAL_{name}" in str(hidden(lambda: load({"config_file": False}, {f"MYCORRIZAL_{name}": key})))


@pytest.mark.parametrize("key", [TEXT, HEX, "0123456789abcdef"])
def test_file_s_name_that_is_a_key(key: str, tmp_path: Path) -> None:
    def check(call: Callable[[], object]) -> None:
        assert "a key may have been put where the name of a file belongs" in str(hidden(call, key=key))

    check(lambda: load({"key_file": key, "config_file": False}, {}))
    check(lambda: load({"config_file": key}, {}))
    check(lambda: load({}, {"MYCORRIZAL_CONFIG": key}))
    toml = tmp_path / "mycorrizal.toml"
    toml.write_text(f'[agent]\nkey_file = "{key}"\n')
    check(lambda: load({"config_file": toml}, {}))
    check(lambda: pki._private_key(Path(key), None))
    check(lambda: pki._certificates("cafile", Path(key)))
    folder = tmp_path / "no" / TEXT.replace("/", "_")
    check(lambda: SettingsFile(str(folder), "n", lambda keys: {}))


def test_names_in_a_settings_file_that_are_a_key(tmp_path: Path) -> None:
    toml = tmp_path / "mycorrizal.toml"
    for text in (f"{HEX} = 1", f'[agent]\n"{TEXT}" = 1', f'[agent.config]\n"{TEXT}" = 1', f"[agent.data]\n{HEX} = 1"):
        toml.write_text(text)
        hidden(lambda: load({"config_file": toml}, {}))


@pytest.mark.parametrize("seed", [TEXT, f"dns://{TEXT}", f"srv://{TEXT}", f"local://{HEX}", f"{TEXT}://x", f"{TEXT}:x"])
def test_seed_that_is_a_key(seed: str) -> None:
    try:
        error: Exception | None = None
        Discovery("c", [seed])
    except ConfigError as exc:
        error = exc
    for key in (TEXT, HEX):
        assert key[:12] not in str(error)


def unknown(*args: object, **more: object) -> None:
    raise OSError(-2, "Name or service not known")


def test_error_of_a_join_does_not_show_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(PeerUnreachable, match="cannot resolve") as caught:
        addresses.resolve(TEXT, 1)
    assert TEXT[:12] not in "".join(traceback.format_exception(caught.value))
    assert TEXT[:12] not in str(JoinError(f"no seed has an address: {TEXT}: not known", failures={}))
