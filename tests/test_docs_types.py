"""What the documentation shows passes its reader's own ``mypy --strict``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FRAGMENTS = {"mixed-clusters.md"}
"""Pages whose block is not a program: names in it stand for what the reader has."""
ALONE = {"README.md"}
"""Pages each of whose blocks is a program of its own."""


def programs() -> dict[str, str]:
    """Return the Python of each page, by the name of a module."""
    found: dict[str, str] = {}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        name = "page_" + re.sub(r"\W", "_", page.stem).lower()
        if page.name in ALONE:
            found |= {f"{name}_{number}": block for number, block in enumerate(blocks)}
        elif blocks and page.name not in FRAGMENTS:
            found[name] = "\n".join(blocks)
    return found


def check(folder: Path, *options: str) -> str:
    """Return what mypy says of the programs in `folder`; with our settings, strict ones, so that its cache is warm."""
    files = sorted(map(str, folder.glob("*.py")))
    command = [sys.executable, "-m", "mypy", "--config-file", "setup.cfg", *options, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert not done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_the_pages_show_is_typed(tmp_path: Path) -> None:
    for name, program in programs().items():
        (tmp_path / f"{name}.py").write_text(program)
    planted = 'from mycorrizal import Agent\n\nname: int = Agent("a").name\n'
    (tmp_path / "planted.py").write_text(planted)
    lines = [line for line in check(tmp_path).splitlines() if ": error: " in line]
    assert [line for line in lines if "planted.py" not in line] == []
    assert [line.partition("error: ")[2] for line in lines] == [
        'Incompatible types in assignment (expression has type "str", variable has type "int")  [assignment]'
    ]


def test_there_are_pages() -> None:
    assert {"page_agent", "page_cache", "page_data_plane", "page_guide", "page_readme_0"} <= programs().keys()
