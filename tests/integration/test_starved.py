"""Processes that really run out of threads, descriptors or address space: what they raise, and that they go on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tests.needs import lacks

from .agents import QUICK_IN_SCRIPTS
from .conftest import FAST, ROOT

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="looks at threads in /proc")

PRELUDE = """
import contextlib, logging, os, resource, sys, tempfile, time
logging.basicConfig(level=logging.WARNING)
from mycorrizal import (
    Agent, Config, DataPlane, JoinError, Memberlist, MycorrizalError, PeerUnreachable, ResourcesExhausted,
)

def fast(name):
    return Config.local(name=name, bind_addr="127.0.0.1", bind_port=0, **{FAST})

def seed(node):
    return "{{}}:{{}}".format(*node.local_node.address)

def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.01)

def descriptors():
    found = set()
    for number in range(256):
        with contextlib.suppress(OSError):
            os.fstat(number)
            found.add(number)
    return found

def become(user):
    # One of whom nothing else runs, so that our threads alone count against the limit, which root has not.
    os.environ["MYCORRIZAL_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="myc-") + "/run"
    with Agent("warm", config=Config.local(bind_addr="127.0.0.1", bind_port=0), config_file=False) as agent:
        agent.cache("c")["a"] = 1  # whatever is imported late is: its files may be out of that user's reach
        raises(lambda: agent.join(["localhost:1"], timeout=5), JoinError)
    import mycorrizal._runtime.quic.trust.authority, mycorrizal._runtime.quic.endpoint
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)

@contextlib.contextmanager
def limited(what, soft):
    before = resource.getrlimit(what)
    resource.setrlimit(what, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)

def no_threads():
    return limited(resource.RLIMIT_NPROC, 1)

def no_descriptors():
    # From the lowest free number on there is none; what is open above stays open.
    low = os.open("/dev/null", os.O_RDONLY)
    os.close(low)
    return limited(resource.RLIMIT_NOFILE, low)

def raises(call, *kinds, match=""):
    try:
        call()
    except kinds as error:
        assert isinstance(error, MycorrizalError) and match in str(error), repr(error)
        return error
    raise AssertionError("nothing was raised")

# begin
"""


def run(script: str, *, another_user: bool = False) -> str:
    """Run `script` in a process of its own, which may be another user's, and return what it prints."""
    if another_user and os.geteuid() != 0:
        lacks("another user's process: run the tests as root")
    code = PRELUDE.format(FAST=FAST) + textwrap.dedent(script)
    if another_user:
        code = code.replace("# begin", f"become({50_000 + os.getpid() % 10_000})")
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ.get("PATH", "")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


DESCRIPTORS = """
alice, bob = Memberlist(fast("alice")), Memberlist(fast("bob"))
with no_descriptors():
    for address in (seed(bob),):
        for attempt in range(3):
            error = raises(lambda: alice.join([address], timeout=5), JoinError, match="ulimit -n")
            assert [type(one) for one in error.failures.values()] == [ResourcesExhausted], error.failures
    assert alice.metrics()["starved.descriptors"] > 0
    raises(lambda: alice.send_reliable(bob.local_node, b"x"), ResourcesExhausted, PeerUnreachable, match="ulimit -n")
    assert [node.name for node in alice.members()] == ["alice"]
alice.join([seed(bob)])
until(lambda: len(alice.members()) == len(bob.members()) == 2)
alice.send_reliable(bob.local_node, b"x")
with no_descriptors():
    time.sleep(3)  # probes go on over UDP; push/pulls fail, or are not begun
assert len(alice.members()) == len(bob.members()) == 2
alice.shutdown()
bob.shutdown()
"""


def test_membership_without_threads() -> None:
    """Those that are there from the start do: it can be all that a program has whose main thread has ended."""
    said = run(
        """
    alice, bob = Memberlist(fast("alice")), Memberlist(fast("bob"))
    with no_threads():
        alice.join([seed(bob)], timeout=10)
        until(lambda: len(alice.members()) == len(bob.members()) == 2)
        alice.send_reliable(bob.local_node, b"x")
        raises(lambda: Memberlist(fast("carol")), ResourcesExhausted, match="ulimit -u")
        time.sleep(3)
        assert len(alice.members()) == len(bob.members()) == 2
    alice.shutdown()
    bob.shutdown()
    """,
        another_user=True,
    )
    assert "no threads were to be had" in said
    assert "died" not in said and "Traceback" not in said


