"""What a process of a handler runs: one request at a time, bytes in, bytes out, until its agent lets go of it.

Started by ``processes.py`` as a fresh interpreter, which imports the function
by its name. ``multiprocessing`` would run the agent's main program once more
in each process, and with it everything that is not below
``if __name__ == "__main__"``: the agent too.
"""

from __future__ import annotations

import importlib
import operator
import os
import select
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, cast

from ..._wire.frames import Status
from ..._wire.values import Codecs, decode_packed, encode_value
from ...exceptions import ValueTooLarge
from ...types import Request
from ..data.errors import told

__all__ = ["main", "named"]

_GRACE_SECONDS = 1.0
"""For what a process does when its agent lets go of it."""


def named(where: str) -> Any:
    """Return what stands at ``module:qualname``; imports the module.

    Raises:
        ImportError, AttributeError, and whatever the module raises.
    """
    module, _, path = where.partition(":")
    return operator.attrgetter(path)(importlib.import_module(module))


def main(descriptor: int) -> None:
    """Serve until the other end of the socket `descriptor` is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal's Ctrl-C, which is for the agent to act upon
    threading.Thread(target=_end_with_agent, args=(descriptor,), daemon=True).start()
    with Connection(descriptor) as agent, suppress(EOFError, OSError):  # it has let go of us
        serve(agent, agent.recv_bytes())


def _end_with_agent(descriptor: int) -> None:
    """End this process soon after its agent is gone, whatever it computes."""
    poll = select.poll()
    poll.register(descriptor, 0)  # what cannot be left out: the other end was closed
    poll.poll()
    threading.Event().wait(_GRACE_SECONDS)  # who computes nothing ends by itself, in order
    os._exit(0)


def serve(agent: Connection, setup: bytes) -> None:
    """Answer requests: a head and a value for each; then the answer, which begins with its status.

    Args:
        setup: where the function is, the codecs that values need beside the builtin ones, and ``max_value``.
    """
    where, kinds, limit = cast(list[Any], decode_packed(setup))
    codecs, failed, function = Codecs(), b"", None
    try:
        for kind, name, encode, decode in kinds:
            codecs.register(named(kind), name, named(encode), named(decode))
        function = named(where)
    except BaseException as error:
        failed = _raised(error)
    while True:
        name, sender, left = cast(list[Any], decode_packed(agent.recv_bytes()))
        packed = agent.recv_bytes()
        agent.send_bytes(failed or _answer(function, name, packed, sender, left, codecs, limit))
        with suppress(Exception):
            sys.stdout.flush()


def _answer(
    function: Any, name: str, packed: bytes, sender: str, left: float | None, codecs: Codecs, limit: int
) -> bytes:
    try:
        result = function(Request(name, decode_packed(packed, codecs), sender, left))
        return bytes((Status.OK,)) + encode_value(result, codecs, limit=limit).pack()
    except ValueTooLarge:
        return bytes((Status.TOO_LARGE,))
    except BaseException as error:  # sys.exit() too
        return _raised(error)


def _raised(error: BaseException) -> bytes:
    return bytes((Status.RAISED,)) + encode_value([*told(error), told(error, True)[1]]).pack()
