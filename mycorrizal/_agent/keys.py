"""``agent.keys``: the cluster's keys, changed on all agents at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._runtime.identity import gossip_key
from .._wire.security import Keyring
from .._wire.text import logger
from ..config import weakness
from ..exceptions import ConfigError

if TYPE_CHECKING:
    from ..dataplane import Results

__all__ = ["Keys", "Rings", "derivation"]

log = logger("mycorrizal.agent")


class Rings:
    """The keyrings of both planes, kept in step: the user's keys for QUIC, what is derived from them for gossip.

    Any thread; each ring's changes are single steps.

    Args:
        keep: takes the key in use, if agents that start later on this host have to find it.
    """

    def __init__(
        self, data: Keyring, gossip: Keyring, derive: Callable[[bytes], bytes], keep: Callable[[bytes], object] | None
    ) -> None:
        self._data = data
        self._gossip = gossip
        self._derive = derive
        self._keep = keep

    def keys(self) -> tuple[bytes, ...]:
        """Return the user's keys, the one in use first."""
        return self._data.keys()

    def change(self, operation: str, key: bytes) -> None:
        """Carry out ``add``, ``use`` or ``remove``.

        Raises:
            ConfigError: a key of a wrong length or a weak one, one that is not installed, or the one in use; or it is
                in use now, and cannot be kept for the agents that start later on this host.
        """
        if operation not in ("add", "use", "remove"):
            raise ConfigError("operation", f"{operation!r} is none", hint="add, use or remove")
        getattr(self._data, operation)(key)
        getattr(self._gossip, operation)(self._derive(key))
        if operation == "add" and (why := weakness(key)) is not None:  # the rings of a Go cluster take it
            log.warning("! a key was added that %s; give the cluster another one", why)
        if operation == "use" and self._keep is not None:
            self._keep(key)


class Keys:
    """Changes the keys of the whole cluster; made by ``Agent``.

    A rotation is ``add(new)``, ``use(new)``, ``remove(old)``, each once the one
    before has no errors left. An agent that was away meanwhile comes back as
    long as the others still have a key that it has too.

    Threads: any. ``add``, ``use`` and ``remove`` block.
    """

    def __init__(self, rings: Rings | None, ask: Callable[[list[Any], float | None], Results]) -> None:
        self._rings = rings
        self._ask = ask

    def list(self) -> tuple[bytes, ...]:
        """Return this agent's keys, the one in use first; empty without encryption."""
        return () if self._rings is None else self._rings.keys()

    def add(self, key: bytes, timeout: float | None = 10.0) -> Results:
        """Let every agent accept `key` too. Returns ``Results``: True by node name, and the errors of the others.

        Raises:
            ConfigError: a key of a wrong length, one that can be guessed (with ``wire="msgpack"`` it is taken, with a
                warning), or a cluster without keys.
            NotRunningError, ServiceCrashed, ReentrantCallError, ForkedProcessError
        """
        return self._change("add", key, timeout)

    def use(self, key: bytes, timeout: float | None = 10.0) -> Results:
        """Let every agent encrypt and prove with `key`, which it has. Returns and raises as ``add``."""
        return self._change("use", key, timeout)

    def remove(self, key: bytes, timeout: float | None = 10.0) -> Results:
        """Let no agent accept `key` any more; connections proved with it end. Returns and raises as ``add``."""
        return self._change("remove", key, timeout)

    def _change(self, operation: str, key: bytes, timeout: float | None) -> Results:
        if self._rings is None:
            raise ConfigError("key", "this cluster has no keys", hint="start its agents with key=")
        # Here first: what was proved with a removed key is closed and dialled anew before we tell the others.
        self._rings.change(operation, key)
        return self._ask([operation, key], timeout)

    def __repr__(self) -> str:
        return f"<Keys: {len(self.list())}>"  # never a key


def derivation(wire: str, cluster: str) -> Callable[[bytes], bytes]:
    """Return how gossip's key follows from the user's: Go peers have the key itself."""
    return bytes if wire == "msgpack" else lambda key: gossip_key(key, cluster)
