"""Where one user's agents on one host meet: a directory of that user alone.

Each agent has a lock file and a record, named by hashes so that any name fits
and the sockets beside them stay within what the system takes::

    <cluster>.key               32 random bytes that the cluster's agents on this host share
    <cluster>-<agent>.lock      held with flock by the process that has the name; says its number
    <cluster>-<agent>.agent     the record, replaced as a whole
    <agent>.<kind>              its sockets

The lock decides, nothing else does: the kernel lets go of it however a process
ends. Whoever gets the lock of a file knows that its agent is gone and removes
what it left. A lock file that was unlinked meanwhile is told by its inode.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import stat
import tempfile
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ..._wire.text import logger
from ...agentconfig import check_cluster
from ...exceptions import ConfigError, MycorrizalError, NameInUse, NotRunningError
from ..threads import lifecycle, platform
from ..threads.counters import Counters, QuietLog
from ..threads.deadline import Deadline
from ..threads.shortage import as_ours, exhausted, note, spare_descriptors
from .agentrecord import RECORD_MAX_BYTES, AgentRecord
from .filepaths import exposed
from .files import opened

__all__ = ["AGENTS_MAX", "SOCKET_KINDS", "SOCKET_PATH_MAX", "Claim", "RuntimeDir", "Unclaimed", "default_path"]

log = logger("mycorrizal.rundir")

AGENTS_MAX = 1024
"""Agents that are looked at; a directory with more is of something that runs wild."""
SOCKET_PATH_MAX = 103
"""Bytes in the path of a Unix socket: macOS takes 104 with the end, Linux 108."""
SOCKET_KINDS = ("control", "events", "data")

_KEY_BYTES = 32
_PID_BYTES = 16
_PATIENCE = 0.1  # seconds in which a look by another process ends
_PATIENCE_WITH_THE_DEAD = 2.0
_POLL = 0.005
_VARIABLE = "MYCORRIZAL_RUNTIME_DIR"
_HINT = f"set {_VARIABLE} to a directory of your own"

_taking = threading.RLock()
"""Held while a lock is taken and noted, and during ``fork``: a child knows each one that it has to close."""


def _before_fork() -> None:
    _taking.acquire()


def _in_parent() -> None:
    _taking.release()


def _in_child() -> None:
    global _taking  # noqa: PLW0603 - whoever held the old one is not in this process
    _taking = threading.RLock()


platform.at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)


def default_path() -> Path:
    """Return where this user's agents meet: ``$MYCORRIZAL_RUNTIME_DIR``, or below the session's or the temporary one.

    ``$XDG_RUNTIME_DIR`` counts only if it is this user's: ``su`` and ``sudo`` leave the one of whoever called them.

    Raises:
        ConfigError: there is none of these.
        ResourcesExhausted: no descriptor is left.
    """
    if chosen := os.environ.get(_VARIABLE):
        return Path(os.path.abspath(chosen))
    if session := os.environ.get("XDG_RUNTIME_DIR"):
        try:
            if os.path.isabs(session) and platform.ours(os.stat(session)):
                return Path(session, "mycorrizal")
        except OSError:
            pass
        log.debug("XDG_RUNTIME_DIR=%s is not this user's directory; it is left alone", session)
    try:
        return Path(tempfile.gettempdir(), f"mycorrizal-{platform.user()}")
    except OSError as exc:
        with as_ours("no temporary directory can be tried"):  # it says the same without a descriptor
            spare_descriptors()
        raise ConfigError("runtime_dir", f"there is no temporary directory: {exc.strerror or exc}", hint=_HINT) from exc


class RuntimeDir:
    """The directory. Any thread; holds no descriptor.

    Args:
        path: instead of ``default_path()``.
        create: make it if it is missing; without, a missing one has no agents.

    Raises:
        ConfigError: it cannot be made, or other users could have put something into it or in its place.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, create: bool = True) -> None:
        self.path = default_path() if path is None else Path(os.path.abspath(path))
        self.counters = Counters("rundir.broken", "rundir.crowded", "rundir.stale")
        self._quiet = QuietLog(log, str(self.path))
        if create or os.path.lexists(self.path):
            _check_way(self.path)
        if create:
            _make(self.path)
        if create or os.path.lexists(self.path):
            _check(self.path)

    # -- the shared key -----------------------------------------------------------------------

    def shared_key(self, cluster: str) -> bytes:
        """Return the 32 random bytes that this user's agents of `cluster` on this host share; made by the first.

        Raises:
            ConfigError: it cannot be made, or is not a private file of 32 bytes.
        """
        path = self.path / f"{_cluster_tag(cluster)}.key"
        try:
            if not path.exists():
                self._make_key(path)
            with opened(path, os.O_RDONLY | platform.NOFOLLOW) as file:
                found = os.fstat(file.fileno())
                key: bytes = file.read(_KEY_BYTES + 1)
        except OSError as exc:
            raise _trouble("use the key in", path, exc) from exc
        if len(key) != _KEY_BYTES or platform.open_to_others(found) or not platform.ours(found):
            hint = f"stop the agents of this cluster on this host, then remove {path}"
            raise ConfigError("runtime_dir", f"{path} is not a private file of {_KEY_BYTES} bytes", hint=hint)
        return key

    def keep_key(self, cluster: str, key: bytes) -> None:
        """Let ``shared_key`` return `key` from now on: the cluster uses another one.

        Raises:
            ConfigError: it cannot be written, or is not of 32 bytes.
        """
        path = self.path / f"{_cluster_tag(cluster)}.key"
        if len(key) != _KEY_BYTES:
            raise ConfigError("key", f"agents that meet on this host need one of {_KEY_BYTES} bytes, not {len(key)}")
        try:
            draft = _draft(path, key)
            try:
                os.replace(draft, path)
            except BaseException:
                _unlink(draft)
                raise
        except OSError as exc:
            raise _trouble("keep the key in", path, exc) from exc
        _settle(path.parent)

    def _make_key(self, path: Path) -> None:
        """Let exactly one of several write it: a link never replaces, and shows the file whole or not at all."""
        draft = _draft(path, os.urandom(_KEY_BYTES))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(draft)

    # -- names -------------------------------------------------------------------------------

    def claim(self, cluster: str, name: str) -> Claim:
        """Take `name` for this process until it is released, or the process ends in any way.

        Raises:
            NameInUse: a live process has it, maybe this one.
            ConfigError: the directory cannot be written.
        """
        check_cluster(cluster)
        return Claim(self.path, cluster, name)

    def agents(self, cluster: str | None = None) -> list[AgentRecord]:
        """Return what the live agents have published, oldest first; removes what dead ones left.

        Args:
            cluster: only this one's; None: all.
        """
        wanted = "" if cluster is None else _cluster_tag(cluster)
        records = [record for stem in self._stems(wanted) if (record := self._look(stem)) is not None]
        found = [record for record in records if cluster in (None, record.cluster)]
        return sorted(found, key=lambda record: (record.started, record.cluster, record.name))

    def _stems(self, prefix: str) -> list[str]:
        try:
            with os.scandir(self.path) as entries:
                names = [entry.name for entry in entries if entry.name.startswith(prefix)]
            stems = sorted(name[:-5] for name in names if name.endswith(".lock"))
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise _trouble("read", self.path, exc) from exc
        if len(stems) > AGENTS_MAX:
            self.counters.add("rundir.crowded")
            self._quiet.warning("crowded", "%d agents, of which %d are looked at", len(stems), AGENTS_MAX)
        return stems[:AGENTS_MAX]

    def _look(self, stem: str) -> AgentRecord | None:
        """Return what a live agent has published; None if it has not yet, or is gone."""
        try:
            lock = _lock(self.path / f"{stem}.lock", create=False)
        except OSError as exc:
            note(exc)
            return None
        if lock is not None:
            self.counters.add("rundir.stale")
            _remove(self.path, stem)
            os.close(lock)
            return None
        return self._read(stem)

    def vacant(self, cluster: str, name: str) -> bool:
        """Return whether no process has the lock of this name; what the last one left stays. False if nobody knows."""
        try:
            lock = _lock(self.path / f"{_stem(cluster, name)}.lock", create=False)
        except FileNotFoundError:
            return True
        except OSError as exc:
            note(exc)
            return False
        if lock is None:
            return False
        os.close(lock)
        return True

    def here(self, cluster: str, names: Sequence[str]) -> list[str]:
        """Return those of `names` that agents of this host have, or had lately."""
        stems = set(self._stems(_cluster_tag(cluster)))
        return [name for name in names if _stem(cluster, name) in stems]

    def record(self, cluster: str, name: str) -> AgentRecord | None:
        """Return what an agent has published, whether it lives or not; None if it has not."""
        return self._read(_stem(cluster, name))

    def _read(self, stem: str) -> AgentRecord | None:
        try:
            with opened(self.path / f"{stem}.agent", os.O_RDONLY | platform.NOFOLLOW | platform.NONBLOCK) as file:
                record = AgentRecord.unpack(file.read(RECORD_MAX_BYTES + 1))
            if _stem(record.cluster, record.name) != stem:
                raise ValueError("it is another agent's")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            self.counters.add("rundir.broken")
            self._quiet.warning(stem, "%s.agent is left out: %s", stem, exc)
            return None
        return record


    def socket_path(self, cluster: str, name: str, kind: str) -> str:
        """Return where an agent's socket of `kind` is, if it has one."""
        return os.fspath(self.path / f"{_agent_tag(cluster, name)}.{kind}")


