"""Tasks over members, with real agents: what holds when workers come, go, are busy, freeze or die."""

from __future__ import annotations

import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, as_completed, wait
from pathlib import Path
from typing import Any, ClassVar

import pytest

from campaigns import sweep
from mycorrizal import (
    Agent,
    ConfigError,
    DataConfig,
    NodeState,
    NotRunningError,
    OperationCancelled,
    OperationTimeout,
    PeerUnreachable,
    QueueFull,
    ReentrantCallError,
    RemoteError,
    Request,
    ValueEncodeError,
)
from tests.integration import tasks
from tests.needs import lacks

from .agents import QUICK, Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import ROOT, until

PATIENCE = 60.0


def square(request: Request) -> int:
    if request.value == 13:
        raise ValueError("unlucky")
    return int(request.value) ** 2


class Gate:
    """A handler that waits until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun: list[Any] = []

    def __call__(self, request: Request) -> Any:
        self.begun.append(request.value)
        assert self.open.wait(PATIENCE)
        return request.value


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


@pytest.fixture
def alice(agents: Make) -> Agent:  # noqa: F811
    """The caller; bob and carol have the handler, dave has not."""
    alice = agents("alice", config=QUICK, control=False)
    for name in ("bob", "carol"):
        agents(name, config=QUICK, control=False, handlers={"square": square})
    agents("dave", config=QUICK, control=False)
    alice.wait_for(4)
    return alice


# -- results --------------------------------------------------------------------------------------


def test_results_come_in_order_or_as_they_come(alice: Agent) -> None:
    with alice.executor("square") as executor:
        assert isinstance(executor, Executor)
        assert list(executor.map(range(100, 600))) == [number**2 for number in range(100, 600)]
        found = list(executor.map(range(100, 600), ordered=False))
        assert sorted(found) == [number**2 for number in range(100, 600)]
        futures = [executor.submit(number) for number in range(20, 40)]
        assert {future.result(PATIENCE) for future in as_completed(futures)} == {n**2 for n in range(20, 40)}
        assert not wait(futures, return_when=FIRST_COMPLETED).not_done
        text = repr(executor)
        assert "at 2 workers" in text and "carol" in executor._repr_html_()
    assert repr(executor) == "<TaskExecutor 'square', shut down>"
    with pytest.raises(NotRunningError, match="after shutdown"):
        executor.submit(1)


def test_a_task_that_raises_says_where_it_was(alice: Agent) -> None:
    with alice.executor("square", ["carol"]) as executor:
        with pytest.raises(RemoteError, match="carol: square: ValueError: unlucky") as caught:
            executor.submit(13).result(PATIENCE)
        assert (caught.value.node, caught.value.operation, caught.value.type) == ("carol", "executor", "ValueError")
        results = executor.map([3, 13, 4])
        assert next(results) == 9
        with pytest.raises(RemoteError):
            next(results)
        with pytest.raises(ValueEncodeError):
            executor.submit(object())
    assert not executor._room


def test_only_those_that_are_named_are_asked_and_this_agent_too(agents: Make) -> None:  # noqa: F811
    alice = agents("alice", config=QUICK, control=False, handlers={"square": square})
    with alice.executor("square", ["alice"]) as executor:
        assert list(executor.map([1, 2, 3])) == [1, 4, 9]
    executor = alice.executor("square", ["nobody"])
    future = executor.submit(1)
    until(lambda: "no member is nobody" in repr(executor))
    assert future.cancel()
    for wrong in ({"name": ""}, {"name": "mycorrizal.history"}, {"retries": -1}, {"queue": 0}, {"timeout": 0}):
        with pytest.raises(ConfigError):
            alice.executor(**{"name": "square", **wrong})  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        alice.executor("square", [])
    with pytest.raises(TypeError):
        alice.executor("square", "bob")


def test_values_are_taken_as_results_are_read(alice: Agent) -> None:
    taken: list[int] = []

    def values() -> Iterator[int]:
        for number in itertools.count(100):
            taken.append(number)
            yield number

    with alice.executor("square") as executor:
        results = executor.map(values(), buffersize=8)
        for number in range(50):
            assert next(results) == (number + 100) ** 2
            assert len(taken) <= number + 1 + 8
        results.close()
        assert not executor._dispatcher.machine.waiting
        with pytest.raises(ConfigError):
            executor.map([], buffersize=0)


def test_the_time_of_a_map_and_of_a_task(agents: Make, gate: Gate) -> None:  # noqa: F811
    alice = agents("alice", config=QUICK, control=False)
    agents("bob", config=QUICK, control=False, handlers={"gate": gate})
    alice.wait_for(2)
    with alice.executor("gate") as executor:
        results = executor.map([1, 2], timeout=0.2)
        with pytest.raises(OperationTimeout, match="0.2 s of the whole map"):
            next(results)
        assert not executor._room  # nobody waits for the rest
    with alice.executor("gate", timeout=0.2) as executor:
        with pytest.raises(OperationTimeout) as caught:
            executor.submit(3).result(PATIENCE)
        assert caught.value.node == "bob" and caught.value.indeterminate


# -- room -----------------------------------------------------------------------------------------


def test_a_worker_that_is_busy_loses_nothing(agents: Make) -> None:  # noqa: F811
    alice, eve = (agents(name, config=QUICK, control=False) for name in ("alice", "eve"))
    small = DataConfig(handlers=1, handler_queue=0)
    agents("bob", config=QUICK, control=False, data_config=small, handlers={"square": square})
    alice.wait_for(3)
    eve.wait_for(3)
    with alice.executor("square") as mine, eve.executor("square") as hers:
        both = [*mine.map(range(100, 300)), *hers.map(range(100, 300))]
        both += [future.result(PATIENCE) for future in [one.submit(n) for n in range(20, 60) for one in (mine, hers)]]
    assert sum(both) == 2 * (sum(n**2 for n in range(100, 300)) + sum(n**2 for n in range(20, 60)))


def test_submit_waits_for_room(agents: Make, gate: Gate) -> None:  # noqa: F811
    alice = agents("alice", config=QUICK, control=False)
    agents("bob", config=QUICK, control=False, handlers={"gate": gate})
    alice.wait_for(2)
    other = alice.executor("nothing")
    waits = other.submit(1)
    with alice.executor("gate", queue=3) as executor:
        futures = [executor.submit(number) for number in range(3)]
        more: list[Any] = []
        thread = threading.Thread(target=lambda: more.append(executor.submit(3)))
        thread.start()
        told: list[BaseException] = []

        def again(future: Any) -> None:
            for call in (lambda: [executor.submit(n) for n in range(9)], lambda: executor.map([1]), other.shutdown):
                try:
                    call()
                except Exception as error:
                    told.append(error)

        futures[0].add_done_callback(again)
        assert not more
        gate.open.set()
        thread.join(PATIENCE)
        assert more[0].result(PATIENCE) == 3
        until(lambda: len(told) == 3)
    assert [type(error) for error in told] == [QueueFull, ReentrantCallError, ReentrantCallError]
    assert waits.cancel()


def test_what_is_cancelled_is_over_at_once(agents: Make, gate: Gate) -> None:  # noqa: F811
    alice = agents("alice", config=QUICK, control=False)
    config = DataConfig(handlers=1)
    bob = agents("bob", config=QUICK, control=False, data_config=config, handlers={"gate": gate})
    alice.wait_for(2)
    executor = alice.executor("gate")
    running, waiting = executor.submit(1), executor.submit(2)
    until(lambda: gate.begun == [1])
    assert running.running() and not waiting.running()
    executor.shutdown(wait=False, cancel_futures=True)
    assert waiting.cancelled() and not running.done()
    with pytest.raises(OperationCancelled):
        waiting.result(0)
    assert running.cancel()
    until(lambda: bob.metrics().get("requests.cancelled") == 1)
    gate.open.set()
    assert gate.begun == [1]


# -- workers come and go --------------------------------------------------------------------------


def test_who_comes_later_takes_part(agents: Make) -> None:  # noqa: F811
    alice = agents("alice", config=QUICK, control=False)
    executor = alice.executor("square")
    future = executor.submit(5)
    until(lambda: "nobody else is a member" in repr(executor))
    assert "1 tasks for 'square' wait" in alice.health().problems[-1]
    bob = agents("bob", config=QUICK, control=False)
    until(lambda: "no handler of that name at bob" in repr(executor))
    assert alice.metrics()["tasks.waiting"] == 1
    bob.on_request("square")(square)
    assert future.result(PATIENCE) == 25
    executor.shutdown()


def test_patience_has_an_end(agents: Make) -> None:  # noqa: F811
    alice = agents("alice", config=QUICK, control=False)
    with alice.executor("square", patience=0.2) as executor:
        with pytest.raises(PeerUnreachable, match="no member had a handler 'square'") as caught:
            executor.submit(5).result(PATIENCE)
        assert not caught.value.indeterminate


def test_every_future_ends_with_the_agent(agents: Make, gate: Gate) -> None:  # noqa: F811
    alice = agents("alice", config=QUICK, control=False)
    agents("bob", config=QUICK, control=False, data_config=DataConfig(handlers=1), handlers={"gate": gate})
    alice.wait_for(2)
    executor, lonely = alice.executor("gate"), alice.executor("nothing")
    futures = [executor.submit(number) for number in range(5)] + [lonely.submit(1)]
    until(lambda: bool(gate.begun))
    alice.close()
    errors = [future.exception(PATIENCE) for future in futures]
    assert all(isinstance(error, NotRunningError) for error in errors), errors
    assert errors[0].indeterminate and not errors[-1].indeterminate  # type: ignore[union-attr]
    executor.shutdown()
    lonely.shutdown()
    with pytest.raises(NotRunningError):
        alice.executor("gate")


def test_what_may_not_run_twice_says_that_it_may_have_run(agents: Make, gate: Gate) -> None:  # noqa: F811
    alice = agents("alice", config=QUICK, control=False)
    workers = [agents(name, config=QUICK, control=False, handlers={"gate": gate}) for name in ("bob", "carol")]
    alice.wait_for(3)
    with alice.executor("gate", idempotent=False) as once, alice.executor("gate") as often:
        for executor in (once, often):
            while "at 2 workers" not in repr(executor):
                gate.open.set()
                executor.submit(0).result(PATIENCE)
                gate.open.clear()
        gate.begun.clear()
        futures = [once.submit(1), often.submit(2), once.submit(3), often.submit(4)]
        until(lambda: len(gate.begun) == 4)
        workers[0].close(timeout=0.1)
        until(lambda: any(future.done() for future in futures))
        gate.open.set()
        assert [futures[1].result(PATIENCE), futures[3].result(PATIENCE)] == [2, 4]
        lost = [error for error in (futures[0].exception(PATIENCE), futures[2].exception(PATIENCE)) if error]
    assert lost and all(isinstance(error, PeerUnreachable) and error.indeterminate for error in lost)
    assert all(error.node == "bob" for error in lost)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_sweep_survives_a_kill_and_a_frozen_worker() -> None:
    found = sweep.run(tasks=300, seconds=0.02, away=0.1, stopped=2.0)
    assert found["wrong"] == [], found
    assert found["counters"]["tasks.answered"] >= 300


# -- the rest -------------------------------------------------------------------------------------


def test_ctrl_c_ends_a_sweep(tmp_path: Path, runtime_dir: str) -> None:  # noqa: F811
    program = (
        "import threading\n"
        "from mycorrizal import Agent\n"
        "stop = threading.Event()\n"
        "def slow(request):\n"
        "    print('begun\\n', end='', flush=True)\n"
        "    stop.wait(600)\n"
        "with Agent('alice', control=False) as alice, Agent('bob', control=False, handlers={'slow': slow}):\n"
        "    try:\n"
        "        with alice.executor('slow') as executor:\n"
        "            list(executor.map(range(1000)))\n"
        "    except KeyboardInterrupt:\n"
        "        print(executor, flush=True)\n"
        "        stop.set()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=env) as sweep:
        assert sweep.stdout is not None and sweep.stdout.readline() == "begun\n"
        sweep.send_signal(signal.SIGINT)
        assert "<TaskExecutor 'slow', shut down>" in sweep.stdout.read()
    assert sweep.returncode == 0


class FakeBar:
    """What tqdm would draw."""

    made: ClassVar[list[FakeBar]] = []

    def __init__(self, **options: Any) -> None:
        self.total, self.done, self.closed = options["total"], 0, 0
        self.made.append(self)

    def update(self, count: int) -> None:
        self.done += count

    def refresh(self) -> None: ...

    def close(self) -> None:
        self.closed += 1


def test_progress_is_shown(alice: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=FakeBar))
    with alice.executor("square", progress=True) as executor:
        assert len(list(executor.map(range(100, 120)))) == 20
        assert FakeBar.made[-1].total == 20
        executor.submit(3).result(PATIENCE)
    assert (FakeBar.made[-1].total, FakeBar.made[-1].done) == (21, 21) and FakeBar.made[-1].closed
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ConfigError, match=r"mycorrizal\[progress\]"):
        alice.executor("square", progress=True)


def test_the_bar_is_drawn(alice: Agent, capfd: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("tqdm") is None:
        lacks("tqdm is not installed; run pip install '.[progress]'")
    with alice.executor("square", progress=True) as executor:
        assert len(list(executor.map(range(100, 120)))) == 20
    assert "20/20" in capfd.readouterr().err


def test_a_worker_of_the_command_line_serves_a_module(agents: Make) -> None:  # noqa: F811
    alice = agents("alice", cluster="working", config=QUICK, control=False, codecs=tasks.CODECS)
    command = [sys.executable, "-m", "mycorrizal", "worker", "tests.integration.tasks", "--name", "wanda"]
    command += ["--cluster", "working"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "wanda in cluster working serves square, whoami\n"
            with alice.executor("whoami") as executor:
                found = list(executor.map(range(20)))
            assert [one[1:] for one in found] == [["alice", "whoami", number] for number in range(20)]
            assert len({process for process, *_ in found} - {worker.pid}) == 2
            with alice.executor("square") as executor:
                assert executor.submit(4).result(PATIENCE) == 16
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(PATIENCE) == 0
        finally:
            worker.kill()
    until(lambda: alice.members().names == ["alice"])
    assert alice.members(all=True)[-1].state == NodeState.LEFT
