"""Go's ``awareness_test.go``."""

from __future__ import annotations

from mycorrizal._swim.awareness import Awareness


def test_Awareness() -> None:
    awareness = Awareness(8)
    for delta, score in [
        (0, 0),
        (-1, 0),
        (-10, 0),
        (1, 1),
        (-1, 0),
        (10, 7),
        *((-1, n) for n in range(6, -1, -1)),
        (-1, 0),
    ]:
        awareness.apply(delta)
        assert awareness.score == score
        assert awareness.scale(1.0) == score + 1
