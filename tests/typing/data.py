"""Every public name of the data plane in use, as a type checker sees it; nothing here runs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, assert_type

from mycorrizal import (
    Codecs,
    DataConfig,
    DataPlane,
    Keyring,
    Memberlist,
    Message,
    MycorrizalError,
    PeerInfo,
    ReceivedFile,
    RemoteError,
    Request,
    Results,
    Stream,
)


def opening(cluster: Memberlist) -> DataPlane:
    """By key, by keyring, by certificates, in the open."""
    DataPlane("a", key=b"k" * 32, cluster="prod", peers={"b": ("10.0.0.5", 7947)}).close(timeout=1)
    DataPlane("a", certificates=("node.pem", "node.key", "ca.pem"), bind="0.0.0.0", port=7947)
    DataPlane("a", insecure=True, config=DataConfig(spin=None).replace(spin=0.0003), codecs=Codecs())
    with DataPlane("a", key=Keyring(primary=b"k" * 32)) as plane:
        plane.follow(cluster)
        plane.add_peer("b", ("127.0.0.1", 7947))
        plane.remove_peer("b")
        assert_type(plane.connect(("127.0.0.1", 7947), timeout=1), str)
        assert_type(plane.port, int)
        assert_type(plane.address, tuple[str, int])
    return plane


def telling(plane: DataPlane) -> None:
    """Messages and requests."""
    plane.send("b", {"step": 1}, timeout=1, progress=print)
    assert_type(plane.receive(timeout=1), Message)
    assert_type(plane.messages(), Iterator[Message])
    sent: Future[None] = plane.send_async("b", b"x")
    answer: Future[Any] = plane.request_async("b", "mean", [1])
    print(sent.done(), answer.done())
    results = plane.request_all(["b", "c"], "mean", [1])
    assert_type(results, Results)
    assert_type(results.errors, dict[str, MycorrizalError])
    try:
        plane.request("b", "mean", [1], timeout=None)
    except RemoteError as error:
        assert_type((error.type, error.text), tuple[str, str])


def serving(plane: DataPlane) -> None:
    """Handlers keep their type."""

    @plane.on_request("mean")
    def mean(request: Request) -> float:
        assert_type(request.sender, str)
        assert_type(request.deadline, float | None)
        return float(sum(request.value))

    @plane.on_stream("upper")
    def upper(stream: Stream) -> None:
        for line in stream:
            stream.write(line.upper())

    assert_type(mean(Request("mean", [1], "b", None)), float)
    print(upper)


def moving(plane: DataPlane) -> None:
    """Streams and files."""
    with plane.open_stream("b", "upper", timeout=1) as stream:
        stream.write(b"x")
        stream.close_write()
        assert_type(stream.read(), bytes)
    assert_type(plane.send_file("b", "data.bin", progress=print), int)
    received = plane.receive_file(Path("inbox"), timeout=1)
    assert_type(received, ReceivedFile)
    assert_type(received.path, Path)


def watching(plane: DataPlane) -> None:
    """Statistics."""
    for peer in plane.peers():
        assert_type(peer, PeerInfo)
        assert_type(peer.rtt, float)
    assert_type(plane.metrics(), dict[str, int])
