"""Agents in a real Jupyter kernel: cells that are run again, interrupted, awaited; kernels that restart or die.

One kernel for all tests; each has an agent of this process beside it that sees what the others see.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mycorrizal import (
    Agent,
    AgentEvent,
    BaseEventDelegate,
    BindError,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    NameInUse,
    Node,
    OperationTimeout,
    RemoteError,
)

from .agents import meeting_place
from .kernels import Kernel
from .planes import Task, spawn

pytestmark = pytest.mark.filterwarnings("ignore")  # what other people's packages say is not our matter

SETUP = """
    %xmode Minimal
    import asyncio, gc, os, signal, sys, threading, time, warnings, weakref
    import mycorrizal
    from mycorrizal import *
    def ours(): return sorted(t.name for t in threading.enumerate() if t.name.startswith('mycorrizal'))
    def tidy():
        from mycorrizal._agent.notebook import residents
        for known, _ in list(residents._agents.values()):
            if known() is not None: known().close()
        deadline = time.monotonic() + 3
        while ours() and time.monotonic() < deadline: time.sleep(0.01)
        return ours()
"""


@pytest.fixture(scope="module")
def one_kernel() -> Iterator[Kernel]:
    with meeting_place():
        kernel = Kernel()
        yield kernel
        kernel.end()


@pytest.fixture
def kernel(one_kernel: Kernel) -> Iterator[Kernel]:
    """The kernel; at the end of the test nothing of ours runs in it."""
    assert one_kernel.run(SETUP)[0] == ""
    yield one_kernel
    assert one_kernel.run("tidy()") == ("", "[]")


@pytest.fixture
def beside(one_kernel: Kernel) -> Iterator[Agent]:
    """An agent in this process."""
    with Agent("beside", port=0) as agent:
        yield agent


def value(kernel: Kernel, code: str, **options: Any) -> Any:
    """Run a cell that must not raise; return the value that it shows."""
    error, text = kernel.run(code, **options)
    assert error == "", text
    return eval(text)


def wait(kernel: Kernel, what: str) -> Any:
    """Return what an expression comes to once it is true, at the latest after 30 s."""
    loop = f"until = time.monotonic() + 30\nwhile not ({what}) and time.monotonic() < until: time.sleep(0.05)\n"
    return value(kernel, loop + what)


# -- cells that are run again ------------------------------------------------------------------


def test_a_cell_that_is_run_again_replaces_its_agent(kernel: Kernel, beside: Agent) -> None:
    port, quic = value(kernel, "agent = Agent('alice', port=0); agent.address[1], agent.quic_port")
    beside.wait_for(2, 10)
    cell = f"old = agent; agent = Agent('alice', port={port}, quic_port={quic}); old.closed, agent.closed"
    with beside.events() as news:
        for _ in range(3):
            began = time.monotonic()
            assert value(kernel, cell) == (True, False)
            assert time.monotonic() - began < 3
            assert isinstance(event := news.get(10), MemberLeft) and event.node.name == "alice"
            assert isinstance(event := news.get(10), MemberJoined) and event.node.name == "alice"
        with pytest.raises(OperationTimeout):  # no failure, no second thoughts
            news.get(0.5)
    beside.send("alice", "you are the last")
    assert value(kernel, "agent.receive(5).value") == "you are the last"
    assert kernel.run("old.receive(5)")[0] == "NotRunningError"


def test_a_cell_that_is_run_again_keeps_its_ports_and_tells_of_handlers(kernel: Kernel, beside: Agent) -> None:
    cell = "agent = Agent('alice', handlers={'kept': lambda request: 'kept'}); agent.address[1], agent.quic_port"
    ports = value(kernel, cell)
    handlers = "agent.on_request('lost')(lambda request: 1); agent.on_stream('lost')(lambda stream: None)"
    assert kernel.run(handlers)[0] == ""
    beside.wait_for(2, 30)
    assert beside.request("alice", "lost", timeout=30) == 1
    with beside.events() as news:
        assert value(kernel, cell) == ports
        while not isinstance(news.get(30), MemberJoined):
            pass
    assert beside.request("alice", "kept", timeout=30) == "kept"
    with pytest.raises(RemoteError, match="run that cell too") as caught:
        beside.request("alice", "lost", timeout=30)
    assert "@agent.on_request('lost')" in str(caught.value)
    assert kernel.run(handlers)[0] == ""
    assert beside.request("alice", "lost", timeout=30) == 1


def test_what_is_shown_follows_the_cluster(kernel: Kernel, beside: Agent) -> None:
    watch = """
        from IPython.display import DisplayHandle
        pages, update = [], DisplayHandle.update
        DisplayHandle.update = lambda self, obj: pages.append(obj.data)
        agent = Agent('alice'); agent.wait_for(2, 10)
        agent.show(0.1); agent.show(0.1)
        [name for name in ours() if 'show' in name]
    """
    assert kernel.run(watch)[0] == ""
    assert wait(kernel, "len([name for name in ours() if 'show' in name]) == 1")
    with Agent("carol"):
        assert wait(kernel, "any('carol' in page for page in pages)")
    assert wait(kernel, "'left at' in pages[-1]")
    assert kernel.run("agent.show(0.01)")[0] == "ConfigError"
    end = """
        DisplayHandle.update = update
        agent.close()
        until = time.monotonic() + 30
        while any('show' in name for name in ours()) and time.monotonic() < until: time.sleep(0.05)
    """
    assert kernel.run(end) == ("", "<IPython.core.display.HTML object>")  # the thread has changed the output


def test_default_names_belong_to_cells(kernel: Kernel) -> None:
    first = value(kernel, "one = Agent(); one.name", cell="1")
    assert value(kernel, "two = Agent(); two.name", cell="2") == f"{first}-2"
    # The first cell, edited and run again: its own agent goes, and no other.
    assert value(kernel, "before = one; one = Agent(tags={'run': '2'}); one.name, before.closed", cell="1") == (
        first, True,
    )  # fmt: skip
    assert value(kernel, "two.closed") is False


def test_without_ids_of_cells_their_text_is_what_tells_them_apart(kernel: Kernel) -> None:
    names = [value(kernel, "some = [Agent(), Agent()]; [a.name for a in some]") for _ in range(2)]
    assert names[0] == names[1] and names[0][1] == f"{names[0][0]}-2"
    assert value(kernel, "other = Agent(); other.name") == f"{names[0][0]}-3"
    assert value(kernel, "[a.closed for a in (*some, other)]") == [False] * 3


def test_two_of_a_name_in_one_run_are_a_mistake(kernel: Kernel) -> None:
    cell = "pair = [Agent('alice'), Agent('alice')]"
    assert kernel.run(cell)[0] == kernel.run(cell)[0] == "NameInUse"
    assert value(kernel, "pair = [Agent('alice'), Agent('bob')]; pair[0].wait_for(2, 10).names") == ["alice", "bob"]
    assert value(kernel, "pair = [Agent('alice'), Agent('bob')]; pair[0].wait_for(2, 10).names") == ["alice", "bob"]


def test_whoever_used_the_replaced_agent_ends_cleanly(kernel: Kernel) -> None:
    cell = """
        before = ends, threads
        ends, seen = [], []
        agent = Agent('alice')
        agent.settings.watch('rate', seen.append)
        agent.services.register('api', port=1, check=lambda: True, interval=0.05)
        def reads(what, ends=ends):
            try:
                what()
                ends.append('the end')
            except MycorrizalError as error:
                ends.append(type(error).__name__)
        def iterates(stream, seen=seen):
            for event in stream: seen.append(event)
        jobs = [lambda: iterates(agent.events()), lambda: iterates(agent.messages()), agent.receive,
                lambda: iterates(agent.subscribe()), lambda: iterates(agent.services.watch())]
        threads = [threading.Thread(target=reads, args=(job,)) for job in jobs]
        for thread in threads: thread.start()
        agent.settings['rate'] = 1
        print(len(ours()))
    """
    assert kernel.run("ends, threads = [], []")[0] == ""
    count = value(kernel, cell)
    assert value(kernel, cell) == count  # no thread is left over
    assert value(kernel, "for t in before[1]: t.join(5)\nsorted(before[0])") == ["NotRunningError", *["the end"] * 4]
    assert value(kernel, "agent.close(); [t.join(5) for t in threads]; len(ends)") == 5


def test_a_cell_that_failed_half_way_is_run_again(kernel: Kernel) -> None:
    for _ in range(2):
        assert kernel.run("agent = Agent('alice', port=17946); 1 / 0")[0] == "ZeroDivisionError"
    for wrong, error in (("join=['127.0.0.1:1'], join_timeout=0.3", "JoinError"), ("bind='0.0.0.0'", "ConfigError")):
        for _ in range(2):
            assert kernel.run(f"agent = Agent('alice', port=17946, {wrong})")[0] == error
    assert value(kernel, "agent = Agent('alice', port=17946); agent.members().names") == ["alice"]


def test_an_agent_that_is_dropped_or_kept_by_out(kernel: Kernel) -> None:
    """``del`` ends an agent at once; one that IPython's ``Out`` has lives on, and a new run replaces it."""
    cell = "agent = Agent('alice', port=17946); known = weakref.ref(agent); None"
    assert kernel.run(f"gc.disable()\n{cell}") == ("", "")
    for _ in range(3):
        assert value(kernel, f"del agent; gone = known() is None; {cell}\ngone") is True
    # An agent ends also where warnings are errors; those of a finalizer can only be printed.
    with_errors = "with warnings.catch_warnings(): warnings.simplefilter('error'); del agent"
    error, text = kernel.run(f"gc.enable(); sys.unraisablehook = lambda told: print(told.exc_value)\n{with_errors}")
    assert (error, "unclosed <Agent 'alice'" in text) == ("", True)
    assert kernel.run(cell) == ("", "")
    assert "alice" in kernel.run("agent")[1]
    assert kernel.run("del agent") == ("", "")
    assert value(kernel, "known().closed") is False
    assert value(kernel, "kept = known(); agent = Agent('alice', port=17946); kept.closed") is True
    kernel.run("del kept; Out.clear()")


