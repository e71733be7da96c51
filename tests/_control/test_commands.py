"""The table of commands: defaults, and what is refused with which words."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from mycorrizal import ControlError
from mycorrizal._control.arguments import KINDS
from mycorrizal._control.commands import COMMANDS, checked, described


def test_defaults_are_filled_in() -> None:
    command, arguments = checked("request", {"node": "bob", "name": "score"})
    assert command.name == "request" and command.waits
    assert arguments == {"node": "bob", "name": "score", "value": None, "timeout": 10.0}


def test_null_stands_for_a_default_but_is_a_value_where_any_value_may_stand() -> None:
    assert checked("services.list", {"name": None})[1] == {"name": None, "healthy": False}
    assert checked("send", {"node": "bob", "value": None})[1]["value"] is None


def test_key_is_taken_as_bytes_or_base64() -> None:
    raw = bytes(range(32))
    assert checked("keys.add", {"key": raw})[1]["key"] == raw
    assert checked("keys.add", {"key": base64.b64encode(raw).decode() + "\n"})[1]["key"] == raw


@pytest.mark.parametrize(
    ("command", "arguments", "code", "text"),
    [
        ("dance", {}, "unknown_command", "there is no command 'dance'"),
        ("send", {"node": "bob"}, "bad_arguments", "send: value is missing"),
        ("send", {"node": "", "value": 1}, "bad_arguments", "node must be a text of 1 to 255 bytes, not this str"),
        ("send", {"node": "b" * 256, "value": 1}, "bad_arguments", "node must be"),
        ("send", {"node": None, "value": 1}, "bad_arguments", "node must be"),
        ("ping", {"x" * 100: 1}, "bad_arguments", "it takes: none"),
        ("wait", {"members": True}, "bad_arguments", "members must be a whole number"),
        ("wait", {"members": 0}, "bad_arguments", "members must be a whole number"),
        ("wait", {"members": 1, "timeout": -1}, "bad_arguments", "timeout must be a number of seconds"),
        ("wait", {"members": 1, "timeout": float("nan")}, "bad_arguments", "timeout must be"),
        ("wait", {"members": 1, "timeout": 1e9}, "bad_arguments", "timeout must be"),
        ("services.register", {"name": "web", "port": 70000}, "bad_arguments", "port must be"),
        ("services.list", {"healthy": 1}, "bad_arguments", "healthy must be true or false"),
        ("join", {"addresses": []}, "bad_arguments", "addresses must be a list of texts"),
        ("join", {"addresses": "10.0.0.1"}, "bad_arguments", "addresses must be a list of texts"),
        ("update_tags", {"tags": {"a": 1}}, "bad_arguments", "tags must be a map from text to text"),
        ("update_tags", {"tags": {"a": "b"} | {str(n): "" for n in range(2000)}}, "bad_arguments", "tags must be"),
    ],
)
def test_what_does_not_fit_is_refused(command: str, arguments: dict[str, Any], code: str, text: str) -> None:
    with pytest.raises(ControlError, match=text) as caught:
        checked(command, arguments)
    assert caught.value.code == code


def test_refusal_never_repeats_a_key() -> None:
    secret = "c2VjcmV0IHNlY3JldCBzZWNyZXQ"
    with pytest.raises(ControlError) as caught:
        checked("keys.add", {"key": secret})
    assert secret not in str(caught.value)


def test_table_describes_itself_in_plain_values() -> None:
    table = {entry["command"]: entry for entry in described()}
    assert set(table) == set(COMMANDS)
    assert table["wait"]["arguments"] == [
        {"name": "members", "kind": "count", "required": True},
        {"name": "timeout", "kind": "seconds", "required": False, "default": 10.0},
    ]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("text", ["a", "x" * 255], ["", "x" * 256, "\u20ac" * 86, 7]),
        ("cache_key", ["a", "x" * 1024], ["", "x" * 1025, "\u20ac" * 342, 7]),
        ("texts", [["a"], ["a"] * 1024], [[], ["a"] * 1025, [""], [7], "a"]),
        ("tags", [{}, {"a": "b"}], [{"a": 1}, {1: "a"}, dict.fromkeys(map(str, range(1025)), "")]),
        ("seconds", [0, 3600.0], [-1, 3600.1, True, "1"]),
        ("ttl", [0, 1e9], [-1, 1.1e9, True, "1"]),
        ("count", [1, 1_000_000], [0, 1_000_001, True, 1.0]),
        ("port", [1, 65535], [0, 65536, True]),
        ("key", [b"k" * 16, b"k" * 32], [b"k" * 17, base64.b64encode(bytes(16)).decode().replace("AA", "?AA", 1), 7]),
    ],
)
def test_the_bounds_of_what_may_stand_in_an_argument(kind: str, good: list[object], bad: list[object]) -> None:
    check = KINDS[kind].check
    for value in good:
        assert check(value) == value
    for value in bad:
        with pytest.raises(ValueError, match="."):
            check(value)
