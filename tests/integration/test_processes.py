"""Processes that die, freeze, fork or just end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

import pytest

from mycorrizal import ForkedProcessError, MemberFailed, MemberJoined, MemberUpdated

from .conftest import ROOT, Child, Start, names, until

Spawn = Callable[..., Child]


def test_killed_process_is_noticed(start: Start, spawn: Spawn) -> None:
    a = start("a")
    b = start("b", seed=a)
    victim = spawn("victim", a)
    until(lambda: "victim" in names(b))
    stream = b.events()
    victim.process.send_signal(signal.SIGKILL)
    event = stream.get(10)
    assert isinstance(event, MemberFailed)
    assert event.node.name == "victim"
    until(lambda: names(a) == names(b) == {"a", "b"})


def test_leaving_process_is_told_from_a_failed_one(start: Start, spawn: Spawn) -> None:
    a = start("a")
    child = spawn("child", a)
    until(lambda: "child" in names(a))
    stream = a.events()
    assert child.ask("leave") == "left"
    assert stream.get(5).kind == "leave"




@pytest.mark.slow
def test_stopped_process_accuses_nobody_and_comes_back(start: Start, spawn: Spawn) -> None:
    a = start("a")
    b = start("b", seed=a)
    child = spawn("child", a, push_pull_interval=1.0)
    until(lambda: names(a) == names(b) == {"a", "b", "child"})
    stream_a, stream_b = a.events(), b.events()
    child.process.send_signal(signal.SIGSTOP)
    time.sleep(5)  # three times as long as a suspicion may last
    assert names(a) == {"a", "b"}
    child.process.send_signal(signal.SIGCONT)
    until(lambda: names(a) == names(b) == {"a", "b", "child"}, 5)
    time.sleep(1.5)  # what stale timers would do, they would have done by now
    events = child.ask("events").split()
    assert any(event.startswith("stall:") for event in events)
    assert [event for event in events if event.startswith(("fail", "udp_blocked"))] == []
    assert set(child.ask("members").split()) == {"a", "b", "child"}
    for stream in (stream_a, stream_b):
        told = [(event.kind, event.node.name) for event in (stream.get(0) for _ in range(len(stream)))]  # type: ignore[union-attr]
        assert told == [("fail", "child"), ("join", "child")]
    # Its conversations have a whole deadline again.
    before = int(child.ask("metrics push_pulls"))
    until(lambda: int(child.ask("metrics push_pulls")) > before, 20)
    assert int(child.ask("metrics push_pulls_failed")) == 0


@pytest.mark.slow
def test_process_whose_gil_was_held_accuses_nobody(start: Start, spawn: Spawn) -> None:
    # Suspicion lasts longer than the freeze, as in larger clusters: it must not even be noticed as dead.
    # Six seconds of it, where they are the point, are in test_frozen.py.
    a = start("a", suspicion_mult=10, suspicion_max_timeout_mult=6)
    b = start("b", seed=a, suspicion_mult=10, suspicion_max_timeout_mult=6)
    child = spawn("child", a)
    until(lambda: names(b) == {"a", "b", "child"})
    stream = a.events()
    assert child.ask("freeze 3") == "thawed"
    time.sleep(1.5)
    events = child.ask("events").split()
    assert any(event.startswith("stall:") for event in events)
    assert [event for event in events if event.startswith(("fail", "udp_blocked"))] == []
    assert names(a) == names(b) == {"a", "b", "child"}
    told = [event for event in (stream.get(0) for _ in range(len(stream))) if isinstance(event, MemberFailed)]
    assert [event.node.name for event in told] in ([], ["child"])
    assert int(child.ask("metrics stalls")) >= 1


def test_restart_at_another_address_is_taken_back_within_seconds(start: Start, spawn: Spawn) -> None:
    # On the LAN profile's timing nobody has noticed the crash when the new one is there: its name is still taken.
    slow = {"probe_interval": 1.0, "probe_timeout": 0.5, "gossip_interval": 0.2, "suspicion_max_timeout_mult": 6}
    a = start("a", **slow)
    b = start("b", seed=a, **slow)
    c = start("c", seed=a, **slow)
    first = spawn("child", a, **slow)
    everyone = (a, b, c)
    until(lambda: all(names(one) == {"a", "b", "c", "child"} for one in everyone))
    old = {member.name: member.address for member in a.members()}["child"]
    streams = [one.events() for one in everyone]
    first.process.kill()
    second = spawn("child", b, **slow)
    for stream in streams:
        seen = stream.get(30)
        # Without a boot id it may be taken for one that has moved, by who hears it late.
        while not isinstance(seen, (MemberJoined, MemberUpdated)):
            seen = stream.get(30)
        assert seen.node.name == "child"
        assert seen.node.address != old
    time.sleep(1.5)  # and it stays
    assert all(names(one) == {"a", "b", "c", "child"} for one in everyone)
    assert set(second.ask("members").split()) == {"a", "b", "c", "child"}


def run_script(body: str, *, seconds: float = 20) -> tuple[int, str, str]:
    """Run a script in a new interpreter; return its exit code, output and errors."""
    head = """
        import os, signal, sys, threading, time
        from mycorrizal import *
        signal.signal(signal.SIGINT, signal.default_int_handler)  # who started the tests may ignore it
        def node(name="a", **hooks):
            return Memberlist(Config.local(name=name, bind_addr="127.0.0.1", bind_port=0), **hooks)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(head) + textwrap.dedent(body)],
        cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "del keep"])
