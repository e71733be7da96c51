"""Seeds that are asked again: until somebody else was seen, and for those that no member is, for as long as we live.

So it is nobody's business which host boots first, and parts of a cluster that
began apart find each other. Names are looked up anew each time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from ..._wire.text import logger
from ...exceptions import MycorrizalError
from ...types import Address
from ..net import addresses
from ..threads import clock
from ..threads.deadline import Deadline
from ..threads.service import Service
from .membership import Membership

__all__ = ["Seeking", "pause_before"]

log = logger("mycorrizal.agent")

_FIRST, _ALONE_MAX = 0.2, 5.0
_STEADY = 60.0
_LOOK_SECONDS = 10.0  # for finding seeds, and as long again for asking them


def pause_before(tries: int, alone: bool) -> float:
    """Return the seconds before the next look: soon and then less soon while alone, now and then later on."""
    return min(_ALONE_MAX, _FIRST * 2.0 ** min(tries, 10)) if alone else _STEADY


class Seeking:
    """One node's. Looks on a thread of its own, since resolvers block; the rest on any thread.

    Args:
        membership: of the node.
        find: returns the entries that the seeds lead to now; called with seconds.
        join: joins through entries; called with seconds.

    Attributes:
        looks: how often the seeds were looked at.
        gave_up: nobody was seen in time, and nobody is looked for any more.
    """

    def __init__(
        self, membership: Membership, find: Callable[[float], list[str]], join: Callable[[list[str], float], object]
    ) -> None:
        self._membership = membership
        self._name = membership.config.name
        self._find = find
        self._join = join
        self._over = threading.Event()
        self._until: float | None = None  # unless somebody was seen by then
        self.looks = 0
        self.gave_up = False
        self._service = Service("mycorrizal-seeds", self._name, self._run, lambda: None, "Agent")

    def start(self, seconds: float | None) -> None:
        """Begin; give up unless somebody is seen within `seconds`.

        Raises:
            ResourcesExhausted: no thread is to be had.
        """
        self._until = None if seconds is None else clock.now() + seconds
        self._service.start()

    def stop(self) -> None:
        """End; does not wait for a resolver. Idempotent, any thread."""
        self._over.set()

    def close(self, deadline: Deadline) -> None:
        """End, and wait for it."""
        self.stop()
        self._service.join(deadline)

    @property
    def alone(self) -> bool:
        """Whether nobody else is there."""
        return len(self._membership.view().members) < 2

    def _run(self) -> None:
        tries = 0
        alone = self.alone
        seen = not alone
        while not self._over.wait(pause_before(tries, alone) * random.uniform(0.75, 1.25)):
            if self._until is not None and not seen and clock.now() > self._until:
                self.gave_up = True
                log.warning("%s: no seed answered within join_retry: it stays alone, and asks no more", self._name)
                return
            try:
                self._look()
                was, alone = alone, self.alone
            except MycorrizalError as error:  # closed, or crashed, which others tell of
                log.debug("%s: seeds are asked no more: %s", self._name, error)
                return
            seen = seen or not alone
            tries = tries + 1 if alone and was else 0

    def _look(self) -> None:
        """Ask the seeds that no member is."""
        self.looks += 1
        here = {node.address for node in self._membership.view().members}
        absent = [entry for entry in self._find(_LOOK_SECONDS) if not self._known(entry, here)]
        if absent and not self._over.is_set():
            try:
                self._join(absent, _LOOK_SECONDS)
            except MycorrizalError as error:
                log.debug("%s: of the seeds that are no members none answers: %s", self._name, error)

    def _known(self, text: str, here: set[Address]) -> bool:
        """Whether all addresses of an entry are members', or our own."""
        entry = addresses.parse_entry(text, self._membership.config.bind_port)
        try:
            found = addresses.resolve(entry.host, entry.port)
        except MycorrizalError:
            return True  # nobody to ask, this time
        return all(address in here or self._membership.is_own(address) for address in found)