def test_a_new_agent_waits_until_a_dropped_one_has_ended(one_kernel: Kernel) -> None:
    """Else their ports and sockets would be in its way, now and then."""
    leaving, ended = threading.Event(), threading.Event()

    class Slow(BaseEventDelegate):
        def notify_leave(self, node: Node) -> None:
            leaving.set()
            time.sleep(0.5)
            ended.set()

    agent = Agent("dropped", port=0, event_delegate=Slow())
    with Agent("beside", port=0):
        agent.wait_for(2, 10)
    assert leaving.wait(10)
    with pytest.warns(ResourceWarning, match="unclosed <Agent 'dropped'"):
        del agent
    assert not ended.is_set()
    with Agent("dropped", port=0):
        assert ended.is_set()


def test_another_process_does_not_take_the_name(kernel: Kernel) -> None:
    pid = value(kernel, "agent = Agent('alice'); os.getpid()")
    script = """
        try:
            Agent('alice')
        except NameInUse as error:
            say(error.pid)
    """
    with spawn(script) as other:
        assert other.words() == [str(pid)]
    with pytest.raises(NameInUse, match=str(pid)):
        Agent("alice")
    assert value(kernel, "agent.closed") is False


# -- interrupts ----------------------------------------------------------------------------------


def test_an_interrupted_call_leaves_the_agent_usable(kernel: Kernel, beside: Agent) -> None:
    free = threading.Event()
    beside.on_request("hang")(lambda request: free.wait(20))
    beside.on_request("echo")(lambda request: request.value)
    kernel.run("agent = Agent('alice'); agent.wait_for(2, 10)")
    for call in (
        "agent.receive()",
        "agent.request('beside', 'hang', timeout=None)",
        "agent.wait_for(5, None)",
        "agent.subscribe('epoch').get()",
        "for event in agent.events(): pass",
        "for message in agent.messages(): pass",
        "agent.request_all('hang', timeout=None)",
    ):
        began = time.monotonic()
        assert kernel.interrupted(call)[0] == "KeyboardInterrupt", call
        assert time.monotonic() - began < 2, call
    free.set()
    beside.send("alice", 7)
    assert value(kernel, "agent.receive(5).value, agent.request('beside', 'echo', 1)") == (7, 1)
    assert value(kernel, "news = agent.subscribe('x'); agent.broadcast('x', 3); news.get(5).value") == 3
    assert beside.wait_for(2, 1).names == ["alice", "beside"]


