"""Faults in the data plane's machine."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("Link.refusal", "Status.NOT_YET if machine.host.settling else ", "", "who has just started says so"),
    Fault(
        "Link._lane_data",
        "        if fin:\n            raise",
        "        if False:\n            raise",
        "a lane ends never",
    ),
    Fault("Link.stream_stopped", "stream == self.lane", "stream == self._remote_lane", "a stopped lane is an offence"),
    Fault(
        "Link.stream_reset", "stream == self._remote_lane", "stream == self.lane", "a lane that is reset is an offence"
    ),
    Fault("Link._heed", 'self.machine.host.count("quic.not_proved")', "pass", "who is not proved is counted"),
    Fault("Link.wasted", "(now - self._wasted_at) * _WASTE_RATE", "0.0", "waste is forgiven with time"),
    Fault("Link.wasted", "> _WASTE_MAX", "> 10 * _WASTE_MAX", "a flood ends the connection"),
    Fault("Link.refuse", "> 2 * _LANE_MAX", "> 200 * _LANE_MAX", "who takes no answers is disconnected"),
    Fault("Link.refusal", " or self.conn.backlog(self.lane) > _LANE_MAX", "", "a full lane refuses requests"),
    Fault("Link.refusal", "if not machine.host.has_thread(depth):", "if False:", "what is nested too deep is refused"),
    Fault("Core.has_thread", "self.pool.busy < most", "True", "where all threads wait for one row of requests"),
    Fault("Core._run_handler", "request.depth + 1", "request.depth", "each handler counts"),
    Fault("Link.refusal", " + self.bulk.sending", "", "answers not fetched count as requests"),
    Fault("Link.refusal", ">= machine.limits.requests", "> machine.limits.requests", "requests of a peer are bounded"),
    Fault(
        "Link._on_skip",
        "            self.accept_due = True\n",
        "            pass\n",
        "a skipped number is acknowledged",
    ),
    Fault(
        "Link._take_call", "        if call.flow is not None:", "        if False:", "an answered call sends no more"
    ),
    Fault("Link._on_cancel", " or request.cancelled", "", "a second cancel is waste"),
    Fault("Link._on_cancel", 'self.machine.host.count("requests.cancelled")', "pass", "cancelled requests are counted"),
    Fault(
        "Link.cancel", "            self.bulk.abort(call.flow)", "            pass", "a cancelled call sends no more"
    ),
    Fault(
        "Link.skip", "            self.bulk.abort(message.flow)", "            pass", "a message given up sends no more"
    ),
    Fault("Peer.let_in", "            self.link.accept_due = True\n", "", "room is told to the sender"),
    Fault(
        "Peer._pump",
        "                self.outgoing.withdraw(message)",
        "                pass",
        "what does not fit is skipped",
    ),
    Fault("Peer.message_refused", "            self._skip(message)\n", "", "a refused message's number is skipped"),
    Fault("Peer._resend", "if message.carrier not in self.links:", "if True:", "what is under way is not sent twice"),
    Fault(
        "Peer._choose",
        "                link.retired = False\n",
        "                pass\n",
        "the only connection is not retired",
    ),
    Fault(
        "DataMachine.room", "                self.blocked(peer)", "                pass", "each peer has its next turn"
    ),
    Fault("DataMachine.claim", ">= _PEERS_MAX", "> 10 * _PEERS_MAX", "names are bounded"),
    Fault("DataMachine.claim", "self.host.member(name) is False", "False", "no member, no connection"),
    Fault("DataMachine._challenge", ">= _CHALLENGE_COUNTS", ">= 1e9", "an old question does not count"),
    Fault("DataMachine._challenge", 'self.host.count("quic.name_conflicts")', "pass", "a conflict is counted"),
    Fault("DataMachine._close_unheld", "link.ready and not", "not", "a link that proves itself is let be"),
    Fault(
        "DataMachine.keys_changed", "link.conn.dialled and not link.ready", "False", "a dial with old keys begins anew"
    ),
    Fault("DataMachine._look_after", 'self.host.count("quic.idle_closed")', "pass", "idle closes are counted"),
    Fault("DataMachine._look_after", "_RETIRED_SECONDS if link.retired else", "", "a retired connection goes soon"),
    Fault("DataMachine._listen", ">= config.silence_timeout", ">= 10 * config.silence_timeout", "silence ends it"),
    Fault(
        "DataMachine._listen",
        "max(conn.last_received, link.waiting_since)",
        "conn.last_received",
        "silence counts from when something waits",
    ),
    Fault(
        "Bulk._head_data",
        "            if fin:\n                raise",
        "            if False:\n                raise",
        "a stream that ends in its head is an offence",
    ),
    Fault("Bulk.data", "> _DROPPED_MAX", "> 100 * _DROPPED_MAX", "a stopped stream may not go on"),
    Fault("Bulk._refusal", ">= VALUES_TAKEN", "> VALUES_TAKEN", "large values at a time are bounded"),
    Fault("Bulk._refusal", "if at != len(body):", "if False:", "bytes before a request's value are an offence"),
    Fault(
        "Bulk.stopped", "self.flows, self._tails, self._unsettled", "self.flows, self._tails", "a late refusal counts"
    ),
    Fault("Bulk.look_after", "now - head.since >= limit", "False", "a head that never comes ends the connection"),
    Fault("Bulk.clear", "            self.link.machine.budget.drop(value)", "            pass", "memory is given back"),
    Fault("Outflow.push", "            if self.lent.over:", "            if False:", "what was taken back is not sent"),
    Fault("InValue.grant", "self.last = self.since = now", "pass", "the time to come begins with the grant"),
    Fault("Budget._next", "held and held + value.size > self.limit // 2", "False", "a peer has half of it"),
    Fault(
        "Budget._next",
        "sorted(first, key=self._holds)",
        "first",
        "who holds least is first",
    ),
    Fault("Budget._next", "                continue", "                break", "who has his share holds up nobody"),
    Fault("Budget._next", "            left = 0\n", "", "who waits for room is not passed by"),
    Fault("Budget._next", "value.size <= few", "False", "who holds nothing gets some of what is free"),
    Fault("Budget._next", "room - self.limit // 16 if at else room", "room", "other addresses get some, too"),
    Fault("Pipe.feed", "if self._received > self.limit:", "if False:", "more than granted is an offence"),
    Fault("Pipe.consumed", ">= STREAM_WINDOW // 4", ">= 2 * STREAM_WINDOW", "a reader grants more"),
    Fault(
        "Handshake._welcomed",
        "machine.trust.check_answer(binding, link.key_id, welcome.answer)",
        "pass",
        "the server proves itself",
    ),
    Fault(
        "Handshake._challenged",
        "if link.expected is not None and challenge.name != link.expected:",
        "if False:",
        "who dials a name gets that name",
    ),
    Fault("Gone.sweep", "peer.over and ", "", "who has something open stays"),
    Fault("Gone._is_gone", "peer.removed or ", "", "who was removed is forgotten"),
    Fault("Gone._keep", "            del self._numbers[next(iter(self._numbers))]\n", "", "numbers kept are bounded"),
    Fault("Gone.back", "self._numbers.pop(name, None)", "None", "who comes back goes on counting"),
    Fault("Peer.link_ready", "self.removed = False", "pass", "who is used again is known"),
    Fault("Outgoing.resume", "self._next = following", "pass", "our own count goes on"),
]
