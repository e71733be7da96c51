"""Expressions of tag filters: Go's syntax, in bounded time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mycorrizal._serf import patterns
from mycorrizal._serf.patterns import Pattern
from mycorrizal.exceptions import ConfigError

SAME_IN_PYTHON = [
    ("web", "web1"), ("^web$", "web1"), ("^web$", "web"), ("we.", "web"), ("a|b", "xb"), ("^(a|b)$", "ab"), ("", "x"),
    ("a*", ""), ("^a+$", "aaa"), ("^a+$", ""), ("colou?r", "color"), ("^[a-c]+$", "abcab"), ("^[^a-c]+$", "xyz"),
    ("^[^a-c]+$", "xaz"), ("[]a]", "]"), ("[a-]", "-"), (r"\d{3}", "ab12"), (r"\d{3}", "ab123"), (r"^\d{2,3}$", "1234"),
    (r"^\d{2,}$", "12345"), (r"^\w+$", "a_1"), (r"\bweb\b", "a web b"), (r"\bweb\b", "aweb"), (r"\Bb", "ab"),
    (r"\.", "a.b"), (r"\.", "ab"), ("(?i)WEB", "web"), ("(?:ab)+c", "ababc"), ("^(?P<n>a)b", "ab"),
    ("a{,2}b", "a{,2}b"),
    ("^(a|ab)(c|bcd)$", "abcd"), ("^a*?b$", "aab"), (r"^\S+\s\S+$", "a b"), (r"\x41", "A"), ("(?s)a.b", "a\nb"),
    ("a.b", "a\nb"), ("(?m)^b$", "a\nb\nc"), ("^(a?){3}$", "aa"), ("^(a|b){2}$", "aba"), ("ü", "grün"),
    ("a||b", "c"), ("^(?:a*)*$", "aab"), ("^(?:a*)*$", "aaa"), ("^()$", ""), ("a{0}b", "b"), ("^a{0,2}$", "aaa"),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "text"), SAME_IN_PYTHON)
def test_the_same_as_in_python(expression: str, text: str) -> None:
    assert Pattern(expression).search(text) == bool(re.search(expression, text))


@pytest.mark.parametrize(
    ("expression", "text", "found"),
    [
        (r"^\Qa.b\E$", "a.b", True), (r"^\Qa.b\E$", "axb", False), ("^[[:alpha:]]+$", "abc", True),
        ("^[[:^alpha:]]+$", "123", True), (r"^\x{1F600}$", "\U0001f600", True), (r"a\z", "a\n", False),
        ("a$", "a\n", False), ("(?i:A)b", "ab", True), ("(?i:A)b", "aB", False), ("(?-i)a", "A", False),
        ("(?<n>a)", "a", True), (r"\w", "ü", False), ("(a(?i)b)c", "aBC", False), ("(?U)a+", "a", True),
    ],
)  # fmt: skip
def test_as_in_go(expression: str, text: str, found: bool) -> None:
    assert Pattern(expression).search(text) is found


@pytest.mark.parametrize(
    "expression",
    ["(", ")", "a)", "[", "[z-a]", "*", "a**", "a+*", r"\pL", "\\", r"\xZZ", "(?<>a)", "(?q)", "a{1001}", "[[:no:]]",
     "a{2,1}", "((a{100}){100}){100}", "(" * 60, r"\8", "(?P<a-b>c)", "[a-\\d]", r"\x{110000000}"],
)  # fmt: skip
def test_what_is_no_expression_is_an_error(expression: str) -> None:
    with pytest.raises(ConfigError, match="is no expression"):
        Pattern(expression)


@pytest.mark.parametrize("expression", ["^(a+)+$", "(a|a)*b", "^(a*)*(a*)*c", "^" + "a*" * 100 + "b", "(.*){100}x"])
def test_no_expression_takes_long(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0
    takes = patterns._Step.takes

    def counted(step: patterns._Step, char: str) -> bool:
        nonlocal taken
        taken += 1
        return takes(step, char)

    monkeypatch.setattr(patterns._Step, "takes", counted)
    assert not Pattern(expression).search("a" * 400 + "!")
    assert taken <= 401 * patterns.MAX_PROGRAM


def test_a_list_of_names_as_long_as_a_query_is_no_problem() -> None:
    names = "|".join(f"a-name-of-a-node-{number:03}" for number in range(48))
    assert len(names) > 1000
    assert Pattern(f"^({names})$").search("a-name-of-a-node-047")
    assert not Pattern(f"^({names})$").search("a-name-of-a-node-048")


@settings(max_examples=300, deadline=None)
@given(st.text("ab()|*+?{}[]^$.\\-,12:dw", max_size=12), st.text("ab1\n-", max_size=8))
def test_any_text_is_an_expression_or_none(expression: str, text: str) -> None:
    try:
        found = Pattern(expression).search(text)
    except ConfigError:
        return
    if re.search(r"\\|\[|\+\+|\?\+|\*\+|}\+|\?\?", expression):
        return  # Python reads these in another way
    try:
        python = re.compile(expression.replace("$", r"\Z").replace("{,", r"\{,"))
    except re.error:
        return  # Go takes some that Python refuses
    assert found == bool(python.search(text))
