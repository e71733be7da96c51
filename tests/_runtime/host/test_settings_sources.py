"""Where settings come from, which source wins, and what is refused. docs/agent-settings.md does what it says."""

from __future__ import annotations

import base64
import errno
import logging
import math
import os
import re
import shlex
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import Config, ConfigError, DataConfig
from mycorrizal._runtime.host import settings_sources
from mycorrizal._runtime.host.settings_sources import ENVIRONMENT, load
from mycorrizal.agentconfig import AgentSettings
from tests.keys import WEAK

PAGE = (Path(__file__).parents[3] / "docs" / "agent-settings.md").read_text("utf-8")
SECRET = bytes(range(32))
TEXT = base64.b64encode(SECRET).decode()

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in an empty directory, with an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MYCORRIZAL_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def write(here: Path) -> Write:
    def write(text: str | bytes, name: str = "mycorrizal.toml", mode: int = 0o600) -> Path:
        path = here / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    return write


def refused(arguments: dict[str, Any], match: str, environ: dict[str, str] | None = None) -> ConfigError:
    """Return the error of a load that must fail; it shows no key."""
    with pytest.raises(ConfigError, match=match) as caught:
        load(arguments, environ or {})
    for shown in ("".join(traceback.format_exception(caught.value)), repr(caught.value)):
        assert TEXT[:10] not in shown
    return caught.value


# -- one source after the other ----------------------------------------------------------------------


def test_nothing_given_is_the_defaults() -> None:
    settings = load({"name": None, "cluster": None}, {})
    assert settings == AgentSettings()
    assert dict(settings.sources) == {}
    assert (settings.cluster, settings.join, settings.key, settings.discover) == ("default", (), None, True)


