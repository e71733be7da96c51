"""Every test of memberlist's own suite, and where its scenario stands here.

``TestMemberList_ProbeNode_Suspect`` in Go is ``test_MemberList_ProbeNode_Suspect``
here. What has no scenario in this folder stands in ``ELSEWHERE`` with the test
that covers it, or in ``NOT_HERE`` with the reason.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

GO_TESTS = {
    "awareness_test.go": "TestAwareness",
    "broadcast_test.go": "TestMemberlistBroadcast_Invalidates TestMemberlistBroadcast_Message",
    "config_test.go": "Test_IsValidAddressDefaults Test_IsValidAddressOverride",
    "integ_test.go": "TestMemberlist_Integ",
    "keyring_test.go": """
        TestKeyring_EmptyRing TestKeyring_PrimaryOnly TestKeyring_GetPrimaryKey TestKeyring_AddRemoveUse
        TestKeyRing_MultiKeyEncryptDecrypt TestKeyring_AddConcurrentKeys
    """,
    "label_test.go": """
        TestAddLabelHeaderToPacket TestRemoveLabelHeaderFromPacket TestAddLabelHeaderToStream
        TestRemoveLabelHeaderFromStream TestLabelOverhead
    """,
    "logging_test.go": "TestLogging_Address TestLogging_Conn",
    "memberlist_test.go": """
        TestDefaultLANConfig_protocolVersion TestCreate_protocolVersion TestCreate_secretKey
        TestCreate_secretKeyEmpty TestCreate_checkBroadcastQueueMetrics TestCreate_keyringOnly
        TestCreate_keyringAndSecretKey TestCreate_invalidLoggerSettings TestCreate TestMemberList_CreateShutdown
        TestMemberList_ResolveAddr TestMemberList_ResolveAddr_TCP_First TestMemberList_Members
        TestMemberlist_Join TestMemberlist_Join_with_Labels TestMemberlist_Join_with_Labels_and_Encryption
        TestMemberlist_JoinDifferentNetworksUniqueMask TestMemberlist_JoinDifferentNetworksMultiMasks
        TestMemberlist_Join_Cancel TestMemberlist_Join_Cancel_Passive TestMemberlist_Join_protocolVersions
        TestMemberlist_Leave TestMemberlist_JoinShutdown TestMemberlist_delegateMeta
        TestMemberlist_delegateMeta_Update TestMemberlist_UserData TestMemberlist_SendTo
        TestMemberlistProtocolVersion TestMemberlist_Join_DeadNode TestMemberlist_Join_Protocol_Compatibility
        TestMemberlist_Join_IPv6 TestAdvertiseAddr TestMemberlist_conflictDelegate TestMemberlist_PingDelegate
        TestMemberlist_EncryptedGossipTransition TestMemberlist_Restart_delegateMeta_Update
    """,
    "net_test.go": """
        TestHandleCompoundPing TestHandlePing TestHandlePing_WrongNode TestHandleIndirectPing TestTCPPing
        TestTCPPushPull TestSendMsg_Piggyback TestEncryptDecryptState TestRawSendUdp_CRC TestIngestPacket_CRC
        TestIngestPacket_ExportedFunc_EmptyMessage TestGossip_MismatchedKeys TestHandleCommand
        TestReadRemoteState_Limits TestReadUserMsg_Limit TestHandleConn_NilConnAfterRemoveLabelHeaderFromStream
    """,
    "queue_test.go": """
        TestLimitedBroadcastLess TestTransmitLimited_Queue TestTransmitLimited_GetBroadcasts
        TestTransmitLimited_GetBroadcasts_Limit TestTransmitLimited_Prune TestTransmitLimited_ordering
    """,
    "security_test.go": "TestPKCS7 TestEncryptDecrypt_V0 TestEncryptDecrypt_V1",
    "state_test.go": """
        TestMemberList_Probe TestMemberList_ProbeNode_Suspect TestMemberList_ProbeNode_Suspect_Dogpile
        TestMemberList_ProbeNode_FallbackTCP TestMemberList_ProbeNode_FallbackTCP_Disabled
        TestMemberList_ProbeNode_FallbackTCP_OldProtocol TestMemberList_ProbeNode_Awareness_Degraded
        TestMemberList_ProbeNode_Wrong_VSN TestMemberList_ProbeNode_Awareness_Improved
        TestMemberList_ProbeNode_Awareness_MissedNack TestMemberList_ProbeNode_Awareness_OldProtocol
        TestMemberList_ProbeNode_Buddy TestMemberList_ProbeNode TestMemberList_Ping TestMemberList_ResetNodes
        TestMemberList_NextSeq TestMemberList_setProbeChannels TestMemberList_setAckHandler
        TestMemberList_invokeAckHandler TestMemberList_invokeAckHandler_Channel_Ack
        TestMemberList_invokeAckHandler_Channel_Nack TestMemberList_AliveNode_NewNode
        TestMemberList_AliveNode_SuspectNode TestMemberList_AliveNode_Idempotent
        TestMemberList_AliveNode_ChangeMeta TestMemberList_AliveNode_Refute TestMemberList_AliveNode_Conflict
        TestMemberList_SuspectNode_NoNode TestMemberList_SuspectNode TestMemberList_SuspectNode_DoubleSuspect
        TestMemberList_SuspectNode_OldSuspect TestMemberList_SuspectNode_Refute TestMemberList_DeadNode_NoNode
        TestMemberList_DeadNodeLeft TestMemberList_DeadNode TestMemberList_DeadNode_Double
        TestMemberList_DeadNode_OldDead TestMemberList_DeadNode_AliveReplay TestMemberList_DeadNode_Refute
        TestMemberList_MergeState TestMemberlist_Gossip TestMemberlist_GossipToDead TestMemberlist_FailedRemote
        TestMemberlist_PushPull TestVerifyProtocol
    """,
    "suspicion_test.go": """
        TestSuspicion_remainingSuspicionTime TestSuspicion_Timer TestSuspicion_Timer_ZeroK
        TestSuspicion_Timer_Immediate
    """,
    "transport_test.go": "TestTransport_Join TestTransport_Send TestTransport_TcpListenBackoff",
    "util_test.go": """
        TestUtil_PortFunctions TestEncodeDecode TestRandomOffset TestRandomOffset_Zero TestSuspicionTimeout
        TestRetransmitLimit TestShuffleNodes TestPushPullScale TestMoveDeadNodes TestKRandomNodes
        TestMakeCompoundMessage TestDecodeCompoundMessage TestDecodeCompoundMessage_NumberOfPartsOverflow
        TestDecodeCompoundMessage_Trunc TestCompressDecompressPayload TestDecompressPayload_Limit
    """,
    "internal/retry": "TestRetryer",
}

ELSEWHERE = {
    "TestMemberList_ResolveAddr": "tests/_runtime/net/test_addresses.py::test_entries",
    "TestTransport_TcpListenBackoff": "tests/_runtime/swim/test_gossip.py::test_failing_accept_backs_off_and_recovers",
    "TestUtil_PortFunctions": "tests/_runtime/net/test_addresses.py::test_ports_as_go_sees_them",
}

NOT_HERE = {
    "TestCreate_invalidLoggerSettings": "Logging is Python's; there are no two settings that could clash.",
    "TestLogging_Address": "The text of a log suffix; errors and events carry the address as a value here.",
    "TestLogging_Conn": "The text of a log suffix; errors and events carry the address as a value here.",
    "TestMemberList_ResolveAddr_TCP_First": "Names go to the system's resolver, not to TCP (docs/wire.md).",
    "TestRetryer": "A helper of Go's own tests that waits; time is virtual here and nothing is retried.",
}


def go_names() -> list[str]:
    return [name for names in GO_TESTS.values() for name in names.split()]


def here(path: Path) -> list[str]:
    """Return the names of the test functions in one file."""
    tree = ast.parse(path.read_text("utf-8"))
    return [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]


def test_every_go_test_has_its_scenario_exactly_once() -> None:
    found = Counter(name for path in HERE.glob("test_*.py") for name in here(path))
    wrong = {}
    for name in go_names():
        expected = 0 if name in ELSEWHERE or name in NOT_HERE else 1
        if found["test_" + name.removeprefix("Test")] != expected:
            wrong[name] = f"{found['test_' + name.removeprefix('Test')]} here, {expected} expected"
    assert wrong == {}


def test_the_catalogue_is_complete_and_names_nothing_else() -> None:
    names = go_names()
    assert len(names) == len(set(names)) == 149
    assert set(ELSEWHERE) | set(NOT_HERE) <= set(names)
    assert not set(ELSEWHERE) & set(NOT_HERE)
    assert all(reason.endswith(".") for reason in NOT_HERE.values())


def test_what_is_elsewhere_is_there() -> None:
    missing = []
    for name, place in ELSEWHERE.items():
        file, _, function = place.partition("::")
        if not (ROOT / file).exists() or function not in here(ROOT / file):
            missing.append(f"{name}: {place}")
    assert missing == []


def test_nothing_that_looks_like_a_go_test_is_unknown() -> None:
    """A capital after ``test_`` means: this is the scenario of that Go test."""
    known = {"test_" + name.removeprefix("Test") for name in go_names()}
    extra = [
        f"{path.name}::{name}"
        for path in HERE.glob("test_*.py")
        for name in here(path)
        if (name[5].isupper() or name[5] == "_") and name not in known
    ]
    assert extra == []
