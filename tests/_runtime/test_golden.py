"""Address texts against Go's own table; see ``tests/golden.py`` for who runs this."""

from __future__ import annotations

from mycorrizal._runtime.net.addresses import ensure_port, has_port
from tests.golden import Case


def check_ensure_port(case: Case) -> None:
    for text, has, completed in case["output"]["table"]:
        assert has_port(text) == has
        assert ensure_port(text, 8301) == completed


CHECKS = {"formula.ensure_port": check_ensure_port}
