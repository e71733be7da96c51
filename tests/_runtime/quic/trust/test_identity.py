"""Who an agent is when nobody says, and the key of its gossip."""

from __future__ import annotations

import os

import pytest

from mycorrizal._runtime.quic.trust import identity
from mycorrizal._runtime.quic.trust.identity import default_name, gossip_key
from mycorrizal._runtime.quic.trust.proof import derive
from mycorrizal._wire.packet import PacketCodec
from mycorrizal._wire.security import Keyring
from mycorrizal.config import Config, check_name
from mycorrizal.exceptions import DecryptError

KEY = bytes(range(32))


def test_default_name_is_one_and_says_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    check_name(default_name())
    names = []
    for number in (0xEFFFFFFC, 0xF0000105, 0xF0000106, None):  # the host's processes, two containers', no /proc
        monkeypatch.setattr(identity, "_process_namespace", lambda number=number: number)
        names.append(default_name())
    assert len(set(names)) == 4 and names[3].endswith(f"-{os.getpid()}")


def test_processes_that_no_container_holds_are_in_the_first_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter([identity._FIRST_NAMESPACE, 0xF0000105])
    monkeypatch.setattr(os, "stat", lambda path: os.stat_result((0, next(numbers), *[0] * 8)))
    assert [identity._process_namespace(), identity._process_namespace()] == [None, 0xF0000105]

    def missing(path: str) -> os.stat_result:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "stat", missing)
    assert identity._process_namespace() is None


@pytest.mark.parametrize("size", [16, 24, 32])
def test_clusters_with_one_key_cannot_read_each_other(size: int) -> None:
    """Not even with one label: the key of gossip is another one in each cluster, and nowhere the key itself."""
    key = KEY[:size]
    keys = [gossip_key(key, cluster) for cluster in ("one", "two", "")]
    assert len({key, *keys}) == 4 and all(len(each) == 32 for each in keys)
    assert gossip_key(key, "one") == keys[0], "the same on every node"
    assert keys[0] not in {derive(key, purpose, "one") for purpose in ("client proof", "server proof", "knock")}
    codecs = [PacketCodec(Config(name="n"), Keyring(primary=each), lambda: bytes(12)) for each in keys]
    sealed = codecs[0].seal([b"\x08x"], crc=False)[0]
    assert len(codecs[0].open(sealed).messages) == 1
    for other in codecs[1:]:
        with pytest.raises(DecryptError):
            other.open(sealed)
