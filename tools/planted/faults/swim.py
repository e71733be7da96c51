"""Faults in the membership machine."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    # -- allowance --
    Fault("_DATAGRAMS", "4", "5", "a datagram buys four at most"),
    Fault("_FACTOR", "5", "6", "a datagram buys less than five times its bytes"),
    Fault("Allowance.__init__", " - 1", "", "a datagram buys less than five times its bytes, not as much"),
    Fault("Allowance.room", " if self._datagrams else 0", "", "where no datagram is left there is no room"),
    Fault(
        "Allowance.take", "datagrams > self._datagrams or ", "", "datagrams that are bought are bounded, however small"
    ),
    Fault(
        "Allowance.take",
        "self._bytes -= datagrams * size",
        "self._bytes -= size",
        "each of several datagrams costs its bytes",
    ),
    Fault(
        "Allowance.aside",
        "kept._datagrams, kept._bytes = datagrams, datagrams * size",
        "kept._datagrams, kept._bytes = 4, datagrams * size",
        "what is put aside is for so many datagrams",
    ),
    Fault(
        "Core.answering",
        "self.allowance = before",
        "self.allowance = None",
        "work of our own in an answer does not free the rest of it",
    ),
    Fault("Core.set_aside", 'self.count("answers_withheld")', "pass", "an answer that is withheld is counted"),
    Fault(
        "Core.send_with_piggyback",
        '- self.size(encoded, b"")) // 2',
        '- self.size(encoded, b""))',
        "half of what a datagram buys is left for its other messages",
    ),
    # -- claims --
    Fault(
        "Claims.contest",
        "if pending.claim.incarnation < claim.incarnation:",
        "if True:",
        "an older record of a claimant does not take the place of a newer one",
    ),
    Fault(
        "Claims.contest", "if len(self._open) >= _CLAIMS_MAX:", "if False:", "claims that are looked into are bounded"
    ),
    Fault(
        "Claims.contest",
        "elif claim.incarnation > member.incarnation:",
        "else:",
        "a stale record in the other form of its address is stale",
    ),
    Fault(
        "Claims.contest", 'self._core.count("alive.address_refused")', "pass", "a claim without an address is counted"
    ),
    Fault("Claims._outbid", "bids >= _OUTBIDS_MAX or ", "", "a namesake is not outbid for ever"),
    Fault("Claims._outbid", " or self._core.has_left", "", "who has left outbids nobody"),
    Fault(
        "Claims._outbid", "or len(self._outbids) > _CLAIMS_MAX", "or False", "addresses that were outbid are bounded"
    ),
    Fault(
        "Claims._conflict",
        "self._core.table.get(member.name) is member and ",
        "",
        "who was forgotten meanwhile has no conflict",
    ),
    Fault(
        "Claims._conflict",
        " and _address(claim) != member.address",
        "",
        "a claim that turned out to be true is no conflict",
    ),
    Fault("Claims._silent", 'core.count("takeovers")', "pass", "takeovers are counted"),
    Fault("Claims._silent", "_same_life(current.meta, pending)", "False", "who has moved is not seen to go and come"),
    Fault("Claims._silent", "if pending.leave is not None:", "if False:", "a leave that came late is a leave"),
    Fault(
        "Claims._answered",
        "claim.incarnation < member.incarnation and not",
        "False and not",
        "an old record of who has moved is no conflict",
    ),
    Fault("Claims.contest", "if boot is not None and", "if False and", "an old record of the same process is old"),
    Fault(
        "Claims.contest",
        "if claim.incarnation > member.incarnation and member.suspicion is not None:",
        "if False:",
        "who may have moved is not buried while that is looked into",
    ),
    Fault("Claims.sort", "_is_leave(m, lives.get(m.node, 0))", "False", "a goodbye for Go's sake is none"),
    Fault("Claims.hold", "pending.leave = leave", "pass", "a leave that waits is not forgotten"),
    Fault("_same_life", "and not pending.anew", "", "a new process elsewhere is a new life"),
    # -- moving --
    Fault("Moving.moved", "core.addr = addr", "pass", "answers are asked for where we are"),
    Fault("Moving.moved", "self._prober.abandon(now)", "pass", "what was asked from the old address accuses nobody"),
    Fault("Moving.moved", "core.awareness.apply(-core.awareness.score)", "pass", "who has moved is not ill"),
    Fault("Moving._tell", "(goodbye, claim) if", "(claim,) if", "Go's members see a leave and a join"),
    Fault(
        "Claims._silent",
        "elif current.address == asked:",
        "else:",
        "silence of an old address says nothing of a new one",
    ),
    Fault(
        "Claims._silent",
        "if current is None:\n            self._transitions.alive(claim, now)",
        "if current is None:\n            pass",
        "the claimant of a name that was forgotten meanwhile is taken",
    ),
    # -- appeals --
    Fault("Appeals.correct", "self._tokens -= 1", "pass", "corrections are bounded"),
    Fault(
        "Appeals.correct",
        "min(_CORRECTIONS_PER_SECOND, self._tokens +",
        "max(_CORRECTIONS_PER_SECOND, self._tokens +",
        "corrections do not add up over quiet hours",
    ),
    Fault(
        "Appeals._ping", "self._next.pop(member.name, None)", "pass", "a suspicion that is over leaves nothing behind"
    ),
    Fault("Appeals._schedule", "old.cancel()", "pass", "a suspicion has one series of last pings"),
    Fault(
        "Appeals._answered",
        "self._transitions.answered(member, now)",
        "pass",
        "a suspect that answers is not held for refused",
    ),
    Fault(
        "Appeals._answered", 'self._core.count("suspicions_put_off")', "pass", "a verdict that is put off is counted"
    ),
    # -- acks, timers, suspicion, gossip, queue --
    Fault("Acks.full", ">= _WAITING_MAX", "> _WAITING_MAX", "waits on behalf of others are bounded"),
    Fault("Acks.expect", "self.forget(sequence)", "pass", "a number that is used again leaves no old deadline"),
    Fault("Acks.forget", "wait.timer.cancel()", "pass", "who stopped waiting is not called"),
    Fault("Timers.call_at", "max(deadline, self.now)", "deadline", "a deadline that is over is now"),
    Fault(
        "Timers.call_at",
        "self._heap[:] = [timer for timer in self._heap if timer.callback is not None]",
        "pass",
        "cancelled timers do not pile up",
    ),
    Fault(
        "Suspicion.confirm",
        "self.confirmations >= self.expected or ",
        "",
        "confirmations beyond those wanted do not spread",
    ),
    Fault(
        "Suspicion.deadline",
        "max(self.not_before, self.started + max(self.floor, self._window()))",
        "self.started + max(self.floor, self._window())",
        "a verdict that was put off is put off",
    ),
    Fault(
        "Suspicion.shortest",
        "max(self.floor, self.minimum)",
        "self.minimum",
        "a suspicion that is put off has its floor again",
    ),
    Fault("Gossiper.rearm", " or self._core.may_speak", "", "a delegate that has something to say is asked"),
    Fault(
        "Gossiper.round",
        "now - member.changed <= config.gossip_to_the_dead_time",
        "now - member.changed < config.gossip_to_the_dead_time - 1",
        "the lately dead are gossiped to as long as set",
    ),
    Fault(
        "TransmitLimitedQueue.prune",
        "[max(self._tiers)][-1]",
        "[min(self._tiers)][-1]",
        "what was sent most goes first",
    ),
    Fault(
        "TransmitLimitedQueue.get_broadcasts",
        "if entry.name is not None and entry.name in self._named:",
        "if False:",
        "a newer broadcast that came meanwhile replaces the one that was sent",
    ),
    Fault(
        "TransmitLimitedQueue._remove",
        "self.backlog -= len(entry.message)",
        "pass",
        "the backlog falls with what is sent",
    ),
    # -- members --
    Fault("MemberTable.reap", "self.version += 1", "pass", "who was forgotten is not shown"),
    Fault("verify_protocol", "if alive and len(vsn) >= 5:", "if len(vsn) >= 5:", "versions of the dead do not count"),
    Fault(
        "verify_protocol",
        "if not delegate_low <= delegate <= delegate_high:",
        "if not delegate_low <= delegate:",
        "a delegate protocol that is too new is refused",
    ),
    # -- core --
    Fault("Core.next_sequence", " & 0xFFFFFFFF", "", "ping numbers wrap"),
    Fault("Core.leaving", "if len(word) > limit:", "if False:", "a last word that fits no packet is not said"),
    Fault(
        "Core._fitting",
        "room += overhead + len(data)\n",
        "pass\n",
        "one broadcast too long does not cost those that fit",
    ),
    Fault(
        "Core.local_state",
        "len(state) > USER_BYTES_SENT_MAX",
        "len(state) > 2 * USER_BYTES_SENT_MAX",
        "a state longer than receivers take is not sent",
    ),
    Fault(
        "Core.queue_broadcast",
        "self.queue.prune(2 * self.config.max_nodes)",
        "pass",
        "broadcasts that wait are bounded",
    ),
    Fault(
        "Core.send_with_piggyback",
        "return False  # before",
        "pass  # before",
        "what cannot be sent costs no broadcast a transmission",
    ),
    Fault("Core.send_with_piggyback", "[:_PIGGYBACK_MAX]", "", "a packet has at most 255 messages"),
    Fault("Core._deliverable", 'self.count("udp.undialable_dropped")', "pass", "what can be sent nowhere is counted"),
    # -- machine --
    Fault(
        "Swim._update_meta", "del self._untold[operation]", "pass", "an update that is refused leaves nothing behind"
    ),
    Fault(
        "Swim._after_stall",
        "self._transitions.extend_suspicions(now)",
        "pass",
        "after a stall suspects have their time",
    ),
    Fault("Swim._after_stall", "self._prober.abandon(now)", "pass", "after a stall the probe under way accuses nobody"),
    Fault("Swim._after_stall", "self._sync.hasten(now)", "pass", "after a stall tables are compared soon"),
    Fault("Swim._after_stall", "if woken - self._woke < _WAKE_SECONDS:", "if False:", "stalls in a row are told once"),
    Fault("Swim.stood_still", "max(due, timers.now)", "due", "who is busy does not stand still"),
    Fault(
        "Swim._saw_death",
        "if self._untold and not self._others_alive():",
        "if False:",
        "a leave ends when the last who could hear it is gone",
    ),
    Fault(
        "Swim._handle",
        "core.incarnation = max(core.incarnation, message.incarnation)",
        "core.incarnation = message.incarnation",
        "who left does not go back in incarnation",
    ),
    Fault(
        "Swim.write_failed",
        'self._core.count("udp.write_errors")',
        "pass",
        "datagrams that the system refused are counted",
    ),
    Fault("Swim._with_port", "if claim.port and ", "if ", "a record without a port has ours"),
    Fault(
        "Swim._farewell",
        "lambda m: not m.gone and not core.is_self(m)",
        "lambda m: not core.is_self(m)",
        "the last word goes to those who are there",
    ),
    # -- probe --
    Fault("Prober.abandon", "self.acks.forget(probe.sequence)", "pass", "a probe that was given up waits for nothing"),
    Fault("Prober._report_blocked", "member.reported = now", "pass", "UDP that is blocked is told every 30 s at most"),
    Fault(
        "Prober.handle_indirect_ping",
        'core.count("indirect_pings_refused")',
        "pass",
        "a relayed ping that is refused is counted",
    ),
    Fault(
        "Prober._tcp_done",
        " and answer.seq_no == probe.sequence",
        "",
        "an acknowledgement of another ping over TCP is none",
    ),
    Fault("Prober.ask", " and answer.seq_no == ping.seq_no", "", "an acknowledgement of another ping shows no member"),
    Fault("Prober._acked", "member.tcp_only = 0", "pass", "probes that only TCP answered count in a row"),
    Fault(
        "Prober.handle_tcp_ping",
        " and not self._core.is_self(member)",
        "",
        "our own ping over TCP says nothing of our UDP",
    ),
    Fault(
        "Prober._only_tcp",
        "self._transitions.answered(member, now)",
        "pass",
        "who answers over TCP is not held for refused",
    ),
    Fault(
        "Prober.handle_ping", "member.fallbacks = 0  # the ping", "pass  # the ping", "pings over TCP count in a row"
    ),
    Fault("Prober._conclude", "max(missed, 0) if probe.asked_nacks else 1", "1", "missing nacks count against us"),
    # -- sync --
    Fault(
        "Sync._merge",
        "RemoteState(remote.user_state, join, answer)",
        "RemoteState(remote.user_state, join)",
        "an answer to what we dialled is told as such",
    ),
    Fault(
        "Sync.saw_join",
        "if self._lost.forget(member.name)",
        "if member.name in self._lost",
        "who is back is not looked for",
    ),
    Fault("Lost._drop", "popitem(last=False)", "popitem()", "of the lost the longest gone is forgotten"),
    Fault("Sync._reconnect", " and not core.has_left", "", "who has left looks for nobody"),
    Fault("Sync._found", "if core.has_left or ", "if ", "who has left compares with nobody"),
    Fault(
        "Sync._reconnect",
        "self._forgotten(self._lost.expire(now - config.reconnect_timeout))",
        "self._lost.expire(now - config.reconnect_timeout)",
        "the lost that are forgotten are counted",
    ),
    Fault("Sync._arm_reconnect", "min(_RECONNECTS, len(self._lost))", "_RECONNECTS", "one lost member is tried once"),
    Fault("Lost.choose", "if likely and rng.randrange(_SELDOM) else", "if likely else", "a refusal is not for ever"),
    Fault("Lost.choose", "not lost.refused and ", "", "whose host refused is tried seldom"),
    Fault("Lost.choose", " and lost.address not in used", "", "whose address another has is tried seldom"),
    Fault(
        "Lost.choose",
        "rng.choice(_ARMS)(lost, rng) if guess else rng.choice(lost)",
        "rng.choice(lost)",
        "few who live are found among many dead",
    ),
    Fault("_latest", "lost[-1 - _rank(len(lost), rng)]", "rng.choice(lost)", "who was lost last is tried"),
    Fault("_earliest", "lost[_rank(len(lost), rng)]", "rng.choice(lost)", "who was lost first is tried"),
    Fault("_edge", "lost[n - 1].since - lost[n].since", "n", "who was lost beside a quiet time is tried"),
    Fault("_faithful", "-one.lived", "one.lived", "who had been a member longest is tried"),
    Fault("Transitions._take", "member.joined = now", "pass", "a new life is as old as it is"),
    Fault("Sync.answer", "self._core.emit(MergeRejected(address, exc))", "pass", "a merge that is refused is told"),
    Fault(
        "Sync.hasten",
        "self._tokens = max(self._tokens, 1.0)",
        "pass",
        "after a stall tables are compared whatever was early before",
    ),
    Fault(
        "Sync._take_answer", "node=where, hint=_ERR_HINT", "hint=_ERR_HINT", "the error of a seed that refused names it"
    ),
    # -- hearsay --
    Fault("Hearsay.sift", " not self._lost and all(", " all(", "who has lost somebody is no newcomer"),
    Fault("Hearsay.sift", " or node is own", "", "who speaks for itself in a push/pull is believed at once"),
    Fault(
        "Hearsay.sift",
        "node.state != NodeState.ALIVE or not self._news(node.name) or node is own",
        "True",
        "a push/pull of a host that slept brings nobody back",
    ),
    Fault("Hearsay.doubts", "teller == _address(claim) or ", "", "who speaks for itself in gossip is believed at once"),
    Fault("Hearsay._news", "return member.gone and", "return False and", "nobody gone comes back by hearsay"),
    Fault("Hearsay._was_away", "return self._lost.had(teller)", "return False", "gossip of who is lost is doubted"),
    Fault("Hearsay._was_away", "member.state != NodeState.ALIVE or ", "", "gossip of a suspect is doubted"),
    Fault("Hearsay._check", " or len(self._open) >= _CHECKS_MAX", "", "checks of hearsay are bounded"),
    Fault("Hearsay._check", "pending.incarnation < claim.incarnation", "True", "of hearsay the newest counts"),
    Fault(
        "Hearsay._ask_others",
        "self._refuted(claim.node, then)",
        "self._proven(claim.node, then)",
        "who answers nobody is not believed in",
    ),
    Fault("Hearsay.when_settled", "if self._open:", "if False:", "when a join returns those are there of whom it told"),
    Fault("_own", "if len(there) == 1 else None", "if there else None", "of several on one host none is the teller"),
    Fault("Transitions._take", "member.back = now", "pass", "who was suspect was away"),
    Fault("Sync.saw_join", "member.back = now", "pass", "who was lost was away"),
    # -- transitions --
    Fault(
        "Transitions.refute",
        "max(core.incarnation + 1, accused + 1)",
        "accused + 1",
        "an old accusation does not lower our incarnation",
    ),
    Fault("Transitions._take", "member.refused = False", "pass", "a host that is back is not held for refused"),
    Fault("Transitions.put_off", "if missing > 0:", "if True:", "putting off brings no verdict nearer"),
    Fault("Transitions._name_is_free", "reclaim > 0 and ", "", "without a reclaim time a dead name is not free"),
    Fault("Transitions.claim", "core.config.protocol_version > 1", "True", "protocol 1 knows no ports"),
    Fault(
        "Transitions._admitted",
        'core.count("alive.meta_refused")',
        "pass",
        "records with too long metadata are counted",
    ),
    Fault(
        "Transitions.suspect", " or not self._core.name_allowed(claim.sender)", "", "an accuser has a name that may be"
    ),
    Fault(
        "Transitions.dead", " or not core.name_allowed(claim.sender)", "", "who declares a death has a name that may be"
    ),
    Fault(
        "Transitions._insert", ">= self._core.config.max_nodes", "> self._core.config.max_nodes", "the table is bounded"
    ),
]
