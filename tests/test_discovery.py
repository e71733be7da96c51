"""Each way to find members, with a DNS server, a multicast responder and a package of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from mycorrizal import ConfigError, OperationTimeout, PeerUnreachable, ReentrantCallError, ResourcesExhausted
from mycorrizal._runtime.host import finders
from mycorrizal._runtime.host.rundir import RuntimeDir
from mycorrizal._runtime.threads import reentry
from mycorrizal.discovery import AgentRecord, Discovery
from tests.needs import lacks


def record(name: str = "a", cluster: str = "c", port: int = 7000, host: str = "127.0.0.1") -> AgentRecord:
    return AgentRecord(name, cluster, pid=os.getpid(), host=host, port=port)


def found(seed: str, **more: Any) -> list[str]:
    """Return what one seed leads to; its error is raised."""
    with Discovery("c", [seed], **more) as discovery:
        entries = discovery.addresses(5.0)
        for error in discovery.failures.values():
            raise error
        return entries


# -- what needs nothing -------------------------------------------------------------------------------


def test_plain_entries_are_passed_on_in_their_order() -> None:
    with Discovery("c", ["10.0.0.5", "bob/10.0.0.6:1", " seeds.example.org ", "10.0.0.5"]) as discovery:
        assert discovery.addresses() == ["10.0.0.5:7946", "bob/10.0.0.6:1", "seeds.example.org:7946"]
        assert discovery.failures == {}
    assert Discovery("c", "10.0.0.5").addresses() == ["10.0.0.5:7946"]
    assert Discovery("c", ["::1", "bob/[::1]", "h"], port=9).addresses() == ["[::1]:9", "bob/[::1]:9", "h:9"]
    assert Discovery("c").addresses() == []


@pytest.mark.parametrize(
    ("seed", "match"),
    [
        ("host:http", "'http' is not a port"),
        (7, "not text"),
        ("consul://x", "nobody knows how to find agents by 'consul' .there are dns, local, mdns, srv; a package"),
        ("dns://", "no host"),
        ("dns://a/b", "write dns://name"),
        ("local://here", "nothing comes after"),
        ("srv://", "names nothing"),
        ("srv://a..b", "empty"),
        ("srv://seeds.example.org/x", "not an IP literal"),
        ("mdns://eth0", "holds what is no address"),
    ],
)
def test_a_wrong_entry_is_an_error_at_once(seed: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Discovery("c", [seed])


def test_seeds_are_bounded() -> None:
    Discovery("c", map(str, range(256)))
    with pytest.raises(ConfigError, match="257 seeds .at most 256"):
        Discovery("c", map(str, range(257)))
    with pytest.raises(ConfigError, match="cluster"):
        Discovery("")


@pytest.mark.parametrize(
    ("module", "seed", "extra"), [("dns.name", "srv://_m._udp.x", "dns"), ("zeroconf", "mdns://", "mdns")]
)
def test_a_missing_extra_names_the_command(
    module: str, seed: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("srv", "mdns"):
        monkeypatch.delitem(sys.modules, f"mycorrizal._runtime.host.{name}", raising=False)
    with pytest.raises(ConfigError, match=rf"pip install 'mycorrizal\[{extra}\]'"):
        Discovery("c", [seed])


def test_local_agents_are_those_of_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYCORRIZAL_RUNTIME_DIR", str(tmp_path / "run"))
    assert found("local://") == []
    assert not (tmp_path / "run").exists()
    rundir = RuntimeDir()
    with rundir.claim("c", "a") as a, rundir.claim("d", "b") as b:
        a.publish(record())
        b.publish(record("b", "d"))
        assert found("local://") == ["a/127.0.0.1:7000"]
        assert found("local://", rundir=rundir) == ["a/127.0.0.1:7000"]
    assert found("local://") == []


class Told:
    """A finder that finds a host without a port, and is to be closed."""

    def __init__(self, name: str) -> None:
        self.name, self.closes = name, 0

    def find(self, cluster: str, timeout: float) -> list[str]:
        return [self.name]

    def close(self) -> None:
        self.closes += 1


def test_seeds_stay_in_their_order_whoever_answers_first(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = finders.ask_all

    def last_first(*given: Any) -> dict[str, Any]:
        return dict(reversed(plain(*given).items()))

    monkeypatch.setattr(finders, "ask_all", last_first)
    assert Discovery("c", ["10.0.0.5:1", "10.0.0.6:1"]).addresses() == ["10.0.0.5:1", "10.0.0.6:1"]
    assert Discovery("c", ["10.0.0.6:1", "10.0.0.5:1"]).addresses() == ["10.0.0.6:1", "10.0.0.5:1"]


def test_what_is_found_has_the_port_of_seeds_and_is_closed_once() -> None:
    told = Told("host")
    discovery = Discovery("c", ["10.0.0.5"], port=9)
    discovery._finders["told"] = told
    assert discovery.addresses() == ["10.0.0.5:9", "host:9"]
    discovery.close()
    discovery.close()
    assert told.closes == 1 and discovery.addresses() == []


# -- DNS ----------------------------------------------------------------------------------------------


class Server:
    """A DNS server on loopback that answers what it has and nothing else."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.additional: list[tuple[str, str, str]] = []
        self.silent = False
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(4096)
            if not data:
                return
            if not self.silent:
                self._socket.sendto(self._answer(dns.message.from_wire(data)), client)

    def _answer(self, query: dns.message.Message) -> bytes:
        [question] = query.question
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{name} {kind}")
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA | dns.flags.RA
        texts = self.records.get((name, kind))
        if texts:
            answer.answer.append(dns.rrset.from_text_list(name, 60, "IN", kind, texts))
        elif not any(known == name for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        if kind == "SRV":
            for extra in self.additional:
                answer.additional.append(dns.rrset.from_text(extra[0], 60, "IN", extra[1], extra[2]))
        return answer.to_wire()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


SRV = "_mycorrizal._udp.example.org."


def test_service_records_lead_to_all_addresses_of_their_targets(server: Server) -> None:
    server.records = {
        (SRV, "SRV"): ["20 1 7003 c.x.", "10 1 7002 b.x.", "10 9 7001 a.x.", "1 1 0 zero.x.", "1 1 7000 gone.x."],
        ("a.x.", "A"): ["10.0.0.1", "10.0.0.2"],
        ("b.x.", "AAAA"): ["2001:db8::1"],
        ("c.x.", "A"): ["10.0.0.3"],
    }
    entries = found(f"srv://127.0.0.1:{server.port}/_mycorrizal._udp.example.org")
    assert sorted(entries[:2]) == ["10.0.0.1:7001", "10.0.0.2:7001"]
    assert entries[2:] == ["[2001:db8::1]:7002", "10.0.0.3:7003"]


def test_addresses_that_come_with_the_answer_are_not_asked_for(server: Server) -> None:
    server.records = {(SRV, "SRV"): ["1 1 7001 a.x."]}
    server.additional = [("a.x.", "A", "10.0.0.1"), ("a.x.", "AAAA", "::9"), ("a.x.", "TXT", '"x"')]
    assert found(f"srv://127.0.0.1:{server.port}/{SRV}") == ["10.0.0.1:7001", "[::9]:7001"]
    assert server.asked == [f"{SRV} SRV"]


@pytest.mark.parametrize(
    ("records", "match"),
    [
        ({}, "no SRV records of _mycorrizal._udp.example.org"),
        ({(SRV, "A"): ["10.0.0.1"]}, "no SRV records of"),
        ({(SRV, "SRV"): ["0 0 0 ."]}, "lead to no address"),
        ({(SRV, "SRV"): ["0 0 7000 a.x."]}, "lead to no address"),
    ],
)
def test_service_records_that_lead_nowhere(server: Server, records: Any, match: str) -> None:
    server.records = records
    with pytest.raises(PeerUnreachable, match=match):
        found(f"srv://127.0.0.1:{server.port}/{SRV}")


def test_a_server_that_does_not_answer_costs_the_timeout(server: Server) -> None:
    server.silent = True
    seed = f"srv://127.0.0.1:{server.port}/{SRV}"
    discovery = Discovery("c", [seed, "10.0.0.5"])
    assert discovery.addresses(0.2) == ["10.0.0.5:7946"]
    assert isinstance(discovery.failures[seed], PeerUnreachable | OperationTimeout)


def test_the_system_s_configuration_counts_without_a_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import dns.resolver

    def read(resolver: dns.resolver.Resolver, name: object) -> None:  # instead of /etc/resolv.conf
        resolver.nameservers, resolver.port = ["127.0.0.1"], server.port

    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", read)
    server.records = {(SRV, "SRV"): ["1 1 7001 a.x."], ("a.x.", "A"): ["10.0.0.1"]}
    assert found("srv://_mycorrizal._udp.example.org") == ["10.0.0.1:7001"]


def test_names_lead_to_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: int, **more: object) -> list[Any]:
        if host != "seeds.example.org":
            raise socket.gaierror(-2, "Name or service not known")
        v4 = [(socket.AF_INET, 0, 0, "", (f"10.0.{n // 250}.{n % 250}", port)) for n in range(100)]
        return [(socket.AF_INET6, 0, 0, "", ("2001:db8::1", port, 0, 0)), *v4]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    entries = found("dns://seeds.example.org:70")
    assert entries[:2] == ["[2001:db8::1]:70", "10.0.0.0:70"]
    assert len(entries) == 64
    assert found("dns://seeds.example.org", port=71)[1] == "10.0.0.0:71"
    with pytest.raises(PeerUnreachable, match="cannot resolve 'nowhere'"):
        found("dns://nowhere")


