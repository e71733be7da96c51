"""Settings of membership, with memberlist's names and defaults in snake case.

All durations are seconds. A ``Config`` is frozen and checked when it is built;
every error names the field. ``Config.lan()``, ``.wan()`` and ``.local()`` are
memberlist's three profiles; pass overrides as keywords.

The last group of fields has no counterpart in memberlist: those switch off
what this library does beyond it (docs/wire.md lists each).
"""

from __future__ import annotations

import base64
import binascii
import inspect
import ipaddress
import math
import socket
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from .exceptions import ConfigError
from .types import as_builtin, parse_host

__all__ = [
    "Config", "KEY_SIZES", "META_MAX_SIZE", "RESERVED", "allowed", "builtin_fields", "check_key", "check_name",
    "check_function", "check_own_text", "check_reachable", "check_text", "weakness",
]  # fmt: skip

META_MAX_SIZE = 512
"""Limit of a node's metadata in bytes (memberlist ``MetaMaxSize``)."""

RESERVED = "mycorrizal."
"""What topics, handlers and services' ids begin with that are the library's own."""

KEY_SIZES = (16, 24, 32)
"""Bytes of a key: AES-128, AES-192, AES-256."""

_KEY_BYTES_DIFFERENT = 5  # of 16 random bytes fewer differ once in 10^20
_NAME_MAX_BYTES = 255
_NAME_HINT = "use letters, digits, '-' or '.'"
_UNPRINTABLE = ("Cc", "Cf", "Zl", "Zp")  # Unicode's controls, marks of direction and the like, separators of lines


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a ``Memberlist``. See the module's docstring; defaults are the LAN profile."""

    # -- who we are ---------------------------------------------------------------
    name: str = field(default_factory=socket.gethostname)
    """Unique; 1 to 255 bytes of UTF-8, without ``/``, controls, unseen characters and spaces around it."""
    bind_addr: str = "0.0.0.0"
    """IP literal to listen on, UDP and TCP."""
    bind_port: int = 7946
    """Port to listen on; 0 picks a free one."""
    advertise_addr: str | None = None
    """IP literal that others should dial; none means the bound (or a private) address."""
    advertise_port: int | None = None
    """Port that others should dial, with ``advertise_addr``; none means the bound port."""
    protocol_version: int = 2
    """memberlist protocol spoken, 1 to 5."""
    delegate_protocol_version: int = 0
    delegate_protocol_min: int = 0
    delegate_protocol_max: int = 0

    # -- wire and security --------------------------------------------------------
    wire: Literal["cbor", "msgpack"] = "cbor"
    """Body codec: ``"cbor"`` among mycorrizal nodes, ``"msgpack"`` with Go peers."""
    label: str = ""
    """Name of the cluster on the wire, at most 255 bytes; others are refused."""
    skip_inbound_label_check: bool = False
    """For a front end that has already removed labels."""
    secret_key: bytes | None = field(default=None, repr=False)
    """16, 24 or 32 random bytes: the key that encrypts; none means no encryption."""
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    """Further keys that decrypt; needs ``secret_key``."""
    gossip_verify_incoming: bool = True
    gossip_verify_outgoing: bool = True
    enable_compression: bool = True
    """Compress outgoing messages; incoming ones are always understood."""
    cidrs_allowed: tuple[str, ...] | None = None
    """Networks that members may have addresses in; none or empty allows all."""
    require_node_names: bool = False

    # -- timing: failure detection --------------------------------------------------
    tcp_timeout: float = 10.0
    """Dial, read and write on streams."""
    indirect_checks: int = 3
    probe_interval: float = 1.0
    """0 disables probing, and reaping with it."""
    probe_timeout: float = 0.5
    disable_tcp_pings: bool = False
    disable_tcp_pings_for_node: Callable[[str], bool] | None = None
    awareness_max_multiplier: int = 8
    suspicion_mult: int = 4
    suspicion_max_timeout_mult: int = 6

    # -- timing: dissemination ------------------------------------------------------
    retransmit_mult: int = 4
    gossip_interval: float = 0.2
    """0 disables gossip rounds."""
    gossip_nodes: int = 3
    gossip_to_the_dead_time: float = 30.0
    push_pull_interval: float = 30.0
    """0 disables periodic push/pull."""
    dead_node_reclaim_time: float = 0.0
    """After this long a dead node's name may move to another address; 0: never."""
    udp_buffer_size: int = 1400
    """Bytes that a composed packet may take, 1,024 to 65,507. Differs from memberlist: there any number is taken."""
    handoff_queue_depth: int = 1024
    """Messages waiting for the delegate thread; further user messages are dropped and counted."""

    # -- beyond memberlist ----------------------------------------------------------
    reconnect_interval: float = 10.0
    """Members lost in a partition are tried again, up to four in this time; 0 disables healing."""
    reconnect_timeout: float = 86400.0
    """How long a lost member is remembered."""
    reconnect_max: int = 8192
    """How many lost members are remembered; the oldest is forgotten first."""
    name_takeover: bool = True
    """On a name conflict ask the old address first; if it is silent, the new one is taken."""
    follow_address: bool = True
    """Bound to all addresses and without ``advertise_addr``: announce the new one when this host's address changes."""
    verify_suspicions: bool = True
    """Correct accusers who are behind, and ping a suspect a few times before it is declared dead."""
    suspicion_min_timeout: float = 0.0
    """Least seconds between suspecting a node and declaring it dead, in small clusters: a process may be frozen for
    so long. A host that vanishes is noticed as much later; 0: memberlist's window alone."""
    suspicion_min_nodes: int = 5
    """The largest cluster, counted without the dead, in which ``suspicion_min_timeout`` holds."""
    trust_refusals: bool = True
    """A suspect whose host refuses connections has no process any more, and no use of ``suspicion_min_timeout``."""
    trust_kernel: bool = True
    """What the kernel of a member's host says of its process counts: an agent whose process ended is dead at once."""
    limit_answers: bool = True
    """One received datagram makes this node send at most 4, and less than 5 times its bytes, whatever is in it; only
    members' addresses are sent broadcasts beside an answer."""
    refuse_echoes: bool = True
    """What this node said itself, sent back, proves no peer: a seed that only repeats it must answer a ping."""
    check_hearsay: bool = True
    """A node that is unknown or gone is pinged before it is believed, if a push/pull tells of it, or gossip of a member
    that was away."""
    check_seed_names: bool = True
    """The member at a seed ``name/host`` must have that name."""
    leave_fanout: int = 64
    """How many members are told of a leave directly, besides gossip; 0: by gossip alone."""
    number_messages: bool = True
    """Number what ``send_best_effort`` and ``send_reliable`` send, so that a recording of it is dropped. With
    ``wire="cbor"`` only."""
    stall_threshold: float = 1.0
    """A thread that wakes this late treats it as a stall of its own; 0 disables."""
    early_push_pulls: int = 3
    """Extra push/pulls soon after a join, one node at a time, jittered; 0 disables."""
    max_nodes: int = 65536
    """Bound of the member table; further nodes are dropped and counted."""
    event_queue_depth: int = 4096
    """Events an ``events()`` iterator holds unread before it loses the oldest."""
    exchange_threads: int = 32
    """Most threads that carry TCP conversations at a time."""

    def __post_init__(self) -> None:
        builtin_fields(self)
        check_name(self.name)
        _check_address("bind_addr", self.bind_addr)
        _check_range("bind_port", self.bind_port, 0, 65535)
        if self.advertise_addr is not None:
            _check_address("advertise_addr", self.advertise_addr)
            if ipaddress.ip_address(self.advertise_addr.partition("%")[0]).is_unspecified:
                hint = "name the address that others reach this host at, or leave it out"
                raise ConfigError("advertise_addr", f"nobody can dial {self.advertise_addr}", hint=hint)
        if self.advertise_port is not None:
            _check_range("advertise_port", self.advertise_port, 1, 65535)
            if self.advertise_addr is None:
                raise ConfigError("advertise_port", "given without advertise_addr", hint="set both, or neither")
        _check_range("protocol_version", self.protocol_version, 1, 5)
        for name in ("delegate_protocol_version", "delegate_protocol_min", "delegate_protocol_max"):
            _check_range(name, getattr(self, name), 0, 255)
        if self.wire not in ("cbor", "msgpack"):
            raise ConfigError("wire", f"{self.wire!r} is no codec", hint="use 'cbor', or 'msgpack' with Go peers")
        _check_label(self.label)
        self._check_keys()
        self._check_numbers()
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(name, f"must be True or False, not {getattr(self, name)!r}")
        if self.disable_tcp_pings_for_node is not None and not callable(self.disable_tcp_pings_for_node):
            hint = "a function of a node's name; disable_tcp_pings=True is for all nodes"
            raise ConfigError("disable_tcp_pings_for_node", "must be callable", hint=hint)
        _parse_cidrs(self.cidrs_allowed or ())

    def _check_keys(self) -> None:
        if not isinstance(self.keys, (tuple, list)):
            raise ConfigError("keys", f"must be a tuple of keys, not {type(self.keys).__name__}")
        for name, key in [("secret_key", self.secret_key), *(("keys", key) for key in self.keys)]:
            if key is None or (name == "secret_key" and key == b""):
                continue
            check_key(name, key, allow_weak=self.wire == "msgpack")
        if self.keys and not self.secret_key:
            raise ConfigError("keys", "given without secret_key", hint="secret_key is the one that encrypts")

    def _check_numbers(self) -> None:
        for name in _POSITIVE_SECONDS:
            _check_seconds(name, getattr(self, name), zero=False)
        for name in _SECONDS_OR_ZERO:
            _check_seconds(name, getattr(self, name), zero=True)
        for name, (low, high) in _COUNTS.items():
            _check_range(name, getattr(self, name), low, high)

    # -- profiles -----------------------------------------------------------------

    @classmethod
    def lan(cls, **overrides: Any) -> Config:
        """Return memberlist's ``DefaultLANConfig``: one data centre."""
        return _build(cls, {}, overrides)

    @classmethod
    def wan(cls, **overrides: Any) -> Config:
        """Return memberlist's ``DefaultWANConfig``: links with latency, slower detection."""
        return _build(cls, _WAN, overrides)

    @classmethod
    def local(cls, **overrides: Any) -> Config:
        """Return memberlist's ``DefaultLocalConfig``: one host, fast detection."""
        return _build(cls, _LOCAL, overrides)

    def replace(self, **changes: Any) -> Config:
        """Return a copy with `changes`, checked again."""
        _known(type(self), changes)
        return replace(self, **changes)

    @property
    def networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        """``cidrs_allowed``, parsed; empty means every address is allowed."""
        return _parse_cidrs(self.cidrs_allowed or ())


