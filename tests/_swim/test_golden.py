"""The machine against Go's own vectors: queue, state, probe and ping scripts, budgets, formulas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mycorrizal import MergeRefused, Node
from mycorrizal._swim import Swim
from mycorrizal._swim.awareness import Awareness
from mycorrizal._swim.broadcasts import TransmitLimitedQueue
from mycorrizal._swim.events import NodeConflict, NodeJoined, NodeLeft, NodeUpdated
from mycorrizal._swim.members import Member, verify_protocol
from mycorrizal._swim.scaling import push_pull_scale, remaining_suspicion_ms, retransmit_limit, suspicion_timeout
from mycorrizal._wire.messages import Alive, Dead, IndirectPing, Message, Ping, PushNodeState, PushPull, Suspect, User
from mycorrizal.types import NodeState, host_of

from . import harness
from .harness import FAITHFUL, drain, events, make, sent

Case = dict[str, Any]


def unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def hexed(data: bytes | None) -> str | None:
    return None if data is None else data.hex()


# -- formulas ---------------------------------------------------------------------------


def check_limits(case: Case) -> None:
    for mult, nodes, limit, timeout_ns in case["output"]["table"]:
        assert retransmit_limit(mult, nodes) == limit
        assert round(suspicion_timeout(mult, nodes, case["input"]["probe_interval_ns"] / 1e9) * 1e9) == timeout_ns


def check_push_pull_scale(case: Case) -> None:
    for nodes, factor in case["output"]["table"]:
        assert push_pull_scale(nodes) == factor


def check_suspicion_remaining(case: Case) -> None:
    for confirmations, expected, elapsed, low, high, remaining in case["output"]["table"]:
        # The floor may differ by 1 ms between languages (memberlist-protocol §7.6).
        assert abs(remaining_suspicion_ms(confirmations, expected, low, high) - elapsed - remaining) <= 1


def check_awareness(case: Case) -> None:
    awareness = Awareness(8)
    for delta, score, scaled_ms in case["output"]["table"]:
        awareness.apply(delta)
        assert awareness.score == score
        assert awareness.scale(1000) == scaled_ms


# -- the queue ----------------------------------------------------------------------------


def run_queue_script(case: Case) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield what Go did and what we did, operation by operation."""
    queue = TransmitLimitedQueue(case["input"]["retransmit_mult"], lambda: case["input"]["num_nodes"])
    finished: list[str] = []
    for op in case["output"]["ops"]:
        finished.clear()
        did: dict[str, Any] = {}
        if op["op"] == "queue":
            tag = op["tag"]
            kinds: dict[str, dict[str, Any]] = {
                "named": {"name": tag},
                "unique": {"unique": True},
                "plain": {"invalidates": lambda entry, tag=tag: entry.tag == tag},
            }
            label = f"{tag}/{op['msg_hex']}"
            queue.queue_broadcast(
                bytes.fromhex(op["msg_hex"]),
                tag=tag,
                finished=lambda label=label: finished.append(label),
                **kinds[op["kind"]],
            )
        elif op["op"] == "get":
            did["out_hex"] = [m.hex() for m in queue.get_broadcasts(op["overhead"], op["limit"])]
        elif op["op"] == "prune":
            queue.prune(op["max_retain"])
        else:
            assert op["op"] == "reset"
            queue.reset()
        yield op, {**did, "finished": list(finished), "num_queued": len(queue)}


def check_queue_script(case: Case) -> None:
    for number, (op, did) in enumerate(run_queue_script(case)):
        for key, value in did.items():
            assert value == op[key], f"operation {number}: {op['op']}, {key}"


def check_queue_quirk(case: Case) -> None:
    """Go loses a broadcast here (its ids restart); until then we agree, and from then on we have one more."""
    agreed = 0
    for op, did in run_queue_script(case):
        if any(op[key] != value for key, value in did.items()):
            assert did["num_queued"] == op["num_queued"] + 1, "we keep what Go silently replaces"
            break
        agreed += 1
    else:
        pytest.fail("this script is marked as depending on Go's quirk, and did not")
    assert agreed > 2


# -- the state machine -----------------------------------------------------------------------