def test_each_source_wins_over_the_one_before(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write('[agent]\nname = "file"\ncluster = "file"\nport = 1\n[agent.tags]\na = "1"\nb = "2"')
    environ = {"MYCORRIZAL_CLUSTER": "environment", "MYCORRIZAL_PORT": "2", "MYCORRIZAL_TAGS": "a=3"}
    with caplog.at_level(logging.DEBUG, "mycorrizal.settings"):
        settings = load({"port": 3}, environ)
    assert (settings.name, settings.cluster, settings.port) == ("file", "environment", 3)
    assert dict(settings.tags) == {"a": "3"}
    assert dict(settings.sources) == {
        "name": f"{path}, table [agent]",
        "cluster": "the environment variable MYCORRIZAL_CLUSTER",
        "port": "argument port",
        "tags": "the environment variable MYCORRIZAL_TAGS",
    }
    assert f"settings are read from {path}" in caplog.text
    assert "port is set by argument port" in caplog.text


def test_every_variable_is_read() -> None:
    environ = {
        "MYCORRIZAL_NAME": "n", "MYCORRIZAL_CLUSTER": "c", "MYCORRIZAL_JOIN": " 10.0.0.5, dns://seeds ,,",
        "MYCORRIZAL_KEY": TEXT, "MYCORRIZAL_BIND": "::1", "MYCORRIZAL_PORT": "1", "MYCORRIZAL_QUIC_PORT": "2",
        "MYCORRIZAL_ADVERTISE": "10.0.0.1:3", "MYCORRIZAL_TAGS": "zone=a, role = b=c", "MYCORRIZAL_WIRE": "msgpack",
        "MYCORRIZAL_LABEL": "l", "MYCORRIZAL_INSECURE": "Yes", "MYCORRIZAL_DISCOVER": "0", "MYCORRIZAL_CONTROL": "off",
        "MYCORRIZAL_JOIN_TIMEOUT": "2.5", "MYCORRIZAL_SETTINGS_FILE": "s.db", "MYCORRIZAL_SEED_PORT": "4",
        "MYCORRIZAL_JOIN_RETRY": "inf", "MYCORRIZAL_EXPECT": "3", "MYCORRIZAL_METRICS_PORT": "5",
        "MYCORRIZAL_CERTIFICATES": "a.pem, a.key,/ca.pem",
    }  # fmt: skip
    settings = load({}, environ)
    expected = AgentSettings(
        name="n", cluster="c", join=("10.0.0.5", "dns://seeds"), key=SECRET, bind="::1", port=1, quic_port=2,
        advertise="10.0.0.1:3", tags={"zone": "a", "role": "b=c"}, wire="msgpack", label="l", insecure=True,
        discover=False, control=False, join_timeout=2.5, settings_file="s.db", seed_port=4, metrics_port=5,
        join_retry=math.inf, expect=3, certificates=("a.pem", "a.key", "/ca.pem"),
        sources=settings.sources,
    )  # fmt: skip
    assert settings == expected
    assert {"MYCORRIZAL_KEY_FILE", *environ} == {f"MYCORRIZAL_{name.upper()}" for name in ENVIRONMENT}
    assert load({}, dict.fromkeys(environ, " ")) == AgentSettings()


def test_the_process_s_environment_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYCORRIZAL_NAME", "env")
    assert load({}).name == "env"


@pytest.mark.parametrize(
    ("variable", "text", "match"),
    [
        ("PORT", "http", "port: 'http' is no whole number, in the environment variable MYCORRIZAL_PORT"),
        ("PORT", "70000", "port: 70000 is no port of 0 to 65535, in the environment variable MYCORRIZAL_PORT"),
        ("INSECURE", "maybe", "insecure: 'maybe' is neither 1, true"),
        ("JOIN_TIMEOUT", "soon", "join_timeout: 'soon' is no number of seconds"),
        ("JOIN_TIMEOUT", "nan", "join_timeout: nan is no number"),
        ("TAGS", "zone", "tags: 'zone' is not of the form name=value"),
        ("TAGS", "=a", "names and values are text"),
        ("BIND", "host", "bind: 'host' is no IP address, in .*MYCORRIZAL_BIND .write one like"),
        ("WIRE", "json", "wire: 'json' is no codec, in .*MYCORRIZAL_WIRE"),
        ("KEY", TEXT[:20], "key: is not 16, 24 or 32 bytes, .* in .*MYCORRIZAL_KEY .make one with: mycorrizal keygen"),
        ("KEY", TEXT + "é", "key: is not"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str, match: str) -> None:
    assert refused({}, match, {f"MYCORRIZAL_{variable}": text}).field == variable.lower()


def test_a_misspelled_variable_is_told_and_a_stranger_s_is_not(caplog: pytest.LogCaptureFixture) -> None:
    load({}, {"MYCORRIZAL_CLUSTRE": "x", "MYCORRIZAL_PYTHONS": "y", "MYCORRIZAL_RUNTIME_DIR": "z"})
    assert [record.getMessage() for record in caplog.records] == [
        "the environment variable MYCORRIZAL_CLUSTRE means nothing; is it MYCORRIZAL_CLUSTER?"
    ]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"nmae": "x"}, "nmae: no such setting of an agent .is it name"),
        ({"zzz": 1}, "docs/agent-settings.md"),
        ({"sources": {}}, "no such setting"),
        ({"join": 7}, "join: must be a list of texts, not int, in argument join"),
        ({"join": [7]}, "join: must be a tuple of texts, in argument join"),
        ({"tags": "zone=a"}, "tags: must be a mapping"),
        ({"key": 7}, "key: must be bytes or base64 text, not int"),
        ({"key": SECRET[:31]}, "key: is not 16, 24 or 32 bytes"),
        ({"config": {}}, "config: must be a Config, in argument config"),
        ({"config_file": 7}, "config_file: must be a path or False, not int"),
        ({"config_file": True}, "config_file: must be a path or False, not bool"),
        ({"config_file": b"x"}, "config_file: must be a path or False, not bytes"),
        ({"key_file": 7}, "key_file: must be a path, not int, in argument key_file"),
        ({"key_file": b"x"}, "key_file: must be a path, not bytes"),
        ({"key_file": "a\0b"}, "key_file: .* is no path: it holds a NUL, in argument key_file"),
        ({"settings_file": 5}, "settings_file: must be a path, not int, in argument settings_file"),
        ({"settings_file": b"x"}, "settings_file: must be a path, not bytes"),
        ({"settings_file": ""}, "settings_file: '' is no path"),
        ({"settings_file": "a\0b"}, "settings_file: .* is no path"),
        ({"key": SECRET, "key_file": "x"}, "key: given twice: argument key and argument key_file"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], match: str) -> None:
    refused(arguments, match)


