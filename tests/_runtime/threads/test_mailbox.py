"""Commands on their way to the owner of a machine."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from types import SimpleNamespace

import pytest

from mycorrizal._runtime.threads import mailbox as mailbox_module
from mycorrizal._runtime.threads.mailbox import Mailbox
from mycorrizal.exceptions import NotRunningError, QueueFull


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox(limit=3)
    yield box
    box.close()


def readable(mailbox: Mailbox) -> bool:
    return bool(select.select([mailbox.fileno()], [], [], 0)[0])


def test_result_and_exception_come_back(mailbox: Mailbox) -> None:
    good, bad = mailbox.post(lambda now: now > 0), mailbox.post(lambda now: 1 / 0)
    assert readable(mailbox)
    assert mailbox.run() == 2
    assert good.result(0) is True
    assert isinstance(bad.exception(0), ZeroDivisionError)
    assert not readable(mailbox)


def test_order_is_kept_and_one_run_takes_what_was_there(mailbox: Mailbox) -> None:
    seen: list[int] = []

    def again(now: float) -> None:
        seen.append(1)
        mailbox.tell(lambda now: seen.append(3))

    mailbox.tell(again)
    mailbox.tell(lambda now: seen.append(2))
    mailbox.run()
    assert seen == [1, 2]
    assert readable(mailbox)  # the next select must return at once
    mailbox.run()
    assert seen == [1, 2, 3]


def test_full_mailbox_refuses_callers_but_not_the_runtime(mailbox: Mailbox) -> None:
    for _ in range(3):
        mailbox.post(lambda now: None)
    with pytest.raises(QueueFull, match="3 calls"):
        mailbox.post(lambda now: None)
    with pytest.raises(QueueFull):
        mailbox.tell(lambda now: None, bounded=True)
    assert mailbox.tell(lambda now: None)
    assert len(mailbox) == 4


def test_cancelled_command_does_not_run(mailbox: Mailbox) -> None:
    seen: list[int] = []
    mailbox.post(lambda now: seen.append(1)).cancel()
    mailbox.run()
    assert seen == []


def test_command_without_future_lets_its_exception_through_and_loses_nobody_else(mailbox: Mailbox) -> None:
    mailbox.tell(lambda now: 1 / 0)
    after = mailbox.post(lambda now: "here")
    with pytest.raises(ZeroDivisionError):
        mailbox.run()
    mailbox.refuse(lambda: NotRunningError("ended"))
    assert isinstance(after.exception(0), NotRunningError)


def test_exit_in_a_command_reaches_the_caller_and_not_the_owner(mailbox: Mailbox) -> None:
    def leave(now: float) -> None:
        raise SystemExit(3)

    first, second = mailbox.post(leave), mailbox.post(lambda now: "here")
    assert mailbox.run() == 2
    assert isinstance(first.exception(0), SystemExit)
    assert second.result(0) == "here"


def test_after_the_end_every_call_is_refused(mailbox: Mailbox) -> None:
    waiting, gone = mailbox.post(lambda now: None), mailbox.post(lambda now: None)
    gone.cancel()
    mailbox.refuse(lambda: NotRunningError("ended"))
    assert isinstance(waiting.exception(0), NotRunningError)
    with pytest.raises(NotRunningError):
        mailbox.post(lambda now: None)
    assert mailbox.tell(lambda now: None) is False


def test_wake_after_close_is_harmless() -> None:
    mailbox = Mailbox()
    mailbox.close()
    mailbox.wake()


def test_an_owner_with_more_to_do_runs_a_part(mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    time = [100.0]
    ran: list[int] = []
    monkeypatch.setattr(mailbox_module, "clock", SimpleNamespace(now=lambda: time[0]))

    def command(now: float, number: int) -> None:
        ran.append(number)
        time[0] += 0.03

    for number in range(10):
        mailbox.tell(partial(command, number=number))
    assert mailbox.run(0.1) == 4 and len(mailbox) == 6
    mailbox.tell(partial(command, number=10))
    assert mailbox.run() == 7 and ran == list(range(11))


def test_many_threads_lose_nothing(mailbox: Mailbox) -> None:
    mailbox = Mailbox(limit=100000)
    futures: list[Future[int]] = []

    def post() -> None:
        futures.extend([mailbox.post(lambda now: 1) for _ in range(500)])

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    done = 0
    while done < 2000:
        assert select.select([mailbox.fileno()], [], [], 10)[0]  # a lost wake-up would end here
        done += mailbox.run()
    for thread in threads:
        thread.join()
    assert sum(future.result(0) for future in futures) == 2000
    mailbox.close()
