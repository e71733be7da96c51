"""Commands carried out on an agent, and errors turned into codes."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from mycorrizal import (
    ConfigError,
    ControlError,
    ForkedProcessError,
    NotRunningError,
    OperationTimeout,
    PeerBusy,
    PeerUnreachable,
    QueueFull,
    RemoteError,
    Service,
    ServiceCrashed,
    UnknownHandler,
    ValueDecodeError,
    ValueEncodeError,
    ValueTooLarge,
)
from mycorrizal._control.answers import CODES, Desk, code_of
from mycorrizal._control.commands import REGISTRATIONS_MAX, checked, fingerprint

from .fake import FakeAgent

FACTS = {"version": "1.2", "pid": 17, "commands": "ipc:///c", "events": "ipc:///e"}


class Asked:
    """A desk, its agent, and a short way to ask."""

    def __init__(self) -> None:
        self.agent = FakeAgent()
        self.desk = Desk(self.agent, FACTS, lambda: 5)

    def __call__(self, command: str, **arguments: Any) -> Any:
        return self.desk.answer(command, checked(command, arguments)[1])


@pytest.fixture
def ask() -> Asked:
    return Asked()


def test_who_is_there(ask: Asked) -> None:
    assert ask("ping") == {"name": "alice", "cluster": "default", "version": "1.2", "protocol": 1}
    info = ask("info")
    assert (info["boot"], info["host"], info["port"], info["pid"]) == ("0001020304050607", "127.0.0.1", 7946, 17)
    assert ask("members") == [
        {
            **{"name": "alice", "host": "127.0.0.1", "port": 7946, "quic_port": 9000, "tags": {"role": "web"}},
            **{"state": "alive", "boot": "01" * 8, "since": None},
        },
        {
            **{"name": "bob", "host": "127.0.0.1", "port": 7946, "quic_port": 9000, "tags": {}},
            **{"state": "alive", "boot": None, "since": None},
        },
    ]
    assert ask("health") == {"score": 0, "members": 2, "problems": []}
    assert ask("metrics") == {"events.lost": 0}
    assert ask("peers") == []
    assert ask("commands")[0]["command"] == "ping"
    assert ask("subscribe") == {
        **{"endpoint": "ipc:///e", "topics": ["event."], "publisher": "0001020304050607", "sequence": 5, "protocol": 1}
    }


def test_what_waits_gets_its_timeout(ask: Asked) -> None:
    ask("send", node="bob", value={"x": 1}, timeout=2)
    assert ask("request", node="bob", name="echo", value=[1], timeout=3) == [1]
    assert ask.agent.calls == [("send", "bob", {"x": 1}, 2.0), ("request", "bob", "echo", [1], 3.0)]
    assert len(ask("wait", members=2)) == 2
    with pytest.raises(ControlError) as caught:
        ask("wait", members=3)
    assert caught.value.code == "timeout" and isinstance(caught.value.__cause__, OperationTimeout)


def test_a_setting_that_cannot_be_read_keeps_nobody_from_the_others(ask: Asked) -> None:
    ask("settings.set", key="a", value=1)
    ask.agent.settings.errors = {"bad": ValueDecodeError("why")}
    assert ask("settings.list") == {"a": 1, "bad": {"error": "ValueDecodeError", "text": "why"}}


def test_services(ask: Asked) -> None:
    ask("services.register", name="web", port=80, meta={"v": 1})
    ask("services.register", name="web", port=81)  # the same once more, changed
    ask("services.register", name="web", id="second", port=82)
    assert [(one["id"], one["port"]) for one in ask("services.list", name="web")] == [("web", 81), ("second", 82)]
    assert ask("services.list", name="db") == []
    ask("services.deregister", id="web")
    assert [one["id"] for one in ask("services.list")] == ["second"]
    with pytest.raises(ControlError) as caught:
        ask("services.deregister", id="web")
    assert caught.value.code == "not_found"


def test_service_of_the_program_is_left_alone(ask: Asked) -> None:
    ask.agent.services.register("web", port=80)
    with pytest.raises(ControlError, match="own program") as caught:
        ask("services.register", name="web", port=81)
    assert caught.value.code == "bad_arguments"
    with pytest.raises(ControlError):
        ask("services.deregister", id="web")
    assert [one["port"] for one in ask("services.list")] == [80]


def test_unhealthy_services_are_listed_unless_told_not_to(ask: Asked) -> None:
    ask.agent.services.all.append(Service("db", "bob", "127.0.0.1", 1, None, False, "db"))
    assert len(ask("services.list")) == 1
    assert ask("services.list", healthy=True) == []


def test_registrations_are_bounded(ask: Asked) -> None:
    for number in range(REGISTRATIONS_MAX):
        ask("services.register", name="web", id=str(number))
    with pytest.raises(ControlError) as caught:
        ask("services.register", name="web")
    assert caught.value.code == "busy"
    ask("services.register", name="web", id="0", port=80)


def test_settings(ask: Asked) -> None:
    ask("settings.set", key="limit", value=5)
    assert ask("settings.get", key="limit") == 5
    assert ask("settings.list") == {"limit": 5}
    ask("settings.delete", key="limit")
    for command in ("settings.get", "settings.delete"):
        with pytest.raises(ControlError) as caught:
            ask(command, key="limit")
        assert caught.value.code == "not_found"


def test_keys_answer_per_node_also_what_failed(ask: Asked) -> None:
    key = bytes(16)
    assert ask("keys.add", key=key) == {
        "alice": True,
        "bob": {"error": "OperationTimeout", "text": "no answer from bob"},
    }
    ask("keys.use", key=key)
    ask("keys.remove", key=key)
    assert ask.agent.keys.calls == [("add", key), ("use", key), ("remove", key)]
    assert ask("keys.list") == [fingerprint(bytes(16)), fingerprint(b"\1" * 16)]
    assert len({len(number) for number in ask("keys.list")}) == 1 and bytes(16).hex() not in ask("keys.list")


def test_the_agent_itself(ask: Asked) -> None:
    ask("update_tags", tags={"role": "db"})
    assert ask("broadcast", topic="deploy") == 1
    ask("join", addresses=["10.0.0.1", "10.0.0.9"])
    ask("leave")
    assert ask("shutdown") is None
    assert not ask.agent.closed.is_set()
    ask.desk.shutdown(leave=True, timeout=1)
    assert ask.agent.closed.is_set()
    assert [call[0] for call in ask.agent.calls] == ["update_tags", "join", "leave", "leave"]


def test_nobody_to_join_is_said(ask: Asked) -> None:
    with pytest.raises(ControlError, match="nobody there") as caught:
        ask("join", addresses=["10.0.0.9"])
    assert caught.value.code == "unreachable"


def test_agent_that_its_owner_dropped_is_gone() -> None:
    agent = FakeAgent()
    desk = Desk(weakref.proxy(agent), FACTS)
    assert desk.answer("ping", {})
    del agent
    with pytest.raises(ControlError) as caught:
        desk.answer("ping", {})
    assert caught.value.code == "not_running"


def test_agent_is_closed_even_if_it_cannot_leave(ask: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(self: FakeAgent, timeout: float | None = None) -> None:
        raise OperationTimeout("nobody heard")

    monkeypatch.setattr(FakeAgent, "leave", leave)
    with pytest.raises(OperationTimeout):
        ask.desk.shutdown(leave=True, timeout=1)
    assert ask.agent.closed.is_set()


def test_what_a_method_raises_is_told_and_chained(ask: Asked) -> None:
    ask.agent.handlers["bad"] = lambda value: 1 // 0
    with pytest.raises(ControlError, match="request: ZeroDivisionError") as caught:
        ask("request", node="bob", name="bad")
    assert caught.value.code == "failed"
    with pytest.raises(ControlError) as caught:
        ask("request", node="bob", name="unknown")
    assert caught.value.code == "remote"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OperationTimeout("x"), "timeout"),
        (PeerUnreachable("x"), "unreachable"),
        (PeerBusy("x"), "unreachable"),
        (RemoteError("x"), "remote"),
        (UnknownHandler("x"), "remote"),
        (QueueFull("x"), "busy"),
        (ValueTooLarge("x"), "too_large"),
        (ValueEncodeError("x"), "bad_arguments"),
        (ConfigError("key", "x"), "bad_arguments"),
        (NotRunningError("x"), "not_running"),
        (ForkedProcessError("x"), "not_running"),
        (ServiceCrashed("x"), "failed"),
        (OSError("x"), "failed"),
        (ControlError("busy", "x"), "busy"),
    ],
)
def test_code_of_each_error(error: Exception, code: str) -> None:
    assert code_of(error) == code
    assert code in CODES
