"""The interfaces through which a user's code hooks into membership.

Two families (docs/design.md):

* *Supply and admission* are asked inline on the gossip thread and must return
  at once: ``node_meta``, ``get_broadcasts``, ``local_state``, ``ack_payload``,
  ``notify_alive``, ``notify_merge``. They are timed; a call over 10 ms is
  logged with its name and counted.
* *Observation* runs later, in order, on the delegate thread and may take its
  time: ``notify_msg``, ``merge_remote_state``, ``notify_join``,
  ``notify_leave``, ``notify_update``, ``notify_conflict``,
  ``notify_ping_complete``. An exception there is logged and counted.

Every read of ``Memberlist`` works from inside any of them. Blocking calls
raise ``ReentrantCallError`` in the first family.

The protocols are structural: any object with the methods will do. The
``Base…`` classes are no-ops to inherit from when only some methods matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from .types import Node

__all__ = [
    "AliveDelegate",
    "BaseDelegate",
    "BaseEventDelegate",
    "BasePingDelegate",
    "ConflictDelegate",
    "Delegate",
    "EventDelegate",
    "MergeDelegate",
    "PingDelegate",
]


class Delegate(Protocol):
    """memberlist's ``Delegate``: metadata, user messages, broadcasts, state sync."""

    def node_meta(self, limit: int) -> bytes:
        """Return this node's metadata, at most `limit` (512) bytes. Gossip thread."""

    def notify_msg(self, data: bytes) -> None:
        """Take one user message from a peer. Delegate thread."""

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        """Return user messages to gossip. Gossip thread.

        Each costs its length plus `overhead` bytes; together at most `limit`.
        What does not fit is dropped, counted and reported.
        """

    def local_state(self, join: bool) -> bytes:
        """Return the state to send with a push/pull, at most 19 MiB. Gossip thread."""

    def merge_remote_state(self, buf: bytes, join: bool) -> None:
        """Take a peer's ``local_state``; not called when it was empty. Delegate thread."""


class EventDelegate(Protocol):
    """memberlist's ``EventDelegate``. Delegate thread, in order."""

    def notify_join(self, node: Node) -> None:
        """A node joined, or came back."""

    def notify_leave(self, node: Node) -> None:
        """A node left (``node.state`` LEFT) or failed (DEAD)."""

    def notify_update(self, node: Node) -> None:
        """A node's metadata changed, or its address."""


class ConflictDelegate(Protocol):
    """memberlist's ``ConflictDelegate``. Delegate thread."""

    def notify_conflict(self, existing: Node, other: Node) -> None:
        """Two live nodes claim one name."""


class MergeDelegate(Protocol):
    """memberlist's ``MergeDelegate``. Gossip thread."""

    def notify_merge(self, peers: Sequence[Node]) -> None:
        """Raise any exception to refuse the merge of a joining peer's members."""


class AliveDelegate(Protocol):
    """memberlist's ``AliveDelegate``. Gossip thread."""

    def notify_alive(self, node: Node) -> None:
        """Raise any exception to ignore this alive message (also our own)."""


class PingDelegate(Protocol):
    """memberlist's ``PingDelegate``."""

    def ack_payload(self) -> bytes:
        """Return bytes to send with each acknowledgement. Gossip thread."""

    def notify_ping_complete(self, node: Node, rtt: float, payload: bytes) -> None:
        """A probe of `node` was answered directly after `rtt` seconds. Delegate thread."""


class BaseDelegate:
    """A ``Delegate`` that supplies nothing and ignores everything."""

    def node_meta(self, limit: int) -> bytes:
        return b""

    def notify_msg(self, data: bytes) -> None:
        return None

    def get_broadcasts(self, overhead: int, limit: int) -> Iterable[bytes]:
        return ()

    def local_state(self, join: bool) -> bytes:
        return b""

    def merge_remote_state(self, buf: bytes, join: bool) -> None:
        return None


class BaseEventDelegate:
    """An ``EventDelegate`` that ignores everything."""

    def notify_join(self, node: Node) -> None:
        return None

    def notify_leave(self, node: Node) -> None:
        return None

    def notify_update(self, node: Node) -> None:
        return None


class BasePingDelegate:
    """A ``PingDelegate`` with an empty payload."""

    def ack_payload(self) -> bytes:
        return b""

    def notify_ping_complete(self, node: Node, rtt: float, payload: bytes) -> None:
        return None
