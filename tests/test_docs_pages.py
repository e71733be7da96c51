"""Pages of docs/ say what the code does: names, texts, numbers, commands, blocks. ``tools/docs`` builds their site."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import mycorrizal
from documenting import reading
from documenting.commands import sections
from documenting.names import directives, listed, missing, public_names
from documenting.pages import broken_links
from mycorrizal import agentconfig, events, exceptions
from mycorrizal._runtime.host.settings_sources import ENVIRONMENT
from mycorrizal.cli.app import app

from .test_security_page import LIMIT, wrong_limits

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TROUBLE = (DOCS / "troubleshooting.md").read_text("utf-8")


def text(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def rows(source: str) -> list[list[str]]:
    """Return the cells of each row of the tables in `source`, heads and rules too."""
    return [line.strip("| ").split(" | ") for line in source.splitlines() if line.startswith("|")]


def blocks(language: str) -> list[tuple[str, str]]:
    """Return each block of `language` in docs/, with where it stands."""
    found = []
    for path in PAGES:
        block = re.compile(rf"^( *)```{language}\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
        for match in block.finditer(path.read_text("utf-8")):
            lines = [line.removeprefix(match[1]) for line in match[2].splitlines()]
            found.append((f"{path.relative_to(ROOT)}: {lines[0]}", "\n".join(lines)))
    return found


# -- navigation ----------------------------------------------------------------------------------


def navigation() -> set[str]:
    """Return the pages that a table of contents leads to."""
    found = {"index"}
    for path in PAGES:
        for entries in re.findall(r"^```\{toctree\}\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            pages = [line for line in entries.splitlines() if line and not line.startswith(":")]
            found |= {str((path.parent / page).relative_to(DOCS)) for page in pages}
    return found


def test_every_page_is_in_the_navigation() -> None:
    """A page that is in none fails the build, as does an entry without a page; here it is told sooner."""
    assert {str(path.relative_to(DOCS).with_suffix("")) for path in PAGES} == navigation()


# -- blocks --------------------------------------------------------------------------------------


def offered(name: str) -> bool:
    return hasattr(mycorrizal, name) or importlib.util.find_spec(f"mycorrizal.{name}") is not None


def unknown_names(source: str) -> Iterator[str]:
    """Yield what a block of Python takes from the package that is not there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "mycorrizal":
            yield from () if offered(node.attr) else (node.attr,)
        if isinstance(node, ast.ImportFrom) and node.module == "mycorrizal":
            yield from (name.name for name in node.names if not offered(name.name))


@pytest.mark.parametrize(("where", "source"), blocks("python"))
def test_python_of_the_pages_names_what_there_is(where: str, source: str) -> None:
    assert list(unknown_names(source)) == []


def test_a_name_that_is_not_there_is_found() -> None:
    source = "import mycorrizal\nmycorrizal.Agnet(), mycorrizal.Agent()\nfrom mycorrizal import Cahce, Cache"
    assert set(unknown_names(source)) == {"Agnet", "Cahce"}


@pytest.mark.parametrize(("where", "source"), blocks("toml"))
def test_settings_of_the_pages_exist(where: str, source: str) -> None:
    known = {*agentconfig.AgentSettings.__dataclass_fields__, "key_file", "config", "data", "expect", "discover"}
    for table in tomllib.loads(source).values():
        assert set(table) - known == set()


VARIABLE = re.compile(r"MYCORRIZAL_([A-Z_]+[A-Z])")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_variables_of_the_pages_mean_something(path: Path) -> None:
    known = {*ENVIRONMENT, "agent", "config", "packet_path", "runtime_dir"}
    assert {name.lower() for name in VARIABLE.findall(path.read_text("utf-8"))} - known == set()


COMMAND = re.compile(r"^(?:\$ )?(?:sudo .*? )?mycorrizal (.*?)(?:\s{2,}#.*| # .*| \| .*)?$", re.MULTILINE)


def refused(line: str) -> str | None:
    """Return why the command line would refuse `line`; None if it would not. Nothing is done."""
    command: click.Command = app
    words = [word.strip("'\"") for word in re.findall(r"'[^']*'|\"[^\"]*\"|\S+", line)]
    while isinstance(command, click.Group):
        if not words or words[0].startswith("-"):
            return None if words else "no command"
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            return f"no command {words[0]}"
        command, words = found, words[1:]
    try:
        command.make_parser(click.Context(command)).parse_args(words)
    except click.UsageError as error:
        return error.format_message()
    return None


@pytest.mark.parametrize(("where", "source"), blocks("sh"))
def test_commands_of_the_pages_exist(where: str, source: str) -> None:
    assert [line for line in COMMAND.findall(source) if refused(line) is not None] == []


def test_a_command_that_is_not_there_is_found() -> None:
    assert COMMAND.findall("mycorrizal helth   # ask\nsudo -u a mycorrizal keys list") == ["helth", "keys list"]
    assert refused("helth") and refused("keys lst") and refused("members --waits 3")
    assert refused("members --wait 3") is None and refused("request bob mean '[1, 2]'") is None


# -- reference -----------------------------------------------------------------------------------


def test_every_public_name_is_in_the_reference() -> None:
    """Those of the package by hand, with others of their subject; the rest where the site lists what is left."""
    assert {f"mycorrizal.{name}" for name in mycorrizal.__all__} - listed() == set()
    assert listed() - public_names() == {
        "mycorrizal._agent.keys.Keys",
        "mycorrizal._runtime.threads.futures.PlaneFuture",
        "mycorrizal._runtime.threads.subscribers.EventStream",
    }
    names = re.findall(r":: (\S+)$", directives(public_names() - listed()), re.MULTILINE)
    assert set(names) | listed() >= public_names()


