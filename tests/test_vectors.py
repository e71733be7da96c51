"""All cases of Go's vectors, each by the check of its kind, none left out."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.golden import Case, all_checks, cases

TOTAL = 406
ran: Counter[str] = Counter()


def test_every_kind_is_checked() -> None:
    """A kind without a check, or a check without cases, is a mistake in the list of checks."""
    assert {case["kind"] for case in cases()} == all_checks().keys()


@pytest.mark.parametrize("case", cases(), ids=lambda case: str(case["id"]))
def test_case(case: Case) -> None:
    all_checks()[case["kind"]](case)
    ran[case["kind"]] += 1


def test_all_cases_ran(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts what `test_case` has really run; with a selection on the command line, what was selected."""
    chosen = [item for item in request.session.items if getattr(item, "originalname", "") == "test_case"]
    count = sum(ran.values())
    with capsys.disabled():
        print(f"\n{count} of {TOTAL} vector cases ran and passed, of {len(ran)} kinds")
    assert len(cases()) == TOTAL
    assert count == len(chosen)
