"""Peers of ``tools/bench data``: plain TCP and TLS sockets with length-prefixed frames, one socket a caller."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import Any

from benchmarks.data.peer import BULK_FROM, Address, BaseServer, Caller, ThreadedClient, receipt

_LENGTH = struct.Struct(">Q")


def read_frame(sock: socket.socket) -> bytes | bytearray | None:
    """Return the next frame, None at the end. One is outstanding at a time, so no read runs past a frame's end."""
    data = sock.recv(65536)
    while 0 < len(data) < _LENGTH.size:
        data += sock.recv(65536)
    if not data:
        return None
    (length,) = _LENGTH.unpack_from(data)
    if len(data) == _LENGTH.size + length:
        return data[_LENGTH.size :]
    frame = bytearray(length)
    view = memoryview(frame)
    have = len(data) - _LENGTH.size
    view[:have] = data[_LENGTH.size :]
    while have < length:
        got = sock.recv_into(view[have:])
        if not got:
            raise ConnectionError("the connection ended inside a frame")
        have += got
    return frame


class SocketServer(BaseServer):
    """A thread for each connection; plain without `tls`."""

    def __init__(self, host: str, work: Path, tls: bool = False) -> None:
        super().__init__()
        self.context: ssl.SSLContext | None = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(work / "cert.pem", work / "key.pem")
        self.listener = socket.create_server((host, 0), backlog=64)
        self.address = {"host": host, "port": self.listener.getsockname()[1]}
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            sock, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.context is not None:
            sock = self.context.wrap_socket(sock, server_side=True)
        with sock, contextlib.suppress(ConnectionError, ssl.SSLError):
            while (frame := read_frame(sock)) is not None:
                answer = receipt(frame) if len(frame) >= BULK_FROM else frame
                sock.sendall(_LENGTH.pack(len(answer)) + answer)


class SocketClient(ThreadedClient):
    """A socket for each caller: an ``SSLSocket`` must not be shared by threads."""

    def __init__(self, host: str, work: Path, address: Address, tls: bool = False) -> None:
        super().__init__()
        self.server = (address["host"], address["port"])
        self.context = ssl.create_default_context(cafile=work / "cert.pem") if tls else None

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self.server, timeout=60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A timeout makes Python poll before each read and write; blocking is what a fast client would use.
        sock.settimeout(None)
        return sock if self.context is None else self.context.wrap_socket(sock, server_hostname="localhost")

    def caller(self) -> Caller:
        sock = self.connect()

        def call(request: bytes) -> bytes:
            sock.sendall(_LENGTH.pack(len(request)) + request)
            return bytes(read_frame(sock) or b"")

        return call

    def bulk(self, value: Any) -> bytes:
        with self.connect() as sock:
            sock.sendall(_LENGTH.pack(len(value)))
            sock.sendall(value)
            return bytes(read_frame(sock) or b"")