class Unclaimed:
    """The name of an agent that does without the directory: it meets nobody there. In place of a ``Claim``."""

    def __init__(self, cluster: str, name: str) -> None:
        check_cluster(cluster)
        self.name = name

    def publish(self, record: AgentRecord) -> None:
        """Nobody looks."""

    def release(self) -> None:
        """There is nothing to give back."""


class Claim:
    """A name that this process has. Made by ``RuntimeDir.claim``; any thread."""

    def __init__(self, path: Path, cluster: str, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self._path = path
        self._stem = _stem(cluster, name)
        self._guard = threading.Lock()
        self._lock: int | None = None
        self._stay: int | None = None
        lifecycle.remember(self)  # first: a fork from now on finds whatever there is to close
        try:
            self._take()
            # systemd-tmpfiles takes nothing out of a directory that somebody has locked, however old it gets.
            if platform.DIRECTORY is not None:
                with _taking:
                    self._stay = os.open(path, os.O_RDONLY | platform.DIRECTORY | platform.CLOEXEC)
                platform.lock(self._stay, shared=True)
        except BlockingIOError:
            pass  # whoever cleans up now looks at files that are in use, or old
        except OSError as exc:
            self.release()
            raise _trouble("claim a name in", path, exc) from exc
        except BaseException:
            self.release()
            raise

    def _take(self) -> None:
        """Lock the file and write this process's number into it.

        A holder that is alive has the name. One that is gone, or has not said who it is, is another process in the
        act of taking or cleaning up: it gets a moment more.
        """
        path = self._path / f"{self._stem}.lock"
        patience, longest = Deadline(_PATIENCE), Deadline(_PATIENCE_WITH_THE_DEAD)
        wait = threading.Event()
        while not self._try(path):
            pid = _holder(path)
            if longest.passed or (patience.passed and pid is not None and platform.alive(pid)):
                raise NameInUse(self.name, self.cluster, pid, mine=pid == os.getpid())
            wait.wait(_POLL)
        lock = self._lock
        assert lock is not None
        _remove(self._path, self._stem, lock=False)
        os.ftruncate(lock, 0)
        os.lseek(lock, 0, os.SEEK_SET)
        os.write(lock, b"%d\n" % os.getpid())

    def _try(self, path: Path) -> bool:
        with _taking:
            self._lock = _lock(path, create=True)
        return self._lock is not None

    @property
    def held(self) -> bool:
        """Whether this process still has the name."""
        return self._lock is not None

    def publish(self, record: AgentRecord) -> None:
        """Show `record` to whoever looks; replaces the one before.

        Raises:
            ConfigError: it is another agent's, or cannot be written.
            NotRunningError: the name was released.
        """
        if (record.cluster, record.name) != (self.cluster, self.name):
            raise ConfigError("record", f"is of {record.name!r} in {record.cluster!r}, not of {self.name!r}")
        draft = self._path / f"{self._stem}.draft"
        with self._guard:
            self._check_held()
            try:
                with opened(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | platform.NOFOLLOW, "wb") as file:
                    file.write(record.pack())
                os.replace(draft, self._path / f"{self._stem}.agent")
            except OSError as exc:
                _unlink(draft)
                raise _trouble("write", draft, exc) from exc

    def socket_path(self, kind: str) -> str:
        """Return where this agent's socket of `kind` (``SOCKET_KINDS``) is to be bound; what was there is gone.

        Raises:
            ConfigError: the path is longer than a socket's may be.
            NotRunningError: the name was released.
            ValueError: there is no such kind, so that nobody would remove it after a crash.
        """
        if kind not in SOCKET_KINDS:
            raise ValueError(f"no kind of socket: {kind!r}; there are {', '.join(SOCKET_KINDS)}")
        self._check_held()
        path = os.fspath(self._path / f"{_agent_tag(self.cluster, self.name)}.{kind}")
        size = len(os.fsencode(path))
        if size > SOCKET_PATH_MAX:
            hint = f"set {_VARIABLE} to a directory with a shorter path, e.g. /tmp/mycorrizal-{platform.user()}"
            raise ConfigError(
                "runtime_dir", f"{path} has {size} bytes; a socket's path may have {SOCKET_PATH_MAX}", hint=hint
            )
        return path

    def release(self) -> None:
        """Give the name back and remove its files. Idempotent; close the sockets first."""
        with self._guard:
            lock, stay, self._lock, self._stay = self._lock, self._stay, None, None
            if lock is not None:
                _remove(self._path, self._stem)
            for descriptor in (lock, stay):
                if descriptor is not None:
                    os.close(descriptor)
        lifecycle.forget(self)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _check_held(self) -> None:
        if self._lock is None:
            raise NotRunningError(f"the name {self.name!r} was released")

    # -- what lifecycle calls --------------------------------------------------------------------

    def stop(self) -> None:
        """Do nothing: the name goes when the agent has ended, or with the process."""

    def join(self, deadline: Deadline) -> bool:
        """Do nothing, as ``stop``."""
        return True

    def abandon(self) -> None:
        """Close this forked child's copies: the parent alone has the name."""
        lock, stay, self._lock, self._stay = self._lock, self._stay, None, None
        self._guard = threading.Lock()  # another thread of the parent may have been holding it
        for descriptor in (lock, stay):
            if descriptor is not None:
                os.close(descriptor)


# -- the directory ------------------------------------------------------------------------------


def _make(path: Path) -> None:
    try:
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)  # whatever the umask took
    except FileExistsError:
        pass
    except OSError as exc:
        raise _trouble("make", path, exc) from exc


