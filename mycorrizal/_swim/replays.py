"""Numbered user messages, each taken once: one that was recorded and is sent again is dropped.

Every message bears the id of its sender's life, a number that no other message
of that life has, and the name of the node it is for. For each life there are
two windows of the latest numbers that came, as in IPsec (RFC 4303 §3.4.3): of
packets, and of streams, which packets overtake. What is older than its window
counts as taken.

What is remembered ends with this process, and with ``_SENDERS_MAX`` other
lives heard of since: from then on a recording counts as new once more.
"""

from __future__ import annotations

from collections import OrderedDict

from .._wire.messages import User

__all__ = ["Replays"]

_WINDOW = 1 << 16  # numbers; those of one sender go to all its receivers
_SENDERS_MAX = 1024


class Replays:
    """Which numbered messages were taken. One machine's.

    Args:
        name: of this node.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        # By life and carrier: the greatest number, and a bit for each before it, the lowest for the greatest itself.
        self._seen: OrderedDict[tuple[bytes, bool], tuple[int, int]] = OrderedDict()

    def refusal(self, message: User, *, stream: bool) -> str | None:
        """Return None and remember the message if it is to be taken, else what to count."""
        if not message.boot:
            return None
        if message.to not in ("", self._name):
            return "user.misdirected"
        key = message.boot, stream
        greatest, bits = self._seen.get(key, (0, 0))
        ahead = message.number - greatest
        if ahead > 0:
            bits = (bits << min(ahead, _WINDOW) | 1) & _MASK
            greatest = message.number
        elif -ahead >= _WINDOW or bits >> -ahead & 1:
            return "user.replayed"
        else:
            bits |= 1 << -ahead
        self._seen[key] = greatest, bits
        self._seen.move_to_end(key)
        if len(self._seen) > 2 * _SENDERS_MAX:
            self._seen.popitem(last=False)
        return None

    def __len__(self) -> int:
        return len(self._seen)


_MASK = (1 << _WINDOW) - 1
