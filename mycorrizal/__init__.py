"""An embedded cluster for plain, synchronous Python.

``Memberlist`` is membership: who is alive, and small messages between the
members, over memberlist's protocol. ``Config`` holds its settings.
"""

import logging as _logging

from .config import META_MAX_SIZE, Config
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
    EventsLost,
    MemberEvent,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    NameConflict,
    Stalled,
    UdpBlocked,
)
from .exceptions import (
    BindError,
    ConfigError,
    DecryptError,
    ForkedProcessError,
    JoinError,
    LabelMismatch,
    LocalProtocolError,
    MergeRefused,
    MetaTooLarge,
    MycorrizalError,
    NoPingResponse,
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
    ServiceCrashed,
    UnknownHandler,
    ValueEncodeError,
    ValueTooLarge,
    WireMismatch,
)
from .memberlist import Memberlist
from .serf import SerfDelegate, SerfEvent, SerfMember, SerfStatus
from .types import Address, JoinResult, Node, NodeState, Versions

__version__ = "0.1.0"

__all__ = [
    "META_MAX_SIZE",
    "Address",
    "AliveDelegate",
    "BaseDelegate",
    "BaseEventDelegate",
    "BasePingDelegate",
    "BindError",
    "Config",
    "ConfigError",
    "ConflictDelegate",
    "DecryptError",
    "Delegate",
    "EventDelegate",
    "EventsLost",
    "ForkedProcessError",
    "JoinError",
    "JoinResult",
    "LabelMismatch",
    "LocalProtocolError",
    "MemberEvent",
    "MemberFailed",
    "MemberJoined",
    "MemberLeft",
    "MemberUpdated",
    "Memberlist",
    "MergeDelegate",
    "MergeRefused",
    "MetaTooLarge",
    "MycorrizalError",
    "NameConflict",
    "NoPingResponse",
    "Node",
    "NodeState",
    "NotRunningError",
    "OperationCancelled",
    "OperationTimeout",
    "PeerBusy",
    "PeerRefused",
    "PeerUnreachable",
    "PingDelegate",
    "ProofError",
    "QueueFull",
    "ReentrantCallError",
    "RemoteError",
    "RemoteProtocolError",
    "SerfDelegate",
    "SerfEvent",
    "SerfMember",
    "SerfStatus",
    "ServiceCrashed",
    "Stalled",
    "UdpBlocked",
    "UnknownHandler",
    "ValueEncodeError",
    "ValueTooLarge",
    "Versions",
    "WireMismatch",
    "__version__",
]

_logging.getLogger("mycorrizal").addHandler(_logging.NullHandler())