def test_a_start_that_is_interrupted_leaves_nothing_behind(kernel: Kernel) -> None:
    cell = "agent = Agent('alice', port=17946, join=['127.0.0.1:1'], join_timeout=30)"
    assert kernel.interrupted(cell)[0] == "KeyboardInterrupt"
    assert value(kernel, "ours()") == []
    assert value(kernel, "agent = Agent('alice', port=17946); agent.members().names") == ["alice"]


def test_an_interrupted_close_is_finished_by_the_next_run(kernel: Kernel) -> None:
    cell = """
        class Slow(BaseEventDelegate):
            def notify_leave(self, node): left.set(); time.sleep(1.5)
        left = threading.Event()
        agent = Agent('alice', port=17946, event_delegate=Slow())
        with Agent('bob'): agent.wait_for(2, 10)
        left.wait(10)
    """
    for end in ("agent.close()", "agent.__exit__(None, None, None)"):
        assert value(kernel, cell) is True
        assert kernel.interrupted(end)[0] == "KeyboardInterrupt"
        assert value(kernel, "agent = Agent('alice', port=17946); agent.members().names") == ["alice"]


# -- the kernel's own loop -------------------------------------------------------------------------


def test_the_kernels_loop_goes_on_beside_an_agent(kernel: Kernel, beside: Agent) -> None:
    beside.on_request("double")(lambda request: request.value * 2)
    kernel.run("agent = Agent('alice'); agent.wait_for(2, 10); loop = asyncio.get_running_loop()")
    assert value(kernel, "await asyncio.sleep(0.01); asyncio.get_running_loop() is loop") is True
    together = """
        asked = [asyncio.to_thread(agent.request, 'beside', 'double', n) for n in range(10)]
        asked.append(asyncio.wrap_future(agent.request_async('beside', 'double', 10)))
        await asyncio.gather(*asked)
    """
    assert value(kernel, together) == [n * 2 for n in range(11)]
    kernel.run("ticks = []\nasync def tick():\n    while True: ticks.append(1); await asyncio.sleep(0.01)")
    kernel.run("ticking = asyncio.ensure_future(tick())")
    kernel.run("await asyncio.to_thread(lambda: [agent.request('beside', 'double', n) for n in range(50)])")
    assert value(kernel, "ticking.cancel(); len(ticks) > 2") is True


