"""Planes of this process that reach each other by Unix sockets, as agents with records do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mycorrizal._runtime.local.carrier import HostCarrier, Neighbour
from mycorrizal.dataplane import DataPlane

PATIENCE = 60.0

__all__ = ["assert_carrier", "folder", "here", "meet", "open_carrier", "ways"]


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
    """Let `planes` reach each other below `path`, however busy this machine is; return the records."""
    known = {plane.name: here(plane, os.path.join(path, str(number))) for number, plane in enumerate(planes)}
    for plane in planes:
        path = known[plane.name].path
        carrier = open_carrier(plane, path, lambda name: known.get(name, "no record of it on this host"))
        carrier.patience = PATIENCE
    return known


def ways(plane: DataPlane) -> dict[str, str]:
    """Return the carrier of each peer that is connected."""
    return {peer.name: peer.carrier for peer in plane.peers() if peer.carrier}


def assert_carrier(name: str, *planes: DataPlane) -> None:
    """Check that `planes` used no other carrier than `name`."""
    for plane in planes:
        found = plane.metrics()
        used = {way for way in ("quic", "host") if found.get(f"{way}.accepted")}
        assert used <= {name}, "another carrier than the one that is tested"
