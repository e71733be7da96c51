"""Faults in the machine of the cache."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("Definition.replaces", "(self != other or self.edition != other.edition) and ", "", "the same is no news"),
    Fault("_changed", " if known.get(cache) is not definition", "", "what is as it was is not compared"),
    Fault("Space.redefine", "        if same:\n", "        if False:\n", "another edition of the same moves nothing"),
    Fault("Space.set_view", "self.retired or not self.handover.holds_back(now)", "True", "a view waits for the others"),
    Fault("Handover.proceed", "            self._space.settle(now)\n", "", "and for no longer than it is held back"),
    Fault("Handover.proceed", "self._wait(shard, claim, now)", "pass", "then it has patience too"),
    Fault("Handover.claim", "if not self.holds_back(now):", "if True:", "patience begins when others are asked"),
    Fault("Space._place", "        self.handover.tell_newcomers(added)\n", "", "who comes learns of what is here"),
    Fault("Space._place", "        self.handover.agree_after_all()\n", "", "who was refused hears of it"),
    Fault("Handover.released", "self._ask_now(sender, now)", "pass", "and asks at once"),
    Fault("Handover.reclaim", "            self._space.wake()\n", "", "who is to be heard too is asked"),
    Fault("Lull._look", " or it.opened + self._most <= now", "", "a lull is not waited for without an end"),
    Fault("CacheMachine._about", "if kind != _CLAIM:", "if False:", "who asks uses the cache"),
    Fault("Core.send_questions", "member in self._asked or ", "", "one message of questions at a time"),
    Fault("Core.send_questions", "leisure or ", "", "unused caches are claimed too"),
    Fault("Core.send_questions", "leisure = len(self._asked) < _AT_LEISURE", "leisure = True", "of few at a time"),
    Fault("Lull.use", "space.used = True", "pass", "who uses a cache does not wait"),
    Fault("Core._replied", "        self._asked.pop(member, None)\n", "", "who has answered is asked again"),
    Fault("CacheMachine._about", "        space.settle(now)\n", "", "who asks is told by the last view"),
    Fault("Handover._keep_house", "if self._space.is_empty:", "if False:", "an empty cache is not walked through"),
    Fault("Space.redefine", "        self.store.bound(definition)\n", "", "new bounds hold at once"),
    Fault("Space.redefine", 'self.view = b""', "pass", "more replicas are made"),
    Fault(
        "Space._take_view",
        "self.store.grieve(now + self.core.limits.graves_age)",
        "pass",
        "who comes back finds tombstones",
    ),
    Fault("Space._forget", "        if dues:\n", "        if False:\n", "outcomes go where nothing is written"),
    Fault(
        "Space.learn",
        "outcome._replace(status=Status.FORGOTTEN) if doubtful else outcome",
        "outcome",
        "a doubtful outcome is not believed",
    ),
    Fault("Space.synced", " and not shard.fills", "", "synced waits for fills"),
    Fault(
        "Replication._overflow",
        "self._space.shards[partition_of(record.key)].fills[backup] = None",
        "pass",
        "a dropped record is filled later",
    ),
    Fault(
        "Replication._overflow",
        'self._core.counters["replication_dropped"] += 1',
        "pass",
        "dropped records are counted",
    ),
    Fault(
        "Replication.receive",
        "space.write_all(good, now)",
        "space.write_all([(shard, record._replace(op=0)) for shard, record in good], now)",
        "backups remember outcomes",
    ),
    Fault("Pace.take", "now - 0.1", "now - 10.0", "a pause earns little"),
    Fault(
        "Core.call", "latest if deadline is None else min(deadline, latest)", "latest", "a call ends with its operation"
    ),
    Fault(
        "Core.bury",
        "            if lent:\n                self.cancelled.append(number)\n",
        "",
        "lent memory is let go of",
    ),
    Fault(
        "Shard.trim",
        "self.complete_since = max(self.complete_since, oldest.at)",
        "pass",
        "what was forgotten is known to be",
    ),
    Fault("Shard.trim", "len(outcomes) > most", "len(outcomes) >= most", "so many outcomes are kept"),
    Fault("Shard.forget", "if due > now:", "if due >= now:", "outcomes go when they are due"),
    Fault(
        "Fill._pushed",
        "self._space.handover.reclaim(push.shard.partition, now)",
        "pass",
        "something newer is claimed",
    ),
    Fault("Fill._piece", "entry.version <= start and ", "", "what is newer than the push stays"),
    Fault("Primary._remembered", "op.doubts or ()", "()", "who had an earlier try is heard before the next"),
    Fault("Handover.claim", "*self._space.former", "", "former members are asked"),
    Fault(
        "Handover._heard",
        "outcome.status == Answer.UNKNOWN_CACHE and member not in self._space.members",
        "outcome.status == Answer.UNKNOWN_CACHE",
        "a member that is late is asked again",
    ),
    Fault("CacheMachine.members_changed", "if processes != self._processes:", "if True:", "one announcement, one view"),
    Fault("Space._tick", "self.core.stirred[self] = None", "pass", "what expires later is taken out too"),
    Fault("Handover._missed", "del self._unheard[next(iter(self._unheard))]", "pass", "the unheard are bounded"),
    Fault("Handover.ask_unheard", "self.reclaim(shard.partition, now, member)", "pass", "who is back is asked"),
]
