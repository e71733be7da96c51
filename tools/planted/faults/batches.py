"""Faults in batches of the cache, and in the columns in which they travel."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("Batches.named", "ident & _IDS | 1", "drawn[0] & _IDS | 1", "each write has an id of its own"),
    Fault("Batches._answered", "outcome.indeterminate", "False", "a broken call leaves writes in doubt"),
    Fault("Batches._settle", "if result[0] in FINAL:", "if True:", "what was not done is tried again"),
    Fault("Batches._noted", "near.wrote(key, now)", "pass", "a caller reads no near copy of before its write"),
    Fault("Batches.expire", "part.over = True", "pass", "what comes after the deadline is nobody's"),
    Fault("Batches._run_here", "partial(self._run_here, later)", "partial(self._run_here, parts)", "each part once"),
    Fault("Batches._cut", "end - start >= most or ", "", "a message holds so many keys"),
    Fault("Client._overdue", "part.sent and ", "", "what has not begun did not happen"),
    Fault("Client.alone", "attempt.count = 0 if owner is None else 1", "attempt.count = 0", "a retry says so"),
    Fault("Tally.settle", "if self.size > ANSWER_BYTES:", "if False:", "an answer can be sent"),
    Fault("Primary._write_many", "key in shard.flights", "False", "one write on a key at a time"),
    Fault("Primary._write_many", "shard.behind is not None", "False", "none beside a clear"),
    Fault("Primary._write_many", "leases.decided(batch.op(index))", "pass", "a write voids leases"),
    Fault("Primary._write_many", "len(value) > value_max", "False", "the bound of a value holds"),
    Fault(
        "Primary._write_many",
        "flight.waiting[backup] = None",
        "flight.waiting[backups[-1]] = None",
        "all backups are waited for",
    ),
    Fault("Primary._read_many", "entry.visited = True", "pass", "what is read is not evicted"),
    Fault("Space.write_all", "shard.outcomes[op] = ", "_ = ", "a retry is recognised"),
    Fault("VersionClock.ticks", "self._last = max(self._last, first + count - 1)", "pass", "versions are given once"),
    Fault("parse_found", "answered != count", "False", "an answer is to what was asked"),
    Fault("_versioned", "version != VERSION", "False", "another form of columns is refused"),
    Fault("_keys", "min(sizes) == 0 or ", "", "no key is empty"),
    Fault("Cache._many", "*range(start + len(outcomes), len(keys))", "", "an error names what was not come to"),
]
