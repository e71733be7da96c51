"""Errors of the parts of an agent, in the names that its caller has for their settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ..exceptions import BindError, ConfigError

__all__ = ["MEMBERLIST", "PLANE", "in_words"]

MEMBERLIST: Mapping[str, str] = {
    "bind_addr": "bind", "bind_port": "port", "advertise_addr": "advertise", "advertise_port": "advertise",
    "secret_key": "key",
}  # fmt: skip
"""Fields of ``Config``, and which setting of the agent each is."""
PLANE: Mapping[str, str] = {"port": "quic_port"}
"""The same of the data plane's arguments; in hints alone, since a port is also just a port."""


@contextmanager
def in_words(names: Mapping[str, str]) -> Iterator[None]:
    """Let what is raised inside about a setting or an address name it as `names` says."""
    try:
        yield
    except (BindError, ConfigError) as error:
        text, hint = str(error), error.hint
        error.hint = hint and _reworded(hint, names)
        body = text.removesuffix(f" ({hint})")
        if names is not PLANE:
            body = _reworded(body, names)
            if isinstance(error, ConfigError):
                error.field = names.get(error.field, error.field)
        error.args = (f"{body} ({error.hint})" if error.hint else body,)
        raise


def _reworded(text: str, names: Mapping[str, str]) -> str:
    return re.sub(rf"\b({'|'.join(names)})\b", lambda found: names[found[1]], text)