def test_every_error_has_its_row() -> None:
    """By name, with the builtin that it is, and what its class says of a second try and of an effect."""
    told = {row[0].strip("`"): row[1:] for row in rows(text("errors.md")) if row[0].startswith("`")}
    assert set(told) == set(exceptions.__all__)
    for name, (builtins, again, done, cause, mend) in told.items():
        kind = getattr(exceptions, name)
        assert [word == "yes" for word in (again, done)] == [kind.retriable, kind.indeterminate], name
        for builtin in re.findall(r"`(?:[\w.]+\.)?(\w+)`", builtins):
            assert builtin in {base.__name__ for base in kind.__mro__}, (name, builtin)
        assert cause.endswith(".") and mend.endswith("."), name


def test_every_event_has_its_row() -> None:
    told = {row[0].strip("`"): row[1] for row in rows(text("events.md")) if row[0].startswith("`")}
    unions = {"AgentEvent", "MemberEvent"}
    assert set(told) == set(events.__all__) - unions
    for name, kinds in told.items():
        kind = getattr(getattr(events, name), "kind", None)
        if isinstance(kind, str):
            assert kinds == f"`{kind}`", name


def test_every_command_has_its_section_on_the_site() -> None:
    told = {section.split("`")[1] for section in sections()}
    assert {"mycorrizal agent", "mycorrizal members", "mycorrizal cache get", "mycorrizal keys use"} <= told
    assert all(refused(name.partition(" ")[2]) is None for name in told)
    assert sum("| option | what it does |" in section for section in sections()) > 30


# -- the site ------------------------------------------------------------------------------------


def test_links_to_the_top_level_lead_to_pages_of_the_site() -> None:
    assert reading.links("[a](../SECURITY.md), [b](cache.md#x)") == "[a](reporting.md), [b](cache.md#x)"
    assert reading.included("[a](docs/agent.md), [b](CHANGELOG.md)") == "[a](agent.md), [b](changelog.md)"


def test_each_name_of_an_item_gets_its_text() -> None:
    lines = ["Args:", "    a, b: one", "        two", "    c: three", "", "Raises:", "    D: four", ""]
    told = ["Args:", "    a: one", "        two", "    b: one", "        two", "    c: three", *lines[4:], ""]
    assert reading.one_each(lines) == told


def test_pages_that_a_docstring_names_are_links() -> None:
    assert reading.docstring(["see docs/agent.md."]) == ["see :doc:`/agent`.", ""]


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<h1 id="top"><a href="b.html#end"></a><a href="#top"></a><a href="https://x/"></a>')
    (tmp_path / "b.html").write_text('<a href="a.html#nothing"></a><img src="gone.png"><a href="./"></a>')
    found = [line.partition(": ")[2] for line in broken_links(tmp_path)]
    assert found == [
        "b.html#end: no such anchor",
        "a.html#nothing: no such anchor",
        "gone.png: no such file",
        "./: no such file",
    ]


def test_a_name_that_the_site_lacks_is_found(tmp_path: Path) -> None:
    head = b"# Sphinx inventory version 2\n# Project: a\n# Version: 1\n# compressed using zlib.\n"
    (tmp_path / "objects.inv").write_bytes(head + zlib.compress(b"a.B py:class 1 api.html#$ -\n"))
    assert missing(tmp_path / "objects.inv", {"a.B", "a.C"}) == ["a.C"]


# -- numbers -------------------------------------------------------------------------------------


def test_limits_are_the_constants_that_they_name() -> None:
    limits = text("limits.md")
    assert wrong_limits(limits) == []
    assert len(LIMIT.findall(limits)) == len(re.findall(r"^\|.*`mycorrizal\.", limits, re.MULTILINE)) > 30


def test_figures_of_the_comparison_were_measured() -> None:
    measured = set(re.findall(r"\d[\d,.]*\d|\d", text("performance.md")))
    told = [cell for row in rows(text("comparison.md")) for cell in row[1:] if re.fullmatch(r"[\d,.]+", cell)]
    assert len(told) > 30 and [figure for figure in told if figure not in measured] == []


# -- texts ---------------------------------------------------------------------------------------


def written() -> list[str]:
    """Return every text of the package's source, a gap where something is put in, and the names of its errors."""
    found = list(exceptions.__all__)
    for path in sorted((ROOT / "mycorrizal").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                pieces = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found.append("".join(map(str, pieces)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%(?:\.\d)?[a-z]", "\0", node.value))
    return found


def is_written(quote: str, texts: list[str]) -> bool:
    """Return whether one of `texts` has all parts of `quote`, in their order."""
    parts = [part.strip() for part in quote.split("…")]
    return any(_in_order(parts, one) for one in texts)


def _in_order(parts: list[str], one: str) -> bool:
    at = 0
    for part in parts:
        found = one.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True


def test_texts_of_the_troubleshooting_page_are_written() -> None:
    texts = written()
    quotes = [quote for row in rows(TROUBLE) if (quote := row[0].strip("`")) != row[0]]
    assert len(quotes) > 30
    assert [quote for quote in quotes if not is_written(quote, texts)] == []


def test_a_text_that_nobody_writes_is_found() -> None:
    texts = ["\0 did not run for \0 s", "other"]
    assert is_written("this … did not run for … s", [*texts, "this \0 did not run for \0 s"])
    assert not is_written("… did not walk for … s", texts) and not is_written("did not run … other", texts)
