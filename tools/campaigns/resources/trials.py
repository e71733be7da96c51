"""``tools/chaos resources``: agents whose process lacks something, and whether all is as before once it is back.

Each trial has three agents in processes of their own, one of which is the victim. While something is missing its
process lives, no thread of ours dies, and errors are ours; afterwards everything works within 30 s, and descriptors
and threads are as before. Also run, the quick ones, by tests/integration/test_resources.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from campaigns.resources import exits
from campaigns.resources.cluster import BACK_SECONDS, NAMES, Agents, Report, Silent

FEW = 2
"""Descriptors that are left: not enough for a conversation, a file and a socket at a time."""
LARGE_MB, ROOM_MB, LARGE_SECONDS = 64, 48, 10.0
"""A large value, the address space that is left, and the time for a call with the value."""
DISK = "2m"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
HOURS = (1, -1, 25)
STOPS = (5.0, 20.0)
MEMBER_SECONDS = 10.0
"""A process that was frozen for so long is still a member (docs/agent.md)."""


def descriptors(report: Report) -> None:
    """Lower RLIMIT_NOFILE to what is open and a few more."""
    with Agents(report) as agents:
        agents.victim.ask("starve", what="descriptors", few=FEW)
        agents.during()
        agents.says("descriptor|open files")
        agents.victim.ask("feed")
        agents.back()


def threads(report: Report) -> None:
    """Lower RLIMIT_NPROC so that no thread can be started."""
    with Agents(report, victim={"counted": True}) as agents:
        agents.victim.ask("starve", what="threads", few=0)
        agents.during()
        agents.says("thread")
        agents.victim.ask("feed")
        agents.back()


def memory(report: Report) -> None:
    """Lower RLIMIT_AS so that large values find no room, and small ones do."""
    with Agents(report) as agents:
        for name in ("victim", "bob"):
            agents.children[name].ask("blob", megabytes=LARGE_MB)
        report.expect(not (bad := _large(agents)), f"before: {bad}")
        agents.victim.ask("starve", what="memory", few=ROOM_MB)
        for name, target in (("victim", "bob"), ("bob", "victim")):
            answers = agents.children[name].ask("large", target=target, seconds=LARGE_SECONDS)
            for call, answer in answers.items():
                if name == "victim" and answer.get("error") == "MemoryError":  # what Python says in the caller's thread
                    report.notes.append(f"{call}: MemoryError in the caller")
                    answer["ours"] = True
            report.calls(name, answers, LARGE_SECONDS)
        for name, answers in agents.use().items():
            report.calls(name, answers)
            for call, answer in answers.items():
                report.expect("error" not in answer, f"{name}: small {call} failed: {answer.get('text', '')[:120]}")
        agents.alive("during")
        agents.victim.ask("feed")
        agents.back()
        end = time.monotonic() + BACK_SECONDS
        while (bad := _large(agents)) and time.monotonic() < end:
            report.notes.append(f"after, tried again: {bad}")
        report.expect(not bad, f"after: {bad}")


def _large(agents: Agents) -> list[str]:
    """Exchange large values in both directions; return what went wrong."""
    return [
        f"{name} {call}: {answer['error']} after {answer['seconds']:.1f} s: {answer['text']:.100}"
        for name, target in (("victim", "bob"), ("bob", "victim"))
        for call, answer in agents.children[name].ask("large", target=target, seconds=3 * LARGE_SECONDS).items()
        if "error" in answer
    ]


def disk(report: Report) -> None:
    """Fill the file system of the settings file and the runtime directory."""
    if os.geteuid() != 0:
        report.notes.append("left out: only root can mount a file system")
        return
    folder = tempfile.mkdtemp(prefix="myc-")
    mount = f"mount -t tmpfs -o size={DISK},mode=700 none {folder} && echo mounted && exec sleep 600"
    holder = subprocess.Popen(["unshare", "-m", "sh", "-c", mount], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        if holder.stdout.readline().strip() != "mounted":
            report.notes.append("left out: no permission to mount a file system")
            return
        inside = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
        _fill_disk(report, folder, inside)
    finally:
        holder.kill()
        holder.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def _fill_disk(report: Report, folder: str, inside: list[str]) -> None:
    file = f"{folder}/settings.sqlite"
    with Agents(  # without key=, so that a rotation writes the file of the key
        report, victim={"agent": {"settings_file": file}}, prefix=inside, run=f"{folder}/run", key=None, discover=True
    ) as agents:
        agents.victim.ask("rotate")  # from the first one on every agent has a thread that tells newcomers of the keys
        agents.measure()
        report.notes.append(f"{agents.victim.ask('fill', folder=folder)} bytes filled the disk")
        for _ in range(3):  # what SQLite has room for in pages of its own is used up
            agents.victim.ask("setting", key="large", value="x" * 60_000)
        agents.during()
        report.calls("victim", {"rotate": agents.victim.ask("rotate")}, 20)
        report.calls("victim", {"start": agents.victim.ask("start", name="dave")}, 20)
        agents.says("settings file|disk")
        agents.victim.ask("empty")
        agents.back(held=False)
        rotated = agents.victim.ask("rotate")
        report.expect("error" not in rotated and not rotated["errors"], f"after: keys cannot be changed: {rotated}")
        started = agents.victim.ask("start", name="dave")
        report.expect("error" not in started, f"after: no agent can be started: {started.get('text')}")
        agents.back()
        shared_now = agents.victim.ask("settings")
        for name in NAMES[1:]:
            agents.children[name].end()
        kept = agents.victim.ask("restart")
        lost = {key for key in shared_now if kept.get(key) != shared_now[key]}
        report.expect(not lost, f"after a restart the file lacks {sorted(lost)}")


def clock(report: Report) -> None:
    """Set the wall clock of one agent an hour ahead, an hour back, and 25 hours ahead."""
    if not FAKETIME.exists():
        report.notes.append("left out: faketime is not installed; run tools/peers")
        return
    with tempfile.TemporaryDirectory(prefix="myc-") as folder:
        ahead = Path(folder, "ahead")
        ahead.write_text("+0")
        environ = {
            "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(ahead), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }  # fmt: skip
        with Agents(report, environ=environ) as agents:
            for hours in HOURS:
                ahead.write_text(f"{3600 * hours:+d}")
                off = agents.victim.ask("clock") - time.time()
                report.expect(abs(off - 3600 * hours) < 60, f"the clock is {off:.0f} s off, not {hours} h")
                _with_wrong_clock(report, agents, hours)
            ahead.write_text("+0")
            agents.back()
            report.expect(not (found := agents.news("fail")), f"reported as failed: {found}")


def _all_have(agents: Agents, key: str, value: str) -> bool:
    return all(child.ask("settings").get(key) == value for child in agents.children.values())


def _with_wrong_clock(report: Report, agents: Agents, hours: int) -> None:
    """Judge settings and lifetimes while the victim's clock is `hours` off."""
    victim, bob = agents.victim, agents.children["bob"]
    far = abs(hours) > 24  # its writes of the cache are not acknowledged then (docs/guarantees.md)
    for first, second in ((victim, bob), (bob, victim)):
        key = f"clock {hours} {first.name}"
        for child, value in ((first, "first"), (second, "second")):
            report.calls(child.name, {"setting": child.ask("setting", key=key, value=value)})
            agree = agents.wait(partial(_all_have, agents, key, value), 45.0)
            report.expect(agree, f"{hours:+d} h: not all have the setting that {child.name} wrote {value}")
    for writer in (victim, bob):
        key = f"lease {hours} {writer.name}"
        began = time.monotonic()
        written = writer.ask("hold", key=key, value="x", ttl=4.0)
        if far and writer is victim:
            report.calls(writer.name, {"cache.set": written})
            continue
        refused = f"{hours:+d} h: cache.set of {writer.name}: {written.get('text', '')[:140]}"
        report.expect("error" not in written, refused)
        for reader in agents.children.values():
            found = reader.ask("look", key=key)
            if time.monotonic() - began < 3.5:
                report.expect(found == "x", f"{hours:+d} h: {reader.name} does not find what {writer.name} has cached")
        time.sleep(max(0.0, began + 4.5 - time.monotonic()))
        for reader in agents.children.values():
            report.expect(reader.ask("look", key=key) is None, f"{hours:+d} h: {reader.name} finds what has expired")
    for name, answers in agents.use().items():
        if far:
            report.calls(name, answers)
            continue
        for call, answer in answers.items():
            report.expect("error" not in answer, f"{hours:+d} h: {name} {call}: {answer.get('text', '')[:120]}")
    state = agents.alive(f"{hours:+d} h")
    report.expect(not state["suspects"], f"{hours:+d} h: somebody is suspected")