def _check_way(path: Path) -> None:
    """Refuse a place where others could put a directory of theirs under this name."""
    try:
        why = exposed(os.fspath(path.parent), group=True)
    except OSError as exc:
        raise _trouble("use", path, exc) from exc
    if why is not None:
        hint = f"{_HINT}, below directories that only you and root can write"
        raise ConfigError("runtime_dir", f"others could replace {path}: {why}", hint=hint)


def _check(path: Path) -> None:
    """Refuse a directory that is not this user's alone."""
    try:
        found = os.lstat(path)
    except OSError as exc:
        raise _trouble("use", path, exc) from exc
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError("runtime_dir", f"{path} is a symbolic link", hint=_HINT)
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError("runtime_dir", f"{path} is no directory", hint=_HINT)
    if not platform.ours(found):
        raise ConfigError("runtime_dir", f"{path} belongs to user {found.st_uid}", hint=_HINT)
    if platform.open_to_others(found):
        hint = f"chmod 700 {shlex.quote(os.fspath(path))}"
        raise ConfigError("runtime_dir", f"{path} is open to others (mode {mode:04o})", hint=hint)


def _draft(path: Path, key: bytes) -> Path:
    """Return a new private file beside `path` with `key` in it."""
    draft = path.with_suffix(f".{os.urandom(6).hex()}")
    try:
        with opened(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        _unlink(draft)
        raise
    return draft


def _settle(path: Path) -> None:
    """Have a rename in the directory `path` survive a loss of power, as far as its file system can."""
    with contextlib.suppress(OSError):  # it is done already, and cannot be half done
        descriptor = os.open(path, os.O_RDONLY | (platform.DIRECTORY or 0) | platform.CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _trouble(what: str, path: Path, error: OSError) -> MycorrizalError:
    short = exhausted(error, f"cannot {what} {path}")
    return short or ConfigError("runtime_dir", f"cannot {what} {path}: {error.strerror or error}", hint=_HINT)


# -- files and locks -----------------------------------------------------------------------------


def _cluster_tag(cluster: str) -> str:
    return hashlib.sha256(cluster.encode()).hexdigest()[:12]


def _agent_tag(cluster: str, name: str) -> str:
    return hashlib.sha256(f"{len(cluster)}/{cluster}/{name}".encode()).hexdigest()[:16]


@lru_cache(4 * AGENTS_MAX)
def _stem(cluster: str, name: str) -> str:
    return f"{_cluster_tag(cluster)}-{_agent_tag(cluster, name)}"


def _lock(path: Path, *, create: bool) -> int | None:
    """Return a descriptor that holds the lock of the file at `path`, None if another one does.

    Raises:
        OSError: the file cannot be opened, or is missing and not to be made.
    """
    if not platform.LOCKS and (pid := _holder(path)) is not None and platform.alive(pid):
        return None
    flags = os.O_RDWR | platform.NOFOLLOW | platform.CLOEXEC | (os.O_CREAT if create else 0)
    while True:
        descriptor = os.open(path, flags, 0o600)
        try:
            platform.lock(descriptor)
            if _same_file(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # unlinked between open and lock: its lock means nothing


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> int | None:
    """Return the process that says it has the lock."""
    try:
        with opened(path, os.O_RDONLY | platform.NOFOLLOW) as file:
            return max(0, int(file.read(_PID_BYTES))) or None
    except (OSError, ValueError):
        return None


def _remove(path: Path, stem: str, *, lock: bool = True) -> None:
    """Remove what belongs to an agent, under its lock; the lock file last, for it says that we may."""
    agent = stem.partition("-")[2]
    names = [f"{stem}.agent", f"{stem}.draft", *(f"{agent}.{kind}" for kind in SOCKET_KINDS)]
    for name in (*names, f"{stem}.lock") if lock else names:
        _unlink(path / name)


def _unlink(path: Path) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
