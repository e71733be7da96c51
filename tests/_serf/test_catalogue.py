"""Every test of Serf's own suite (package ``serf`` at HEAD: 111 functions), and where its scenario stands here.

``TestSerf_joinIntent_newer`` in Go is ``test_Serf_joinIntent_newer`` in
``test_scenarios.py``. What has no scenario there stands in ``ELSEWHERE`` with
the test that covers it, in ``LATER`` with the part of Serf that is not here yet,
or in ``NOT_HERE`` with the reason.
"""

from __future__ import annotations

import ast
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

GO_TESTS = {
    "broadcast_test.go": "TestBroadcast_Impl TestBroadcastFinished TestBroadcastFinished_nilNotify",
    "coalesce_member_test.go": """
        TestMemberEventCoalesce_Basic TestMemberEventCoalesce_TagUpdate TestMemberEventCoalesce_passThrough
    """,
    "coalesce_test.go": "TestCoalescer_basic TestCoalescer_quiescent TestCoalescer_passThrough",
    "coalesce_user_test.go": "TestUserEventCoalesce_Basic TestUserEventCoalesce_passThrough",
    "config_test.go": "TestDefaultConfig",
    "delegate_test.go": """
        TestDelegate_NodeMeta_Old TestDelegate_NodeMeta_New TestDelegate_LocalState TestDelegate_MergeRemoteState
        TestDelegate_BadData
    """,
    "event_test.go": "TestMemberEvent TestUserEvent TestQuery TestEventType_String",
    "internal_query_test.go": """
        TestInternalQueryName TestSerfQueries_Passthrough TestSerfQueries_Ping TestSerfQueries_Conflict_SameName
        TestSerfQueries_estimateMaxKeysInListKeyResponseFactor TestSerfQueries_keyListResponseWithCorrectSize
    """,
    "keymanager_test.go": "TestSerf_InstallKey TestSerf_UseKey TestSerf_RemoveKey TestSerf_ListKeys",
    "lamport_test.go": "TestLamportClock",
    "merge_delegate_test.go": "TestValidateMemberInfo",
    "messages_test.go": "TestQueryFlags TestEncodeMessage TestEncodeRelayMessage TestEncodeFilter",
    "query_test.go": """
        TestDefaultQuery TestQueryParams_EncodeFilters TestSerf_ShouldProcess Test_kRandomMembers
    """,
    "serf_internals_test.go": """
        TestSerf_joinLeave_ltime TestSerf_join_pendingIntent TestSerf_join_pendingIntents
        TestSerf_leaveIntent_bufferEarly TestSerf_leaveIntent_oldMessage TestSerf_leaveIntent_newer
        TestSerf_joinIntent_bufferEarly TestSerf_joinIntent_oldMessage TestSerf_joinIntent_newer
        TestSerf_joinIntent_resetLeaving TestSerf_userEvent_oldMessage TestSerf_userEvent_sameClock
        TestSerf_query_oldMessage TestSerf_query_sameClock
    """,
    "serf_test.go": """
        TestCreate_badProtocolVersion TestSerf_eventsFailed TestSerf_eventsJoin TestSerf_eventsLeave
        TestSerf_eventsLeave_avoidInfiniteLeaveRebroadcast TestSerf_RemoveFailed_eventsLeave TestSerf_eventsUser
        TestSerf_eventsUser_sizeLimit TestSerf_getQueueMax TestSerf_joinLeave TestSerf_leaveRejoinDifferentRole
        TestSerf_forceLeaveFailed TestSerf_forceLeaveLeaving TestSerf_forceLeaveLeft TestSerf_reconnect
        TestSerf_reconnect_sameIP TestSerf_update TestSerf_role TestSerfProtocolVersion TestSerfRemoveFailedNode
        TestSerfRemoveFailedNode_prune TestSerfRemoveFailedNode_ourself TestSerfState TestSerf_ReapHandler_Shutdown
        TestSerf_ReapHandler TestSerf_Reap TestRemoveOldMember TestRecentIntent TestMemberStatus_String
        TestSerf_joinLeaveJoin TestSerf_Join_IgnoreOld TestSerf_SnapshotRecovery TestSerf_Leave_SnapshotRecovery
        TestSerf_SetTags TestSerf_Query TestSerf_Query_Filter TestSerf_Query_Deduplicate TestSerf_Query_sizeLimit
        TestSerf_Query_sizeLimitIncreased TestSerf_NameResolution TestSerf_LocalMember TestSerf_WriteKeyringFile
        TestSerfStats TestSerf_Join_Cancel TestSerf_Coordinates TestSerf_PingDelegateVersioning
        TestSerf_PingDelegateRogueCoordinate TestSerf_NumNodes TestSerf_ValidateNodeName
        TestSerf_perNodeReconnectTimeout
    """,
    "snapshot_test.go": """
        TestSnapshotter TestSnapshotter_forceCompact TestSnapshotter_leave TestSnapshotter_leave_rejoin
        TestSnapshotter_slowDiskNotBlockingEventCh TestSnapshotter_blockedUpstreamNotBlockingMemberlist
    """,
}

