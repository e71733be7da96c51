"""Data planes in processes that are interrupted, forked, killed, restarted, or just end."""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from mycorrizal import (
    DataConfig,
    ForkedProcessError,
    MycorrizalError,
    NotRunningError,
    OperationTimeout,
    PeerUnreachable,
    RemoteError,
)
from mycorrizal.dataplane import DataPlane

from .conftest import until
from .planes import KEY, SECONDS, Script, Task, mesh, pythons, run_script, spawn, together

# -- Ctrl-C ---------------------------------------------------------------------------------

_INTERRUPTED = """
    peer, port = sys.argv[0], int(hear())
    plane = DataPlane("child", key=KEY, peers={{"parent": ("127.0.0.1", port)}})
    {setup}
    say(plane.port)
    while True:
        try:
            say("waits")
            {call}
            say("returned")
        except KeyboardInterrupt:
            say(time.monotonic())
        except StopIteration:
            break
        if hear() == "stop":
            break
    say(plane.request("parent", "echo", "still works"))
    plane.send("parent", "and this")
    say(plane.receive(10).value)
    plane.close()
    say("closed")
"""

_CALLS = {
    "receive": ("", "plane.receive()"),
    "iterate": ("", "next(plane.messages())"),
    "request": ("", 'plane.request("parent", "hang", timeout=None)'),
    "request all": ("", 'plane.request_all(["parent"], "hang", timeout=None)'),
    "large request": ("", 'plane.request("parent", "hang", bytes(8 << 20), timeout=None)'),
    "future": ("", 'plane.request_async("parent", "hang", timeout=None).result()'),
    "send": ("for n in range(8): plane.send_async('parent', n)", 'plane.send("parent", bytes(1000), timeout=None)'),
    "stream read": ('stream = plane.open_stream("parent", "quiet")', "stream.read(1)"),
    "stream write": ('stream = plane.open_stream("parent", "quiet")', "stream.write(bytes(64 << 20))"),
}


def load(plane: DataPlane) -> int:
    """Return how many requests its handlers have, or will have."""
    found = plane.metrics()
    return found["handlers.busy"] + found["handlers.queued"]


@pytest.mark.parametrize("name", _CALLS)
def test_ctrl_c_ends_a_blocking_call_at_once_and_hurts_nothing(name: str) -> None:
    setup, call = _CALLS[name]
    release = threading.Event()
    with (
        spawn(_INTERRUPTED.format(setup=setup, call=call)) as child,
        mesh("parent", config=DataConfig(inbox_messages=4)) as (parent,),
    ):
        parent.on_request("echo")(lambda request: request.value)
        parent.on_request("hang")(lambda request: release.wait(20))
        parent.on_stream("quiet")(lambda stream: release.wait(20))
        child.tell(parent.port)
        parent.add_peer("child", ("127.0.0.1", int(child.read())))
        late = []
        for round_ in range(3):
            assert child.read() == "waits"
            if "request" in name or name == "future":
                until(lambda want=round_ + 1: load(parent) >= want)
            elif name == "send":
                until(lambda: parent.metrics()["inbox.messages"] == 4)
            time.sleep(0.05)  # until it really waits, which it cannot say
            began = time.monotonic()
            child.interrupt()
            late.append(float(child.read()) - began)
            child.tell("stop" if round_ == 2 else "again")
        release.set()
        assert statistics.median(late) < 0.1, late
        if name == "send":
            drained = Task(lambda: [parent.receive(10).value for _ in range(4)])
            drained.result()
        assert child.read() == "still works"
        found = [parent.receive(10).value]
        while found[-1] != "and this":
            found.append(parent.receive(10).value)
        # Withdrawn messages do not come, or came before; those that nobody took back do, in order.
        assert found[:-1] == ([4, 5, 6, 7] if name == "send" else [])
        parent.send("child", "to the child")
        assert child.read() == "to the child"
        assert child.read() == "closed"
        assert child.process.wait(10) == 0
        assert parent.metrics().get("offences") is None


