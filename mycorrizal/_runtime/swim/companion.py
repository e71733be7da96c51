"""A second machine on the gossip thread: what an ``Agent`` shares with the others beside membership."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..._swim import events as swim
from ...delegates import Delegate

if TYPE_CHECKING:
    from .membership import Membership

__all__ = ["Companion"]


class Companion(Protocol):
    """What the gossip thread tells and asks, all of it inline: it must be quick. See ``_runtime/shared/sharing.py``."""

    def attached(self, membership: Membership) -> None:
        """Know the membership whose thread this will run on; before the thread starts."""

    def supply(self, user: Delegate | None) -> Delegate:
        """Return the delegate that the membership machine asks: `user`, who may be missing, and ours beside it."""

    def take_message(self, data: bytes, now: float) -> bytes | None:
        """Take a user message; return what of it is for the user's delegate."""

    def take_state(self, data: bytes, join: bool, now: float, answer: bool) -> bytes:
        """Take a peer's state; return what of it is for the user's delegate. `answer`: we dialled that peer."""

    def observe(self, event: swim.Event, now: float) -> None:
        """Hear of a membership event before subscribers do."""

    def get_timer(self) -> float | None:
        """Return when to call ``handle_timer``."""

    def handle_timer(self, now: float) -> None:
        """The time has come."""

    def pump(self, now: float) -> None:
        """Pull all outputs; called after every input."""

    def waiting(self) -> bool:
        """Return whether the delegate of ``supply`` may have broadcasts; without any an idle node sleeps."""

    def ended(self) -> None:
        """The thread ends, of its own accord or not; nobody may go on waiting."""
