"""Every error the library raises, as one tree.

Each is also the builtin it is, so that ``except TimeoutError`` works without
knowing this module, and each carries fields beside its text. Each survives
pickle and copy whole, so that a worker of ``multiprocessing`` or
``concurrent.futures`` may raise it::

    MycorrizalError
      ConfigError (ValueError)            a setting is wrong; .field names it
        MetaTooLarge                      node_meta or tags take more than 512 bytes
      LocalProtocolError (RuntimeError)   our own code misused a machine
      NotRunningError (RuntimeError)      the object was shut down, or never started
      ReentrantCallError (RuntimeError)   a blocking call on a thread that must not wait
      ForkedProcessError (RuntimeError)   a handle inherited through fork
      ServiceCrashed (RuntimeError)       a background thread died; the cause is chained
      QueueFull (RuntimeError)            a bounded queue has no room
      BindError (OSError)                 the address or port cannot be bound
      ResourcesExhausted (OSError, RuntimeError)  no descriptor, thread, memory or room on a disk is left
      NameInUse (RuntimeError)            another live agent of the cluster has the name
      OperationTimeout (TimeoutError)     the deadline passed
        NoPingResponse                    no acknowledgement to a ping
        NotLeader                         somebody else leads, or has run in this period
      PeerUnreachable (ConnectionError)   a peer could not be reached
        ConnectionRefused                 nothing listens at its port (also a ConnectionRefusedError)
        JoinError                         no seed could be joined; .failures says why
        PeerRefused                       the peer answered an exchange with an error message
        PeerBusy                          the peer's handlers are all taken; nothing ran
      RemoteError (RuntimeError)          the peer's handler raised; .type and .text say what
        UnknownHandler (LookupError)      the peer has no handler of this name; nothing ran
      NestedTooDeep (RecursionError)      handlers that ask each other, without an end or beyond what may run
      MergeRefused (RuntimeError)         a delegate or the version check refused a merge
      ValueEncodeError (TypeError)        a value that cannot be sent; the text names the place in it
      ValueDecodeError (ValueError)       a value that came and cannot be read in this process; no offence of the sender
      ValueTooLarge (ValueError)          a value above the limit of either side
      ControlError (RuntimeError)         an agent refused a command of its control plane; .code says why
      OperationCancelled (CancelledError) the call was cancelled, here or by the peer
      RemoteProtocolError (ValueError)    a peer sent something we refuse
        WireMismatch                      the peer speaks the other ``wire=`` codec
        LabelMismatch                     the peer's label is not ours
        DecryptError                      encrypted with another key, or not at all
        ProofError                        the peer did not prove the key, or its certificate
      CacheError (RuntimeError)           an operation of the cache failed
        CacheUnavailable                  no primary took it in time; nothing happened
        CacheOutcomeUnknown               it may have happened (indeterminate)
        LockLost                          a lock whose lease went to another caller, or ran out
        NotACounter (TypeError)           an increment of what is no integer
        UnknownCache (LookupError)        no agent has opened a cache of this name
      CacheConflict (ConfigError)         two members redefined one cache at the same moment
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any

from ._keylike import masked
from .types import printable

__all__ = [
    "BindError",
    "CacheConflict",
    "CacheError",
    "CacheOutcomeUnknown",
    "CacheUnavailable",
    "ConfigError",
    "ConnectionRefused",
    "ControlError",
    "DecryptError",
    "ForkedProcessError",
    "JoinError",
    "LabelMismatch",
    "LocalProtocolError",
    "LockLost",
    "MergeRefused",
    "MetaTooLarge",
    "MycorrizalError",
    "NameInUse",
    "NestedTooDeep",
    "NoPingResponse",
    "NotACounter",
    "NotLeader",
    "NotRunningError",
    "OperationCancelled",
    "OperationTimeout",
    "PeerBusy",
    "PeerRefused",
    "PeerUnreachable",
    "ProofError",
    "QueueFull",
    "ReentrantCallError",
    "RemoteError",
    "RemoteProtocolError",
    "ResourcesExhausted",
    "ServiceCrashed",
    "UnknownCache",
    "UnknownHandler",
    "ValueDecodeError",
    "ValueEncodeError",
    "ValueTooLarge",
    "WireMismatch",
]


_TEXT_MAX = 4000
"""Characters of an error's message at most, its hint apart."""


