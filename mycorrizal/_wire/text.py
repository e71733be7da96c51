"""Text of peers: made one printable line where it enters, and once more at the door of the log.

Names have to stay as they are, for they are how nodes find each other; so no
record leaves here with what would forge another one, or steer a terminal.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping

from ..types import printable

__all__ = ["ARGUMENT_MAX", "TRACEBACK_LINES_MAX", "logger", "printable"]

ARGUMENT_MAX = 1000
"""Characters of one argument of a record at most."""

TRACEBACK_LINES_MAX = 500
"""Lines of a traceback at most; the text of an exception may have any number."""


def logger(name: str) -> logging.Logger:
    """Return the logger of this name; what is logged with it is one printable line, with tracebacks indented below it.

    The only way to a logger in this package (``tests/test_texts.py``).
    """
    found = logging.getLogger(name)
    found.addFilter(_made_printable)
    return found


class _Shown:
    """An argument of a record, printable whether it is formatted with ``%s`` or ``%r``."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return printable(str(self._value), ARGUMENT_MAX)

    def __repr__(self) -> str:
        return printable(repr(self._value), ARGUMENT_MAX)


def _made_printable(record: logging.LogRecord) -> bool:
    record.msg = printable(str(record.msg), ARGUMENT_MAX)
    if isinstance(record.args, Mapping):
        record.args = {name: _shown(value) for name, value in record.args.items()}
    elif record.args:
        record.args = tuple(_shown(value) for value in record.args)
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        record.exc_text = _indented("".join(traceback.format_exception(error)))
    return True


def _shown(value: object) -> object:
    return value if isinstance(value, int | float) else _Shown(value)


def _indented(text: str) -> str:
    """Return a traceback whose lines cannot be taken for records: the text of an exception may be a stranger's."""
    lines = text.rstrip("\n").split("\n")
    more = [f"  … and {len(lines) - TRACEBACK_LINES_MAX} lines"] if len(lines) > TRACEBACK_LINES_MAX else []
    return "\n".join([f"  {printable(line, ARGUMENT_MAX)}" for line in lines[:TRACEBACK_LINES_MAX]] + more)
