"""``agent.health()``: the figures that tell how an agent is, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..types import Health, NodeState

if TYPE_CHECKING:
    from .assembly import Assembly

__all__ = ["health"]

_INBOX_FULL = 0.5


def health(parts: Assembly) -> Health:
    """Return the health of the agent that `parts` are of."""
    gossip, data = parts.members.metrics(), parts.data.metrics()
    members = parts.members.members()
    suspects = [node.name for node in members if node.state == NodeState.SUSPECT]
    score, inbox = parts.members.health_score, data["inbox.messages"]
    problems = []
    if score:
        problems.append(f"this node answers late, or is answered late (score {score}): is the machine overloaded?")
    if suspects:
        problems.append(f"no answer lately from {', '.join(suspects)}")
    if parts.sharing.rivals:
        other = parts.sharing.rivals[0]
        problems.append(f"another node at {other.host}:{other.port} claims this name")
    if inbox > _INBOX_FULL * parts.data._started.config.inbox_messages:
        problems.append(f"{inbox} messages wait for receive(): senders will have to wait")
    if gossip["events.lost"]:
        problems.append(f"{gossip['events.lost']} events were lost by readers that are too slow")
    if gossip.get("udp_blocked"):
        problems.append("some members answer over TCP but not over UDP: a firewall?")
    if parts.file is not None and parts.file.failing:
        problems.append("the settings file cannot be written; the log says why, and it is tried again")
    return Health(
        parts.name, parts.settings.cluster, score, len(members), len(suspects), gossip["stalls"],
        data["connections"], inbox, gossip["events.lost"], tuple(problems),
    )  # fmt: skip
