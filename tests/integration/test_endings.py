"""Every public call that is under way when something ends it, on real sockets and threads."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from mycorrizal import DataConfig, DataPlane, Keyring, MycorrizalError
from mycorrizal._endings import TABLE, Ending
from mycorrizal._runtime.threads import waits
from tests.keys import key_of

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import Start, until
from .planes import KEY, Task, introduce, run_script, spawn

_CONFIG = DataConfig(inbox_messages=1, silence_timeout=3.0, keepalive_interval=0.5)


class Planes:
    """Two planes, of which bob's handlers hang and whose inbox is full, and the calls that are under way."""

    def __init__(self) -> None:
        self.keyring = Keyring((), KEY)
        self.alice = DataPlane("alice", key=self.keyring, config=_CONFIG)
        self.bob = DataPlane("bob", key=KEY, config=_CONFIG)
        introduce(self.alice, self.bob)
        self.go = threading.Event()
        self.running = threading.Semaphore(0)
        for name in ("hang", "lurk"):
            self.bob.on_request(name)(self._hang)
        self.bob.on_stream("hang")(self._hang)
        self.alice.send("bob", "fills the inbox")
        self.futures: dict[str, Any] = {}

    def _hang(self, what: object) -> None:
        self.running.release()
        self.go.wait(20)

    def begin(self) -> dict[str, Callable[[], Any]]:
        """Begin every call, and wait until each is at the other side; return how to get each one's error."""
        alice = self.alice
        self.stream = alice.open_stream("bob", "hang")
        self.stream.write(b"x")
        tasks = {
            "request": Task(alice.request, "bob", "hang", timeout=None),
            "request_all": Task(lambda: alice.request_all(["bob"], "lurk", timeout=None).errors["bob"]),
            "send": Task(alice.send, "bob", 1, timeout=None),
            "read": Task(self.stream.read, 1),
            "send_file": Task(alice.send_file, "bob", io.BytesIO(b"file"), timeout=None),
        }
        self.futures = {
            "send_async": alice.send_async("bob", 2),
            "request_async": alice.request_async("bob", "hang", timeout=None),
        }
        for _ in range(4):
            assert self.running.acquire(timeout=20)
        until(lambda: self.bob.metrics()["files.waiting"] == 1)
        core = self.alice._started
        until(lambda: len(core.ask(lambda: core.machine.peer("bob").outgoing.unaccepted(), "test")) == 2)
        threading.Event().wait(0.3)
        found: dict[str, Callable[[], Any]] = {name: _task_ended(task) for name, task in tasks.items()}
        return {**found, **{name: _future_ended(future) for name, future in self.futures.items()}}

    def close(self) -> None:
        self.go.set()
        self.alice.close()
        self.bob.close()


def _task_ended(task: Task) -> Callable[[], Any]:
    return lambda: task.error() or task.result(0)


def _future_ended(future: Any) -> Callable[[], Any]:
    return lambda: future.exception(20)


@pytest.fixture
def planes() -> Iterator[Planes]:
    made = Planes()
    yield made
    made.close()


def expect(error: Any, ending: Ending, operation: str, node: str | None = "bob", *, doubt: bool = True) -> None:
    row = TABLE[ending]
    assert type(error) is row.kind, error
    assert (error.ending, error.indeterminate, error.retriable) == (ending.name, doubt, row.retriable), error
    assert (error.node, error.operation) == (node, operation), error


def crash(plane: DataPlane) -> None:
    def broken(now: float) -> None:
        raise ZeroDivisionError("planted")

    plane._started.loop.submit(broken)


