"""Where a control plane listens: a socket file in a private directory.

The listening sockets are opened here: a path that is taken is an error with a
name before any thread runs, and the file is private before the first client
can see it. No port of loopback: every user of the machine reaches it, and can
take the process's descriptors there before any key is asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
from dataclasses import dataclass, field, replace
from functools import partial

from ...exceptions import BindError, ConfigError, MycorrizalError
from ..threads.deadline import Deadline
from ..threads.platform import unix_socket
from ..threads.shortage import exhausted
from ..threads.waits import wait_sliced

__all__ = ["Endpoint", "reachable"]

PATH_MAX = 107
"""Bytes of the longest path of a Unix socket on Linux."""
BACKLOG = 64
"""Clients that may wait to be accepted."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An ``ipc://`` path."""

    path: str
    file: tuple[int, int] | None = field(default=None, compare=False)
    """Tells the socket file that ``listen`` made from another one that took its place."""

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Return the endpoint that `text` names.

        Raises:
            ConfigError: another transport, a path that is not absolute or too long.
        """
        kind, _, rest = text.partition("://")
        if kind != "ipc":
            hint = "the control plane is a file that only its user can open"
            raise ConfigError("control", f"{text!r} is not ipc:///path", hint=hint)
        if not rest.startswith("/"):
            raise ConfigError("control", f"{text!r}: the path must be absolute")
        if len(os.fsencode(rest)) > PATH_MAX:
            hint = "set XDG_RUNTIME_DIR to a shorter one"
            raise ConfigError("control", f"{rest!r}: a socket's path has {PATH_MAX} bytes at most", hint=hint)
        return cls(rest)

    def __str__(self) -> str:
        return f"ipc://{self.path}"

    def listen(self) -> tuple[Endpoint, socket.socket]:
        """Open it; return the endpoint, which knows its file from then on, and the listening socket.

        A socket file that is there already is taken for one that a dead
        process left: whoever owns the directory entry has claimed its name.

        Raises:
            BindError: it cannot be opened.
            ResourcesExhausted: no descriptor is left, or no room for the file.
        """
        listener, mine = None, False
        try:
            listener = unix_socket()
            _clear(self.path)
            listener.bind(self.path)
            mine = True
            os.chmod(self.path, 0o600)  # before it listens: nobody can have connected
            listener.listen(BACKLOG)
            listener.setblocking(False)
            return replace(self, file=_file(self.path)), listener
        except BaseException as error:
            if listener is not None:
                listener.close()
            if mine:
                os.unlink(self.path)
            if isinstance(error, MycorrizalError) or not isinstance(error, OSError):
                raise
            short = exhausted(error, f"no control plane at {self}", operation="control")
            hint = "choose another path, or control=False"
            raise short or BindError(f"control plane at {self}: {error.strerror or error}", hint=hint) from error

    def remove(self) -> None:
        """Delete the socket file that ``listen`` made, unless somebody has put another in its place."""
        with contextlib.suppress(OSError):
            if _file(self.path) == self.file:
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
    with unix_socket() as probe:
        probe.setblocking(False)
        code = probe.connect_ex(endpoint.path)
        if code == errno.EINPROGRESS and wait_sliced(partial(_connected, probe), Deadline(timeout)):
            code = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code in (errno.EACCES, errno.EPERM):
        raise PermissionError(code, os.strerror(code))
    # Whatever else went wrong, as a full queue of those who wait to be accepted: somebody is there.
    return code not in (errno.ENOENT, errno.ECONNREFUSED)


def _connected(probe: socket.socket, seconds: float) -> bool:
    return bool(select.select((), (probe,), (), None if seconds < 0 else seconds)[1])
    return True
