"""Planes of this process that reach each other by Unix sockets, as agents with records do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mycorrizal._runtime.local.carrier import HostCarrier, Neighbour
from mycorrizal.dataplane import DataPlane

__all__ = ["folder", "here", "meet", "open_carrier", "ways"]


@contextmanager
def folder() -> Iterator[str]:
    """Make a directory whose path is short enough for sockets."""
    path = tempfile.mkdtemp(prefix="myc-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def open_carrier(
    plane: DataPlane, path: str, find: Callable[[str], Neighbour | str], where: str = "here"
) -> HostCarrier:
    """Let `plane` take and make connections of this host."""
    core = plane._started
    carrier = HostCarrier(
        core.loop, core.machine, core.config, core.counters, path=path, where=where, address=plane.address, find=find
    )
    core.share_host(carrier)
    return carrier


def here(plane: DataPlane, path: str) -> Neighbour:
    """Return what the record of `plane` would say."""
    return Neighbour(path, plane._started.boot, os.getpid())


def meet(path: str, *planes: DataPlane) -> dict[str, Neighbour]:
    """Let `planes` reach each other below `path`; return the records, which may be changed."""
    known = {plane.name: here(plane, os.path.join(path, str(number))) for number, plane in enumerate(planes)}
    for plane in planes:
        open_carrier(plane, known[plane.name].path, lambda name: known.get(name, "no record of it on this host"))
    return known


def ways(plane: DataPlane) -> dict[str, str]:
    """Return the carrier of each peer that is connected."""
    return {peer.name: peer.carrier for peer in plane.peers() if peer.carrier}
