"""``agent.cache(name)``: a cache that all agents of a cluster hold together.

::

    features = agent.cache("features", ttl=60)
    features["x"] = array                                  # on its replicas when this returns
    features.get("x")                                      # from any agent; without a thread switch if it is here
    features.get_or_compute("y", lambda: expensive("y"))   # one agent computes, the others wait
    with features.lock("job") as lock:
        write(..., fence=lock.token)

Entries are spread over the agents that open the cache, each on `replicas` of
them. What holds when agents fail or are cut off from each other is in
docs/guarantees.md, sentence by sentence.

Threads: every method may be called on any thread. Reads of what is held here
do not block; everything else takes ``timeout`` in seconds, where None waits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar, overload
from zlib import crc32

from ._cache.definition import Definition
from ._cache.entry import LOCK_PREFIX, NEVER, Entry
from ._cache.near import Near
from ._cache.operations import Batch, Kind, Op, Result, Status
from ._cache.outcomes import checked as _checked
from ._cache.outcomes import failed
from ._cache.placement import PARTITIONS
from ._cache.reading import held
from ._cache.reading import raw_key as _raw
from ._cache.survey import CLEAR_KEYS, Cursor
from ._endings import unreadable
from ._runtime.cache.caching import CacheHost, new_id
from ._runtime.threads.clock import now as _now
from ._runtime.threads.deadline import Deadline, Seconds
from ._runtime.threads.lifecycle import Handle
from ._wire.canonical import equal
from ._wire.lent import LEND_MIN, Lent
from ._wire.value_guard import VALUE_BYTES_MAX
from ._wire.values import Codecs, Encoded, decode_held, encode_value, pack_plain
from .config import check_function
from .exceptions import (
    ConfigError,
    MycorrizalError,
    NotACounter,
    OperationTimeout,
)
from .leases import Computation, Lock, Patience, milliseconds, refuse_own_key, seconds_of, take_lock
from .mapping import ABSENT, Absent, CacheMapping, Found, V
from .memo import Memoizing
from .types import as_builtin, frameless, html_table, html_text, printable

__all__ = ["ABSENT", "Cache", "Versioned"]

_SECONDS = 10.0
_OPS_AT_ONCE = 1 << 13  # of one caller under way: an eighth of what the machine takes of all
_EXPECTED_MAX = 1 << 16  # bytes of an expected value that travel to be compared
_ONE_FORM = frozenset({type(None), bool, int, float, str, bytes})  # their encoding stands for their equality
_VALUE_MAX = VALUE_BYTES_MAX - (1 << 20)  # with what travels beside it, a value fits into a message
_MASK = PARTITIONS - 1


_T = TypeVar("_T")


class _Unset:
    def __repr__(self) -> str:
        return "the cache's own"


_UNSET: Final = _Unset()

Ttl = Seconds | None | _Unset


class Versioned(NamedTuple, Generic[V]):
    """A value, and the version that its write gave it."""

    value: V
    version: int


class Cache(Handle, CacheMapping[V], Memoizing):
    """One cache of the cluster. Made by ``Agent.cache``. Keys are text; values are what the data plane carries.

    For a type checker it is one of anything, unless its caller says of what:
    ``counts: Cache[int] = agent.cache("counts")``. Nothing checks that when it runs.
    """

    def __init__(self, host: CacheHost, definition: Definition, codecs: Codecs) -> None:
        self.definition = definition
        self.name = definition.name
        self._host = host
        self._codecs = codecs
        self._readable = host.readable(definition.name)
        self._near: Near | None = None
        self.defined(definition)
        self._hits = itertools.count()  # by readers on any thread, one step each; some may be lost without GIL

    def defined(self, definition: Definition) -> None:
        """The cache has these settings from now on. The agent's to call."""
        self.definition = definition
        self._near = self._host.near(definition.name) if definition.near else None

    # -- reading ------------------------------------------------------------------------------

    @overload
    def get(self, key: str, default: None = None, timeout: Seconds | None = ...) -> V | None: ...

    @overload
    def get(self, key: str, default: V | _T, timeout: Seconds | None = ...) -> V | _T: ...

    def get(self, key: str, default: Any = None, timeout: Seconds | None = _SECONDS) -> Any:
        """Return the value of `key`, or `default`. Blocks only if another agent has to be asked.

        What is returned is the caller's own; a large array is a read-only view of the entry.

        Raises:
            CacheUnavailable: no agent could be asked before the deadline.
            ValueDecodeError: the value cannot be read here, since a codec or NumPy is missing or a codec raises.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        raw = key.encode() if type(key) is str and key.isascii() else _raw(key)
        entry = self._readable[crc32(raw) & _MASK].get(raw)  # as in _here, without the calls
        if entry is not None and ((expires := entry.expires) == NEVER or expires > _now()) and raw[0]:
            entry.visited = True
            next(self._hits)
            try:
                return decode_held(entry.value, self._codecs)
            except MycorrizalError:
                return self._decoded(key, entry.value, "get")  # which says what it is
        encoded = self._found(key, timeout)
        return default if encoded is None else self._decoded(key, encoded, "get")

    def _found(self, key: str, timeout: Seconds | None) -> bytes | None:
        """Return the value of `key` as it is encoded, None if it is not there."""
        entry = self._here(raw := _raw(key))
        if entry is not None:
            return entry.value
        result = self._one(Op(Kind.GET, raw), timeout, "get")
        return result.value if result.status == Status.OK else None

    def _decoded(self, key: str, encoded: bytes, operation: str) -> Any:
        try:
            return decode_held(encoded, self._codecs)
        except MycorrizalError as error:
            self._host.note("cache.unreadable", error)
            raise unreadable(error, f"key {key!r:.80} of {self!r}", operation=operation) from error.__cause__

    def _here(self, raw: bytes) -> Entry | None:
        """Return the entry if it is held here and may be read."""
        entry = held(self._readable, self._near, raw, _now())
        if entry is not None:
            next(self._hits)
        return entry

    def __getitem__(self, key: str) -> V:
        found = self.get(key, ABSENT)
        if found is ABSENT:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._found(key, _SECONDS) is not None

    def get_many(self, keys: Iterable[str], timeout: Seconds | None = _SECONDS) -> Found[V]:
        """Return the values of those keys that are there. Blocks. Raises as ``get``.

        A value that cannot be read here hides none of the others: its error is in ``errors`` of the result.
        """
        found, values, asked = Found[V](), dict[str, bytes](), dict[str, bytes]()
        readable, near, now = self._readable, self._near, _now()
        for key in keys:
            raw = key.encode() if type(key) is str and key.isascii() and key[:1] > "\0" else _raw(key)
            entry = readable[crc32(raw) & _MASK].get(raw) if near is None else held(readable, near, raw, now)
            if entry is None or entry.expires <= now:
                asked[key] = raw
            else:
                entry.visited = True
                next(self._hits)
                values[key] = entry.value
        results = self._many(Kind.GET, list(asked), list(asked.values()), timeout, "get_many")
        for key, result in zip(asked, results, strict=True):
            if result.value is not None:
                values[key] = result.value
        codecs = self._codecs
        for key, encoded in values.items():
            try:
                found[key] = decode_held(encoded, codecs)  # type: ignore[assignment]  # a cast costs a call
            except MycorrizalError:
                try:
                    found[key] = self._decoded(key, encoded, "get_many")  # which says what it is
                except MycorrizalError as error:
                    found.errors[key] = frameless(error)
        return found

    def get_versioned(self, key: str, timeout: Seconds | None = _SECONDS) -> Versioned[V] | None:
        """Return the value of `key` with its version, straight from its primary; None if it is not there. Blocks."""
        result = self._one(Op(Kind.GET, _raw(key)), timeout, "get_versioned")
        if result.status != Status.OK or result.value is None:
            return None
        return Versioned(self._decoded(key, result.value, "get_versioned"), result.version)

    # -- writing ------------------------------------------------------------------------------

    def set(self, key: str, value: V, ttl: Ttl = _UNSET, timeout: Seconds | None = _SECONDS) -> None:
        """Write `key`; when this returns all its copies have it. Blocks.

        A large `value` is not copied first: change it on no other thread meanwhile. However this ends, afterwards
        it may be changed, and nothing of that is stored.

        Args:
            ttl: seconds it lives; None: for ever; left out: as the cache says.

        Raises:
            CacheUnavailable: no primary took it in time; nothing happened.
            CacheOutcomeUnknown: it was sent, and no answer told the outcome (``indeterminate``).
            ConfigError: a key that is none. ValueEncodeError, ValueTooLarge: `value` cannot be stored.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        self._put(Kind.SET, _raw(key), self._encode(value), self._ms(ttl), timeout, "set")

    def set_many(self, items: Mapping[str, V], ttl: Ttl = _UNSET, timeout: Seconds | None = _SECONDS) -> None:
        """Write all `items`, each as ``set`` does but in few messages; large values go one after the other. Blocks.

        Raises: as ``set``; of several that failed the first is raised, ``keys`` of it are those that failed or that
            it did not come to, and all others have been written. Nothing is written if one cannot be encoded.
        """
        left, deadline = self._ms(ttl), Deadline(timeout)
        names, values, lent = dict[bytes, str](), dict[bytes, bytes](), dict[bytes, Encoded]()
        for key, value in items.items():
            raw = key.encode() if type(key) is str and key.isascii() and key[:1] > "\0" else _raw(key)
            names[raw], packed = key, pack_plain(value)
            if packed is None:
                encoded = self._encode(value)
                if self._lends(raw, encoded):
                    lent[raw] = encoded
                    continue
                packed = encoded.pack()
            values[raw] = packed
        try:
            keys = [names[raw] for raw in (*values, *lent)]
            self._many(Kind.SET, keys, list(values), timeout, "set_many", list(values.values()), left)
            for raw in list(lent):
                try:
                    self._put(Kind.SET, raw, lent.pop(raw), left, deadline.remaining(), "set_many")
                except MycorrizalError as error:
                    error.keys = (names[raw], *[names[other] for other in lent])
                    raise
        finally:
            values.clear()  # an error keeps this frame
            lent.clear()

    def __setitem__(self, key: str, value: V) -> None:
        self.set(key, value)

    def add(self, key: str, value: V, ttl: Ttl = _UNSET, timeout: Seconds | None = _SECONDS) -> bool:
        """Write `key` if it is not there; return whether it was written. Blocks. Raises as ``set``.

        Under partition both sides may write it; see ``quorum`` in docs/guarantees.md for when not.
        """
        return self._put(Kind.ADD, _raw(key), self._encode(value), self._ms(ttl), timeout, "add").status == Status.OK

    def compare_and_set(
        self, key: str, expected: Any, value: V, ttl: Ttl = _UNSET, timeout: Seconds | None = _SECONDS
    ) -> bool:
        """Write `key` if its value is `expected`; return whether it was written. Blocks. Raises as ``set``.

        Linearizable while membership is stable; under partition both sides may write it, as with ``add``.

        Args:
            expected: the value, equal by type and content: the order of a dict or a set does not count, 1, 1.0 and
                True are three values; a ``Versioned`` of ``get_versioned``, compared by its version; or ``ABSENT``.
        """
        raw, deadline = _raw(key), Deadline(timeout)
        number, wanted = 0, None
        if isinstance(expected, Versioned):
            number = as_builtin(expected.version)
            if type(number) is not int or not 0 <= number < 1 << 63:
                raise ConfigError("expected", f"{number!r:.80} is no version", hint="what get_versioned has returned")
        elif expected is not ABSENT:
            wanted = self._encode(expected).pack()
        here = wanted is not None and len(wanted) > _EXPECTED_MAX
        while True:
            if here and wanted is not None:  # compared here, and by its version there
                found = self._one(Op(Kind.GET, raw), deadline.remaining(), "compare_and_set")
                if found.value is None or not equal(found.value, wanted, self._codecs):
                    return False
                number = found.version
            left, sent = deadline.remaining(), None if here else wanted
            result = self._put(Kind.CAS, raw, self._encode(value), self._ms(ttl), left, "compare_and_set", number, sent)
            if result.status == Status.OK or wanted is None or type(expected) in _ONE_FORM:
                return result.status == Status.OK
            here = True  # other bytes may be an equal value

    def incr(self, key: str, by: int = 1, ttl: Ttl = _UNSET, timeout: Seconds | None = _SECONDS) -> int:
        """Add `by` to the integer under `key`, 0 if it is not there; return the sum. Blocks. Raises as ``set``.

        An entry that is there keeps the time it has to live. Linearizable while membership is stable; under
        partition each side counts for itself, and one count is lost, as with ``add``.

        Raises:
            NotACounter: the value is no integer, or the sum has more than 64 bits.
        """
        by = as_builtin(by)
        if type(by) is not int or not -(1 << 63) <= by < 1 << 63:
            raise ConfigError("by", f"{by!r:.80} is no integer of 64 bits")
        result = self._one(Op(Kind.INCR, _raw(key), number=by, ttl=self._ms(ttl)), timeout, "incr")
        if result.status == Status.NOT_COUNTER:
            raise NotACounter(f"{key!r} is no integer that {by} can be added to", operation="incr")
        return result.number

    def touch(self, key: str, ttl: Ttl = _UNSET, timeout: Seconds | None = _SECONDS) -> bool:
        """Give `key` another time to live; return whether it is there. Blocks. Raises as ``set``."""
        return self._one(Op(Kind.TOUCH, _raw(key), ttl=self._ms(ttl)), timeout, "touch").status == Status.OK

    def ttl(self, key: str, timeout: Seconds | None = _SECONDS) -> float | None:
        """Return how many seconds `key` has left to live, None if it lives for ever. Blocks as ``get`` does.

        Raises: as ``get``.
            KeyError: it is not there.
        """
        entry = self._here(raw := _raw(key))
        if entry is not None:
            return None if entry.expires == NEVER else max(0.0, entry.expires - _now())
        result = self._one(Op(Kind.GET, raw), timeout, "ttl")
        if result.status != Status.OK:
            raise KeyError(key)
        return result.ttl / 1000 if result.ttl else None

    def delete(self, key: str, timeout: Seconds | None = _SECONDS) -> bool:
        """Delete `key`; return whether it was there. No copy brings it back. Blocks. Raises as ``set``."""
        return self._one(Op(Kind.DELETE, _raw(key)), timeout, "delete").status == Status.OK

    def delete_many(self, keys: Iterable[str], timeout: Seconds | None = _SECONDS) -> int:
        """Delete `keys`; return how many were there. Blocks. Raises as ``set_many``."""
        raws = {_raw(key): key for key in keys}
        results = self._many(Kind.DELETE, list(raws.values()), list(raws), timeout, "delete_many")
        return sum([result.status == Status.OK for result in results])

    def take(self, key: str, timeout: Seconds | None = _SECONDS) -> V | Absent:
        """Delete `key` and return its value, ``ABSENT`` if it is not there; no other caller gets it. Blocks.

        As exclusive as ``compare_and_set``. Where nothing is there that is a delete too: a value that is being
        computed just then is not stored. Raises as ``set`` and ``get``; a value that cannot be read here stays.
        """
        raw, deadline = _raw(key), Deadline(timeout)
        while True:
            found = self._one(Op(Kind.GET, raw), deadline.remaining(), "take")
            # Decoded first: what cannot be read stays.
            value = ABSENT if found.value is None else self._decoded(key, found.value, "take")
            gone = self._one(Op(Kind.CAS, raw, number=found.version), deadline.remaining(), "take")
            if gone.status == Status.OK:
                return value

    def __delitem__(self, key: str) -> None:
        if not self.delete(key):
            raise KeyError(key)

    def clear(self, timeout: Seconds | None = _SECONDS) -> None:
        """Delete everything, locks too. Blocks. Raises as ``set_many``."""
        outcomes = self._host.operate(self.name, [Op(Kind.CLEAR, raw) for raw in CLEAR_KEYS], timeout, "clear")
        for outcome in outcomes:
            _checked(outcome, "clear")

    # -- computing once --------------------------------------------------------------------------

    def get_or_compute(
        self,
        key: str,
        compute: Callable[[], _T],
        ttl: Ttl = _UNSET,
        *,
        lease: Seconds = 30.0,
        refresh: Seconds = 0.0,
        stale: Seconds = 0.0,
        negative_ttl: Seconds | None = None,
        timeout: Seconds | None = 60.0,
    ) -> _T:
        """Return the value of `key`, or compute it: one caller in the cluster does, the others wait for it. Blocks.

        If the one who computes dies or takes longer than `lease`, the next one computes. Whatever `compute` raises
        is raised here, nothing is stored, and the next one computes.

        Args:
            lease: seconds that a computation may take before another caller begins.
            refresh: when fewer seconds are left to live, one caller computes anew, on a thread of its own, while
                everybody gets the old value.
            stale: seconds that a value lives beyond its time, given out (by ``get`` too) and computed anew likewise.
            negative_ttl: how long a result of None is kept, instead of `ttl`.
            timeout: seconds to wait for another caller's computation, and to store one's own.

        Raises: as ``set`` and ``get``.
            OperationTimeout: another caller computes, and was not done in time.
            ReentrantCallError: `compute` asks for its own key, on its own thread, be it through other functions.
        """
        found: _T  # what lies under a key is taken for the type of what is computed for it
        raw = _raw(key)
        refuse_own_key(self, raw)
        if refresh or stale:
            stale = seconds_of("stale", stale, zero=True)
            early = seconds_of("refresh", refresh, zero=True) + stale
        else:
            early = stale = 0.0
        entry = self._here(raw)
        if entry is not None and (not early or entry.expires == NEVER or entry.expires - _now() > early):
            found = self._decoded(key, entry.value, "get_or_compute")
            return found
        check_function("compute", compute)
        seconds = self._seconds(ttl)
        if negative_ttl is not None:
            negative_ttl = seconds_of("negative_ttl", negative_ttl)
        lease = seconds_of("lease", lease, zero=True)
        deadline = Deadline(timeout)
        wait = Patience(deadline)
        while True:
            number, early_ms = int(float(lease) * 1000), int(early * 1000)
            op = Op(Kind.LEASE, raw, new_id(), number=number, wait=wait.milliseconds(), early=early_ms)
            try:
                result = self._one(op, deadline.remaining(), "get_or_compute")
            except BaseException:  # the answer may be lost, or this a Ctrl-C: nobody shall wait for us
                self._host.withdraw(self.name, op)
                raise
            if result.status == Status.OK and result.value is not None:
                found = self._decoded(key, result.value, "get_or_compute")
                return found
            if result.status == Status.LEASED:
                store = Computation(self, raw, result.number, seconds, float(stale), negative_ttl)
                if result.value is None:
                    found = store.run(compute, deadline)
                    return found
                if not self._host.background(partial(store.run, compute, Deadline(lease))):
                    store.give_back()
                found = self._decoded(key, result.value, "get_or_compute")
                return found
            if wait.over:
                raise OperationTimeout(
                    f"{key!r} is being computed elsewhere, and was not done in time", operation="get_or_compute",
                    hint="allow more time, or a shorter lease",
                )  # fmt: skip

    # -- locks ---------------------------------------------------------------------------------

    def lock(
        self, name: str, lease: Seconds = 30.0, timeout: Seconds | None = _SECONDS, *, renew: bool = False
    ) -> Lock:
        """Take the lock `name`, waiting for it up to `timeout`; it is released by itself after `lease` seconds. Blocks.

        At most one holder while membership is stable. Under partition, or when the lease runs out, there can be
        two: pass ``lock.token`` along with each write, which is greater for each later holder, and have the receiver
        refuse a token smaller than one it has seen.

        Args:
            renew: while its ``with`` block runs, renew it from a thread of its own, each third of `lease`. Where that
                fails ``lock.held`` becomes False, and the end of the block raises ``LockLost``.

        Raises:
            OperationTimeout: another caller held it all the time.
            ReentrantCallError: the caller is inside the ``with`` block of this very lock.
            CacheUnavailable, CacheOutcomeUnknown, NotRunningError, ServiceCrashed, ReentrantCallError,
            ForkedProcessError
        """
        return take_lock(self, name, LOCK_PREFIX + _raw(name), lease, Deadline(timeout), renew)

    # -- the whole ---------------------------------------------------------------------------------

    def _pages(self, count: int, timeout: Seconds | None) -> Iterator[list[str]]:
        cursor = Cursor()
        while cursor.left:
            found, cursor = self._host.keys(self.name, cursor, count, Deadline(timeout))
            yield [raw.decode() for raw in found]

    def __len__(self) -> int:
        """Return the number of entries in the whole cluster, locks included. Blocks."""
        return sum(numbers.get("primary_entries", 0) for numbers in self.stats().values() if numbers)

    def __bool__(self) -> bool:
        return True  # a cache without entries is still a cache

    def stats(self, timeout: Seconds | None = _SECONDS) -> dict[str, dict[str, int] | None]:
        """Return the numbers of each agent that holds the cache, by name; None for one that did not answer. Blocks.

        ``entries`` and ``bytes`` it holds, ``primary_entries`` of them as primary, ``served_gets``, ``served_hits``,
        ``served_writes`` that it answered as primary, ``evicted``, ``expired``; of this agent also ``local_hits``. Each
        is ``cache.<name>`` in that agent's ``metrics()``.

        Raises:
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        return self._host.stats(self.name, Deadline(timeout), self.local_stats())

    def local_stats(self) -> dict[str, int]:
        """Return this agent's own numbers. Never blocks."""
        return {**self._host.machine.info(self.name, _now()), "local_hits": self.local_hits}

    @property
    def local_hits(self) -> int:
        """How many reads were answered from what is held here. Never blocks."""
        return _count(self._hits)

    def synced(self, timeout: Seconds | None = 60.0) -> None:
        """Wait until every copy is where it belongs, on every agent that this one sees. Blocks.

        After a restart call it on the agent that is new: the others may not have heard of it yet.

        Raises:
            OperationTimeout: that was not so in time.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        if not self._host.synced(self.name, Deadline(timeout)):
            raise OperationTimeout(
                f"the copies of cache {self.name!r} were not all in place after {timeout} s", operation="synced"
            )

    def _same(self, other: Cache) -> bool:
        """Return whether `other` is this cache, on this agent or another one that it sees. Never blocks."""
        return self.name == other.name and (self._host is other._host or self._host.sees(other._host))

    def __repr__(self) -> str:
        return f"<Cache {self.name!r} on {printable(self._host.name)}>"

    def _repr_html_(self) -> str:
        try:
            here = self._host.machine.info(self.name)
        except KeyError:  # the agent is closing
            here = {}
        defined = self.definition
        head = ("entries here", "bytes here", "ttl", "copies", "max_entries", "max_bytes", "near", "quorum")
        row = (
            here.get("entries", ""), here.get("bytes", ""), "for ever" if defined.ttl is None else f"{defined.ttl:g} s",
            defined.replicas, defined.max_entries or "", defined.max_bytes or "", defined.near, defined.quorum or "",
        )  # fmt: skip
        return f"<div>{html_text(repr(self)[1:-1])}</div>{html_table(head, [row])}"

    # -- inside ------------------------------------------------------------------------------------

    def _encode(self, value: Any) -> Encoded:
        return encode_value(value, self._codecs, limit=_VALUE_MAX)

    def _seconds(self, ttl: Ttl) -> float | None:
        seconds = self.definition.ttl if isinstance(ttl, _Unset) else ttl
        return None if seconds is None else seconds_of("ttl", seconds)

    def _ms(self, ttl: Ttl) -> int:
        seconds = self._seconds(ttl)
        return 0 if seconds is None else milliseconds(seconds)

    def _lends(self, raw: bytes, encoded: Encoded) -> bool:
        """Whether a value is sent from where it is: it is large, and goes to another agent."""
        return encoded.size >= LEND_MIN and bool(encoded.buffers) and not self._host.leads(self.name, raw)

    def _put(
        self, kind: int, raw: bytes, encoded: Encoded, ttl: int, timeout: Seconds | None, operation: str,
        number: int = 0, expected: bytes | None = None,
    ) -> Result:  # fmt: skip
        """Run an operation that writes a value; one that is sent from where it is, is lent to the loop."""
        if not self._lends(raw, encoded):
            op = Op(kind, raw, 0, 0, encoded.pack(), ttl, number, 0, 0, expected)
            return self._one(op, timeout, operation)
        op, lent = Op(kind, raw, 0, 0, None, ttl, number, 0, 0, expected), Lent(encoded)
        del encoded  # an error keeps this frame
        return _checked(self._host.lend(self.name, op, lent, timeout, operation), operation)

    def _one(self, op: Op, timeout: Seconds | None, operation: str) -> Result:
        return _checked(self._host.operate(self.name, (op,), timeout, operation)[0], operation)

    def _many(
        self, kind: int, keys: Sequence[str], raws: Sequence[bytes], timeout: Seconds | None, operation: str,
        values: Sequence[bytes] = (), ttl: int = 0,
    ) -> list[Result]:  # fmt: skip
        """Run a batch, some of it at a time; `keys` may be more than `raws`, which are its first."""
        results: list[Any] = []
        deadline = Deadline(timeout)
        for start in range(0, len(raws), _OPS_AT_ONCE):
            end = start + _OPS_AT_ONCE
            some = Batch(kind, raws[start:end], values[start:end], ttl)
            left: Sequence[int] = range(start, len(keys))
            outcomes: list[Any] = []
            try:
                outcomes = self._host.operate(self.name, some, deadline.remaining(), operation)
                bad = failed(outcomes)
                if bad:
                    left = [*[start + index for index in bad], *range(start + len(outcomes), len(keys))]
                    _checked(outcomes[bad[0]], operation)
            except MycorrizalError as error:
                error.keys = tuple([keys[index] for index in left])
                outcomes.clear()  # an error keeps this frame
                raise
            results += outcomes
        return results


def _count(counter: itertools.count[int]) -> int:
    """Return what a counter has counted, without counting."""
    return int(repr(counter)[6:-1])