# -- multicast ------------------------------------------------------------------------------------------


@pytest.fixture
def need_multicast() -> None:
    """Skip where the kernel has no multicast on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            group = socket.inet_aton("224.0.0.251") + socket.inet_aton("127.0.0.1")
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        except OSError as exc:
            lacks(f"no multicast on loopback ({exc}); `ip link set lo multicast on` gives it")


@pytest.mark.slow
@pytest.mark.usefixtures("need_multicast")
def test_members_on_the_segment_are_found_by_cluster() -> None:
    seed = "mdns://127.0.0.1"
    with contextlib.ExitStack() as stack:
        a, b, other, looking = (
            stack.enter_context(Discovery(cluster, [seed, "10.0.0.5"])) for cluster in ("c", "c", "d", "c")
        )
        a.advertise(record("a", port=7001))
        b.advertise(record("é" * 127, port=7002, host="::1"))  # too long a name to be told
        other.advertise(record("x", "d", port=7003))
        assert dict(a.failures) == dict(b.failures) == dict(other.failures) == {}
        expected = {"a/127.0.0.1:7001", "[::1]:7002", "10.0.0.5:7946"}
        assert set(looking.addresses(5.0)) == expected, dict(looking.failures)
        assert set(a.addresses(5.0)) == expected  # itself too
        a.close()
        a.close()
        with Discovery("c", [seed]) as later:
            assert later.addresses(5.0) == ["[::1]:7002"]
    assert [thread.name for thread in threading.enumerate() if "zeroconf" in thread.name] == []


@pytest.mark.usefixtures("need_multicast")
def test_nobody_on_the_segment_is_no_failure() -> None:
    with Discovery("nobody", ["mdns://127.0.0.1"]) as discovery:
        assert discovery.addresses(1.0) == []
        assert dict(discovery.failures) == {}


# -- other people's packages -----------------------------------------------------------------------------


PACKAGE = '''
import threading

calls = []
hang = threading.Event()

def function(location, cluster, timeout):
    calls.append((location, cluster, 0 < timeout <= 30))
    return [f"{location}:7001", "bob/10.0.0.2"]

class Finder:
    def __init__(self, location):
        if location == "wrong":
            raise KeyError("location")
        self.location = location

    def find(self, cluster, timeout):
        if self.location == "raise":
            raise RuntimeError("the registry is down")
        if self.location == "hang":
            hang.wait()
        return {"text": "10.0.0.1", "none": None, "bad": ["a:b:c:d/e:x"], "number": [7],
                "many": [f"10.0.0.{n}" for n in range(200)]}.get(self.location, [cluster])

    def advertise(self, record):
        calls.append(("advertise", record.name))
        if self.location == "shy":
            raise RuntimeError("not told")

    def close(self):
        calls.append(("close", self.location))
        if self.location == "shy":
            raise RuntimeError("not forgotten")

class Empty:
    def __init__(self, location):
        pass
'''
POINTS = "function = strange_finders:function\nfinder = strange_finders:Finder\nempty = strange_finders:Empty\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Install a distribution with entry points, as far as Python can tell; return its module."""
    (tmp_path / "strange_finders.py").write_text(PACKAGE)
    info = tmp_path / "strange_finders-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-finders\nVersion: 1.0\n")
    broken = "missing = not_installed:x\n"
    (info / "entry_points.txt").write_text(f"[mycorrizal.discovery]\n{POINTS}{broken}dns = strange_finders:Empty\n")
    monkeypatch.syspath_prepend(tmp_path)
    import strange_finders  # type: ignore[import-not-found]

    yield strange_finders
    strange_finders.hang.set()
    del sys.modules["strange_finders"]


