"""What an agent shares, without membership, threads or a network: the gossip thread runs when somebody waits for it."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

from mycorrizal._replica.outputs import EventReceived
from mycorrizal._runtime.shared.sharing import Sharing
from mycorrizal._runtime.shared.watching import Watching
from mycorrizal._runtime.threads.counters import Counters
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._runtime.threads.mailbox import Mailbox
from mycorrizal._runtime.threads.subscribers import Subscribers
from mycorrizal._wire.values import DEFAULT
from mycorrizal.exceptions import NotRunningError
from mycorrizal.types import Node


class Alone:
    """In place of a ``Membership``, its gossip thread and its service."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.config = SimpleNamespace(name="me")
        self.mailbox = Mailbox(limit=4)
        self.gossip = self.service = self.replica = self
        self.subscribers: Subscribers[Any] = Subscribers(lambda: cast(Any, None))
        self.members: tuple[Node, ...] = ()
        self.before: list[EventReceived] = []

    def guard(self, operation: str) -> None:
        pass

    def refusal(self, *, sent: bool = False) -> Exception:
        return NotRunningError("it has ended")

    def wait(self, future: Future[Any], deadline: Deadline, operation: str) -> Any:
        self.mailbox.run()
        return future.result(0)

    def end(self) -> None:
        """The gossip thread ends."""
        self.mailbox.refuse(self.refusal)

    def close(self) -> None:
        self.mailbox.close()

    def view(self) -> Alone:
        return self

    def history(self, topic: str | None, last: int) -> list[EventReceived]:
        return self.before


def sharing_of(alone: Alone, *, gossip: bool = False) -> Sharing:
    """Return the sharing of an agent "me"."""
    sharing = Sharing("me", b"m" * 8, lambda limit, user: b"", gossip=gossip, retransmit_mult=4)
    sharing.attached(cast(Any, alone))
    return sharing


def watching_of(alone: Alone, sharing: Sharing) -> Watching:
    """Return who watches that; its events are published as the gossip thread does."""
    watching = Watching(cast(Any, alone), sharing, DEFAULT)
    sharing.on_event, sharing.on_end = watching.publish, watching.end
    return watching
