"""No key stands in a log, an error or a ``repr``, whatever an agent goes through with it."""

from __future__ import annotations

import base64
import logging
import os
import stat
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import Agent, ControlClient, MycorrizalError
from mycorrizal._runtime.host.settings_sources import load
from mycorrizal._runtime.quic.trust.identity import gossip_key

from .agents import QUICK, Make, agents, meeting_place, runtime_dir  # noqa: F401 - fixtures

OLD, NEW, WRONG = (bytes((*range(start, start + 31), 0x80)) for start in (0x41, 0x61, 0x30))


def forms(key: bytes) -> Iterator[str]:
    """Return what `key` would look like in a text."""
    yield key.decode("latin-1")
    yield repr(key)[2:-1]
    yield key.hex()
    yield base64.b64encode(key).decode()
    yield base64.urlsafe_b64encode(key).decode()
    yield repr(list(key))[1:-1]


def shown_in(text: str, *keys: bytes) -> list[str]:
    return [form for key in keys for form in forms(key) if form[:20] in text]


def test_a_shown_key_is_found() -> None:
    for shown in (repr(OLD), OLD.hex(), repr(bytearray(OLD)), list(OLD), base64.b64encode(OLD).decode()):
        assert shown_in(f"the key is {shown}", OLD, NEW)
    assert not shown_in("ABC", OLD, NEW)


def errors_of(*calls: Any) -> list[str]:
    """Return the tracebacks of calls that must fail."""
    texts = []
    for call in calls:
        with pytest.raises(MycorrizalError) as caught:
            call()
        texts.append("".join(traceback.format_exception(caught.value)) + repr(caught.value))
    return texts


def test_no_key_is_shown_by_agents_that_start_talk_and_change_it(
    agents: Make, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]  # noqa: F811
) -> None:
    caplog.set_level(logging.DEBUG)
    common: dict[str, Any] = {"key": OLD, "config": QUICK, "bind": "127.0.0.1"}
    alice, bob = agents("alice", **common), agents("bob", **common)
    alice.wait_for(2)
    seed = "{}:{}".format(*alice.address)
    texts = errors_of(lambda: Agent("eve", **{**common, "key": WRONG, "join": [seed], "join_timeout": 1.0}))
    assert not alice.keys.add(NEW).errors and not bob.keys.use(NEW).errors
    endpoint = next(Path(os.environ["MYCORRIZAL_RUNTIME_DIR"]).glob("*.control"))
    with ControlClient(f"ipc://{endpoint}") as client:
        shown = client.call("keys.list")
        texts += errors_of(
            lambda: client.call("keys.use", key=WRONG[:-1]),
            lambda: client.call("keys.remove", key=base64.b64encode(NEW).decode() + "?"),
            lambda: client.call("keys.add", key=[NEW.hex()]),
            lambda: client.call("keys.use", key=WRONG),
        )
    texts += errors_of(lambda: alice.keys.use(WRONG), lambda: alice.keys.remove(NEW), lambda: alice.keys.add(OLD[:7]))
    assert not alice.keys.remove(OLD).errors
    alice.send("bob", 1)
    assert bob.receive(5).value == 1
    texts += [repr(one) for one in (shown, alice, alice.keys, alice.members(), alice.metrics(), alice._repr_html_())]
    texts += [repr(one._parts.settings) for one in (alice, bob) if one._parts is not None]
    texts += [caplog.text, *capfd.readouterr()]
    keys = [OLD, NEW, WRONG, *(gossip_key(key, "default") for key in (OLD, NEW))]
    assert len(caplog.records) > 20, "something was logged"
    assert shown_in("\n".join(texts), *keys) == []


def test_no_key_of_a_host_is_shown(agents: Make, runtime_dir: str, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    caplog.set_level(logging.DEBUG)
    alice = agents("alice")
    (key,) = alice.keys.list()
    (file,) = Path(runtime_dir).glob("*.key")
    assert file.read_bytes() == key and stat.S_IMODE(file.stat().st_mode) == 0o600
    others = [path.read_bytes().decode("latin-1") for path in Path(runtime_dir).glob("*.agent")]
    assert others and shown_in(caplog.text + repr(alice) + "".join(others), key) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_files_of_an_agent_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        file = str(tmp_path / "settings.db")
        with meeting_place() as path, Agent("alice", config=QUICK, settings_file=file) as alice:
            alice.settings["a"] = 1
            keep_key(alice)
            kept = [*Path(path).iterdir(), *tmp_path.iterdir()]
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in kept}
    finally:
        os.umask(before)
    kinds = {name.rpartition(".")[2] for name in modes}
    assert kinds >= {"key", "lock", "agent", "control", "events", "db", "db-wal"}
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o600} == {}


def keep_key(agent: Agent) -> None:
    """Change the key of the host, so that its file is another one."""
    for step in (agent.keys.add, agent.keys.use):
        assert not step(NEW).errors


def test_no_key_of_a_setting_that_is_wrong_elsewhere_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    text = base64.b64encode(OLD).decode()
    file = tmp_path / "mycorrizal.toml"
    file.write_text(f'[agent]\nkey = "{text}"\nport = "many"\n')
    file.chmod(0o600)
    broken = tmp_path / "broken.toml"
    broken.write_text(f'[agent]\nkey = "{text}\nport = 1\n')
    broken.chmod(0o600)
    cut = {"MYCORRIZAL_KEY": text[:-3]}
    texts = errors_of(
        lambda: load({"config_file": str(file)}, {}),
        lambda: load({"config_file": str(broken)}, {}),
        lambda: load({"config_file": False}, cut),
        lambda: load({"config_file": False, "key": OLD[:31]}, {}),
        lambda: load({"config_file": False, "key": text, "key_file": str(file)}, {}),
    )
    assert shown_in("\n".join([*texts, caplog.text]), OLD) == []
