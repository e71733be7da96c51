"""The bounded queue between the loop and those who read."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from mycorrizal import NotRunningError, OperationTimeout
from mycorrizal._runtime.data import inbox
from mycorrizal._runtime.data.inbox import Inbox
from mycorrizal._runtime.threads import clock

WAIT = 20.0


class Room:
    """Counts how often room was told."""

    def __init__(self) -> None:
        self.told = 0

    def __call__(self) -> None:
        self.told += 1


def make(messages: int = 8, bytes_: int = 100) -> tuple[Inbox[str], Room]:
    room = Room()
    return Inbox(messages, bytes_, room), room


def reading(box: Inbox[str], timeout: float | None = WAIT) -> Future[str]:
    """Return the outcome of ``get`` on a thread that waits in it by now."""
    future: Future[str] = Future()
    before = len(box._readers)

    def read() -> None:
        try:
            future.set_result(box.get(timeout))
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=read, daemon=True).start()
    while len(box._readers) == before and not future.done():
        threading.Event().wait(0.0001)
    return future


def ended() -> Exception:
    return NotRunningError("the end")


def test_order_and_sizes() -> None:
    box, room = make()
    for text in ("a", "bb", "ccc"):
        assert box.offer(text, len(text))
    assert (len(box), box.bytes) == (3, 6)
    assert [box.get(0), box.get(None), box.get(1)] == ["a", "bb", "ccc"]
    assert (len(box), box.bytes, room.told) == (0, 0, 0)


def test_empty_inbox_raises_at_once_or_in_time() -> None:
    box, _ = make()
    with pytest.raises(OperationTimeout):
        box.get(0)
    with pytest.raises(OperationTimeout):
        box.get(-1)
    with pytest.raises(OperationTimeout, match=r"0\.001 s"):
        box.get(0.001)
    with pytest.raises(ValueError, match="nan"):
        box.get(float("nan"))
    with pytest.raises(TypeError):
        box.get("soon")  # type: ignore[arg-type]
    assert not box._readers
    assert box.offer("a", 1)
    assert box.get(0) == "a"


def test_bounded_by_messages() -> None:
    box, room = make(messages=2)
    assert box.offer("a", 0)
    assert box.offer("b", 0)
    assert not box.offer("c", 0)
    assert box.get(0) == "a"
    assert room.told == 1
    assert box.get(0) == "b"
    assert room.told == 1  # once for a refusal


def test_bounded_by_bytes() -> None:
    box, room = make(bytes_=10)
    assert box.offer("a", 6)
    assert not box.offer("b", 5)
    assert box.offer("c", 4)
    assert not box.offer("d", 1)
    assert box.bytes == 10
    assert [box.get(0), box.get(0)] == ["a", "c"]
    assert room.told == 1


def test_empty_inbox_takes_one_of_any_size() -> None:
    box, room = make(bytes_=10)
    assert box.offer("huge", 1000)
    assert not box.offer("a", 1)
    assert box.get(0) == "huge"
    assert room.told == 1
    assert box.bytes == 0


def test_room_is_told_only_when_the_refused_fits() -> None:
    box, room = make(bytes_=10)
    for text in "abcde":
        assert box.offer(text, 2)
    assert not box.offer("large", 5)
    box.get(0)
    box.get(0)
    assert room.told == 0
    box.get(0)
    assert room.told == 1


def test_room_is_told_in_lots_or_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(clock, "now", lambda: now)
    box, room = make(messages=64, bytes_=1 << 20)
    for _ in range(64):
        assert box.offer("a", 1)
    assert not box.offer("a", 1)
    for _ in range(7):
        box.get(0)
    assert room.told == 0
    box.get(0)
    assert room.told == 1  # an eighth is free
    while box.offer("a", 1):
        pass
    box.get(0)
    assert room.told == 1
    now += inbox.PATIENCE
    box.get(0)
    assert room.told == 2


def test_end_of_the_loop_does_not_keep_a_reader_from_its_item() -> None:
    def gone() -> None:
        raise ended()

    box: Inbox[str] = Inbox(1, 1, gone)
    assert box.offer("a", 1)
    assert not box.offer("b", 1)
    assert box.get(0) == "a"


def test_waiting_readers_are_served_first_come_first() -> None:
    box, _ = make()
    first, second = reading(box), reading(box)
    assert box.offer("a", 1)
    assert first.result(WAIT) == "a"
    assert not second.done()
    assert box.offer("b", 1)
    assert second.result(WAIT) == "b"
    assert (len(box), box.bytes) == (0, 0)


def test_reader_without_a_deadline_waits() -> None:
    box, _ = make()
    reader = reading(box, None)
    assert box.offer("a", 1)
    assert reader.result(WAIT) == "a"


def test_close_ends_waiting_and_later_readers_but_leaves_what_is_queued() -> None:
    box, _ = make()
    waiting = [reading(box), reading(box, None)]
    box.close(ended)
    for one in waiting:
        assert isinstance(one.exception(WAIT), NotRunningError)

    box, _ = make()
    assert box.offer("a", 1)
    box.close(ended)
    box.close(ValueError)  # only the first counts
    assert not box.offer("b", 1)
    assert box.get(0) == "a"
    for timeout in (0, 1, None):
        with pytest.raises(NotRunningError):
            box.get(timeout)


def test_room_is_not_told_after_close() -> None:
    box, room = make(messages=1)
    box.offer("a", 1)
    assert not box.offer("b", 1)
    box.close(ended)
    assert box.get(0) == "a"
    assert room.told == 0


@pytest.fixture
def interrupt() -> Callable[[], None]:
    """Return a function that sends Ctrl-C to the main thread as soon as that waits for an item."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread only")
    return lambda: os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("timeout", [None, WAIT])
