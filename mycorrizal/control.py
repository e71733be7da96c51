"""Talk to an agent of this machine over its control plane: what the command line does, from a program."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from ._control.answers import CODES
from ._control.commands import COMMANDS, checked
from ._control.controlled import Controlled
from ._control.messages import ControlEvent, encode_request
from ._runtime.control.client import ControlChannel, ControlEvents
from ._runtime.control.server import ControlService
from ._runtime.threads.lifecycle import Handle
from .exceptions import ControlError

__all__ = [
    "CODES",
    "COMMANDS",
    "ControlClient",
    "ControlEvent",
    "ControlEvents",
    "ControlService",
    "Controlled",
]

_REPLY_SECONDS = 3.0


class ControlClient(Handle):
    """Asks one agent. Any thread; a context manager.

    Args:
        endpoint: the agent's endpoint for commands, as ``mycorrizal info`` prints it.
        timeout: seconds for a call, unless the call says otherwise; None for as long as the command takes.

    Raises:
        ConfigError: an endpoint that is refused.
    """

    def __init__(self, endpoint: str, timeout: float | None = 10.0) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._channel = ControlChannel(endpoint)
        self._numbers = itertools.count(1)

    def call(self, command: str, /, **arguments: Any) -> Any:
        """Have the agent carry out a command, and return its result. Blocks.

        Arguments are checked here as they are there. A ``timeout`` among them
        is the command's; the reply may take a little longer. docs/control.md
        lists the commands.

        Raises:
            ControlError: it was refused or failed; ``code`` says why.
            PeerUnreachable: no agent listens there. OperationTimeout: no reply in time; indeterminate.
            ValueEncodeError, ValueTooLarge: an argument that cannot be sent.
            NotRunningError, ReentrantCallError, ForkedProcessError
        """
        takes, _ = checked(command, arguments)
        wait = self._timeout
        if takes.timeout is not None:
            if "timeout" not in arguments and wait is not None:
                arguments["timeout"] = wait
            wait = arguments.get("timeout", takes.timeout.default)
            wait = None if wait is None else wait + _REPLY_SECONDS
        number = next(self._numbers)
        reply = self._channel.call(number, encode_request(number, command, arguments), wait)
        if reply.error is not None:
            reply.error.operation = command
            raise reply.error
        return reply.result

    def events(self, topics: Iterable[str] = ("event.",), timeout: float | None = 10.0) -> ControlEvents:
        """Return the events whose topic begins with one of `topics`, from now on. Blocks until the stream has begun.

        `timeout` is for that. Raises as ``call`` does.
        """
        told = self.call("subscribe")
        endpoint = told.get("endpoint") if isinstance(told, dict) else None
        if not isinstance(endpoint, str):
            raise ControlError("unsupported", "this agent tells no events")
        return ControlEvents(endpoint, tuple(topics), timeout)

    def close(self) -> None:
        """Give up calls that are under way, and close. Idempotent, any thread."""
        self._channel.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ControlClient of {self._endpoint}>"
