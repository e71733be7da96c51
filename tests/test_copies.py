"""Errors and values cross processes: pickle and copy make an equal one; a handle says that it has no copy."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mycorrizal
from mycorrizal import exceptions
from mycorrizal._runtime.threads.lifecycle import Handle
from mycorrizal._serf.messages import UserEvent as SerfUserEvent


def through_pickle(protocol: int, thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing, protocol))


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {protocol}": partial(through_pickle, protocol) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)},
}

NODE = mycorrizal.Node("bob", b"\x7f\0\0\1", 7946, b"\x1f\x90", mycorrizal.NodeState.SUSPECT, 7)
SERVICE = mycorrizal.Service("api", "bob", "10.0.0.1", 80, {"v": [1]}, True, "api-1")
MEMBER = mycorrizal.Member("bob", "10.0.0.1", 7946, 8080, {"a": "b"}, mycorrizal.NodeState.ALIVE, b"12345678", NODE)
FAILURES = {"10.0.0.1:1": exceptions.ConnectionRefused("no", node="x"), "b": OSError(28, "full")}
MORE: dict[str, Any] = {"node": "bob", "operation": "join", "hint": "try again", "retriable": True}

ERRORS: dict[str, exceptions.MycorrizalError] = {
    "ConfigError": exceptions.ConfigError("port", "70000 is no port", hint="0 to 65535"),
    "MetaTooLarge": exceptions.MetaTooLarge("tags", "600 bytes", hint="fewer"),
    "NameInUse": exceptions.NameInUse("alice", "demo", 42, where="10.0.0.1:7946"),
    "JoinError": exceptions.JoinError("no seed", failures=FAILURES, reached=2, hint="is it up?"),
    "RemoteError": exceptions.RemoteError("it raised", kind="ValueError", text="bad\nworse", **MORE),
    "UnknownHandler": exceptions.UnknownHandler("none", kind="", text="", **MORE),
    "ControlError": exceptions.ControlError("timeout", "too late", **MORE),
    "NotLeader": exceptions.NotLeader("bob leads", due=2.5, **MORE),
    "LockLost": exceptions.LockLost("job was lost", token=7, **MORE),
    "CacheConflict": exceptions.CacheConflict("ttl 1 and 2", node="bob", hint="agree"),
}
VALUES: dict[str, Any] = {
    "Codecs": mycorrizal.Codecs(),
    "Config": mycorrizal.Config.lan(name="bob", bind_addr="127.0.0.1", secret_key=bytes(range(16))),
    "DataConfig": mycorrizal.DataConfig(handlers=3),
    "Keyring": mycorrizal.Keyring([bytes(range(16, 32))], bytes(range(16))),
    "Node": NODE,
    "NodeState": mycorrizal.NodeState.LEFT,
    "Member": MEMBER,
    "Members": mycorrizal.Members([MEMBER]),
    "Service": SERVICE,
    "Health": mycorrizal.Health("a", "demo", 0, 1, 0, 0, 0, 0, 0, ("full",)),
    "JoinResult": mycorrizal.JoinResult(1, FAILURES, True, True),
    "Message": mycorrizal.Message("bob", {"x": (1, 2)}),
    "Request": mycorrizal.Request("mean", [1], "bob", 2.5),
    "ReceivedFile": mycorrizal.ReceivedFile(Path("here"), "x", "bob", 3),
    "PeerInfo": mycorrizal.PeerInfo("b", ("::1", 1), "idle", True, 1, 0.0, 1200, 0, 0, 0, {"lost": 1.0}),
    "Versions": mycorrizal.Versions(1, 5, 2),
    "Versioned": mycorrizal.Versioned([1], 12),
    "Results": mycorrizal.Results(),
    "ControlEvent": mycorrizal.ControlEvent("event.user.x", {"v": 1}, 5, 2, "p", 1),
    "SerfEvent": SerfUserEvent(3, "deploy", b"x", True),
    "SerfMember": mycorrizal.SerfMember("bob", mycorrizal.SerfStatus.ALIVE, {"a": "b"}, NODE, 1.5),
    "SerfQuery": mycorrizal.SerfQuery("load", b"x", "bob", 1.5),
    "SerfStatus": mycorrizal.SerfStatus.FAILED,
    "MemberJoined": mycorrizal.MemberJoined(NODE),
    "MemberLeft": mycorrizal.MemberLeft(NODE),
    "MemberFailed": mycorrizal.MemberFailed(NODE),
    "MemberUpdated": mycorrizal.MemberUpdated(NODE),
    "CacheRedefined": mycorrizal.CacheRedefined("c", "bob", {"ttl": None}, {"ttl": 5.0}),
    "MemberStalled": mycorrizal.MemberStalled("bob", 2.0),
    "NameConflict": mycorrizal.NameConflict(NODE, NODE),
    "Stalled": mycorrizal.Stalled(3.0),
    "TcpBlocked": mycorrizal.TcpBlocked(NODE, 7946, "outbound"),
    "UdpBlocked": mycorrizal.UdpBlocked(NODE, 7946, "inbound"),
    "EventsLost": mycorrizal.EventsLost(3, (NODE,)),
    "ChangesLost": mycorrizal.ChangesLost(4),
    "UserEvent": mycorrizal.UserEvent("epoch", {"n": 1}, "bob", 9),
    "UserEventsMissed": mycorrizal.UserEventsMissed("bob", 2),
    "ServiceChange": mycorrizal.ServiceChange("added", SERVICE),
    "SettingChange": mycorrizal.SettingChange("rate", 0.1, False, "bob"),
}
CLASSES = [name for name in mycorrizal.__all__ if inspect.isclass(getattr(mycorrizal, name))]
FUNCTIONS = ["Memoized"]
"""Are copied and pickled as functions are: by where they stand."""
HANDLES = [name for name in CLASSES if issubclass(getattr(mycorrizal, name), Handle)]
VALUES["Results"].update(bob=1)
VALUES["Results"].errors["carol"] = ERRORS["UnknownHandler"]


def error_named(name: str) -> exceptions.MycorrizalError:
    """Return an error of the class, with all fields set."""
    kind = getattr(exceptions, name)
    return ERRORS[name] if name in ERRORS else kind("it failed", indeterminate=True, **MORE)


def shown(thing: Any) -> Any:
    """Return what two equal things have alike: exceptions and configurations are equal only to themselves."""
    if isinstance(thing, BaseException):
        return type(thing), str(thing), thing.args, shown(vars(thing))
    if isinstance(thing, mycorrizal.Keyring):
        return thing.keys(), thing.primary
    if isinstance(thing, mycorrizal.Codecs):
        return thing.by_name, thing.by_type
    if isinstance(thing, mycorrizal.Results):
        return dict(thing), shown(thing.errors)
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return type(thing), [shown(getattr(thing, field.name)) for field in dataclasses.fields(thing)]
    if isinstance(thing, dict):
        return {key: shown(value) for key, value in thing.items()}
    return type(thing), thing


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", exceptions.__all__)
def test_an_error_is_copied_whole(name: str, how: str) -> None:
    error = error_named(name)
    made = COPIES[how](error)
    assert made is not error
    assert shown(made) == shown(error)
    assert (made.retriable, made.indeterminate) == (error.retriable, error.indeterminate)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_copied_whole(name: str, how: str) -> None:
    assert shown(COPIES[how](VALUES[name])) == shown(VALUES[name])


@pytest.mark.parametrize("how", COPIES)
def test_absent_stays_the_one(how: str) -> None:
    assert COPIES[how](mycorrizal.ABSENT) is mycorrizal.ABSENT


def test_a_copy_of_a_keyring_tells_no_watcher_of_the_first() -> None:
    ring, told = mycorrizal.Keyring([], bytes(range(16))), []
    ring.watch(lambda: told.append(1))
    copy.deepcopy(ring).add(bytes(range(1, 17)))
    assert told == [] and len(ring.keys()) == 1


def doubled(number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("how", COPIES)
def test_a_memoized_function_is_copied_as_functions_are(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cache: Any = SimpleNamespace(_codecs=mycorrizal.Codecs())
    made = mycorrizal.Memoized(cache, doubled, {})
    monkeypatch.setitem(globals(), "doubled", made)
    assert COPIES[how](made) is made


def test_every_public_class_is_an_error_a_value_or_a_handle() -> None:
    unknown = []
    for name in mycorrizal.__all__:
        thing = getattr(mycorrizal, name)
        interface = name.endswith("Delegate") and name not in HANDLES
        if not inspect.isclass(thing) or interface:
            continue
        if issubclass(thing, exceptions.MycorrizalError):
            assert name in exceptions.__all__
        elif name not in VALUES and name not in HANDLES and name not in FUNCTIONS:
            unknown.append(name)
    assert unknown == []


@pytest.mark.parametrize("name", HANDLES)
def test_a_handle_says_that_it_has_no_copy(name: str) -> None:
    kind = getattr(mycorrizal, name)
    handle = kind.__new__(kind)
    for make in COPIES.values():
        with pytest.raises(TypeError, match=f"a {name} cannot be copied or pickled"):
            make(handle)


def test_a_worker_process_may_raise_any_of_them() -> None:
    """``Pool.get`` never returned when a worker's error could not be made again in the parent."""
    code = """
import multiprocessing
from mycorrizal import exceptions

def work(name):
    raise exceptions.JoinError(name, failures={"a": OSError(1, "b")})

if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(1) as pool:
        try:
            pool.apply_async(work, ("seed",)).get(timeout=20)
        except exceptions.JoinError as error:
            print(error, error.failures)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "seed {'a': PermissionError(1, 'b')}\n"
