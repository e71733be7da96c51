"""Three agents in processes of their own for ``tools/chaos resources``, and the judgement that all its trials share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaigns.resources.node import SECONDS
from lab.child import ROOT, as_child
from lab.lines import Lines

__all__ = ["BACK_SECONDS", "KEY", "NAMES", "Agents", "Report", "Silent", "environment"]

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
NAMES = ("victim", "bob", "carol")
BACK_SECONDS = 30.0
"""In which everything must work again."""
PATIENCE = 150.0
LATE = 3.0
"""Seconds over its timeout after which a call did not keep to it; the machine may be busy."""
PASSING = tuple(f"mycorrizal-{name}" for name in ("handler", "exchange", "command", "finder", "futures", "room"))
"""Threads that come and go by their purpose."""
SLACK = 2
"""Descriptors more than before that are no leak: a conversation may be under way."""

Answer = dict[str, Any]


class Silent(Exception):
    """A child that ended, or does not answer."""


@dataclass
class Report:
    """What one trial came to."""

    name: str
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    back: float | None = None
    seconds: float = 0.0

    def expect(self, condition: object, what: str) -> None:
        """Write down that `what` is wrong unless `condition`."""
        if not condition and what not in self.wrong:
            self.wrong.append(what)

    def calls(self, who: str, answers: dict[str, Answer], allowed: float = SECONDS) -> None:
        """Judge what calls came to while something was missing: errors are ours, told in time, and have fields."""
        for name, answer in answers.items():
            self.expect(answer["seconds"] <= allowed + LATE, f"{who}: {name} took {answer['seconds']:.1f} s")
            if "error" not in answer:
                self.errors["well"] += 1
                continue
            self.errors[f"{name} {answer['error']}"] += 1
            self.expect(answer["ours"], f"{who}: {name} raised {answer['error']}, none of ours: {answer['text']:.140}")
            if answer["ours"] and answer["operation"] is None and f"{name} {answer['error']}" not in self.notes:
                self.notes.append(f"{name} {answer['error']}: no operation in it")


def environment(run: str) -> dict[str, str]:
    """Return the environment of a child whose runtime directory is `run`."""
    return {**os.environ, "MYCORRIZAL_RUNTIME_DIR": run, "PYTHONPATH": str(ROOT)}


class Child:
    """One agent's process."""

    def __init__(
        self, name: str, folder: str, settings: dict[str, Any], prefix: list[str], env: dict[str, str]
    ) -> None:
        self.name = name
        self._errors = Path(folder, f"{name}.err")
        with open(self._errors, "ab") as errors:
            self.process = subprocess.Popen(
                [*prefix, *as_child("campaigns.resources.node", json.dumps(settings))], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors, bufsize=0, env=env,
            )  # fmt: skip
        self._lines = Lines(self.process)

    def tell(self, do: str, **order: Any) -> None:
        """Give an order; ``take`` returns its answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
        except OSError as error:
            raise Silent(f"{self.name} has ended ({self.process.poll()}): {error}") from None

    def take(self, seconds: float = PATIENCE) -> Any:
        """Return the next answer.

        Raises:
            Silent: there is none.
        """
        try:
            return json.loads(self._lines.next(seconds))
        except (TimeoutError, EOFError) as error:
            raise Silent(f"{self.name}: {error} ({self.process.poll()}); {self.said()[-600:]}") from None

    def ask(self, do: str, **order: Any) -> Any:
        """Give an order and return the answer."""
        self.tell(do, **order)
        return self.take()

    def said(self) -> str:
        """Return what it wrote to its standard error."""
        return self._errors.read_text(errors="replace")

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Agents:
    """``victim``, ``bob`` and ``carol``, who know each other and have used each other. A context manager.

    Args:
        report: where what is wrong is written down.
        victim: more settings of the child ``victim``; ``agent`` in it, more settings of its agent.
        prefix: a command that runs the command of all children.
        environ: more variables of the victim's environment.
        run: the runtime directory of all, if it shall lie elsewhere.
        agent: more settings of all agents.
    """

    def __init__(
        self, report: Report, *, victim: dict[str, Any] | None = None, prefix: list[str] | None = None,
        environ: dict[str, str] | None = None, run: str | None = None, **agent: Any,
    ) -> None:  # fmt: skip
        self.report = report
        self.folder = tempfile.mkdtemp(prefix="myc-")
        self._run = run or f"{self.folder}/run"
        self.children: dict[str, Child] = {}
        self._victim = victim or {}
        self._prefix, self._environ = prefix or [], environ or {}
        self._agent = {
            "cluster": "chaos", "key": KEY, "bind": "127.0.0.1", "port": 0, "discover": False, "join_timeout": 30.0,
            **agent,
        }  # fmt: skip
        self._round = 0
        self.ready: dict[str, Answer] = {}

    def __enter__(self) -> Agents:
        try:
            for name in NAMES:
                seeds = [self.ready["victim"]["address"]] if self.ready else []
                agent = {**self._agent, "name": name, "join": seeds}
                settings: dict[str, Any] = {"agent": agent}
                if name == "victim":
                    settings = {**self._victim, "agent": {**agent, **self._victim.get("agent", {})}}
                more = self._environ if name == "victim" else {}
                env = {**environment(self._run), **more}
                self.children[name] = Child(name, self.folder, settings, self._prefix, env)
                self.ready[name] = self.children[name].take()
            self._well("at the beginning")
            self.measure()
        except BaseException:
            self.__exit__()
            raise
        return self

    def measure(self) -> None:
        """What is held now is what is to be held afterwards."""
        self.before = {name: self.settled(name) for name in NAMES}

    def __exit__(self, *_: object) -> None:
        for child in self.children.values():
            child.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def victim(self) -> Child:
        return self.children["victim"]

    def use(self, *, who: tuple[str, ...] = NAMES) -> dict[str, dict[str, Answer]]:
        """Let each of `who` use everything once, all at the same time: the victim towards bob, others towards it."""
        self._round += 1
        for name in who:
            target = "bob" if name == "victim" else "victim"
            self.children[name].tell(
                "use", tag=f"{name} {self._round}", target=target, endpoint=self.ready[target]["control"]
            )
        return {name: self.children[name].take() for name in who}

    def during(self, rounds: int = 2) -> None:
        """Use everything while something is missing, and judge what calls come to and how the victim is."""
        for _ in range(rounds):
            for name, answers in self.use().items():
                self.report.calls(name, answers)
        self.alive("during")

    def alive(self, when: str) -> Answer:
        """Judge whether the victim's process and threads live; return its state."""
        state: Answer = self.victim.ask("state")
        self.report.expect("crash" not in state, f"{when}: {state.get('crash', '')[:200]}")
        for text in state["died"]:
            self.report.expect(False, f"{when}: {text[:200]}")
        gone = {name for name in _steady(self.before["victim"]) if name not in state["threads"]}
        self.report.expect(not gone, f"{when}: threads ended: {', '.join(sorted(gone))}")
        return state

    def back(self, *, held: bool = True, seconds: float = BACK_SECONDS) -> None:
        """Wait until everything works again, and judge how long that takes and what is held compared with before."""
        began = time.monotonic()
        self._well("after", seconds)
        self.report.back = max(self.report.back or 0.0, time.monotonic() - began)
        self.alive("after")
        if not held:
            return
        for name in NAMES:
            now = self.settled(name, self.before[name])
            for text in _more(self.before[name], now):
                self.report.expect(False, f"after: {name} holds {text}")

    def _well(self, when: str, seconds: float = BACK_SECONDS) -> None:
        """Wait until all calls are well, what they told has arrived everywhere, and nobody has anything to complain."""
        end = time.monotonic() + seconds
        while bad := self._not_well():
            if time.monotonic() > end:
                self.report.expect(False, f"{when}, not within {seconds:.0f} s: {'; '.join(bad)[:400]}")
                return
            time.sleep(0.25)

    def _not_well(self) -> list[str]:
        bad = [
            f"{name} {call}: {answer['error']} {answer['text']:.100}"
            for name, answers in self.use().items()
            for call, answer in answers.items()
            if "error" in answer
        ]
        tags = [f"{name} {self._round}" for name in NAMES]
        end = time.monotonic() + 5.0
        missing: list[str] = []
        for name, child in self.children.items():
            while (missing := child.ask("heard", tags=tags)) and time.monotonic() < end:
                time.sleep(0.1)
            bad += [f"{name} lacks {text}" for text in missing]
            health = child.ask("health")
            # What was short is told for a minute: that is the past.
            bad += [f"{name} says: {problem}" for problem in health["problems"] if " s ago: " not in problem]
            if sorted(health["members"]) != sorted(NAMES):
                bad.append(f"{name} sees {health['members']}")
        return bad

    def settled(self, name: str, goal: Answer | None = None, seconds: float = 12.0) -> Answer:
        """Return the state of a child once it holds no more than `goal`, or for 1 s the same; at the latest then."""
        end = time.monotonic() + seconds
        state: Answer = self.children[name].ask("state")
        while time.monotonic() < end:
            if goal is not None and not _more(goal, state):
                return state
            time.sleep(1.0)
            before, state = state, self.children[name].ask("state")
            if goal is None and (before["threads"], before["descriptors"]) == (state["threads"], state["descriptors"]):
                return state
        return state

    def says(self, words: str) -> None:
        """Note whether the victim's ``health`` speaks of what is missing: a row of the table."""
        problems = self.victim.ask("health")["problems"]
        told = [problem for problem in problems if any(word in problem for word in words.split("|"))]
        self.report.notes.append(f"health says: {told[0]}" if told else f"health does not tell ({problems})")

    def news(self, kind: str, about: str = "") -> list[str]:
        """Return what was reported, by whom and of whom, of `kind` (``fail``, ``leave``) by all children."""
        return [
            f"{name}: {event}"
            for name, child in self.children.items()
            for event in child.ask("state")["news"]
            if event.startswith(kind) and about in event
        ]

    def wait(self, condition: Callable[[], object], seconds: float) -> bool:
        """Wait for `condition`; return whether it came true."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True


def _steady(state: Answer) -> list[str]:
    return [name for name in state["threads"] if name.startswith("mycorrizal") and not name.startswith(PASSING)]


def _more(before: Answer, now: Answer) -> list[str]:
    """Return what is held `now` and was not `before`: descriptors in number, threads by name."""
    found = []
    had, has = sum(before["descriptors"].values()), sum(now["descriptors"].values())
    if has > had + SLACK:
        opened: Counter[str] = Counter(now["descriptors"]) - Counter(before["descriptors"])
        found.append(f"{has} descriptors instead of {had}: {dict(opened)}")
    threads: Counter[str] = Counter(now["threads"]) - Counter(before["threads"])
    if more := {name: count for name, count in threads.items() if not name.startswith(PASSING)}:
        found.append(f"more threads: {more}")
    return found