@pytest.mark.parametrize("ending", ["CLOSED", "CRASHED", "DOWN", "KEY_REMOVED"])
def test_everything_that_is_under_way(planes: Planes, ending: str) -> None:
    calls = planes.begin()
    alice = planes.alice
    if ending == "CLOSED":
        alice.close()
    elif ending == "CRASHED":
        crash(alice)
    elif ending == "DOWN":
        alice.remove_peer("bob")
    else:
        new = key_of("new")
        planes.keyring.add(new)
        planes.keyring.use(new)
        planes.keyring.remove(KEY)
    for operation, ended in calls.items():
        if ending == "KEY_REMOVED" and operation in ("send", "send_async"):
            continue  # goes on: see tests/_data/test_peer_endings.py
        expect(ended(), Ending[ending], operation)
    if ending in ("CLOSED", "CRASHED"):
        late_calls: dict[str, Callable[[], Any]] = {
            "request": lambda: alice.request("bob", "hang"),
            "send": lambda: alice.send("bob", 1),
            "request_async": lambda: alice.request_async("bob", "hang"),
            "send_async": lambda: alice.send_async("bob", 1),
            "open_stream": lambda: alice.open_stream("bob", "hang"),
        }
        for operation, late in late_calls.items():
            with pytest.raises(MycorrizalError) as caught:
                late()
            expect(caught.value, Ending[ending], operation, doubt=False)


def test_the_peer_closes(planes: Planes) -> None:
    calls = planes.begin()
    planes.bob.close()
    for operation in ("request", "request_all", "request_async", "read", "send_file"):
        expect(calls[operation](), Ending.PEER_CLOSED, operation)
    for operation in ("send", "send_async"):
        expect(calls[operation](), Ending.LOST, operation)


def test_cancelled_and_too_late(planes: Planes) -> None:
    planes.begin()
    for operation, future in planes.futures.items():
        assert future.cancel()
        for ask in (future.result, future.exception):
            with pytest.raises(CancelledError) as cancelled:
                ask()
            expect(cancelled.value, Ending.CANCELLED, operation)
    alice = planes.alice
    expect(Task(alice.send, "bob", 1, timeout=0.3).error(), Ending.TIMEOUT, "send")
    expect(Task(alice.request, "bob", "hang", timeout=0.3).error(), Ending.TIMEOUT, "request")
    expect(alice.request_async("bob", "hang", timeout=0.3).exception(20), Ending.TIMEOUT, "request_async")
    expect(alice.request_all(["bob"], "hang", timeout=0.3).errors["bob"], Ending.TIMEOUT, "request_all")
    expect(Task(alice.send_file, "bob", io.BytesIO(b"f"), timeout=0.3).error(), Ending.TIMEOUT, "send_file")


def test_what_was_never_sent() -> None:
    """A socket that says nothing has the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        peers = {"nobody": ("127.0.0.1", int(silent.getsockname()[1]))}
        with DataPlane("carol", key=KEY, peers=peers, config=DataConfig(connect_timeout=30.0)) as carol:
            cancelled = {
                "request_async": carol.request_async("nobody", "x"),
                "send_async": carol.send_async("nobody", 1),
            }
            for operation, future in cancelled.items():
                assert future.cancel()
                with pytest.raises(CancelledError) as caught:
                    future.result()
                expect(caught.value, Ending.CANCELLED, operation, "nobody", doubt=False)
            late = Task(carol.send, "nobody", 1, timeout=0.2).error()
            expect(late, Ending.TIMEOUT, "send", "nobody", doubt=False)
            late = Task(carol.open_stream, "nobody", "x", timeout=0.2).error()
            expect(late, Ending.TIMEOUT, "open_stream", "nobody", doubt=False)
            waiting = Task(carol.request, "nobody", "x", timeout=None)
            until(lambda: carol.peers()[0].calls == 1)
        expect(waiting.error(), Ending.CLOSED, "request", "nobody", doubt=False)


def test_a_part_of_a_file_has_no_effect(planes: Planes) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            return bytes(1 << 16)

    sending = Task(planes.alice.send_file, "bob", Endless(), name="x", timeout=None)
    until(lambda: planes.bob.metrics()["files.waiting"] == 1)
    threading.Event().wait(0.2)
    planes.alice.close()
    expect(sending.error(), Ending.CLOSED, "send_file", doubt=False)


_SERVER = """
    plane = DataPlane("bob", key=KEY)
    @plane.on_request("hang")
    def hang(request):
        say("runs")
        time.sleep(60)
    say(plane.port)
    hear()
