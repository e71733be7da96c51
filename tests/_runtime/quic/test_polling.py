"""When a loop may poll: only amid many calls, only while that pays, and never on one core unless it was told to."""

from __future__ import annotations

from itertools import pairwise

from mycorrizal._runtime.quic.polling import CROWD, LATELY, PAUSE_FIRST, PAUSE_MAX, STOLEN, WINDOW, Polling

LOOK = 5e-6  # between two looks of a loop that nobody disturbs


class Desk:
    """A policy and the time it is told."""

    def __init__(self, spin: float | None = None, cores: int = 2) -> None:
        self.policy = Polling(spin, cores)
        self.now = 100.0
        self.polled = 0.0  # seconds

    def poll(self, seconds: float, *, found: bool = True, gap: float = 0.0) -> bool:
        """Poll for `seconds` if that is allowed, with one `gap` in the middle; return whether it was."""
        if not self.policy.begin(self.now):
            return False
        end = self.now + seconds
        begun = self.now
        while self.now + LOOK < end:
            self.now += LOOK
            self.policy.looked(self.now)
        self.now += LOOK + gap
        self.policy.end(self.now, found)
        self.polled += self.now - begun
        return True

    def crowd(self, calls: int = CROWD) -> None:
        self.policy.turn(calls, self.now)


def test_an_idle_loop_never_polls() -> None:
    desk = Desk()
    assert not desk.poll(WINDOW)
    desk.policy.turn(0, desk.now)
    assert not desk.poll(WINDOW)


def test_a_single_caller_never_makes_it_poll_however_fast() -> None:
    desk = Desk()
    for _ in range(10_000):
        desk.crowd(1)
        assert not desk.poll(WINDOW)
        desk.now += 0.0001


def test_many_calls_of_one_turn_make_it_poll_for_a_moment() -> None:
    desk = Desk()
    desk.crowd()
    desk.now += LATELY * 0.9
    assert desk.poll(0.0003)
    desk.now += LATELY
    assert not desk.poll(0.0003)


def test_it_goes_on_while_nearly_every_poll_finds_something() -> None:
    desk = Desk()
    for number in range(10_000):
        desk.crowd()
        assert desk.poll(0.0003, found=number % 10 != 9), number


def test_polls_in_vain_stop_it_for_longer_and_longer() -> None:
    desk = Desk()
    pauses = []
    for _ in range(12):
        desk.crowd()
        assert desk.poll(WINDOW, found=False)
        stopped = desk.now
        while not desk.policy.begin(desk.now):
            desk.now += PAUSE_FIRST / 16
            desk.crowd()
        pauses.append(desk.now - stopped)
    assert PAUSE_FIRST <= pauses[0] < 1.2 * PAUSE_FIRST
    assert all(after > before for before, after in pairwise(pauses[:7]))
    assert PAUSE_MAX <= pauses[-1] < 1.1 * PAUSE_MAX


def test_many_slow_calls_cost_next_to_nothing() -> None:
    """A minute of turns with many calls in each, none of which is answered within a poll."""
    desk = Desk()
    end = desk.now + 60.0
    while desk.now < end:
        desk.crowd(16)
        desk.poll(WINDOW, found=False)
        desk.now += 0.004
    assert 0 < desk.polled < 60 * 0.002


def test_a_poll_whose_core_was_taken_counts_as_one_in_vain() -> None:
    """Otherwise a loop that shares its core with its own peer polls while that waits, and then finds the answer."""
    desk = Desk()
    desk.crowd()
    assert desk.poll(0.0003, gap=2 * STOLEN)
    desk.crowd()
    assert not desk.poll(0.0003)
    assert desk.policy.vain == 1


def test_what_went_well_for_long_is_not_given_up_for_one_bad_poll() -> None:
    desk = Desk()
    for _ in range(100):
        desk.crowd()
        assert desk.poll(0.0003)
    desk.poll(0.0003, gap=2 * STOLEN)
    desk.crowd()
    assert desk.poll(0.0003)


def test_after_a_pause_that_ended_well_the_next_one_is_short_again() -> None:
    desk = Desk()

    def in_vain() -> float:
        desk.crowd()
        while desk.poll(WINDOW, found=False):
            desk.crowd()
        stopped = desk.now
        while not desk.policy.begin(desk.now):
            desk.now += PAUSE_FIRST / 16
            desk.crowd()
        return desk.now - stopped

    for _ in range(5):
        in_vain()
    for _ in range(100):
        desk.crowd()
        assert desk.poll(0.0003)
    assert in_vain() < 1.2 * PAUSE_FIRST


def test_on_one_core_it_does_not_poll_by_itself() -> None:
    desk = Desk(cores=1)
    desk.crowd(1000)
    assert not desk.poll(WINDOW) and desk.policy.window == 0


def test_zero_never_polls_and_a_number_always_does() -> None:
    off, asked = Desk(0.0), Desk(0.0003, cores=1)
    off.crowd(1000)
    assert not off.poll(WINDOW)
    for _ in range(100):
        assert asked.poll(0.0003, found=False, gap=1.0)
    assert asked.policy.window == 0.0003
