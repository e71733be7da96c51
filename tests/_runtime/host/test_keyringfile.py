"""Serf's keyring file: what agents write is read, what is written is whole and private."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from mycorrizal._runtime.host.keyringfile import KeyringFile
from mycorrizal.exceptions import ConfigError

ONE, TWO = bytes(range(32)), bytes(range(100, 116))


def written(path: Path, content: str, mode: int = 0o600) -> Path:
    path.write_text(content)
    path.chmod(mode)
    return path


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    file = KeyringFile(path)
    assert file.load() == ()
    file.save((ONE, TWO))
    assert json.loads(path.read_text()) == [base64.b64encode(key).decode() for key in (ONE, TWO)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeyringFile(str(path)).load() == (ONE, TWO)
    assert [one.name for one in tmp_path.iterdir()] == ["keyring"]


def test_it_is_written_only_when_keys_changed(tmp_path: Path) -> None:
    path = tmp_path / "keyring"
    file = KeyringFile(path)
    file.save((ONE,))
    before = path.stat().st_ino
    file.save((ONE,))
    file.save(())
    assert path.stat().st_ino == before
    file.save((TWO, ONE))
    assert KeyringFile(path).load() == (TWO, ONE)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "[5]", '["short"]', "not json", '"' + base64.b64encode(ONE).decode() + '"', "[" * 5000]
)
def test_what_is_no_keyring_is_an_error(tmp_path: Path, content: str) -> None:
    path = written(tmp_path / "keyring", content)
    with pytest.raises(ConfigError, match="no JSON list of keys") as caught:
        KeyringFile(path).load()
    assert caught.value.field == "keyring_file"


def test_it_is_private(tmp_path: Path) -> None:
    path = written(tmp_path / "keyring", json.dumps([base64.b64encode(ONE).decode()]), 0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        KeyringFile(path).load()


def test_a_file_that_cannot_be_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "keyring"
    with pytest.raises(ConfigError, match="cannot write") as caught:
        KeyringFile(path).save((ONE,))
    assert base64.b64encode(ONE).decode() not in str(caught.value)
    with pytest.raises(ConfigError, match="regular file"):
        KeyringFile(tmp_path).load()
    with pytest.raises(ConfigError, match="must be a path"):
        KeyringFile(5)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []
