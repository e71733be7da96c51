"""A field of workers that are only told of, and a clock that is set: how the tests drive the rules."""

from __future__ import annotations

from mycorrizal._tasks.machine import Ask, End, Fate, Send, Tasks, Withdraw

__all__ = ["Field"]


class Field:
    """Pulls all outputs of a machine, and remembers what is under way.

    Attributes:
        out: attempts under way, by number.
        ended: the ends, by task.
        history: all that was sent.
    """

    def __init__(self, machine: Tasks | None = None) -> None:
        self.machine = machine or Tasks()
        self.now = 100.0
        self.out: dict[int, Send] = {}
        self.asked: dict[str, int] = {}
        self.ended: dict[int, End] = {}
        self.history: list[Send] = []
        self.withdrawn: list[Send] = []
        self._boots: dict[str, bytes] = {}

    def pull(self) -> list[tuple[int, str]]:
        """Take the outputs; return the tasks that were sent, and to whom."""
        sent = []
        while (output := self.machine.next_output()) is not None:
            match output:
                case Send():
                    assert output.task not in self.ended
                    self.out[output.attempt] = output
                    self.history.append(output)
                    sent.append((output.task, output.worker))
                case Withdraw(attempt):
                    self.withdrawn.append(self.out.pop(attempt))
                case Ask(question, worker):
                    self.asked[worker] = question
                case End(task):
                    assert task not in self.ended
                    self.ended[task] = output
        return sent

    def join(self, *names: str, boot: bytes = b"1", slots: int | None = 2) -> list[tuple[int, str]]:
        """Let members come, who say at once how many tasks they can run, unless that is None."""
        self._boots |= dict.fromkeys(names, boot)
        self.machine.members(self._boots, self.now)
        self.pull()
        return [sent for name in names for sent in ([] if slots is None else self.tell(name, slots))]

    def leave(self, name: str) -> list[tuple[int, str]]:
        del self._boots[name]
        self.machine.members(self._boots, self.now)
        return self.pull()

    def tell(self, name: str, slots: int | None) -> list[tuple[int, str]]:
        """Let `name` answer the question that it was asked."""
        self.machine.told(self.asked.pop(name), name, slots, self.now)
        return self.pull()

    def add(self, *tasks: int) -> list[tuple[int, str]]:
        for task in tasks:
            self.machine.add(task, self.now)
        return self.pull()

    def end(self, task: int, fate: Fate = Fate.ANSWERED, worker: str | None = None) -> list[tuple[int, str]]:
        """Let the attempt of `task`, at `worker` if there are several, come to `fate`; its outcome says so."""
        (attempt,) = [n for n, send in self.out.items() if send.task == task and worker in (None, send.worker)]
        outcome = f"{fate.name} at {self.out.pop(attempt).worker}"
        self.machine.ended(attempt, fate, outcome, self.now)
        return self.pull()

    def wait(self, seconds: float) -> list[tuple[int, str]]:
        """Let time pass, with all ticks that are asked for."""
        sent, end = [], self.now + seconds
        while (due := self.machine.get_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.machine.handle_timer(self.now)
            sent += self.pull()
        self.now = end
        return sent

    def at(self, worker: str) -> list[int]:
        """The tasks that are under way at `worker`."""
        return [send.task for send in self.out.values() if send.worker == worker]
