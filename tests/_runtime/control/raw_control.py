"""A client of the control plane that sends frames as they are."""

from __future__ import annotations

from typing import Any

import cbor2
import zmq

__all__ = ["Raw"]


class Raw:
    """A client without manners: sends frames as they are."""

    def __init__(self, endpoint: str, kind: int = zmq.DEALER, **options: Any) -> None:
        self._context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self._context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.socket.connect(endpoint)

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def ask(self, *frames: bytes) -> dict[str, Any]:
        self.send(*frames)
        return self.reply()

    def reply(self) -> dict[str, Any]:
        assert self.socket.poll(10_000), "no reply"
        table: dict[str, Any] = cbor2.loads(self.socket.recv_multipart()[-1])
        return table

    def close(self) -> None:
        self._context.destroy(linger=0)