def test_interpreter_ends_though_nobody_closed(ending: str) -> None:
    started = time.monotonic()
    code, _, errors = run_script(f"""
        import warnings
        warnings.simplefilter("ignore", ResourceWarning)
        keep = [node("a"), node("b", events=BaseEventDelegate())]
        keep[1].join([f"127.0.0.1:{{keep[0].config.bind_port}}"])
        {ending}
    """)
    assert (code, errors) == (0, "")
    assert time.monotonic() - started < 10


def test_interpreter_ends_while_a_callback_sleeps_and_a_reader_waits() -> None:
    started = time.monotonic()
    code, _, errors = run_script("""
        class Slow(BaseEventDelegate):
            def notify_join(self, member):
                sleeping.set()
                time.sleep(30)
        sleeping = threading.Event()
        keep = node(events=Slow())
        threading.Thread(target=lambda: list(keep.events()), daemon=True).start()
        sleeping.wait()
    """)
    assert (code, errors) == (0, "")
    assert time.monotonic() - started < 10


def test_unhandled_exception_is_the_only_trace() -> None:
    code, _, errors = run_script("""
        keep = node()
        raise KeyError("user's own")
    """)
    assert code == 1
    assert errors.count("Traceback") == 1


def test_dropped_object_warns_and_stops() -> None:
    code, out, errors = run_script("""
        import gc, warnings
        warnings.simplefilter("always", ResourceWarning)
        one = node()
        port = one.config.bind_port
        del one
        gc.collect()
        while threading.active_count() > 1: time.sleep(0.01)
        Memberlist(Config.local(name="b", bind_addr="127.0.0.1", bind_port=port)).shutdown()
        print("port is free")
    """)
    assert (code, out.strip()) == (0, "port is free")
    assert "ResourceWarning: unclosed <Memberlist 'a'" in errors


def test_ctrl_c_interrupts_a_blocking_call() -> None:
    code, out, errors = run_script("""
        import socket
        listener = socket.create_server(("127.0.0.1", 0))  # accepts, and says nothing
        with node() as one:
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            began = time.monotonic()
            try:
                one.join([f"127.0.0.1:{listener.getsockname()[1]}"], timeout=None)
            except KeyboardInterrupt:
                print("interrupted", time.monotonic() - began < 0.6)
            began = time.monotonic()
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                for event in one.events():
                    pass
            except KeyboardInterrupt:
                print("interrupted", time.monotonic() - began < 0.6)
        listener.close()
    """)
    assert (code, errors) == (0, "")
    assert out.split() == ["interrupted", "True"] * 2


def test_signal_handler_may_shut_down() -> None:
    code, out, errors = run_script("""
        one = node()
        signal.signal(signal.SIGTERM, lambda *_: one.shutdown())
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        try:
            while True:
                one.send_to_address(("127.0.0.1", 9), b"x")
        except NotRunningError:
            print("ended")
        except QueueFull:
            print("full")
    """)
    assert code == 0, errors
    assert out.strip() in ("ended", "full")


def in_child(node: object, port: int, results: object) -> None:
    """What a forked child finds."""
    from mycorrizal import Config, Memberlist

    assert isinstance(node, Memberlist)
    found = []
    for call in (node.members, node.metrics, node.events, node.shutdown, node.leave, lambda: node.join([])):
        try:
            call()
            found.append("passed")
        except ForkedProcessError:
            found.append("refused")
    with Memberlist(Config.local(name="child", bind_addr="127.0.0.1", bind_port=0)) as own:
        found.append(f"reached {own.join([f'127.0.0.1:{port}']).reached}")
    results.put(found)  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_is_refused_and_the_parent_goes_on(start: Start) -> None:
    a = start("a")
    b = start("b", seed=a)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=in_child, args=(a, a.config.bind_port, results))
    child.start()
    found = results.get(timeout=20)
    child.join(20)
    assert found == ["refused"] * 6 + ["reached 1"]
    assert a.ping("b") > 0
    assert b.num_members() >= 2
    results.close()
