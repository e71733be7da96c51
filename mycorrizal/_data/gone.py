"""Names that are gone are forgotten; of those with which messages were exchanged the last numbers are kept.

A name is gone when membership does not have it, or, without a membership, when
it was removed, or nobody gave an address for it and its connections have ended.
Its process may be back under the same name, if it was declared dead by mistake:
with the numbers no message is taken twice, or for another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .machine import DataMachine
    from .peer import Peer

__all__ = ["Gone", "Numbers"]

_NUMBERS_MAX = 1 << 14
"""Names whose numbers are kept, 0.2 KB each; the longest gone go first."""


class Numbers(NamedTuple):
    """Of the messages with one process: ``first`` not accepted and ``following`` of ours, ``accepted`` here."""

    boot: bytes
    first: int
    following: int
    accepted: int


class Gone:
    """The machine's, which tells what may be over and calls ``sweep`` from its tick."""

    def __init__(self, machine: DataMachine) -> None:
        self._machine = machine
        self._numbers: dict[str, Numbers] = {}
        self._over: dict[str, None] = {}  # to be looked at in the next sweep

    def back(self, name: str) -> Numbers | None:
        """Return the numbers of before, if `name` was here; they are the caller's now."""
        return self._numbers.pop(name, None)

    def may_be(self, name: str) -> None:
        """Something of the peer `name` has begun or ended."""
        if name not in self._over and name != self._machine.host.name:
            self._over[name] = None
            self._machine.arm()

    def sweep(self) -> None:
        """Forget who is gone, among those of whom something has begun or ended."""
        over, self._over = self._over, {}
        for name in over:
            peer = self._machine.peers.get(name)
            if peer is not None and peer.over and self._is_gone(peer):
                del self._machine.peers[name]
                self._machine.host.count("quic.names_forgotten")
                if peer.numbers is not None:
                    self._keep(name, peer.numbers)

    def _is_gone(self, peer: Peer) -> bool:
        host = self._machine.host
        member = host.member(peer.name)
        return member is False or (member is None and (peer.removed or host.resolve(peer.name) is None))

    def _keep(self, name: str, numbers: Numbers) -> None:
        self._numbers[name] = numbers
        if len(self._numbers) > _NUMBERS_MAX:
            del self._numbers[next(iter(self._numbers))]
            self._machine.host.count("quic.numbers_forgotten")