def test_seeds_as_people_give_them() -> None:
    assert load({"join": "10.0.0.5"}, {}).join == ("10.0.0.5",)
    assert load({"join": iter(["a", "b"])}, {}).join == ("a", "b")


# -- the file ------------------------------------------------------------------------------------------


def test_whole_configs_as_arguments_replace_the_tables(write: Write) -> None:
    write("[agent.config]\nprobe_interval = 2.0\n[agent.data]\nhandlers = 3")
    settings = load({}, {})
    assert dict(settings.config_fields) == {"probe_interval": 2.0}
    assert settings.data_config == DataConfig(handlers=3)
    config, data = Config.lan(name="x"), DataConfig(handlers=4)
    settings = load({"config": config, "data_config": data}, {})
    assert (settings.config, dict(settings.config_fields), settings.data_config) == (config, {}, data)
    assert dict(settings.sources) == {"config": "argument config", "data_config": "argument data_config"}


def test_which_file_is_read(write: Write, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write('[agent]\nname = "here"')
    other = write('[agent]\nname = "other"', "other.toml")
    third = write('[agent]\nname = "third"', "third.toml")
    monkeypatch.setenv("HOME", str(here))
    environ = {"MYCORRIZAL_CONFIG": "~/other.toml"}
    assert load({}, {}).name == "here"
    assert load({}, environ).name == "other"
    assert load({}, environ).sources == {"name": f"{other}, table [agent]"}
    assert load({"config_file": third}, environ).name == "third"
    assert load({"config_file": False}, environ).name is None
    assert load({}, {"MYCORRIZAL_CONFIG": os.devnull}).name is None
    refused({}, "config_file: cannot read .*/none.toml: No such file", {"MYCORRIZAL_CONFIG": "none.toml"})
    refused({"config_file": here}, "cannot read|no regular file")
    refused({"config_file": "a\0b"}, "config_file: .* is no path: it holds a NUL")


def left_alone(caplog: pytest.LogCaptureFixture, path: Path, why: str) -> bool:
    """Whether nothing was read, and one warning says why."""
    caplog.clear()
    assert load({}, {}) == AgentSettings()
    hint = "name it in MYCORRIZAL_CONFIG to have it read"
    return [record.getMessage() for record in caplog.records] == [f"{path} is left alone, since {why}; {hint}"]


def test_a_stranger_s_file_in_the_working_directory_is_left_alone(
    write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write('[agent]\nname = "stranger"', mode=0o666)
    assert left_alone(caplog, path, "anybody can write it")
    path.chmod(0o664)
    assert load({}, {}).name == "stranger"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda descriptor: os.stat_result([0o100644, 1, 1, 1, 4242, 0, 0, 0, 0, 0]))
        assert left_alone(caplog, path, "it belongs to user 4242")
    assert load({}, {"MYCORRIZAL_CONFIG": str(path)}).name == "stranger"  # whoever names it means it


@pytest.mark.parametrize("target", ["secret.toml", "missing.toml", "mycorrizal.toml", "."])
def test_a_link_in_the_working_directory_is_left_alone(
    write: Write, here: Path, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    secret = write('[agent]\nname = "mine"', "secret.toml")
    path = here / "mycorrizal.toml"
    path.symlink_to(target)
    assert left_alone(caplog, path, "it is a symbolic link")
    if (here / target) == secret:
        assert load({}, {"MYCORRIZAL_CONFIG": "mycorrizal.toml"}).name == "mine"
        assert load({"config_file": path}, {}).name == "mine"


@pytest.mark.parametrize("before", [True, False])
def test_what_is_judged_is_what_is_read(
    write: Write, here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, before: bool
) -> None:
    """Somebody else puts another file in place, just before it is opened or just after."""
    path = write('[agent]\nname = "first"', mode=0o644)
    write('[agent]\nname = "second"', "other.toml", mode=0o666)
    real = os.open

    def swapping(name: str, flags: int, mode: int = 0o777) -> int:
        monkeypatch.setattr(os, "open", real)
        if before:
            os.replace(here / "other.toml", path)
        descriptor = real(name, flags, mode)
        if not before:
            os.replace(here / "other.toml", path)
        return descriptor

    monkeypatch.setattr(os, "open", swapping)
    if before:
        assert left_alone(caplog, path, "anybody can write it")
    else:
        assert load({}, {}).name == "first"


def test_a_file_in_the_working_directory_that_may_not_be_read(
    write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write("[agent]")

    def refuse(*arguments: Any) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    refused({}, "config_file: cannot read .*/mycorrizal.toml: Permission denied")  # it may hold the key
    path.chmod(0o666)
    assert left_alone(caplog, path, "anybody can write it")
    path.unlink()
    assert load({}, {}) == AgentSettings()


def test_what_is_no_file_in_the_working_directory(write: Write, here: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = here / "mycorrizal.toml"
    before = len(os.listdir("/dev/fd"))
    path.mkdir()
    refused({}, "config_file: .*/mycorrizal.toml is no regular file")
    path.rmdir()
    os.mkfifo(path, 0o600)
    refused({}, "no regular file")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("mycorrizal.toml")
        path.chmod(0o600)
        refused({}, "config_file: cannot read .*/mycorrizal.toml")
        path.chmod(0o666)
        assert left_alone(caplog, path, "anybody can write it")  # a stranger's keeps nobody from starting
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("nonsense\n", r"config_file: .*/mycorrizal.toml is not TOML: .*line 1"),
        (b"\xff", "not TOML: no UTF-8"),
        ("a = " + "[" * 5000, "not TOML: "),
        ("x = 1\n" * 50000, "has more than 262144 bytes"),
        (f'[agent]\nkey = {TEXT}', "not TOML"),
        (f'[agent]\nkey = "{TEXT}\n', "not TOML"),
        ("[agnet]\n", "agnet: no such setting, at the top of .*/mycorrizal.toml .is it agent"),
        ("agent = 1", "agent: must be a table"),
        ("[agent]\nnmae = 1", r"nmae: no such setting, in \[agent\] of .*/mycorrizal.toml .is it name"),
        ('[agent]\nport = "1"', r"port: '1' is no port of 0 to 65535, in .*/mycorrizal.toml, table \[agent\]"),
        ("[agent]\njoin = 1", "join: must be a list of texts"),
        ("[agent]\nkey = 1", r"key: must be bytes or base64 text, not int, in .*table \[agent\]"),
        ("[agent]\nkey_file = 1", "key_file: must be a path, not int"),
        (f'[agent]\nkey = "{TEXT}"\nkey_file = "x"', "given twice"),
        ("[agent]\ntags = 1", "tags: must be a mapping"),
        ("[agent.tags]\na = 1", "tags: 'a' = 1: names and values are text"),
        ("[agent]\nconfig = 1", r"config: must be a table, in .*\[agent.config\]"),
        ("[agent]\ndata = []", r"data: must be a table, in .*\[agent.data\]"),
        ("[agent.config]\nprobe_intervall = 1", r"probe_intervall: no such setting, in .*\[agent.config\] .is it"),
        ("[agent.config]\nprobe_interval = -1", r"probe_interval: -1 is too small, in .*\[agent.config\] .0 disables"),
        ("[agent.config]\nbind_port = 1", r"bind_port: is not set in .*write port in \[agent\]"),
        ("[agent.config]\nsecret_key = 1", r"write key in \[agent\]"),
        ("[agent.config]\ndisable_tcp_pings_for_node = 1", "no such setting"),
        ("[agent.data]\nhandlers = 0", r"handlers: 0 is not in 1..1024, in .*\[agent.data\]"),
        ("[agent.data]\nhandler = 1", "handler: no such setting.*is it handlers"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_the_file(write: Write, text: str | bytes, match: str) -> None:
    write(text)
    refused({}, match)


# -- keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 24, 32])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_key_file_holds_base64_with_or_without_a_newline(write: Write, size: int, end: bytes) -> None:
    write(base64.b64encode(SECRET[:size]) + end, "k")
    assert load({"key_file": "k"}, {}).key == SECRET[:size]


def test_a_key_file_may_hold_the_bytes(write: Write) -> None:
    path = write(SECRET, "k")
    settings = load({}, {"MYCORRIZAL_KEY_FILE": "k"})
    assert settings.key == SECRET
    assert str(SECRET) not in repr(settings) and "key=" not in repr(settings)
    path.write_bytes(SECRET + b"\n")
    refused({"key_file": path}, "key: is not 16, 24 or 32 bytes.*in argument key_file")
    path.write_bytes(b"x" * 5000)
    refused({"key_file": path}, "key_file: .*/k has more than 4096 bytes")


def test_a_key_file_of_the_settings_is_beside_them(write: Write, here: Path) -> None:
    (here / "sub").mkdir()
    path = write('[agent]\nkey_file = "k"', "sub/settings.toml", 0o644)  # it names the key, it does not hold it
    write(TEXT, "sub/k")
    settings = load({"config_file": path}, {})
    assert settings.key == SECRET
    assert dict(settings.sources) == {"key": f"{path}, table [agent]"}
    assert load({"config_file": path, "key": SECRET[:16]}, {}).key == SECRET[:16]
    (here / "sub" / "k").unlink()
    assert load({"config_file": path}, {"MYCORRIZAL_KEY": TEXT}).key == SECRET  # what does not win is not read
    refused({"config_file": path}, r"key_file: cannot read .*/sub/k: No such file or directory, in .*\[agent\]")


def test_a_file_for_settings_is_beside_those_that_name_it(write: Write, here: Path) -> None:
    (here / "sub").mkdir()
    path = write('[agent]\nsettings_file = "kept.sqlite"', "sub/settings.toml")
    assert load({"config_file": path}, {}).settings_file == os.path.join(os.path.dirname(path), "kept.sqlite")
    assert load({"config_file": path}, {"MYCORRIZAL_SETTINGS_FILE": "here"}).settings_file == "here"
    assert load({"config_file": False, "settings_file": Path("there")}, {}).settings_file == "there"
    write("[agent]\nsettings_file = 7", "sub/settings.toml")
    refused({"config_file": path}, r"settings_file: must be a path, not int, in .*table \[agent\]")
    [entry] = [entry for entry in os.scandir(b"sub") if entry.name == b"settings.toml"]  # a path, and of bytes
    refused({"config_file": entry}, "settings_file: must be a path, not int, in .*/sub/settings.toml")


@pytest.mark.parametrize(("key", "why"), WEAK.values(), ids=WEAK)
def test_a_key_that_can_be_guessed_is_refused_from_every_source(write: Write, key: bytes, why: str) -> None:
    """Whether it is one depends on the wire, which may come from another source than the key."""
    text = base64.b64encode(key).decode()
    write(text, "k")
    sources: list[tuple[dict[str, Any], dict[str, str], str]] = [
        ({"key": key}, {}, "argument key"), ({"key": text}, {}, "argument key"),
        ({"key_file": "k"}, {}, "argument key_file"), ({}, {"MYCORRIZAL_KEY": text}, ".*MYCORRIZAL_KEY"),
        ({}, {"MYCORRIZAL_KEY_FILE": "k"}, ".*MYCORRIZAL_KEY_FILE"),
    ]  # fmt: skip
    for arguments, environ, where in sources:
        refused(arguments, f"key: {why}.*, in {where}.* .make one with", environ)
        assert load({**arguments, "wire": "msgpack"}, environ).key == key
        assert load(arguments, {**environ, "MYCORRIZAL_WIRE": "msgpack"}).key == key
    write(f'[agent]\nkey = "{text}"')
    refused({}, f"key: {why}.*, in .*mycorrizal.toml, table .agent.")
    write(f'[agent]\nkey = "{text}"\nwire = "msgpack"')
    assert load({}, {}).key == key
    refused({"wire": "cbor"}, why)


def test_a_key_file_with_a_passphrase_is_refused(write: Write) -> None:
    write(b"correct horse battery staple 12\n", "k")
    refused({"key_file": "k"}, "key: is text, as a passphrase is, and can be guessed, in argument key_file")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601])
def test_a_key_that_others_can_read_is_refused(write: Write, mode: int) -> None:
    key = write(TEXT, "k", mode)
    refused({"key_file": "k"}, f"others can read it .mode {mode:04o}.*chmod 600 ")
    key.chmod(0o400)
    assert load({"key_file": "k"}, {}).key == SECRET
    path = write(f'[agent]\nkey = "{TEXT}"', mode=mode)
    refused({}, f"key: {path} holds a key and others can read it .*chmod 600 {path}")
    path.chmod(0o600)
    assert load({}, {}).key == SECRET


@pytest.mark.parametrize(
    ("owner", "mode", "fine"), [(0, 0o440, True), (0, 0o444, False), (0, 0o460, False), (7, 0o400, False)]
)
def test_a_secret_that_root_gives_to_the_service_s_group(
    write: Write, monkeypatch: pytest.MonkeyPatch, owner: int, mode: int, fine: bool
) -> None:
    write(TEXT, "k")
    found = os.stat_result([0o100000 | mode, 1, 1, 1, owner, 0, 0, 0, 0, 0])
    monkeypatch.setattr(os, "fstat", lambda descriptor: found)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if fine:
        assert load({"key_file": "k"}, {}).key == SECRET
    else:
        refused({"key_file": "k"}, "others can read it" if owner == 0 else "belongs to user 7")


def test_a_pipe_is_no_key_file(here: Path) -> None:
    os.mkfifo(here / "pipe", 0o600)
    refused({"key_file": "pipe"}, "no regular file")


def test_certificates_are_three_paths_and_lie_beside_a_settings_file(write: Write, here: Path) -> None:
    path = write('[agent]\ncertificates = ["a.pem", "/b.key", "~/ca.pem"]')
    assert load({}, {}).certificates == (str(here / "a.pem"), "/b.key", os.path.expanduser("~/ca.pem"))
    given = [Path("a.pem"), "b.key", "~/ca.pem"]
    assert load({"certificates": given}, {}).certificates == ("a.pem", "b.key", os.path.expanduser("~/ca.pem"))
    assert refused({"certificates": ("a", "b")}, "three paths.*argument certificates").field == "certificates"
    refused({"certificates": "a.pem"}, "list of paths, not str")
    refused({"certificates": b"abc"}, "list of paths, not bytes")
    refused({"certificates": 3}, "list of paths, not int")
    refused({"certificates": ("a", "b", 3)}, "must be a path, not int")
    refused({"certificates": ("a", "b", "")}, "is no path")
    refused({}, "three paths.*MYCORRIZAL_CERTIFICATES", {"MYCORRIZAL_CERTIFICATES": "a.pem"})
    for text, match in (('"a.pem"', "list of paths, not str"), ('["a", "b", 3]', "not int"), ('["a"]', "three paths")):
        write(f"[agent]\ncertificates = {text}")
        refused({}, f"{match}.*{path}")


# -- the page ------------------------------------------------------------------------------------------------


def test_the_file_of_the_page_is_read(write: Write) -> None:
    [block] = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    write(TEXT, "cluster.key")
    write(block)
    settings = load({}, {})
    assert settings == AgentSettings(
        name="alice",
        cluster="demo",
        join=("10.0.0.5", "bob/10.0.0.6:7946", "dns://seeds.example.org"),
        key=SECRET,
        bind="10.0.0.7",
        port=7946,
        join_timeout=20,
        tags={"zone": "a"},
        config_fields={"probe_interval": 2.0, "cidrs_allowed": ("10.0.0.0/8",)},
        data_config=DataConfig(handlers=16),
        sources=settings.sources,
    )


def test_the_table_of_the_page_is_complete() -> None:
    rows = re.findall(r"^\| `(\w+)`.*?\| (?:`(MYCORRIZAL_\w+)`)?", PAGE.partition("## Seeds")[0], re.MULTILINE)
    documented = {name: variable for name, variable in rows if variable}
    assert documented == {name: f"MYCORRIZAL_{name.upper()}" for name in ENVIRONMENT}
    fields = set(AgentSettings.__dataclass_fields__) - {"sources", "config_fields"}
    assert {name for name, _ in rows} - {"key_file"} == fields
    assert settings_sources.FILE_NAME in PAGE


def test_command_in_a_hint_can_be_copied_into_a_shell(write: Write) -> None:
    path = write(TEXT, "my $(touch x).key", 0o644)
    error = refused({"key_file": path, "config_file": False}, "others can read it")
    assert error.hint is not None and shlex.split(error.hint) == ["chmod", "600", str(path)]
    path = write(f'[agent]\nkey = "{TEXT}"', "my $(touch x).toml", 0o644)
    error = refused({"config_file": path}, "holds a key and others can read it")
    assert error.hint is not None and shlex.split(error.hint) == ["chmod", "600", str(path)]
