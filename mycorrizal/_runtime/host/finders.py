"""The ways to find members to join: one finder for each entry of ``join``, and the threads that ask them.

A finder is anything with ``find(cluster, timeout) -> list[str]``, whose texts
are entries as ``join`` takes them (``host``, ``host:port``,
``name/host:port``), and maybe ``advertise(record)`` and ``close()``. It is
asked on a thread of its own: resolvers and other people's code block for as
long as they like, and a caller waits only until its deadline.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

from ..._wire.text import text_of
from ...exceptions import ConfigError, OperationTimeout, PeerUnreachable, ResourcesExhausted
from ..net import addresses
from ..threads.deadline import Deadline
from ..threads.shortage import exhausted, start_thread
from ..threads.starting import own_thread
from ..threads.waits import wait_sliced
from .rundir import RuntimeDir

__all__ = ["GROUP", "SEEDS_MAX", "Ask", "Finder", "ask_all", "entries_of", "finder_of"]

GROUP = "mycorrizal.discovery"
"""Entry points of this group add schemes; the name of each is the scheme."""
SEEDS_MAX = 256
FOUND_MAX = 64
"""Entries taken from one finder: a large cluster must not become a join storm."""

_AT_ONCE = 8
_HANGING_MAX = 32
_LONGEST = 30.0  # seconds for one finder, when the caller would wait for ever
_SHARE = 0.8  # of the time that a finder is given: what it found has to be handed over in time, too

_threads = threading.BoundedSemaphore(_HANGING_MAX)
"""Threads that ask; those that hang in a resolver keep their place until it answers."""

T = TypeVar("T")
Ask = Callable[[str, Any, float], Any]
"""Called with a seed, its finder and the seconds there are."""


class Finder(Protocol):
    """One way to find members. ``find`` is called on a thread of its own and should keep to `timeout` (seconds)."""

    def find(self, cluster: str, timeout: float) -> list[str]:
        """Return what to join; nothing if nobody is there yet."""


# -- which finder ----------------------------------------------------------------------------------


def finder_of(seed: str, rundir: RuntimeDir | None, port: int) -> Finder:
    """Return the finder for one entry of ``join``.

    Raises:
        ConfigError: there is no such scheme, its extra is not installed, or the rest is wrong.
    """
    if not isinstance(seed, str):
        raise ConfigError("join", f"{seed!r} is not text", hint="write 'host', 'host:port' or 'name/host:port'")
    scheme, separator, location = seed.strip().partition("://")
    if not separator:
        return _Plain(seed, port)
    if scheme == "dns":
        return _Names(location, port)
    if scheme == "local":
        return _Local(location, rundir)
    try:
        if scheme == "srv":
            from .srv import ServiceRecords

            return ServiceRecords(location)
        if scheme == "mdns":
            from .mdns import Multicast

            return Multicast(location)
    except ImportError as exc:
        extra = {"srv": "dns"}.get(scheme, scheme)
        hint = f"pip install 'mycorrizal[{extra}]'"
        raise ConfigError("join", f"{seed!r} needs a package that is not installed: {exc}", hint=hint) from exc
    return _foreign(scheme, location, seed)


class _Plain:
    """``host``, ``host:port`` or ``name/host:port``: ``join`` itself resolves it."""

    def __init__(self, text: str, port: int) -> None:
        self._text = addresses.with_port(text, port)

    def find(self, cluster: str, timeout: float) -> list[str]:
        return [self._text]


class _Names:
    """``dns://name[:port]``: every address that the system's resolver has for the name."""

    def __init__(self, location: str, port: int) -> None:
        entry = addresses.parse_entry(location, port)
        if entry.name:
            raise ConfigError("join", f"'dns://{location}' holds a '/'", hint="write dns://name or dns://name:port")
        self._host, self._port = entry.host, entry.port

    def find(self, cluster: str, timeout: float) -> list[str]:
        return [addresses.ensure_port(host, port) for host, port in addresses.resolve(self._host, self._port)]


class _Local:
    """``local://``: this user's agents on this host."""

    def __init__(self, location: str, rundir: RuntimeDir | None) -> None:
        if location:
            raise ConfigError("join", f"'local://{location}': nothing comes after local://")
        self._rundir = RuntimeDir(create=False) if rundir is None else rundir

    def find(self, cluster: str, timeout: float) -> list[str]:
        return [record.entry for record in self._rundir.agents(cluster)]


