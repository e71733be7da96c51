"""A real agent's control plane amid rubbish, a flood, the deaf and a crowd: a good client is served."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable

import zmq

from mycorrizal import ControlClient
from mycorrizal._control.messages import encode_request
from mycorrizal._runtime.host.rundir import RuntimeDir

from .agents import Make, agents, runtime_dir  # noqa: F401 - fixtures

SECONDS = 4.0


class Storm:
    """Bad clients, each on a thread, until it is over."""

    def __init__(self, commands: str, events: str) -> None:
        self._commands, self._events = commands, events
        self._over = threading.Event()
        bodies: list[Callable[[], None]] = [self._rubbish, self._flood, self._deaf, self._crowd]
        self._threads = [threading.Thread(target=body) for body in bodies]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _rubbish(self) -> None:
        rng = random.Random(1)
        while not self._over.is_set():
            with socket.socket(socket.AF_UNIX) as one, contextlib.suppress(OSError):
                one.settimeout(1)
                one.connect(rng.choice((self._commands, self._events)).removeprefix("ipc://"))
                one.sendall(rng.randbytes(rng.randrange(3000)))

    def _flood(self) -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as one:
            one.setsockopt(zmq.LINGER, 0)
            one.connect(self._commands)
            while not self._over.is_set():
                with contextlib.suppress(zmq.Again):
                    one.send(encode_request(1, "members", {}), zmq.NOBLOCK)

    def _deaf(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as reader, context.socket(zmq.DEALER) as asker:
            for one, endpoint in ((reader, self._events), (asker, self._commands)):
                one.setsockopt(zmq.LINGER, 0)
                one.setsockopt(zmq.RCVHWM, 1)
                one.connect(endpoint)
            reader.setsockopt(zmq.SUBSCRIBE, b"")
            while not self._over.wait(0.001):
                with contextlib.suppress(zmq.Again):
                    asker.send(encode_request(1, "metrics", {}), zmq.NOBLOCK)

    def _crowd(self) -> None:
        while not self._over.is_set():
            with contextlib.ExitStack() as stack:
                for _ in range(100):
                    one = stack.enter_context(socket.socket(socket.AF_UNIX))
                    one.settimeout(0.2)
                    with contextlib.suppress(OSError):
                        one.connect(self._commands.removeprefix("ipc://"))
                self._over.wait(0.1)


def test_a_good_client_is_served_in_a_storm(agents: Make) -> None:  # noqa: F811
    alice, bob = agents("alice"), agents("bob")
    alice.wait_for(2)
    bob.on_request("echo")(lambda request: request.value)
    record = next(one for one in RuntimeDir().agents() if one.name == "alice")
    assert record.control is not None and record.events is not None
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    served = 0
    with Storm(record.control, record.events):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with ControlClient(record.control, 10) as client:
                assert client.call("request", node="bob", name="echo", value=served) == served
            alice.broadcast("tick", served)
            served += 1
    assert served > 0
    told = alice.metrics()
    assert told["control.busy"]
    assert told["control.handshakes_failed"] + told["control.disconnects"]  # who closes at once is not read any more
    assert told["control.faults"] == 0
    assert len(alice.members()) == 2
    with ControlClient(record.control) as client:
        assert client.call("ping")["name"] == "alice"
    deadline = time.monotonic() + 15  # connections that are gone leave no descriptor behind
    while len(os.listdir("/proc/self/fd")) > files + 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(os.listdir("/proc/self/fd")) <= files + 8
    assert threading.active_count() <= threads + 34  # workers and spares, which end when they are idle