class Veto:
    """The alive delegate of the scripts: refuses names that start with "veto", and stands in the order of events."""

    swim: Swim

    def notify_alive(self, node: Node) -> None:
        self.swim._core.events.append(("alive_delegate", node))  # type: ignore[arg-type]
        if node.name.startswith("veto"):
            raise ValueError("refused")


class Meta:
    """A delegate that supplies metadata and nothing else."""

    def __init__(self, meta: bytes | None) -> None:
        self.meta = meta

    def node_meta(self, limit: int) -> bytes:
        return self.meta  # type: ignore[return-value]  # None is kept apart from b"" on the wire


def _state_machine(case: Case) -> Swim:
    given = case["input"]
    veto = Veto()
    delegates: dict[str, Any] = {"alive": veto} if given["alive_delegate"] else {}
    swim = make(
        given["name"], host_of(bytes.fromhex(given["addr_hex"])), given["port"], start=False, delegates=delegates,
        suspicion_mult=given["suspicion_mult"], suspicion_max_timeout_mult=given["suspicion_max_timeout_mult"],
        probe_interval=given["probe_interval_s"], gossip_to_the_dead_time=given["gossip_to_the_dead_s"],
        dead_node_reclaim_time=given["dead_node_reclaim_ns"] / 1e9, cidrs_allowed=tuple(given["cidrs"]), **FAITHFUL,
    )  # fmt: skip
    veto.swim = swim
    return swim


def _apply(swim: Swim, op: dict[str, Any], now: float) -> None:
    """Put one step straight to the rules, as the scripts were recorded."""
    rules, fields = swim._transitions, op.get("fields", {})
    match op["op"]:
        case "create":
            swim.start(now)
        case "alive":
            rules.alive(
                Alive(
                    fields["Incarnation"], fields["Node"], unhex(fields["Addr_hex"]), fields["Port"],
                    unhex(fields["Meta_hex"]), unhex(fields["Vsn_hex"]),
                ), now,
            )  # fmt: skip
        case "suspect":
            rules.suspect(Suspect(fields["Incarnation"], fields["Node"], fields["From"]), now)
        case "dead":
            rules.dead(Dead(fields["Incarnation"], fields["Node"], fields["From"]), now)
        case "merge_remote_state":
            nodes = tuple(
                PushNodeState(
                    n["Name"], unhex(n["Addr_hex"]), n["Port"], unhex(n["Meta_hex"]), n["Incarnation"], n["State"],
                    unhex(n["Vsn_hex"]),
                )
                for n in op["nodes"]
            )  # fmt: skip
            error = None
            try:
                swim._sync._merge(PushPull(nodes, b"", op["join"]), op["join"], now)
            except MergeRefused as exc:
                error = exc
            assert (error is None) == op["accepted"]
        case "update_node":
            swim._core.delegate = Meta(unhex(op["meta_hex"]))  # type: ignore[assignment]
            try:
                swim.update_meta(now)
            except Exception as exc:
                assert "has left" in str(exc)
            swim._core.delegate = None
        case "leave":
            swim.leave(now)
        case "age_one_hour_and_reset_nodes":
            for member in swim._core.table:
                member.changed -= 3600
            swim._prober._reap(now)
        case other:
            pytest.fail(f"unknown step {other}")


def _picture(swim: Swim, happened: list[Any]) -> dict[str, Any]:
    def brief(node: Node) -> dict[str, Any]:
        v = node.versions
        vsn = bytes((v.protocol_min, v.protocol_max, v.protocol, v.delegate_min, v.delegate_max, v.delegate))
        return {
            "addr_hex": node.addr.hex(),
            "meta_hex": node.meta.hex(),
            "name": node.name,
            "port": node.port,
            "vsn_hex": vsn.hex(),
        }

    def doubt(member: Member) -> dict[str, Any]:
        s = member.suspicion
        if s is None:
            return {}
        window = {"min_ns": round(s.minimum * 1e9), "max_ns": round(s.maximum * 1e9)}
        return {"suspicion": {"from": sorted(s._from), "k": s.expected, "n": s.confirmations, **window}}

    names = {NodeJoined: "join", NodeLeft: "leave", NodeUpdated: "update"}
    seen = []
    for event in happened:
        if isinstance(event, tuple):
            seen.append({"event": event[0], "node": brief(event[1])})
        elif isinstance(event, NodeConflict):
            seen.append({"event": "conflict", "existing": brief(event.existing), "other": brief(event.other)})
        elif type(event) in names:
            seen.append({"event": names[type(event)], "node": brief(event.node)})
    return {
        "events": seen,
        "health": swim.health_score,
        "local_incarnation": swim.incarnation,
        "nodes": [
            {
                "addr_hex": hexed(m.addr), "incarnation": m.incarnation, "meta_hex": hexed(m.meta), "name": m.name,
                "port": m.port, "state": int(m.state), "vsn_hex": m.vsn.hex(), **doubt(m),
            }
            for m in sorted(swim._core.table, key=lambda m: m.name)
        ],
        "queue": sorted(
            ({"hex": b.message.hex(), "key": b.name} for b in swim._core.queue.broadcasts()), key=lambda b: b["key"]
        ),
    }  # fmt: skip


