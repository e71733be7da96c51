"""Carries out a command on an agent, or on anything that has its methods; says what went wrong as a code.

Knows no socket and no thread: whoever calls ``Desk.answer`` waits as long as
the agent's own method does. Several threads may. What each command does
stands in the table, ``commands``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._wire.text import text_of
from ..exceptions import (
    CacheOutcomeUnknown,
    CacheUnavailable,
    ConfigError,
    ControlError,
    ForkedProcessError,
    MycorrizalError,
    NotRunningError,
    OperationTimeout,
    PeerUnreachable,
    QueueFull,
    RemoteError,
    RemoteProtocolError,
    ServiceCrashed,
    UnknownCache,
    ValueDecodeError,
    ValueEncodeError,
    ValueTooLarge,
)
from .commands import COMMANDS
from .controlled import Controlled, Served

__all__ = ["CODES", "Desk", "code_of"]

CODES: Mapping[str, str] = {
    "malformed": "the message is no request",
    "too_large": "the request, the result or a value is larger than allowed",
    "unknown_command": "there is no such command",
    "bad_arguments": "an argument is missing, unknown or of the wrong kind",
    "busy": "too many commands are waiting; try again",
    "timeout": "not done in time",
    "unreachable": "another node could not be reached",
    "remote": "the other node's handler failed, or there is none",
    "conflict": "the cache runs with other settings",
    "not_found": "there is no such setting, registration, cache or key",
    "not_running": "the agent is closing or closed",
    "unsupported": "this agent cannot do that",
    "failed": "it went wrong in another way; the text says how",
}
"""Every code of an error reply, and what it means."""

_CODES_OF: tuple[tuple[type[BaseException], str], ...] = (
    (OperationTimeout, "timeout"),
    (RemoteError, "remote"),
    (PeerUnreachable, "unreachable"),
    (CacheUnavailable, "unreachable"),
    (CacheOutcomeUnknown, "unreachable"),
    (UnknownCache, "not_found"),
    (QueueFull, "busy"),
    (ValueTooLarge, "too_large"),
    (ServiceCrashed, "failed"),
    (NotRunningError, "not_running"),
    (ForkedProcessError, "not_running"),
    (RemoteProtocolError, "malformed"),
    (ConfigError, "bad_arguments"),
    (ValueEncodeError, "bad_arguments"),
    (ValueDecodeError, "unsupported"),
)


def code_of(error: BaseException) -> str:
    """Return the code that a reply tells for `error`."""
    if isinstance(error, ControlError):
        return error.code
    return next((code for kind, code in _CODES_OF if isinstance(error, kind)), "failed")


class Desk:
    """Answers commands on behalf of `agent`; `facts` and `sequence` as in ``Served``."""

    def __init__(self, agent: Controlled, facts: Mapping[str, Any], sequence: Callable[[], int] = lambda: 0) -> None:
        self._served = Served(agent, facts, sequence, {})

    def answer(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Carry out command `name` and return its result. Waits; any thread that may.

        `arguments` have passed ``commands.checked``.

        Raises:
            ControlError: with the code for whatever went wrong; the cause is chained.
        """
        try:
            return COMMANDS[name].run(self._served, **arguments)
        except ControlError:
            raise
        except MycorrizalError as error:
            more = {"retriable": error.retriable, "indeterminate": error.indeterminate}
            raise ControlError(code_of(error), str(error), **more) from error
        except ReferenceError:  # what was given is a weak proxy, and its owner has dropped the agent
            raise ControlError("not_running", "the agent is gone") from None
        except Exception as error:
            raise ControlError("failed", f"{name}: {type(error).__name__}: {text_of(error)}") from error

    def shutdown(self, leave: bool, timeout: float) -> None:
        """End the agent, once the reply to ``shutdown`` is out. Waits; not on a thread that the agent's end needs."""
        try:
            if leave:
                self._served.agent.leave(timeout=timeout)
        finally:
            self._served.agent.close()
