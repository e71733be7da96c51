"""What has arrived ahead of its turn, against a set of numbers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mycorrizal._runtime.quic.pieces import Pieces

steps = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12), st.booleans()), max_size=40)


@given(steps)
def test_pieces_are_counted_as_a_set_of_bytes_would_be(given_steps: list[tuple[int, int, bool]]) -> None:
    pieces, there = Pieces(), set[int]()
    for start, length, drops in given_steps:
        if drops:
            pieces.drop(start)
            while there and min(there) <= start:  # the piece that begins there, whole
                byte = min(there)
                while byte in there:
                    there.discard(byte)
                    byte += 1
        else:
            pieces.add(start, start + length)
            there.update(range(start, start + length))
        ordered = sorted(there)
        assert len(pieces) == bool(ordered) + sum(after > before + 1 for before, after in pairwise(ordered))
