"""Go's ``broadcast_test.go``."""

from __future__ import annotations

from mycorrizal._swim.broadcasts import TransmitLimitedQueue
from mycorrizal._wire.messages import Alive, Suspect
from tests._swim.harness import alive, make, queued, tell


def test_MemberlistBroadcast_Invalidates() -> None:
    swim = make()
    tell(swim, alive("test"), alive("foo"))
    assert [m.node for m in queued(swim) if isinstance(m, Alive)].count("test") == 1

    tell(swim, Suspect(1, "test", "somebody"))

    about_test = [m for m in queued(swim) if getattr(m, "node", "") == "test"]
    about_foo = [m for m in queued(swim) if getattr(m, "node", "") == "foo"]
    assert about_test == [Suspect(1, "test", "somebody")], "the newer broadcast about a node replaces the older"
    assert len(about_foo) == 1, "and leaves those about others alone"


def test_MemberlistBroadcast_Message() -> None:
    queue = TransmitLimitedQueue(4, lambda: 1)
    queue.queue_broadcast(b"\x00test\xff", name="test")
    assert queue.get_broadcasts(2, 1400) == [b"\x00test\xff"]
