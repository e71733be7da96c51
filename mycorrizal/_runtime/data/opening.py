"""How a data plane comes to be: its addresses, its socket, its trust."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

from ..._wire.security import Keyring
from ..._wire.text import logger
from ..._wire.values import Codecs
from ...config import check_key, check_name
from ...dataconfig import DataConfig
from ...exceptions import ConfigError
from ...types import Address, as_builtin, is_loopback, parse_host
from ..host.filepaths import FilePath, path_text
from ..quic import choice, path
from ..quic.trust.keys import KeyTrust, OpenTrust, Trust
from ..threads.shortage import as_ours
from .core import Core

__all__ = ["Directory", "open_core"]

log = logger("mycorrizal.data")


class Directory:
    """Addresses by name. Written on any thread, read by the loop; each change is one step on a dict."""

    def __init__(self, *, loopback_only: bool) -> None:
        self._loopback_only = loopback_only
        self._addresses: dict[str, Address] = {}
        self.fallback: Callable[[str], Address | None] = lambda name: None

    def add(self, name: str, address: Address) -> None:
        """Set the address of `name`.

        Raises:
            ConfigError: it is none, or one that must not be dialled.
        """
        name = check_name(name)
        self._addresses[name] = self.checked(address)

    def remove(self, name: str) -> None:
        """Forget `name`."""
        self._addresses.pop(name, None)

    def resolve(self, name: str) -> Address | None:
        """Return the address of `name`, if it is known."""
        address = self._addresses.get(name)
        if address is None:
            address = self.fallback(name)
            if address is not None and self._loopback_only and not is_loopback(address[0]):
                return None
        return address

    def checked(self, address: Address) -> Address:
        """Return `address`, spelt as connections spell it, if it may be dialled."""
        try:
            host, port = map(as_builtin, address)
            ip = parse_host(host)
        except (ValueError, TypeError, AttributeError):
            raise ConfigError(
                "address", f"{address!r} is not (IP literal, port)", hint="resolve names first: socket.getaddrinfo"
            ) from None
        if not isinstance(port, int) or not 0 < port < 65536:
            raise ConfigError("address", f"{port!r} is not a port", hint="1 to 65535")
        if self._loopback_only and not is_loopback(host):
            raise ConfigError("address", f"{host} is not loopback and there is no key", hint=_NO_KEY)
        return (str(ip) + "".join(host.partition("%")[1:]) if ip.version == 6 else str(ip), port)


_OPEN = "%s: the data plane listens on %s without a key: %s can send, ask and forge; pass key="
_NO_KEY = "pass key=, or insecure=True to talk to anyone unproved"


def open_core(
    name: str,
    bind: str,
    port: int,
    key: bytes | Keyring | None,
    cluster: str,
    certificates: Sequence[FilePath] | None,
    directory: Directory,
    config: DataConfig,
    codecs: Codecs,
) -> Core:
    """Check, bind, and start."""
    choice.wanted()  # before a port is taken
    name, port = check_name(name), as_builtin(port)
    if not isinstance(port, int) or not 0 <= port < 65536:  # the system would take 65536 off
        raise ConfigError("port", f"{port!r} is not a port", hint="1 to 65535, or 0 for any that is free")
    trust = _trust(name, key, cluster, certificates)
    if isinstance(trust, OpenTrust):
        directory.checked((bind, port or 1))
    sock = path.open_socket(bind, port)
    try:
        with as_ours(f"the data plane of {name} cannot start", node=name):
            core = Core(name, sock, trust, config, codecs, directory.resolve, lambda node: None)
    except BaseException:
        sock.close()
        raise
    if isinstance(trust, OpenTrust):
        local = is_loopback(bind)
        who = "every user of this host" if local else "whoever reaches it"
        log.log(logging.INFO if local else logging.WARNING, _OPEN, name, bind, who)
    return core


def _trust(
    name: str, key: bytes | Keyring | None, cluster: str, certificates: Sequence[FilePath] | None
) -> Trust:
    if certificates is not None:
        if key is not None:
            raise ConfigError("certificates", "given beside key=", hint="use one of the two")
        if not (isinstance(certificates, (tuple, list)) and len(certificates) == 3):
            raise ConfigError("certificates", "must be three paths", hint="(certificate, private key, CA), PEM files")
        from ..quic.trust.pki import PkiTrust  # late: most planes have a key

        return PkiTrust(name, *(os.path.abspath(path_text("certificates", path)) for path in certificates))
    if key is None:
        return OpenTrust(name, cluster)
    keyring = key if isinstance(key, Keyring) else Keyring(primary=check_key("key", key))
    if not keyring:
        raise ConfigError("key", "the keyring is empty", hint="add a key first")
    return KeyTrust(keyring, name, cluster)
