"""Faults in who leads, what a run leaves behind, and what the end of a term says."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("Term._ran", "self._lock.renew()", "pass", "a run that was not a leader's is not written down"),
    Fault("Term._ran", "if took < self._every:", "if True:", "a run that took longer than its period leaves nothing"),
    Fault("Term._ran", "ttl=self._every - took", "ttl=self._every", "a period begins with its run"),
    Fault("Term.__exit__", "if exc_info[0] is None:", "if True:", "a run that raised is due again"),
    Fault(
        "Term.__exit__", "self._lock.__exit__(type(error), error, error.__traceback__)", "pass",
        "the lock is given up though the record could not be written",
    ),
    Fault(
        "lead", "left = _left(cache, name, period, deadline)  # s", "left = 0.0  # s", "another one has run meanwhile"
    ),
    Fault("lead", "if not wait or deadline.capped(left) < left:", "if False:", "who does not wait is told"),
    Fault("lead", "min(left, _LOOK_SECONDS)", "left", "a record may go before its time"),
    Fault("_left", "result.ttl / 1000 or period, period", "result.ttl / 1000, 1e12", "a shorter period counts"),
    Fault("_taken", "if not wait or deadline.passed:", "if True:", "an outcome that nobody knows is asked again"),
    Fault("_taken", "if error.node is None:", "if False:", "an answer that did not come is no leader"),
]
