"""Faults in what makes an agent."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("Identity.meta", "max(0, room)", "limit", "the user's metadata have the room that is left"),
    Fault("Identity.change", "not isinstance(text, str) or ", "", "tags are text"),
    Fault("Assembly._claim", "if number == _NAMES_TRIED:", "if True:", "a default name that is taken gets a number"),
    Fault("Assembly._trust", "not local and not settings.insecure", "False", "beyond loopback there is a key"),
    Fault("Assembly._trust", 'settings.wire != "msgpack"', "True", "beside Go the host's key is not used"),
    Fault("Assembly._config", "        elif settings.label:\n", "        elif False:\n", "a label is for Go clusters"),
    Fault(
        "Assembly._listen",
        "                if port == ports[-1]:\n",
        "                if True:\n",
        "a taken default port is no error",
    ),
    Fault("Assembly.others", "boot is not None and ", "", "others are agents"),
    Fault("Assembly.ask_all", "        results[self.name] = True\n", "", "this agent is in the results"),
    Fault(
        "Assembly.history",
        "self.others() if len(known) < last else []",
        "self.others()",
        "who knows enough asks nobody",
    ),
    Fault("Assembly._tell_history", "0 < last <= _HISTORY_MAX", "0 < last", "history is bounded"),
    Fault("Assembly.stop", "            self.file.stop()\n", "            pass\n", "a dropped agent's file ends"),
    Fault("Assembly.close", "            self.sharing.on_end()\n", "", "streams end with the agent"),
    Fault("_join_seeds", "failures[seed] = reasons.get(seed, failure)", "pass", "the reason of before is told"),
    Fault(
        "_join_seeds", "parts.members.num_members() > 1 or itself or", "itself or", "a seed that was joined does"
    ),
    Fault("_join_seeds", " or itself or not failures", " or not failures", "a seed waits for no others"),
    Fault("Seeking._known", "address in here or ", "", "members are not asked again"),
    Fault("Seeking._run", "tries + 1 if alone and was else 0", "tries + 1", "who is alone again asks soon"),
    Fault("Rings.take", "self._keep is not None and keys[0] != before[0]", "False", "the key is kept for later agents"),
    Fault("Rings.take", "for key in keys if key not in before", "for key in ()", "a weak key is warned of"),
    Fault("Residents.remove", "known[0]() in (None, agent)", "True", "another agent of the name stays"),
    Fault("Residents.replaced", " or before.run == cell.run", "", "two in one run collide"),
    Fault("Residents.replaced", "chosen or ", "", "a chosen name is replaced from any cell"),
    Fault("Residents.settle", "self._ending, ()", "self._ending, self._ending", "dropped agents are waited for once"),
    Fault("Caches.open", "            self._warn_of(definition, known.definition)\n", "", "another definition is told"),
    Fault("Caches._follow", "if not new.replaces(before):", "if True:", "a newer definition is taken"),
    Fault("Caches._follow", "            self._last[name] = new\n", "", "and told once"),
    Fault("CacheMachine.define", "len(announced) + 1 < running.quorum", "False", "a quorum agrees to its change"),
    Fault(
        "Caches.hand_over",
        '        self._sharing.call(withdraw, deadline, "leave")\n',
        "",
        "who leaves announces nothing",
    ),
    Fault("key_problem", "sealed * members", "sealed", "all members count"),
]