def test_signal_handlers_run_while_a_call_waits() -> None:
    with spawn("""
        plane = DataPlane("child", key=KEY)
        plane.on_request("echo")(lambda request: request.value)
        signal.signal(signal.SIGUSR1, lambda *_: say(plane.request("child", "echo", "from the signal handler")))
        say("waits")
        try:
            plane.receive(0.5)
        except OperationTimeout:
            say("still waited")
        plane.close()
    """) as child:
        assert child.read() == "waits"
        time.sleep(0.05)
        child.process.send_signal(10)
        assert child.read() == "from the signal handler"
        assert child.read() == "still waited"


# -- fork -------------------------------------------------------------------------------------


def in_child(plane: object, port: int, results: Any) -> None:
    """What a forked child finds."""
    assert isinstance(plane, DataPlane)
    found: list[object] = []
    calls = (
        lambda: plane.request("b", "echo", 1), lambda: plane.send("b", 1), lambda: plane.receive(0),
        lambda: plane.send_async("b", 1), lambda: plane.request_async("b", "echo"), lambda: plane.peers(),
        lambda: plane.add_peer("x", ("127.0.0.1", 1)), lambda: plane.on_request("x")(lambda request: 1),
        lambda: list(plane.messages()),
    )  # fmt: skip
    for call in calls:
        try:
            call()
            found.append("passed")
        except ForkedProcessError:
            found.append("refused")
    plane.metrics()
    plane.close()
    with DataPlane("child", key=KEY, peers={"b": ("127.0.0.1", port)}) as own:
        found.append(own.request("b", "echo", "from the child"))
    results.put(found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_is_refused_and_the_parent_goes_on() -> None:
    with mesh("a", "b") as (a, b):
        b.on_request("echo")(lambda request: request.value)
        assert a.request("b", "echo", 1) == 1
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        child = context.Process(target=in_child, args=(a, b.port, results))
        child.start()
        found = results.get(timeout=20)
        child.join(20)
        assert found == ["refused"] * 9 + ["from the child"]
        assert child.exitcode == 0
        assert a.request("b", "echo", 2) == 2
        assert a.peers()[0].connections == 1
        results.close()


# -- the end ------------------------------------------------------------------------------------


def test_close_ends_50_calls_within_2_seconds_each_with_a_clear_error() -> None:
    release = threading.Event()
    with mesh("a", "b", config=DataConfig(inbox_messages=1)) as (a, b):
        b.on_request("hang")(lambda request: release.wait(20))
        tasks = [Task(a.request, "b", "hang", timeout=None) for _ in range(20)]
        tasks += [Task(a.send, "b", number, timeout=None) for number in range(11)]
        tasks += [Task(a.receive) for _ in range(10)]
        futures = [a.request_async("b", "hang", timeout=None) for _ in range(10)]
        until(lambda: a.peers()[0].calls == 30 and sum(task.is_alive() for task in tasks) == 40)
        until(lambda: b.metrics()["inbox.messages"] == 1)
        began = time.monotonic()
        a.close()
        errors = [task.error() for task in tasks] + [future.exception(10) for future in futures]
        took = time.monotonic() - began
        release.set()
        assert took < 2
        ended = [error for error in errors if error is not None]
        assert len(ended) == 50, "one send got through"
        assert all(type(error) is NotRunningError and "closed" in str(error) for error in ended), set(map(repr, ended))
        address = b.address
        calls = (
            lambda: a.request("b", "hang"), lambda: a.send("b", 1), a.receive, a.peers,
            lambda: a.add_peer("c", address),
        )  # fmt: skip
        for call in calls:
            with pytest.raises(NotRunningError, match="closed"):
                call()
        a.close()
        assert "closed" in repr(a)


def test_the_peer_of_a_closing_node_hears_of_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy machine may stop this process for longer than handlers are given by default.
    monkeypatch.setattr("mycorrizal.dataplane._GRACE_SECONDS", SECONDS)
    with mesh("a", "b") as (a, b):
        started = threading.Event()
        finish = threading.Event()

        @b.on_request("slow")
        def slow(request: object) -> str:
            started.set()
            assert finish.wait(20)
            return "done all the same"

        running = Task(a.request, "b", "slow", timeout=None)
        assert started.wait(10)
        closing = Task(b.close, timeout=SECONDS)
        core = b._core
        assert core is not None
        until(lambda: core.machine.closing)
        late = Task(a.request, "b", "slow", timeout=5)
        finish.set()
        assert isinstance(late.error(), PeerUnreachable)
        assert running.result() == "done all the same"  # a handler that runs may finish
        closing.result()
        began = time.monotonic()
        with pytest.raises(PeerUnreachable):
            a.request("b", "slow", timeout=10)
        assert time.monotonic() - began < 3


def test_close_does_not_wait_long_for_a_handler_that_hangs() -> None:
    release = threading.Event()
    with mesh("a", "b") as (a, b):
        b.on_request("hang")(lambda request: release.wait(30))
        task = Task(a.request, "b", "hang", timeout=None)
        until(lambda: b.metrics()["handlers.busy"] == 1)
        began = time.monotonic()
        closing = Task(b.close)
        error = task.error()
        assert time.monotonic() - began < 2, "the caller hears of it after the grace, whatever the handler does"
        assert isinstance(error, PeerUnreachable)
        assert error.indeterminate
        release.set()
        closing.result()


def test_close_inside_a_handler_a_callback_and_from_many_threads() -> None:
    with mesh("a", "b", "c", "d") as (a, b, c, d):
        closed = threading.Event()

        @b.on_request("close")
        def close(request: object) -> None:
            b.close()
            closed.set()

        began = time.monotonic()
        error = Task(a.request, "b", "close", timeout=10).error()
        assert closed.wait(10)
        assert isinstance(error, PeerUnreachable) and error.indeterminate
        assert time.monotonic() - began < 3
        with pytest.raises(NotRunningError):
            b.send("a", 1)
        done = threading.Event()
        c.on_request("echo")(lambda request: request.value)


        def end(future: object) -> None:
            a.close()
            done.set()

        a.request_async("c", "echo").add_done_callback(end)
        assert done.wait(10)
        together(8, lambda number: d.close())
        for plane in (a, b, d):
            assert plane._core is not None and not plane._core.loop.service.alive
        c.send("c", "c lives")


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).parent.parent.name)
@pytest.mark.parametrize("ending", ["started.wait()", "sys.exit(0)", "del keep"])
def test_interpreter_ends_though_nobody_closed(ending: str, python: str) -> None:
    """Handlers that run keep it for 3 s at most."""
    began = time.monotonic()
    code, _, errors = run_script(
        f"""
        warnings.simplefilter("ignore", ResourceWarning)
        ending = "{ending}"
        started = threading.Event()
        keep = [DataPlane("a", key=KEY), DataPlane("b", key=KEY)]
        keep[0].add_peer("b", keep[1].address)
        @keep[1].on_request("sleep")
        def sleep(request):
            started.set()
            time.sleep(60 if "wait" in ending else 0)
        def ask():
            try:
                keep[0].request("b", "sleep", timeout=None)
            except MycorrizalError:
                pass
        threading.Thread(target=lambda: list(keep[1].messages()), daemon=True).start()
        threading.Thread(target=ask, daemon=True).start()
        calls = [keep[0].request_async("b", "sleep", timeout=None) for _ in range(20)]
        keep[0].send("b", 1)
        {ending}
        """,
        python=python,
    )
    assert (code, errors) == (0, "")
    assert time.monotonic() - began < 12


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).parent.parent.name)
def test_unhandled_exception_is_the_only_trace(python: str) -> None:
    code, _, errors = run_script(
        """
        keep = DataPlane("a", key=KEY)
        raise KeyError("user's own")
        """,
        python=python,
    )
    assert code == 1
    assert errors.count("Traceback") == 1


