"""docs/sweeps.md: a scheduler of Dask's is found, used and watched through a service of ours."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.needs import lacks

from .agents import runtime_dir  # noqa: F401 - a fixture
from .conftest import until

PAGE = Path(__file__).parents[2] / "docs" / "sweeps.md"


@pytest.mark.slow
@pytest.mark.usefixtures("runtime_dir")
def test_the_page_runs() -> None:
    if importlib.util.find_spec("distributed") is None:
        lacks("distributed is not installed; run pip install '.[dask]'")
    blocks = re.findall(r"^```py\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask's own
        try:
            for number, block in enumerate(blocks):
                exec(compile(block, f"sweeps.md, block {number} of Dask", "exec"), names)
            user = names["user"]
            names["client"].close()
            names["cluster"].close()
            until(lambda: not user.services.find("dask"), 60.0)  # its check fails
            names["service"].deregister()
            told = [names["news"].get(60.0) for _ in range(2)]
            assert [change.kind for change in told] == ["updated", "removed"] and not told[0].service.healthy
        finally:
            for name in ("client", "cluster", "user", "head"):
                if name in names:
                    names[name].close()
