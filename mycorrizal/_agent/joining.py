"""How an agent gets into its cluster: through seeds, or through this host's other agents."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .._runtime.swim.seeking import Seeking
from .._runtime.threads.deadline import Deadline
from .._runtime.threads.waits import pause
from .._wire.text import logger
from ..discovery import Discovery
from ..exceptions import JoinError, MycorrizalError, NameInUse, OperationTimeout

if TYPE_CHECKING:
    from .._runtime.host.agentrecord import AgentRecord
    from .assembly import Assembly

__all__ = ["join", "join_through"]

log = logger("mycorrizal.agent")

_RETRY_FIRST, _RETRY_MAX = 0.2, 2.0
_SYNC_TRIES = 3
_SYNC_SECONDS = 5.0  # then another one is asked too
_LOOK = 0.01
_LOCAL_SECONDS = 3.0  # one of this host's agents may be frozen; the others are not worth waiting longer for
_DIALS = 4  # of this host's agents, unless all of them fail: each knows everything
_DIAL_SECONDS = 0.5  # until others are dialled too


def join(parts: Assembly) -> None:
    """Join, and return when what the others share is here.

    Raises:
        JoinError: there are seeds, and none of the others answered in time.
        NameInUse: a live member has this agent's name.
    """
    settings = parts.settings
    deadline = Deadline(settings.join_timeout)
    if settings.join:
        _seek(parts, deadline)
    elif settings.discover:
        _join_neighbours(parts, deadline)
    _refuse_a_taken_name(parts)
    replica = parts.sharing.replica
    if settings.wire == "msgpack" or "state.missing" in replica.counters:
        _sync(parts, deadline)
    parts.sharing.call(replica.joined, Deadline(None), "join")


def join_through(parts: Assembly, seeds: list[str], deadline: Deadline) -> None:
    """Join through `seeds`, once; see ``Agent.join``."""
    port = parts.settings.seed_port
    with Discovery(parts.settings.cluster, seeds, rundir=parts.rundir, port=port) as discovery:
        entries = discovery.addresses(deadline.remaining())
        failures = discovery.failures
    if not entries:
        lines = "; ".join(f"{seed}: {failure}" for seed, failure in failures.items())
        hint = "give one like host:port; an agent's own is agent.address"
        raise JoinError(f"no seed has an address: {lines or 'none was given'}", failures=failures, hint=hint)
    parts.members.join(entries, deadline.remaining())
    if parts.settings.wire == "msgpack":
        _sync(parts, deadline)


def _seek(parts: Assembly, deadline: Deadline) -> None:
    """Join through the seeds, or begin alone where that is right, and go on asking."""
    retry = parts.settings.join_retry
    try:
        _join_seeds(parts, deadline)
    except JoinError as error:
        if retry is None:
            raise
        log.info("%s: %s", parts.name, error)
    else:
        retry = math.inf
    parts.seeking = Seeking(parts.members._running, parts.seeds.addresses, parts.members.join)
    if parts.seeking.alone:
        log.warning("%s: seeds are given, and nobody else was seen: alone for now, and still asking them", parts.name)
    parts.seeking.start(None if retry == math.inf else retry)


def _join_seeds(parts: Assembly, deadline: Deadline) -> None:
    wait = _RETRY_FIRST
    reasons: dict[str, Exception] = {}
    while True:
        entries = parts.seeds.addresses(deadline.remaining())
        failures = dict(parts.seeds.failures)
        error: MycorrizalError | None = None
        itself = False
        try:
            result = parts.members.join(entries, deadline.capped(parts.members.config.tcp_timeout))
            failures |= result.failures
            itself = result.itself
        except JoinError as exc:
            failures |= exc.failures
            error = exc
        except OperationTimeout as exc:
            error = exc
        if error is None and (parts.members.num_members() > 1 or itself or not failures):
            return  # who is a seed itself does not wait for the others: all of them may be starting
        for seed, failure in failures.items():
            if isinstance(failure, OperationTimeout):  # the last try has less time than it needs
                failures[seed] = reasons.get(seed, failure)
        reasons |= failures
        left = deadline.remaining()
        if left is not None and left <= wait:
            lines = "; ".join(f"{seed}: {failure}" for seed, failure in failures.items())
            raise JoinError(
                f"no seed could be joined within {parts.settings.join_timeout} s: {lines}", failures=failures,
                hint="is an agent of this cluster, with this key, running there? join_retry= goes on asking, alone",
            ) from error  # fmt: skip
        log.info("%s: no seed answers yet, trying again", parts.name)
        pause(wait)
        wait = min(_RETRY_MAX, wait * 2)


def _join_neighbours(parts: Assembly, deadline: Deadline) -> None:
    """Join this user's agents of the cluster on this host. None, or none that answers, is no error."""
    left = _dial_order(parts)
    failures: dict[str, Exception] = {}
    reached = dials = 0
    ends = Deadline(deadline.capped(_LOCAL_SECONDS))
    while left and not ends.passed and (dials < _DIALS or not reached):
        count = min(len(left), max(_DIALS - dials, 1) if dials else 1)
        asked, left = left[:count], left[count:]
        dials += count
        try:
            patience = _DIAL_SECONDS if left or reached else _LOCAL_SECONDS  # the last hope has what is left
            result = parts.members.join([record.entry for record in asked], ends.capped(patience))
            reached += result.reached
            failures |= result.failures
        except JoinError as exc:
            failures |= exc.failures
        if reached:  # in a burst some who have just begun are known to nobody else yet
            known = {node.name for node in parts.members.members()}
            left = [record for record in left if record.name not in known]
    alone = parts.members.num_members() == 1
    for entry, failure in failures.items():
        if alone or not getattr(failure, "retriable", False):
            log.warning("%s: %s on this host could not be joined: %s", parts.name, entry, failure)
        else:
            log.info("%s: %s on this host did not answer in time: %s", parts.name, entry, failure)


def _dial_order(parts: Assembly) -> list[AgentRecord]:
    """Return this host's other agents: the oldest, since all who begin at once dial it, and the rest in any order."""
    if parts.rundir is None:
        return []
    records = [record for record in parts.rundir.agents(parts.settings.cluster) if record.name != parts.name]
    own = int.from_bytes(parts.identity.boot)
    return records[:1] + sorted(records[1:], key=lambda record: int(record.boot or "0", 16) ^ own)


def _refuse_a_taken_name(parts: Assembly) -> None:
    """Wait until membership has asked the other address of this name, if it has met one: is anybody there?

    One that is silent is this name's former life, and is replaced.
    """
    machine, ends = parts.members._running.machine, Deadline(3 * parts.members.config.probe_timeout)
    while parts.sharing.call(lambda now: machine.name_contested, Deadline(None), "join") and not ends.passed:
        pause(_LOOK)
    for rival in parts.sharing.rivals:
        raise NameInUse(parts.name, parts.settings.cluster, None, where=f"{rival.host}:{rival.port}")


def _sync(parts: Assembly, deadline: Deadline) -> None:
    """Get what the agents share over the data plane, where gossip is not ours."""
    for name in parts.others()[:_SYNC_TRIES]:
        try:
            parts.sharing.sync(name, Deadline(deadline.capped(_SYNC_SECONDS)))
            return
        except MycorrizalError as error:
            log.warning("%s: no state from %s yet: %s", parts.name, name, error)