_WAN: dict[str, Any] = {
    "tcp_timeout": 30.0,
    "suspicion_mult": 6,
    "push_pull_interval": 60.0,
    "probe_timeout": 3.0,
    "probe_interval": 5.0,
    "gossip_nodes": 4,
    "gossip_interval": 0.5,
    "gossip_to_the_dead_time": 60.0,
    "reconnect_interval": 30.0,
    "stall_threshold": 5.0,
}
_LOCAL: dict[str, Any] = {
    "tcp_timeout": 1.0,
    "indirect_checks": 1,
    "retransmit_mult": 2,
    "suspicion_mult": 3,
    "push_pull_interval": 15.0,
    "probe_timeout": 0.2,
    "gossip_interval": 0.1,
    "gossip_to_the_dead_time": 15.0,
    "reconnect_interval": 5.0,
}
_POSITIVE_SECONDS = ("tcp_timeout", "probe_timeout", "reconnect_timeout")
_SECONDS_OR_ZERO = (
    "probe_interval",
    "gossip_interval",
    "push_pull_interval",
    "gossip_to_the_dead_time",
    "dead_node_reclaim_time",
    "reconnect_interval",
    "suspicion_min_timeout",
    "stall_threshold",
)
_SWITCHES = (
    "skip_inbound_label_check",
    "gossip_verify_incoming",
    "gossip_verify_outgoing",
    "enable_compression",
    "require_node_names",
    "disable_tcp_pings",
    "name_takeover",
    "follow_address",
    "verify_suspicions",
    "trust_refusals",
    "trust_kernel",
    "number_messages",
    "limit_answers",
    "refuse_echoes",
    "check_hearsay",
    "check_seed_names",
)
_COUNTS = {
    "indirect_checks": (0, 255),
    "awareness_max_multiplier": (1, 255),
    "suspicion_mult": (1, 255),
    "suspicion_max_timeout_mult": (1, 255),
    "retransmit_mult": (0, 255),
    "gossip_nodes": (0, 255),
    "suspicion_min_nodes": (2, 1 << 20),
    "leave_fanout": (0, 255),
    "udp_buffer_size": (1024, 65507),
    "handoff_queue_depth": (1, 1 << 20),
    "reconnect_max": (0, 1 << 20),
    "early_push_pulls": (0, 16),
    "max_nodes": (1, 1 << 20),
    "event_queue_depth": (1, 1 << 20),
    "exchange_threads": (2, 256),
}


