"""Queries and keys of a ``SerfDelegate``, as the gossip thread and a user call it."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from mycorrizal._runtime.host.keyringfile import KeyringFile
from mycorrizal._serf.asking import (
    ACK,
    Query,
    QueryResponse,
    decode_query_message,
    encode_query_message,
    pack_conflict,
    pack_key,
    read_conflict,
)
from mycorrizal._wire import msgpack
from mycorrizal.config import Config
from mycorrizal.exceptions import ConfigError, NotRunningError, OperationTimeout
from mycorrizal.serf import SerfDelegate, SerfQuery
from mycorrizal.types import Node
from tests._serf.ground import FakeGround, a_node
from tests._serf.seen import SEEN_QUERY

HERE = bytes((127, 0, 0, 1))


class _AnyText:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and bool(other)

    def __hash__(self) -> int:
        return 0


ANY_TEXT: Any = _AnyText()


class TestQueries:
    def start(self, **options: Any) -> tuple[SerfDelegate, FakeGround]:
        serf = SerfDelegate(**options)
        ground = FakeGround(serf.config(Config.local(name="py")))
        serf.attached(cast(Any, ground))
        serf.notify_join(a_node("py"))
        return serf, ground

    def sent(self, ground: FakeGround) -> list[object]:
        taken, ground.sent = ground.sent, []
        return [decode_query_message(data) for _, data, _ in taken]

    def test_a_query_is_acknowledged_at_once_and_answered_on_the_delegate_thread(self) -> None:
        serf, ground = self.start()
        asked: list[SerfQuery] = []

        @serf.on_query("q1")
        def q1(query: SerfQuery) -> bytes:
            asked.append(query)
            return b"yes"

        ground.time = 10.0
        serf.notify_msg(SEEN_QUERY)
        ((to, data, name),) = ground.sent
        assert (to, name) == (("127.0.0.1", 22001), "s1")
        assert decode_query_message(data) == QueryResponse(1, 0xF4B007E, "py", ACK)
        ground.sent.clear()
        ((call, run),) = ground.handed
        ground.time = 10.25
        run()
        assert (call, asked) == ("on_query", [SerfQuery("q1", b"hello", "s1", 0.75)])
        assert self.sent(ground) == [QueryResponse(1, 0xF4B007E, "py", 0, b"yes")]
        assert list(serf.get_broadcasts(3, 1400)) == [SEEN_QUERY]

    def test_too_late_is_counted(self) -> None:
        serf, ground = self.start()

        @serf.on_query("q1")
        def q1(query: SerfQuery) -> bytes:
            ground.time += 5
            return b"late"

        serf.notify_msg(SEEN_QUERY)
        ground.sent.clear()
        ground.handed[0][1]()
        ground.handed[0][1]()
        assert (self.sent(ground), serf.metrics()["queries_late"]) == ([], 2)

    @pytest.mark.parametrize(("answer", "error"), [("text", TypeError), (bytes(2000), ConfigError)])
    def test_what_is_no_answer_is_an_error_of_the_handler(self, answer: Any, error: type[Exception]) -> None:
        serf, ground = self.start()
        serf.on_query("q1")(lambda query: answer)
        serf.notify_msg(SEEN_QUERY)
        with pytest.raises(error):
            ground.handed[0][1]()

    def test_without_a_handler_or_an_answer_nothing_is_said(self) -> None:
        serf, ground = self.start()
        serf.notify_msg(SEEN_QUERY)
        ground.sent.clear()
        ground.handed[0][1]()
        serf.on_query("q1")(lambda query: None)
        ground.handed[0][1]()
        assert (ground.sent, serf.metrics()["queries_unhandled"]) == ([], 1)

    def test_what_cannot_be_sent_is_counted(self) -> None:
        serf, ground = self.start()
        ground.full = True
        serf.notify_msg(SEEN_QUERY)
        assert serf.metrics()["directs_unsent"] == 1

    def test_our_own(self) -> None:
        serf, _ = self.start()
        for name in ("s1", "s2"):
            serf.notify_join(a_node(name))
        serf.on_query("load")(lambda query: b"mine")
        results = serf.query("load", nodes="py", timeout=5)
        assert (results, results.errors) == ({"py": b"mine"}, {})
        results = serf.query("load", timeout=0.001)
        assert results == {"py": b"mine"}
        assert set(results.errors) == {"s1", "s2"}
        assert {type(error) for error in results.errors.values()} == {OperationTimeout}

    def test_a_ping_takes_acknowledgements_for_answers(self) -> None:
        serf, _ = self.start()
        assert serf.query("_serf_ping", timeout=5) == {"py": b""}
        assert serf.metrics()["queries_unhandled"] == 0

    def test_misuse(self) -> None:
        serf, _ = self.start()
        with pytest.raises(ConfigError, match="one of Serf's own"):
            serf.query("_serf_install-key")
        with pytest.raises(ConfigError, match="no name for a query"):
            serf.on_query("_serf_ping")
        with pytest.raises(ConfigError, match="relay_factor"):
            serf.query("a", relay_factor=256)
        with pytest.raises(TypeError, match="text and bytes"):
            serf.query("a", "text")  # type: ignore[arg-type]
        with pytest.raises(NotRunningError, match="Memberlist"):
            SerfDelegate().query("a")

    def ask(self, serf: SerfDelegate, name: str, payload: bytes, number: int = 5) -> None:
        query = Query(9, number, bytes((127, 0, 0, 1)), 7946, "s1", (), 0, 0, 10**9, name, payload)
        serf.notify_msg(encode_query_message(query))

    def test_whose_a_name_is(self) -> None:
        serf, ground = self.start()
        serf.notify_join(a_node("s1"))
        for number, name in enumerate((b"s1", b"nobody", b"py")):
            self.ask(serf, "_serf_conflict", name, number)
        told = [m.payload for m in self.sent(ground) if isinstance(m, QueryResponse)]
        assert [read_conflict(payload) for payload in told] == [(bytes((127, 0, 0, 1)), 7946), None]

    @pytest.mark.parametrize(("port", "ends"), [(7946, False), (7947, True)])
    def test_our_name_is_claimed(self, port: int, ends: bool) -> None:
        serf, ground = self.start()
        serf.notify_join(a_node("s1"))
        for _ in range(2):
            serf.notify_conflict(a_node("py"), Node("py", bytes((127, 0, 0, 1)), 1))
        serf.notify_conflict(a_node("other"), Node("other", bytes((127, 0, 0, 1)), 1))
        (job,) = ground.jobs
        asker = threading.Thread(target=job)
        asker.start()
        while not (asked := [m for m in self.sent(ground) if isinstance(m, Query)]):
            asker.join(0.001)
        (query,) = asked
        answer = pack_conflict(Node("py", bytes((127, 0, 0, 1)), port), 1)
        for sender, payload in (("s1", answer), ("s2", answer), ("s3", pack_conflict(None, 0)), ("py", b"junk")):
            serf.notify_msg(encode_query_message(QueryResponse(query.ltime, query.id, sender, 0, payload)))
        asker.join(5)
        assert ground.stopped is ends

    def test_where_nobody_answers_it_stays(self) -> None:
        serf, ground = self.start()
        ground.config = ground.config.replace(gossip_interval=0.0001)
        serf.notify_conflict(a_node("py"), Node("py", bytes((127, 0, 0, 1)), 1))
        ground.jobs.pop()()
        assert not ground.stopped
        serf.notify_conflict(a_node("py"), Node("py", bytes((127, 0, 0, 1)), 1))
        assert len(ground.jobs) == 1, "and asks again when it is claimed again"

    def test_not_if_it_is_switched_off(self) -> None:
        serf, ground = self.start(resolve_conflicts=False)
        serf.notify_conflict(a_node("py"), Node("py", bytes((127, 0, 0, 1)), 1))
        assert ground.jobs == []


class TestKeys:
    ONE, TWO = bytes(range(32)), bytes(range(50, 82))

    def start(self, *, key: bytes | None = ONE, **options: Any) -> tuple[SerfDelegate, FakeGround]:
        serf = SerfDelegate(**options)
        ground = FakeGround(serf.config(Config.local(name="py", secret_key=key, wire="msgpack")))
        serf.attached(cast(Any, ground))
        return serf, ground

    def ask(self, serf: SerfDelegate, ground: FakeGround, name: str, key: bytes = b"") -> tuple[bool, str, list[bytes]]:
        self.asked = getattr(self, "asked", 0) + 1
        query = Query(9, self.asked, HERE, 7946, "s1", (), 0, 0, 10**9, f"_serf_{name}", pack_key(key))
        serf.notify_msg(encode_query_message(query))
        for job in ground.jobs:
            job()
        ground.jobs.clear()
        (told,) = [m for _, data, _ in ground.sent if isinstance(m := decode_query_message(data), QueryResponse)]
        ground.sent.clear()
        fields, _ = msgpack.unpack(told.payload, 1)
        assert told.payload[0] == 8
        keys = [base64.b64decode(one) for one in fields[b"Keys"] or []]
        assert fields[b"PrimaryKey"] == (base64.b64encode(keys[0]) if keys else b"")
        return fields[b"Result"], fields[b"Message"].decode(), keys

    def test_a_rotation(self) -> None:
        serf, ground = self.start()
        assert self.ask(serf, ground, "list-keys") == (True, "", [self.ONE])
        assert self.ask(serf, ground, "use-key", self.TWO) == (False, ANY_TEXT, [])
        assert self.ask(serf, ground, "install-key", self.TWO) == (True, "", [])
        assert self.ask(serf, ground, "install-key", self.TWO) == (True, "", []), "again is no error"
        assert self.ask(serf, ground, "use-key", self.TWO) == (True, "", [])
        assert self.ask(serf, ground, "list-keys") == (True, "", [self.TWO, self.ONE])
        assert self.ask(serf, ground, "remove-key", self.TWO)[0] is False
        assert self.ask(serf, ground, "remove-key", self.ONE) == (True, "", [])
        assert self.ask(serf, ground, "remove-key", self.ONE) == (True, "", [])
        assert ground.keyring.keys() == (self.TWO,)

    @pytest.mark.parametrize("key", [b"", b"short", bytes(33)])
    def test_what_is_no_key(self, key: bytes) -> None:
        serf, ground = self.start()
        assert self.ask(serf, ground, "install-key", key) == (False, ANY_TEXT, [])
        assert ground.keyring.keys() == (self.ONE,)

    def test_not_without_encryption_and_not_if_it_is_not_allowed(self) -> None:
        assert self.ask(*self.start(key=None), "install-key", self.TWO) == (False, ANY_TEXT, [])
        serf, ground = self.start(change_keys=False)
        for name in ("install-key", "list-keys", "use-key", "remove-key"):
            done, why, keys = self.ask(serf, ground, name, self.TWO)
            assert (done, keys) == (False, []) and "change_keys=False" in why
        assert ground.keyring.keys() == (self.ONE,)

    def test_keys_are_bounded_and_so_is_the_list(self) -> None:
        serf, ground = self.start(query_size_limit=400)
        many = [bytes(range(n, n + 32)) for n in range(1, 17)]
        assert [self.ask(serf, ground, "install-key", key)[0] for key in many] == [True] * 15 + [False]
        done, message, keys = self.ask(serf, ground, "list-keys")
        assert done and 0 < len(keys) < 16 and f"the first {len(keys)} of 16 keys" in message

    def test_a_file_keeps_them(self, tmp_path: Path) -> None:
        path = tmp_path / "keyring"
        serf, ground = self.start(keyring_file=str(path))
        assert KeyringFile(path).load() == (self.ONE,)
        self.ask(serf, ground, "install-key", self.TWO)
        self.ask(serf, ground, "use-key", self.TWO)
        assert KeyringFile(path).load() == (self.TWO, self.ONE)
        ground.keyring.remove(self.ONE)  # by the user: it is written too
        ground.jobs.pop()()
        again = SerfDelegate(keyring_file=str(path)).config(Config.local(name="py", secret_key=self.ONE))
        assert (again.secret_key, again.keys) == (self.TWO, ())

    def test_a_file_that_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        serf, ground = self.start(keyring_file=str(tmp_path / "keyring"))
        (tmp_path / "keyring").unlink()
        tmp_path.rmdir()
        done, why, _ = self.ask(serf, ground, "install-key", self.TWO)
        assert not done and "cannot write" in why
        tmp_path.mkdir()