def test_a_function_of_a_package_is_called_with_the_rest(package: Any) -> None:
    assert found("function://10.0.0.1") == ["10.0.0.1:7001", "bob/10.0.0.2:7946"]
    assert package.calls == [("10.0.0.1", "c", True)]


def test_a_class_of_a_package_is_asked_told_and_closed(package: Any) -> None:
    with Discovery("host", ["finder://x", "finder://shy"]) as discovery:
        assert discovery.addresses() == ["host:7946"]
        discovery.advertise(record("me"))
        assert str(discovery.failures["finder://shy"]) == "not told" and len(discovery.failures) == 1
    assert str(discovery.failures["finder://shy"]) == "not forgotten" and len(discovery.failures) == 1
    assert sorted(package.calls) == [("advertise", "me")] * 2 + [("close", "shy"), ("close", "x")]


@pytest.mark.parametrize(
    ("rest", "match"),
    [
        ("raise", "the registry is down"),
        ("text", "gave str, not a list"),
        ("none", "gave NoneType, not a list"),
        ("bad", "gave what is no entry"),
        ("number", "gave what is no entry: .*7 is not text"),
    ],
)
def test_what_a_package_does_wrong_is_its_seed_s_failure(package: Any, rest: str, match: str) -> None:
    with Discovery("c", [f"finder://{rest}", "10.0.0.5"]) as discovery:
        assert discovery.addresses() == ["10.0.0.5:7946"]
        with pytest.raises((RuntimeError, PeerUnreachable), match=match):
            raise discovery.failures[f"finder://{rest}"]
        assert len(discovery.failures) == 1


