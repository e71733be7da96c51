"""What aioquic tells of a connection: its log in the form of qlog, and what it says to ``logging``.

From: draft-ietf-quic-qlog-quic-events.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from aioquic.quic.logger import QuicLogger

from ..._wire.text import logger

__all__ = ["Log", "hush"]

_OURS: set[str] = set()
"""Ids of our connections, as aioquic puts them before what it says to its logger."""


class Log(QuicLogger):
    """The log of one connection: hands on what is written, and keeps nothing."""

    def __init__(self, logged: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__()
        self._logged = logged
        self._id = ""

    def start_trace(self, is_client: bool, odcid: bytes) -> Any:
        """Begin."""
        self._id = odcid.hex()
        _OURS.add(self._id)
        trace: Any = super().start_trace(is_client, odcid)
        trace.log_event = self._take
        return trace

    def _take(self, *, category: str, event: str, data: dict[str, Any], **_: object) -> None:
        self._logged(event, data)

    def forget(self) -> None:
        """It is over: let go of everything."""
        _OURS.discard(self._id)
        vars(self).clear()


_quiet = logger("mycorrizal.quic.aioquic")


def _is_of_others(record: Any) -> bool:
    """Tell whether a record of aioquic's is of a connection that is none of ours.

    It warns of every mistake of a stranger; of our connections that is for debugging alone.
    """
    text = str(record.msg)
    if text[:1] != "[" or text[1 : text.find("]")] not in _OURS:
        return True
    if record.levelno > logging.DEBUG:
        _quiet.debug("%s", record.getMessage())
    return False


def hush() -> None:
    """Have what aioquic says of our connections go where the rest of our log goes; once is enough."""
    logging.getLogger("quic").addFilter(_is_of_others)
