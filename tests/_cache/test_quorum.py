"""How long a quorum leaves room for two sides: until the smaller one has noticed."""

from __future__ import annotations

from mycorrizal._cache.operations import Kind, Op, Status
from mycorrizal.exceptions import CacheOutcomeUnknown, CacheUnavailable

from .harness import Caches


def test_both_sides_go_on_until_the_smaller_one_has_noticed_and_not_after() -> None:
    caches = Caches(5, quorum=3)
    names = (b"key%d" % number for number in range(1000))
    inside = [name for name in names if set(caches.owners(name)) == {0, 1}]  # all copies on the smaller side
    caches.cluster.links.partition({0, 1}, {2, 3, 4})
    for node in caches.nodes[:2]:  # the larger side notices first
        caches.cluster.suspect(caches.nodes[2:], node, 60.0)
    caches.cluster.run(2.0)
    assert [caches.one(index, Op(Kind.ADD, inside[0], value=b"v")).status for index in (0, 2)] == [Status.OK] * 2
    for node in caches.nodes[2:]:
        caches.cluster.suspect(caches.nodes[:2], node, 60.0)
    caches.cluster.run(1.0)
    for kind in (Kind.ADD, Kind.GET):
        for index in (0, 1):
            (outcome,) = caches.do(index, Op(kind, inside[1], value=b"v"))
            assert isinstance(outcome, CacheUnavailable)
    assert caches.one(2, Op(Kind.ADD, inside[1], value=b"v")).status == Status.OK


def test_with_as_many_copies_no_write_is_done_on_both_sides() -> None:
    caches = Caches(5, quorum=3, replicas=3)
    key = next(key for number in range(1000) if caches.owners(key := b"key%d" % number)[0] == 0)
    caches.cluster.links.partition({0, 1}, {2, 3, 4})
    for node in caches.nodes[:2]:
        caches.cluster.suspect(caches.nodes[2:], node, 60.0)
    caches.cluster.run(2.0)
    (outcome,) = caches.do(0, Op(Kind.ADD, key, value=b"v"))
    assert isinstance(outcome, CacheOutcomeUnknown)
    assert caches.one(2, Op(Kind.ADD, key, value=b"v")).status == Status.OK