def test_an_agent_answers_while_a_cell_computes(kernel: Kernel, beside: Agent) -> None:
    kernel.run("agent = Agent('alice'); agent.on_request('echo')(lambda request: request.value)")
    beside.wait_for(2, 10)

    def ask() -> list[int]:
        return [beside.request("alice", "echo", n) for n in range(5)]

    asking = Task(ask)
    assert value(kernel, "end = time.monotonic() + 1.5\nwhile time.monotonic() < end: sum(range(1000))\n7") == 7
    assert asking.result() == list(range(5))
    assert asking.seconds < 1.5  # none waited for the cell's end


# -- kernels that end ---------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [False, True], ids=["restart", "SIGKILL"])
def test_a_kernel_that_ends_frees_name_and_ports_within_two_seconds(
    one_kernel: Kernel, beside: Agent, killed: bool, record_property: Any
) -> None:
    one_kernel.run(SETUP)
    # A program that the notebook has started lives on, and must not hold what was the kernel's.
    one_kernel.run("import subprocess; subprocess.Popen(['sleep', '20'], start_new_session=True, pass_fds=())")
    port, quic = value(one_kernel, "agent = Agent('alice', port=0); agent.address[1], agent.quic_port")
    beside.wait_for(2, 10)
    news = beside.events()
    began = time.monotonic()

    def take() -> tuple[float, list[str]]:
        while True:
            try:
                with Agent("alice", port=port, quic_port=quic) as agent:
                    return time.monotonic() - began, agent.wait_for(2, 10).names
            except (BindError, NameInUse):
                assert time.monotonic() - began < 10

    taking = Task(take)
    one_kernel.manager.restart_kernel(now=killed)
    seconds, names = taking.result()
    record_property("seconds", seconds)
    assert seconds < 2
    assert names == ["alice", "beside"]
    one_kernel.client.wait_for_ready(timeout=20)
    events: list[AgentEvent] = []
    while not events or not isinstance(events[-1], MemberLeft):
        events.append(news.get(10))
    assert not any(isinstance(event, MemberFailed) for event in events)  # it was back before that
    assert one_kernel.run(SETUP)[0] == ""
    assert value(one_kernel, "agent = Agent('alice', port=0); agent.wait_for(2, 10).names") == ["alice", "beside"]
    assert value(one_kernel, "tidy()") == []
