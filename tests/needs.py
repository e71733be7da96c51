"""What to do where a test cannot run: leave it out, but never on a machine that is meant to judge."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

__all__ = ["fast_path", "lacks"]


def lacks(what: str) -> NoReturn:
    """Skip the test for want of `what`, which says how to get it; with ``CI=true`` fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def fast_path(why: str) -> pytest.MarkDecorator:
    """Leave a test out where `MYCORRIZAL_PACKET_PATH=stock` (`tools/test --all`): the stock path does otherwise."""
    return pytest.mark.skipif(os.environ.get("MYCORRIZAL_PACKET_PATH") == "stock", reason=f"stock packet path: {why}")
