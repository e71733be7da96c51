"""Where a control plane listens: a socket file in a private directory, or a port of loopback.

The listening sockets are opened here, also those of libzmq: an address that is
taken is an error with a name before any thread runs, a socket file is private
before the first client can see it, and a forked child knows what to close.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import socket
import stat
from dataclasses import dataclass, field, replace
from functools import partial

from ..exceptions import BindError, ConfigError, MycorrizalError
from .threads.deadline import Deadline
from .threads.shortage import exhausted
from .threads.waits import wait_sliced

__all__ = ["Endpoint", "reachable"]

PATH_MAX = 107
"""Bytes of the longest path of a Unix socket on Linux."""
BACKLOG = 64
"""Clients that may wait to be accepted."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An ``ipc://`` path, or a ``tcp://`` address of loopback."""

    path: str = ""
    host: str = ""
    port: int = 0
    file: tuple[int, int] | None = field(default=None, compare=False)
    """Tells the socket file that ``listen`` made from another one that took its place."""

    @classmethod
    def parse(cls, text: str, *, secured: bool) -> Endpoint:
        """Return the endpoint that `text` names.

        Args:
            secured: whether there are CURVE keys, without which only files will do.

        Raises:
            ConfigError: another transport, an address beyond loopback, TCP without keys, a path that is too long.
        """
        kind, _, rest = text.partition("://")
        if kind == "ipc":
            if not rest.startswith("/"):
                raise ConfigError("control", f"{text!r}: the path must be absolute")
            if len(os.fsencode(rest)) > PATH_MAX:
                hint = "set XDG_RUNTIME_DIR to a shorter one"
                raise ConfigError("control", f"{rest!r}: a socket's path has {PATH_MAX} bytes at most", hint=hint)
            return cls(path=rest)
        if kind != "tcp":
            raise ConfigError("control", f"{text!r} is neither ipc:///path nor tcp://127.0.0.1:port")
        host, _, port = rest.rpartition(":")
        host = host.strip("[]")
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise ConfigError("control", f"{text!r}: {host!r} is no IP address") from None
        if not address.is_loopback:
            raise ConfigError("control", f"{host} is not loopback", hint="the control plane is for this machine")
        if not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ConfigError("control", f"{text!r}: {port!r} is no port")
        if not secured:
            hint = "every user of this machine can reach a port; use ipc://, or give keys"
            raise ConfigError("control", f"{text} without CURVE keys", hint=hint)
        return cls(host=host, port=int(port))

    def __str__(self) -> str:
        if self.path:
            return f"ipc://{self.path}"
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"

    def listen(self) -> tuple[Endpoint, socket.socket]:
        """Open it; return the endpoint with the port it got, and the listening socket.

        A socket file that is there already is taken for one that a dead
        process left: whoever owns the directory entry has claimed its name.

        Raises:
            BindError: it cannot be opened.
            ResourcesExhausted: no descriptor is left, or no room for the file.
        """
        family = socket.AF_UNIX if self.path else socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener, mine = None, False
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
            if self.path:
                _clear(self.path)
                listener.bind(self.path)
                mine = True
                os.chmod(self.path, 0o600)  # before it listens: nobody can have connected
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self.host, self.port))
            listener.listen(BACKLOG)
            listener.setblocking(False)
            if self.path:
                return replace(self, file=_file(self.path)), listener
            return Endpoint(host=self.host, port=listener.getsockname()[1]), listener
        except BaseException as error:
            if listener is not None:
                listener.close()
            if mine:
                os.unlink(self.path)
            if isinstance(error, MycorrizalError) or not isinstance(error, OSError):
                raise
            short = exhausted(error, f"no control plane at {self}", operation="control")
            hint = "choose another path or port, or control=False"
            raise short or BindError(f"control plane at {self}: {error.strerror or error}", hint=hint) from error

    def remove(self) -> None:
        """Delete the socket file that ``listen`` made, unless somebody has put another in its place."""
        with contextlib.suppress(OSError):
            if self.path and _file(self.path) == self.file:
                os.unlink(self.path)


def _file(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_ino, found.st_mtime_ns  # a number alone may be given again


def _clear(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(f"control plane: {path} is there and is no socket", hint="remove it, or choose another path")
    os.unlink(path)


def reachable(endpoint: Endpoint, timeout: float = 1.0) -> bool:
    """Return whether somebody listens there, even if too busy to answer. Waits up to `timeout` seconds.

    Raises:
        PermissionError: somebody may, but this user must not know.
    """
    family = socket.AF_UNIX if endpoint.path else socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(endpoint.path or (endpoint.host, endpoint.port))
        if code == errno.EINPROGRESS and wait_sliced(partial(_connected, probe), Deadline(timeout)):
            code = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code in (errno.EACCES, errno.EPERM):
        raise PermissionError(code, os.strerror(code))
    # Whatever else went wrong, as a full queue of those who wait to be accepted: somebody is there.
    return code not in (errno.ENOENT, errno.ECONNREFUSED)


def _connected(probe: socket.socket, seconds: float) -> bool:
    return bool(select.select((), (probe,), (), None if seconds < 0 else seconds)[1])
    return True
