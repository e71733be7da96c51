"""A handler that runs in processes: ``on_request("score", processes=4)``.

Each process is a fresh interpreter (``child.py``), started when the handler is
registered and kept. A handler's thread takes one that is free, sends it the
request's value as it came, and gets the encoded answer: a value is neither
decoded here nor pickled anywhere. A process that dies is an error for the one
who asked, and is replaced when the next request comes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, cast

from ..._data.ports import Served
from ..._wire.frames import Status
from ..._wire.values import Codecs, Encoded, decode_packed, encode_value
from ...config import check_function
from ...exceptions import ConfigError, RemoteError
from ..data.core import Core
from ..data.errors import told
from ..threads.deadline import Deadline
from ..threads.shortage import as_ours
from ..threads.waits import wait_sliced

__all__ = ["PROCESSES_MAX", "ProcessHandler", "where_is"]

PROCESSES_MAX = 1024
_BEGIN = "import sys; at = int(sys.argv[1]); sys.path[:] = sys.argv[2:]; del sys.argv[1:]; "
_BEGIN += "from mycorrizal._runtime.tasks.child import main; main(at)"
END_SECONDS = 0.5
"""How long a process has for its own end, until it is killed."""


def where_is(thing: object, what: str) -> str:
    """Return ``module:qualname`` of a function or class, by which another process finds it.

    Raises:
        ConfigError: it has no such name, or one that is another thing elsewhere.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    hint = "put it into a module of its own, at its top, and import it from there"
    if not isinstance(module, str) or not isinstance(name, str):
        raise ConfigError("processes", f"{what} {thing!r:.80} has no name to be imported by", hint=hint)
    if module == "__main__":
        text = f"{what} {name} is of the main program, which another process does not import"
        raise ConfigError("processes", text, hint=hint)
    if "<" in name:
        kind = "a lambda" if name.endswith("<lambda>") else "made within a function"
        raise ConfigError("processes", f"{what} {name} of {module} is {kind}, and cannot be imported", hint=hint)
    return f"{module}:{name}"


class _Process:
    """One process, and the socket to it. Raises OSError if it cannot be started."""

    def __init__(self, setup: bytes) -> None:
        self._socket, its = socket.socketpair()
        with its:
            try:
                command = [sys.executable, "-c", _BEGIN, str(its.fileno()), *sys.path]
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(its.fileno(),))
                self._connection = Connection(os.dup(self._socket.fileno()))
            except BaseException:
                self._socket.close()
                raise
        with suppress(OSError):  # it is dead already: who asks it hears of that
            self._connection.send_bytes(setup)

    def ask(self, head: bytes, packed: bytes) -> bytes:
        """Return its answer. Raises OSError or EOFError if it died. Any thread, one at a time."""
        self._connection.send_bytes(head)
        self._connection.send_bytes(packed)
        return self._connection.recv_bytes()

    def let_go(self) -> None:
        """Have it end, and whoever asks it hear of that. Does not wait; any thread."""
        with suppress(OSError):  # it is dead, or was let go of before
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> int:
        """Return how it ended; it is killed if it does not soon. Who has it."""
        self.let_go()
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close descriptors; in a forked child they are copies, and the process is the parent's."""
        self._connection.close()
        self._socket.close()


