"""Faults in the rules by which tasks go to workers, and in handlers that run in processes."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("Worker.window", "(1 + self._ahead)", "1", "short tasks are sent ahead"),
    Fault("Worker.window", "(1 + self._ahead)", "2", "and long ones are not"),
    Fault("Worker.ready", "not self.silent and ", "", "a silent worker gets nothing"),
    Fault("Worker.ready", "now >= self.until and ", "", "a busy one is left alone for a moment"),
    Fault("Worker.load", "len(self.out) / self.slots", "len(self.out)", "least busy for its size"),
    Fault("Worker.busy", "max(1.0, len(self.out) / 2)", "float(len(self.out))", "a busy one gets less"),
    Fault("Worker.answered", "self._cap += 1 / self._cap", "pass", "and more again"),
    Fault("Worker.rest", "min(2 * self._pause, _PAUSE_MAX)", "self._pause", "for longer each time"),
    Fault(
        "Worker.ask_later", "self.ask_at = now + self._ask_pause", "pass", "who lacks the handler is not asked at once"
    ),
    Fault("Tasks.members", "            self._silence(worker)\n", "", "what a life before has is not waited for"),
    Fault("Tasks.told", " or worker.question != question", "", "an old answer says nothing"),
    Fault("Tasks.handle_timer", "elif asleep:", "elif False:", "who slept knows nothing of the others"),
    Fault("Tasks.handle_timer", " and now >= worker.ask_at", "", "questions are not asked all the time"),
    Fault("Tasks.handle_timer", "self._silence(worker)", "pass", "silence is noticed"),
    Fault(
        "Tasks._decide",
        "lost = fate is Fate.LOST or (fate is Fate.LATE and worker.silent)",
        "lost = fate is Fate.LOST",
        "late at a silent worker is lost",
    ),
    Fault("Tasks._decide", "not self._idempotent or ", "", "what may not run twice fails"),
    Fault("Tasks._decide", "len(task.died) > self._retries", "False", "what kills its workers is given up"),
    Fault(
        "Tasks._decide",
        "            self._spare_if_silent(task)\n",
        "            self._wait_again(task)\n",
        "a task goes on elsewhere",
    ),
    Fault(
        "Tasks._wait_again",
        "self._again[task.number] = task",
        "self._fresh[task.number] = task",
        "in front of the others",
    ),
    Fault("Tasks._forget", "self._outputs.append(Withdraw(attempt.number))", "pass", "what nobody wants is withdrawn"),
    Fault("Tasks._spare_if_silent", "self._idempotent and ", "", "what may not run twice stays where it is"),
    Fault(
        "Tasks._spare_if_silent", "all(attempt.worker.silent", "any(attempt.worker.silent", "one that is heard suffices"
    ),
    Fault("Tasks._heard", "self._spare.pop(attempt.task.number, None)", "pass", "who is heard keeps what it has"),
    Fault("Tasks._wait_or_give_up", "            self._alone = None\n", "            pass\n", "patience begins anew"),
    Fault(
        "Tasks._dispatch",
        "self._again or self._fresh or self._spare",
        "self._again or self._spare or self._fresh",
        "spares come last",
    ),
    Fault("ProcessHandler._lost", 'self._core.count("processes.died")', "pass", "deaths are counted"),
    Fault("ProcessHandler._take", "len(self._all) + self._starting < self.slots", "False", "who died is replaced"),
    Fault("ProcessHandler._take", "len(self._all) + self._starting < self.slots", "True", "by no more than that"),
    Fault("where_is", 'if module == "__main__":', "if False:", "nothing of the main program is imported"),
    Fault("main", "signal.signal(signal.SIGINT, signal.SIG_IGN)", "pass", "Ctrl-C is the agent's"),
    Fault("Ahead.cancel", "future.cancel()", "pass", "what nobody reads is not run"),
]
