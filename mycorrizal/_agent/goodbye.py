"""``agent.leave_on_signal()``: a goodbye before the process ends."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

from .._runtime.threads.signals import SIGTERM, end_first
from .._wire.text import logger
from ..exceptions import MycorrizalError

if TYPE_CHECKING:
    from ..agent import Agent

__all__ = ["leave_on"]

log = logger("mycorrizal.agent")


def leave_on(agent: Agent, numbers: tuple[int, ...], timeout: float | None) -> None:
    """See ``Agent.leave_on_signal``. What waits for the signal does not keep the agent."""
    for number in numbers or (SIGTERM,):
        end_first(number, partial(_goodbye, weakref.ref(agent), timeout))


def _goodbye(found: weakref.ref[Agent], timeout: float | None) -> None:
    agent = found()
    if agent is None or agent.closed:
        return
    try:
        agent.leave(timeout)
    except MycorrizalError as error:
        log.warning("%s: left without a goodbye: %s", agent.name, error)
    finally:
        agent.close()
