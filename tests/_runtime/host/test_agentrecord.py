"""What an agent tells the other programs of its user: checked when it is made, and when it is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mycorrizal._runtime.host.agentrecord import RECORD_MAX_BYTES, AgentRecord
from mycorrizal.exceptions import ConfigError


def record(**changes: Any) -> AgentRecord:
    return AgentRecord(**{"name": "me", "cluster": "c", "pid": 7, "host": "127.0.0.1", "port": 7946, **changes})


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("port", [1, 65535], [0, 65536, True, "1", 1.0, None]),
        ("quic_port", [None, 1, 65535], [0, 65536, True, "1"]),
        ("pid", [1, 1 << 31], [0, -1, True, (1 << 31) + 1]),
        ("host", ["h", "h" * 1024], ["", "h" * 1025, 7]),
        ("control", [None, "ipc:///x"], ["x" * 1025, 7]),
        ("events", [None, "ipc:///x"], ["x" * 1025, 7]),
        ("boot", ["", "0af9"], ["0AF9", "xyz", 7]),
        ("started", [0, 1.8e9], [-1, 1e12, True, "1"]),
    ],
)
def test_what_a_field_may_be(field: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        one = record(**{field: value})
        assert getattr(one, field) == value and AgentRecord.unpack(one.pack()) == one
    for value in bad:
        with pytest.raises(ConfigError) as caught:
            record(**{field: value})
        assert field in str(caught.value)


def test_what_is_read_is_bounded_and_need_be_no_record() -> None:
    padded = record().pack()[:-1] + b', "new": "' + b"x" * RECORD_MAX_BYTES
    fits = padded[: RECORD_MAX_BYTES - 2] + b'"}'
    assert len(fits) == RECORD_MAX_BYTES and AgentRecord.unpack(fits) == record()
    deep = b"[" * 2000
    for data in (fits + b" ", deep, b"[]", b"{}", b"\xff", json.dumps({"name": "me"}).encode()):
        with pytest.raises(ValueError, match="."):
            AgentRecord.unpack(data)


def test_what_is_too_long_to_be_read_is_not_written() -> None:
    text = "\u20ac" * 1024
    with pytest.raises(ConfigError, match="bytes"):
        record(host=text).pack()
