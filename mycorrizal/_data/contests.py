"""Names that one process claims while another one has them: what was refused lately, for people to look at."""

from __future__ import annotations

from ..types import Address

__all__ = ["Contests"]

_RECENT_SECONDS = 10.0
_LASTING_SECONDS = 3.0
"""A process that has restarted may be here before membership is; whoever claims for longer is no such one."""

_NAMES_MAX = 256


class Contests:
    """The last refused claim of each name, of a bounded number of names. The machine's, but for ``recent``."""

    def __init__(self) -> None:
        self._claims: dict[str, tuple[float, float, Address]] = {}

    def note(self, name: str, address: Address, now: float) -> bool:
        """Remember a claim that was refused; return whether such claims have come for long enough to warn of."""
        since, last, _ = self._claims.pop(name, (now, now, address))
        if now - last > _RECENT_SECONDS:
            since = now
        if len(self._claims) >= _NAMES_MAX:
            del self._claims[next(iter(self._claims))]
        self._claims[name] = since, now, address
        return now - since >= _LASTING_SECONDS

    def recent(self, now: float) -> list[tuple[str, Address]]:
        """Return names that were claimed within the last 10 s, and from where. Any thread."""
        claims = self._claims.copy()  # a single step
        return sorted((name, address) for name, (_, last, address) in claims.items() if now - last <= _RECENT_SECONDS)
