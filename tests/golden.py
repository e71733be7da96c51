"""The cases of ``tests/vectors/memberlist.json``, made by running Go's memberlist, and how to check them.

A module that checks kinds of cases holds a dict ``CHECKS``: kind -> function
of one case that asserts. ``test_vectors.py`` runs every case of the file
through the modules named in ``CHECKED_BY``, and fails if a kind is missing.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mycorrizal import Config
from mycorrizal._wire import messages as m
from mycorrizal._wire.messages import Body, Field, Kind
from mycorrizal._wire.security import Keyring

__all__ = [
    "CHECKED_BY",
    "STRUCTS",
    "Case",
    "all_checks",
    "body_of",
    "cases",
    "config_of",
    "fields_of",
    "generate",
    "keyring_of",
    "unhex",
]

Case = dict[str, Any]
Check = Callable[[Case], None]

FILE = Path(__file__).parent / "vectors" / "memberlist.json"

CHECKED_BY = ("tests._wire.test_golden", "tests._swim.test_golden", "tests._runtime.test_golden")
"""Modules with a dict ``CHECKS``. To add kinds, add them there or name another module here."""

STRUCTS: dict[str, type[Body]] = {
    "ping": m.Ping,
    "indirect_ping": m.IndirectPing,
    "ack": m.AckResp,
    "nack": m.NackResp,
    "err": m.Err,
    "suspect": m.Suspect,
    "dead": m.Dead,
    "alive": m.Alive,
    "compress": m.Compress,
    "push_pull_header": m.PushPullHeader,
    "push_node_state": m.PushNodeState,
    "user_msg_header": m.UserMsgHeader,
}

_WORDS = ["alpha", "beta", "gamma", "delta", "node", "cluster", "gossip", "the", "a", "of", "suspect", "alive"]


@functools.cache
def document() -> dict[str, Any]:
    """Return the whole file."""
    loaded: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return loaded


def cases(*kinds: str) -> list[Case]:
    """Return the cases of `kinds` in file order; of all kinds if none is named."""
    return [case for case in document()["cases"] if not kinds or case["kind"] in kinds]


@functools.cache
def all_checks() -> dict[str, Check]:
    """Return the checking function of each kind that has one."""
    found: dict[str, Check] = {}
    for name in CHECKED_BY:
        checks: dict[str, Check] = importlib.import_module(name).CHECKS
        twice = found.keys() & checks.keys()
        assert not twice, f"checked by two modules: {sorted(twice)}"
        found.update(checks)
    return found


# -- values -------------------------------------------------------------------------


def unhex(text: str | None) -> bytes | None:
    """Return hex as bytes; null stays None."""
    return None if text is None else bytes.fromhex(text)


def body_of(struct: str | type[Body], given: dict[str, Any]) -> Body:
    """Return the body that a case's ``fields`` describe."""
    cls: Any = STRUCTS[struct] if isinstance(struct, str) else struct
    return cls(**{field.attr: _value(field, given) for field in cls.FIELDS})  # type: ignore[no-any-return]


def _value(field: Field, given: dict[str, Any]) -> Any:
    if field.kind is Kind.BYTES:
        return unhex(given[f"{field.key}_hex"])
    value = given[field.key]
    if isinstance(value, dict):  # text that is not UTF-8
        return bytes.fromhex(value["hex"]).decode("utf-8", "surrogateescape")
    return value


def fields_of(body: Body) -> dict[str, Any]:
    """Return `body` as a case writes it."""
    out: dict[str, Any] = {}
    for field in body.FIELDS:
        value = getattr(body, field.attr)
        if field.kind is Kind.BYTES:
            out[f"{field.key}_hex"] = None if value is None else value.hex()
        else:
            out[field.key] = value
    return out


def config_of(given: dict[str, Any]) -> Config:
    """Return a configuration from the settings a case names; what it does not name is memberlist's default."""
    primary = unhex(given.get("key_hex"))
    keys = [bytes.fromhex(text) for text in given.get("keys_hex", ())]
    if primary is None and keys:
        primary = keys.pop(0)
    names = ("label", "enable_compression", "gossip_verify_incoming", "gossip_verify_outgoing", "protocol_version")
    settings = {name: given[name] for name in (*names, "skip_inbound_label_check", "name") if name in given}
    return Config(**{"name": "node-a", **settings}, wire="msgpack", secret_key=primary, keys=tuple(keys))


def keyring_of(config: Config) -> Keyring:
    """Return the keys of `config`."""
    return Keyring.of(config)


# -- generators -----------------------------------------------------------------------


def generate(name: str, size: int) -> bytes:
    """Return `size` bytes of one of the file's generators, e.g. ``"lcg(seed=42)"``."""
    if name == "zeros":
        return bytes(size)
    if repeat := re.fullmatch(r"repeat\((\w+), (\d+)\)", name):
        return (bytes.fromhex(repeat[1]) * int(repeat[2]))[:size]
    if lcg := re.fullmatch(r"lcg\(seed=(\d+)\)(?: % (\d+))?", name):
        modulus = int(lcg[2] or 256)
        return bytes(x % modulus for x in _lcg(int(lcg[1]), size, 0xFF))
    if text := re.fullmatch(r"text\(seed=(\d+)\)", name):
        # A word and its space take two bytes at least.
        words = [_WORDS[x % 12] for x in _lcg(int(text[1]), size // 2 + 1, 0xFFFF)]
        return (" ".join(words) + " ").encode()[:size]
    raise AssertionError(f"unknown generator {name}")


def _lcg(seed: int, count: int, mask: int) -> list[int]:
    out = []
    for _ in range(count):
        seed = (1103515245 * seed + 12345) % (1 << 31)
        out.append(seed >> 16 & mask)
    return out