def stop(report: Report) -> None:
    """SIGSTOP for 5 and for 20 s."""
    with Agents(report) as agents:
        for seconds in STOPS:
            os.kill(agents.victim.process.pid, signal.SIGSTOP)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for name, answers in agents.use(who=NAMES[1:]).items():
                    report.calls(name, answers)
            os.kill(agents.victim.process.pid, signal.SIGCONT)
            agents.back()
            failed = agents.news("fail", "victim")
            report.notes.append(f"{seconds:.0f} s: reported as failed by {len(failed)}, back after {report.back:.1f} s")
            report.expect(seconds > MEMBER_SECONDS or not failed, f"declared dead after {seconds:.0f} s: {failed}")
        by_others = [event for name in NAMES[1:] for event in agents.news("fail", name)]
        others = [event for event in by_others if not event.startswith("victim")]
        report.expect(not others, f"others were declared dead: {others}")


def handlers(report: Report, seconds: float = 30.0) -> None:
    """Have all request handlers of the victim block."""
    small = {"data_config": {"handlers": 2, "handler_queue": 4}}
    with Agents(report, victim={"agent": small}) as agents:
        agents.victim.ask("block")
        end = time.monotonic() + seconds
        agents.children["bob"].tell("crowd", target="victim", count=20, seconds=seconds - 2)
        rounds = 0
        while time.monotonic() < end or not rounds:
            answers = agents.use(who=("victim", "carol"))
            rounds += 1
            for name, calls in answers.items():
                report.calls(name, calls)
                for call, answer in calls.items():
                    held = name == "carol" and call == "request"
                    report.expect(held or "error" not in answer, f"{name}: {call}: {answer.get('text', '')[:120]}")
                    if held and rounds > 1:  # once bob's requests have taken all places
                        report.expect(answer.get("error") in ("PeerBusy", "OperationTimeout"), f"{call}: {answer}")
            time.sleep(0.5)
        agents.says("handler")
        answers = agents.children["bob"].take()
        kinds = Counter(answer.get("error", "well") for answer in answers)
        report.notes.append(f"20 requests to 2 handlers and 4 places: {dict(kinds)}, {rounds} rounds of use")
        report.calls("bob", {f"block {number}": answer for number, answer in enumerate(answers)}, seconds)
        # Two run and four wait, of bob's and of what carol asks meanwhile; all others are told.
        report.expect(14 <= kinds["PeerBusy"] < 20, f"answers of stuck handlers: {kinds}")
        report.expect(kinds["OperationTimeout"] == 20 - kinds["PeerBusy"], f"answers of stuck handlers: {kinds}")
        for answer in answers:
            fields = answer.get("node") == "victim" and answer.get("operation") == "request_async"
            sure = answer.get("indeterminate") is (answer.get("error") == "OperationTimeout")
            report.expect(fields and sure, f"fields of {answer}")
        agents.alive("during")
        agents.victim.ask("unblock")
        agents.back()


