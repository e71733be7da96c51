"""What an agent has of its data plane: messages, requests, streams, files. The calls are ``DataPlane``'s own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from .._endings import named
from .._runtime.threads.deadline import Seconds
from .._runtime.threads.futures import PlaneFuture
from ..dataplane import DataPlane, Results
from ..types import Message, Peers, ReceivedFile
from .tasks import TaskSettings, make_executor

if TYPE_CHECKING:
    from .._runtime.data.core import Handler
    from .._runtime.data.files import Folder, Source
    from .._runtime.data.streams import Stream, StreamHandler
    from .._runtime.data.tickets import Progress
    from ..executor import TaskExecutor
    from .assembly import Assembly

__all__ = ["Talking"]

_H = TypeVar("_H", bound="Handler")
_S = TypeVar("_S", bound="StreamHandler")


class Talking:
    """The data plane's calls, by the names of members."""

    @property
    def _running(self) -> Assembly:
        raise AssertionError

    @property
    def _data(self) -> DataPlane:
        return self._running.data

    def send(self, node: str, value: Any, *, timeout: float | None = 10.0, progress: Progress | None = None) -> None:
        """Send a message; when this returns, `node`'s inbox has it. Blocks. See ``DataPlane.send``."""
        self._data.send(node, value, timeout=timeout, progress=progress)

    def send_async(self, node: str, value: Any) -> PlaneFuture[None]:
        """Like ``send``, but return a future at once. See ``DataPlane.send_async``."""
        return self._data.send_async(node, value)

    def receive(self, timeout: float | None = None, *, progress: Progress | None = None) -> Message:
        """Return the oldest message out of the inbox, or wait for one. Blocks. See ``DataPlane.receive``."""
        return self._data.receive(timeout, progress=progress)

    def messages(self) -> Iterator[Message]:
        """Iterate over messages as they come, until ``close``."""
        return self._data.messages()

    def request(
        self, node: str, name: str, value: Any = None, *, timeout: float | None = 10.0,
        progress: Progress | None = None,
    ) -> Any:  # fmt: skip
        """Ask `node`'s handler `name`, and return its answer. Blocks. See ``DataPlane.request``."""
        return self._data.request(node, name, value, timeout=timeout, progress=progress)

    def request_async(
        self, node: str, name: str, value: Any = None, *, timeout: float | None = 10.0
    ) -> PlaneFuture[Any]:
        """Like ``request``, but return a future at once. See ``DataPlane.request_async``."""
        return self._data.request_async(node, name, value, timeout=timeout)

    @named("request_all")
    def request_all(
        self, name: str, value: Any = None, nodes: Iterable[str] | None = None, *, timeout: float | None = 10.0
    ) -> Results:
        """Ask several members at once, all other agents if `nodes` is None. Blocks. See ``DataPlane.request_all``."""
        if nodes is None:
            nodes = self._running.others()
        return self._data.request_all(nodes, name, value, timeout=timeout)

    def on_request(self, name: str, *, processes: int | None = None) -> Callable[[_H], _H]:
        """Register a handler: ``@agent.on_request("score")`` above a function of one ``Request``; it may run in
        `processes`. See ``DataPlane.on_request``.
        """
        return self._data.on_request(name, processes=processes)

    @named("executor")
    def executor(
        self,
        name: str,
        nodes: Iterable[str] | None = None,
        *,
        idempotent: bool = True,
        timeout: Seconds | None = None,
        retries: int = 3,
        patience: Seconds | None = None,
        queue: int = 10_000,
        progress: bool = False,
    ) -> TaskExecutor:
        """Return a ``concurrent.futures.Executor`` over the handlers `name` of other members. Does not block.

        Each member gets as many tasks at a time as it says that it can run, and the least busy one the next. Who
        joins, or registers the handler later, takes part. A task whose worker dies goes to another one: it may run
        twice, and has one result (docs/sweeps.md). The executor holds nothing once its tasks have ended.

        Args:
            nodes: names of members that may be asked, this one too; all others if None.
            idempotent: False: a task that may have run is not given to another worker, but fails with an error that
                is ``indeterminate``.
            timeout: seconds that a task may take from when it is sent; then it fails with ``OperationTimeout``.
            retries: of a task whose worker died under it.
            patience: seconds that tasks wait while no member has the handler, until they fail with
                ``PeerUnreachable``; None: for ever. ``health()`` and the executor's ``repr`` tell of it meanwhile.
            queue: tasks that may be open; ``submit`` waits when there are so many.
            progress: show a bar of tqdm's, in a terminal or a notebook (extra ``progress``).

        Raises:
            ConfigError: a setting is wrong, or tqdm is not installed.
            NotRunningError, ServiceCrashed, ForkedProcessError
        """
        parts = self._running
        parts.data._running("executor")
        given = TaskSettings(name, nodes, idempotent, timeout, retries, patience, queue)
        return make_executor(parts.tasks, given, progress)

    def open_stream(self, node: str, name: str, timeout: float | None = 10.0) -> Stream:
        """Open a stream to `node`'s ``on_stream`` handler `name`. Blocks. See ``DataPlane.open_stream``."""
        return self._data.open_stream(node, name, timeout)

    def on_stream(self, name: str) -> Callable[[_S], _S]:
        """Register a handler: ``@agent.on_stream("log")`` above a function of one ``Stream``."""
        return self._data.on_stream(name)

    def send_file(
        self, node: str, file: Source, *, name: str | None = None, timeout: float | None = None,
        progress: Progress | None = None,
    ) -> int:  # fmt: skip
        """Send a file; return its size once `node` has stored it. Blocks. See ``DataPlane.send_file``."""
        return self._data.send_file(node, file, name=name, timeout=timeout, progress=progress)

    def receive_file(
        self, directory: Folder, timeout: float | None = None, progress: Progress | None = None,
        *, limit: int | None = None,
    ) -> ReceivedFile:  # fmt: skip
        """Wait for a file and store it in `directory`. Blocks. See ``DataPlane.receive_file``."""
        return self._data.receive_file(directory, timeout, progress, limit=limit)

    def reload_certificates(self) -> None:
        """Read the three files of ``certificates=`` again. Blocks. See ``DataPlane.reload_certificates``."""
        self._data.reload_certificates()

    def peers(self) -> Peers:
        """Return what is known of each peer: connection, round trip, open work. See ``DataPlane.peers``."""
        return self._data.peers()
