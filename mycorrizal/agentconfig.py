"""Settings of an ``Agent``, as one checked value. Their sources are ``_runtime/host/settings_sources.py``'s matter."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from .config import KEY_SIZES, Config, builtin_fields, check_key, check_name, check_reachable, check_text
from .dataconfig import DataConfig
from .exceptions import ConfigError
from .types import as_builtin

__all__ = ["AgentSettings", "check_cluster", "check_port", "parse_key"]

_KEYGEN = "make one with: mycorrizal keygen"


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What an ``Agent`` is started with. Immutable; every error names the field.

    Attributes:
        name: of the node; None lets the agent make one up.
        cluster: which agents belong together.
        join: seeds, as ``mycorrizal.discovery.Discovery`` takes them.
        key: 16, 24 or 32 random bytes, None without; never shown. Passphrases and the like only with
            ``wire="msgpack"``: a Go cluster may have such a key.
        certificates: paths of PEM files: the certificate, its private key, the CA; the data plane is proved with them
            instead of with the key.
        bind, port: IP literal and port to listen on; None means the agent's choice.
        quic_port: UDP port of the data plane; 0 picks a free one.
        advertise: IP literal, with or without a port, that others should dial.
        tags: what the node tells of itself.
        wire, label: as in ``Config``; with ``wire="cbor"`` the label is the cluster's name, and none may be given.
        insecure: whether to listen beyond loopback without a key.
        discover: whether to look for this user's agents on this host.
        control: whether to open the control sockets.
        metrics_port: of the HTTP pages for Prometheus, on loopback; 0 picks a free one, None: no pages.
        seed_port: of seeds that name none.
        join_timeout: seconds that starting may take to reach a seed; None waits.
        join_retry: seconds to go on asking the seeds after that, alone, instead of an error; infinity: for ever.
        expect: members that must have been seen at one time before a cache is written or locked; 0: none.
        config: a whole ``Config`` that was given; None: the agent's own, with ``config_fields`` changed.
        config_fields: single settings of membership; empty if ``config`` was given.
        settings_file: path of a SQLite file that keeps the cluster's settings; None: no file.
        data_config: settings of the data plane, None: the defaults.
        sources: where each setting that was given comes from, e.g. ``{"port": "MYCORRIZAL_PORT"}``.

    Raises:
        ConfigError: a value that cannot be one.
    """

    name: str | None = None
    cluster: str = "default"
    join: tuple[str, ...] = ()
    key: bytes | None = field(default=None, repr=False)
    certificates: tuple[str, str, str] | None = None
    bind: str | None = None
    port: int | None = None
    quic_port: int = 0
    advertise: str | None = None
    tags: Mapping[str, str] = field(default_factory=_nothing)
    wire: Literal["cbor", "msgpack"] = "cbor"
    label: str | None = None
    insecure: bool = False
    discover: bool = True
    control: bool = True
    metrics_port: int | None = None
    seed_port: int = 7946
    join_timeout: float | None = 10.0
    join_retry: float | None = None
    expect: int = 0
    config: Config | None = None
    config_fields: Mapping[str, Any] = field(default_factory=_nothing, repr=False)  # whole fields of a Config, keys too
    data_config: DataConfig | None = None
    settings_file: str | None = None
    sources: Mapping[str, str] = field(default_factory=_nothing)

    def __post_init__(self) -> None:
        builtin_fields(self)
        if self.name is not None:
            check_name(self.name)
        check_cluster(self.cluster)
        if not isinstance(self.join, tuple) or not all(isinstance(seed, str) for seed in self.join):
            raise ConfigError("join", "must be a tuple of texts", hint="e.g. ('10.0.0.5', 'dns://seeds.example.org')")
        object.__setattr__(self, "join", tuple(map(as_builtin, self.join)))
        if self.key is not None:
            check_key("key", self.key, allow_weak=self.wire == "msgpack")
        if self.certificates is not None:
            _check_certificates(self.certificates)
        _check_literal("bind", self.bind)
        check_port("port", self.port)
        check_port("metrics_port", self.metrics_port)
        check_port("quic_port", self.quic_port)
        _ = self.advertised
        _check_tags(self.tags)
        if self.settings_file is not None:
            _check_path("settings_file", self.settings_file)
        for name in ("insecure", "discover", "control"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(name, f"must be true or false, not {getattr(self, name)!r}")
        check_port("seed_port", self.seed_port)
        if not isinstance(self.expect, int) or isinstance(self.expect, bool) or self.expect < 0:
            raise ConfigError("expect", f"{self.expect!r} members", hint="0, or how many the cluster has at the least")
        if not self.seed_port:
            raise ConfigError("seed_port", "nobody listens on port 0")
        _check_seconds("join_timeout", self.join_timeout)
        if self.join_retry != math.inf:
            _check_seconds("join_retry", self.join_retry)
        if self.config is not None and self.config_fields:
            raise ConfigError("config", "given as a whole and in single fields")
        for name, kind in (("config", Config), ("data_config", DataConfig)):
            if not isinstance(getattr(self, name), (kind, type(None))):
                raise ConfigError(name, f"must be a {kind.__name__}")
        Config(name="n", wire=self.wire, label="" if self.label is None else self.label, **self.config_fields)

    @property
    def advertised(self) -> tuple[str, int | None] | None:
        """``advertise`` taken apart: host, and the port if it names one."""
        if self.advertise is None:
            return None
        text = self.advertise
        host, port = text, None
        if isinstance(text, str) and (text.startswith("[") or text.count(":") == 1):
            host, _, digits = text.rpartition(":")
            host = host.removeprefix("[").removesuffix("]")
            port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else 0
            if not 0 < port <= 65535:
                raise ConfigError("advertise", f"{text!r} has no port of 1 to 65535 after the colon")
        _check_literal("advertise", host)
        if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
            raise ConfigError("advertise", f"nobody can dial {host}", hint="name the address that others reach")
        return host, port


def parse_key(key: str | bytes | bytearray) -> bytes:
    """Return the key that is written as base64, as ``mycorrizal keygen`` prints it, or that is bytes already.

    Text is always base64. 16, 24 or 32 bytes are the key itself; other bytes are text.

    Raises:
        ConfigError: it is no key. The error does not show it.
    """
    if isinstance(key, (bytes, bytearray)):
        if len(key) in KEY_SIZES:
            return bytes(key)
        text = bytes(key)
    elif isinstance(key, str):
        text = key.encode("utf-8", "replace")
    else:
        raise ConfigError("key", f"must be bytes or base64 text, not {type(key).__name__}", hint=_KEYGEN)
    try:
        found = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        found = b""
    if len(found) not in KEY_SIZES:
        raise ConfigError("key", "is not 16, 24 or 32 bytes, nor base64 of as many", hint=_KEYGEN)
    return found


def check_cluster(cluster: str) -> None:
    """Raise ``ConfigError`` unless `cluster` may be a cluster's name: it is the label on the wire."""
    check_text("cluster", cluster, "lab")


def _check_literal(name: str, value: str | None) -> None:
    if value is None:
        return
    try:
        found = ipaddress.ip_address(value.partition("%")[0])
    except (ValueError, AttributeError):
        raise ConfigError(name, f"{value!r} is no IP address", hint="write one like 10.0.0.5 or ::1") from None
    check_reachable(name, found)


def check_port(name: str, value: int | None) -> None:
    """Raise ``ConfigError`` if `value` is no port, nor None where that may be."""
    if value is None and name in ("port", "metrics_port"):
        return
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 65535:
        raise ConfigError(name, f"{value!r} is no port of 0 to 65535")


def _check_path(name: str, value: str) -> None:
    if not isinstance(value, str):
        raise ConfigError(name, f"must be a path, not {type(value).__name__}")
    if not value or "\0" in value:
        raise ConfigError(name, f"{value!a:.80} is no path")


def _check_certificates(value: tuple[str, str, str]) -> None:
    if not isinstance(value, tuple) or len(value) != 3:
        raise ConfigError("certificates", "are not three paths", hint="the certificate, its private key, and the CA")
    for path in value:
        _check_path("certificates", path)


def _check_seconds(name: str, value: float | None) -> None:
    if value is None:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ConfigError(name, f"{value!r} is no number of seconds")


def _check_tags(tags: Mapping[str, str]) -> None:
    if not isinstance(tags, Mapping):
        raise ConfigError("tags", f"must be a mapping of texts, not {type(tags).__name__}")
    for name, value in tags.items():
        if not isinstance(name, str) or not isinstance(value, str) or not name:
            raise ConfigError("tags", f"{name!r} = {value!r}: names and values are text", hint='e.g. zone = "a"')
