"""A peer whose address is another one: which connections go on there, by what membership says."""

from __future__ import annotations

from typing import Any

from tests._data.harness import Node, World, pair

NEW = ("10.0.0.77", 7001)


def joined() -> tuple[World, Node, Node, Any]:
    """Return two nodes with a connection, whose processes membership knows, and the link of the one that dialled."""
    world, a, b = pair()
    a.processes["b"] = b.boot
    b.processes["a"] = a.boot
    _, outcome = a.request("b")
    world.until(lambda: outcome.ended)
    [link] = a.machine.peers["b"].links
    assert link.conn.dialled
    return world, a, b, link


def test_what_was_dialled_goes_on_at_the_new_address() -> None:
    world, a, _b, link = joined()
    a.addresses["b"] = NEW
    a.machine.peer_changed("b", world.now)
    assert link.conn.address == NEW
    assert a.counters["quic.followed"] == 1
    _, outcome = a.request("b")
    world.until(lambda: outcome.ended)
    assert outcome.ok and a.machine.peers["b"].links == [link]
    a.machine.peer_changed("b", world.now)
    assert a.counters["quic.followed"] == 1, "it is there already"


def test_what_was_accepted_is_the_dialler_s_to_move() -> None:
    world, _a, b, _ = joined()
    [link] = b.machine.peers["a"].links
    before = link.conn.address
    b.addresses["a"] = NEW
    b.machine.peer_changed("a", world.now)
    assert link.conn.address == before


def test_another_process_or_none_that_is_known_is_not_followed() -> None:
    for process in (b"another!", None):
        world, a, _b, link = joined()
        before = link.conn.address
        del a.processes["b"]
        if process is not None:
            a.processes["b"] = process
        a.addresses["b"] = NEW
        a.machine.peer_changed("b", world.now)
        assert link.conn.address == before


def test_an_address_that_is_not_known_is_none() -> None:
    world, a, _b, link = joined()
    before = link.conn.address
    del a.addresses["b"]
    a.machine.peer_changed("b", world.now)
    assert link.conn.address == before