class MycorrizalError(Exception):
    """Root of every error raised by mycorrizal.

    The text is one printable line, whatever a peer has put into it (``mycorrizal.types.printable``). The fields keep
    what was sent, so make them printable too before you write them anywhere.

    Attributes:
        node: name or ``host:port`` of the peer concerned, if there is one.
        operation: the public call that failed, e.g. ``"join"``.
        retriable: whether the same call may succeed later without a change.
        indeterminate: whether the operation may have taken effect all the same.
        hint: one sentence on what to do next; also the end of the text.
        ending: what ended a call that got no answer, a name in the guide's table of that; None for other errors.
        keys: of a call on many keys of a cache: those that it failed for, and that it did not come to.
    """

    retriable = False
    indeterminate = False
    keys: tuple[str, ...] = ()
    ending: str | None = None

    def __init__(
        self,
        message: str = "",
        *,
        node: str | None = None,
        operation: str | None = None,
        hint: str | None = None,
        indeterminate: bool | None = None,
        retriable: bool | None = None,
    ) -> None:
        message = printable(message, _TEXT_MAX)
        self.hint = hint and printable(hint, _TEXT_MAX)
        super().__init__(f"{message} ({self.hint})" if hint else message)
        self.node = node
        self.operation = operation
        if indeterminate is not None:
            self.indeterminate = indeterminate
        if retriable is not None:
            self.retriable = retriable

    def __reduce__(self) -> tuple[Any, ...]:
        """Let pickle and copy make an equal error: text and fields as they are, whatever the constructor takes."""
        return _rebuilt, (type(self), self.args), dict(self.__dict__)


def _rebuilt(kind: type[MycorrizalError], arguments: tuple[Any, ...]) -> MycorrizalError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    return error


class ConfigError(MycorrizalError, ValueError):
    """A setting is wrong. ``field`` is the name of the setting. A value that may be a key is not in the text."""

    def __init__(self, field: str, message: str, *, hint: str | None = None) -> None:
        self.field = masked(field)
        super().__init__(f"{self.field}: {masked(message)}", hint=hint)


class MetaTooLarge(ConfigError):
    """Metadata, of a delegate's ``node_meta`` or an agent's tags, take more bytes than there are."""


class LocalProtocolError(MycorrizalError, RuntimeError):
    """Our own code called a machine in a way its state does not allow."""


class NotRunningError(MycorrizalError, RuntimeError):
    """The object was shut down, or has left the cluster."""


class ReentrantCallError(MycorrizalError, RuntimeError):
    """A blocking call was made on a thread whose progress it needs."""


class ForkedProcessError(MycorrizalError, RuntimeError):
    """The handle belongs to the parent process; build a new one after fork."""


class ServiceCrashed(MycorrizalError, RuntimeError):
    """A background thread died; its exception is chained as ``__cause__``."""


class QueueFull(MycorrizalError, RuntimeError):
    """A bounded queue has no room; nothing was queued."""

    retriable = True


class BindError(MycorrizalError, OSError):
    """The configured address or port cannot be bound."""

    retriable = True


class ResourcesExhausted(MycorrizalError, OSError, RuntimeError):
    """The process or its host has no more of something: descriptors, threads, memory, room on a disk.

    An ``OSError`` as of a file or socket, and a ``RuntimeError`` as of a thread. Nothing was done; what had been
    begun was given back.

    Attributes:
        resource: ``"descriptors"``, ``"threads"``, ``"memory"`` or ``"disk"``.
        errno: the system's number, None for a thread.
    """

    retriable = True
    resource = ""


class NameInUse(MycorrizalError, RuntimeError):
    """Another live agent has the name.

    Attributes:
        pid: its process, None if it does not say or runs on another host.
        where: where it gossips, if it was met there.
    """

    def __init__(
        self, name: str, cluster: str, pid: int | None, *, mine: bool = False, where: str | None = None
    ) -> None:
        holder = "this process" if mine else "a process that is starting" if pid is None else f"process {pid}"
        if where is not None:
            holder = f"a node at {where}"
        what = "close() that agent first" if mine else "stop that agent"
        super().__init__(
            f"{holder} runs the agent {name!r} of cluster {cluster!r}",
            node=name,
            hint=f"{what}, or give this one another name",
        )
        self.pid = pid
        self.where = where


class OperationTimeout(MycorrizalError, TimeoutError):
    """The deadline of a blocking call passed before it was done."""

    retriable = True


class NoPingResponse(OperationTimeout):
    """No acknowledgement came back for a ping within ``probe_timeout``."""


