"""Faults in the rotation of keys, and in how a caller's thread waits."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault(
        "Rings.take",
        "                self._keep(keys[0])  # first: it is what may fail\n            self._data.replace(keys)\n",
        "                self._data.replace(keys)\n                self._keep(keys[0])\n",
        "a key that cannot be kept is not used here",
    ),
    Fault("Rings.take", "            self._check(keys)\n", "", "a key that one ring refuses is in neither"),
    Fault("Rings.take", "self.table.merged(table)", "table", "changes made at once end the same on every agent"),
    Fault("Rings.take", "self._gossip.replace(map(self._derive, keys))", "pass", "the two rings have the same keys"),
    Fault("Rings.plan", "self.table.latest + 1", "0", "a change comes after all that this agent knows"),
    Fault("Rings.change", 'apart(partial(self.take, table), "mycorrizal-keys")', "self.take(table)", "Ctrl-C parts it"),
    Fault("Keys._change", "self._ready(", "str(", "an agent that is closed changes nothing"),
    Fault("Keys._change", "if told.did(operation, key):", "if True:", "a change that lost is told"),
    Fault("Keys._change", "            failed = error\n", "            raise\n", "the others are asked all the same"),
    Fault("KeyTable.merged", "max(self.used, other.used)", "other.used", "the later choice of a key counts"),
    Fault("KeyTable.merged", "max(entry, entries.get(digest, entry))", "entry", "the later of add and remove counts"),
    Fault("KeyTable.changed", "if not self.latest:", "if False:", "a newcomer's key is not put in use"),
    Fault("KeyTable._bounded", "len(self.keys()) > KEYS_MAX", "False", "keys are bounded"),
    Fault("KeyTable._bounded", "removed[:-_REMOVED_MAX]", "removed[:0]", "memory of removed keys is bounded"),
    Fault("RuntimeDir.keep_key", "                _unlink(draft)\n", "                pass\n", "no draft stays"),
    Fault("wait_sliced", "SLICE if main else LONG_SLICE", "LONG_SLICE", "a signal is seen soon"),
    Fault("SLICE", "0.05", "0.5", "Ctrl-C is seen within 100 ms"),
    Fault(
        "settled",
        "TimeoutError:\n            return future.done()",
        "TimeoutError:\n            return True",
        "a wait for a future that is not done goes on",
    ),
]
