"""``agent.health()``: the figures that tell how an agent is, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._runtime.threads import clock, shortage
from ..types import Health, NodeState, printable

if TYPE_CHECKING:
    from .assembly import Assembly

__all__ = ["health", "key_problem"]

_INBOX_FULL = 0.5
_LATE_MS = 500
_STUCK_SECONDS = 5
_NONCES = 1 << 32
"""Random nonces under one key, by all nodes together (NIST SP 800-38D, §8.3)."""
_NONCES_USED = 0.5  # from this part of them on it is time to rotate
_CONTESTS_SHOWN = 3
_EXPIRES_SOON = 1 / 3  # of a certificate's time; and not longer before than this:
_EXPIRES_MOST = 14 * 86400.0
_NAMES_MAX = 500  # characters; members of a cluster with Go peers may have any name


def health(parts: Assembly) -> Health:
    """Return the health of the agent that `parts` are of."""
    gossip, data = parts.members.metrics(), parts.data.metrics()
    members = parts.members.members()
    suspects = [node.name for node in members if node.state == NodeState.SUSPECT]
    score, inbox = parts.members.health_score, data["inbox.messages"]
    problems = []
    if score:
        problems.append(f"this node answers late, or is answered late (score {score}): is the machine overloaded?")
    if (late := gossip.get("timers.late_ms", 0)) >= _LATE_MS:
        problems.append(f"the gossip thread was {late / 1000:.1f} s behind lately: is the machine overloaded?")
    if gossip.get("address.lost"):
        host = parts.members.local_node.host
        problems.append(f"this host has the address {host} no longer, and the others were told no other one")
    if suspects:
        problems.append(f"no answer lately from {printable(', '.join(suspects), _NAMES_MAX)}")
    if parts.seeking is not None and parts.seeking.alone:
        still = "nobody is asked any more" if parts.seeking.gave_up else "they are still asked"
        problems.append(f"seeds are given, and nobody else is there: {still}")
    if parts.sharing.rivals:
        other = parts.sharing.rivals[0]
        problems.append(f"another node at {other.host}:{other.port} claims this name")
    for name, (host, port) in parts.data._started.machine.contests.recent(clock.now())[:_CONTESTS_SHOWN]:
        problems.append(
            f"a process at {printable(host)}:{port} claims the name {printable(name)}, which another one has: does it "
            "run twice, or has it just restarted?"
        )
    if inbox > _INBOX_FULL * parts.data._started.config.inbox_messages:
        problems.append(f"{inbox} messages wait for receive(): senders will have to wait")
    if gossip["events.lost"]:
        problems.append(f"{gossip['events.lost']} events were lost by readers that are too slow")
    if gossip.get("udp_blocked"):
        problems.append("some members answer over TCP but not over UDP: a firewall?")
    if gossip["tcp.refusing"]:
        turned = sum(gossip[f"tcp.{name}"] for name in ("accept_errors", "crowded", "displaced", "flooded"))
        problems.append(f"conversations at the gossip port were turned away ({turned}): does a stranger crowd it?")
    if parts.rings is None and not parts.settings.insecure:
        problems.append("no key: every user of this host can join, read and forge; insecure=True if that is meant")
    if parts.sharing.replica.counters.get("state.left_out"):
        problems.append(
            "the delegate's state leaves no room in push/pulls for what agents share (19 MiB for both): who joins gets"
            " that over QUIC, and what is lost by gossip comes late"
        )
    if parts.file is not None and parts.file.failing:
        problems.append("the settings file cannot be written; the log says why, and it is tried again")
    problems += shortage.problems()
    if (unfit := parts.data._started.unfit) is not None:
        problems.append(printable(unfit, _NAMES_MAX))
    if (stuck := data.get("handlers.stuck", 0)) >= _STUCK_SECONDS:
        waiting = data["handlers.queued"]
        problems.append(f"all handlers have been busy for {stuck} s, and {waiting} requests wait: does one hang?")
    problems += parts.tasks.problems()
    if failed := gossip.get("tcp.failing", 0):
        problems.append(f"{failed} dials failed to members that answer over UDP: does a firewall let TCP through?")
    if (dates := parts.data._started.trust.validity()) is not None:
        problems += certificate_problem(*dates, clock.now() + clock.wall_offset())
    if (problem := key_problem(gossip["key.sealed"], len(members))) is not None:
        problems.append(problem)
    return Health(
        parts.name, parts.settings.cluster, score, len(members), len(suspects), gossip["stalls"],
        data["connections"], inbox, gossip["events.lost"], tuple(problems),
    )  # fmt: skip


def certificate_problem(begins: float, ends: float, now: float) -> list[str]:
    """Return what is to be said of a certificate that is valid from `begins` to `ends`, seconds since 1970."""
    left = ends - now
    if left > min((ends - begins) * _EXPIRES_SOON, _EXPIRES_MOST):
        return []
    when = clock.date(ends)
    what = f"expires in {clock.span(left)}, at {when}" if left > 0 else f"expired at {when}, and nobody takes it"
    return [f"the certificate, or what it rests on, {what}: replace the files and call reload_certificates()"]


def key_problem(sealed: int, members: int) -> str | None:
    """Return what is to be said of a key with which this process encrypted `sealed` messages; None if nothing.

    The others are taken to have sent as much each; what earlier processes sent is not known.
    """
    estimate = sealed * members
    if estimate < _NONCES_USED * _NONCES:
        return None
    return (
        f"about {estimate:.1e} messages were encrypted with this key since this process began to use it "
        f"({sealed} here, {members} members); rotate it with agent.keys before there are {_NONCES:.1e}"
    )
