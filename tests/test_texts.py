"""A stranger's text forges no line and steers no terminal, wherever it comes in and wherever it comes out.

Two doors hold that: errors escape their text when they are made
(``MycorrizalError``), and loggers escape their records (``_wire.text.logger``).
The first half reads the source and holds that there is no way around the
doors; the second brings a hostile text in by every way there is and looks at
what comes out.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cbor2
import pytest

from mycorrizal import Member, Members, Node, NodeState, Service, events, exceptions
from mycorrizal._agent.health import health
from mycorrizal._control import messages as control
from mycorrizal._replica import messages as shared
from mycorrizal._replica.clock import Stamp
from mycorrizal._runtime.data import files, tickets
from mycorrizal._runtime.quic import qlog
from mycorrizal._runtime.quic.fast import aio
from mycorrizal._runtime.swim import joining
from mycorrizal._runtime.swim.departed import Departed
from mycorrizal._runtime.swim.gossip import Gossip
from mycorrizal._runtime.threads.counters import QuietLog
from mycorrizal._runtime.threads.deadline import Deadline
from mycorrizal._swim import events as swim_events
from mycorrizal._swim.machine import Swim
from mycorrizal._wire.frames import Challenge, Close, Frame, Status, frame
from mycorrizal._wire.messages import AckResp, Alive, Dead, Err, Ping, PushNodeState, PushPull, Suspect
from mycorrizal._wire.meta import AgentMeta, agent_meta
from mycorrizal._wire.text import logger, printable
from mycorrizal.exceptions import MycorrizalError, PeerUnreachable, RemoteProtocolError
from mycorrizal.types import html_text
from tests._data.harness import Node as DataNode
from tests._data.harness import Outcome, World
from tests._data.raw import LIMITS, Raw, RawConn
from tests._swim.harness import VSN, alive, drain, make, run_timers, tell
from tests._swim.harness import events as taken

PACKAGE = Path(__file__).resolve().parent.parent / "mycorrizal"
SHELLS = ("cli", "simulation", "__main__.py")  # they print, and have tests of their own
SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] not in SHELLS]

# -- no way around the doors -------------------------------------------------------------------

DOOR = "_wire/text.py"
LOGGING_NAMES = {"LoggerAdapter", "Logger", "DEBUG", "INFO", "WARNING", "NullHandler"}
OF_LOGGING = {
    ("__init__.py", "getLogger"): "gives the library's logger its null handler, and logs nothing",
    ("_runtime/quic/qlog.py", "getLogger"): "is aioquic's, whose records of our connections go to a logger of ours",
}
OUTSIDE_THE_TREE = {
    "Unfit": "becomes a ValueEncodeError before anybody sees it",
    "TooManyGaps": "becomes a close of the connection; its text is ours",
    "_Wrong": "becomes the text of a trial of aioquic; ours too",
}
OURS = {
    # what stands unescaped in the text of a builtin error, and why it is no peer's
    "role": "a keyword of Memberlist's",
    "operation": "a call of the user's",
    "name": "a method of the user's delegate",
    "', '.join(methods)": "methods of a delegate",
    "', '.join(SOCKET_KINDS)": "a constant",
    "folder": "the user's path",
    "here": "a part of the user's path",
    "code": "a number",
    "text_of(exc)": "of the user's delegate; whoever logs it makes it printable",
    "os.strerror(code)": "the system's",
    "sent": "a number",
    "size": "a number",
    "str(exc).partition('() ')[2] or 'fields are missing'": "of a file in a private directory",
}
TELLING = {"name", "node", "reason", "text", "error", "exc", "sender", "writer", "id", "topic", "key"}


parsed = functools.cache(ast.parse)


def around_the_log(name: str, source: str) -> Iterator[str]:
    """Yield each use of ``logging`` that leads past the door, and each print."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "logging":
            yield f"{name}:{node.lineno}: import logging whole, so that its use can be read here"
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("logging", "_logging"):
            allowed = name == DOOR or node.attr in LOGGING_NAMES or (name, node.attr) in OF_LOGGING
            if not allowed:
                yield f"{name}:{node.lineno}: logging.{node.attr}: take logger() of _wire.text"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stderr.write", "sys.stdout.write"):
            yield f"{name}:{node.lineno}: {ast.unparse(node.func)}()"


