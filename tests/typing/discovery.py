"""How discovery and an agent's settings are used, for the type checker: this file is never run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_type

from mycorrizal import NameInUse
from mycorrizal.agentconfig import AgentSettings, parse_key
from mycorrizal.discovery import AgentRecord, Discovery, Finder


class Registry:
    """A scheme of one's own: an entry point of the group mycorrizal.discovery."""

    def __init__(self, location: str) -> None:
        self.location = location

    def find(self, cluster: str, timeout: float) -> list[str]:
        return [f"{cluster}.{self.location}"]


def finding(record: AgentRecord) -> None:
    """Ask all seeds, then see which failed."""
    finder: Finder = Registry("example.org")
    assert_type(finder.find("c", 1.0), list[str])
    with Discovery("c", ["10.0.0.5", "local://"], port=7946) as discovery:
        assert_type(discovery.addresses(timeout=5.0), list[str])
        assert_type(discovery.failures, Mapping[str, Exception])
        discovery.advertise(record, timeout=None)
    assert_type(record.entry, str)
    assert_type(record.quic_port, int | None)


def settings() -> None:
    """A value; keys are bytes or base64."""
    found = AgentSettings(name="a", key=parse_key("AAAAAAAAAAAAAAAAAAAAAA=="), tags={"zone": "a"})
    assert_type(found.advertised, tuple[str, int | None] | None)
    assert_type(found.sources, Mapping[str, str])


def name_is_taken(error: NameInUse) -> int | None:
    """The process that has it."""
    return error.pid