def _build(cls: type[Config], profile: dict[str, Any], overrides: dict[str, Any]) -> Config:
    _known(cls, overrides)
    return cls(**{**profile, **overrides})


def _known(cls: type[Config], names: dict[str, Any]) -> None:
    known = {f.name for f in fields(cls)}
    for name in names:
        if name not in known:
            raise ConfigError(name, "no such setting", hint="see the fields of mycorrizal.Config")


def check_key(field_name: str, key: bytes, *, allow_weak: bool = False) -> bytes:
    """Return `key` as bytes that nobody else changes.

    Args:
        allow_weak: whether one that cannot have been drawn at random is taken: a Go cluster may have such a key.

    Raises:
        ConfigError: not 16, 24 or 32 bytes, or a weak key. The error does not show it.
    """
    if not isinstance(key, (bytes, bytearray)):
        raise ConfigError(field_name, f"must be bytes, not {type(key).__name__}", hint="decode base64 text first")
    if len(key) not in KEY_SIZES:
        raise ConfigError(field_name, f"is {len(key)} bytes long", hint="use 16, 24 or 32 random bytes")
    why = None if allow_weak else weakness(key)
    if why is not None:
        raise ConfigError(field_name, why, hint="make one with `mycorrizal keygen`, or secrets.token_bytes(32)")
    return bytes(key)


