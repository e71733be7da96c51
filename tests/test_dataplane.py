"""The door of the data plane: what it takes, what it refuses, and what it says. Two planes in one process."""

from __future__ import annotations

import io
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from mycorrizal import (
    BindError,
    Codecs,
    ConfigError,
    DataConfig,
    DataPlane,
    Keyring,
    MycorrizalError,
    NotRunningError,
    OperationTimeout,
    PeerBusy,
    PeerUnreachable,
    RemoteError,
    Request,
    ResourcesExhausted,
    ValueDecodeError,
    ValueEncodeError,
    ValueTooLarge,
)
from mycorrizal.config import Config
from tests._runtime.local.meeting import assert_carrier, folder, meet
from tests.keys import WEAK, key_of

KEY = key_of("k")
PATIENCE = 10.0


@pytest.fixture(params=["quic", "host"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[DataPlane, DataPlane]]:
    with folder() as path, DataPlane("alice", key=KEY) as alice, DataPlane("bob", key=KEY) as bob:
        alice.add_peer("bob", bob.address)
        if request.param == "host":
            meet(path, alice, bob)
        yield alice, bob
        assert_carrier(request.param, alice, bob)


# -- opening ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"bind": "0.0.0.0"}, "address"),
        ({"peers": {"bob": ("10.0.0.5", 7947)}}, "address"),
        ({"peers": {"bob": ("localhost", 7947)}, "key": KEY}, "address"),
        ({"peers": {"bob": ("10.0.0.5", 0)}, "key": KEY}, "address"),
        ({"key": b"short"}, "16, 24 or 32"),
        ({"key": "text"}, "bytes"),
        ({"key": Keyring()}, "key"),
        ({"key": KEY, "certificates": ("a", "b", "c")}, "certificates"),
        ({"certificates": ("/nowhere.pem", "/nowhere.key", "/nowhere.ca")}, "the certificate"),
        ({"certificates": ("/nowhere.pem", "/nowhere.key")}, "certificates"),
        ({"certificates": "abc"}, "certificates"),
        ({"certificates": 5}, "certificates"),
        ({"certificates": (97, 98, 99)}, "certificates"),  # to open() these would be descriptors
        ({"certificates": (b"a", b"b", b"c")}, "certificates"),
        ({"certificates": ("a\0", "b", "c")}, "certificates"),
        ({"key": KEY, "port": 70_000}, "port"),
        ({"key": KEY, "port": "7947"}, "port"),
    ],
)
def test_settings_that_are_refused_say_which(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataPlane("alice", **settings)
    assert field in str(caught.value)


@pytest.mark.parametrize(("key", "why"), WEAK.values(), ids=WEAK)
def test_key_that_can_be_guessed_is_refused_unless_a_go_cluster_has_it(key: bytes, why: str) -> None:
    with pytest.raises(ConfigError, match=f"key: {why}.*mycorrizal keygen"):
        DataPlane("alice", key=key)
    ring = Keyring(primary=KEY)
    with DataPlane("alice", key=ring), pytest.raises(ConfigError, match=why):
        ring.add(key)
    with DataPlane("alice", key=Keyring.of(Config(name="x", wire="msgpack", secret_key=key))):
        pass


def test_plane_without_a_key_says_who_can_get_in(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mycorrizal.data"):
        for options in ({"bind": "0.0.0.0", "insecure": True}, {"insecure": True}, {}, {"key": KEY}):
            DataPlane("alice", **options).close()
    found = [(record.levelname, record.getMessage()) for record in caplog.records if "without a key" in record.msg]
    assert [level for level, _ in found] == ["WARNING", "INFO", "INFO"]
    assert "on 0.0.0.0 without a key: whoever reaches it can" in found[0][1]
    assert "on 127.0.0.1 without a key: every user of this host can" in found[1][1]


@pytest.mark.parametrize("name", ["", "a/b", "x" * 300, " a"])
def test_names_that_no_node_may_have(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        DataPlane(name)


def test_other_addresses_without_a_key_need_to_be_asked_for() -> None:
    with DataPlane("alice", bind="0.0.0.0", insecure=True) as plane:
        assert plane.port > 0


def test_port_in_use_is_a_bind_error() -> None:
    with DataPlane("alice") as plane, pytest.raises(BindError, match=str(plane.port)):
        DataPlane("bob", port=plane.port)


@pytest.mark.parametrize(
    "settings",
    [
        {"handlers": 0},
        {"idle_timeout": 0},
        {"spin": 1.0},
        {"spin": -0.001},
        {"spin": "0"},
        {"max_value": "1"},
        {"tracebacks": 1},
    ],
)
def test_config_checks_its_fields(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(**settings)
    assert caught.value.field == next(iter(settings))


def test_config_spin_is_none_off_or_a_short_time() -> None:
    assert DataConfig().spin is None
    assert [DataConfig(spin=spin).spin for spin in (None, 0, 0.001, 0.01)] == [None, 0, 0.001, 0.01]
    with pytest.raises(ConfigError, match="number of seconds"):
        DataConfig(idle_timeout=None)  # type: ignore[arg-type]


def test_config_replaces_and_knows_its_names() -> None:
    assert DataConfig().replace(handlers=2).handlers == 2
    with pytest.raises(ConfigError, match="no such setting"):
        DataConfig().replace(handler=2)


# -- calls --------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", ["quic"], indirect=True)  # an address is dialled by it: no record has one
def test_connect_learns_the_name(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    assert bob.connect(alice.address, timeout=PATIENCE) == "alice"
    bob.send("alice", 1, timeout=PATIENCE)
    assert alice.receive(PATIENCE).sender == "bob"


def test_connect_where_nobody_listens_is_refused_at_once(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, _ = pair
    with DataPlane("carol", key=KEY) as carol:
        address = carol.address
    with pytest.raises(PeerUnreachable, match="nothing listens"):
        alice.connect(address, timeout=PATIENCE)


def test_one_address_is_enough_for_both_directions(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    alice.send("bob", "over", timeout=PATIENCE)
    bob.send("alice", "and back", timeout=PATIENCE)
    assert alice.receive(PATIENCE).value == "and back"
    assert [peer.connections for peer in bob.peers()] == [1]


def test_unknown_peer_says_how_to_make_it_known(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, _ = pair
    with pytest.raises(PeerUnreachable, match="add_peer") as caught:
        alice.send("dave", 1)
    assert caught.value.node == "dave" and caught.value.operation == "send" and not caught.value.indeterminate


def test_what_a_handler_raises_arrives_with_type_and_text(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair

    @bob.on_request("fail")
    def fail(request: Request) -> None:
        raise KeyError("secret")

    with pytest.raises(RemoteError) as caught:
        alice.request("bob", "fail", timeout=PATIENCE)
    assert (caught.value.type, caught.value.text, caught.value.node) == ("KeyError", "'secret'", "bob")
    assert "Traceback" not in str(caught.value)


def test_a_handlers_traceback_is_logged_where_it_ran_and_seldom(
    pair: tuple[DataPlane, DataPlane], caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = pair

    @bob.on_request("fail")
    def fail(request: Request) -> None:
        raise KeyError("secret")

    for _ in range(5):
        with pytest.raises(RemoteError, match=r"bob: fail: KeyError: 'secret' \(the log of bob says more\)"):
            alice.request("bob", "fail", timeout=PATIENCE)
    (record,) = [record for record in caplog.records if "raised KeyError" in record.getMessage()]
    assert record.levelname == "WARNING" and record.exc_info is not None
    assert record.getMessage().startswith("bob: handler fail of requests raised")


def test_requests_are_served_when_no_thread_is_to_be_had_any_more(
    pair: tuple[DataPlane, DataPlane], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As once the main thread of a program has ended (CPython 3.12.1)."""
    alice, bob = pair
    bob.on_request("echo")(lambda request: request.value)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert [alice.request("bob", "echo", number, timeout=PATIENCE) for number in range(20)] == list(range(20))
    with pytest.raises(ResourcesExhausted, match="the interpreter is ending: call it before"):
        alice.request_async("bob", "echo")


def test_answer_that_cannot_be_sent_is_an_error_of_the_handler(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    bob.on_request("odd")(lambda request: object())
    with pytest.raises(RemoteError) as caught:
        alice.request("bob", "odd", timeout=PATIENCE)
    assert caught.value.type == "ValueEncodeError"


def test_value_that_cannot_be_sent_is_found_before_anything_is(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, _ = pair
    with pytest.raises(ValueEncodeError, match="a"):
        alice.send("bob", {"a": [1, object()]})
    assert alice.metrics()["connections"] == 0


def test_value_above_either_sides_limit_is_refused_by_name() -> None:
    small = DataConfig(max_value=1 << 16)
    with DataPlane("alice", key=KEY) as alice, DataPlane("bob", key=KEY, config=small) as bob:
        alice.add_peer("bob", bob.address)
        alice.on_request("large")(lambda request: bytes(1 << 17))
        with pytest.raises(ValueTooLarge, match="max_value"):
            alice.send("bob", bytes(1 << 17), timeout=PATIENCE)
        with pytest.raises(ValueTooLarge):
            alice.request("bob", "x", bytes(1 << 17), timeout=PATIENCE)
        with pytest.raises(ValueTooLarge):
            bob.send("alice", bytes(1 << 17))
        with pytest.raises(ValueTooLarge):
            bob.request("alice", "large", timeout=PATIENCE)
        bob.on_request("large")(lambda request: bytes(1 << 17))
        with pytest.raises(ValueTooLarge):
            alice.request("bob", "large", timeout=PATIENCE)
        bob.send("alice", "still there", timeout=PATIENCE)
        assert alice.receive(PATIENCE).value == "still there"


def test_busy_handlers_say_so_and_nothing_ran() -> None:
    began, go = threading.Semaphore(0), threading.Event()
    ran: list[int] = []

    def slow(request: Request) -> None:
        began.release()
        go.wait(PATIENCE)
        ran.append(request.value)

    one = DataConfig(handlers=1, handler_spares=0, handler_queue=0)
    with DataPlane("alice", key=KEY) as alice, DataPlane("bob", key=KEY, config=one) as bob:
        alice.add_peer("bob", bob.address)
        bob.on_request("slow")(slow)
        first = alice.request_async("bob", "slow", 1, timeout=PATIENCE)
        assert began.acquire(timeout=PATIENCE)
        with pytest.raises(PeerBusy) as caught:
            alice.request("bob", "slow", 2, timeout=PATIENCE)
        assert caught.value.retriable and not caught.value.indeterminate
        go.set()
        first.result(PATIENCE)
        assert ran == [1]


def test_request_all_brings_what_came_and_why_the_rest_did_not(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    bob.on_request("id")(lambda request: request.value)
    alice.on_request("id")(lambda request: request.value + 1)
    results = alice.request_all(["alice", "bob", "dave"], "id", 1, timeout=PATIENCE)
    assert results == {"alice": 2, "bob": 1}
    assert list(results.errors) == ["dave"] and isinstance(results.errors["dave"], PeerUnreachable)


def test_timeout_after_sending_is_indeterminate_and_frees_the_call(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    go = threading.Event()
    bob.on_request("slow")(lambda request: go.wait(PATIENCE))
    alice.send("bob", "warm", timeout=PATIENCE)
    with pytest.raises(OperationTimeout) as caught:
        alice.request("bob", "slow", timeout=0.05)
    assert caught.value.indeterminate
    assert alice.peers()[0].calls == 0
    go.set()


def test_cancelled_future_tells_the_peer(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    began, go = threading.Event(), threading.Event()

    def slow(request: Request) -> None:
        began.set()
        go.wait(PATIENCE)

    bob.on_request("slow")(slow)
    future = alice.request_async("bob", "slow", timeout=PATIENCE)
    assert began.wait(PATIENCE)
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result()
    assert alice.peers()[0].calls == 0
    bob.on_request("count")(lambda request: bob.metrics().get("requests.cancelled", 0))
    assert alice.request("bob", "count", timeout=PATIENCE) == 1
    go.set()


def test_progress_is_told_on_the_callers_thread(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    told: list[tuple[int, int, bool]] = []
    here = threading.current_thread()
    reader = threading.Thread(target=bob.receive, args=(PATIENCE,))
    reader.start()

    def progress(done: int, total: int) -> None:
        told.append((done, total, threading.current_thread() is here))

    alice.send("bob", bytes(4 << 20), timeout=PATIENCE, progress=progress)
    reader.join()
    assert told[-1][0] == told[-1][1] >= 4 << 20
    assert all(own for _, _, own in told)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_codecs_carry_own_types(pair: tuple[DataPlane, DataPlane]) -> None:
    codecs = Codecs()
    codecs.register(complex, "complex", lambda z: [z.real, z.imag], lambda parts: complex(*parts))
    with DataPlane("carol", key=KEY, codecs=codecs) as carol, DataPlane("dave", key=KEY, codecs=codecs) as dave:
        carol.add_peer("dave", dave.address)
        carol.send("dave", [1 + 2j], timeout=PATIENCE)
        assert dave.receive(PATIENCE).value == [1 + 2j]


def fails(inner: Any) -> complex:
    raise KeyError("an older version")


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "raises"])
def test_what_cannot_be_read_here_is_an_error_in_its_place(missing: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The codec is missing where it arrives, or its ``decode`` raises. Nothing is lost, and nobody is to blame."""
    new, old = Codecs(), Codecs()
    new.register(complex, "complex", lambda z: [z.real, z.imag], lambda parts: complex(*parts))
    if not missing:
        old.register(complex, "complex", lambda z: [z.real, z.imag], fails)
    why = "'complex', which is not registered here" if missing else "'complex' could not read a value: KeyError"
    with DataPlane("carol", key=KEY, codecs=new) as carol, DataPlane("alice", key=KEY, codecs=old) as alice:
        carol.add_peer("alice", alice.address)
        gate = threading.Event()
        alice.on_request("slow")(lambda request: gate.wait(PATIENCE))
        alice.on_request("echo")(lambda request: request.value)
        carol.on_request("which")(lambda request: 1j)
        under_way = carol.request_async("alice", "slow")
        carol.send("alice", 1j, timeout=PATIENCE)
        carol.send("alice", "next", timeout=PATIENCE)

        message = alice.receive(PATIENCE)
        assert message.sender == "carol" and isinstance(message.error, ValueDecodeError)
        for _ in range(2):
            with pytest.raises(ValueDecodeError, match=f"^a message of carol: .*{why}") as caught:
                message.value  # noqa: B018
            assert (caught.value.node, caught.value.operation) == ("carol", "receive")
        assert alice.receive(PATIENCE).value == "next"

        with pytest.raises(ValueDecodeError, match=f"^the answer to 'which' of carol: .*{why}") as caught:
            alice.request("carol", "which", timeout=PATIENCE)
        assert (caught.value.node, caught.value.operation) == ("carol", "request")
        assert isinstance(alice.request_async("carol", "which").exception(PATIENCE), ValueDecodeError)
        results = alice.request_all(["carol"], "which", timeout=PATIENCE)
        assert results == {} and isinstance(results.errors["carol"], ValueDecodeError)

        with pytest.raises(RemoteError, match=f"ValueDecodeError: a request 'echo' of carol: .*{why}") as remote:
            carol.request("alice", "echo", 2j, timeout=PATIENCE)
        assert (remote.value.type, remote.value.node) == ("ValueDecodeError", "alice")

        gate.set()
        assert under_way.result(PATIENCE) is True, "a call that was under way all the time"
        for plane in (alice, carol):
            assert not [name for name in plane.metrics() if name.startswith("offences") or name == "values.bad"]
        assert alice.metrics()["values.unreadable"] == 5 and alice.metrics()["quic.accepted"] == 1
    told = [record.levelname for record in caplog.records if "not to be read here" in record.getMessage()]
    assert told == ["WARNING"]


# -- peers and the end -----------------------------------------------------------------------


def test_peers_tell_state_and_path(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    assert alice.peers() == []
    alice.send("bob", 1, timeout=PATIENCE)
    (info,) = alice.peers()
    assert (info.name, info.address, info.state, info.dialled) == ("bob", bob.address, "connected", True)
    assert (info.mtu >= 1200 or info.carrier == "host") and info.path["bytes_sent"] > 0


def test_removed_peer_ends_its_calls(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    began, go = threading.Event(), threading.Event()

    def slow(request: Request) -> None:
        began.set()
        go.wait(PATIENCE)

    bob.on_request("slow")(slow)
    future = alice.request_async("bob", "slow", timeout=PATIENCE)
    assert began.wait(PATIENCE)
    alice.remove_peer("bob")
    with pytest.raises(PeerUnreachable, match="removed") as caught:
        future.result(PATIENCE)
    go.set()
    assert caught.value.indeterminate and "add_peer" in str(caught.value)
    with pytest.raises(PeerUnreachable, match="no address"):
        alice.send("bob", 1)


def test_close_ends_calls_in_flight(pair: tuple[DataPlane, DataPlane]) -> None:
    """Whoever waits hears of it at once; of what the peer may have run, that nobody knows."""
    alice, bob = pair
    began, go = threading.Semaphore(0), threading.Event()

    def slow(request: Request) -> None:
        began.release()
        go.wait(PATIENCE)

    bob.on_request("slow")(slow)
    errors: dict[str, Exception] = {}

    def call(name: str, action: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                action()
            except Exception as error:
                errors[name] = error

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    future = alice.request_async("bob", "slow", timeout=PATIENCE)
    threads = [
        call("request", lambda: alice.request("bob", "slow", timeout=PATIENCE)),
        call("future", lambda: future.result(PATIENCE)),
        call("receive", lambda: alice.receive(PATIENCE)),
    ]
    for _ in range(2):
        assert began.acquire(timeout=PATIENCE)
    alice.close(timeout=0)
    for thread in threads:
        thread.join(PATIENCE)
    go.set()
    assert {name: (type(error), getattr(error, "indeterminate", None)) for name, error in errors.items()} == {
        "request": (NotRunningError, True),
        "future": (NotRunningError, True),
        "receive": (NotRunningError, False),
    }


def test_close_is_final_and_idempotent(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    alice.send("bob", "kept", timeout=PATIENCE)
    bob.close()
    bob.close()
    assert bob.receive(0).value == "kept"
    with pytest.raises(NotRunningError):
        bob.receive(0)
    for call in (
        lambda: bob.send("alice", 1),
        lambda: bob.request("alice", "x"),
        lambda: bob.send_async("alice", 1),
        lambda: bob.peers(),
        lambda: bob.add_peer("x", ("127.0.0.1", 1)),
        lambda: bob.connect(("127.0.0.1", 1)),
    ):
        with pytest.raises(NotRunningError):
            call()
    assert list(bob.messages()) == []
    assert "closed" in repr(bob)
    with pytest.raises(PeerUnreachable):
        alice.request("bob", "x", timeout=PATIENCE)


def test_planes_are_not_pickled() -> None:
    with DataPlane("alice") as plane, pytest.raises(TypeError, match="each process"):
        pickle.dumps(plane)


def test_forgotten_plane_warns() -> None:
    plane = DataPlane("alice")
    with pytest.warns(ResourceWarning, match="close"):
        plane.__del__()
    plane.close()


# -- names of other classes ---------------------------------------------------------------------------------------


class Trap(str):
    """A text that harms whoever looks at it as anything but a text."""

    def _raise(self, *arguments: object) -> Any:
        raise RuntimeError("of a user's class")

    __eq__ = __hash__ = encode = startswith = __str__ = _raise  # type: ignore[assignment]


def test_names_of_a_class_that_raises_harm_no_thread(pair: tuple[DataPlane, DataPlane]) -> None:
    alice, bob = pair
    node, name = Trap("bob"), Trap("echo")
    bob.on_request(name)(lambda request: request.value)
    bob.on_stream(name)(lambda stream: None)
    alice.add_peer(node, bob.address)
    alice.send(node, 1)
    alice.send_async(node, 2).result(PATIENCE)
    assert [bob.receive(PATIENCE).value for _ in range(2)] == [1, 2]
    assert alice.request(node, name, 3) == alice.request_async(node, name, 3).result(PATIENCE) == 3
    assert dict(alice.request_all([node, "bob"], name, 4)) == {"bob": 4}
    alice.open_stream(node, name).close()
    with pytest.raises(MycorrizalError):
        alice.send_file(node, io.BytesIO(b"x"), name=Trap("x"), timeout=0.2)
    alice.remove_peer(Trap("nobody"))
    assert alice.request("bob", "echo", 5) == 5
