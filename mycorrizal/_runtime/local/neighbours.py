"""Who of a membership is on this very host: what its record says, and what the membership knows of it."""

from __future__ import annotations

from collections.abc import Callable

from ...exceptions import MycorrizalError
from ..host.rundir import RuntimeDir
from .carrier import Neighbour

__all__ = ["Neighbours"]


class Neighbours:
    """Finds the socket of an agent of this user. Loop thread.

    Args:
        where: what ``place.here`` returned for this process.
        process: returns the boot id that the membership knows a name by.
    """

    def __init__(
        self, rundir: RuntimeDir, cluster: str, where: str, process: Callable[[str], bytes | None]
    ) -> None:
        self._rundir = rundir
        self._cluster = cluster
        self._where = where
        self._process = process

    def find(self, name: str) -> Neighbour | str:
        """Return who `name` is on this host, or why nobody."""
        try:
            record = self._rundir.record(self._cluster, name)
            if record is None:
                return "no record of it on this host"
            if not record.place:
                return "it does not take connections of this host"
            if record.place != self._where:
                return "it is in other namespaces"
            boot = bytes.fromhex(record.boot)
            known = self._process(name)
            if known is None or known != boot:
                return "its record is of another process than the membership knows"
            return Neighbour(self._rundir.socket_path(self._cluster, name, "data"), boot, record.pid)
        except (MycorrizalError, ValueError) as exc:
            return f"its record cannot be used: {exc}"