class ProcessHandler:
    """The processes of one handler. Any thread, but for ``answer``.

    Args:
        core: of the data plane; the processes end with it.
        name: of the handler.
        function: of one ``Request``; imported by its name in each process.

    Raises:
        ConfigError: the function, or a codec, cannot be imported elsewhere.
        ResourcesExhausted, OSError: no process can be started.
    """

    def __init__(self, core: Core, name: str, function: Callable[..., Any], processes: int) -> None:
        check_function("handler", function)
        if not isinstance(processes, int) or isinstance(processes, bool) or not 1 <= processes <= PROCESSES_MAX:
            raise ConfigError("processes", f"{processes!r} is not in 1..{PROCESSES_MAX}")
        self.slots = processes
        self._core = core
        self._name = name
        where = [where_is(function, "the handler"), _where_codecs(core.codecs), core.config.max_value]
        self._setup = encode_value(where).pack()
        self._changed = threading.Condition()
        self._free: list[_Process] = []
        self._all: set[_Process] = set()
        self._starting = 0
        self._retired = self._stopped = False
        core.at_end.append(self._at_end)
        try:
            for _ in range(processes):
                self._put_back(self._start())
        except BaseException:
            self.retire()
            raise

    def answer(self, request: Served, left: float | None) -> tuple[Status, Encoded | None]:
        """Return the answer to a request. A handler's thread, which lends its place meanwhile."""
        deadline = Deadline(left)
        with self._core.pool.waiting():
            try:
                packed = request.value.pack()
                process = self._take(request, deadline)
            except Exception as error:  # no memory, or nothing to start one with
                return self._core.error_answer(*told(error))
            if process is None:
                return Status.EXPIRED, None
            try:
                answer = process.ask(encode_value([request.name, request.sender, deadline.remaining()]).pack(), packed)
            except BaseException as error:
                return self._lost(process, error)
        self._put_back(process)
        return self._read(answer)

    def retire(self) -> None:
        """Another handler has its place: end what is free now, and the rest when it has answered. Any thread."""
        with self._changed:
            self._retired = True
            free, self._free = self._free, []
        for process in free:
            process.let_go()
        for process in free:
            self._ended(process)

    # -- inside --------------------------------------------------------------------------------

    def _start(self) -> _Process:
        with as_ours(f"no process for the handler {self._name!r}", node=self._core.name, operation="on_request"):
            process = _Process(self._setup)
        self._core.count("processes.started")
        with self._changed:
            self._all.add(process)
        return process

    def _take(self, request: Served, deadline: Deadline) -> _Process | None:
        """Return a process that is free, or a new one in place of one that died; None if there is none in time."""
        with self._changed:
            while not (self._free or len(self._all) + self._starting < self.slots):
                wait: Callable[[float], bool] = lambda s: self._changed.wait(None if s < 0 else s)  # noqa: E731
                if self._stopped or not wait_sliced(wait, deadline, locked=True) or request.cancelled:
                    self._changed.notify()  # it may have been meant for another
                    return None
            if self._free:
                return self._free.pop()
            self._starting += 1
        try:
            return self._start()
        finally:
            with self._changed:
                self._starting -= 1

    def _put_back(self, process: _Process) -> None:
        with self._changed:
            if not (self._retired or self._stopped):
                self._free.append(process)
                self._changed.notify()
                return
        self._ended(process)

    def _ended(self, process: _Process) -> int:
        """End a process that nobody asks any more; return how it did."""
        code = process.end()
        with self._changed:
            self._all.discard(process)
            self._changed.notify()
            if self._retired and not self._all:
                with suppress(ValueError):
                    self._core.at_end.remove(self._at_end)
        return code

    def _lost(self, process: _Process, error: BaseException) -> tuple[Status, Encoded | None]:
        """A process has died, or cannot be told from one that has."""
        code = self._ended(process)
        if self._stopped:
            return Status.CLOSING, None
        if not isinstance(error, OSError | EOFError):
            return self._core.error_answer(*told(error))
        self._core.count("processes.died")
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        text = f"the process that ran the handler {how}; another one takes its place"
        self._core.raised(self._name, "handler %s of requests: %s", self._name, text)
        return self._core.error_answer("ProcessDied", text)

    def _read(self, answer: bytes) -> tuple[Status, Encoded | None]:
        status = Status(answer[0])
        if status is Status.OK:
            packed = answer[1:]
            return status, Encoded(packed, (), b"", len(packed))
        if status is not Status.RAISED:
            return status, None
        kind, text, trace = cast(list[str], decode_packed(answer[1:]))
        error = RemoteError(f"{kind}: {text}", node=self._core.name)
        error.add_note(trace)  # the log shows it as that of any handler
        self._core.raised(self._name, "handler %s of requests raised %s", self._name, kind, exc_info=error)
        return self._core.error_answer(kind, trace if self._core.config.tracebacks else text)

    def _at_end(self) -> None:
        """The data plane has ended, or is the parent's."""
        if self._core.guard.forked:
            for process in self._all:
                process.abandon()
            return
        with self._changed:
            self._stopped = True
            free, self._free = self._free, []
            self._changed.notify_all()
        for process in list(self._all):
            process.let_go()  # who has one ends it
        for process in free:
            self._ended(process)


def _where_codecs(codecs: Codecs) -> list[list[str]]:
    what = "the codec"
    return [
        [where_is(kind, "the type"), codec.name, where_is(codec.encode, what), where_is(codec.decode, what)]
        for kind, codec in codecs.by_type.items()
    ]