def test_what_a_package_finds_is_bounded(package: Any) -> None:
    assert len(found("finder://many")) == finders.FOUND_MAX


def test_a_package_that_cannot_be_used_is_said_at_once(package: Any) -> None:
    for seed, match in (
        ("finder://wrong", "strange_finders:Finder failed: KeyError: 'location'"),
        ("missing://x", "not_installed:x failed: ModuleNotFoundError"),
        ("empty://x", r"strange_finders:Empty has no find\(cluster, timeout\)"),
        ("nope://x", "there are dns, empty, finder, function, local, mdns, missing, srv;"),
    ):
        with pytest.raises(ConfigError, match=match):
            Discovery("c", [seed])
    assert found("dns://127.0.0.1") == ["127.0.0.1:7946"]  # what we have is not replaced


def test_one_that_hangs_is_left_behind(package: Any) -> None:
    with Discovery("c", ["finder://hang", "10.0.0.5"]) as discovery:
        assert discovery.addresses(0.1) == ["10.0.0.5:7946"]
        error = discovery.failures["finder://hang"]
        assert isinstance(error, OperationTimeout)
        assert str(error) == "finder://hang has not answered in time"


def test_those_that_hang_are_bounded(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finders, "_threads", threading.BoundedSemaphore(2))
    discovery = Discovery("c", ["finder://hang"])
    for _ in range(2):
        assert discovery.addresses(0.05) == []
    assert discovery.addresses(10.0) == []
    assert "is not asked: 32 earlier lookups hang" in str(discovery.failures["finder://hang"])
    package.hang.set()
    done = threading.Semaphore.acquire(finders._threads, timeout=10)
    finders._threads.release()
    assert done
    assert discovery.addresses() == ["c:7946"]


def test_without_threads_nothing_is_asked_and_nothing_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the interpreter Python 3.12 and later start none."""
    seen = threading.BoundedSemaphore(1)
    monkeypatch.setattr(finders, "_threads", seen)
    text = "can't create new thread at interpreter shutdown"
    monkeypatch.setattr(threading.Thread, "start", lambda thread: exec(f"raise RuntimeError({text!r})"))
    with Discovery("c", ["10.0.0.5"]) as discovery:
        assert discovery.addresses() == []
        error = discovery.failures["10.0.0.5"]
        assert isinstance(error, ResourcesExhausted)
        assert text in str(error) and "the interpreter is ending" in str(error)
    assert seen.acquire(blocking=False)


def test_it_is_refused_where_nobody_may_wait() -> None:
    discovery = Discovery("c", ["10.0.0.5"])
    with reentry.owner("mycorrizal-gossip"):
        with pytest.raises(ReentrantCallError):
            discovery.addresses()
        with pytest.raises(ReentrantCallError):
            discovery.advertise(record())
