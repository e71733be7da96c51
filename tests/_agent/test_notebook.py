"""Which agent a cell's new run replaces, with a shell that is made up; and that dropped agents are waited for."""

from __future__ import annotations

import gc
import sys
from types import ModuleType
from typing import Any, cast

import pytest

from mycorrizal._agent.notebook import Cell, Residents, current_cell
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal.agent import Agent


class Shell:
    """IPython's shell, as far as it is asked: in a kernel it has the message that it answers."""

    def __init__(self, *inputs: str) -> None:
        self.user_ns = {"In": ["", *inputs]}
        self.execution_count = len(inputs)


class KernelShell(Shell):
    def __init__(self, message: Any) -> None:
        super().__init__()
        self.message = message

    def get_parent(self) -> Any:
        return self.message


def execution(run: str, code: str = "a = Agent()", cell: str | None = None) -> dict[str, Any]:
    """Return a frontend's message."""
    metadata = {} if cell is None else {"cellId": cell}
    return {"header": {"msg_id": run}, "metadata": metadata, "content": {"code": code}}


@pytest.fixture
def ipython(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """IPython, imported, without a shell."""
    module = ModuleType("IPython")
    module.get_ipython = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", module)
    return module


def put(ipython: ModuleType, shell: object) -> None:
    ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]


class Resident:
    """Stands for an agent."""


def resident() -> Agent:
    return cast(Agent, Resident())


# -- which cell -----------------------------------------------------------------------------------


def test_there_is_no_cell_outside_ipython(ipython: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert current_cell() is None  # a program that has IPython imported
    monkeypatch.delitem(sys.modules, "IPython")
    assert current_cell() is None
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))  # in the middle of its import
    assert current_cell() is None


@pytest.mark.parametrize(
    ("shell", "cell"),
    [
        (Shell("x = 1", "a = Agent()"), Cell("a = Agent()", "2")),
        (KernelShell(execution("m1")), Cell("a = Agent()", "m1")),
        (KernelShell(execution("m1", cell="c7")), Cell("c7", "m1")),
        (KernelShell({"header": {"msg_id": "m2"}, "content": {"comm_id": "x"}}), Cell("m2", "m2")),  # a click
        (KernelShell({}), None),  # nothing was executed yet: In is there, and empty
        (KernelShell({"header": None}), None),
        (KernelShell("strange"), None),
        (object(), None),
    ],
)
def test_a_cell_is_known_by_its_id_or_its_text(ipython: ModuleType, shell: object, cell: Cell | None) -> None:
    put(ipython, shell)
    if isinstance(shell, KernelShell) and not shell.message:
        shell.user_ns = {"In": []}
    assert current_cell() == cell


# -- who is replaced ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "chosen", "default"),
    [
        (Cell("c1", "1"), Cell("c1", "2"), True, True),  # run again
        (Cell("c1", "1"), Cell("c2", "2"), True, False),  # another cell
        (Cell("c1", "1"), Cell("c1", "1"), False, False),  # twice in one run
        (None, Cell("c1", "2"), False, False),  # made where no cell was known
        (Cell("c1", "1"), None, False, False),
    ],
)
def test_what_a_new_agent_replaces(
    ipython: ModuleType, before: Cell | None, now: Cell | None, chosen: bool, default: bool
) -> None:
    agent, residents = resident(), Residents()
    residents.add(agent, "c", "alice", before)
    if now is not None:
        put(ipython, KernelShell(execution(now.run, cell=now.identity)))
    assert residents.replaced("c", "alice", chosen=True) is (agent if chosen else None)
    assert residents.replaced("c", "alice", chosen=False) is (agent if default else None)
    assert residents.replaced("c", "bob", chosen=True) is None
    assert residents.replaced("other", "alice", chosen=True) is None


def test_who_is_gone_is_not_replaced(ipython: ModuleType) -> None:
    put(ipython, KernelShell(execution("2", cell="c1")))
    agent, residents = resident(), Residents()
    residents.add(agent, "c", "alice", Cell("c1", "1"))
    del agent
    gc.collect()
    assert residents.replaced("c", "alice", chosen=True) is None


def test_an_agent_takes_only_itself_off_the_list(ipython: ModuleType) -> None:
    put(ipython, KernelShell(execution("3", cell="c1")))
    old, new, residents = resident(), resident(), Residents()
    residents.remove(old, "c", "alice")
    residents.add(old, "c", "alice", Cell("c1", "1"))
    residents.add(new, "c", "alice", Cell("c1", "2"))
    residents.remove(old, "c", "alice")  # closes late
    assert residents.replaced("c", "alice", chosen=True) is new
    residents.remove(new, "c", "alice")
    assert residents.replaced("c", "alice", chosen=True) is None


# -- dropped agents --------------------------------------------------------------------------------


class Part:
    def __init__(self, joined: list[float | None]) -> None:
        self.joined = joined

    def join(self, deadline: Deadline) -> bool:
        self.joined.append(deadline.remaining())
        return True


def test_what_was_dropped_and_still_runs_is_waited_for_once() -> None:
    joined: list[float | None] = []
    residents = Residents()
    gossip, plane = Part(joined), Part(joined)
    residents.dropped(gossip, plane)
    residents.dropped(Part(joined))  # ended already
    gc.collect()
    residents.settle(Deadline(None))
    assert joined == [None, None]
    residents.settle(Deadline(None))
    assert len(joined) == 2