def weakness(key: bytes) -> str | None:
    """Return why `key` can be guessed, None for one that may have been drawn at random.

    Of random keys of 16 bytes, one in 5 million is text by chance.
    """
    if len(set(key)) < _KEY_BYTES_DIFFERENT:
        return f"has fewer than {_KEY_BYTES_DIFFERENT} different bytes, and can be guessed"
    if not all(0x20 <= byte < 0x7F or byte in b"\t\r\n" for byte in key):
        return None
    try:
        if len(base64.b64decode(key, validate=True)) in KEY_SIZES:
            return "is base64 text, not the bytes that it stands for: decode it first, with base64.b64decode(key)"
    except binascii.Error:
        pass
    return "is text, as a passphrase is, and can be guessed"


def builtin_fields(settings: Any) -> None:
    """Make the texts and numbers of a dataclass those of Python, whatever class they are of (``types.as_builtin``)."""
    for one in fields(settings):
        object.__setattr__(settings, one.name, as_builtin(getattr(settings, one.name)))


def check_name(name: str) -> str:
    """Return `name` as plain text; raise ``ConfigError`` unless it may be a node's."""
    if type(name) is not str:
        name = as_builtin(name)
    if not isinstance(name, str):
        raise ConfigError("name", f"must be text, not {type(name).__name__}")
    if not name:
        raise ConfigError("name", "is empty", hint="give each node a unique name")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ConfigError("name", f"{name!r} cannot be written as UTF-8", hint="use plain text") from None
    if size > _NAME_MAX_BYTES:
        raise ConfigError("name", f"is {size} bytes long", hint=f"at most {_NAME_MAX_BYTES} bytes of UTF-8")
    plain = name.isascii() and name.isprintable()  # as nearly all are, and a push/pull may bring a hundred thousand
    if "/" in name or (not plain and any(unicodedata.category(c) in _UNPRINTABLE for c in name)):
        raise ConfigError("name", f"{name!a} holds '/', a control character or one unseen", hint=_NAME_HINT)
    if name != name.strip():
        raise ConfigError("name", f"{name!a} begins or ends with a space", hint=_NAME_HINT)
    return name


