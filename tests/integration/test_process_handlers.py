"""Handlers in processes: fresh interpreters that are kept, bytes in and bytes out, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

from mycorrizal import ConfigError, DataConfig, DataPlane, OperationTimeout, RemoteError, ValueTooLarge
from tests.integration import tasks
from tests.keys import key_of

from .conftest import ROOT, until

PATIENCE = 60.0
Ask = Callable[..., Any]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Return a function that asks a handler in processes, ``anything`` in one if no other is given."""
    key = key_of("processes")
    made: dict[str, Any] = {}
    config = DataConfig(handlers=2)
    with (
        DataPlane("alice", key=key, codecs=tasks.CODECS) as alice,
        DataPlane("bob", key=key, config=config, codecs=tasks.CODECS) as bob,
    ):
        alice.add_peer("bob", bob.address)

        def asked(value: Any, handler: Any = tasks.anything, processes: int = 1, timeout: float = PATIENCE) -> Any:
            if made.get("of") != (handler, processes):
                made["of"] = handler, processes
                bob.on_request("work", processes=processes)(handler)
            return alice.request("bob", "work", value, timeout=timeout)

        asked.bob, asked.alice = bob, alice  # type: ignore[attr-defined]
        yield asked


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_values_go_there_and_back(ask: Ask) -> None:
    process, value = ask({"a": [1, None]})
    assert process != os.getpid() and value == {"a": [1, None]}
    assert ask("again")[0] == process  # it is kept
    array = numpy.arange(200_000.0).reshape(2, -1)
    found = ask(array)
    assert found.dtype == array.dtype and (found == array + 1).all()
    assert ask(b"x" * (1 << 20))[1] == b"x" * (1 << 20)
    point = ask(tasks.Point(1, 2))
    assert (point.x, point.y) == (2, 1)
    assert 0 < ask("left", timeout=9.0) <= 9.0
    assert ask("interrupt") == "went on"  # Ctrl-C in the agent's terminal is the agent's


def test_errors_are_those_of_any_handler(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RemoteError) as caught:
        ask("raise")
    assert (caught.value.type, caught.value.text, caught.value.node) == ("ValueError", "unlucky\nin two lines", "bob")
    with pytest.raises(RemoteError) as caught:
        ask("exit")
    assert (caught.value.type, caught.value.text) == ("SystemExit", "3")
    with pytest.raises(RemoteError) as caught:
        ask("unsendable")
    assert caught.value.type == "ValueEncodeError"
    metrics = ask.bob.metrics()  # type: ignore[attr-defined]
    assert metrics["requests.raised"] == 3 and "processes.died" not in metrics
    assert "bob: handler work of requests raised ValueError\n" in caplog.text and "in anything\n" in caplog.text


def test_tracebacks_travel_if_the_worker_says_so() -> None:
    key = key_of("processes")
    config = DataConfig(tracebacks=True, max_value=1 << 16)
    with DataPlane("alice", key=key) as alice, DataPlane("bob", key=key, config=config) as bob:
        alice.add_peer("bob", bob.address)
        bob.on_request("work", processes=1)(tasks.anything)
        with pytest.raises(RemoteError) as caught:
            alice.request("bob", "work", "raise", timeout=PATIENCE)
        assert "tasks.py" in caught.value.text and "in anything" in caught.value.text
        with pytest.raises(ValueTooLarge):
            alice.request("bob", "work", "large", timeout=PATIENCE)


def test_a_process_that_dies_is_an_error_and_is_replaced(ask: Ask) -> None:
    first = ask(0)[0]
    for how, text in (("die", "ended with code 3"), ("kill", "killed by signal 9")):
        with pytest.raises(RemoteError, match=text) as caught:
            ask(how)
        assert caught.value.type == "ProcessDied" and caught.value.node == "bob"
    assert ask(0)[0] != first
    metrics = ask.bob.metrics()  # type: ignore[attr-defined]
    assert metrics["processes.died"] == 2 and metrics["processes.started"] == 3
    os.kill(ask(0)[0], signal.SIGKILL)  # while it is free: who asks next may hear of it, the one after does not
    try:
        ask(0)
    except RemoteError as error:
        assert error.type == "ProcessDied"
    assert ask(0)[1] == 0


