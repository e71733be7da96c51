"""Whether libzmq finds what it needs to start: where it does not, it ends the whole process without a word to us."""

from __future__ import annotations

import os
import threading

import zmq

from ..threads.shortage import start_thread
from ..threads.starting import own_thread

__all__ = ["first_socket"]

_DESCRIPTORS = 32
"""Of a context's two threads and the mailboxes it starts with (eight), the first socket's, and what others take
in the meantime."""
_THREADS = 2


def first_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    """Return the first socket of `context`, which is started by that. What comes later libzmq reports as errors.

    Raises:
        OSError: there are no descriptors left for it.
        ResourcesExhausted: there are no threads.
    """
    taken: list[int] = []
    done = threading.Event()
    try:
        reader, writer = os.pipe()
        taken += reader, writer
        while len(taken) < _DESCRIPTORS:
            taken.append(os.dup(reader))
        for _ in range(_THREADS):  # both at a time
            start_thread(own_thread("mycorrizal-room", done.wait))
    finally:
        done.set()
        for descriptor in taken:
            os.close(descriptor)
    return context.socket(kind)
