"""Names that none of us may have: dropped among ours, taken from Go nodes."""

from __future__ import annotations

import pytest

from mycorrizal import Node, NodeState
from mycorrizal._wire.messages import Dead, PushNodeState, PushPull, Suspect
from tests._swim.harness import VSN, alive, drain, make, tell
from tests._swim.harness import events as taken

EVIL = "EVIL\nERROR forged\x1b[2J"
BAD = [EVIL, "a\nb", "a\x9bb", "a\u202eb", "a\u2028b", "a\udcffb", "a/b", "", " a", "x" * 256]


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_among_ours_a_name_that_none_of_us_may_have_is_dropped_and_counted(name: str) -> None:
    swim = make(wire="cbor", check_hearsay=False)
    tell(swim, alive("b"))
    drain(swim)
    tell(swim, alive(name, "10.0.0.9"))
    assert [node.name for node in swim.nodes()] == ["b", "self"] and not taken(swim)
    assert swim.counters["names_refused"] == 1
    tell(swim, Suspect(1, "b", name), Dead(1, "b", name))
    assert swim.counters["names_refused"] == 3
    assert {node.state for node in swim.nodes()} == {NodeState.ALIVE}
    assert len(swim._core.queue) == 2, "nothing of it is passed on"
    for state in NodeState:
        entry = PushNodeState(name, b"\x0a\0\0\x09", 7946, b"", 1, state, VSN)
        good = PushNodeState("c", b"\x0a\0\0\x08", 7946, b"", 1, NodeState.ALIVE, VSN)
        swim.answer_exchange(PushPull((entry, good), b"", False), ("10.0.0.9", 1), 0.0)
    assert swim.counters["names_refused"] == 7
    assert [node.name for node in swim.nodes()] == ["b", "c", "self"]


def test_admission_never_hears_of_such_a_name() -> None:
    heard: list[str] = []

    class Admission:
        def notify_alive(self, peer: Node) -> None:
            heard.append(peer.name)

        def notify_merge(self, peers: tuple[Node, ...]) -> None:
            heard.extend(peer.name for peer in peers)

    swim = make(wire="cbor", delegates={"alive": Admission(), "merge": Admission()})
    tell(swim, alive("b"), alive(EVIL))
    entry = PushNodeState(EVIL, b"\x0a\0\0\x09", 7946, b"", 1, 0, VSN)
    swim.answer_exchange(PushPull((entry,), b"", True), ("10.0.0.9", 1), 0.0)
    assert heard == ["self", "b"]


@pytest.mark.parametrize("name", [name for name in BAD if name], ids=ascii)
def test_go_nodes_may_have_any_name(name: str) -> None:
    swim = make(wire="msgpack")
    tell(swim, alive(name, "10.0.0.9"), Suspect(1, name, name))
    assert name in [node.name for node in swim.nodes()]
    assert "names_refused" not in swim.counters