def check_text(field_name: str, text: str, example: str) -> str:
    """Return `text` as plain text; raise ``ConfigError`` unless it has 1 to 255 bytes of UTF-8, as topics have."""
    text = as_builtin(text)
    if not isinstance(text, str) or not text:
        raise ConfigError(field_name, f"{text!r:.80} is no text of 1 to 255 bytes", hint=f"e.g. {example!r}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConfigError(field_name, f"{text!a:.80} cannot be written as UTF-8", hint="use plain text") from None
    if size > 255:
        raise ConfigError(field_name, f"is {size} bytes long", hint="at most 255 bytes of UTF-8")
    return text


def check_own_text(field_name: str, text: str, example: str) -> str:
    """As ``check_text``, and refuse what begins as the library's own names do."""
    text = check_text(field_name, text, example)
    if text.startswith(RESERVED):
        hint = "such names are the library's own"
        raise ConfigError(field_name, f"{text!r:.80} begins with {RESERVED!r}", hint=hint)
    return text


def check_function(field_name: str, function: object) -> None:
    """Raise ``ConfigError`` unless to call `function` is to run it, not to make a coroutine or a generator."""
    if not callable(function):
        raise ConfigError(field_name, f"{function!r:.80} cannot be called", hint="pass a function")
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    if any(kind(made) for kind in kinds for made in (function, type(function).__call__)):
        text = f"{function!r:.80} would not run when it is called, but make a coroutine or a generator"
        raise ConfigError(field_name, text, hint="pass a plain function; asyncio.run() in it runs a coroutine")


def _check_label(label: str) -> None:
    if not isinstance(label, str):
        raise ConfigError("label", f"must be text, not {type(label).__name__}")
    try:
        size = len(label.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise ConfigError("label", f"{label!r} cannot be written as UTF-8", hint="use plain text") from None
    if size > 255:
        raise ConfigError("label", f"is {size} bytes long", hint="at most 255 bytes of UTF-8")


def _check_address(field_name: str, value: str) -> None:
    try:
        found = ipaddress.ip_address(value.partition("%")[0])
    except (ValueError, AttributeError, TypeError):
        raise ConfigError(
            field_name, f"{value!r} is not an IP literal", hint="write an address like 127.0.0.1 or ::1, no brackets"
        ) from None
    check_reachable(field_name, found)


def check_reachable(field_name: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Raise ``ConfigError`` for an IPv6 address of one link: members tell each other addresses without a zone."""
    if address.version == 6 and address.is_link_local:
        raise ConfigError(
            field_name, f"{address} is link-local, and others cannot dial it without knowing the interface",
            hint="use another address of the interface, such as a unique local one (fd00::/8)",
        )  # fmt: skip


def _check_range(field_name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(field_name, f"must be a whole number, not {value!r}")
    if not low <= value <= high:
        raise ConfigError(field_name, f"{value} is not in {low}..{high}")


def _check_seconds(field_name: str, value: float, *, zero: bool) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ConfigError(field_name, f"must be a number of seconds, not {value!r}")
    if value < 0 or (value == 0 and not zero):
        raise ConfigError(field_name, f"{value} is too small", hint="0 disables" if zero else "must be above 0")


def allowed(host: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    """Return whether `networks`, of ``Config.networks``, admit an address; text that is no address never matches."""
    if not networks:
        return True
    try:
        ip = parse_host(host)
    except ValueError:
        return False
    return any(ip.version == network.version and ip in network for network in networks)


def _parse_cidrs(texts: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    if isinstance(texts, str):
        raise ConfigError("cidrs_allowed", "must be a tuple of networks, not one text")
    networks, bad = [], []
    for text in texts:
        try:
            network = ipaddress.ip_network(text.strip(), strict=False)
            if network.version == 6 and network.prefixlen >= 96 and network.network_address.ipv4_mapped is not None:
                network = ipaddress.ip_network((network.network_address.ipv4_mapped, network.prefixlen - 96))
            networks.append(network)
        except (ValueError, AttributeError):
            bad.append(text)
    if bad:
        raise ConfigError("cidrs_allowed", f"not networks: {bad!r}", hint="write e.g. '10.0.0.0/8'")
    return tuple(networks)
