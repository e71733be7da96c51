"""Peers of ``tools/bench data`` that the extra ``bench`` installs: zenoh, gRPC, Pyro5."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.data.peer import Address, BaseServer, Caller, ThreadedClient, receipt

_PIECE = 1 << 20


# -- zenoh ---------------------------------------------------------------------------------


def _zenoh(link: str, work: Path, **endpoints: list[str]) -> Any:
    import zenoh

    config = zenoh.Config()
    settings: dict[str, Any] = {
        "mode": "peer",
        "scouting/multicast/enabled": False,
        "transport/shared_memory/enabled": False,
        "listen/endpoints": endpoints.get("listen", []),
        "connect/endpoints": endpoints.get("connect", []),
    }
    if link != "tcp":
        settings |= {
            "transport/link/tls/listen_private_key": str(work / "key.pem"),
            "transport/link/tls/listen_certificate": str(work / "cert.pem"),
            "transport/link/tls/root_ca_certificate": str(work / "cert.pem"),
            "transport/link/tls/verify_name_on_connect": True,
        }
    for key, value in settings.items():
        config.insert_json5(key, json.dumps(value))
    return zenoh.open(config)


class ZenohServer(BaseServer):
    """Two queryables; `link` is tcp, tls or quic."""

    def __init__(self, host: str, work: Path, link: str) -> None:
        super().__init__()
        with socket.socket(type=socket.SOCK_DGRAM if link == "quic" else socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            self.address = {"endpoint": f"{link}/{host}:{probe.getsockname()[1]}"}
        self.session = _zenoh(link, work, listen=[self.address["endpoint"]])
        self.echo = self.session.declare_queryable("bench/echo", lambda q: q.reply("bench/echo", q.payload))
        self.take = self.session.declare_queryable(
            "bench/bulk", lambda q: q.reply("bench/bulk", receipt(q.payload.to_bytes()))
        )

    def close(self) -> None:
        self.session.close()


class ZenohClient(ThreadedClient):
    """One session for all callers."""

    def __init__(self, host: str, work: Path, address: Address, link: str) -> None:
        super().__init__()
        self.session = _zenoh(link, work, connect=[address["endpoint"]])
        self.querier = self.session.declare_querier("bench/echo")

    def caller(self) -> Caller:
        ask = self.querier.get
        return lambda request: bytes(next(iter(ask(payload=request))).ok.payload.to_bytes())

    def bulk(self, value: Any) -> bytes:
        replies = self.session.get("bench/bulk", payload=value, timeout=60.0)
        return bytes(next(iter(replies)).ok.payload.to_bytes())

    def close(self) -> None:
        self.session.close()


# -- gRPC ----------------------------------------------------------------------------------

_GRPC_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def _take(pieces: Iterator[bytes], context: Any) -> bytes:
    value = bytearray()
    for piece in pieces:
        value += piece
    return receipt(value)


class GrpcServer(BaseServer):
    """Raw bytes as messages: no protobuf, which would only cost."""

    def __init__(self, host: str, work: Path) -> None:
        super().__init__()
        import grpc

        handlers = {
            "echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "bulk": grpc.stream_unary_rpc_method_handler(_take),
        }
        self.server = grpc.server(ThreadPoolExecutor(32), options=_GRPC_OPTIONS)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", handlers),))
        pair = ((work / "key.pem").read_bytes(), (work / "cert.pem").read_bytes())
        port = self.server.add_secure_port(f"{host}:0", grpc.ssl_server_credentials([pair]))
        self.server.start()
        self.address = {"target": f"{host}:{port}"}


class GrpcClient(ThreadedClient):
    """The synchronous client; one channel for all callers."""

    def __init__(self, host: str, work: Path, address: Address) -> None:
        super().__init__()
        import grpc

        credentials = grpc.ssl_channel_credentials((work / "cert.pem").read_bytes())
        options = [*_GRPC_OPTIONS, ("grpc.ssl_target_name_override", "localhost")]
        self.channel = grpc.secure_channel(address["target"], credentials, options=options)
        grpc.channel_ready_future(self.channel).result(timeout=30)
        self.ask = self.channel.unary_unary("/bench/echo")
        self.put = self.channel.stream_unary("/bench/bulk")

    def caller(self) -> Caller:
        ask = self.ask
        return lambda request: bytes(ask(request))

    def bulk(self, value: Any) -> bytes:
        return bytes(self.put(value[at : at + _PIECE] for at in range(0, len(value), _PIECE)))

    def close(self) -> None:
        self.channel.close()


# -- Pyro5 ---------------------------------------------------------------------------------


def _pyro() -> Any:
    import Pyro5.api

    # serpent, the default, would carry bytes as base64 text.
    Pyro5.api.config.SERIALIZER = "marshal"
    return Pyro5.api


class Echo:
    """The remote object."""

    def echo(self, request: bytes) -> bytes:
        return request

    def bulk(self, value: bytes) -> bytes:
        return receipt(value)


class PyroServer(BaseServer):
    """A thread for each connection, Pyro's default."""

    def __init__(self, host: str, work: Path) -> None:
        super().__init__()
        pyro = _pyro()
        self.daemon = pyro.Daemon(host=host)
        self.address = {"uri": str(self.daemon.register(pyro.expose(Echo)()))}
        threading.Thread(target=self.daemon.requestLoop, daemon=True).start()


class PyroClient(ThreadedClient):
    """A proxy for each caller: one belongs to one thread."""

    def __init__(self, host: str, work: Path, address: Address) -> None:
        super().__init__()
        self.pyro, self.uri = _pyro(), address["uri"]

    def caller(self) -> Caller:
        proxy = self.pyro.Proxy(self.uri)
        return lambda request: bytes(proxy.echo(request))

    def bulk(self, value: Any) -> bytes:
        with self.pyro.Proxy(self.uri) as proxy:
            return bytes(proxy.bulk(value))