def test_membership_without_descriptors() -> None:
    # Names are resolved by the system, which needs some itself and says what it likes: an address alone.
    said = run(DESCRIPTORS)
    assert "no descriptors were left" in said
    assert "died" not in said and "Traceback" not in said


def test_membership_without_address_space() -> None:
    """A thread's stack needs 8 MiB of it."""
    said = run("""
    import threading
    alice, bob = Memberlist(fast("alice")), Memberlist(fast("bob"))
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    with limited(resource.RLIMIT_AS, size + (4 << 20)):
        raises(lambda: Memberlist(fast("carol")), ResourcesExhausted, match="address space")
    alice.join([seed(bob)])
    until(lambda: len(alice.members()) == len(bob.members()) == 2)
    alice.shutdown()
    bob.shutdown()
    """)
    assert "died" not in said


AGENTS = f"""
os.environ["MYCORRIZAL_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="myc-") + "/run"
{QUICK_IN_SCRIPTS}
def make(name, **options):
    return Agent(name, config=config, config_file=False, **options)
alice, bob = make("alice"), make("bob")
until(lambda: len(alice.members()) == 2)
"""

CALLS = """
with {limited}:
    before = descriptors()
    for attempt in range(3):
        raises(lambda: make("carol"), ResourcesExhausted, match={match!r})
        raises(lambda: DataPlane("dave"), ResourcesExhausted, match={match!r})
        raises(lambda: Memberlist(fast("dave")), ResourcesExhausted, match={match!r})
    if {threads}:
        raises(lambda: alice.send_async("bob", 1), ResourcesExhausted, match={match!r})
        raises(lambda: alice.request_async("bob", "echo", 1), ResourcesExhausted, match={match!r})
        raises(lambda: alice.settings.watch("a", print), ResourcesExhausted, match={match!r})
        raises(lambda: alice.services.register("api", check=lambda: True), ResourcesExhausted, match={match!r})
        assert not alice.services.find("api", healthy=None)
    assert descriptors() == before
    assert any({match!r} in problem for problem in alice.health().problems), alice.health()
assert {{member.name for member in alice.members()}} == {{"alice", "bob"}}
with make("carol") as carol:
    until(lambda: len(alice.members()) == 3)
    carol.send_async("bob", [1, 2]).result(10)
    assert bob.receive(10).value == [1, 2]
bob.close()
alice.close()
"""


def test_agents_without_threads() -> None:
    said = run(
        AGENTS + CALLS.format(limited="no_threads()", match="ulimit -u", threads=True), another_user=True
    )
    assert "died" not in said


def test_agents_without_descriptors() -> None:
    said = run(AGENTS + CALLS.format(limited="no_descriptors()", match="ulimit -n", threads=False))
    assert "died" not in said


EVERY_LIMIT = """
key, place = bytes(range(7, 39)), tempfile.mkdtemp(prefix="myc-")

def ends(limit, settings):
    # In a process of its own, which has no thread yet and nothing open but the standard files.
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        with Agent("a", bind="127.0.0.1", key=key, config_file=False, **settings):
            return 0
    except ResourcesExhausted as error:
        return 1 if "ulimit -n" in str(error) else 2
    except BaseException as error:
        print(limit, settings, repr(error), flush=True)
        return 3

def child(limit, settings):
    number = os.fork()
    if not number:
        os._exit(ends(limit, settings))
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])

for at, settings in enumerate(({"discover": False, "control": False}, {"settings_file": place + "/settings"})):
    found = [child(limit, settings) for limit in range(3, 27)]
    print(found)
    assert set(found) == {0, 1}, found
    assert found == sorted(found, reverse=True), found
"""


def test_an_agent_starts_or_says_so_at_every_limit_of_descriptors() -> None:
    run(EVERY_LIMIT)
