"""How a file is opened with flags of our own, and nothing is left open when that fails half way."""

from __future__ import annotations

import os
from typing import IO, Any

from ..threads.platform import BINARY, CLOEXEC

__all__ = ["opened"]


def opened(path: str | os.PathLike[str], flags: int, mode: str = "rb") -> IO[Any]:
    """Return the file at `path`, opened with `flags`; one that is made is private.

    Through ``opener``: a number that ``open`` is given stays open when it finds that it is a directory's.

    Raises:
        OSError: it cannot be opened.
    """
    return open(path, mode, opener=lambda name, _: os.open(name, flags | CLOEXEC | BINARY, 0o600))
