"""This host has another address: everybody is told, and nobody should see us go and come.

Differs from memberlist: there a node announces for ever what it was started
with; its peers declare it dead, and it contradicts them in vain. Here the new
address is announced with a higher incarnation, and the others take it when
nobody answers at the old one (module ``claims``). Switched off by
``follow_address=False``.

Go's members take a new address of nobody but who has left. So with
``wire="msgpack"`` each is sent a leave of the old incarnation and the new
record in one packet: for them we leave and join (they look at the record first,
tell of a conflict, and take it when it comes again); our own kind takes the two
for what they are (``Claims.sort``).
"""

from __future__ import annotations

from .._wire.messages import Alive, Dead
from .._wire.text import logger
from ..types import host_of
from .core import Core
from .probe import Prober
from .sync import Sync
from .transitions import Transitions

__all__ = ["Moving"]

log = logger("mycorrizal.swim")

_AGAIN = (1.0, 3.0)  # seconds after which it is said again: a packet may be lost, and Go's members gossip no leave on


class Moving:
    """What is done when our own address has changed."""

    def __init__(self, core: Core, transitions: Transitions, prober: Prober, sync: Sync) -> None:
        self._core = core
        self._transitions = transitions
        self._prober = prober
        self._sync = sync

    def moved(self, addr: bytes, now: float) -> bool:
        """Take `addr` for ours and tell the others; return whether it is told."""
        core = self._core
        member = core.table.get(core.name)
        if member is None or member.gone or core.has_left or host_of(addr) == member.address[0]:
            return False
        goodbye = Dead(member.incarnation, core.name, core.name)
        claim = Alive(core.next_incarnation(), core.name, addr, core.port, member.meta, core.vsn)
        self._transitions.alive(claim, now, bootstrap=True, takeover=True)
        new = host_of(addr)
        member = core.table.get(core.name)
        if member is None or member.address[0] != new:
            log.warning("%s: %s, this host's new address, is refused here, and not told", core.name, new)
            return False
        core.addr = addr
        core.count("moved")
        # Answers went to where we are no more: that nobody answered says nothing about anybody, nor about us.
        self._prober.abandon(now)
        core.awareness.apply(-core.awareness.score)
        self._transitions.extend_suspicions(now)

        def again(then: float) -> None:
            self._tell(claim, goodbye)

        for seconds in _AGAIN if self._tell(claim, goodbye) else ():
            core.timers.call_at(now + seconds, again)
        self._sync.hasten(now)
        return True

    def _tell(self, claim: Alive, goodbye: Dead) -> int:
        """Tell members directly; return how many."""
        core = self._core
        if core.incarnation != claim.incarnation or core.has_left:
            return 0  # there is later news of us
        messages = (goodbye, claim) if core.config.wire == "msgpack" else (claim,)
        parts = [core.codec.encode(message) for message in messages]
        members = core.table.sample(core.config.leave_fanout, lambda m: not m.gone and not core.is_self(m))
        for member in members:
            core.send(parts, member.address, protocol_max=member.protocol_max, name=member.name)
        return len(members)
