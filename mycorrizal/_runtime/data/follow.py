"""A data plane that follows a membership: addresses, names, and who is gone come from there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..._wire.meta import quic_port, read_meta
from ...events import EventsLost, MemberEvent, MemberFailed, MemberJoined, MemberLeft, MemberUpdated
from ...exceptions import MycorrizalError
from ...types import Address, Node, NodeState, printable
from ..threads import clock
from ..threads.deadline import Deadline
from ..threads.service import Service
from ..threads.subscribers import EventStream
from .core import Core

__all__ = ["Follower"]

_NAMES_SHOWN, _NAMES_MAX = 10, 500  # members that an error names, and characters of their names
_NAMES_COMPARED = 256


class Follower:
    """The thread ``mycorrizal-follow``: tells the machine what membership says.

    Args:
        members: the current members; never blocks.
        gone: those that left or failed within a day, each with the time, in seconds since 1970.
        events: a stream of what happens from now on; it is closed with the follower.
    """

    def __init__(
        self,
        core: Core,
        members: Callable[[], tuple[Node, ...]],
        gone: Callable[[], list[tuple[Node, float]]],
        events: EventStream[MemberEvent],
    ) -> None:
        self._core = core
        self._members = members
        self._gone = gone
        self._events = events
        own = self._find(core.name)
        self._address = None if own is None else own.address
        self.service = Service("mycorrizal-follow", core.name, self._run, lambda: None)
        before = core.member, core.process, core.missing, core.members
        core.member, core.process, core.missing, core.members = self.member, self.process, self.missing, self.names
        core.submit(self._recheck)  # of those that were here before
        try:
            self.service.start()
        except BaseException:
            core.member, core.process, core.missing, core.members = before
            events.close()
            raise

    def resolve(self, name: str) -> Address | None:
        """Return where the member `name` listens for QUIC, None if it is no member or tells no port. Any thread."""
        node = self._find(name)
        port = quic_port(node.meta) if node is not None else None
        return None if node is None or port is None else (node.host, port)

    def member(self, name: str) -> bool:
        """Return whether `name` is a member. Any thread."""
        return self._find(name) is not None

    def process(self, name: str) -> bytes | None:
        """Return the boot id of the member `name`, None if it is no member or tells none. Any thread."""
        node = self._find(name)
        return None if node is None else read_meta(node.meta).boot

    def names(self) -> list[str]:
        """Return the members' names. Any thread."""
        return [node.name for node in self._members()]

    def missing(self, name: str) -> tuple[str, str]:
        """Say why `name` cannot be dialled, and what to do about it. Any thread."""
        node, shown = self._find(name), printable(name)
        if node is not None and quic_port(node.meta) is None:
            return f"{shown} is a member without a data plane", "only agents take messages and requests"
        if node is not None:
            return f"{shown} is at {node.host}, and without a key only loopback is dialled", "give all of them a key"
        for node, since in self._departed():
            if node.name == name:
                ago = clock.span(max(0.0, clock.now() + clock.wall_offset() - since))
                what = "left" if node.state == NodeState.LEFT else "failed"
                return f"{shown} {what} {ago} ago", "it is found again once it is back; see members(all=True)"
        names = [node.name for node in self._members()]
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        seen = printable(", ".join(names[:_NAMES_SHOWN]), _NAMES_MAX)
        from difflib import get_close_matches  # late: most names are right

        close = get_close_matches(name, names[:_NAMES_COMPARED], 1)
        hint = f"is it {close[0]!r}?" if close else "wait until it has joined, or look at its cluster= and key="
        return f"{name!r} was never seen; members are {seen}{more}", hint

    def _departed(self) -> list[tuple[Node, float]]:
        try:
            return self._gone()
        except MycorrizalError:
            return []  # the gossip thread has died: every call says so

    def _find(self, name: str) -> Node | None:
        return next((node for node in self._members() if node.name == name), None)

    def _run(self) -> None:
        for event in self._events:
            match event:
                case MemberFailed(node) | MemberLeft(node):
                    if self.process(node.name) in (None, read_meta(node.meta).boot):
                        self._down(node.name, "has left" if isinstance(event, MemberLeft) else "was declared dead")
                    else:
                        self._changed(node.name)  # its next process is a member already: what waits goes there
                case MemberUpdated(node) if node.name == self._core.name and node.address != self._address:
                    self._address = node.address
                    self._core.submit(self._moved)
                case MemberJoined(node) | MemberUpdated(node):
                    self._changed(node.name)
                case EventsLost():
                    self._core.submit(self._reconcile)

    def _down(self, name: str, why: str) -> None:
        self._core.submit(partial(self._core.machine.peer_down, name, why))

    def _changed(self, name: str) -> None:
        self._core.submit(partial(self._core.machine.peer_changed, name))

    def _moved(self, now: float) -> None:
        """This host has another address: whom we dialled answers to that once it has heard from there."""
        for link in self._core.machine.links.values():
            if link.conn.dialled:
                link.conn.ping()

    def _reconcile(self, now: float) -> None:
        """Events were lost: who is no member any more is gone."""
        names = {node.name for node in self._members()}
        for name in [name for name in self._core.machine.peers if name not in names]:
            self._core.machine.peer_down(name, "is no member any more", now)
        self._recheck(now)

    def _recheck(self, now: float) -> None:
        for name in list(self._core.machine.peers):
            self._core.machine.peer_changed(name, now)

    def close(self, deadline: Deadline) -> None:
        """End the thread."""
        self._events.close()
        self.service.join(deadline)
