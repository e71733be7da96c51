"""A strict reader of Prometheus' text format 0.0.4: it raises where a lenient one guesses."""

from __future__ import annotations

import re

__all__ = ["read"]

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (-?[0-9.e+-]+|\+Inf|NaN)")
_KINDS = {"counter": [""], "gauge": [""], "untyped": [""], "histogram": ["_bucket", "_sum", "_count"]}
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}

Labels = tuple[tuple[str, str], ...]


def read(text: str) -> dict[str, dict[Labels, float]]:
    """Return the samples by name and labels; checks families, types, histograms and that nothing is there twice."""
    assert text.endswith("\n") and "\n\n" not in text
    found: dict[str, dict[Labels, float]] = {}
    done: set[str] = set()
    family = kind = ""
    for line in text.removesuffix("\n").split("\n"):
        if match := re.fullmatch(rf"# HELP ({_NAME}) (?:[^\\]|\\\\|\\n)*", line):
            family, kind = match[1], ""
            assert family not in done, f"{family} comes twice"
            done.add(family)
        elif match := re.fullmatch(rf"# TYPE ({_NAME}) (\w+)", line):
            assert match[1] == family and not kind and match[2] in _KINDS, line
            kind = match[2]
            assert (kind == "counter") == family.endswith("_total"), line
        else:
            match = _SAMPLE.fullmatch(line)
            assert match, f"no sample: {line!r}"
            assert kind and match[1].removeprefix(family) in _KINDS[kind], f"outside its family: {line!r}"
            pairs = [
                (name, re.sub(r"\\[\\n\"]", lambda found: _ESCAPES[found[0]], value))
                for name, value in re.findall(_LABEL, match[2] or "")
            ]
            labels = tuple(sorted(pairs))
            assert len(dict(labels)) == len(labels), line
            samples = found.setdefault(match[1], {})
            assert labels not in samples, f"twice: {line!r}"
            samples[labels] = float(match[match.lastindex or 0].replace("+Inf", "inf"))
    _check_histograms(found)
    return found


def _check_histograms(found: dict[str, dict[Labels, float]]) -> None:
    for name in [name for name in found if name.endswith("_bucket")]:
        rows: dict[Labels, list[tuple[float, float]]] = {}
        for labels, value in found[name].items():
            bound = float(dict(labels)["le"].replace("+Inf", "inf"))
            rows.setdefault(tuple(pair for pair in labels if pair[0] != "le"), []).append((bound, value))
        for labels, buckets in rows.items():
            counts = [count for _, count in sorted(buckets)]
            assert counts == sorted(counts) and max(buckets)[0] == float("inf")
            assert found[name.removesuffix("_bucket") + "_count"][labels] == counts[-1]
            assert labels in found[name.removesuffix("_bucket") + "_sum"]
