"""How an agent finds others to join: what is written in ``join``, taken apart and asked, all at once.

===============================  ==========================================================
``host``, ``host:port``,         the member there, by name if one is given
``name/host:port``
``dns://name[:port]``            every address that the system's resolver has
``srv://[server/]name``          SRV records; extra ``dns``
``mdns://[interface,...]``       the network segment; extra ``mdns``
``local://``                     this user's agents on this host
``scheme://...``                 what a package adds by an entry point in ``mycorrizal.discovery``
===============================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from ._runtime.host import finders
from ._runtime.host.agentrecord import AgentRecord
from ._runtime.host.finders import Finder
from ._runtime.host.rundir import RuntimeDir
from ._runtime.threads import reentry
from ._runtime.threads.deadline import Deadline
from ._runtime.threads.lifecycle import ForkGuard, Handle
from .agentconfig import check_cluster
from .exceptions import ConfigError

__all__ = ["AgentRecord", "Discovery", "Finder"]

_CLOSE_SECONDS = 3.0


class Discovery(Handle):
    """The seeds of one agent. Any thread; one call at a time.

    Args:
        cluster: whose members are looked for.
        seeds: entries as above.
        rundir: where ``local://`` looks; None: the usual place.
        port: of entries without one.

    Raises:
        ConfigError: an entry is wrong, or needs an extra that is not installed.
    """

    def __init__(
        self, cluster: str, seeds: str | Iterable[str] = (), *, rundir: RuntimeDir | None = None, port: int = 7946
    ) -> None:
        check_cluster(cluster)
        self._fork = ForkGuard()
        self._cluster = cluster
        self._port = port
        self._failures: Mapping[str, Exception] = MappingProxyType({})
        entries = dict.fromkeys([seeds] if isinstance(seeds, str) else seeds)
        if len(entries) > finders.SEEDS_MAX:
            raise ConfigError("join", f"{len(entries)} seeds", hint=f"at most {finders.SEEDS_MAX}; a few are enough")
        self._finders: dict[str, Any] = {}
        for seed in entries:
            self._finders[seed] = finders.finder_of(seed, rundir, port)

    def addresses(self, timeout: float | None = 10.0) -> list[str]:
        """Return what to join, in the order of the seeds, each once; the agent's own address may be among it.

        Never raises for a seed that leads nowhere: ``failures`` has why. One that hangs is given up after
        `timeout`, or after 30 seconds.

        Raises:
            ReentrantCallError, ForkedProcessError: on a thread that must not wait, in a forked child.
        """
        self._fork.check("Discovery")
        reentry.refuse("addresses()")
        outcomes = finders.ask_all(self._finders, self._find, Deadline(timeout))
        self._note({seed: outcomes[seed] for seed in self._finders})
        found = [entry for seed in self._finders if seed not in self._failures for entry in outcomes[seed]]
        return list(dict.fromkeys(found))

    def _find(self, seed: str, finder: Any, timeout: float) -> list[str]:
        return finders.entries_of(seed, finder.find(self._cluster, timeout), self._port)

    @property
    def failures(self) -> Mapping[str, Exception]:
        """The error of each seed that failed in the last ``addresses``, ``advertise`` or ``close``, by its text."""
        return self._failures

    def _note(self, outcomes: Mapping[str, Any]) -> None:
        failed = {seed: outcome for seed, outcome in outcomes.items() if isinstance(outcome, Exception)}
        self._failures = MappingProxyType(failed)

    def advertise(self, record: AgentRecord, timeout: float | None = 5.0) -> None:
        """Tell the kinds of discovery that want to know of this agent; ``failures`` has those that failed."""
        self._fork.check("Discovery")
        reentry.refuse("advertise()")
        asked = {seed: finder for seed, finder in self._finders.items() if hasattr(finder, "advertise")}
        self._note(finders.ask_all(asked, lambda seed, finder, timeout: finder.advertise(record), Deadline(timeout)))

    def close(self, timeout: float | None = _CLOSE_SECONDS) -> None:
        """Take back what was told; ``failures`` has those that failed.

        Idempotent; gives up after `timeout`, and does nothing in a forked child.
        """
        closing, self._finders = self._finders, {}
        if not self._fork.forked:
            asked = {seed: finder for seed, finder in closing.items() if hasattr(finder, "close")}
            self._note(finders.ask_all(asked, lambda seed, finder, timeout: finder.close(), Deadline(timeout)))

    def __enter__(self) -> Discovery:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
