"""Whether an agent reaches others of its host by a Unix socket, and the beginning of that."""

from __future__ import annotations

import select
from functools import partial

from ..._wire.text import logger
from ...exceptions import MycorrizalError
from ..data.core import Core
from ..host.rundir import Claim, RuntimeDir, Unclaimed
from ..quic.trust.keys import KeyTrust
from ..threads import platform
from . import place

__all__ = ["share_host"]

log = logger("mycorrizal.host")


def share_host(core: Core, rundir: RuntimeDir | None, claim: Claim | Unclaimed) -> str:
    """Let `core` take and make connections of this host; return what its record is to say, empty if it does not."""
    where = place.here() if hasattr(select, "epoll") and platform.UNIX_SOCKETS else ""
    if not core.config.same_host:
        core.apart = "same_host=False"
    elif not isinstance(core.trust, KeyTrust):
        core.apart = "certificates are in use"
    elif rundir is None or not isinstance(claim, Claim):
        core.apart = "this agent has no runtime directory"
    elif not where:
        core.apart = "this system does not tell who shares a host"
    else:
        from .carrier import HostCarrier  # elsewhere there is no epoll
        from .deaths import Company, Deaths, is_local
        from .neighbours import Neighbours

        find = Neighbours(rundir, claim.cluster, where, partial(_process, core)).find
        deaths = Deaths(core, rundir, claim.cluster, partial(_ended, core))
        watches = is_local(rundir.path)
        try:
            carrier = HostCarrier(
                core.loop, core.machine, core.config, core.counters, path=claim.socket_path("data"), where=where,
                address=core.address, find=find, **({"lost": deaths.ended} if watches else {}),
            )  # fmt: skip
        except (OSError, MycorrizalError) as exc:
            core.apart = f"its socket cannot be made: {exc}"
            log.warning("%s: QUIC on this host too: %s", core.name, exc)
        else:
            core.share_host(carrier)
            if watches:
                here = partial(rundir.here, claim.cluster)
                core.submit(Company(core, carrier.reaches, here).look)
            return where
    return ""


def _ended(core: Core, name: str, boot: bytes) -> None:
    """Tell membership, once there is one."""
    core.process_ended(name, boot)


def _process(core: Core, name: str) -> bytes | None:
    """Return what the membership knows; which one that is is known only later."""
    return core.process(name)
