"""Faults in the control plane."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("_Wire.receive", "            if look.passed:", "            if False:", "an agent that ended is noticed"),
    Fault("_Wire._end", "self.closed and not self._count", "False", "the context ends with the last socket"),
    Fault("ControlChannel.call", "reply.id == number or ", "True or ", "a late reply is for another question"),
    Fault(
        "ControlChannel.call",
        "(reply.id is None and reply.error is not None)",
        "False",
        "an error without a number is for who asks",
    ),
    Fault("ControlChannel.call", "len(self._idle) < IDLE_MAX", "True", "idle sockets are bounded"),
    Fault("ControlChannel.call", "if fine and not", "if not", "a socket given up is not used again"),
    Fault("ControlChannel.call", 'operation="call", indeterminate=True)', 'operation="call")', "no reply is doubt"),
    Fault("ControlEvents._read", "publisher != event.publisher or lost <= 0", "lost <= 0", "a restart loses nothing"),
    Fault("ControlEvents._read", "> TOPICS_MAX", "> 100 * TOPICS_MAX", "topics are bounded"),
    Fault(
        "ControlEvents.get",
        "            if self._early:\n                return self._early.popleft()\n",
        "",
        "early events are told",
    ),
    Fault(
        "_text",
        '0 < len(value.encode("utf-8", "replace")) <= TEXT_MAX',
        "0 < len(value) <= TEXT_MAX",
        "names are bounded in bytes",
    ),
    Fault(
        "_cache_key",
        '0 < len(value.encode("utf-8", "replace")) <= CACHE_KEY_MAX',
        "0 < len(value) <= CACHE_KEY_MAX",
        "keys are bounded in bytes",
    ),
    Fault("_texts", "0 < len(value) <= LIST_MAX", "0 < len(value)", "lists are bounded"),
    Fault("_tags", "len(value) <= LIST_MAX", "True", "tags are bounded"),
    Fault("_ttl", "not isinstance(value, bool) and 0", "0", "a bool is no time"),
    Fault("_seconds", "not isinstance(value, bool) and 0", "0", "a bool is no time"),
    Fault("_count", "1 <= value <= 1_000_000", "1 <= value", "a count is bounded"),
    Fault("_port", "1 <= value <= 65535", "0 <= value <= 65535", "port 0 is none"),
    Fault("_command", 'one.name == "timeout"', "False", "who waits for others lends its place"),
    Fault("_key", "validate=True", "validate=False", "a key's text is base64"),
]
