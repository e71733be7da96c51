"""The table of endings is what the guide prints and what errors are made from."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest

from mycorrizal import exceptions
from mycorrizal._endings import CACHE, TABLE, Ending, cache_error, error, for_call, named

PAGE = Path(__file__).resolve().parent.parent / "docs" / "data-plane.md"
WORDS = {None: "goes on", True: "indeterminate", False: "no effect"}


def test_the_guide_prints_the_table() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|(.*)\|$", PAGE.read_text("utf-8"), re.MULTILINE)
    printed = {name: [cell.strip() for cell in cells.split(" | ")] for name, cells in rows}
    expected = {
        ending.name: [
            ending.value,
            f"`{row.kind.__name__}`",
            "yes" if row.retriable else "no",
            *(WORDS[cell] for cell in (row.waiting, row.sent, row.message)),
        ]
        for ending, row in TABLE.items()
    }
    assert printed == expected and list(printed) == [ending.name for ending in Ending]


@pytest.mark.parametrize("ending", Ending)
def test_an_error_is_made_from_its_row(ending: Ending) -> None:
    row = TABLE[ending]
    made = error(ending, "text", hint="hint")
    for sent in (False, True):
        mine = for_call(made, sent, node="b", operation="request")
        assert type(mine) is row.kind and mine is not made and str(mine) == "text (hint)"
        assert (mine.node, mine.operation, mine.retriable) == ("b", "request", row.retriable)
        assert mine.indeterminate is bool(row.sent if sent else row.waiting)
        assert mine.ending == ending.name
        for twin in (copy.copy(mine), pickle.loads(pickle.dumps(mine))):
            assert twin.__dict__ == mine.__dict__ and twin.args == mine.args
    assert made.node is None and not made.indeterminate  # as it was: it is many calls'


def test_what_was_sent_is_never_without_effect() -> None:
    """By hand, against a slip in the table: whatever ended it, a handler may have run."""
    assert all(row.sent is True and row.message is not False and not row.waiting for row in TABLE.values())
    assert {row.kind for row in TABLE.values() if not row.retriable} == {
        exceptions.NotRunningError,
        exceptions.ServiceCrashed,
        exceptions.OperationCancelled,
    }


def test_an_error_that_says_of_itself_what_ran_is_left_alone() -> None:
    busy = exceptions.PeerBusy("busy")
    assert for_call(busy, True, node="b").indeterminate is False
    remote = exceptions.RemoteError("x", kind="K", text="t", node="c", indeterminate=True)
    mine = for_call(remote, False, node="b", operation="send_file")
    assert isinstance(mine, exceptions.RemoteError)
    assert (mine.indeterminate, mine.node, mine.operation, mine.type) == (True, "c", "send_file", "K")


@pytest.mark.parametrize("sent", [False, True])
def test_the_cache_has_its_own_two(sent: bool) -> None:
    made = cache_error(sent, "text", node="b")
    assert type(made) is CACHE[sent].kind
    assert (made.indeterminate, made.retriable, made.node) == (sent, not sent, "b")


def test_a_crash_keeps_its_cause() -> None:
    cause = ValueError("boom")
    assert for_call(error(Ending.CRASHED, "died", cause=cause), True).__cause__ is cause


def test_an_error_is_named_by_the_call_unless_it_has_a_name() -> None:
    @named("outer")
    def call(made: BaseException | None) -> int:
        """Raise it."""
        if made is not None:
            raise made
        return 1

    for made, name in ((exceptions.QueueFull("x"), "outer"), (exceptions.QueueFull("x", operation="inner"), "inner")):
        with pytest.raises(exceptions.QueueFull) as caught:
            call(made)
        assert caught.value is made and made.operation == name
    with pytest.raises(ValueError, match="plain"):
        call(ValueError("plain"))
    assert call(None) == 1 and (call.__name__, call.__doc__) == ("call", "Raise it.")
