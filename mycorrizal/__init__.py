"""An embedded cluster for plain, synchronous Python.

``Agent`` is all of it in one object: membership, messages, events, settings,
services and caches. ``Memberlist`` is membership alone: who is alive, and small
messages between the members, over memberlist's protocol; ``Config`` holds its
settings. ``DataPlane`` is the data plane alone: what nodes tell each other over
QUIC; ``DataConfig`` holds its settings.
"""

import importlib as _importlib
import logging as _logging
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from ._wire.security import Keyring
from ._wire.value_codecs import Codecs
from .config import META_MAX_SIZE, Config
from .dataconfig import DataConfig
from .delegates import (
    AliveDelegate,
    BaseDelegate,
    BaseEventDelegate,
    BasePingDelegate,
    ConflictDelegate,
    Delegate,
    EventDelegate,
    MergeDelegate,
    PingDelegate,
)
from .events import (
    AgentEvent,
    CacheRedefined,
    ChangesLost,
    EventsLost,
    MemberEvent,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberStalled,
    MemberUpdated,
    NameConflict,
    ServiceChange,
    SettingChange,
    Stalled,
    TcpBlocked,
    UdpBlocked,
    UserEvent,
    UserEventsMissed,
)
from .exceptions import (
    BindError,
    CacheConflict,
    CacheError,
    CacheOutcomeUnknown,
    CacheUnavailable,
    ConfigError,
    ConnectionRefused,
    ControlError,
    DecryptError,
    ForkedProcessError,
    JoinError,
    LabelMismatch,
    LocalProtocolError,
    LockLost,
    MergeRefused,
    MetaTooLarge,
    MycorrizalError,
    NameInUse,
    NestedTooDeep,
    NoPingResponse,
    NotACounter,
    NotLeader,
    NotRunningError,
    OperationCancelled,
    OperationTimeout,
    PeerBusy,
    PeerRefused,
    PeerUnreachable,
    ProofError,
    QueueFull,
    ReentrantCallError,
    RemoteError,
    RemoteProtocolError,
    ResourcesExhausted,
    ServiceCrashed,
    UnknownCache,
    UnknownHandler,
    ValueDecodeError,
    ValueEncodeError,
    ValueTooLarge,
    WireMismatch,
)
from .types import (
    Address,
    Health,
    JoinResult,
    Member,
    Members,
    Message,
    Node,
    NodeState,
    PeerInfo,
    ReceivedFile,
    Request,
    Service,
    Versions,
)
from .worker import handler

if _TYPE_CHECKING:
    from ._control.messages import ControlEvent
    from ._runtime.data.streams import Stream
    from .agent import Agent
    from .cache import ABSENT, Cache, Versioned
    from .control import ControlClient
    from .dataplane import DataPlane, Results
    from .executor import TaskExecutor
    from .leadership import Term
    from .leases import Lock
    from .memberlist import Memberlist
    from .memo import Memoized
    from .serf import SerfDelegate, SerfEvent, SerfMember, SerfQuery, SerfStatus
    from .services import Registration, Services
    from .settings import Settings

__version__ = "0.1.0"

__all__ = [
    "ABSENT",
    "META_MAX_SIZE",
    "Address",
    "Agent",
    "AgentEvent",
    "AliveDelegate",
    "BaseDelegate",
    "BaseEventDelegate",
    "BasePingDelegate",
    "BindError",
    "Cache",
    "CacheConflict",
    "CacheError",
    "CacheOutcomeUnknown",
    "CacheRedefined",
    "CacheUnavailable",
    "ChangesLost",
    "Codecs",
    "Config",
    "ConfigError",
    "ConflictDelegate",
    "ConnectionRefused",
    "ControlClient",
    "ControlError",
    "ControlEvent",
    "DataConfig",
    "DataPlane",
    "DecryptError",
    "Delegate",
    "EventDelegate",
    "EventsLost",
    "ForkedProcessError",
    "Health",
    "JoinError",
    "JoinResult",
    "Keyring",
    "LabelMismatch",
    "LocalProtocolError",
    "Lock",
    "LockLost",
    "Member",
    "MemberEvent",
    "MemberFailed",
    "MemberJoined",
    "MemberLeft",
    "MemberStalled",
    "MemberUpdated",
    "Memberlist",
    "Memoized",
    "Members",
    "MergeDelegate",
    "MergeRefused",
    "Message",
    "MetaTooLarge",
    "MycorrizalError",
    "NameConflict",
    "NameInUse",
    "NestedTooDeep",
    "NoPingResponse",
    "Node",
    "NodeState",
    "NotACounter",
    "NotLeader",
    "NotRunningError",
    "OperationCancelled",
    "OperationTimeout",
    "PeerBusy",
    "PeerInfo",
    "PeerRefused",
    "PeerUnreachable",
    "PingDelegate",
    "ProofError",
    "QueueFull",
    "ReceivedFile",
    "ReentrantCallError",
    "Registration",
    "RemoteError",
    "RemoteProtocolError",
    "ResourcesExhausted",
    "Request",
    "Results",
    "SerfDelegate",
    "SerfEvent",
    "SerfMember",
    "SerfQuery",
    "SerfStatus",
    "Service",
    "ServiceChange",
    "ServiceCrashed",
    "Services",
    "SettingChange",
    "Settings",
    "Stalled",
    "Stream",
    "TaskExecutor",
    "TcpBlocked",
    "Term",
    "UdpBlocked",
    "UnknownCache",
    "UnknownHandler",
    "UserEvent",
    "UserEventsMissed",
    "ValueDecodeError",
    "ValueEncodeError",
    "ValueTooLarge",
    "Versioned",
    "Versions",
    "WireMismatch",
    "__version__",
    "handler",
]

_LATE = {
    "ABSENT": "cache",
    "Agent": "agent",
    "Cache": "cache",
    "ControlClient": "control",
    "ControlEvent": "control",
    "DataPlane": "dataplane",
    "Lock": "leases",
    "Memberlist": "memberlist",
    "Memoized": "memo",
    "Registration": "services",
    "Results": "dataplane",
    "SerfDelegate": "serf",
    "SerfEvent": "serf",
    "SerfMember": "serf",
    "SerfQuery": "serf",
    "SerfStatus": "serf",
    "Services": "services",
    "Settings": "settings",
    "Stream": "dataplane",
    "TaskExecutor": "executor",
    "Term": "leadership",
    "Versioned": "cache",
}

_logging.getLogger("mycorrizal").addHandler(_logging.NullHandler())


def __getattr__(name: str) -> _Any:
    """Import what is large, or needs aioquic or ZeroMQ, when it is first used.

    A process that is only a member does without the latter, and the command line without a member.
    """
    if name in _LATE:
        return getattr(_importlib.import_module(f".{_LATE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
