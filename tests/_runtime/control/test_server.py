"""The control plane over real sockets: commands, events, clients that misbehave, and the end."""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
import zmq

from mycorrizal import (
    BindError,
    ConfigError,
    ControlError,
    NotRunningError,
    OperationTimeout,
    PeerUnreachable,
    ReentrantCallError,
    ResourcesExhausted,
)
from mycorrizal._control.messages import encode_request
from mycorrizal._runtime.control import client as control_client
from mycorrizal._runtime.control import server as zeromq
from mycorrizal._runtime.control.endpoints import Endpoint, reachable
from mycorrizal._runtime.control.server import ControlService
from mycorrizal._runtime.threads import reentry
from mycorrizal.control import ControlClient
from tests._control.fake import FakeAgent

from .raw_control import Raw

# -- commands -----------------------------------------------------------------------------


def test_command_is_carried_out(client: ControlClient, agent: FakeAgent) -> None:
    assert client.call("ping") == {"name": "alice", "cluster": "default", "version": "9", "protocol": 1}
    assert client.call("info")["commands"].startswith("ipc:///")
    client.call("send", node="bob", value={"x": b"\0" * 5000}, timeout=2)
    (call,) = agent.calls
    assert call[:3] == ("send", "bob", {"x": b"\0" * 5000})
    assert 1.0 < call[3] <= 2.0  # what the way here took is taken off


def test_socket_files_are_private(plane: ControlService) -> None:
    for endpoint in (plane.commands, plane.events):
        assert os.stat(endpoint.removeprefix("ipc://")).st_mode & 0o777 == 0o600


def test_error_of_a_command_is_raised_with_its_code(client: ControlClient, plane: ControlService) -> None:
    with pytest.raises(ControlError, match="has no handler") as caught:
        client.call("request", node="bob", name="unknown")
    assert (caught.value.code, caught.value.operation) == ("remote", "request")
    with pytest.raises(ControlError) as caught:
        client.call("wait", members=99, timeout=1)
    assert caught.value.code == "timeout" and caught.value.retriable
    assert client.call("ping")


def test_result_that_cannot_be_sent_is_an_error_reply(client: ControlClient, agent: FakeAgent) -> None:
    agent.handlers["odd"] = lambda value: object()
    with pytest.raises(ControlError, match="object cannot be sent"):
        client.call("request", node="bob", name="odd")
    agent.handlers["big"] = lambda value: bytes(5 << 20)
    with pytest.raises(ControlError) as caught:
        client.call("request", node="bob", name="big")
    assert caught.value.code == "too_large"


def test_call_ends_when_the_agent_does(
    plane: ControlService, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_client, "LOOK_SECONDS", 0.1)
    with ControlClient(plane.commands) as client:
        client.call("ping")
        stopper = threading.Thread(target=plane.close, args=(1,))
        stopper.start()
        with pytest.raises(PeerUnreachable) as caught:
            client.call("request", node="bob", name="wait", timeout=60)
        stopper.join()
    assert caught.value.indeterminate or "no agent answers" in str(caught.value)


