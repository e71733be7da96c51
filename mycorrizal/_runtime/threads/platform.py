"""What not every system has, in one place: users, locks on files, Unix sockets, forks, flags of ``open``.

Linux is where all of this runs and is tested. Elsewhere the same names do what
the system can; what it cannot is said beside each. Nothing here was ever run
on Windows or macOS: tests take the functions away on Linux, no more
(docs/design.md, "Other systems").
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable

__all__ = [
    "BINARY",
    "CLOEXEC",
    "DIRECTORY",
    "LOCKS",
    "NOFOLLOW",
    "NONBLOCK",
    "UNIX_SOCKETS",
    "USERS",
    "alive",
    "at_fork",
    "ioctl",
    "lock",
    "open_to_others",
    "ours",
    "reuse_address",
    "signal_self",
    "unix_socket",
    "user",
]

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import msvcrt
except ImportError:
    msvcrt = None  # type: ignore[assignment]

CLOEXEC: int = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0)
NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)
DIRECTORY: int | None = getattr(os, "O_DIRECTORY", None)
"""None: a directory cannot be opened."""
BINARY: int = getattr(os, "O_BINARY", 0)
"""Without it Windows changes line feeds."""

USERS = hasattr(os, "geteuid")
"""Whether files have an owner and modes that say who else may use them. Windows has lists, which nobody looks at."""
UNIX_SOCKETS = hasattr(socket, "AF_UNIX")
"""Without them an agent has no control plane, and reaches others of its host by QUIC."""
LOCKS = fcntl is not None or msvcrt is not None
"""Without them a name on a host is its holder's as long as a process of that number runs."""

_PLACE = 1 << 30  # of the byte that is locked on Windows: beyond what is in the file, which others have to read
_SYNCHRONIZE, _WAIT_TIMEOUT, _ACCESS_DENIED = 0x00100000, 0x102, 5


def user() -> int:
    """Return the number of the user; 0 on a system without."""
    return os.geteuid() if USERS else 0


def ours(found: os.stat_result) -> bool:
    """Return whether a file belongs to this user."""
    return not USERS or found.st_uid == os.geteuid()


def open_to_others(found: os.stat_result, bits: int = 0o077) -> int:
    """Return which of these permissions a file gives to its group and to others."""
    return stat.S_IMODE(found.st_mode) & bits if USERS else 0


def lock(descriptor: int, *, shared: bool = False) -> None:
    """Lock an open file without waiting; the lock goes with the descriptor, however the process ends.

    Raises:
        BlockingIOError: another one has it.
        OSError: it cannot be locked.
    """
    if fcntl is not None:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    elif msvcrt is not None and not shared:
        os.lseek(descriptor, _PLACE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as exc:
            raise BlockingIOError(errno.EAGAIN, "locked by another process") from exc
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)


def ioctl(descriptor: int, request: int, argument: bytes) -> bytes:
    """Return what the kernel says of a socket's interface.

    Raises:
        OSError: it says nothing, or there is no such call.
    """
    if fcntl is None:
        raise OSError(errno.ENOSYS, "no ioctl")
    return bytes(fcntl.ioctl(descriptor, request, argument))


def alive(pid: int) -> bool:
    """Return whether a process of this number runs; True where nobody can say.

    Not ``os.kill(pid, 0)`` on Windows: there that is Ctrl-C, or the end of the process.
    """
    if sys.platform == "win32" or os.name == "nt":
        return _alive_on_windows(pid)
    if not hasattr(os, "kill"):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def _alive_on_windows(pid: int) -> bool:
    try:
        import ctypes

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
        handle = kernel.OpenProcess(_SYNCHRONIZE, False, pid)
        if not handle:
            return bool(ctypes.get_last_error() == _ACCESS_DENIED)  # type: ignore[attr-defined]
        try:
            return bool(kernel.WaitForSingleObject(handle, 0) == _WAIT_TIMEOUT)
        finally:
            kernel.CloseHandle(handle)
    except (ImportError, AttributeError, OSError):
        return True


def at_fork(
    *,
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] | None = None,
    after_in_child: Callable[[], object] | None = None,
) -> None:
    """Have these called around each ``fork``; without forks there is nothing to do."""
    register = getattr(os, "register_at_fork", None)
    given = {"before": before, "after_in_parent": after_in_parent, "after_in_child": after_in_child}
    if register is not None:
        register(**{name: call for name, call in given.items() if call is not None})


def unix_socket(kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return a new Unix socket.

    Raises:
        OSError: there are none on this system, or no descriptor is left.
    """
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise OSError(errno.EAFNOSUPPORT, "this system has no Unix sockets")
    return socket.socket(family, kind)


def reuse_address(sock: socket.socket) -> None:
    """Let a restart listen while connections of the process before are in TIME_WAIT.

    On Windows the option of that name lets anybody take the port over; there another one keeps it.
    """
    exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR if exclusive is None else exclusive, 1)


def signal_self(number: int) -> None:
    """Send a signal to this process, to any of its threads.

    On Windows ``os.kill`` would end it at once, whatever handler there is.
    """
    if sys.platform == "win32" or os.name == "nt" or not hasattr(os, "kill"):
        signal.raise_signal(number)
    else:
        os.kill(os.getpid(), number)
