"""Faults in what is read of a cache without a call: near copies, entries of a primary, and when not to."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault(
        "Near.keep", "if self._wrote.get(place, asked_at) > asked_at:", "if False:", "what is of before one's own write"
    ),
    Fault("Near.keep", "elif known[1] > result.seq:", "elif False:", "what was overwritten on its way"),
    Fault("Near.keep", "asked_at + SILENCE", "asked_at + 10 * SILENCE", "believed from when it was asked for"),
    Fault("Near.keep", "expires = NEVER if not result.ttl else", "expires = NEVER if result.ttl else", "it expires"),
    Fault("Near.wrote", "self._wrote[place] = now", "pass", "own writes are remembered"),
    Fault(
        "Near.wrote", "if self.tables[place].pop(key, None) is not None:", "if False:", "own writes are seen at once"
    ),
    Fault("Client._finish", "self._space.near.wrote(attempt.op.key, now)", "pass", "whatever came of them"),
    Fault("Near.heard", "if before > known[1]:", "if False:", "a lost notice is noticed"),
    Fault("Near.heard", "if table.pop(key, None) is not None:", "if False:", "a notice is heeded"),
    Fault("Near.heard", "if self.until[place] <= now:", "if False:", "who was silent is not believed again"),
    Fault("Near.invalidate", "keys.append(key)", "pass", "a write is told"),
    Fault("Near._beat", "if served:", "if False:", "numbers are repeated"),
    Fault("SILENCE", "= 4", "= 40", "a silent primary is not believed for long"),
    Fault("held", "near is not None and now < near.until[place]", "near is not None", "nor are its near copies read"),
    Fault(
        "held",
        "if entry is not None and entry.expires > now:\n            return",
        "if entry is not None:\n            return",
        "nor those that have expired",
    ),
    Fault(
        "held",
        "if entry is not None and entry.expires > now:\n        entry",
        "if entry is not None:\n        entry",
        "nor such entries",
    ),
    Fault("held", "entry.visited = True", "pass", "what is read here is not evicted"),
    Fault(
        "Cache.get", "((expires := entry.expires) == NEVER or expires > _now())", "True", "get reads nothing expired"
    ),
    Fault("Cache.get", "            entry.visited = True\n", "", "what get reads is not evicted"),
    Fault("Cache._here", "self._near, raw", "None, raw", "get reads near copies"),
    Fault("Cache._here", "next(self._hits)", "pass", "local hits are counted"),
    Fault(
        "CacheHost._hide", "space.near.until[:] = [-math.inf] * PARTITIONS", "pass", "near copies end with the agent"
    ),
    Fault("CacheHost._hide", "space.readable[:] = [{}] * PARTITIONS", "pass", "and so do entries"),
    Fault("Core.abandon", "for act in tuple(self.at_end):", "for act in ():", "in a forked child, too"),
    Fault("Core._loop_ended", "for act in tuple(self.at_end):", "for act in ():", "and when it is closed"),
    Fault("Primary._run", "entry.visited = True", "pass", "what others read is not evicted"),
    Fault("Leases.get", "entry.visited = True", "pass", "nor what is got or computed"),
]
