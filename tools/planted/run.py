"""``tools/mutants``: plants one fault after another in a copy of the tree, and asks the tests of its module.

The nearest tests first: those named like the module, then those of its folder,
then its neighbours'. A fault is killed by the first test that fails, or by the
time that the tests take. One that no longer applies is reported, and a failure.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent

from planted import faults  # noqa: E402
from planted.fault import DoesNotApply, Fault, levels, place, sources  # noqa: E402

COPIED = (
    *("mycorrizal", "tests", "tools", "docs", "findings", ".ci", ".gitignore", "setup.cfg", "setup.py", "MANIFEST.in"),
    *("README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "LICENSE"),
)
LEVELS = ("own tests", "folder", "neighbours")
SLOWER = 4.0
"""Times as long as without the fault: then the tests hang."""


class Outcome(NamedTuple):
    """What became of a fault."""

    fault: Fault
    path: str
    killed_by: str  # a level of LEVELS, "" if it survived
    test: str
    seconds: float


def all_faults() -> list[tuple[str, Fault]]:
    """Return all faults, each with the name of the list in which it stands."""
    found = []
    for module in sorted(pkgutil.iter_modules(faults.__path__), key=lambda module: module.name):
        found += [(module.name, fault) for fault in importlib.import_module(f"planted.faults.{module.name}").FAULTS]
    return found


class Copy:
    """A copy of the tree in which one fault at a time is planted."""

    def __init__(self, limit: float) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="mycorrizal-mutants-"))
        self._limit = limit
        self._usual: dict[tuple[str, ...], float] = {}
        skipped = shutil.ignore_patterns("__pycache__", "node_modules")
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.path / name, ignore=skipped)
            else:
                shutil.copy2(source, self.path / name)
        self._files = sources(self.path)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def ask(self, tests: list[str], seconds: float, **more: str) -> str | None:
        """Return the first test that fails, None if all pass; `more` goes into the environment."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
        skip = ("PYTEST_ADDOPTS", "CI")
        env = {name: value for name, value in os.environ.items() if name not in skip}
        env |= {"PYTHONPATH": str(self.path), **more}
        run = subprocess.Popen(
            command, cwd=self.path, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        try:
            output = run.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, 9)
            run.communicate()
            return "(takes too long)"
        if run.returncode in (0, 5):  # 5: there is no test
            return None
        failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0].split(" - ")[0] if failed else f"(exit code {run.returncode})"

    def usual(self, tests: list[str]) -> float:
        """Return how long `tests` take without a fault.

        Raises:
            RuntimeError: they fail, so that they say nothing about faults.
        """
        key = tuple(tests)
        if key not in self._usual:
            began = time.monotonic()
            # Twice, since a busy machine may make a timing test fail once. What is compiled here is kept.
            if (failed := self.ask(tests, self._limit) and self.ask(tests, self._limit)) is not None:
                raise RuntimeError(f"without any fault: {failed}")
            self._usual[key] = time.monotonic() - began
        return self._usual[key]

    def judge(self, fault: Fault) -> Outcome:
        """Plant `fault`, and ask level after level until a test fails."""
        where = place(fault, self._files)
        file = self.path / where.path
        before = file.read_text("utf-8")
        times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
        began = time.monotonic()
        for level, tests in zip(LEVELS, levels(where.path, self.path), strict=False):
            seconds = min(self._limit, 30.0 + SLOWER * self.usual(tests))
            file.write_text(where.source, "utf-8")
            try:
                failed = self.ask(tests, seconds, PYTHONDONTWRITEBYTECODE="1")
            finally:
                file.write_text(before, "utf-8")
                os.utime(file, ns=times)  # so that what was compiled of it is valid again
            if failed is not None:
                return Outcome(fault, str(where.path), level, failed, time.monotonic() - began)
        return Outcome(fault, str(where.path), "", "", time.monotonic() - began)


def run(chosen: list[Fault], jobs: int, limit: float) -> tuple[list[Outcome], list[str]]:
    """Judge `chosen` on `jobs` copies at a time; return the outcomes, and what could not be judged."""
    waiting: queue.SimpleQueue[Fault] = queue.SimpleQueue()
    for fault in chosen:
        waiting.put(fault)
    outcomes: list[Outcome] = []
    problems: list[str] = []

    def work() -> None:
        copy = Copy(limit)
        try:
            while True:
                try:
                    fault = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    outcome = copy.judge(fault)
                except (DoesNotApply, RuntimeError) as error:
                    problems.append(str(error))
                    print(f"       not judged: {error}", flush=True)
                    continue
                outcomes.append(outcome)
                verdict = f"{outcome.killed_by}: {outcome.test}" if outcome.killed_by else "SURVIVED"
                print(f"{outcome.seconds:5.0f} s  {fault.symbol} ({fault.breaks}): {verdict}", flush=True)
        finally:
            copy.close()

    threads = [threading.Thread(target=work) for _ in range(min(jobs, len(chosen)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes, problems


def table(outcomes: list[Outcome]) -> str:
    """Return how many of each package's faults were killed, and by which tests."""
    lines = [f"| package | faults | killed | {' | '.join(LEVELS)} |", "|---|---:|---:|" + "---:|" * len(LEVELS)]
    packages = Counter(_package(outcome) for outcome in outcomes)
    for package in [*sorted(packages), "all"]:
        own = [outcome for outcome in outcomes if package in ("all", _package(outcome))]
        by = [sum(outcome.killed_by == level for outcome in own) for level in LEVELS]
        lines.append(f"| {package} | {len(own)} | {sum(by)} | {' | '.join(map(str, by))} |")
    return "\n".join(lines)


def _package(outcome: Outcome) -> str:
    parts = Path(outcome.path).parts
    return parts[1] if len(parts) > 2 else "facades"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("symbols", nargs="*", help="only these lists, or symbols that begin so")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that one look at the tests may take")
    parser.add_argument("--check", action="store_true", help="only say which faults do not apply")
    parser.add_argument("--out", type=Path, help="a JSON file for the outcomes")
    options = parser.parse_args()
    chosen = [
        fault
        for name, fault in all_faults()
        if not options.symbols or any(fault.symbol.startswith(start) or name == start for start in options.symbols)
    ]
    if options.check:
        wrong, files = [], sources(ROOT)
        for fault in chosen:
            try:
                place(fault, files)
            except DoesNotApply as error:
                wrong.append(str(error))
        print("\n".join([*wrong, f"{len(chosen) - len(wrong)} of {len(chosen)} faults apply"]))
        return 1 if wrong else 0
    outcomes, problems = run(chosen, options.jobs, options.limit)
    print(table(outcomes))
    survived = [outcome for outcome in outcomes if not outcome.killed_by]
    for outcome in survived:
        print(f"survived: {outcome.path}: {outcome.fault.symbol}: {outcome.fault.breaks}")
    print("\n".join(problems))
    if options.out is not None:
        rows = [{**outcome._asdict(), "fault": outcome.fault._asdict()} for outcome in outcomes]
        options.out.write_text(json.dumps(rows, indent=1), "utf-8")
    return 1 if survived or problems else 0


if __name__ == "__main__":
    sys.exit(main())
