"""Notebooks: an agent of a cell that is run again replaces the one before instead of colliding with it."""

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..agent import Agent

__all__ = ["Cell", "Residents", "current_cell", "residents"]


@dataclass(frozen=True, slots=True)
class Cell:
    """The cell that is being run: which one it is, and its how manieth execution of all."""

    identity: str
    execution: int


def current_cell() -> Cell | None:
    """Return the cell that is being run; None outside IPython."""
    ipython = sys.modules.get("IPython")
    shell: Any = getattr(ipython, "get_ipython", lambda: None)()
    if shell is None:
        return None
    try:
        parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
        identity = parent.get("metadata", {}).get("cellId") or shell.user_ns.get("In", [""])[-1]
        return Cell(str(identity), int(shell.execution_count))
    except (AttributeError, IndexError, TypeError, ValueError):
        return None  # another shell than the ones we know


class Residents:
    """This process's agents by cluster and name, with the cell that made each. Each change is one step on a dict."""

    def __init__(self) -> None:
        self._agents: dict[tuple[str, str], tuple[weakref.ref[Agent], Cell | None]] = {}

    def add(self, agent: Agent, cluster: str, name: str, cell: Cell | None) -> None:
        """Remember `agent`."""
        self._agents[cluster, name] = weakref.ref(agent), cell

    def remove(self, agent: Agent, cluster: str, name: str) -> None:
        """Forget `agent`, unless another one has its name by now."""
        known = self._agents.get((cluster, name))
        if known is not None and known[0]() in (None, agent):
            self._agents.pop((cluster, name), None)

    def replaced(self, cluster: str, name: str, *, chosen: bool) -> Agent | None:
        """Return the agent that a new one of this name takes the place of, if it does.

        In a notebook that is the one of an earlier execution: of any cell if the name was `chosen`, of the same
        cell if it is the default name, which every cell would have. Elsewhere a name is taken or it is not.
        """
        known, cell = self._agents.get((cluster, name), (None, None)), current_cell()
        if known[0] is None or cell is None:
            return None
        agent, before = known[0](), known[1]
        if agent is None or before is None or before.execution == cell.execution:
            return None
        return agent if chosen or before.identity == cell.identity else None


residents = Residents()