def test_interrupt_ends_the_wait_and_loses_nothing(interrupt: Callable[[], None], timeout: float | None) -> None:
    box, _ = make()

    def soon() -> None:
        while not box._readers:
            threading.Event().wait(0.0001)
        interrupt()

    thread = threading.Thread(target=soon)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        box.get(timeout)
    thread.join()
    assert not box._readers
    assert box.offer("a", 1)
    assert box.get(0) == "a"


def test_interrupts_at_any_point_lose_nothing(interrupt: Callable[[], None]) -> None:
    """A signal handler raises now and then while items arrive; each item is read once, in order."""
    told = threading.Event()
    rooms: deque[int] = deque()
    # A step that an interrupt cannot cut in half, as the loop's is; an Event would stay locked.
    box: Inbox[int] = Inbox(4, 100, lambda: rooms.append(1))
    total = 5000
    stop = threading.Event()

    class Hit(Exception):
        pass

    inside = False
    hits = 0

    def handler(signum: int, frame: object) -> None:
        nonlocal inside, hits
        if inside:
            inside = False  # one at a time: nobody types faster than a get gives back
            hits += 1
            raise Hit

    def offer() -> None:
        number = 0
        while number < total and not stop.is_set():
            if box.offer(number, 1):
                number += 1
            else:
                while not rooms and not stop.is_set():
                    told.wait(0.00005)
                rooms.clear()

    def disturb() -> None:
        while not stop.wait(0.0002):
            interrupt()

    read: list[int] = []
    before = signal.signal(signal.SIGINT, handler)
    threads = [threading.Thread(target=offer), threading.Thread(target=disturb)]
    try:
        for thread in threads:
            thread.start()
        while len(read) < total:
            item = -1
            try:
                inside = True
                item = box.get(WAIT)
                inside = False
            except Hit:
                pass
            if item >= 0:
                read.append(item)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        signal.signal(signal.SIGINT, before)
    assert read == list(range(total))
    assert (len(box), box.bytes) == (0, 0)
    assert hits > 0


def test_many_threads_read_each_item_once() -> None:
    told = threading.Semaphore(0)
    box: Inbox[int] = Inbox(16, 1 << 20, told.release)
    total = 20000
    results: list[list[int]] = [[] for _ in range(4)]

    def read(mine: list[int]) -> None:
        try:
            while True:
                try:
                    mine.append(box.get(0.00001 if len(mine) % 3 else None))
                except OperationTimeout:
                    pass
        except NotRunningError:
            pass

    threads = [threading.Thread(target=read, args=(mine,)) for mine in results]
    for thread in threads:
        thread.start()
    for number in range(total):
        while not box.offer(number, 1):
            told.acquire(timeout=0.001)
    box.close(ended)
    for thread in threads:
        thread.join(WAIT)
    assert sorted(number for mine in results for number in mine) == list(range(total))
    assert all(mine == sorted(mine) for mine in results)  # in order at each reader
    assert (len(box), box.bytes) == (0, 0)


def test_what_was_put_back_is_the_oldest_and_counts() -> None:
    box, _ = make(bytes_=100)
    assert box.offer("a", 60) and box.offer("b", 30)
    assert box.get(0) == "a" and box.bytes == 30
    box.put_back("a", 60)
    assert box.bytes == 90 and not box.offer("c", 20)
    assert [box.get(0), box.get(0)] == ["a", "b"] and box.bytes == 0