def test_dropped_plane_warns_and_stops() -> None:
    def running() -> int:
        return sum(thread.name.startswith("mycorrizal-") for thread in threading.enumerate())

    before = running()
    plane = DataPlane("a", key=KEY)
    port = plane.port
    plane.on_request("port")(lambda request: port)
    assert plane.request("a", "port") == port
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del plane
        gc.collect()
    assert [(w.category, "unclosed" in str(w.message), "close()" in str(w.message)) for w in caught] == [
        (ResourceWarning, True, True)
    ]
    until(lambda: running() <= before)
    with DataPlane("b", key=KEY, port=port):
        pass


# -- SIGKILL -------------------------------------------------------------------------------------

_VICTIM = """
    plane = DataPlane("victim", key=KEY, port=int(hear()))
    plane.on_request("hang")(lambda request: time.sleep(60))
    plane.on_request("pid")(lambda request: os.getpid())
    say(plane.port)
    for message in plane.messages():
        say("got", message.value)
"""


def victim(child: Script, port: int = 0) -> int:
    """Let the child listen; return its port."""
    return int(child.ask(port))


def test_killed_peer_ends_100_requests_and_its_successor_is_reached() -> None:
    config = DataConfig(silence_timeout=1.5, keepalive_interval=0.4)
    with mesh("a", config=config) as (a,), spawn(_VICTIM) as first, spawn(_VICTIM) as second:
        port = victim(first)
        a.add_peer("victim", ("127.0.0.1", port))
        assert a.request("victim", "pid") == first.process.pid
        a.send("victim", 1)
        assert first.read() == "got 1"
        tasks = [Task(a.request, "victim", "hang", timeout=8) for _ in range(90)]
        futures = [a.request_async("victim", "hang", timeout=8) for _ in range(10)]
        until(lambda: a.peers()[0].calls == 100)
        time.sleep(0.1)
        began = time.monotonic()
        first.kill()
        errors = [task.error() for task in tasks] + [future.exception(20) for future in futures]
        took = time.monotonic() - began
        assert took < 2.5, "silence_timeout, or the ICMP that says nobody listens any more"
        for error in errors:
            assert isinstance(error, (PeerUnreachable, OperationTimeout)), error
            assert error.indeterminate and error.node == "victim"
        with pytest.raises(PeerUnreachable) as refused:
            a.request("victim", "pid", timeout=8)
        assert not refused.value.indeterminate
        with pytest.raises(PeerUnreachable):
            a.send("victim", 2, timeout=8)
        assert victim(second, port) == port
        until(lambda: Task(a.request, "victim", "pid", timeout=5).error() is None)
        assert a.request("victim", "pid") == second.process.pid
        for number in range(3, 6):
            a.send("victim", number)
        assert [second.read() for _ in range(3)] == ["got 3", "got 4", "got 5"]
        assert a.peers()[0].connections == 1


