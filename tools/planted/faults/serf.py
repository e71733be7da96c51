"""Faults in Serf's rules."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("Clock.witness", "seen >= self.time", "seen > self.time", "a time that was seen is not given out again"),
    Fault(
        "SerfMachine.merge_state",
        "self._query_clock.witness(state.query_ltime - 1)",
        "pass",
        "the clock of queries goes with the cluster's",
    ),
    Fault(
        "SerfMachine.merge_state",
        " and not self._joined and not self._replay",
        " and not self._replay",
        "a later join loses no events",
    ),
    Fault(
        "SerfMachine.node_joined", "self._pruned.discard(name)", "pass", "who came back is not pruned by an old intent"
    ),
    Fault(
        "SerfMachine.node_joined", "self._departed.pop(name, None)", "pass", "who came back counts as a member again"
    ),
    Fault("SerfMachine.node_left", " or name == self.name", "", "we are never gone to ourselves"),
    Fault("SerfMachine._handle_join", "self._pruned.discard(intent.node)", "pass", "a join revokes a prune"),
    Fault(
        "SerfMachine._handle_join",
        "and not (intent.node == self.name and self._leaving)",
        "",
        "a join intent does not revoke our own leave",
    ),
    Fault(
        "SerfMachine._note_intent",
        "self._intents.move_to_end(intent.node)",
        "pass",
        "of intents about strangers the oldest is forgotten",
    ),
    Fault(
        "SerfMachine._depart",
        "self._departed.setdefault(member.name)",
        "self._departed.pop(member.name, 0); self._departed.setdefault(member.name)",
        "of the departed the longest gone is forgotten",
    ),
    Fault("SerfMachine._forget", "self._departed.pop(name, None)", "pass", "who is pruned does not count as departed"),
    Fault(
        "SerfMachine._handle_event",
        "len(seen) >= MAX_EVENTS_PER_TICK",
        "len(seen) > MAX_EVENTS_PER_TICK",
        "events of one time are bounded",
    ),
    Fault(
        "SerfMachine._handle_event",
        " or len(self._received) >= MAX_RECEIVED",
        "",
        "events that nobody pulls are bounded",
    ),
    Fault(
        "SerfMachine._handle_event",
        "event.ltime + EVENT_BUFFER < self._event_clock.time",
        "event.ltime + EVENT_BUFFER <= self._event_clock.time",
        "events are remembered for 512 ticks",
    ),
    Fault(
        "SerfMachine._remember",
        "self._event_min = max(self._event_min, oldest + 1)",
        "pass",
        "a forgotten event does not come again",
    ),
    Fault("SerfMachine._remember", "self._event_bytes += event.size", "pass", "bytes of remembered events are bounded"),
    Fault("SerfMachine.user_event", "self._event_clock.tick()", "pass", "each event of ours has a time of its own"),
    Fault("SerfMachine.leave", "self._leaving = True\n", "pass\n", "a leave is announced once"),
    Fault("SerfMachine.size", " - len(self._departed)", "", "the departed are not gossiped to"),
    Fault(
        "SerfMachine.local_state",
        "max(0, m.ltime - 1) if m.status in gone else m.ltime",
        "m.ltime",
        "who reads our state takes a leave as one",
    ),
    Fault(
        "SerfMachine.receive_message",
        'self.counters["unknown_type"] += 1',
        "pass",
        "messages of other types are counted",
    ),
    Fault(
        "SerfMachine._handle_leave",
        'self.counters["refuted_leaves"] += 1',
        "pass",
        "leaves that we refuted are counted",
    ),
    Fault("decode", "len(data) > MAX_MESSAGE", "len(data) > 2 * MAX_MESSAGE", "a message is bounded"),
    Fault("decode_state", "len(data) > MAX_STATE:", "len(data) > 2 * MAX_STATE:", "a state is bounded"),
    Fault("_state", " or len(left) > MAX_STATE_NODES", "", "those who left are bounded in a state"),
    Fault("_state", " or len(ticks) > MAX_STATE_TICKS", "", "times of events are bounded in a state"),
    Fault("_ltime", " or isinstance(value, bool)", "", "a boolean is no time"),
    Fault("_ltime", "<= MAX_LTIME", "<= 4 * MAX_LTIME", "a time that would end the clock is refused"),
    Fault(
        "_event",
        "len(name) + len(payload) > MAX_EVENT_SIZE",
        "len(payload) > MAX_EVENT_SIZE",
        "an event's name counts too",
    ),
    Fault("encode_tags", "len(meta) > limit", "len(meta) >= limit", "tags may take exactly the limit"),
    Fault(
        "decode_tags",
        "except RemoteProtocolError:\n        return {}",
        "except RemoteProtocolError:\n        raise",
        "broken tags of others raise nothing",
    ),
    Fault("SerfMachine.reap", "self._forget(next(iter(self._departed)))", "break", "the gone have an age"),
    Fault("SerfMachine.reap", "self._intents.popitem(last=False)", "break", "intents about strangers have an age"),
    Fault(
        "SerfMachine._handle_leave",
        "(SerfStatus.ALIVE, SerfStatus.LEAVING)",
        "(SerfStatus.ALIVE, SerfStatus.FAILED)",
        "a newer leave of one who leaves is recorded",
    ),
    Fault("Queries.receive", "ids.add(query.id)", "pass", "a query is passed on and answered once"),
    Fault(
        "Queries.receive",
        "query.ltime + QUERY_BUFFER < self._clock.time",
        "query.ltime + QUERY_BUFFER <= self._clock.time",
        "queries are remembered for 512 ticks",
    ),
    Fault("Queries.receive", "if query.flags & NO_BROADCAST:", "if False:", "who is told so passes a query not on"),
    Fault("Queries.receive", "if query.flags & ACK:", "if True:", "only who wants acknowledgements gets them"),
    Fault("Queries.receive", "len(ids) >= MAX_QUERIES_PER_TICK", "False", "queries of one time are bounded"),
    Fault("Queries.take_response", "if response.sender in answers.responses:", "if False:", "one answer for each node"),
    Fault("Queries._respond", "0 < query.relays <= len(others)", "0 < query.relays", "too few others relay nothing"),
    Fault("Queries._tell", "self._strangers > STRANGERS", "False", "answers to strangers are bounded in time"),
    Fault("Queries._forget", "del self._seen[ltime]", "pass", "old queries are forgotten"),
    Fault("passes", "name not in [", "False and name not in [", "a query to others is not answered"),
    Fault("Pattern._add", "len(self._steps) >= MAX_PROGRAM", "False", "expressions are bounded"),
    Fault("Asking.respond", "now > asked.deadline", "False", "an answer that comes too late is not sent"),
    Fault("KeyDesk.answer", "if not self._allowed:", "if False:", "who opts out keeps his keys from Serf"),
    Fault("KeyDesk.answer", "                self.save()\n", "", "changed keys are kept"),
    Fault("RingKeys.change", "len(known) >= MOST_KEYS", "False", "installed keys are bounded"),
    Fault("KeyringFile.load", "if private is not None:", "if False:", "a file of keys is private"),
    Fault("Desk._resolve", "len(votes) // 2 + 1", "0", "who is in the minority ends"),
]