def check_state_script(case: Case) -> None:
    swim = _state_machine(case)
    swim._core.delegate = Meta(unhex(case["input"]["meta_hex"]))  # type: ignore[assignment]
    for number, step in enumerate(case["output"]["steps"]):
        _apply(swim, step["op"], number * 0.001)
        if number == 0:
            swim._core.delegate = None
        after = _picture(swim, events(swim))
        expected = step["after"]
        for event in expected["events"]:  # a Node has no nil
            for side in event.values():
                if isinstance(side, dict):
                    side["meta_hex"] = side["meta_hex"] or ""
                    side["addr_hex"] = side["addr_hex"] or ""
        expected["nodes"].sort(key=lambda n: n["name"])
        expected["queue"].sort(key=lambda b: b["key"])
        for key, value in after.items():
            assert value == expected[key], f"step {number}: {step['op']}: {key}"


def check_verify_protocol(case: Case) -> None:
    def table(side: str) -> list[tuple[str, int, bytes]]:
        rows = zip(case["input"][f"{side}_states"], case["input"][f"{side}_vsn"], strict=True)
        return [(f"{side[0]}{n}", state, bytes(vsn or ())) for n, (state, vsn) in enumerate(rows)]

    ok = True
    try:
        verify_protocol(table("remote"), table("local"))
    except MergeRefused:
        ok = False
    assert ok == case["output"]["ok"]


# -- probes and pings --------------------------------------------------------------------------


def check_probe_transcript(case: Case) -> None:
    """Replay one probe against the answers that its note describes."""
    given, expected, note = case["input"], case["output"], case["note"]
    swim = make(probe_interval=0.3, probe_timeout=0.1, disable_tcp_pings="TCP pings disabled" in note, **FAITHFUL)
    vsn = bytes((1, given["target_pmax"], 2, 0, 0, 0))
    harness.tell(swim, Alive(4, "target", bytes((10, 0, 0, 2)), 7946, b"", vsn))
    for peer in range(given["peers"]):
        peer_vsn = bytes((1, given["peer_pmax"], 2, 0, 0, 0))
        harness.tell(swim, Alive(1, f"peer{peer}", bytes((10, 0, 1, peer)), 7946, b"", peer_vsn))
    if given["target_state"] == NodeState.SUSPECT:
        harness.tell(swim, Suspect(4, "target", "other"))
    swim._core.awareness.score = expected["health_before"]
    swim._core.queue.reset()
    swim._core.timers._heap.clear()  # no further probe behind the one that is watched
    drain(swim)

    log: list[tuple[int, str, Message]] = []
    target = swim._core.table.get("target")
    assert target is not None
    swim._prober.probe_member(target, 0.0)
    sequence = swim._core._sequence
    ended = _play_probe(swim, note, log, sequence)
    assert abs(ended * 1000 - expected["duration_ms_about"]) <= 60
    assert swim.health_score == expected["health_after"]
    assert harness.state(swim, "target") == expected["target_state_after"]
    wanted = [s for s in expected["sent"] if s["type"] in (0, 1, 3)]
    assert [(m, via) for _, via, m in log].__len__() == len(wanted)
    for (at_ms, via, message), want in zip(log, wanted, strict=True):
        assert abs(at_ms - want["at_ms_about"]) <= 60
        assert message.TYPE == want["type"]
        assert via == want["via"]
        if isinstance(message, (Ping, IndirectPing)) and want["fields"]:
            assert message.seq_no == want["fields"]["SeqNo"]
            assert message.node == want["fields"]["Node"]
            assert message.source_node == want["fields"]["SourceNode"]
        if isinstance(message, IndirectPing):
            assert message.nack == want["fields"]["Nack"]


