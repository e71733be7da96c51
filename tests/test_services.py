"""The registry of services as one agent sees it, without a network: registered, found, checked, withdrawn."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._wire.values import DEFAULT, encode_value
from mycorrizal.config import RESERVED
from mycorrizal.exceptions import ConfigError, NotRunningError
from mycorrizal.services import Services
from tests._runtime.shared.alone import Alone, sharing_of, watching_of


@pytest.fixture
def alone() -> Iterator[Alone]:
    one = Alone()
    yield one
    one.close()


@pytest.fixture
def services(alone: Alone) -> Iterator[Services]:
    sharing = sharing_of(alone)
    made = Services(sharing, watching_of(alone, sharing), DEFAULT, "me")
    yield made
    made.close()


def ids(services: Services, name: str | None = None, *, healthy: bool | None = True) -> list[str]:
    return [service.id for service in services.find(name, healthy=healthy)]


def closed(check: object) -> bool:
    return bool(getattr(check, "_over").is_set())  # noqa: B009 - private, and typed as object


@pytest.mark.parametrize("port", [0, 65536, True, 1.5, "80"])
def test_what_is_no_port(services: Services, port: object) -> None:
    with pytest.raises(ConfigError, match="port"):
        services.register("api", port=port)  # type: ignore[arg-type]
    assert ids(services) == []
    for good in (1, 65535):
        assert services.register("api", port=good).name == "api"
    assert [service.port for service in services.find()] == [65535]


def test_found_by_name_and_by_health_and_never_what_is_hidden(services: Services, alone: Alone) -> None:
    services.register("api", port=1)
    services.register("api", port=2, service_id="api-2").tell(False)
    services.register("web", check=lambda: True).stop_checking()
    alone.mailbox.run()
    hidden = encode_value(["x", None, encode_value(None).pack(), True, ""]).pack()
    services._sharing.call(
        lambda now: services._sharing.replica.register(RESERVED + "cache/x", hidden, now), Deadline(None), "x"
    )
    assert ids(services) == ["api", "web"]
    assert ids(services, "api") == ["api"]
    assert ids(services, healthy=False) == ["api-2"]
    assert ids(services, healthy=None) == ["api", "api-2", "web"]


def test_a_registration_that_fails_leaves_what_was_before(services: Services, alone: Alone) -> None:
    first = services.register("api", port=1, check=lambda: True)
    alone.end()
    for name in ("api", "web"):
        with pytest.raises(NotRunningError):
            services.register(name, port=2, check=lambda: True)
    assert services._registered == {"api": first}
    assert not closed(first.check)


def test_a_check_ends_when_it_is_replaced_withdrawn_or_the_agent_ends(services: Services) -> None:
    made = [services.register("api", port=number, check=lambda: True) for number in (1, 2)]
    assert [closed(one.check) for one in made] == [True, False]
    services.deregister("api")
    assert closed(made[1].check) and ids(services, healthy=None) == []
    services.deregister("api")  # nothing happens
    last = services.register("web", check=lambda: True)
    services.close()
    assert closed(last.check)
    assert closed(services.register("late", check=lambda: True).check)


def test_who_was_replaced_has_nothing_to_say(services: Services, alone: Alone) -> None:
    old = services.register("api", port=1)
    new = services.register("api", port=2)
    old.tell(False)
    alone.mailbox.run()
    assert [(service.port, service.healthy) for service in services.find(healthy=None)] == [(2, True)]
    new.tell(False)
    alone.mailbox.run()
    assert ids(services) == [] and ids(services, healthy=False) == ["api"]


def test_what_is_said_often_is_queued_once_and_what_was_said_last_holds(services: Services, alone: Alone) -> None:
    one = services.register("api")
    for _ in range(3):
        for healthy in (False, True, False):
            one.tell(healthy)
        assert len(alone.mailbox) == 1
        alone.mailbox.run()
        assert ids(services) == []
        one.tell(True)
        alone.mailbox.run()
        assert ids(services) == ["api"]


def test_what_was_said_while_another_one_was_to_replace_it_is_heard(
    services: Services, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = services.register("api", port=1)

    def announce(*_: object) -> None:
        one.tell(False)
        alone.mailbox.run()  # not its business any more, so far
        raise NotRunningError("it was not told")

    monkeypatch.setattr(services, "_announce", announce)
    with pytest.raises(NotRunningError):
        services.register("api", port=2)
    alone.mailbox.run()
    assert [(service.port, service.healthy) for service in services.find(healthy=None)] == [(1, False)]


def test_after_the_end_a_check_says_nothing_and_a_block_ends_quietly(services: Services, alone: Alone) -> None:
    with services.register("api", check=lambda: True) as registration:
        alone.end()
        registration.tell(False)
        with pytest.raises(NotRunningError):
            services.register("web")


def test_a_check_is_asked_before_its_service_is_announced(services: Services) -> None:
    asked: list[str] = []

    def check() -> bool:
        asked.append(threading.current_thread().name)
        return False

    services.register("api", check=check)
    assert asked == [threading.current_thread().name]
    assert ids(services, healthy=False) == ["api"]


def test_a_watch_hears_of_what_is_registered_and_withdrawn(services: Services, alone: Alone) -> None:
    stream = services.watch("api")
    services.register("api")
    services.register("web")
    services.deregister("api")
    services._sharing.pump(0.0)
    changes = [stream.get(0), stream.get(0)]
    assert [getattr(change, "kind", None) for change in changes] == ["added", "removed"]
    assert len(stream) == 0
