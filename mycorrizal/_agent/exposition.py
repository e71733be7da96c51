"""``agent.metrics_text()``: all numbers of an agent in Prometheus' text format (version 0.0.4).

Not by ``prometheus-client``: what is counted lies in the parts of the agent
already, in their owners' dicts, and would have to be copied into that
library's objects, under its locks, to be written by 100 lines like these.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .._histogram import Histogram
from .cachemetrics import escaped
from .health import health
from .metrictable import Metric, metric_of

if TYPE_CHECKING:
    from .assembly import Assembly

__all__ = ["CONTENT_TYPE", "PREFIX", "exposition", "health_page", "merged", "metrics_page"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "mycorrizal_"

_Sample = tuple[str, str, float]
"""What stands behind the family's name, the labels with their braces, and the value."""


def merged(parts: Assembly) -> dict[str, int]:
    """Return the counters and gauges of all parts. Never blocks, any thread."""
    control = {} if parts.control is None else parts.control.metrics()
    file = {} if parts.file is None else {"settings_file.failures": parts.file.failures}
    web = {} if parts.web_counters is None else parts.web_counters.snapshot()
    found = {**parts.members.metrics(), **parts.data.metrics(), **parts.sharing.metrics()}
    return {**found, **parts.caches.metrics(), **parts.tasks.metrics(), **control, **file, **web}


def metrics_page(parts: Assembly) -> tuple[int, str, bytes]:
    """Return what a scraper gets."""
    version = str(getattr(sys.modules.get("mycorrizal"), "__version__", "unknown"))  # it stands above us
    about = {"name": parts.name, "cluster": parts.settings.cluster, "version": version}
    numbers = {**merged(parts), "health.problems": len(health(parts).problems)}
    times = {
        "request": parts.data._started.times(), **parts.members._running.machine.times, **parts.caches.times()
    }  # fmt: skip
    return 200, CONTENT_TYPE, exposition(about, numbers, times).encode("utf-8", "replace")


def health_page(parts: Assembly) -> tuple[int, str, bytes]:
    """Return 200 and `ok`, or 503 and a sentence for each problem."""
    problems = health(parts).problems
    text = "\n".join(problems) if problems else "ok"
    return 503 if problems else 200, "text/plain; charset=utf-8", f"{text}\n".encode("utf-8", "replace")


def exposition(about: Mapping[str, str], numbers: Mapping[str, int], times: Mapping[str, Histogram]) -> str:
    """Return the text: a HELP and a TYPE for each family, its samples together, a line feed at the end.

    Args:
        about: labels of ``mycorrizal_agent_info``.
        numbers: as ``Agent.metrics`` has them.
        times: by name, with labels as in `numbers`.
    """
    families: dict[str, tuple[Metric, list[_Sample]]] = {}

    def family(name: str) -> tuple[list[_Sample], str, Metric]:
        metric, labels = metric_of(name)
        return families.setdefault(metric.exported, (metric, []))[1], labels, metric

    labels = ",".join(f'{key}="{escaped(value)}"' for key, value in about.items())
    family("agent.info")[0].append(("", f"{{{labels}}}" if labels else "", 1))
    for name, value in numbers.items():
        samples, labels, metric = family(name)
        samples.append(("", f"{{{labels}}}" if labels else "", value * metric.scale))
    for name, histogram in times.items():
        samples, labels, _ = family(name)
        samples += _histogram(labels, histogram)
    return "".join(_lines(families))


def _histogram(labels: str, histogram: Histogram) -> Iterable[_Sample]:
    more, alone = f"{labels}," if labels else "", f"{{{labels}}}" if labels else ""
    total, counts = histogram.total, histogram.cumulated()
    for bound, count in zip((*histogram.bounds, float("inf")), counts, strict=True):
        yield "_bucket", f'{{{more}le="{_number(bound)}"}}', count
    yield "_sum", alone, total
    yield "_count", alone, counts[-1]


def _lines(families: Mapping[str, tuple[Metric, list[_Sample]]]) -> Iterable[str]:
    for name, (metric, samples) in sorted(families.items()):
        about = metric.about.replace("\\", r"\\").replace("\n", r"\n")
        yield f"# HELP {PREFIX}{name} {about}\n# TYPE {PREFIX}{name} {metric.kind}\n"
        for suffix, labels, value in samples:
            yield f"{PREFIX}{name}{suffix}{labels} {_number(value)}\n"


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