def test_several_run_at_a_time_and_more_than_there_are_threads(ask: Ask, tmp_path: Path) -> None:
    ask(0, processes=4)  # of two threads, which lend their places
    alice = ask.alice  # type: ignore[attr-defined]
    paths = [tmp_path / str(number) for number in range(4)]
    hanging = [alice.request_async("bob", "work", ["hang", str(path)], timeout=None) for path in paths]
    until(lambda: all(path.exists() and path.read_text() for path in paths), PATIENCE)
    running = {int(path.read_text()) for path in paths}
    assert len(running) == 4
    with pytest.raises(OperationTimeout):
        ask(0, processes=4, timeout=0.3)  # none is free
    assert ask.bob.metrics()["processes.started"] == 4  # type: ignore[attr-defined]
    ask.bob.close()  # type: ignore[attr-defined]
    assert all(isinstance(future.exception(PATIENCE), Exception) for future in hanging)
    until(lambda: not any(map(alive, running)), PATIENCE)


def test_the_next_handler_of_the_name_replaces_it(ask: Ask) -> None:
    process = ask(0)[0]
    assert ask(7, handler=tasks.whoami)[1:] == ["alice", "work", 7]
    until(lambda: not alive(process), PATIENCE)
    ask.bob.on_request("work")(lambda request: "here")  # type: ignore[attr-defined]
    assert ask.alice.request("bob", "work", timeout=PATIENCE) == "here"  # type: ignore[attr-defined]


def test_what_cannot_be_imported_is_refused_or_told(ask: Ask) -> None:
    on_request = ask.bob.on_request("work", processes=1)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="is a lambda"):
        on_request(lambda request: 1)
    with pytest.raises(ConfigError, match="made within a function"):
        on_request(tasks.not_a_function_of_one(tasks))  # type: ignore[arg-type]
    main = tasks.square
    for number in (0, 5000, True, "2"):
        with pytest.raises(ConfigError, match="processes"):
            ask.bob.on_request("work", processes=number)(main)  # type: ignore[attr-defined]

    def gone(request: Any) -> None: ...

    gone.__qualname__, gone.__module__ = "gone", tasks.__name__  # as of a function that its module has not
    with pytest.raises(RemoteError, match="has no attribute 'gone'") as caught:
        ask(0, handler=gone)
    assert caught.value.type == "AttributeError"


def test_main_is_refused_and_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text("def twice(request):\n    return 2 * request.value\n")
    (tmp_path / "program.py").write_text(
        "import mycorrizal, my_tasks\n"
        "print('begins', flush=True)\n"  # once: nobody runs the program again, though it has no guard
        "def mine(request): ...\n"
        "with mycorrizal.DataPlane('a') as a:\n"
        "    try:\n"
        "        a.on_request('mine', processes=1)(mine)\n"
        "    except mycorrizal.ConfigError as error:\n"
        "        print(error)\n"
        "    a.on_request('twice', processes=2)(my_tasks.twice)\n"
        "    print(a.request('a', 'twice', 21, timeout=60))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=PATIENCE, check=True)
    begins, refused, found = done.stdout.splitlines()
    assert (begins, found, done.stderr) == ("begins", "42", "")
    assert "mine is of the main program" in refused and "put it into a module of its own" in refused


def test_processes_end_with_an_agent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, mycorrizal\nfrom tests.integration import tasks\n"
        "with mycorrizal.DataPlane('a') as a:\n"
        "    a.on_request('work', processes=2)(tasks.anything)\n"
        "    print(a.request('a', 'work', 0, timeout=60)[0], flush=True)\n"
        "    a.request('a', 'work', ['hang', sys.argv[1]], timeout=None)\n"
    )
    path = tmp_path / "process"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, env=env) as agent:
        assert agent.stdout is not None
        one = int(agent.stdout.readline())
        until(lambda: path.exists() and path.read_text(), PATIENCE)
        agent.kill()
    busy = int(path.read_text())
    until(lambda: not alive(one) and not alive(busy), PATIENCE)
