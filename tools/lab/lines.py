"""Lines out of a child's pipe, each within a time: what the tools ask their processes comes back so."""

from __future__ import annotations

import os
import select
import subprocess
import time

__all__ = ["Lines"]


class Lines:
    """The lines that `child` writes to its standard output, an unbuffered pipe (``bufsize=0``)."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        self._pipe = child.stdout
        self._heard = b""

    def next(self, seconds: float) -> bytes:
        """Return the next line, without its end.

        Raises:
            TimeoutError: none came within `seconds`.
            EOFError: the child has closed its end, as a rule because it has ended.
        """
        end = time.monotonic() + seconds
        while b"\n" not in self._heard:
            if not select.select([self._pipe], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"no line within {seconds:g} s")
            data = os.read(self._pipe.fileno(), 1 << 20)
            if not data:
                raise EOFError("it has ended")
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line
