"""Dissemination: a round every gossip interval, to a few random nodes, also to the lately dead.

A tick is only filed while there is something to say, on a fixed grid, so that
an idle node sleeps and a busy one behaves as if it had ticked all along.
From memberlist ``state.go`` (memberlist-protocol §8.3).
"""

from __future__ import annotations

from ..types import NodeState
from .core import Core
from .members import Member

__all__ = ["Gossiper"]


class Gossiper:
    """Sends queued broadcasts round by round."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._phase = 0.0
        self._armed = False
        self._running = False

    def start(self, now: float) -> None:
        """Begin, with a random phase."""
        config = self._core.config
        if config.gossip_interval > 0 and config.gossip_nodes > 0:
            self._running = True
            self._phase = now + self._core.rng.random() * config.gossip_interval
            self.rearm(now)

    def rearm(self, now: float) -> None:
        """File the next tick if there may be something to send. The machine calls it after every input."""
        if self._armed or not self._running:
            return
        if len(self._core.queue) or self._core.may_speak:
            interval = self._core.config.gossip_interval
            ticks = max(0, int((now - self._phase) / interval) + 1)
            if self._phase + ticks * interval <= now:  # the division was rounded down
                ticks += 1
            self._armed = True
            self._core.timers.call_at(self._phase + ticks * interval, self._tick)

    def _tick(self, now: float) -> None:
        self._armed = False
        self.round(now)

    def round(self, now: float) -> None:
        """Send one packet of broadcasts to each of a few random nodes."""
        config, core = self._core.config, self._core

        def wanted(member: Member) -> bool:
            if core.is_self(member) or member.state == NodeState.LEFT:
                return False
            return member.state != NodeState.DEAD or now - member.changed <= config.gossip_to_the_dead_time

        for member in core.table.sample(config.gossip_nodes, wanted):
            if not core.send_gossip(member):
                return