ELSEWHERE = {
    "TestBroadcastFinished": "tests/test_serf.py::TestDelegate::test_leave_waits_for_the_intent",
    "TestBroadcastFinished_nilNotify": "tests/test_serf.py::TestDelegate::test_events_both_ways",
    "TestCreate_badProtocolVersion": "tests/test_serf.py::TestDelegate::test_settings_that_serf_refuses",
    "TestDefaultConfig": "tests/test_serf.py::TestDelegate::test_config",
    "TestDelegate_BadData": "tests/test_serf.py::TestDelegate::test_tags_beyond_the_limit",
    "TestDelegate_NodeMeta_New": "tests/_serf/test_machine.py::TestMessages::test_tags",
    "TestInternalQueryName": "tests/test_serf_queries.py::TestQueries::test_whose_a_name_is",
    "TestSerfProtocolVersion": "tests/test_serf.py::TestDelegate::test_config",
    "TestSerfQueries_Conflict_SameName": "tests/test_serf_queries.py::TestQueries::test_whose_a_name_is",
    "TestSerfQueries_Passthrough":
        "tests/test_serf_queries.py::TestQueries"
        "::test_a_query_is_acknowledged_at_once_and_answered_on_the_delegate_thread",
    "TestSerfQueries_estimateMaxKeysInListKeyResponseFactor":
        "tests/test_serf_queries.py::TestKeys::test_keys_are_bounded_and_so_is_the_list",
    "TestSerfQueries_keyListResponseWithCorrectSize":
        "tests/test_serf_queries.py::TestKeys::test_keys_are_bounded_and_so_is_the_list",
    "TestSerfRemoveFailedNode": "tests/interop/test_serf.py::test_python_forces_who_failed_to_have_left",
    "TestSerfRemoveFailedNode_prune": "tests/_serf/test_gone.py::test_force_leave",
    "TestSerfState": "tests/scenarios/test_memberlist.py::test_Memberlist_Leave",
    "TestSerf_InstallKey": "tests/interop/test_serf_queries.py::test_keys_are_changed_on_python_members_too",
    "TestSerf_Join_Cancel": "tests/scenarios/test_memberlist_join.py::test_Memberlist_Join_Cancel",
    "TestSerf_ListKeys": "tests/interop/test_serf_queries.py::test_keys_are_changed_on_python_members_too",
    "TestSerf_LocalMember": "tests/test_serf.py::TestDelegate::test_tags_beyond_the_limit",
    "TestSerf_NameResolution":
        "tests/interop/test_serf_queries.py::test_a_newcomer_with_an_agents_name_ends_and_the_rightful_agent_stays",
    "TestSerf_Query": "tests/interop/test_serf_queries.py::test_a_query_reaches_everybody",
    "TestSerf_Query_Filter": "tests/interop/test_serf_queries.py::test_filters_and_relays",
    "TestSerf_Reap": "tests/_serf/test_gone.py::test_the_gone_are_remembered_for_a_day",
    "TestSerf_RemoveFailed_eventsLeave": "tests/_serf/test_machine.py::TestIntents"
        "::test_an_end_without_intent_is_a_failure",
    "TestSerf_RemoveKey": "tests/interop/test_serf_queries.py::test_keys_are_changed_on_python_members_too",
    "TestSerf_SetTags": "tests/interop/test_serf.py::test_tags_both_ways",
    "TestSerf_UseKey": "tests/interop/test_serf_queries.py::test_keys_are_changed_on_python_members_too",
    "TestSerf_WriteKeyringFile": "tests/test_serf_queries.py::TestKeys::test_a_file_keeps_them",
    "TestSerf_eventsFailed": "tests/interop/test_serf.py::test_a_killed_python_node_is_failed",
    "TestSerf_eventsJoin": "tests/test_serf.py::TestDelegate::test_members",
    "TestSerf_eventsLeave": "tests/_serf/test_machine.py::TestIntents::test_a_leave_intent_makes_the_end_a_leave",
    "TestSerf_eventsUser": "tests/interop/test_serf.py::test_user_events_both_ways_once_each",
    "TestSerf_eventsUser_sizeLimit": "tests/test_serf.py::TestDelegate::test_too_large_events",
    "TestSerf_forceLeaveFailed": "tests/_serf/test_gone.py::test_prune_forgets_who_is_gone_at_once",
    "TestSerf_forceLeaveLeaving": "tests/_serf/test_gone.py::test_prune_forgets_who_leaves_once_it_is_gone",
    "TestSerf_forceLeaveLeft": "tests/_serf/test_gone.py::test_prune_forgets_who_is_gone_at_once",
    "TestSerf_getQueueMax": "tests/test_serf.py::TestDelegate::test_what_waits_to_be_gossiped_is_bounded",
    "TestSerf_joinLeave": "tests/interop/test_serf.py::test_a_leaving_python_node_is_left",
    "TestSerf_reconnect": "tests/scenarios/test_beyond_sync.py::test_a_partition_heals_without_a_join",
    "TestSerf_reconnect_sameIP": "tests/scenarios/test_beyond_sync.py::test_a_partition_heals_without_a_join",
    "TestValidateMemberInfo": "tests/_swim/test_transitions.py::test_an_address_nobody_can_dial_is_refused",
}  # fmt: skip

