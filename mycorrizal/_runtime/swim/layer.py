"""A layer of ours above memberlist, such as Serf's: a delegate that keeps up with membership inline.

What others' delegates observe on the delegate thread, a layer observes on the
gossip thread, before anybody waits for it: what a conversation brought is
there when the call that made it returns, and a user's slow callback holds up
none of the layer's own messages. It must be quick, as all on that thread.
"""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..._swim import events as swim
from ..._wire.security import Keyring
from ...config import Config
from ...types import Address, Node
from ..threads import clock

if TYPE_CHECKING:
    from .membership import Membership

__all__ = ["Ground", "Layer", "random_source"]


class Layer(ABC):
    """What the gossip thread tells a layer."""

    wire: ClassVar[Literal["cbor", "msgpack"] | None] = None
    """The body codec that it has to have, if that matters."""

    @abstractmethod
    def attached(self, ground: Ground) -> None:
        """Know what it stands on; before the threads start."""

    @abstractmethod
    def observe(self, event: swim.Event, now: float) -> None:
        """Hear of a membership event, a user message or a peer's state. Gossip thread, inline."""


class Ground:
    """One ``Membership``, as far as a layer on it needs it. Any thread; nothing here blocks."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    @property
    def config(self) -> Config:
        """The settings, with the port that was really bound."""
        return self._membership.config

    @property
    def keyring(self) -> Keyring:
        """The keys of gossip."""
        return self._membership.keyring

    @property
    def local_node(self) -> Node:
        """This node's own record."""
        return self._membership.view().local_node

    @staticmethod
    def now() -> float:
        """Return the time that ``observe`` is told, in seconds."""
        return clock.now()

    @staticmethod
    def wall(time: float) -> float:
        """Return a time of ``now`` in seconds since 1970."""
        return time + clock.wall_offset()

    def guard(self, operation: str) -> None:
        """Check that a call may block here, and that the node runs.

        Raises:
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        self._membership.guard(operation)
        if self._membership.stopped or self._membership.gossip.service.crashed is not None:
            raise self._membership.gossip.service.refusal()

    def send(self, address: Address, data: bytes, name: str) -> bool:
        """Send a user message in one packet, best effort; False if the node has ended.

        Raises:
            QueueFull: thousands of sends wait already.
        """
        machine, message = self._membership.machine, self._membership.user(data, name)
        tell = self._membership.mailbox.tell
        return tell(lambda now: machine.send_user(message, address, now, name=name), bounded=True)

    def later(self, call: str, function: Callable[..., object], *args: Any, size: int) -> None:
        """Have the delegate thread call a user's function; bounded, as its messages are."""
        dispatcher = self._membership.dispatcher
        if dispatcher is not None:
            dispatcher.put_call(call, function, args, size)

    def aside(self, job: Callable[[], object]) -> bool:
        """Run something that blocks on a thread for that; False if there is none to be had, or the node has ended."""
        try:
            self._membership.run(job)
        except RuntimeError:  # QueueFull, NotRunningError, or no more threads
            return False
        return True

    def stop(self) -> None:
        """End the node without a word to the others; does not wait."""
        self._membership.stop()


def random_source() -> random.Random:
    """Return a source of random numbers that nobody foresees."""
    return random.Random(int.from_bytes(os.urandom(16)))
