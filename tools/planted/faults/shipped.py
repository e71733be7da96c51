"""Faults in what is shipped around an agent: metrics, their page, the service, other systems."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault(
        "Histogram.observe",
        "bisect_left(self.bounds, seconds)",
        "bisect_left(self.bounds, seconds) - 1",
        "a bound is of its bucket",
    ),
    Fault("_histogram", "counts[-1]", "counts[0]", "the count is that of the last bucket"),
    Fault("exposition", "value * metric.scale", "value", "times are in seconds"),
    Fault("escaped", '.replace("\\n", r"\\n")', "", "a label stays on its line"),
    Fault("asked", "if hosts and not _is_here(hosts[0]):", "if False:", "a page in a browser is refused"),
    Fault("asked", "len(hosts) > 1 or ", "", "one request names one host"),
    Fault(
        "Pulse.beat",
        "if any(heard != self._asked for heard in self._heard.values()):",
        "if False:",
        "who is stuck feeds none",
    ),
    Fault("Notifier.tell", '" ".join(line.splitlines())', "line", "one line cannot be two"),
    Fault("_watchdog", " or (pid and pid != str(os.getpid()))", "", "the watchdog of another process"),
    Fault("lock", "os.lseek(descriptor, _PLACE, os.SEEK_SET)", "pass", "what is locked is not what is read"),
    Fault(
        "reuse_address",
        "socket.SO_REUSEADDR if exclusive is None else exclusive",
        "socket.SO_REUSEADDR",
        "a port is kept",
    ),
    Fault("_commit", 'if not (top / ".git").exists():', "if False:", "a tree in somebody's repository"),
    Fault(
        "Link._open",
        "while self.calls.setdefault(number, call) is not call:",
        "while False:",
        "a number is one call's",
    ),
]
