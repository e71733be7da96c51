"""Runs blocks of fuzzing cases in worker processes and adds up what they met; tools/fuzz is the command."""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import random
import resource
import signal
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count, islice
from types import FrameType

from fuzzing import targets as fuzz_targets
from mycorrizal import RemoteProtocolError

BLOCK = 1000
TRACED = 16
"""One block of this many is traced: tracing makes it several times slower."""
SLOW = 1.0
"""Seconds of processor time, which a busy machine does not change."""
HANG = 10.0
STUCK = 600.0
REPORT = 10.0
MEMORY = 2 << 30
"""Address space of a worker: what tracing does not see ends in MemoryError, which is a finding."""


@dataclass
class Result:
    """What one block of inputs did."""

    target: str
    block: int
    inputs: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    most_allocated: int = 0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    finding: str = ""


class Hang(BaseException):
    """One input did not end; not an Exception, so that nothing under test swallows it."""


def run_block(work: tuple[str, int, str], inputs: int = BLOCK) -> Result:
    """Run one block of cases; stops at its first finding."""
    target, block, seed = work
    make, most = fuzz_targets.TARGETS[target]
    rng = random.Random(f"{seed}/{target}/{block}")
    run, result = make(rng), Result(target, block)
    traced = block % TRACED == 1
    if traced:
        tracemalloc.start()
    began = time.perf_counter()
    for number in range(inputs):
        data = fuzz_targets.mutate(rng, target)
        before = tracemalloc.get_traced_memory()[0] if traced else 0
        if traced:
            tracemalloc.reset_peak()
        signal.setitimer(signal.ITIMER_PROF, HANG)
        start = time.thread_time()
        try:
            outcome = run(data)
        except RemoteProtocolError as error:
            outcome = type(error).__name__
        except (Exception, Hang) as error:
            outcome = type(error).__name__
            result.finding = f"{outcome}: {error}"
        taken = time.thread_time() - start
        signal.setitimer(signal.ITIMER_PROF, 0)
        result.inputs += 1
        result.outcomes[outcome] += 1
        result.slowest = max(result.slowest, taken)
        if traced:
            allocated = tracemalloc.get_traced_memory()[1] - before
            result.most_allocated = max(result.most_allocated, allocated)
            if allocated > most:
                result.finding = f"allocated {allocated:,} bytes, limit {most:,}"
        elif taken > SLOW:
            result.finding = result.finding or f"took {taken:.1f} s"
        if result.finding:
            result.finding += f"\n  input {number} of the block: {data.hex()}"
            break
    result.seconds = time.perf_counter() - began
    tracemalloc.stop()
    return result


def _hang(signum: int, frame: FrameType | None) -> None:
    raise Hang(f"no end after {HANG:.0f} s of processor time")


def _prepare() -> None:
    """Once per worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, _hang)
    fuzz_targets.catch_logs()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def fuzz(work: Iterator[tuple[str, int, str]], processes: int, deadline: float) -> tuple[dict[str, Result], str]:
    """Run `work` until it, or the time, ends; return what was done per target, and the first finding."""
    totals: dict[str, Result] = {}
    began = told = time.monotonic()
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare) as pool:
        running: dict[Future[Result], str] = {}
        while True:
            while len(running) < 2 * processes and time.monotonic() < deadline:
                block = next(work, None)
                if block is None:
                    break
                running[pool.submit(run_block, block)] = f"--only {block[0]} --block {block[1]} --seed {block[2]}"
            if not running:
                return totals, ""
            done, _ = wait(running, timeout=STUCK, return_when=FIRST_COMPLETED)
            if not done:
                _kill(pool)
                return totals, f"no block ended in {STUCK:.0f} s; one of: {'; '.join(running.values())}"
            for future in done:
                again = running.pop(future)
                if error := future.exception():
                    return totals, f"the worker ended: {error!r}\n  perhaps: tools/fuzz {again}"
                result = future.result()
                _add(totals, result)
                if result.finding:
                    pool.shutdown(cancel_futures=True)
                    return totals, f"{result.target}: {result.finding}\n  again: tools/fuzz {again}"
            if time.monotonic() - told > REPORT:
                told = time.monotonic()
                inputs = sum(total.inputs for total in totals.values())
                print(f"  {inputs:,} inputs, {inputs / (told - began):,.0f}/s", flush=True)


def _kill(pool: ProcessPoolExecutor) -> None:
    for child in multiprocessing.active_children():
        child.kill()
    pool.shutdown(cancel_futures=True)


def _add(totals: dict[str, Result], result: Result) -> None:
    total = totals.setdefault(result.target, Result(result.target, -1))
    total.inputs += result.inputs
    total.seconds += result.seconds
    total.slowest = max(total.slowest, result.slowest)
    total.most_allocated = max(total.most_allocated, result.most_allocated)
    total.outcomes += result.outcomes


def _print_totals(totals: dict[str, Result], elapsed: float) -> None:
    print(f"{'target':<20}{'inputs':>12}{'us each':>9}{'slowest ms':>12}{'most MiB':>10}  outcomes")
    for total in totals.values():
        outcomes = ", ".join(f"{name} {number:,}" for name, number in total.outcomes.most_common())
        print(
            f"{total.target:<20}{total.inputs:>12,}{1e6 * total.seconds / total.inputs:>9.0f}"
            f"{1e3 * total.slowest:>12.1f}{total.most_allocated / (1 << 20):>10.2f}  {outcomes}"
        )
    inputs = sum(total.inputs for total in totals.values())
    most = max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, 0) / 1024
    print(f"{inputs:,} inputs in {elapsed:.0f} s, {inputs / elapsed:,.0f}/s; largest worker {most:.0f} MB")


def main(description: str) -> int:
    """Fuzz as the arguments say; return the exit code."""
    names = list(fuzz_targets.TARGETS)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, help="stop after so many (rounded up to blocks of 1000)")
    parser.add_argument("--seconds", type=float, help="stop after so long; 30 if neither is given")
    parser.add_argument("--seed", default=None, help="default: a new one, printed")
    parser.add_argument("--only", choices=names, help="one target")
    parser.add_argument("--block", type=int, help="one block of --only")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.block is not None and options.only is None:
        parser.error("--block needs --only")
    if options.inputs is None and options.seconds is None and options.block is None:
        options.seconds = 30.0
    seed = options.seed if options.seed is not None else str(time.time_ns() % 1_000_000)
    print(f"seed {seed}", flush=True)
    blocks = count() if options.block is None else iter([options.block])
    endless = ((name, block, seed) for block in blocks for name in ([options.only] if options.only else names))
    work = islice(endless, None if options.inputs is None else -(-options.inputs // BLOCK))
    began = time.monotonic()
    totals, finding = fuzz(work, options.processes, began + (options.seconds or float("inf")))
    _print_totals(totals, time.monotonic() - began)
    print(f"FINDING in {finding}" if finding else "no finding")
    return 1 if finding else 0
