"""The peers of ``tools/bench data`` by name: which module has them, what they need, what of them is measured."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.data.peer import Address, Client, Server

if TYPE_CHECKING:  # imported by name, when a peer is measured; here so that a method that one lacks is found
    from benchmarks.data.others import GrpcClient, GrpcServer, PyroClient, PyroServer, ZenohClient, ZenohServer
    from benchmarks.data.ours import PlaneClient, PlaneServer
    from benchmarks.data.quic import FacadeClient, FacadeServer, QuicClient, QuicServer
    from benchmarks.data.sockets import SocketClient, SocketServer
    from benchmarks.data.zmq import ZmqClient, ZmqServer

    _CLIENTS: list[type[Client]] = [
        FacadeClient, GrpcClient, PlaneClient, PyroClient, QuicClient, SocketClient, ZenohClient, ZmqClient,
    ]  # fmt: skip
    _SERVERS: list[type[Server]] = [
        FacadeServer, GrpcServer, PlaneServer, PyroServer, QuicServer, SocketServer, ZenohServer, ZmqServer,
    ]  # fmt: skip

ONE, MANY, BULK = "one", "many", "bulk"
ALL = (ONE, MANY, BULK)


@dataclass(frozen=True)
class Peer:
    """Where a peer's server and client are, and how they are made.

    Attributes:
        label: as printed; says "plain" where nothing is encrypted although the library could.
        module, make: the module, and the prefix of its two classes (``<make>Server``, ``<make>Client``).
        options: keyword arguments for both of them.
        needs: packages without which it is reported as absent.
        parts: what is measured.
        note: printed under the table.
    """

    label: str
    module: str
    make: str
    options: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ALL
    note: str = ""

    def absent(self) -> str:
        """Return the first package that is missing, "" if none."""
        return next((name for name in self.needs if importlib.util.find_spec(name) is None), "")

    def server(self, host: str, work: Path) -> Server:
        made: Server = getattr(importlib.import_module(self.module), f"{self.make}Server")(host, work, **self.options)
        return made

    def client(self, host: str, work: Path, address: Address) -> Client:
        kind = getattr(importlib.import_module(self.module), f"{self.make}Client")
        made: Client = kind(host, work, address, **self.options)
        return made


_QUIC, _ZMQ, _OTHERS = "benchmarks.data.quic", "benchmarks.data.zmq", "benchmarks.data.others"

PEERS = {
    "ours": Peer("mycorrizal", "benchmarks.data.ours", "Plane"),
    "ours-spin": Peer("mycorrizal, spin", "benchmarks.data.ours", "Plane", {"spin": 0.001}, parts=(ONE, MANY)),
    "ours-sleeps": Peer("mycorrizal, spin=0", "benchmarks.data.ours", "Plane", {"spin": 0.0}, parts=(ONE, MANY)),
    "aioquic": Peer("aioquic, asyncio", _QUIC, "Quic", note="stock: one framed stream, 1,200-byte datagrams"),
    "aioquic-16000": Peer("aioquic, 16,000 B", _QUIC, "Quic", {"datagram": 16000}, parts=(BULK,)),
    "facade": Peer("aioquic, naive facade", _QUIC, "Facade", parts=(ONE, MANY),
                   note="run_coroutine_threadsafe(...).result(), transmit() in each request"),
    "tls": Peer("TLS sockets", "benchmarks.data.sockets", "Socket", {"tls": True}),
    "tcp": Peer("TCP sockets, plain", "benchmarks.data.sockets", "Socket"),
    "zmq-req": Peer("pyzmq REQ, plain", _ZMQ, "Zmq"),
    "zmq-dealer": Peer("pyzmq DEALER, plain", _ZMQ, "Zmq", {"dealer": True}, parts=(ONE, MANY),
                       note="one thread keeps all requests outstanding on one socket"),
    "zmq-req-curve": Peer("pyzmq REQ, CURVE", _ZMQ, "Zmq", {"curve": True}),
    "zmq-dealer-curve": Peer("pyzmq DEALER, CURVE", _ZMQ, "Zmq", {"dealer": True, "curve": True}, parts=(ONE, MANY)),
    "zenoh": Peer("zenoh tcp, plain", _OTHERS, "Zenoh", {"link": "tcp"}, ("zenoh",), note="shared memory off"),
    "zenoh-tls": Peer("zenoh tls", _OTHERS, "Zenoh", {"link": "tls"}, ("zenoh",)),
    "zenoh-quic": Peer("zenoh quic", _OTHERS, "Zenoh", {"link": "quic"}, ("zenoh",)),
    "grpc": Peer("gRPC, TLS", _OTHERS, "Grpc", needs=("grpc",), note="synchronous client; bulk as a stream of 1 MiB"),
    "pyro5": Peer("Pyro5, plain", _OTHERS, "Pyro", needs=("Pyro5",), note="serializer marshal"),
}  # fmt: skip
