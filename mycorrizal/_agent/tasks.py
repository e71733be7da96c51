"""What an agent's executor is made of, checked: ``Agent.executor``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._runtime.data.tickets import field, node_names
from .._runtime.tasks.dispatcher import Dispatcher, TaskHost
from .._runtime.threads.deadline import Seconds
from .._tasks.machine import Tasks
from ..config import RESERVED
from ..exceptions import ConfigError
from ..leases import seconds_of

if TYPE_CHECKING:
    from ..executor import TaskExecutor

__all__ = ["TaskSettings", "make_executor"]

QUEUE_MAX = 1 << 20
RETRIES_MAX = 1000


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """As the arguments of ``Agent.executor``."""

    name: str
    nodes: Iterable[str] | None
    idempotent: bool
    timeout: Seconds | None
    retries: int
    patience: Seconds | None
    queue: int


def make_executor(host: TaskHost, given: TaskSettings, progress: bool) -> TaskExecutor:
    """Return an executor.

    Raises:
        ConfigError: a setting is wrong, or what shows the progress is not installed.
    """
    from ..executor import TaskExecutor  # late: few agents have one

    field(given.name)
    if given.name.startswith(RESERVED):
        raise ConfigError("name", f"{given.name!r} begins with {RESERVED!r}", hint="such names are the library's own")
    for what, number, low, high in (("retries", given.retries, 0, RETRIES_MAX), ("queue", given.queue, 1, QUEUE_MAX)):
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise ConfigError(what, f"{number!r} is not in {low}..{high}")
    nodes = None if given.nodes is None else frozenset(node_names(given.nodes))
    if nodes is not None and not nodes:
        raise ConfigError("nodes", "there are none", hint="None asks all other members")
    timeout = None if given.timeout is None else seconds_of("timeout", given.timeout)
    patience = None if given.patience is None else seconds_of("patience", given.patience)
    twice = bool(given.idempotent)
    machine = Tasks(idempotent=twice, retries=given.retries, patience=patience, counters=host.counters)
    return TaskExecutor(Dispatcher(host, given.name, nodes, timeout, machine), given.queue, progress)