TRIALS: dict[str, Callable[[Report], None]] = {
    "descriptors": descriptors,
    "threads": threads,
    "disk": disk,
    "memory": memory,
    "clock": clock,
    "stop": stop,
    "handlers": handlers,
    "exits": exits.exits,
}


def run(name: str, trial: Callable[[Report], None]) -> Report:
    """Carry out one trial; return what it came to."""
    report, began = Report(name), time.monotonic()
    try:
        trial(report)
    except Silent as error:
        report.expect(False, str(error))
    report.seconds = time.monotonic() - began
    return report


def table(reports: list[Report]) -> str:
    """Return the reports for people."""
    lines = []
    for report in reports:
        back = "" if report.back is None else f", back after {report.back:.1f} s"
        state = "WRONG" if report.wrong else "well"
        lines.append(f"{report.name:12} {state:6} {report.seconds:5.0f} s{back}")
        lines += [f"    wrong: {text}" for text in report.wrong]
        lines += [f"    note:  {text}" for text in report.notes]
        if report.errors:
            lines.append("    calls: " + ", ".join(f"{count} {what}" for what, count in report.errors.most_common(12)))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/chaos resources", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"all if none is named: {', '.join(TRIALS)}")
    options = parser.parse_args()
    if unknown := set(options.trials) - set(TRIALS):
        parser.error(f"no such trial: {', '.join(sorted(unknown))}; there are {', '.join(TRIALS)}")
    reports = []
    for name in options.trials or TRIALS:
        reports.append(run(name, TRIALS[name]))
        print(table(reports[-1:]), flush=True)
    wrong = [report.name for report in reports if report.wrong]
    seconds = sum(report.seconds for report in reports)
    print(f"{len(reports)} trials, {seconds:.0f} s; wrong: {', '.join(wrong) or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