class NotLeader(OperationTimeout):
    """``lead`` waited for as long as it was told to, and it was not this agent's turn; nothing ran here.

    Attributes:
        node: the leader; None if there is none, since the run of this period is done.
        due: seconds until the next period; None if ``node`` leads.
    """

    def __init__(self, message: str = "", *, due: float | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.due = due


class PeerUnreachable(MycorrizalError, ConnectionError):
    """A peer could not be reached, or broke the conversation off."""

    retriable = True


class ConnectionRefused(PeerUnreachable, ConnectionRefusedError):
    """The peer's host answers, and nothing listens at its port."""


class JoinError(PeerUnreachable):
    """No seed could be joined.

    Attributes:
        reached: how many addresses answered (0 when raised by ``join``).
        failures: the error of each seed, by the text it was given as.
    """

    def __init__(
        self, message: str, *, failures: Mapping[str, Exception], reached: int = 0, hint: str | None = None
    ) -> None:
        super().__init__(masked(message, names=True), operation="join", hint=hint)
        self.reached = reached
        self.failures = dict(failures)


class PeerRefused(PeerUnreachable):
    """The peer answered an exchange with memberlist's error message."""

    retriable = False


class PeerBusy(PeerUnreachable):
    """All handlers of the peer are taken and its queue is full; the request did not run."""


class NestedTooDeep(MycorrizalError, RecursionError):
    """Handlers ask each other, one within the other, as many as the peer may run; the innermost request did not run.

    A handler that does not catch it passes it on to the first caller. Effects of the handlers before it stay.
    """

    indeterminate = True


class RemoteError(MycorrizalError, RuntimeError):
    """The peer's handler raised.

    Attributes:
        type: name of the exception's class at the peer.
        text: its text as the peer sent it, line ends and all; a traceback only if the peer's ``DataConfig.tracebacks``
            is on. ``str()`` of this error shows one printable line of it.
    """

    def __init__(self, message: str, *, kind: str = "", text: str = "", node: str | None = None, **more: Any) -> None:
        super().__init__(message, node=node, **more)
        self.type = kind
        self.text = text


class UnknownHandler(RemoteError, LookupError):
    """The peer has no handler of this name; nothing ran."""


class MergeRefused(MycorrizalError, RuntimeError):
    """A merge of remote state was refused, by a delegate or the version check."""


class ValueEncodeError(MycorrizalError, TypeError):
    """A value, or something in it, that cannot be sent."""


class ValueDecodeError(MycorrizalError, ValueError):
    """A value that arrived whole and cannot be read in this process: a codec or NumPy is missing, or a codec raised.

    ``node`` sent or wrote it, where that is known. Bytes that no honest peer sends are a ``RemoteProtocolError``.
    """


class ValueTooLarge(MycorrizalError, ValueError):
    """A value above the limit, ours or the peer's; nothing was delivered."""


class ControlError(MycorrizalError, RuntimeError):
    """An agent did not carry out a command that came through its control plane.

    Attributes:
        code: why, one of ``mycorrizal.control.CODES``, e.g. ``"timeout"`` or ``"bad_arguments"``.
    """

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message, **more)
        self.code = code


class OperationCancelled(MycorrizalError, CancelledError):
    """The call was cancelled; whether it ran at the peer is unknown if ``indeterminate``."""


class RemoteProtocolError(MycorrizalError, ValueError):
    """A peer sent bytes that the protocol does not allow."""


class WireMismatch(RemoteProtocolError):
    """The peer's message bodies are of the other ``wire=`` codec."""


class LabelMismatch(RemoteProtocolError):
    """The peer's label is not the configured one."""


class DecryptError(RemoteProtocolError):
    """No installed key opens what the peer sent, or it was not encrypted."""


class ProofError(RemoteProtocolError):
    """The peer did not prove the key, or its certificate, for this very session."""


class CacheError(MycorrizalError, RuntimeError):
    """An operation of the cache failed."""


class CacheUnavailable(CacheError):
    """No agent could take the operation before its deadline, or the quorum is missing; nothing happened."""

    retriable = True


class CacheOutcomeUnknown(CacheError):
    """The operation was sent, and whether it took effect is not known."""

    indeterminate = True


class LockLost(CacheError):
    """A lock is not its holder's any more: its lease ran out, it went to another caller, or it was cleared.

    Attributes:
        token: the fencing token of the lock that was lost.
        node: the present holder, None if there is none or it is not known.
    """

    def __init__(self, message: str = "", *, token: int = 0, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.token = token


class NotACounter(CacheError, TypeError):
    """``incr`` of an entry whose value is no integer of 64 bits; nothing happened."""


class UnknownCache(CacheError, LookupError):
    """No agent in sight has opened a cache of this name, so its settings are not known."""


class CacheConflict(ConfigError):
    """Two members have redefined one cache at the same moment, and the other's settings hold; the text names both."""

    def __init__(self, message: str, *, node: str | None = None, hint: str | None = None) -> None:
        MycorrizalError.__init__(self, f"cache: {message}", node=node, hint=hint)  # it names nodes, not values
        self.field = "cache"
