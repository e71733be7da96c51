"""Which packet path the connections of this process take: the only module that knows ``fast``."""

from __future__ import annotations

from .transport import PacketPath

__all__ = ["packet_path"]


def packet_path() -> PacketPath:
    """Return the way to make connections.

    Raises:
        NotRunningError: this aioquic is none that it knows; the text names what it lacks.
    """
    from .fast.aio import FastPath, check_aioquic

    check_aioquic()
    return FastPath()
