"""What Serf asks itself, in queries of its own: who is there, whose a name is, and (``serfkeys``) about keys."""

from __future__ import annotations

from ..._serf import Asked, SerfStatus, pack_conflict, read_conflict
from ..._wire.text import logger
from ...exceptions import MycorrizalError, RemoteProtocolError
from ...types import Node, host_of
from ..swim.layer import Ground
from .asking import INTERNAL, Asking
from .core import SerfCore
from .keys import KEY_QUERIES, KeyDesk

__all__ = ["Desk"]

log = logger("mycorrizal.serf")

CONFLICT = INTERNAL + "conflict"
_STATUS = {SerfStatus.ALIVE: 1, SerfStatus.LEAVING: 2, SerfStatus.LEFT: 3, SerfStatus.FAILED: 4}  # on the wire


class Desk:
    """Answers Serf's own queries, and asks the one about our name. One for each ``SerfDelegate``."""

    def __init__(self, core: SerfCore, asking: Asking, keys: KeyDesk) -> None:
        self._core = core
        self._asking = asking
        self._resolving = False
        self._keys = keys

    def take(self, asked: Asked) -> None:
        """Answer a query of Serf's own. Gossip thread; does not block."""
        ground = self._core.ground
        if asked.query.name == CONFLICT:
            self._tell_where(asked)
        elif asked.query.name in KEY_QUERIES and ground is not None:
            ground.aside(lambda: self._asking.respond(asked, self._keys.answer(asked)))  # it may write to a disk
        # A ping is acknowledged, as all queries are, and that is all; an unknown one is a later version's.

    def _tell_where(self, asked: Asked) -> None:
        name = asked.query.payload.decode("utf-8", "surrogateescape")
        with self._core.changed:
            machine, node = self._core.machine, self._core.nodes.get(name)
            status = machine.status(name)
        if name != machine.name:  # about our own the others are asked
            found = None if node is None or status is None else pack_conflict(node, _STATUS[status])
            self._asking.respond(asked, found or pack_conflict(None, 0))

    def conflict(self, existing: Node) -> None:
        """Another node claims our name: ask the others whose it is. Gossip thread; does not block."""
        ground = self._core.ground
        if ground is not None and not self._resolving:
            self._resolving = ground.aside(lambda: self._resolve(ground, existing))

    def _resolve(self, ground: Ground, own: Node) -> None:
        """Ask, and end this node if it is not the one that most have by its name.

        Differs from Serf: where nobody answers it stays. There a node that has none but its rival to ask ends, and so
        does the rival.
        """
        try:
            answers = self._asking.ask(CONFLICT, own.name.encode("utf-8", "surrogateescape")).responses
        except MycorrizalError as error:
            log.warning("%s: cannot ask whose the name is: %s", own.name, error)
            return
        finally:
            self._resolving = False
        votes = [vote for answer in answers.values() if (vote := _vote(own, answer)) is not None]
        if not votes or sum(votes) >= len(votes) // 2 + 1:
            log.warning("%s: %d of %d have this node by its name; it stays", own.name, sum(votes), len(votes))
            return
        log.error(
            "%s: only %d of %d have this node by its name, and another one claims it: this node ends; "
            "give it another name",
            own.name, sum(votes), len(votes),
        )  # fmt: skip
        ground.stop()


def _vote(own: Node, answer: bytes) -> bool | None:
    """Return whether who answers has us by our name; None for what is no answer."""
    try:
        address = read_conflict(answer)
    except RemoteProtocolError:
        return None
    return address is not None and (host_of(address[0]), address[1]) == own.address
