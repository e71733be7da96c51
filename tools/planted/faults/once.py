"""Other kinds of faults, planted by hand where tests were weakest: each survived those of its module once."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault(
        "Lost.had",
        "lost.address == address",
        "lost.address[0] == address[0]",
        "who was lost is known by address and port",
    ),
    Fault(
        "Hearsay._news",
        "return len(table) < self._core.config.max_nodes",
        "return True",
        "nobody more is checked than are taken",
    ),
    Fault("Hearsay._news", "and not self._core.is_self(member)", "", "what is told of ourselves is no news"),
    Fault(
        "Hearsay._check",
        "_address(pending) == _address(claim) and",
        "",
        "a claim of another address does not ride on a check",
    ),
    Fault("Seeking._look", "if absent and not self._over.is_set():", "if absent:", "nobody joins after the end"),
    Fault(
        "Seeking._known",
        "return True  # nobody",
        "return False  # nobody",
        "a name that cannot be resolved is left for now",
    ),
    Fault("Seeking._known", "or self._membership.is_own(address)", "", "a seed that we are ourselves is not asked"),
    Fault("Check.close", "        self._begun.set()\n", "", "a check that never began ends"),
    Fault(
        "Check._ask",
        "            if self._healthy:\n",
        "            if True:\n",
        "a check that goes on raising is logged once",
    ),
    Fault("ask_all", "* _SHARE", "", "a finder has less time than who asks"),
    Fault(
        "Places.hold",
        "        self.held += size - place.held\n",
        "        self.held += size\n",
        "held bytes are counted once",
    ),
    Fault("_walk", "codec.name.encode(), ", "", "two codecs of the same content are two types"),
    Fault("_About.function", "if name not in self._ignored]", "]", "the default of an ignored argument does not count"),
    Fault(
        "_matches",
        "first == code.co_firstlineno\n        and",
        "True\n        and",
        "the text is that of the function itself",
    ),
    Fault(
        "Services.register",
        "                old.tell(old.healthy)  # what it said meanwhile was not heard\n",
        "",
        "the service of before goes on being checked",
    ),
    Fault(
        "Registration.tell",
        "        if not self.waiting:\n            self.waiting = True\n",
        "        if True:\n",
        "one who says much is queued once",
    ),
    Fault(
        "Services._changed",
        "        registration.waiting = False  # first this, then a look; ``tell`` does it the other way round\n",
        "",
        "how a service is is told more than once",
    ),
    Fault(
        "Services.find",
        "            if service_id.startswith(RESERVED):\n                continue\n",
        "",
        "hidden services are not found",
    ),
    Fault(
        "Discovery.addresses",
        "for seed in self._finders if seed not in self._failures",
        "for seed in outcomes if seed not in self._failures",
        "in the order of the seeds",
    ),
    Fault(
        "Discovery.close",
        "closing, self._finders = self._finders, {}",
        "closing = self._finders",
        "what was told is taken back once",
    ),
    Fault("Discovery._find", "self._port)", "7946)", "entries get the port of seeds"),
    Fault("_sync", "            return\n", "            pass\n", "one state is enough"),
    Fault("_seek", "        if retry is None:\n            raise\n", "", "without join_retry a join fails"),
    Fault("Identity.change", "        self.tags = dict(tags)\n", "        self.tags = tags\n", "tags are a copy"),
    Fault("Identity.meta", "max(0, room)", "room", "a delegate is not asked for less than no bytes"),
    Fault(
        "Near.wrote",
        "                self._count -= 1\n",
        "                pass\n",
        "near copies are counted as they go",
    ),
    Fault("Near.heard", "known[0] != sender or", "", "only the primary that a copy is from invalidates it"),
    Fault("Near._tell", "if member != self._core.me", "if True", "nobody tells itself"),
]