class _Function:
    """An entry point that is a function ``find(location, cluster, timeout)``."""

    def __init__(self, function: Callable[[str, str, float], list[str]], location: str) -> None:
        self._function = function
        self._location = location

    def find(self, cluster: str, timeout: float) -> list[str]:
        return self._function(self._location, cluster, timeout)


def _foreign(scheme: str, location: str, seed: str) -> Finder:
    """Return the finder of an entry point: a class is made with what comes after ``://``, a function called with it."""
    from importlib.metadata import entry_points  # late: few need it, and it brings email, zipfile and csv

    found = entry_points(group=GROUP, name=scheme)
    for point in found:
        try:
            target = point.load()
            if not isinstance(target, type):
                return _Function(target, location)
            finder = target(location)
        except ConfigError:
            raise
        except Exception as exc:
            raise ConfigError("join", f"{seed!r}: {point.value} failed: {type(exc).__name__}: {exc}") from exc
        if not callable(getattr(finder, "find", None)):
            raise ConfigError("join", f"{seed!r}: {point.value} has no find(cluster, timeout)")
        return finder  # type: ignore[no-any-return]
    others = entry_points(group=GROUP)
    known = sorted({"dns", "local", "mdns", "srv", *(point.name for point in others)})
    hint = f"there are {', '.join(known)}; a package adds more by an entry point in {GROUP}"
    raise ConfigError("join", f"{seed!r}: nobody knows how to find agents by {scheme!r}", hint=hint)


# -- asking them -------------------------------------------------------------------------------------


def ask_all(finders: Mapping[str, Finder], ask: Ask, deadline: Deadline) -> dict[str, Any]:
    """Return what `ask` returned or raised for each finder, by seed; one that hangs has an ``OperationTimeout``.

    At most a few at a time, each on a daemon thread that is left behind if it hangs; those are bounded too.
    """
    waiting, answers = deque(finders.items()), queue.SimpleQueue[tuple[str, Any]]()
    outcomes: dict[str, Any] = {}
    end = Deadline(deadline.capped(_LONGEST))
    places = _threads

    def work() -> None:
        try:
            while not end.passed:
                try:
                    seed, finder = waiting.popleft()
                except IndexError:
                    return
                answers.put((seed, _outcome(partial(ask, seed, finder, end.capped(_LONGEST) * _SHARE))))
        finally:
            places.release()

    started, short = 0, None
    while started < min(_AT_ONCE, len(finders)) and places.acquire(blocking=False):
        try:
            start_thread(own_thread(f"mycorrizal-finder-{started}", work))
        except ResourcesExhausted as exc:
            places.release()
            short = exc
            break
        started += 1

    def answered(seconds: float) -> bool:
        try:
            seed, outcome = answers.get(timeout=None if seconds < 0 else seconds)
        except queue.Empty:
            return False
        outcomes[seed] = outcome
        return True

    while started and len(outcomes) < len(finders) and not end.passed:
        wait_sliced(answered, end)
    text = "has not answered in time" if started else f"is not asked: {_HANGING_MAX} earlier lookups hang"
    for seed in finders:
        late = OperationTimeout(f"{seed} {text}", node=seed, operation="join")
        outcomes.setdefault(seed, late if started or short is None else short)
    return outcomes


def _outcome(call: Callable[[], T]) -> T | Exception:
    try:
        return call()
    except Exception as exc:
        return exhausted(exc, "nobody can be looked for", operation="join") or exc
    except BaseException as exc:  # a finder that ends the process ends nothing, and is not waited for
        return PeerUnreachable(f"the finder raised {type(exc).__name__}: {text_of(exc)}", operation="join")


def entries_of(seed: str, found: Any, port: int) -> list[str]:
    """Return what a finder found, each with a port, checked: it may be other people's code.

    Raises:
        PeerUnreachable: it is not a list of entries.
    """
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise PeerUnreachable(f"{seed} gave {type(found).__name__}, not a list of entries", node=seed)
    entries = []
    for text in list(found)[:FOUND_MAX]:
        try:
            entries.append(addresses.with_port(text, port))
        except ConfigError as exc:
            raise PeerUnreachable(f"{seed} gave what is no entry: {exc}", node=seed) from exc
    return entries