LATER = {
    "coalescing": """
        TestMemberEventCoalesce_Basic TestMemberEventCoalesce_TagUpdate TestMemberEventCoalesce_passThrough
        TestCoalescer_basic TestCoalescer_quiescent TestCoalescer_passThrough
        TestUserEventCoalesce_Basic TestUserEventCoalesce_passThrough
    """,
    "coordinates": "TestSerf_Coordinates TestSerf_PingDelegateVersioning TestSerf_PingDelegateRogueCoordinate",
    "snapshot": """
        TestSnapshotter TestSnapshotter_forceCompact TestSnapshotter_leave TestSnapshotter_leave_rejoin
        TestSnapshotter_slowDiskNotBlockingEventCh TestSnapshotter_blockedUpstreamNotBlockingMemberlist
        TestSerf_SnapshotRecovery TestSerf_Leave_SnapshotRecovery
    """,
}

NOT_HERE = {
    "TestBroadcast_Impl": "A check of Go's types; mypy does that here.",
    "TestEventType_String": "The text of a number; kinds of events are classes and functions here.",
    "TestMemberEvent": "The text of a number; kinds of events are classes and functions here.",
    "TestQuery": "The text of a number; kinds of events are classes and functions here.",
    "TestSerf_ReapHandler_Shutdown": "The gone are forgotten with each input; no thread could outlive it.",
    "TestSerf_ValidateNodeName": "An option of Serf's that is off by default; Config.name takes any readable text.",
    "TestSerf_perNodeReconnectTimeout": "The gone are remembered for one time, Serf's default; none is set apart.",
    "TestUserEvent": "The text of a number; kinds of events are classes and functions here.",
}


def go_names() -> list[str]:
    return [name for names in GO_TESTS.values() for name in names.split()]


def later() -> set[str]:
    return {name for names in LATER.values() for name in names.split()}


def found_in(path: Path) -> list[str]:
    """Return the test functions of one file, those of a class as ``Class::name``."""
    found = []
    for node in ast.parse(path.read_text("utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found += [prefix + n.name for n in inner if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
    return found


def test_every_go_test_has_its_place_exactly_once() -> None:
    names = go_names()
    assert len(names) == len(set(names)) == 111
    places = [*ELSEWHERE, *NOT_HERE, *(name for group in LATER.values() for name in group.split())]
    assert len(places) == len(set(places))
    scenarios = set(names) - set(places)
    assert set(places) <= set(names)
    assert sorted(found_in(HERE / "test_scenarios.py")) == sorted("test_" + n.removeprefix("Test") for n in scenarios)
    assert all(reason.endswith(".") for reason in NOT_HERE.values())


def test_what_is_elsewhere_is_there() -> None:
    missing = []
    for name, place in ELSEWHERE.items():
        file, _, function = place.partition("::")
        if not (ROOT / file).exists() or function not in found_in(ROOT / file):
            missing.append(f"{name}: {place}")
    assert missing == []
