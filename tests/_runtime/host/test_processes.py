"""Children that report, are killed, and are ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from mycorrizal import OperationTimeout
from mycorrizal._runtime.host.processes import Children
from mycorrizal._runtime.threads.deadline import Deadline


@pytest.fixture
def children() -> Iterator[Children]:
    made = Children()
    yield made
    made.close()
    assert all(process.poll() is not None for process in made._processes.values())


def start(children: Children, name: str, code: str) -> None:
    children.start(name, [sys.executable, "-u", "-c", code], os.environ)


def test_reports_come_in_order_and_the_end_is_one(children: Children) -> None:
    start(children, "a", "print('{\"event\": \"x\"}'); print('no json'); print('[1]'); raise SystemExit(3)")
    found = [children.get(Deadline(30)) for _ in range(4)]
    assert {name for _, name, _ in found} == {"a"}
    assert [told for _, _, told in found] == [
        {"event": "x"},
        {"event": "text", "text": "no json"},
        {"event": "text", "text": "[1]"},
        {"event": "gone", "code": 3},
    ]


def test_nothing_to_report_is_a_timeout(children: Children) -> None:
    with pytest.raises(OperationTimeout):
        children.get(Deadline(0))


def test_killed_child_is_gone(children: Children) -> None:
    start(children, "a", "print('{\"event\": \"ready\"}'); import signal; signal.pause()")
    assert children.get(Deadline(30))[2] == {"event": "ready"}
    assert children.kill("a") > 0
    assert children.get(Deadline(30))[2] == {"event": "gone", "code": -9}


def test_child_that_will_not_end_is_killed(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    from mycorrizal._runtime.host import processes

    monkeypatch.setattr(processes, "END_SECONDS", 0.2)
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN); print('{}'); signal.pause()"
    start(children, "a", stubborn)
    children.get(Deadline(30))
    children.close()
    assert children._processes["a"].returncode == -9


def test_child_that_tells_without_end_waits_for_us(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    start(children, "a", "while True: print('{}')")
    for _ in range(20_000):
        children.get(Deadline(30))
    assert children._reports.qsize() <= children._reports.maxsize
