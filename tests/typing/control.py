"""How the control plane's client is used, as mypy sees it."""

from __future__ import annotations

from typing import Any

import mycorrizal
from mycorrizal import ControlClient, ControlError, ControlEvent
from mycorrizal.control import CODES, COMMANDS, ControlEvents, Controlled


def ask(endpoint: str) -> Any:
    with ControlClient(endpoint, timeout=3) as client:
        try:
            client.call("send", node="bob", value={"x": 1}, timeout=None)
        except ControlError as error:
            code: str = error.code
            assert code in CODES
        with client.events(["event.user."], timeout=1.0) as events:
            return follow(events)


def controlled(agent: mycorrizal.Agent) -> Controlled:
    return agent


def follow(events: ControlEvents) -> list[tuple[str, int, dict[str, Any]]]:
    event: mycorrizal.ControlEvent = events.get(timeout=1)
    assert event.lost == 0 and "ping" in COMMANDS
    return [told(event), *(told(event) for event in events)]


def told(event: ControlEvent) -> tuple[str, int, dict[str, Any]]:
    return event.topic, event.topic_sequence, event.value
