"""The kernel's word on a process of this host that has ended: its socket has, without a goodbye, and its lock is free.

A process that is frozen, or busy, keeps both. A forked child has given up both
(``lifecycle``); one that was replaced by ``exec`` has neither. So what is said
here is about one life, and true. Where the directory is on another host's disk
nobody says anything: whose locks they are there, this kernel does not know.

To see an end takes a connection: each agent keeps one to the next two of its
host by name, in a ring, whether there is anything to say or not.
"""

from __future__ import annotations

import os
from bisect import bisect
from collections.abc import Callable, Sequence
from functools import partial

from ...exceptions import MycorrizalError
from ..data.core import Core
from ..host.rundir import RuntimeDir

__all__ = ["Company", "Deaths", "is_local"]

LOOKS = (0.0, 0.01, 0.03, 0.1, 0.3, 0.5, 1.0)
"""Seconds between looks at a lock: the kernel closes one descriptor after the other."""
NEXT = 2
"""Neighbours to which a connection is kept."""
LOOKED_AT = 8
"""Neighbours that are looked at to find so many; some have no socket."""
COMPANY_SECONDS = 1.0
_ELSEWHERE = ("nfs", "cifs", "smb", "fuse", "9p", "ceph", "lustre", "afs", "gfs", "ocfs")


def is_local(path: str | os.PathLike[str], mounts: str = "/proc/self/mountinfo") -> bool:
    """Return whether a directory is on a file system of this kernel alone."""
    try:
        device = os.stat(path).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        with open(mounts, encoding="utf-8", errors="replace") as file:
            for line in file:
                head, _, tail = line.partition(" - ")
                if head.split()[2:3] == [wanted]:
                    return not tail.startswith(_ELSEWHERE)
    except OSError:
        pass
    return False


class Deaths:
    """Finds out whether a process whose socket has ended is gone. Loop thread.

    Args:
        tell: called with its name and boot id if it is.
    """

    def __init__(self, core: Core, rundir: RuntimeDir, cluster: str, tell: Callable[[str, bytes], object]) -> None:
        self._core = core
        self._rundir = rundir
        self._cluster = cluster
        self._tell = tell

    def ended(self, name: str, boot: bytes, now: float, looks: Sequence[float] = LOOKS) -> None:
        """The socket of a process has ended, and it had not said that it would."""
        if self._rundir.vacant(self._cluster, name):
            self._core.count("host.deaths")
            self._tell(name, boot)
        elif len(looks) > 1:
            self._core.loop.call_at(now + looks[1], partial(self._again, name, boot, looks[1:]))

    def _again(self, name: str, boot: bytes, looks: Sequence[float], now: float) -> None:
        self.ended(name, boot, now, looks)


class Company:
    """Keeps connections to the next neighbours. Loop thread.

    Args:
        reaches: whether a name can be dialled by a socket.
        here: returns those of several names that are on this host.
    """

    def __init__(
        self, core: Core, reaches: Callable[[str, float], bool], here: Callable[[Sequence[str]], list[str]]
    ) -> None:
        self._core = core
        self._reaches = reaches
        self._here = here
        self._alone: set[str] = set()  # whom the last look found without a connection

    def look(self, now: float) -> None:
        """Dial who has no connection, and look again later. Of two the one with the smaller name dials first."""
        core = self._core
        core.loop.call_at(now + COMPANY_SECONDS, self.look)
        alone, found = set(), 0
        for name in self._ring():
            peer = core.machine.peers.get(name)
            if peer is None or not (peer.links or peer.dialling):
                if not self._reaches(name, now):
                    continue
                alone.add(name)
                if core.name < name or name in self._alone:
                    core.machine.peer(name).dial(now)
            found += 1
            if found == NEXT:
                break
        self._alone = alone

    def _ring(self) -> list[str]:
        """Return the next ones by name: those who might be reached, and are not all."""
        try:
            names = sorted(self._here([name for name in self._core.members() if name != self._core.name]))
        except MycorrizalError:
            return []
        at = bisect(names, self._core.name)
        return [*names[at:], *names[:at]][:LOOKED_AT]
