"""What all tests share: the programs of other people, and a little randomness that can be repeated.

``need_peer("serf")`` gives the path of a program that ``tools/peers``
installs. Where it is missing the test is skipped; with ``CI=true`` it fails,
so that a machine meant to judge never passes by leaving out.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from mycorrizal._runtime.threads import shortage
from tests.needs import lacks

MEMBERLIST_GO = Path("/usr/share/gocode/src/github.com/hashicorp/memberlist/memberlist.go")

settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


def pytest_configure() -> None:
    """Let Ctrl-C be one, here and in the processes that tests start: who started the tests may ignore it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _list_failed(report)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _list_failed(report)


def _list_failed(report: pytest.CollectReport | pytest.TestReport) -> None:
    """Write down what failed, for ``tools/test``, which runs a few of them again."""
    path = os.environ.get("TEST_FAILURES_FILE")
    if path and report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        with open(path, "a", encoding="utf-8") as listed:
            listed.write(f"{report.nodeid}\n")


def pytest_collection_finish() -> None:
    """Take thousands of tests out of the collector's sight: each of its rounds would look at all of them again."""
    gc.collect()
    gc.freeze()


def find_peer(name: str) -> str | None:
    """Return the path of peer `name`, None if it is not installed.

    Names: ``serf``, ``go`` (the compiler), ``memberlist`` (the compiler, with
    Debian's Go sources of memberlist), ``ip``, ``tc``, ``tshark``, ``node``, ``npm``, ``prometheus``, ``promtool``,
    ``systemd-analyze``.
    """
    if name == "memberlist":
        return shutil.which("go") if MEMBERLIST_GO.exists() else None
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


@pytest.fixture(autouse=True)
def nothing_was_short() -> None:
    """Forget what tests before this one made run out: ``health()`` tells of it for a minute, for the whole process."""
    shortage._last.clear()


@pytest.fixture(scope="session")
def need_peer() -> Callable[[str], str]:
    """Return a function that gives the path of a peer, or skips (with ``CI=true``: fails) the test."""

    def need(name: str) -> str:
        return find_peer(name) or lacks(f"{name} is not installed; run tools/peers")

    return need


@pytest.fixture
def need_root() -> None:
    """Skip the test of a user who is not root; with ``CI=true``: fail it."""
    if os.geteuid() != 0:
        lacks("only root can become somebody else; run the tests as root")


@pytest.fixture(scope="session")
def need_network_namespace(need_peer: Callable[[str], str]) -> str:
    """Return the path of ``ip``, or skip the test (with ``CI=true``: fail it) of who may make no network namespaces."""
    ip = need_peer("ip")
    name = f"mycorrizal-probe-{os.getpid()}"
    made = subprocess.run([ip, "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        lacks(f"no permission to make a network namespace ({made.stderr.strip()}); run the tests as root")
    subprocess.run([ip, "netns", "delete", name], check=True)
    return ip
