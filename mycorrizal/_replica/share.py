"""Our share of user messages and user states, beside the user's own.

An envelope begins with ``d9 6d 79`` and a byte that says what it is. What does
not begin so is the user's and passes untouched; a message of the user's that
does begin so is wrapped, or the other side would take it for ours.

Where nothing of ours rides gossip (``Replica.gossip`` is off, since a Go peer
would choke on an envelope), everything passes untouched both ways.
"""

from __future__ import annotations

import enum

from .._wire.limits import USER_BYTES_SENT_MAX
from ..delegates import Delegate
from ..exceptions import RemoteProtocolError
from .machine import Replica

__all__ = ["PREFIX", "STATE_MAX", "Envelope", "Share"]

PREFIX = b"\xd9\x6d\x79"
"""First bytes of every envelope (a CBOR tag that nobody else writes)."""

STATE_MAX = USER_BYTES_SENT_MAX
"""Longest user state of a push/pull (memberlist)."""


class Envelope(enum.IntEnum):
    """What an envelope holds; numbers are append-only."""

    OURS = 1
    USER = 2
    STATE = 3  # u32 length of ours, ours, the user's


_OVERHEAD = len(PREFIX) + 1
_OURS = PREFIX + bytes((Envelope.OURS,))
_USER = PREFIX + bytes((Envelope.USER,))
_STATE = PREFIX + bytes((Envelope.STATE,))


class Share:
    """Stands between the membership machine and the user's ``Delegate`` (None: there is none). Owner's thread."""

    def __init__(self, replica: Replica, user: Delegate | None) -> None:
        self._replica = replica
        self._user = user

    def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
        """Return user messages for one packet, ours first; each costs its length plus `overhead`."""
        replica, user = self._replica, self._user
        if not replica.gossip:
            return [] if user is None else list(user.get_broadcasts(overhead, limit))
        taken = [self.ours(one) for one in replica.get_broadcasts(overhead + _OVERHEAD, limit)]
        if user is None:
            return taken
        left = limit - sum(map(len, taken)) - overhead * len(taken)
        if left <= overhead + _OVERHEAD:
            return taken
        # As if each were wrapped: nobody knows yet which of them will be.
        for one in user.get_broadcasts(overhead + _OVERHEAD, left):
            taken.append(_USER + one if one.startswith(PREFIX) else one)
        return taken

    @staticmethod
    def ours(message: bytes) -> bytes:
        """Return the user message that holds a message of the replica."""
        return _OURS + message

    def local_state(self, join: bool) -> bytes:
        """Return the state for a push/pull."""
        user = b"" if self._user is None else self._user.local_state(join)
        if not self._replica.gossip:
            return user
        ours = self._replica.local_state(join)
        if _OVERHEAD + 4 + len(ours) + len(user) > STATE_MAX:
            self._replica.note("state.left_out")
            ours = b""
        return b"".join((_STATE, len(ours).to_bytes(4, "big"), ours, user))

    def take_message(self, data: bytes, now: float) -> bytes | None:
        """Take a user message; return what is the user's to see, None if it was ours."""
        if not self._replica.gossip or not data.startswith(PREFIX):
            return data
        kind = data[3] if len(data) > 3 else 0
        if kind == Envelope.USER:
            return data[_OVERHEAD:]
        if kind == Envelope.OURS:
            self._replica.receive(data[_OVERHEAD:], now)
        else:
            self._replica.reject(RemoteProtocolError(f"an envelope of kind {kind} in a message"))
        return None

    def take_state(self, data: bytes, join: bool, now: float, *, answer: bool = False) -> bytes:
        """Merge our part of a peer's user state; return the user's part. `answer`: we dialled that peer."""
        if not self._replica.gossip or not data.startswith(PREFIX):
            return data
        middle = _OVERHEAD + 4 + int.from_bytes(data[_OVERHEAD : _OVERHEAD + 4], "big")
        if not data.startswith(_STATE) or len(data) < _OVERHEAD + 4 or middle > len(data):
            self._replica.reject(RemoteProtocolError("an envelope that holds no state, or is cut off"))
            return b""
        if middle == _OVERHEAD + 4:
            self._replica.note("state.missing")  # there was no room for it: it is to be had over QUIC
        else:
            self._replica.merge_state(data[_OVERHEAD + 4 : middle], join, now, answer=answer)
        return data[middle:]
