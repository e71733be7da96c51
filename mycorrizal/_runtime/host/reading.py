"""Small files that a user names: read whole, bounded, never waited for, and judged by who else may read them."""

from __future__ import annotations

import os
import stat

from ..._keylike import file_name, may_be_key
from ...exceptions import ConfigError
from ..threads import platform
from ..threads.shortage import exhausted

__all__ = ["READING", "content", "read"]

READING = os.O_RDONLY | platform.NONBLOCK | platform.CLOEXEC | platform.BINARY
"""How a file is opened that may be a pipe nobody writes to."""

_KEY_ITSELF = "a key itself is given as key=, or in MYCORRIZAL_KEY"


def read(path: str, given: str, most: int, setting: str) -> tuple[bytes, str | None]:
    """Return a regular file's content, and why it is not private if it is not.

    Args:
        given: the path as it was written; it is not shown if it may be a key.

    Raises:
        ConfigError: it cannot be read, or is too large to be what it should be.
    """
    shown = file_name(path, given)
    try:
        descriptor = os.open(path, READING)
    except OSError as exc:
        reason, short = exc.strerror, exhausted(exc, f"cannot read {shown}")
    except ValueError as exc:
        reason, short = str(exc), None  # text that no file system has
    else:
        return content(descriptor, shown, most, setting)
    # Outside of the handlers: what they caught holds the path, which may be a key.
    hint = _KEY_ITSELF if may_be_key(given) else None
    raise short or ConfigError(setting, f"cannot read {shown}: {reason}", hint=hint)


def content(descriptor: int, shown: str, most: int, setting: str) -> tuple[bytes, str | None]:
    """As ``read``, of what is open already; closes it. Errors call it `shown`."""
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(setting, f"{shown} is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(most + 1)
    except OSError as exc:
        short = exhausted(exc, f"cannot read {shown}")
        raise short or ConfigError(setting, f"cannot read {shown}: {exc.strerror}") from exc
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise ConfigError(setting, f"{shown} has more than {most} bytes")
    return data, _not_private(found)


def _not_private(found: os.stat_result) -> str | None:
    """Return why others may read the file, None if they may not.

    A service's secret often belongs to root and is given to the service's group: that is private enough.
    """
    allowed = stat.S_IRGRP if found.st_uid == 0 != platform.user() else 0
    if found.st_uid != 0 and not platform.ours(found):
        return f"belongs to user {found.st_uid}"
    if platform.open_to_others(found) & ~allowed:
        return f"others can read it (mode {stat.S_IMODE(found.st_mode):04o})"
    return None
