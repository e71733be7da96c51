"""Codecs for what notebooks hold: frames of pandas, tables of Arrow, and classes of one's own.

::

    from mycorrizal import Agent, codecs

    mine = codecs.arrow()                          # pandas and Arrow; pip install mycorrizal[arrow]
    codecs.add(mine, Colour, Point, Path)          # an enumeration, a dataclass, paths
    agent = Agent("alice", codecs=mine)

Nothing is pickled. What arrives equals what was sent, dtypes, index and time
zones included, or the call raises ``ValueEncodeError``, which says what to do
instead. Both sides register the same; who has not gets ``ValueDecodeError`` in
the value's place (docs/frames.md).
"""

from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from ._packs.classes import add_class
from ._packs.exact import ready
from ._wire.value_codecs import Codecs
from .exceptions import ConfigError

__all__ = ["add", "arrow"]


def arrow(codecs: Codecs | None = None) -> Codecs:
    """Return `codecs`, or a new registry, with the types of pandas and Arrow, ``complex`` and ``timedelta`` in it.

    ``pyarrow.Table``; of pandas, if it is installed, ``DataFrame``, ``Series``, each kind of ``Index``,
    ``Timestamp``, ``Timedelta``, ``Period``, ``Interval``, ``NaT`` and ``NA``. Imports both packages.

    Raises:
        ConfigError: pyarrow is missing, or one of the types is registered already.
    """
    codecs = Codecs() if codecs is None else codecs
    if find_spec("pyarrow") is None:
        raise ConfigError("codecs", "pyarrow is not installed", hint="pip install 'mycorrizal[arrow]'")
    ready(codecs)
    add(codecs, complex, timedelta)
    from ._packs.tables import add_arrow  # late: who sends no frames pays for none of it

    add_arrow(codecs)
    if find_spec("pandas") is not None:
        from ._packs.frames import add_pandas

        add_pandas(codecs)
    return codecs


def add(codecs: Codecs, *kinds: type[Any]) -> Codecs:
    """Register classes by what they are, each as ``module.name``; return `codecs`.

    An enumeration travels by the name of its member (a flag by its value), a dataclass by its fields, which its
    constructor takes, and a path as text; ``Path`` is the one of this system. ``complex`` and ``timedelta`` are in
    ``arrow`` already. A class of a notebook or script is one of ``__main__``, on all sides. What a member sends goes
    through the constructor: check it there.

    Raises:
        ConfigError: a class is none of these, is registered, or is a dataclass that its fields do not make again.
    """
    for kind in kinds:
        add_class(codecs, kind)
    return codecs