def test_killed_and_restarted_before_anyone_noticed() -> None:
    """The new process knows nothing of the connection: it says so (a stateless reset), and calls go on."""
    with mesh("a", config=DataConfig(silence_timeout=20)) as (a,), spawn(_VICTIM) as first, spawn(_VICTIM) as second:
        port = victim(first)
        a.add_peer("victim", ("127.0.0.1", port))
        assert a.request("victim", "pid") == first.process.pid
        a.send("victim", "old")
        time.sleep(0.3)  # until both have acknowledged everything: nothing of theirs may find the port closed
        first.kill()
        assert victim(second, port) == port
        began = time.monotonic()
        with pytest.raises(PeerUnreachable) as caught:
            a.send("victim", "lost", timeout=15)
        assert time.monotonic() - began < 5
        assert caught.value.indeterminate  # the old process may have had it: nobody can tell
        assert a.metrics()["quic.resets_received"] >= 1  # what came while QUIC was imported is answered one by one
        a.send("victim", "new", timeout=10)
        assert second.read() == "got new"
        assert a.request("victim", "pid") == second.process.pid


_MEMBER = """
    from mycorrizal._wire.meta import port_meta
    name, seed = hear().split()
    class Meta(BaseDelegate):
        def node_meta(self, limit): return port_meta(plane.port)
    plane = DataPlane(name, key=KEY)
    plane.on_request("hang")(lambda request: time.sleep(60))
    plane.on_request("echo")(lambda request: request.value)
    fast = dict(probe_interval=0.2, probe_timeout=0.1, gossip_interval=0.05, suspicion_max_timeout_mult=2)
    member = Memberlist(Config.local(name=name, bind_addr="127.0.0.1", bind_port=0, **fast), delegate=Meta())
    plane.follow(member)
    if seed != "-": member.join([seed])
    say(member.config.bind_port)
    if hear() == "leave":
        member.leave()
        say("left")
        hear()
"""