"""


def test_the_peer_is_killed() -> None:
    with spawn(_SERVER) as bob, DataPlane("alice", key=KEY, config=_CONFIG) as alice:
        alice.add_peer("bob", ("127.0.0.1", int(bob.read(90))))
        call = Task(alice.request, "bob", "hang", timeout=None)
        assert bob.read() == "runs"
        bob.kill()
        expect(call.error(), Ending.LOST, "request")


def test_the_end_of_the_interpreter() -> None:
    """The exit of a process is a close of its planes: a thread that waits hears of it, and what may have happened."""
    code, out, errors = run_script("""
        import threading
        bob = DataPlane("bob", key=KEY)
        runs = threading.Event()
        @bob.on_request("hang")
        def hang(request):
            runs.set()
            time.sleep(1)
        alice = DataPlane("alice", key=KEY, peers={"bob": bob.address})
        def wait():
            try:
                alice.request("bob", "hang", timeout=None)
            except MycorrizalError as error:
                say(type(error).__name__, error.ending, error.node, error.operation, error.indeterminate)
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        runs.wait(10)
        from mycorrizal._runtime.threads import lifecycle
        lifecycle._at_exit()
        thread.join(10)
    """, seconds=90)
    assert code == 0, errors
    kind, ending, *more = out.split()
    assert more == ["bob", "request", "True"]
    assert (kind, ending) in (("NotRunningError", "CLOSED"), ("PeerUnreachable", "PEER_CLOSED"))


def test_an_operation_of_a_cache(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    cache = alice.cache("x")
    held = cache.lock("job")
    waiting = Task(cache.lock, "job", timeout=None)
    threading.Event().wait(0.3)
    alice.close()
    expect(waiting.error(), Ending.CLOSED, "lock", None)
    with pytest.raises(MycorrizalError) as caught:
        cache.set("key", 1)
    assert caught.value.ending == "CLOSED" and not caught.value.indeterminate
    del held


def test_an_agents_calls_when_gossip_had_begun_with_them(start: Start) -> None:
    a = start("a", gossip_interval=0, probe_interval=0)  # so that nothing is ever gossiped out
    start("b", seed=a)
    under_way = Task(a.update_node, timeout=None)
    until(lambda: a._membership is not None and a._membership.gossip._operations)
    a.shutdown()
    error = under_way.error()
    assert isinstance(error, TABLE[Ending.CLOSED].kind)
    assert error.ending == "CLOSED" and error.indeterminate and not error.retriable
    late = Task(a.update_node).error()
    assert isinstance(late, TABLE[Ending.CLOSED].kind) and not late.indeterminate


def test_the_end_of_the_program_ends_the_waits_of_its_threads_as_a_close(planes: Planes) -> None:
    """The interpreter waits for threads that are no daemons before it closes anything."""
    found: dict[str, BaseException] = {}

    def wait(operation: str, call: Callable[[], object]) -> None:
        try:
            call()
        except MycorrizalError as error:
            found[operation] = error

    calls: dict[str, Callable[[], object]] = {
        "request": lambda: planes.alice.request("bob", "hang", timeout=None),
        "send": lambda: planes.alice.send("bob", 1, timeout=None),
    }
    threads = [threading.Thread(target=wait, args=item) for item in calls.items()]
    for thread in threads:
        thread.start()
    try:
        assert planes.running.acquire(timeout=20)
        core = planes.alice._started
        until(lambda: len(core.ask(lambda: core.machine.peer("bob").outgoing.unaccepted(), "test")) == 1)
        waits._ending.begin()
        for thread in threads:
            thread.join(30)
    finally:
        waits._ending._forget()
    for operation in calls:
        expect(found[operation], Ending.CLOSED, operation)
