"""Faults in settings, services and events."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    # -- clock, fetches, freshness, limits --
    Fault(
        "HybridClock.tick", "counter + 1 < COUNTER_MAX", "counter < COUNTER_MAX", "no stamp is beyond what peers take"
    ),
    Fault(
        "HybridClock.tick",
        "WALL_MAX - 1",
        "WALL_MAX",
        "no stamp is beyond what peers take, whatever the wall clock says",
    ),
    Fault("Fetches.full", ">= self._most", "> self._most", "fetches under way are bounded"),
    Fault(
        "Fetches.start",
        "self._whole_seconds if whole else self._seconds",
        "self._seconds",
        "a whole state has two minutes",
    ),
    Fault(
        "Fetches.expire",
        "self.waiting = [fetch for fetch in self.waiting if fetch.fetch_id != fetch_id]",
        "pass",
        "what has expired is not asked any more",
    ),
    Fault("Fetches.expire", "fetch.deadline <= now", "fetch.deadline < now", "a fetch ends at its deadline"),
    Fault("Fetches.ended", "self._open.pop(fetch_id, None)", "self._open.get(fetch_id)", "a fetch ends once"),
    Fault("outlived", "2 * MARGIN", "MARGIN", "a tombstone may be an hour short, and the clock too"),
    # -- settings --
    Fault("LwwMap.has_room", "live < self._live_max * slack", "live <= self._live_max * slack", "entries are bounded"),
    Fault("LwwMap.drop", "self._raws.discard(entry.raw)", "pass", "what is forgotten can be learnt again"),
    Fault(
        "LwwMap.wins",
        "(stamp, raw) > (old.stamp, old.raw)",
        "stamp > old.stamp",
        "forged equal stamps end alike everywhere",
    ),
    Fault(
        "Replica.set_setting",
        "self._spread.check(len(raw), now)\n        self._put_setting(message, raw, now)",
        "self._put_setting(message, raw, now)\n        self._spread.check(len(raw), now)",
        "a write that is refused is not made",
    ),
    Fault(
        "Replica.set_setting",
        "len(value) > self._limits.value",
        "len(value) >= self._limits.value",
        "a setting may be as long as the limit",
    ),
    Fault("Replica.restore", "max(age, 0.0)", "age", "a file from the future makes no tombstone younger"),
    Fault("Replica._take_setting", "age < MARGIN and ", "", "an old tombstone is not gossiped as if it were new"),
    Fault("Replica._take_setting", 'self.note("settings.refused")', "pass", "a setting without room is counted"),
    Fault("Replica._age", "self._sweep_at - entry.since", "0.0", "the age of a tombstone travels"),
    # -- memory --
    Fault(
        "Memory.add",
        "self._events.move_to_end(key)\n            return",
        "return",
        "history is in the order in which events were handed on",
    ),
    Fault(
        "Memory.add",
        "if not self._senders[sender]:",
        "if False:",
        "a sender of whom nothing is remembered is not remembered",
    ),
    Fault(
        "Memory.add",
        "len(self._events) > self._count_max",
        "len(self._events) >= self._count_max",
        "as many events are remembered as the limit says",
    ),
    Fault("Memory.latest", "one.delivered and ", "", "history holds what was handed on"),
    Fault("Memory.latest", "if count > 0:", "if True:", "of no events none are returned"),
    # -- schedule --
    Fault("SyncSchedule.hasten", "if len(self._back) < _BACK_MAX:", "if True:", "names of who came back are bounded"),
    Fault(
        "SyncSchedule.hasten",
        "min(float(_EARLY), ",
        "max(0.0, ",
        "early comparisons do not add up over the quiet hours",
    ),
    Fault("SyncSchedule.hasten", "self._tokens >= 1.0 and ", "", "early comparisons are bounded"),
    Fault("SyncSchedule.peer", " if name != chosen", "", "who was compared with is not first again"),
    Fault(
        "SyncSchedule.ended",
        "min(self.at, now + _BACK_SECONDS)",
        "now + _BACK_SECONDS",
        "a failure puts off no comparison that is due",
    ),
    Fault("SyncSchedule.ended", "if failed and ", "if ", "after a success the next comparison is at its time"),
    Fault(
        "Replica._compare",
        "self._schedule.ended(bool(error), then)",
        "pass",
        "after a failure the next comparison is soon",
    ),
    # -- services --
    Fault("Services.make_room", " - ids.get(service.id, False)", "", "a node with all its services may change one"),
    Fault("Services.make_room", " or not self._is_up(service.life)", "", "who is gone pushes nobody out"),
    Fault(
        "Services.put",
        "len(ids) > 2 * self._limits.services_per_node",
        "len(ids) > 20 * self._limits.services_per_node",
        "ids of a node that come and go are bounded",
    ),
    Fault("Services.put", "self._unlist(key)", "pass", "an id that is forgotten is not listed"),
    Fault(
        "Services.put",
        "self._gone.setdefault(life, since)",
        "self._gone[life] = since",
        "what is heard of a node that is gone makes it no younger",
    ),
    Fault(
        "Services.age",
        "ages = [now - since] if since is not None else []",
        "ages = []",
        "how long a node is gone travels",
    ),
    Fault("Services.member_up", "self._gone.pop(life, None)", "pass", "services of a node that came back stay"),
    Fault(
        "Services.member_down",
        "self._gone.setdefault(life, now)",
        "pass",
        "services of a node that is gone are forgotten after a while",
    ),
    Fault("Services._unlist", "self._gone.pop(life, None)", "pass", "a life without services is no orphan"),
    Fault("Services._drop", "self._gone.pop(life, None)", "pass", "a life that is forgotten is no orphan"),
    Fault(
        "Services.expire",
        'self._count("services.orphans_forgotten")',
        "pass",
        "services that are forgotten are counted",
    ),
    Fault("Services._show", "elif old != record:", "else:", "a service that says the same again is no change"),
    Fault(
        "Replica._write_service",
        "self._spread.check(len(raw), now)\n        self._services.put(service, raw, now)",
        "self._services.put(service, raw, now)\n        self._spread.check(len(raw), now)",
        "a service that is refused is not registered",
    ),
    Fault(
        "Replica.deregister",
        "if (self.name, service_id) in self.services:",
        "if True:",
        "what was never registered is not told to be gone",
    ),
    Fault("Replica._take_service", "age < _FRESH and ", "", "services of who is long gone are not gossiped"),
    # -- spread --
    Fault(
        "Spread.again",
        "4 * len(self._queue) >= 3 * self._limits.queue",
        "len(self._queue) >= self._limits.queue",
        "a quarter of the queue is for our own",
    ),
    Fault("Spread.again", 'self._count("spread.not_passed_on")', "pass", "what is not passed on is counted"),
    Fault("Spread.again", " or len(raw) > self._limits.gossip_bytes", "", "what is too long for gossip is not queued"),
    Fault("Spread.out", 'self._count("spread.pushed")', "pass", "pushes are counted"),
    Fault("Spread.ride", "self.direct.append(raw)", "pass", "what is small is told directly"),
    Fault("Spread.ride", " and len(self.direct) < self._limits.direct", "", "what is told directly is bounded"),
    Fault(
        "Spread._gossiped",
        " and queue.backlog < limits.gossip_backlog_bytes",
        "",
        "gossip that would take long is pushed",
    ),
    Fault("Spread._gossiped", "len(queue) < limits.gossip_backlog and ", "", "many messages are pushed"),
    Fault("Replica.receive", "finally:", "else:", "after a broken push messages are passed on again"),
    # -- batches --
    Fault("Replica.receive", "if self._knows(data):", "if False:", "what gossip brings again is not decoded"),
    Fault("Replica._take_batch", "self._spread.muted = True", "pass", "a batch is not passed on"),
    Fault("Replica._take_batch", "if self._knows(raw):", "if False:", "what a batch brings again is not decoded"),
    Fault("Replica._merge", "self._batches.in_state(header.batches, now)", "pass", "a state says what batches it has"),
    Fault("Replica.joined", "self._batches.ready = True", "pass", "who is lost at the beginning is missed"),
    Fault(
        "Spread._fits_batch",
        "return self._batched + size <= limits.batch_bytes",
        "return True",
        "what buffers cannot hold is pushed",
    ),
    Fault("Spread._fits_batch", "max(0.0, self._batched - read)", "self._batched", "there is room again in a moment"),
    Fault(
        "Batches.came",
        "number > log.last and len(log.ahead) < self._limits.held",
        "number > log.last",
        "what is remembered of a sender is bounded",
    ),
    Fault("Batches.run", "self._asking = True", "pass", "one comparison after the other"),
    Fault("Batches.run", "log.rounds >= _ROUNDS or ", "", "comparisons end"),
    Fault("Batches.run", "self._is_up(sender) and not log.rounds % 2", "self._is_up(sender)", "others are asked too"),
    Fault("Batches._settle", "elif sender not in self._lacking:", "else:", "a hole is not forgotten over news"),
    Fault("_divided", "cost > room or ", "", "a batch fits into a packet"),
    Fault(
        "Replica.publish",
        "self._spread.check(len(value) + len(topic) + len(self.name) + 32)\n"
        "        one = self._events.publish(topic, value)",
        "one = self._events.publish(topic, value)\n"
        "        self._spread.check(len(value) + len(topic) + len(self.name) + 32)",
        "an event that is refused has no number",
    ),
    # -- members and states --
    Fault("Replica.member_up", "if name == self.name:", "if False:", "a node is not its own peer"),
    Fault(
        "Replica.answer_fetch", "same = header.digest == self._digest()", "same = False", "equal states are not sent"
    ),
    Fault("Replica._merge", "if self._digest() != before:", "if True:", "who learnt nothing does not hurry"),
    Fault(
        "Replica._take_highest",
        "log.told < (message.number, message.round)",
        "log.told[0] < message.number",
        "each round of telling a number is passed on",
    ),
    # -- repair --
    Fault("Repairs.due", "if not self._open or self._fetches.full:", "if False:", "who cannot ask does not wake"),
    Fault(
        "Repairs.member_up",
        "repair.failed.pop(life.name, None)",
        "pass",
        "who comes back is asked again though it did not answer",
    ),
    Fault(
        "Repairs.member_up",
        "repair.lacking.pop(life.name, None)",
        "pass",
        "who comes back is asked again though it had nothing",
    ),
    Fault(
        "Repairs.member_up",
        "repair.due = min(repair.due, now + self._limits.gap_seconds)",
        "pass",
        "who comes back is asked soon",
    ),
    Fault(
        "Repairs._choose",
        "len(repair.lacking) >= self._limits.peers_asked",
        "len(repair.lacking) > self._limits.peers_asked",
        "so many members are asked and no more",
    ),
    Fault(
        "Repairs._nobody_left",
        "min(2.0**repair.rounds, _BACKOFF_MAX)",
        "2.0**repair.rounds",
        "a hole is asked about every few seconds",
    ),
    Fault("Repairs._nobody_left", "repair.rounds += 1", "pass", "questions that nobody answers grow rare"),
    Fault(
        "Repairs._nobody_left",
        "if repair.sender_asked or log.held:",
        "if log.held:",
        "what the sender does not have is given up",
    ),
    Fault(
        "Repairs._answered",
        "repair.since, repair.rounds = now, 0",
        "repair.rounds = 0",
        "a hole that is being filled is not given up",
    ),
    Fault(
        "Repairs._answered",
        "if self._open.get(log.sender) is not repair:",
        "if False:",
        "an answer to a hole that is closed does nothing",
    ),
    Fault("Repairs._answered", " and self._is_up(log.sender)", "", "another life of the sender is not the sender"),
    Fault("Repairs._take", " or event.sender != sender", "", "an answer holds events of who was asked for"),
    Fault("Repairs._take", "self._limits.held", "10 * self._limits.held", "events in an answer are bounded"),
    # -- events --
    Fault(
        "Events._hold",
        "            or one.event.number > log.last + 2 * self._limits.held\n",
        "",
        "an event far ahead is not held",
    ),
    Fault(
        "Events._hold",
        "            or self._held_bytes + size > self._limits.held_bytes\n",
        "",
        "bytes that are held are bounded",
    ),
    Fault(
        "Events._forget_one", "self._release(log, number)", "pass", "a sender that is forgotten gives its bytes back"
    ),
    Fault("Events._forget_one", "self.hole(log, 0.0)", "pass", "a sender that is forgotten has no hole"),
    Fault("Events.seen_elsewhere", "self._release(log, old)", "pass", "old news that was held gives its bytes back"),
    Fault("Events.seen", " or self.memory.has_any(sender)", "", "who is gone and remembered is spoken of"),
    Fault(
        "Events.missing",
        "min(log.highest, log.last + self._limits.held)",
        "log.highest",
        "a question asks for what can be held",
    ),
    Fault("Events._found", "if room < 0 and found:", "if room < 0:", "one event is always given"),
    Fault("Events._found", "numbers -= len(asked)", "pass", "numbers looked up for one question are bounded"),
    Fault("Events.take", 'self._count("events.duplicate")', "pass", "an event that came again is counted"),
    Fault("Events.have", "0 if log is None else log.last", "0", "an answer says how far its sender has come"),
    # -- messages and share --
    Fault("items", "most -= 1", "pass", "items of a pack are bounded"),
    Fault("_seen", " or len(value) > SENDERS_MAX", "", "senders of a state are bounded"),
    Fault("_text", " and len(value.encode()) <= NAME_MAX", "", "names are bounded in bytes"),
    Fault("_ranges", "not 0 < len(value)", "not 0 <= len(value)", "a question asks for something"),
    Fault("check_text", "size > NAME_MAX", "size >= NAME_MAX", "a name may have 255 bytes"),
    Fault("Share.local_state", 'self._replica.note("state.left_out")', "pass", "a state that found no room is counted"),
    Fault("Share.take_state", " or middle > len(data)", "", "a state that is cut off is refused"),
    Fault(
        "Share.get_broadcasts",
        "if left <= overhead + _OVERHEAD:",
        "if left < 0:",
        "the user is not asked for what has no room",
    ),
]
