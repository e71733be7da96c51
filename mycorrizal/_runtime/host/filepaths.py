"""Paths that users give: as text, and whether another user of this host could put something else in their place.

Whoever owns a directory, or may write it, decides what its names lead to; so
does whoever owns a symbolic link. The sticky bit, as ``/tmp`` has it, leaves
each name to its owner.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TypeAlias

from ...exceptions import ConfigError
from ..threads import platform

__all__ = ["FilePath", "exposed", "path_text"]

FilePath: TypeAlias = str | os.PathLike[str]

_LINKS_MAX = 40  # as many as Linux follows


def path_text(setting: str, value: object, or_else: str = "") -> str:
    """Return a path as text.

    Args:
        or_else: what else `setting` may be, for the error.

    Raises:
        ConfigError: it is none, or has a NUL in it.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigError(setting, f"must be a path{or_else}, not {type(value).__name__}")
    text = os.fsdecode(value)
    if "\0" in text:
        raise ConfigError(setting, f"{text!a:.80} is no path: it holds a NUL")
    return text


def exposed(path: str, *, group: bool) -> str | None:
    """Return why others could replace what an absolute `path` leads to, None if only root and this user can.

    All that is on the way is judged, links and where they lead included, and so is the end of it. The owner of the
    root directory counts as root: that one has the machine anyway. In a user namespace it is ``nobody``, which stands
    for every user outside of it.

    Args:
        group: whether a group that may write counts as others; many users' own directories have a group of one.

    Raises:
        OSError: something on the way is missing, or may not be looked at.
    """
    if not platform.USERS:
        return None  # nobody can be told from another
    trusted = {0, platform.user(), os.lstat("/").st_uid}
    at, names, links = "/", _names(path), 0
    while names:
        name = names.pop()
        if name == "..":
            at = os.path.dirname(at)
            continue
        here = os.path.join(at, name)
        found = os.lstat(here)
        if found.st_uid not in trusted:
            return f"{here} belongs to user {found.st_uid}"
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), here)
            target = os.readlink(here)
            names += _names(target)
            at = "/" if os.path.isabs(target) else at
            continue
        writers = _writers(found.st_mode, group)
        if writers is not None:
            return f"{writers} may write {here} (mode {stat.S_IMODE(found.st_mode):04o})"
        at = here
    return None


def _names(path: str) -> list[str]:
    """Return the parts of `path`, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _writers(mode: int, group: bool) -> str | None:
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return None
    if mode & stat.S_IWOTH:
        return "anybody"
    return "its group" if group and mode & stat.S_IWGRP else None
