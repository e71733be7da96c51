"""docs/notebooks/quickstart.ipynb does what it says, cell by cell in a real kernel, also after a restart half-way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .agents import meeting_place
from .conftest import ROOT
from .kernels import Kernel

pytestmark = pytest.mark.filterwarnings("ignore")  # what other people's packages say is not our matter

NOTEBOOK = ROOT / "docs" / "notebooks" / "quickstart.ipynb"

SHOWN = {
    "agent": r"<Agent 'alice' of 'quickstart' on 127\.0\.0\.1 port \d+, 1 member>",
    "bob": "(?s)name='alice'.*name='bob'.*'role': 'worker'",
    "message": "Message\\(sender='bob', value=\"thank you for {'step': 1, 'note': 'hello'}\"\\)",
    "request": r"array\(\[\[-1\.46",
    "events": "(?s)bob {'number': 0, 'loss': 1.0}.*bob {'number': 1, 'loss': 0.5}.*bob {'number': 2",
    "find": r"Service\(name='normaliser', node='bob', .*meta={'version': 1}, healthy=True",
    "settings": "I go on with rate = 0.1",
    "cache": r"(?s)bob's sum: 10\.0.*<Cache 'features' on alice>",
    "sweep": r"the best of 21 rates is 0\.30",
    "plot": r"<Figure size",
    "kill": r"(?s)bob failed; noticed after \d+\.\d s.*name='alice'.*name='bob'.*DEAD",
    "gone": r"(?s)services: \[\]\s+settings: {'rate': 0.1}\s+cache: \[0.0, 1.0, 2.0, 3.0, 4.0\]\s+error: .*bob",
    "end": "<Agent 'alice' of 'quickstart', closed>",
}
"""What the reader must see, by the ids of cells."""


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return found


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    with meeting_place():
        kernel = Kernel(tmp_path)
        yield kernel
        kernel.end()


def read(kernel: Kernel, until: str | None = None) -> None:
    """Run the notebook, up to cell `until`."""
    for cell in cells():
        if cell["id"] == until:
            return
        if cell["cell_type"] == "code":
            error, text = kernel.run("".join(cell["source"]), 70, cell=cell["id"])
            assert error == "", f"{cell['id']}: {text}"
            assert re.search(SHOWN.get(cell["id"], ""), text), f"{cell['id']}: {text}"


@pytest.mark.slow
def test_the_quickstart_runs_from_top_to_bottom_again_and_again(kernel: Kernel, tmp_path: Path) -> None:
    read(kernel, until="kill")
    kernel.manager.restart_kernel()  # bob ends with it, and his name is free
    kernel.client.wait_for_ready(timeout=20)
    read(kernel)
    assert list(tmp_path.iterdir()) == []
    read(kernel, until="bob")  # without a restart


def test_the_quickstart_is_committed_clean() -> None:
    assert set(SHOWN) <= {cell["id"] for cell in cells()}
    assert len({cell["id"] for cell in cells()}) == len(cells())
    for cell in cells():
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None and cell["metadata"] == {}
    assert not re.search(r"/home/|/Users/|/tmp/|[A-Z]:\\\\", NOTEBOOK.read_text("utf-8"))
