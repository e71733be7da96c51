"""``agent.keys``: the cluster's keys, changed on all agents at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from .._endings import for_call, named
from .._runtime.quic.trust.identity import gossip_key
from .._runtime.threads.waits import Exclusive, apart
from .._wire.security import Keyring
from .._wire.text import logger
from ..config import weakness
from ..exceptions import ConfigError, ResourcesExhausted
from .keytable import KeyTable

if TYPE_CHECKING:
    from ..dataplane import Results

__all__ = ["Keys", "Rings", "derivation"]

log = logger("mycorrizal.agent")


class Rings:
    """The keyrings of both planes, kept in step: the user's keys for QUIC, what is derived from them for gossip.

    Any thread; one change at a time, of both rings or of none.

    Args:
        keep: takes the key in use, if agents that start later on this host have to find it.
        name: this agent's.
        now: the time in seconds since 1970.
        on_change: called after the first change, on the thread that made it.
    """

    def __init__(
        self,
        data: Keyring,
        gossip: Keyring,
        derive: Callable[[bytes], bytes],
        keep: Callable[[bytes], object] | None,
        *,
        name: str = "",
        now: Callable[[], float] = lambda: 0.0,
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        self._data = data
        self._gossip = gossip
        self._derive = derive
        self._keep = keep
        self._name = name
        self._now = now
        self._on_change = on_change
        self._gate = Exclusive()
        self._stamped = 0
        self.table = KeyTable.start(*data.keys())

    def keys(self) -> tuple[bytes, ...]:
        """Return the user's keys, the one in use first."""
        return self._data.keys()

    def plan(self, operation: str, key: bytes) -> KeyTable:
        """Return the table after ``add``, ``use`` or ``remove``; nothing is changed yet.

        Raises:
            ConfigError: a key of a wrong length or a weak one, one that is not installed, or the one in use.
        """
        if operation == "add":
            self._check((key,))
        with self._gate:
            self._stamped = max(self._stamped + 1, self.table.latest + 1, int(self._now() * 1000))
            return self.table.changed(operation, bytes(key), (self._stamped, self._name))

    def take(self, table: KeyTable) -> None:
        """Take what `table` knows better: all of it or, with an error, nothing.

        Raises:
            ConfigError: a key is weak, or cannot be kept for the agents that start later on this host.
        """
        with self._gate:
            merged = self.table.merged(table)
            if merged == self.table:
                return
            keys, before = merged.keys(), self._data.keys()
            self._check(keys)
            if self._keep is not None and keys[0] != before[0]:
                self._keep(keys[0])  # first: it is what may fail
            self._data.replace(keys)
            self._gossip.replace(map(self._derive, keys))
            first, self.table = not self.table.latest, merged
        for why in (weakness(key) for key in keys if key not in before):
            if why is not None:  # the rings of a Go cluster take it
                log.warning("a key was added that %s; give the cluster another one", why)
        if first:
            self._on_change()

    def _check(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._data.check(key)
            self._gossip.check(self._derive(key))

    def change(self, operation: str, key: bytes) -> KeyTable:
        """Plan and take it, on a thread of its own: a Ctrl-C ends the wait, and parts no rings. Raises as both."""
        table = self.plan(operation, key)
        apart(partial(self.take, table), "mycorrizal-keys")
        return table


class Keys:
    """Changes the keys of the whole cluster; made by ``Agent``.

    A rotation is ``add(new)``, ``use(new)``, ``remove(old)``, each once the one
    before has no errors left. Of changes that several agents make at once the
    later counts, on every agent. One that was away meanwhile comes back, and is
    told, as long as the others still have a key that it has too.

    Threads: any. ``add``, ``use`` and ``remove`` block.
    """

    def __init__(
        self,
        rings: Rings | None,
        ask: Callable[[list[Any], float | None], Results],
        check: Callable[[str], object],
        name: str,
    ) -> None:
        self._rings = rings
        self._ask = ask
        self._ready = check
        self._name = name

    def list(self) -> tuple[bytes, ...]:
        """Return this agent's keys, the one in use first; empty without encryption."""
        return () if self._rings is None else self._rings.keys()

    @named("keys.add")
    def add(self, key: bytes, timeout: float | None = 10.0) -> Results:
        """Let every agent accept `key` too. Returns ``Results``: True by node name, and the errors of the others.

        Raises:
            ConfigError: a key of a wrong length, one that can be guessed (with ``wire="msgpack"`` it is taken, with a
                warning), or a cluster without keys.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        return self._change("add", key, timeout)

    @named("keys.use")
    def use(self, key: bytes, timeout: float | None = 10.0) -> Results:
        """Let every agent encrypt and prove with `key`, which it has. Returns and raises as ``add``."""
        return self._change("use", key, timeout)

    @named("keys.remove")
    def remove(self, key: bytes, timeout: float | None = 10.0) -> Results:
        """Let no agent accept `key` any more; connections proved with it end. Returns and raises as ``add``."""
        return self._change("remove", key, timeout)

    def _change(self, operation: str, key: bytes, timeout: float | None) -> Results:
        if self._rings is None:
            raise ConfigError("key", "this cluster has no keys", hint="start its agents with key=")
        self._ready(f"keys.{operation}")
        rings, failed = self._rings, None
        table = rings.plan(operation, key)
        try:
            # Here first: what was proved with a removed key is closed and dialled anew before we tell the others.
            apart(partial(rings.take, table), "mycorrizal-keys")
        except (ConfigError, ResourcesExhausted) as error:
            failed = error
        results = self._ask(table.pack(), timeout)
        for name, theirs in results.errors.items():
            results.errors[name] = for_call(theirs, theirs.indeterminate, operation=f"keys.{operation}")
        tables = {name: reply for name, reply in results.items() if name != self._name}
        for name, reply in tables.items():
            del results[name]
            try:
                told = KeyTable.unpack(reply)
            except ConfigError as error:
                results.errors[name] = error
                continue
            if told.did(operation, key):
                results[name] = True
            else:
                results.errors[name] = overruled(name)
            try:
                apart(partial(rings.take, told), "mycorrizal-keys")
            except (ConfigError, ResourcesExhausted) as error:
                failed = failed or error
        if failed is None and not rings.table.did(operation, key):
            failed = overruled(self._name)
        if failed is not None:
            results.errors[self._name] = failed
            results.pop(self._name, None)
        return results

    def __repr__(self) -> str:
        return f"<Keys: {len(self.list())}>"  # never a key


def derivation(wire: str, cluster: str) -> Callable[[bytes], bytes]:
    """Return how gossip's key follows from the user's: Go peers have the key itself."""
    return bytes if wire == "msgpack" else lambda key: gossip_key(key, cluster)


def overruled(name: str) -> ConfigError:
    """Return the error for a change that another one came before, on the agent `name`."""
    return ConfigError("key", f"a later change of the keys counts on {name}", hint="see keys.list(), then ask again")
