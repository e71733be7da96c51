"""What is told of an error of a user's handler: never more than text, whatever the error does when it is looked at."""

from __future__ import annotations

import traceback

__all__ = ["told"]


def told(error: BaseException, tracebacks: bool = False) -> tuple[str, str]:
    """Return the name of an error's class, and its text or its traceback. Any thread, raises nothing."""
    kind, text = "Exception", "an error whose text cannot be made"
    try:
        kind = _plain(type(error).__name__)
        text = _plain("".join(traceback.format_exception(error)) if tracebacks else str(error))
    except BaseException:  # it is the user's code, and the peer waits for an answer
        pass
    return kind, text


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
