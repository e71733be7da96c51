"""docs/security.md says what the code does: its numbers are the constants that they name, its tests and files exist."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mycorrizal._replica.limits import Limits
from mycorrizal._wire import limits, value_guard
from mycorrizal.dataconfig import DataConfig

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
UNITS = {"": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "s": 1, "ms": 1}

LIMIT = re.compile(r"^\| (?P<what>[^|]+) \| (?P<limit>[^|]+) \| `(?P<name>mycorrizal\.[\w.]+)` \|$", re.MULTILINE)
NUMBER = re.compile(r"(?P<number>\d[\d,]*(?:\.\d+)?)(?: (?P<unit>[A-Za-z]+))?")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def number(text: str) -> float:
    """Return what a cell of a table says: a number, and maybe a unit."""
    found = NUMBER.fullmatch(text)
    assert found is not None and (found["unit"] or "") in UNITS, f"{text!r} is no number with a unit"
    return float(found["number"].replace(",", "")) * UNITS[found["unit"] or ""]


def constant(name: str) -> Any:
    """Return the value of ``package.module.NAME``, or the default of ``package.module.Class.field``."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise  # something that the module itself wants
            continue
        for part in parts[cut:]:
            fields = dataclasses.fields(found) if dataclasses.is_dataclass(found) else ()
            found = {field.name: field.default for field in fields}.get(part) or getattr(found, part)
        return found
    raise AssertionError(f"{name}: no such module")


def wrong_limits(page: str) -> list[str]:
    """Return the rows whose number is not the constant that they name."""
    return [row["what"] for row in LIMIT.finditer(page) if number(row["limit"]) != constant(row["name"])]


@cache
def functions_of(path: str) -> frozenset[str]:
    """Return the names of the tests in a file; none if it is missing."""
    if not (ROOT / path).is_file():
        return frozenset()
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def missing_tests(page: str) -> list[str]:
    """Return the tests that `page` names and nobody has written."""
    return [f"{path}::{name}" for path, name in TEST.findall(page) if name not in functions_of(path)]


def rows(heading: str) -> list[list[str]]:
    """Return the cells of each row of the tables below `heading`, their heads left out."""
    _, _, rest = PAGE.partition(f"\n## {heading}\n")
    assert rest, f"no section {heading!r}"
    section = rest.partition("\n## ")[0]
    table = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    heads = {index for index, row in enumerate(table[1:]) if set("".join(row)) <= set("-|: ")}
    return [row for index, row in enumerate(table) if index not in heads and index - 1 not in heads]


# -- limits ------------------------------------------------------------------------------------------


def test_each_number_is_the_constant_that_it_names() -> None:
    assert wrong_limits(PAGE) == []


def test_each_row_of_the_limits_is_read() -> None:
    """A row that is written otherwise than the others would be checked by nobody."""
    table = rows("Limits")
    assert len(table) == len(list(LIMIT.finditer(PAGE))) > 90
    named = [row[2] for row in table]
    assert sorted(set(named)) == sorted(named), "a constant that stands there twice"


def counts(kind: type[Any]) -> list[str]:
    """Return the fields of a dataclass that are whole numbers."""
    return [field.name for field in dataclasses.fields(kind) if field.type == "int"]


OURS = {  # of what we send, and of threads
    *("COMPOUND_PARTS_MAX", "STREAM_COMPRESS_MAX", "max_datagram", "handlers", "handler_spares"),
    *("gossip_backlog", "gossip_backlog_bytes", "gossip_bytes"),
}
TAKEN = [
    *(f"mycorrizal._wire.limits.{name}" for name in limits.__all__),
    *(f"mycorrizal._wire.value_guard.{name}" for name in vars(value_guard) if name.endswith("_MAX")),
    *(f"mycorrizal._replica.limits.Limits.{name}" for name in counts(Limits)),
    *(f"mycorrizal.dataconfig.DataConfig.{name}" for name in counts(DataConfig)),
]


@pytest.mark.parametrize("name", [name for name in TAKEN if name.rpartition(".")[2] not in OURS])
def test_no_bound_of_the_wire_is_left_out(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_planted_number_is_found() -> None:
    row = "| label | {} | `mycorrizal._wire.limits.LABEL_MAX_BYTES` |\n"
    assert wrong_limits(row.format("255 bytes")) == []
    assert wrong_limits(row.format("256 bytes")) == wrong_limits(row.format("255 KiB")) == ["label"]
    with pytest.raises(AssertionError, match="no number"):
        wrong_limits(row.format("about 255"))
    with pytest.raises(AttributeError):
        wrong_limits(row.format("255").replace("LABEL", "LABLE"))
    assert number("1.5 MiB") == 3 << 19 and number("1,024") == 1024
    assert constant("mycorrizal.dataconfig.DataConfig.max_unproven") == 64


# -- tests, links, files -------------------------------------------------------------------------------


def test_each_test_that_is_named_exists() -> None:
    assert missing_tests(PAGE) == []


def test_each_threat_has_a_test() -> None:
    table = rows("Threats")
    assert len(table) > 30
    assert [row[0] for row in table if len(row) != 3 or not TEST.search(row[2])] == []


def test_planted_test_is_found() -> None:
    named = ["tests/test_house.py::test_nothing", "tests/test_nowhere.py::test_a"]
    assert missing_tests("".join(f"`{name}`, " for name in named)) == named
    assert missing_tests("`tests/test_house.py::test_long_function_is_caught`") == []


@pytest.mark.parametrize("name", ["docs/security.md", "SECURITY.md"])
def test_links_lead_somewhere(name: str) -> None:
    document = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert "://" in link or target.exists(), link
        if anchor and "://" not in link:
            heads = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, link


def test_design_leads_here() -> None:
    assert "(security.md)" in (ROOT / "docs" / "design.md").read_text("utf-8")