@pytest.mark.parametrize("end", ["kill", "leave"])
def test_who_is_declared_dead_or_leaves_ends_calls_at_once(end: str) -> None:
    """Nothing of QUIC would notice here: the silence timeout is far away."""
    with (
        spawn(_MEMBER) as first,
        spawn(_MEMBER) as second,
        spawn("""
            from mycorrizal._wire.meta import port_meta
            class Meta(BaseDelegate):
                def node_meta(self, limit): return port_meta(plane.port)
            plane = DataPlane("a", key=KEY, config=DataConfig(silence_timeout=60, keepalive_interval=50))
            fast = dict(probe_interval=0.2, probe_timeout=0.1, gossip_interval=0.05, suspicion_max_timeout_mult=2)
            member = Memberlist(Config.local(name="a", bind_addr="127.0.0.1", bind_port=0, **fast), delegate=Meta())
            plane.follow(member)
            events = member.events()
            member.join([hear()])
            while len(member.members()) < 3: events.get(10)
            say(plane.request("b", "echo", "followed"))
            calls = [plane.request_async("b", "hang", timeout=None) for _ in range(100)]
            while plane.peers()[0].calls < 100: time.sleep(0.01)
            time.sleep(0.1)
            events = member.events()
            say("calls")
            event = events.get(20)
            told = time.monotonic()
            found = {(type(call.exception(10)).__name__, call.exception(0).indeterminate) for call in calls}
            say(event.kind, f"{time.monotonic() - told:.3f}", found)
            try:
                plane.request("b", "echo", timeout=5)
            except PeerUnreachable as error:
                say("nobody", error.indeterminate, " ago" in str(error))
            say(plane.request("c", "echo", "others go on"))
            plane.close(); member.shutdown()
        """) as a,
    ):
        seed = f"127.0.0.1:{first.ask('b -')}"
        second.ask(f"c {seed}")
        a.tell(seed)
        assert a.read() == "followed"
        assert a.read() == "calls"
        if end == "kill":
            first.kill()
        else:
            assert first.ask("leave") == "left"
        kind, seconds, *errors = a.words()
        assert kind == ("fail" if end == "kill" else "leave")
        assert " ".join(errors) == "{('PeerUnreachable', True)}"
        assert float(seconds) < 0.5
        assert a.read() == "nobody False True"
        assert a.read() == "others go on"
        assert a.process.wait(10) == 0, a.errors()


def test_errors_of_calls_are_of_the_librarys_tree() -> None:
    with mesh("a") as (a,):
        a.add_peer("nobody", ("127.0.0.1", 9))
        began = time.monotonic()
        for call in (lambda: a.request("nobody", "x"), lambda: a.send("nobody", 1), lambda: a.request("unknown", "x")):
            with pytest.raises(PeerUnreachable) as caught:
                call()
            assert isinstance(caught.value, MycorrizalError) and not isinstance(caught.value, RemoteError)
            assert not caught.value.indeterminate
            assert caught.value.hint
        assert time.monotonic() - began < 3


FORGOTTEN = """
import threading, time
from mycorrizal import Agent, Config, DataPlane, OperationTimeout

plane = DataPlane("a")
plane.on_request("slow")(lambda request: time.sleep(100))
calls = [
    plane.receive, lambda: plane.receive(timeout=100), lambda: list(plane.messages()),
    lambda: plane.request("a", "slow", timeout=None),
    lambda: plane.request_async("a", "slow", timeout=None).result(),
    lambda: plane.request("a", "slow", None, timeout=100),
]

def again():
    while True:
        try:
            plane.receive(timeout=0.01)
        except OperationTimeout:
            pass

for call in [*calls, again]:
    threading.Thread(target=call, daemon=True).start()
time.sleep(0.3)
"""


def test_a_daemon_thread_that_waits_prints_nothing_when_the_program_ends() -> None:
    began = time.monotonic()
    assert run_script(FORGOTTEN) == (0, "", "")
    assert time.monotonic() - began < 15