def test_several_threads_share_a_client(client: ControlClient) -> None:
    results: list[Any] = []

    def ask(number: int) -> None:
        results.append(client.call("request", node="bob", name="echo", value=number) == number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [True] * 8


def test_commands_that_wait_hold_up_nobody(client: ControlClient, agent: FakeAgent, raw: Callable[..., Raw]) -> None:
    busy = raw()
    for number in range(10):
        busy.send(encode_request(number, "request", {"node": "bob", "name": "wait", "timeout": 30}))
    assert client.call("ping")  # more of them wait than there are workers
    agent.gate.set()
    assert {busy.reply()["id"] for _ in range(10)} == set(range(10))


def test_req_socket_is_answered_too(raw: Callable[..., Raw]) -> None:
    reply = raw(zmq.REQ).ask(cbor2.dumps({"id": "a", "command": "ping"}))
    assert reply["ok"] and reply["id"] == "a"


def test_command_that_does_not_end_is_answered_for(
    plane: ControlService, agent: FakeAgent, raw: Callable[..., Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeromq, "GRACE", 0.0)
    reply = raw().ask(encode_request(1, "request", {"node": "bob", "name": "wait", "timeout": 0.1}))
    assert reply["error"]["code"] == "timeout" and reply["error"]["indeterminate"]
    assert plane.metrics()["control.timeouts"] == 1
    agent.gate.set()


# -- events -----------------------------------------------------------------------------------


def test_events_are_told_in_order_and_numbered(client: ControlClient, agent: FakeAgent) -> None:
    with client.events() as events:
        agent.tell_join("carol")
        agent.broadcast("deploy", {"v": 1})
        agent.tell_join("dave")
        found = [events.get(10) for _ in range(3)]
    assert [event.topic for event in found] == ["event.member_joined", "event.user.deploy", "event.member_joined"]
    assert [event.sequence for event in found] == [1, 2, 3]
    assert [event.topic_sequence for event in found] == [1, 1, 2]
    assert found[0].value["node"]["name"] == "carol" and found[0].value["node"]["quic_port"] == 9000
    assert found[1].value == {"topic": "deploy", "value": {"v": 1}, "sender": "alice", "number": 1}
    assert {event.publisher for event in found} == {agent.boot.hex()}


def test_only_what_was_subscribed_to_comes(client: ControlClient, agent: FakeAgent) -> None:
    with client.events(["event.user.a", "event.user.c"]) as events:
        for topic in ("a", "b", "c"):
            agent.broadcast(topic)
        assert [events.get(10).topic for _ in range(2)] == ["event.user.a", "event.user.c"]
        with pytest.raises(OperationTimeout):
            events.get(0)


def test_loss_is_noticed_per_topic(
    client: ControlClient, plane: ControlService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client.events() as events:
        plane.publish("event.x", {})
        plane.publish("event.y", {})
        monkeypatch.setattr(plane._mailbox, "_limit", 0)
        assert not plane.publish("event.x", {})
        monkeypatch.undo()
        plane.publish("event.y", {})
        plane.publish("event.x", {})
        found = [events.get(10) for _ in range(4)]
    assert [(event.topic, event.lost) for event in found] == [
        ("event.x", 0),
        ("event.y", 0),
        ("event.y", 0),
        ("event.x", 1),
    ]
    assert plane.metrics()["control.events_dropped"] == 1


def test_publisher_outruns_a_slow_subscriber_without_waiting(client: ControlClient, plane: ControlService) -> None:
    with client.events() as events:
        for _ in range(20_000):
            plane.publish("event.flood", {"fill": "x" * 1000})
        assert client.call("ping")
        plane.publish("event.flood", {})
        first = events.get(10)
        assert first.topic_sequence == 1


def test_topics_that_are_numbered_are_bounded(plane: ControlService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeromq, "TOPICS_MAX", 3)
    for number in range(10):
        plane.publish(f"event.{number}", {})
    assert list(plane._topics) == ["event.7", "event.8", "event.9"]


def test_reader_ends_when_another_thread_closes_its_stream(client: ControlClient) -> None:
    events = client.events()
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.extend(events))
    reader.start()
    events.close()
    reader.join(10)
    assert not reader.is_alive() and seen == []
    events.close()
    with pytest.raises(NotRunningError):
        events.get(0)


def test_agent_that_ends_ends_the_events(agent: FakeAgent, plane: ControlService) -> None:
    agent.stream.close()
    assert plane._follower is not None
    plane._follower._thread.join(10)
    assert not plane._follower.alive


# -- beginning and end --------------------------------------------------------------------------


def test_address_that_is_taken_is_the_callers_error_and_leaves_nothing(agent: FakeAgent, tmp_path: Path) -> None:
    (tmp_path / "e").write_text("precious")
    with pytest.raises(BindError, match="is no socket"):
        ControlService(agent, commands=f"ipc://{tmp_path}/c", events=f"ipc://{tmp_path}/e")
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def test_what_the_thread_lacks_is_the_callers_error_too(
    agent: FakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(selectors, "DefaultSelector", refuse)
    with pytest.raises(ResourcesExhausted, match="Too many open files.*ulimit -n"):
        ControlService(agent, commands=f"ipc://{tmp_path}/c", events=f"ipc://{tmp_path}/e")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:5000", "tcp://[::1]:0", "inproc://x"])
def test_what_other_users_could_reach_is_refused_on_both_sides(agent: FakeAgent, tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="is not ipc:///path"):
        ControlService(agent, commands=f"ipc://{tmp_path}/c", events=address)
    with pytest.raises(ConfigError, match="is not ipc:///path"):
        ControlClient(address)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("plane")
def test_shutdown_is_answered_before_the_agent_ends(client: ControlClient, agent: FakeAgent) -> None:
    client.call("shutdown", timeout=1)
    assert agent.closed.wait(10)
    assert agent.calls == [("leave",)]


@pytest.mark.usefixtures("plane")
def test_shutdown_without_a_thread_fails_and_the_plane_goes_on(
    client: ControlClient, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.call("ping")  # its worker has its thread

    def refuse(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ControlError, match="ulimit -u"):
            client.call("shutdown", timeout=1)
    assert client.call("ping") and not agent.closed.is_set()
    client.call("shutdown", timeout=1)
    assert agent.closed.wait(10)


def test_nobody_there_is_said_at_once(tmp_path: Path) -> None:
    with ControlClient(f"ipc://{tmp_path}/c") as client, pytest.raises(PeerUnreachable, match="no agent answers"):
        client.call("ping")


def test_closed_plane_and_closed_client(agent: FakeAgent, tmp_path: Path) -> None:
    plane = ControlService(agent, commands=f"ipc://{tmp_path}/c", events=f"ipc://{tmp_path}/e", follow=False)
    client = ControlClient(plane.commands)
    assert client.call("ping")
    plane.close()
    plane.close()
    assert not plane.publish("event.x", {})
    with pytest.raises((PeerUnreachable, OperationTimeout)):
        client.call("send", node="bob", value=1, timeout=0)
    client.close()
    client.close()
    with pytest.raises(NotRunningError):
        client.call("ping")


def test_close_ends_calls_that_wait(client: ControlClient, agent: FakeAgent) -> None:
    errors: list[BaseException] = []

    def call() -> None:
        try:
            client.call("request", node="bob", name="wait", timeout=30)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not agent.calls:
        pass
    client.close()
    thread.join(5)
    assert [type(error) for error in errors] == [NotRunningError]


def test_plane_closes_in_time_beside_a_command_that_does_not(agent: FakeAgent, tmp_path: Path) -> None:
    plane = ControlService(agent, commands=f"ipc://{tmp_path}/c", events=f"ipc://{tmp_path}/e")
    one = Raw(plane.commands)
    one.send(encode_request(1, "request", {"node": "bob", "name": "wait", "timeout": 30}))
    while not agent.calls:
        pass
    plane.close(0.5)
    assert not plane._service.alive
    agent.gate.set()
    one.close()


def test_crash_of_the_thread_is_kept(
    agent: FakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plane = ControlService(agent, commands=f"ipc://{tmp_path}/c", events=f"ipc://{tmp_path}/e", follow=False)
    monkeypatch.setattr(plane, "_hello", lambda topic: 1 // 0)
    with ControlClient(plane.commands, timeout=0.2) as client, pytest.raises(OperationTimeout):
        client.events(timeout=0.2)
    plane._service._thread.join(10)
    assert isinstance(plane.crashed, ZeroDivisionError)
    assert not plane.publish("event.x", {})
    plane.close()
    assert "thread mycorrizal-control died" in caplog.text


def test_ctrl_c_ends_a_call(client: ControlClient, agent: FakeAgent) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def interrupt(value: object) -> None:
        signal.pthread_kill(main, signal.SIGINT)
        agent.gate.wait(20)

    agent.handlers["interrupt"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        client.call("request", node="bob", name="interrupt", timeout=60)
    agent.gate.set()
    assert client.call("ping")


def test_threads_that_must_not_wait_are_refused(client: ControlClient) -> None:
    with reentry.owner("mycorrizal-gossip"), pytest.raises(ReentrantCallError):
        client.call("ping")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_child_neither_answers_nor_hangs(client: ControlClient, plane: ControlService) -> None:
    assert client.call("ping")
    child = os.fork()
    if not child:
        signal.alarm(10)
        code = 1
        try:
            refused = 0
            try:
                client.call("ping")
            except Exception as error:
                refused += type(error).__name__ == "ForkedProcessError"
            refused += not plane.publish("event.x", {})
            plane.close()
            client.close()
            listening = [fd for fd in os.listdir("/proc/self/fd") if _is_listener(int(fd))]
            code = 0 if refused == 2 and not listening else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.call("ping")


def _is_listener(number: int) -> bool:
    try:
        one = socket.socket(fileno=os.dup(number))
    except OSError:
        return False
    with one:
        return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


@pytest.mark.usefixtures("need_root")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_another_user_cannot_reach_it(agent: FakeAgent) -> None:
    """The files refuse by themselves, even in a directory that all may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        plane = ControlService(agent, commands=f"ipc://{folder}/c", events=f"ipc://{folder}/e")
        child = os.fork()
        if not child:
            signal.alarm(10)
            code = 1
            try:
                os.setgid(65534)
                os.setuid(65534)
                code = 0 if _refused(plane.commands) and _refused(plane.events) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        plane.close()


def _refused(endpoint: str) -> bool:
    try:
        reachable(Endpoint.parse(endpoint))
    except PermissionError:
        return True
    return False
