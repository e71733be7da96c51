"""Text of peers: made one printable line where it enters, and once more at the door of the log.

Names have to stay as they are, for they are how nodes find each other; so no
record leaves here with what would forge another one, or steer a terminal.
"""

from __future__ import annotations

import itertools
import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from ..types import printable

__all__ = ["ARGUMENT_MAX", "TRACEBACK_LINES_MAX", "Log", "logger", "printable", "text_of"]

ARGUMENT_MAX = 1000
"""Characters of one argument of a record at most."""

TRACEBACK_LINES_MAX = 500
"""Lines of a traceback at most; the text of an exception may have any number."""


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger whose user's handlers, filters and factories harm nobody: what they raise is counted, and told once.

    A record is lost for each. On a thread that is not ours what is no ``Exception``, such as a Ctrl-C, passes through.

    Attributes:
        ours: whether the caller runs on a thread of ours; set by what starts threads.
        faults: how many records were lost, in this process.
    """

    ours: Callable[[], bool] = staticmethod(lambda: False)
    faults = 0
    _numbers = itertools.count(1)

    def __init__(self, found: logging.Logger) -> None:
        super().__init__(found, {})
        self._told = False

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        try:
            if self.logger.isEnabledFor(level):
                kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
                self.logger.log(level, msg, *args, **kwargs)
        except BaseException as error:
            if not (isinstance(error, Exception) or Log.ours()):
                raise
            Log.faults = next(Log._numbers)
            self._tell(msg)

    def _tell(self, msg: object) -> None:
        """Show the traceback that is being handled on stderr, the first time, as ``logging`` does by itself."""
        if self._told:
            return
        self._told = True
        try:
            if logging.raiseExceptions:
                logging.Handler().handleError(logging.makeLogRecord({"name": self.logger.name, "msg": msg}))
        except BaseException as error:  # the user's stderr
            if not (isinstance(error, Exception) or Log.ours()):
                raise


def logger(name: str) -> Log:
    """Return the logger of this name; what is logged with it is one printable line, with tracebacks indented below it.

    The only way to a logger in this package (``tests/test_texts.py``).
    """
    found = logging.getLogger(name)
    found.addFilter(_made_printable)
    return Log(found)


def text_of(error: BaseException) -> str:
    """Return ``str(error)``, or what can be said of an error whose text raises. It is a user's class."""
    try:
        return str(error)
    except BaseException:
        return f"{type(error).__name__}, whose text cannot be made"


class _Shown:
    """An argument of a record, printable whether it is formatted with ``%s`` or ``%r``."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return self._as(str)

    def __repr__(self) -> str:
        return self._as(repr)

    def _as(self, shown: Callable[[object], str]) -> str:
        try:
            return printable(shown(self._value), ARGUMENT_MAX)
        except BaseException as error:  # a user's value: the rest of the record is worth having
            if not (isinstance(error, Exception) or Log.ours()):
                raise
            return f"<{printable(type(self._value).__name__)} that cannot be shown>"


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
