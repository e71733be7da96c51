"""Which packet path the connections of this process take: the only module that knows ``fast``.

``fast`` is written in terms of aioquic's private parts. Where one is missing,
or does not behave as it did, connections are made on what aioquic documents
(``stock``). Found out once for a process: by the names, and by a trial in
which two connections, of which one is of each path, talk in memory.
"""

from __future__ import annotations

import os
import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from ..._wire.text import logger, printable
from ...exceptions import ConfigError, NotRunningError

if TYPE_CHECKING:
    from .transport import PacketPath

__all__ = ["Choice", "packet_path", "wanted"]

log = logger("mycorrizal.quic")

_VARIABLE = "MYCORRIZAL_PACKET_PATH"
_OLDEST = (1, 7, 2)
_TESTED = ("1.7.2",)
"""Versions with which all of this was tested: there the fast path is tried with itself alone, in 10 ms and not 30."""
_HINT = "install aioquic 1.7.2, or a newer mycorrizal"
_FITTING = "aioquic 1.7.2 brings the fast packet path back, or a newer mycorrizal"


class Choice(NamedTuple):
    """The path to take, and what is wrong with the fast one if it is taken for want of that."""

    path: PacketPath
    problem: str | None


def wanted() -> str:
    """Return what ``MYCORRIZAL_PACKET_PATH`` says: "fast", "stock" or "auto". Imports nothing of QUIC.

    Raises:
        ConfigError: it says something else.
    """
    said = os.environ.get(_VARIABLE) or "auto"
    if said not in ("auto", "fast", "stock"):
        raise ConfigError(_VARIABLE, f"{printable(said)!r} is no packet path", hint='"auto", "fast" or "stock"')
    return said


def packet_path() -> Choice:
    """Return the way to make connections in this process.

    ``MYCORRIZAL_PACKET_PATH`` may say "fast" or "stock"; without it, or with "auto", the fast one is taken if it fits.

    Raises:
        ConfigError: the variable says something else.
        NotRunningError: this aioquic is too old, or fits neither path; or not the one that the variable insists on.
    """
    return _choice(wanted())


@cache
def _choice(wanted: str) -> Choice:
    import aioquic  # late, as all that knows it: with the first connection

    from .stock import StockPath
    from .trial import try_out

    version = str(aioquic.__version__)
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < _OLDEST:
        raise NotRunningError(f"aioquic {version} is too old", hint=_HINT)
    if wanted != "stock":
        found = _fast(version)
        if not isinstance(found, str):
            return Choice(found, None)
        if wanted == "fast":
            raise NotRunningError(f"aioquic {version} {found}", hint=_HINT)
    stock = StockPath()
    if (wrong := try_out(stock, stock)) is not None:
        raise NotRunningError(f"aioquic {version} {wrong}", hint=_HINT)
    if wanted == "stock":
        return Choice(stock, None)
    problem = f"aioquic {version} {found}: connections take the stock packet path, which is slower; {_FITTING}"
    log.warning("%s", problem)
    return Choice(stock, problem)


def _fast(version: str) -> PacketPath | str:
    """Return the fast path, or what this aioquic lacks for it."""
    from .stock import StockPath
    from .trial import try_out

    try:
        from .fast.aio import FastPath, missing
    except (ImportError, AttributeError) as exc:
        return f"lacks a part that the fast packet path needs ({str(exc).partition(' (')[0]})"
    lacking = list(missing())
    if lacking:
        return f"lacks {', '.join(lacking)}"
    fast = FastPath()
    if version in _TESTED:
        return try_out(fast, fast) or fast
    stock = StockPath()
    return try_out(fast, stock) or try_out(stock, fast) or fast
