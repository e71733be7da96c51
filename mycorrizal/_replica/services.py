"""Services: what each life of a node says that it offers, seen as long as that life is a member.

Only the life itself writes its services, so the table needs no more than its
stamps. Who is gone takes its services out of sight at once; they stay in the
table for some minutes, for it may have been a false alarm. How long their node
has been gone travels with them, or nodes would teach each other for ever what
each had forgotten in turn.
"""

from __future__ import annotations

from collections.abc import Callable

from .limits import Limits
from .lww import Entry, LwwMap
from .messages import Sender, Service
from .outputs import Output, ServiceChanged

__all__ = ["ServiceKey", "Services"]

ServiceKey = tuple[str, bytes, str]
"""Node, boot and id."""


class Services:
    """The table and what is to be seen of it.

    Args:
        is_up: whether a life of a node is a member now; our own is.
        emit: takes ``ServiceChanged``.

    Attributes:
        view: (node, id) to record; changed in place, by the owner's thread only.
    """

    def __init__(
        self,
        limits: Limits,
        is_up: Callable[[Sender], bool],
        count: Callable[[str], None],
        emit: Callable[[Output], None],
    ) -> None:
        self._limits = limits
        self._is_up = is_up
        self._count = count
        self._emit = emit
        self.table: LwwMap[ServiceKey] = LwwMap(limits.services, limits.service_bytes, limits.service_tombstones)
        self._of: dict[Sender, dict[str, bool]] = {}  # ids of each life, and whether they are registered
        self._gone: dict[Sender, float] = {}  # since when the life of entries in the table is no member
        self.view: dict[tuple[str, str], bytes] = {}

    @property
    def orphans(self) -> int:
        """Lives that are gone and whose services are kept."""
        return len(self._gone)

    def make_room(self, service: Service, size: int, slack: float = 1.0) -> bool:
        """Return whether a live service fits beside the others, those of its node and all.

        For one that can be seen, those that cannot are forgotten, the longest gone first.
        """
        ids = self._of.get(service.life, {})
        if sum(ids.values()) - ids.get(service.id, False) >= self._limits.services_per_node:
            return False
        while not self.table.has_room(service.key, size, slack):
            if not self._gone or not self._is_up(service.life):
                return False
            self._count("services.orphans_forgotten")
            self._drop(next(iter(self._gone)))
        return True

    def put(self, service: Service, raw: bytes, now: float, age: float = 0.0) -> None:
        """Put a write that wins; `age` is how long its node, or the service, has been gone elsewhere."""
        life, since = service.life, now - age
        for key in self.table.put(service.key, Entry(service.stamp, service.record, raw, since)):
            self._unlist(key)
        ids = self._of.setdefault(life, {})
        ids.pop(service.id, None)
        ids[service.id] = service.record is not None
        if len(ids) > 2 * self._limits.services_per_node:  # ids that come and go are bounded too
            oldest = next(one for one, live in ids.items() if not live)
            self.table.drop((*life, oldest))
            self._unlist((*life, oldest))
        if self._is_up(life):
            self._show(life, service.id)
        else:
            self._gone.setdefault(life, since)

    def age(self, entry: Entry, now: float) -> float:
        """Return what travels with an entry: how long its node has been gone, or it has been deregistered."""
        since = self._gone.get(Sender(entry.stamp.writer, entry.stamp.boot))
        ages = [now - since] if since is not None else []
        if entry.value is None:
            ages.append(now - entry.since)
        return max(ages, default=0.0)

    def member_up(self, life: Sender) -> None:
        """A life of a node is a member now; other lives of that name are over."""
        self._gone.pop(life, None)
        for other in [one for one in self._of if one.name == life.name and one != life]:
            self._drop(other)
        for service_id in self._of.get(life, ()):
            self._show(life, service_id)

    def member_down(self, life: Sender, now: float) -> None:
        """It is none any more, and ``is_up`` says so."""
        if life in self._of:
            self._gone.setdefault(life, now)
        for service_id in self._of.get(life, ()):
            record = self.view.pop((life.name, service_id), None)
            if record is not None:
                self._emit(ServiceChanged("removed", life.name, service_id, record))

    def expire(self, now: float) -> None:
        """Forget the services of those who are gone for long, and old tombstones."""
        for life in [one for one, since in self._gone.items() if now - since >= self._limits.orphan_seconds]:
            self._count("services.orphans_forgotten")
            self._drop(life)
        for key in self.table.expired(now - self._limits.tombstone_seconds):
            self.table.drop(key)
            self._unlist(key)

    # -- private ------------------------------------------------------------------------

    def _drop(self, life: Sender) -> None:
        """Forget a life that is no member: nothing of it is to be seen."""
        self._gone.pop(life, None)
        for service_id in self._of.pop(life, ()):
            self.table.drop((*life, service_id))

    def _unlist(self, key: ServiceKey) -> None:
        life = Sender(key[0], key[1])
        ids = self._of.get(life, {})
        ids.pop(key[2], None)
        if not ids:
            self._of.pop(life, None)
            self._gone.pop(life, None)

    def _show(self, life: Sender, service_id: str) -> None:
        """Bring the view up to date for one service of a member, and say what changed."""
        entry = self.table.get((*life, service_id))
        record = None if entry is None else entry.value
        place = life.name, service_id
        old = self.view.get(place)
        if record is not None:
            self.view[place] = record
            if old is None:
                self._emit(ServiceChanged("added", life.name, service_id, record))
            elif old != record:
                self._emit(ServiceChanged("updated", life.name, service_id, record))
        elif old is not None:
            del self.view[place]
            self._emit(ServiceChanged("removed", life.name, service_id, old))
