"""What a service tells systemd: that it is ready, that it stops, that it lives (sd_notify(3)). A few lines, no library.

Each is a datagram to the socket that ``$NOTIFY_SOCKET`` names; a name that
begins with ``@`` is an abstract one. Without it, or where nobody listens,
nothing happens: a service must not fail for want of being watched.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from ..._wire.text import logger
from ..threads.platform import unix_socket

__all__ = ["Notifier"]

log = logger("mycorrizal.service")


class Notifier:
    """Tells the service manager of this process. One thread.

    Attributes:
        watchdog: seconds within which it wants to hear ``WATCHDOG=1``; None: it does not watch this process.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        name = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name if name.startswith("/") else ""
        self.watchdog = _watchdog(environ) if self._address else None

    def tell(self, *lines: str) -> bool:
        """Send ``READY=1`` and its like; return whether it was sent. Raises nothing, never waits."""
        if not self._address:
            return False
        text = "\n".join(" ".join(line.splitlines()) for line in lines)
        try:
            with unix_socket(socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError as error:
            log.debug("the service manager was not told %s: %s", lines[0], error)
            return False
        return True


def _watchdog(environ: Mapping[str, str]) -> float | None:
    pid, text = environ.get("WATCHDOG_PID", ""), environ.get("WATCHDOG_USEC", "")
    if not (text.isascii() and text.isdigit()) or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 1e6 or None