def _play_probe(swim: Swim, note: str, log: list[tuple[int, str, Message]], sequence: int) -> float:
    """Answer as the note says; return when the probe ended."""
    from mycorrizal._wire.messages import AckResp, NackResp

    now, relayed = 0.0, False
    while True:
        for message, _ in sent(swim):
            log.append((round(now * 1000), "udp", message))
            direct = note.startswith(("direct ack", "suspected target"))
            if isinstance(message, Ping) and direct:
                harness.tell(swim, AckResp(sequence, None), now=now)
            if isinstance(message, IndirectPing) and "all nacks arrive" in note:
                harness.tell(swim, NackResp(sequence), now=now)
            if isinstance(message, IndirectPing):
                relayed = True
        for request in swim.exchanges_to_start():
            log.append((round(now * 1000), "tcp-dial", request.message))
            if "TCP fallback answers" in note:
                swim.exchange_answered(request.exchange_id, AckResp(sequence, None), now)
            else:
                swim.exchange_failed(request.exchange_id, ConnectionRefusedError(), now)
        if swim._prober._active is None:
            return now
        if relayed and "indirect ack" in note and now < 0.16:
            now = 0.16
            harness.tell(swim, AckResp(sequence, None), now=now)
            continue
        due = swim.get_timer()
        assert due is not None
        now = max(now, due)
        swim.handle_timer(now)


def check_ping_handling(case: Case) -> None:
    note = case["note"]

    class Payload:
        def ack_payload(self) -> bytes:
            return b"whatever"

        def notify_ping_complete(self, node: Node, rtt: float, payload: bytes) -> None: ...

    swim = make(
        probe_timeout=0.08,
        require_node_names="RequireNodeNames" in note,
        delegates={"ping": Payload()} if "ping delegate" in note else {},
        **FAITHFUL,
    )
    swim._core.queue.reset()
    drain(swim)
    swim.receive_datagram(bytes.fromhex(case["input"]["packet_hex"]), ("192.0.2.9", 5555), 0.0)
    harness.run_timers(swim, 0.13)
    went = [{"to_addr": f"{a[0]}:{a[1]}", "wire_hex": data.hex()} for data, a in swim.datagrams_to_send()]
    assert went == [{k: s[k] for k in ("to_addr", "wire_hex")} for s in case["output"]["sent"]]


def check_budget(case: Case) -> None:
    given = case["input"]
    asked: list[str] = []

    class Asks(Meta):
        def get_broadcasts(self, overhead: int, limit: int) -> list[bytes]:
            asked.append(f"[{overhead} {limit}]")
            return []

    swim = make(
        udp_buffer_size=given["udp_buffer_size"], protocol_version=given["protocol_version"],
        secret_key=bytes(range(16)) if given["key"] else None, label="x" * given["label_len"],
        gossip_verify_outgoing=given["gossip_verify_outgoing"], gossip_verify_incoming=False,
        delegates={"delegate": Asks(b"")}, **FAITHFUL,
    )  # fmt: skip
    core = swim._core
    harness.tell(swim, harness.alive("peer"))

    def prepare() -> None:
        core.queue.reset()
        asked.clear()
        for message in given["queued"]:
            core.queue.queue_broadcast(bytes.fromhex(message), unique=True)

    prepare()
    message = User(bytes(given["message_len"] - 1))  # one type byte and the rest
    core.send_with_piggyback(message, ("10.1.1.1", 7946), name="peer")
    assert "[" + " ".join(asked) + "]" == case["output"]["piggyback"]
    prepare()
    swim._gossiper.round(0.0)
    assert "[" + " ".join(asked) + "]" == case["output"]["gossip"]


CHECKS = {
    "formula.limits": check_limits,
    "formula.push_pull_scale": check_push_pull_scale,
    "formula.suspicion_remaining": check_suspicion_remaining,
    "formula.awareness": check_awareness,
    "queue.script": check_queue_script,
    "queue.script.id_reset_quirk": check_queue_quirk,
    "state.script": check_state_script,
    "verify_protocol": check_verify_protocol,
    "probe.transcript": check_probe_transcript,
    "ping.handling": check_ping_handling,
    "budget": check_budget,
}