def around_the_errors(name: str, source: str) -> Iterator[str]:
    """Yield each error that is none of the tree and says what it did not escape."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.ClassDef) and node.name not in OUTSIDE_THE_TREE:
            bases = [ast.unparse(base) for base in node.bases]
            if bases and all(_is_builtin_error(base) for base in bases) and name != "exceptions.py":
                yield f"{name}:{node.lineno}: {node.name} is no MycorrizalError"
        if not isinstance(node, ast.Call) or ast.unparse(node.func) == "KeyError":  # which shows the repr of its key
            continue
        if _is_builtin_error(ast.unparse(node.func)):
            for argument in node.args:
                yield from (f"{name}:{node.lineno}: {raw} in a builtin error" for raw in _raw(argument))


def around_the_reprs(name: str, source: str) -> Iterator[str]:
    """Yield each name or text that a ``__repr__`` shows as it is."""
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.FunctionDef) and node.name in ("__repr__", "__str__"):
            for part in ast.walk(node):
                if isinstance(part, ast.FormattedValue) and part.conversion not in (ord("r"), ord("a")):
                    last = ast.unparse(part.value).rpartition(".")[2].lstrip("_")
                    if last in TELLING - {"error"}:  # an error is printable of itself
                        yield f"{name}:{part.lineno}: {ast.unparse(part.value)} in a repr"


def _is_builtin_error(name: str) -> bool:
    found = getattr(builtins, name, None)
    return isinstance(found, type) and issubclass(found, BaseException)


def _raw(argument: ast.expr) -> Iterator[str]:
    if isinstance(argument, ast.JoinedStr):
        values = [part for part in argument.values if isinstance(part, ast.FormattedValue)]
        shown = [part.value for part in values if part.conversion not in (ord("r"), ord("a"))]
    else:
        shown = [argument]
    for value in shown:
        text = ast.unparse(value)
        last = text.rpartition(".")[2]
        known = isinstance(value, ast.Constant) or last.isupper() or last == "__name__" or text.startswith("len(")
        if not known and text not in OURS:
            yield text


CHECKS = [around_the_log, around_the_errors, around_the_reprs]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_there_is_no_way_around_the_doors(check: Callable[[str, str], Iterator[str]]) -> None:
    found = [one for path in SOURCES for one in check(path.relative_to(PACKAGE).as_posix(), path.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("check", "source"),
    [
        (around_the_log, "import logging\nlog = logging.getLogger('mycorrizal.x')"),
        (around_the_log, "import logging\nlogging.warning('%s', node.name)"),
        (around_the_log, "from logging import getLogger"),
        (around_the_log, "import logging as _logging\n_logging.info(node.name)"),
        (around_the_log, "print(node.name)"),
        (around_the_log, "import sys\nsys.stderr.write(node.name)"),
        (around_the_errors, "raise ValueError(f'no {node.name}')"),
        (around_the_errors, "raise OSError(str(error))"),
        (around_the_errors, "class Odd(Exception): pass"),
        (around_the_errors, "class Odd(ValueError, RuntimeError): pass"),
        (around_the_reprs, "class A:\n    def __repr__(self):\n        return f'<A {self.name}>'"),
        (around_the_reprs, "class A:\n    def __str__(self):\n        return f'{self._node} says'"),
    ],
)
def test_a_planted_way_around_is_found(check: Callable[[str, str], Iterator[str]], source: str) -> None:
    assert list(check("x.py", source))


def test_every_logger_of_the_library_has_the_filter() -> None:
    for path in SOURCES:
        __import__(".".join(("mycorrizal", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"))
    own = logger("mycorrizal.swim").logger.filters
    found = {name for name in logging.root.manager.loggerDict if name.startswith("mycorrizal.")}
    assert {"mycorrizal.swim", "mycorrizal.data", "mycorrizal.quic.aioquic"} <= found
    bare = [name for name in found if logging.getLogger(name).filters != own]
    assert [name for name in bare if not isinstance(logging.root.manager.loggerDict[name], logging.PlaceHolder)] == []


# -- every way in ------------------------------------------------------------------------------

EVIL = (
    "EVIL\nERROR forged\r\x1b[2J\x9b31m\x85\x7f\0 \u202etfel\u2066 \u2028\u2029 \u200b\ufeff\u2800"  # as UTF-8
    "\x0b\x0c\x1c\x1d\x1e\x07\x08\t"
)
RAW = EVIL + "\udcff"
"""Also with a byte that is no UTF-8, where the wire takes it."""


def told(text: object) -> str:
    """Return `text`; it is one printable line."""
    text = str(text)
    assert printable(text, 1 << 20) == text, ascii(text)
    return text


def short(error: Exception | None) -> Exception | None:
    """Return `error`, in which what a stranger wrote is no longer than 200 characters."""
    assert len(str(error)) < 500
    return error


def joins(swim: Swim, name: str) -> None:
    tell(swim, alive(name, "10.0.0.2"))


def suspicion_and_death() -> None:
    swim = make(probe_timeout=0.5, suspicion_mult=1)
    joins(swim, RAW)
    tell(swim, Suspect(1, RAW, RAW))
    run_timers(swim, 600.0)
    tell(swim, Suspect(5, "self", RAW), Dead(50, "self", RAW), now=700.0)


def probes() -> None:
    swim = make(probe_timeout=0.5)
    joins(swim, RAW)
    swim._core.config.__dict__["probe_interval"] = 1.0
    member = swim._core.table.get(RAW)
    assert member is not None
    swim._prober.probe_member(member, 0.0)
    run_timers(swim, 5.0)


def quarrels() -> None:
    swim = make(name_takeover=False)
    joins(swim, RAW)
    tell(swim, alive(RAW, "10.0.0.3", 9))
    other = make(probe_timeout=0.5)
    joins(other, RAW)
    tell(other, alive(RAW, "10.0.0.3", 9))
    run_timers(other, 10.0)


def moves_and_fallbacks() -> None:
    swim = make()
    joins(swim, RAW)
    for number in range(20):
        swim.answer_exchange(Ping(number, "self", None, 0, RAW), ("10.0.0.2", 7946), 0.0)


def refusals_by_the_user() -> Iterator[object]:
    class Admission:
        def notify_alive(self, peer: Node) -> None:
            if peer.name != "self":
                raise ValueError(f"no {peer.name} here")

        def notify_merge(self, peers: tuple[Node, ...]) -> None:
            raise ValueError(f"no {peers[0].name} here")

    joins(make(delegates={"alive": Admission()}), RAW)
    tell(make(cidrs_allowed=("10.0.0.0/24", "10.9.9.0/24")), Alive(1, RAW, b"\x0b\0\0\1", 1, b"", VSN))
    swim = make(delegates={"merge": Admission()})
    state = PushPull((PushNodeState(RAW, b"\x0a\0\0\2", 1, b"", 1, 0, VSN),), b"", True)
    swim.answer_exchange(state, ("10.0.0.2", 1), 0.0)
    yield from (event.reason for event in taken(swim) if isinstance(event, swim_events.MergeRejected))
    yield ended(swim, state)


def ended(swim: Swim, answer: Any) -> Exception:
    swim.join(("10.0.0.2", 7946), 0.0)
    [request] = swim.exchanges_to_start()
    if isinstance(answer, Exception):
        swim.exchange_failed(request.exchange_id, answer, 0.0)
    else:
        swim.exchange_answered(request.exchange_id, answer, 0.0)
    [end] = [event for event in taken(swim) if isinstance(event, swim_events.OperationDone)]
    assert end.error is not None
    return end.error


def error_answers() -> Iterator[object]:
    yield ended(make(), Err(RAW))
    yield short(ended(make(), Err(RAW * 1000)))
    yield ended(make(), PeerUnreachable(RAW, hint=RAW))
    strange = PushNodeState(RAW, b"\x0a\0\0\2", 1, b"", 1, 0, bytes((1, 5, 9, 0, 0, 0)))
    yield ended(make(), PushPull((strange,), b"", True))


def lost_members() -> None:
    swim = make(reconnect_interval=10.0)
    joins(swim, RAW)
    tell(swim, Dead(1, RAW, "x"))
    drain(swim)
    due = swim.get_timer()
    assert due is not None
    swim.handle_timer(due)
    tell(swim, AckResp(swim._core._sequence, None), now=due + 0.1)
    awake = make(probe_timeout=0.5)
    joins(awake, "bob")
    told = [PushNodeState(name, b"\x0a\0\0\2", port, b"", 1, 0, VSN) for port, name in enumerate(["bob", RAW], 7946)]
    awake.answer_exchange(PushPull(tuple(told), b"", False), ("10.0.0.2", 1), 0.0)
    run_timers(awake, 10.0)


def a_move() -> None:
    swim = make(cidrs_allowed=("10.0.0.0/24",))
    swim.moved(b"\x0b\0\0\1", 0.0)
    swim.moved(b"\x0a\0\0\2", 1.0)


def an_end() -> None:
    swim = make()
    told = Node(RAW, b"\x0a\0\0\2", 7946, agent_meta(AgentMeta(None, b"\1" * 8, {}), 512))
    tell(swim, Alive(1, told.name, told.addr, told.port, told.meta, VSN))
    swim.ended(RAW, b"\1" * 8, 1.0)


def a_stall() -> None:
    swim = make(stall_threshold=1.0, reconnect_interval=10.0)
    joins(swim, RAW)
    tell(swim, Dead(1, RAW, "x"))
    due = swim.get_timer()
    assert due is not None
    swim.handle_timer(due + 100.0)


def gossips_events() -> None:
    quiet, node = QuietLog(logger("mycorrizal.gossip"), RAW), Node(RAW, b"\x7f\0\0\1", 1, state=NodeState.DEAD)
    readers = SimpleNamespace(publish=lambda event: None)
    stand_in: Any = SimpleNamespace(
        _node=RAW, _companion=None, _quiet=quiet, _subscribers=readers, _tell_delegates=lambda event: None,
        departed=Departed(),
    )  # fmt: skip
    for event in (
        swim_events.NodeJoined(node),
        swim_events.NodeLeft(node),
        swim_events.PacketRejected((RAW, 1), RemoteProtocolError(RAW)),
        swim_events.DelegateFault(RAW, RAW),
    ):
        Gossip._announce(stand_in, event)


def closes_before_any_proof(code: int = Close.NOT_PROVED) -> Iterator[object]:
    for kind in ("closed", "handshake", "local", "reset"):
        node, outcome, conn = dialling()
        node.machine.closed(conn, code, RAW, kind != "local", kind, node.world.now)
        yield short(outcome.error)
        greeting = Outcome(lambda: 0.0)
        link = node.machine.add(conn, None)
        link.greeting = greeting
        node.machine.closed(conn, code, RAW * 1000, True, kind, node.world.now)
        yield short(greeting.error)


def dialling() -> tuple[DataNode, Outcome, RawConn]:
    node = DataNode(World(), "b", ("10.0.0.1", 1))
    conn = RawConn(node.world, dialled=True)
    node.dial = lambda address, peer, now: conn  # type: ignore[assignment,return-value]
    node.addresses["m"] = ("10.0.0.2", 1)
    _, outcome = node.request("m", 1)
    node.world.run(1.0)
    assert conn in node.machine.links
    return node, outcome, conn


def a_server_of_another_name() -> Iterator[object]:
    node, outcome, conn = dialling()
    machine, now = node.machine, node.world.now
    machine.connected(conn, now)
    machine.stream_data(conn, 3, Challenge(bytes(32), EVIL, bytes(8), b"k", LIMITS).pack(), False, now)
    assert conn.closed is not None
    yield conn.closed[1]  # what the peer will log
    yield outcome.error


def a_client_of_such_a_name() -> Iterator[object]:
    raw = Raw(name=EVIL)
    raw.say(raw.proof())
    assert raw.conn.closed is not None and raw.code == Close.WRONG_NAME
    yield raw.conn.closed[1]


def offences() -> Iterator[object]:
    raw = Raw(name="m").prove()
    raw.node.machine.bad_value("m", ValueError(RAW), raw.world.now)
    assert raw.conn.closed is not None
    yield raw.conn.closed[1]
    quiet = QuietLog(logger("mycorrizal.data"), RAW)
    quiet.warning(RAW, "%s at %s is disconnected: %s", RAW, (RAW, 1), ValueError(RAW))
    link = raw.node.machine.add(RawConn(raw.world, dialled=True), RAW)
    yield repr(link)
    other = Raw(name="m").prove()
    other.frame(Frame.REQUEST, frame(Frame.REQUEST, EVIL.encode()))
    yield repr(other.conn.closed)


def answers() -> Iterator[object]:
    core: Any = SimpleNamespace(decode=lambda received, node, what: [EVIL, EVIL * 1000])
    received: Any = None
    for status in [*Status, 99]:
        if status != Status.OK:
            try:
                tickets.answer(core, status, received, RAW, RAW)
            except MycorrizalError as error:
                yield error
                yield tickets.own(error, "request")
                if status == Status.RAISED:
                    assert isinstance(error, exceptions.RemoteError)
                    assert error.text == EVIL * 1000 and error.type == printable(EVIL)


def files_that_are_refused() -> Iterator[object]:
    stream: Any = SimpleNamespace(node=RAW, timeout=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_get", lambda stream, deadline, kinds: (1, EVIL))
        with pytest.raises(exceptions.RemoteError) as caught:
            files._verdict(stream, Deadline(None))
    yield caught.value
    assert caught.value.text == EVIL


def controls() -> Iterator[object]:
    told_by_agent = {"id": 1, "ok": False, "error": {"code": EVIL, "text": EVIL * 1000}}
    error = control.decode_reply(cbor2.dumps(told_by_agent)).error
    assert error is not None
    yield error
    yield error.code
    wire = cbor2.loads(control.encode_failure(1, "failed", ValueError(RAW)))
    yield wire["error"]["text"]
    omitted = cbor2.loads(control.encode_event("t", (1, 1), "p", {EVIL: object()}))
    yield omitted["value"]["omitted"]


def what_agents_share() -> Iterator[object]:
    stamp = Stamp(1, 1, EVIL, bytes(8))
    for message in (
        shared.Setting("key", b"", stamp),
        shared.Service("id", None, stamp),
        shared.Event(shared.Sender(EVIL, bytes(8)), 1, "topic", b""),
        shared.Highest(shared.Sender(EVIL, bytes(8)), 1, 1),
    ):
        with pytest.raises(RemoteProtocolError, match="no agent may be called") as caught:
            shared.decode(message.encode())
        yield caught.value
    for header in (
        shared.Want(shared.Sender(EVIL, bytes(8)), ((1, 1),)),
        shared.Have(shared.Sender(EVIL, bytes(8)), 1),
        shared.State(bytes(16), ((shared.Sender(EVIL, bytes(8)), 1),)),
    ):
        with pytest.raises(RemoteProtocolError, match="no agent may be called"):
            shared.decode_header(shared.pack(header, ()))
    yield "EVIL names are refused"


def a_join_of_many() -> Iterator[object]:
    call: Any = SimpleNamespace(_membership=SimpleNamespace(config=SimpleNamespace(name=RAW)))
    error = joining._Join._error(call, {RAW: ValueError(RAW), "other": PeerUnreachable(RAW)})
    yield error
    assert list(error.failures) == [RAW, "other"]


def other_libraries() -> None:
    aio._QUIET.warning("Connection close received (reason %s)", RAW)
    aio._QUIET.error(f"made before: {RAW}")
    qlog._OURS.add("77")
    qlog._is_of_others(logging.makeLogRecord({"levelno": logging.WARNING, "msg": f"[77] reason {RAW}"}))
    try:
        raise ValueError(RAW)
    except ValueError as error:
        logger("mycorrizal.data").debug("%s: handler raised", RAW, exc_info=error)


def problems() -> Iterator[object]:
    suspect = Node(RAW, b"\x7f\0\0\1", 1, state=NodeState.SUSPECT)
    members: Any = SimpleNamespace(
        metrics=lambda: {"events.lost": 0, "stalls": 0, "tcp.refusing": 0, "key.sealed": 0},
        members=lambda: (suspect,) * 99, health_score=0,
    )  # fmt: skip
    contests = SimpleNamespace(recent=lambda now: [(RAW, (RAW, 1))])
    data: Any = SimpleNamespace(
        metrics=lambda: {"inbox.messages": 0, "connections": 0},
        _started=SimpleNamespace(
            config=SimpleNamespace(inbox_messages=1), trust=SimpleNamespace(validity=lambda: None),
            machine=SimpleNamespace(contests=contests), unfit=RAW,
        ),
    )
    settings = SimpleNamespace(cluster="c", insecure=False)
    sharing = SimpleNamespace(rivals=[], replica=SimpleNamespace(counters={}))
    parts: Any = SimpleNamespace(
        members=members, data=data, sharing=sharing, file=None, seeking=None, name="n", settings=settings, rings=None,
        tasks=SimpleNamespace(problems=list),
    )  # fmt: skip
    yield from health(parts).problems


def what_is_shown() -> Iterator[object]:
    node = Node(RAW, b"\x7f\0\0\1", 1)
    member = Member(RAW, RAW, 1, None, {RAW: RAW}, NodeState.ALIVE, None, node)
    service = Service(RAW, RAW, RAW, 1, RAW, True, RAW)
    changes = events.MemberFailed(node), events.UserEvent(RAW, RAW, RAW, 1), events.SettingChange(RAW, RAW, False, RAW)
    for value in (node, member, service, Members([member]), *changes):
        assert repr(value).isprintable()  # it shows Python's own repr of each text
    yield Members([member])._repr_html_()
    yield html_text(RAW)


WAYS_IN: list[Callable[[], Iterator[object] | None]] = [
    suspicion_and_death, probes, quarrels, moves_and_fallbacks, refusals_by_the_user, error_answers, lost_members,
    gossips_events, closes_before_any_proof, a_server_of_another_name, a_client_of_such_a_name, offences, answers,
    files_that_are_refused, controls, what_agents_share, a_join_of_many, other_libraries, problems, what_is_shown,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS_IN, ids=lambda way: way.__name__)
def test_what_comes_in_raw_comes_out_printable(
    way: Callable[[], Iterator[object] | None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mycorrizal")
    shown = []
    for one in way() or ():
        shown.append(told(one))
        if isinstance(one, MycorrizalError):
            shown.append(told(repr(one)))
            told(one.hint)
            assert len(str(one)) < 9000
    for record in caplog.records:
        first, *more = logging.Formatter().format(record).split("\n")
        shown.append(told(first))
        assert all(line.startswith("  ") and told(line) for line in more)
    quiet = (a_client_of_such_a_name,)  # it is told that the name is none, and not the name
    assert way in quiet or any("EVIL" in text for text in shown), "the text did not come so far: nothing was tried"


def test_the_ways_in_reach_every_line_that_membership_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mycorrizal")
    for way in (*WAYS_IN[:8], a_stall, a_move, an_end):
        list(way() or ())
    reached = {(record.filename, record.funcName) for record in caplog.records if record.name == "mycorrizal.swim"}
    there = set()
    for path in (PACKAGE / "_swim").glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef):
                calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
                if any(ast.unparse(call.func).startswith("log.") for call in calls):
                    there.add((path.name, function.name))
    inner = {("sync.py", "_push_pull")}  # its `done` is what logs
    assert there - inner <= reached


ERRORS = [getattr(exceptions, name) for name in exceptions.__all__]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_of_any_kind_is_one_printable_line(kind: type[MycorrizalError]) -> None:
    arguments: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if name == "failures":
            arguments[name] = {RAW: ValueError(RAW)}
        elif name == "pid":
            arguments[name] = None
        elif parameter.kind is not parameter.VAR_KEYWORD and "str" in str(parameter.annotation):
            arguments[name] = RAW
    error = kind(**arguments)
    assert "EVIL" in told(error) and told(repr(error))
    assert told(error.hint)
    assert error.node == RAW or "node" not in arguments, "a field keeps what was sent"
