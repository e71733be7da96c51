"""Agents in processes of their own that are killed, frozen, forked, or end without a word."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from mycorrizal import (
    Agent,
    ForkedProcessError,
    MemberFailed,
    MemberLeft,
    MemberStalled,
    NameInUse,
    PeerUnreachable,
    UserEvent,
)

from .agents import QUICK, QUICK_IN_SCRIPTS, Make, agents, runtime_dir  # noqa: F401 - fixtures
from .conftest import until
from .planes import run_script, spawn, together

pytestmark = pytest.mark.usefixtures("runtime_dir")

MEMBER = """
    began = time.monotonic()
    with Agent({name!r}) as agent:
        took = time.monotonic() - began
        agent.on_request("who")(lambda request: os.getpid())
        agent.services.register("api", port=1)
        say("ready", took)
        while order := hear():
            exec(order)
"""


QUICK_MEMBER = f"""
    {QUICK_IN_SCRIPTS}
    {MEMBER.strip().replace("Agent({name!r})", "Agent('bob', config=config)")}
"""


def test_sigterm_says_goodbye_and_ends_the_process(agents: Make) -> None:  # noqa: F811
    alice = agents("alice", config=QUICK)
    body = QUICK_MEMBER.replace("as agent:", "as agent:\n        agent.leave_on_signal()")
    with spawn(body) as bob:
        assert bob.words()[0] == "ready"
        alice.wait_for(2)
        news = alice.events()
        bob.process.send_signal(signal.SIGTERM)
        assert bob.process.wait(30) == -signal.SIGTERM
        gone = next(event for event in news if isinstance(event, MemberFailed | MemberLeft))
        assert isinstance(gone, MemberLeft) and gone.node.name == "bob"


def member(name: str) -> str:
    return MEMBER.format(name=name)


def test_a_name_is_one_process_and_free_the_moment_it_dies(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    with spawn(member("bob")) as bob:
        assert bob.words()[0] == "ready"
        alice.wait_for(2)
        first = alice.request("bob", "who")
        assert first == bob.process.pid
        with pytest.raises(NameInUse) as caught:
            Agent("bob")
        assert caught.value.pid == first
        bob.kill()
    with spawn(member("bob")) as bob:  # under the name that the others still take for alive
        assert float(bob.words()[1]) < 2
        until(lambda: _who(alice) == bob.process.pid, 10)
        until(lambda: [service.node for service in alice.services.find("api")] == ["bob"])


def _who(agent: Agent) -> Any:
    try:
        return agent.request("bob", "who", timeout=2)
    except (PeerUnreachable, TimeoutError):
        return None


def test_a_killed_process_is_noticed_and_its_services_go(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    with spawn(member("bob")) as bob:
        bob.words()
        until(lambda: alice.services.find("api"))
        with alice.events() as news:
            bob.kill()
            began = time.monotonic()
            while not isinstance(news.get(60), MemberFailed):
                pass
        assert time.monotonic() - began < 10  # its host refuses connections: the long window is not needed
        assert alice.services.find("api") == []


def test_a_process_that_holds_its_gil_for_six_seconds_is_not_declared_dead(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    with spawn(member("bob")) as bob, spawn(member("carol")) as carol:
        bob.words(), carol.words()
        alice.wait_for(3)
        news = alice.events()
        # PyDLL keeps the GIL through a call: nothing else of that process runs for six seconds.
        carol.tell("import ctypes; ctypes.PyDLL(None).usleep(6_000_000); say('awake')")
        assert carol.words(15) == ["awake"]
        stalled = None
        while stalled is None:
            event = news.get(10)
            assert not isinstance(event, MemberFailed)
            if isinstance(event, MemberStalled):
                stalled = event
        assert stalled.node == "carol" and 5 < stalled.seconds < 7
        assert alice.members().names == ["alice", "bob", "carol"]
        bob.tell("say(*[m.name for m in agent.members()])")
        assert bob.words() == ["alice", "bob", "carol"]


@pytest.mark.slow
def test_a_stopped_process_comes_back(agents: Make) -> None:  # noqa: F811
    """SIGSTOP for longer than any window: it is declared dead, and is a member again soon after it goes on."""
    alice = agents("alice", config=QUICK)
    with spawn(QUICK_MEMBER) as bob:
        bob.words()
        alice.wait_for(2)
        bob.process.send_signal(signal.SIGSTOP)
        until(lambda: alice.members().names == ["alice"], 40)
        bob.process.send_signal(signal.SIGCONT)
        until(lambda: alice.members().names == ["alice", "bob"], 20)
        until(lambda: _who(alice) == bob.process.pid, 10)
        until(lambda: alice.services.find("api"))


def test_a_forked_child_refuses_calls_and_frees_everything(agents: Make) -> None:  # noqa: F811
    code, out, errors = run_script(
        """
        agent = Agent("alice")
        pid = os.fork()
        if pid == 0:
            for call in (lambda: agent.send("alice", 1), lambda: agent.members(), lambda: agent.broadcast("x")):
                try:
                    call()
                    say("worked")
                except ForkedProcessError:
                    pass
            agent.close()
            with Agent("child") as own:
                say(len(own.wait_for(2)))
            os._exit(0)
        os.waitpid(pid, 0)
        agent.send("alice", 1)
        say(agent.receive(5).value)
        agent.close()
        with Agent("alice"):
            say("again")
        """
    )
    assert (code, out.split(), errors) == (0, ["2", "1", "again"], "")
    assert issubclass(ForkedProcessError, RuntimeError)


@pytest.mark.parametrize("how", ["pass", "del agent", "raise SystemExit(0)", "os._exit(0)"])
def test_exit_without_close_hangs_nobody_and_frees_the_name(agents: Make, how: str) -> None:  # noqa: F811
    began = time.monotonic()
    code, _, errors = run_script(
        f"""
        warnings.simplefilter("ignore", ResourceWarning)
        agent = Agent("alice")
        agent.services.register("api", check=lambda: True, interval=0.1)
        threading.Thread(target=lambda: [None for event in agent.events()], daemon=True).start()
        {how}
        """
    )
    assert code == 0 and "Traceback" not in errors
    assert time.monotonic() - began < 10
    agents("alice")


def test_close_from_a_callback_and_from_a_handler(agents: Make) -> None:  # noqa: F811
    before = threading.active_count()
    for way in ("watch", "handler"):
        alice, bob = agents("alice"), agents("bob")
        bob.wait_for(2)
        over = threading.Event()

        def close(*_: Any, bob: Agent = bob, over: threading.Event = over) -> None:
            bob.close()
            over.set()

        if way == "watch":
            bob.settings.watch("end", close)
            alice.settings["end"] = True
        else:
            bob.on_request("end")(close)
            alice.wait_for(2)
            with pytest.raises((PeerUnreachable, TimeoutError)):
                alice.request("bob", "end", timeout=5)
        assert over.wait(10)
        assert bob.closed
        alice.close()
        until(lambda: threading.active_count() <= before, 10)


def test_agents_leave_no_thread_no_descriptor_and_no_file_behind(agents: Make, runtime_dir: str) -> None:  # noqa: F811
    def used() -> tuple[int, int, list[str]]:
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd")), sorted(os.listdir(runtime_dir))

    def life() -> None:
        with Agent("alice") as alice, Agent("bob") as bob:
            alice.wait_for(2)
            alice.cache("c").set("k", 1)
            assert bob.cache("c").get("k") == 1
            bob.services.register("api", check=lambda: True, interval=0.1)
            streams = alice.events(), alice.subscribe("x"), alice.settings.watch("y", print), bob.services.watch()
            bob.broadcast("x", bytes(5000))
            alice.send("bob", 1)
            assert isinstance(streams[1].get(5), UserEvent)

    life()  # what is made once: the shared key, modules
    before = used()
    for _ in range(5):
        life()

    def nothing_more() -> bool:  # what tests before this one left to end may be gone by now
        threads, descriptors, files = used()
        return threads <= before[0] and descriptors <= before[1] and files == before[2]

    until(nothing_more, 30)


def test_ctrl_c_ends_a_wait_and_the_agent_stays_usable(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    with spawn(
        """
        with Agent("bob") as agent:
            agent.wait_for(2)
            say("ready")
            for wait in (agent.receive, lambda: agent.wait_for(9, None), agent.subscribe("x").get):
                try:
                    say("waiting"); wait()
                except KeyboardInterrupt:
                    say("interrupted")
            agent.send("alice", "still here")
        """
    ) as bob:
        assert bob.words() == ["ready"]
        for _ in range(3):
            assert bob.words() == ["waiting"]
            time.sleep(0.2)
            began = time.monotonic()
            bob.interrupt()
            assert bob.words() == ["interrupted"]
            assert time.monotonic() - began < 0.5
        assert alice.receive(5).value == "still here"


def test_fifty_joiners_have_everything_when_join_returns(agents: Make) -> None:  # noqa: F811
    alice = agents("alice")
    for number in range(20):
        alice.settings[f"s{number}"] = number
    alice.services.register("api", port=1)
    body = """
        for number in range(10):
            with Agent(f"{os.getpid()}-{number}") as agent:
                say(len(agent.settings), len(agent.services.find("api")))
    """
    for code, out, errors in together(5, lambda number: run_script(body, seconds=60), timeout=70):
        assert code == 0, errors
        assert out.split("\n")[:-1] == ["20 1"] * 10


def test_settings_survive_a_restart_of_the_whole_cluster(agents: Make, tmp_path: Any) -> None:  # noqa: F811
    path = str(tmp_path / "settings.sqlite")
    alice = agents("alice", settings_file=path)
    bob = agents("bob")
    bob.settings["kept"] = [1, 2]
    bob.settings["gone"] = 1
    until(lambda: "gone" in alice.settings)
    del bob.settings["gone"]
    until(lambda: "gone" not in alice.settings and "kept" in alice.settings)
    alice.close()
    bob.close()
    alice = agents("alice", settings_file=path)
    assert dict(alice.settings) == {"kept": [1, 2]}
    alice.settings["kept"] = 3
    alice.close()
    assert os.stat(path).st_mode & 0o077 == 0
    assert dict(agents("carol", settings_file=path).settings) == {"kept": 3}


def test_the_module_runs_under_an_optimised_python() -> None:
    """No behaviour hides in an assertion."""
    code = "import mycorrizal\nwith mycorrizal.Agent('o') as a: a.send('o', 1); print(a.receive(5).value)"
    done = subprocess.run(
        [sys.executable, "-O", "-c", code], capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1\n")
