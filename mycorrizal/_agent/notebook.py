"""Notebooks: an agent of a cell that is run again replaces the one before instead of colliding with it."""

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .._runtime.threads.deadline import Deadline
from .._runtime.threads.repeating import Repeater
from ..exceptions import ConfigError
from ..types import html_text

if TYPE_CHECKING:
    from ..agent import Agent

__all__ = ["Cell", "Ending", "Former", "Residents", "current_cell", "residents", "show"]


@dataclass(frozen=True, slots=True)
class Cell:
    """The cell that is being run: which one it is, and which of all runs this is."""

    identity: str
    run: str


def current_cell() -> Cell | None:
    """Return the cell that is being run; None outside IPython. Any thread.

    JupyterLab and VS Code say which cell it is. Where nobody does, two cells of one text are one cell, and a cell
    that was edited is another one.
    """
    ipython = sys.modules.get("IPython")
    shell: Any = getattr(ipython, "get_ipython", lambda: None)()
    if shell is None:
        return None
    try:
        message = shell.get_parent() if hasattr(shell, "get_parent") else None
        if not message:  # IPython in a terminal
            return Cell(str(shell.user_ns["In"][-1]), str(shell.execution_count))
        # Not the count of executions: one without history has that of the next.
        run = str(message["header"]["msg_id"])
        text = message.get("content", {}).get("code")  # a widget's click has none: it is a cell of its own
        return Cell(str(message.get("metadata", {}).get("cellId") or text or run), run)
    except (AttributeError, IndexError, KeyError, TypeError):
        return None  # another shell than the ones we know


@dataclass(frozen=True, slots=True)
class Former:
    """What the agent had whose place another one takes.

    Attributes:
        port, quic_port: where it listened; its cell need not name them to have them again.
        handlers, streams: names of what it answered. Their cell may not be run again, which callers are told.
    """

    port: int
    quic_port: int
    handlers: tuple[str, ...]
    streams: tuple[str, ...]


class Ending(Protocol):
    """Threads and sockets that were told to stop."""

    def join(self, deadline: Deadline) -> bool:
        """Wait until they have."""


class Residents:
    """This process's agents by cluster and name, with the cell that made each. Each change is one step; any thread."""

    def __init__(self) -> None:
        self._agents: dict[tuple[str, str], tuple[weakref.ref[Agent], Cell | None]] = {}
        self._ending: tuple[weakref.ref[Ending], ...] = ()

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

        In a notebook that is the one of an earlier run: of any cell if the name was `chosen`, of the same cell if it
        is the default name, which every cell would have. Elsewhere a name is taken or it is not.
        """
        known, cell = self._agents.get((cluster, name), (None, None)), current_cell()
        if known[0] is None or cell is None:
            return None
        agent, before = known[0](), known[1]
        if agent is None or before is None or before.run == cell.run:
            return None
        return agent if chosen or before.identity == cell.identity else None

    # -- agents that were dropped, not closed ---------------------------------------------------

    def dropped(self, *parts: Ending) -> None:
        """An agent that nobody holds any more was told to stop; called by its finalizer, which must not wait.

        The references are weak: threads that run keep what they need, and of what has ended nothing is waited for.
        """
        alive = [ref for ref in self._ending if ref() is not None]
        self._ending = (*alive, *map(weakref.ref, parts))

    def settle(self, deadline: Deadline) -> None:
        """Wait until the ports and sockets of dropped agents are free; a new one may want the same."""
        ending, self._ending = self._ending, ()
        for ref in ending:
            part = ref()
            if part is not None:
                part.join(deadline)


def show(agent: Agent, name: str, seconds: float) -> Repeater:
    """Show `agent` in a cell's output, and change that every `seconds` if need be; return what does so.

    Raises:
        ConfigError: there is no notebook here. ResourcesExhausted: there is no thread to be had.
    """
    display: Any = getattr(sys.modules.get("IPython"), "display", None)
    if display is None or current_cell() is None:
        raise ConfigError("show", "needs a notebook", hint="print(agent) and agent.members() are for scripts")
    shown = agent._repr_html_()
    output = display.display(display.HTML(shown), display_id=True)
    reference = weakref.ref(agent)  # or `del agent` would not end it

    def look() -> float | None:
        nonlocal shown
        agent = reference()
        now = f"<div>{html_text(name)} is gone</div>" if agent is None else agent._repr_html_()
        if now != shown:
            shown = now
            output.update(display.HTML(now))
        return None if agent is None or agent.closed else seconds

    again = Repeater("show", name, look, seconds)
    again.start()
    return again


residents = Residents()
