"""The two processes of one measurement in ``tools/bench data``, and the certificate they share."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.child import as_child
from lab.lines import Lines

WORKER = "benchmarks.data.worker"


class WorkerError(Exception):
    """A worker could not do what it was told; ``trace`` is its traceback."""

    def __init__(self, text: str, trace: str = "") -> None:
        super().__init__(text)
        self.trace = trace


class Worker:
    """One process that obeys orders, ``benchmarks.data.worker`` or another; `prefix` is put before its command."""

    def __init__(self, prefix: list[str], module: str = WORKER) -> None:
        self.child = subprocess.Popen(
            [*prefix, *as_child(module)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.lines = Lines(self.child)

    def tell(self, do: str, timeout: float = 60.0, **order: Any) -> Any:
        """Give an order and return its result; raises ``WorkerError``, also when none comes in time."""
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
            answer = json.loads(self.lines.next(timeout))
        except (OSError, EOFError) as error:
            raise WorkerError(f"{do}: {error}") from None
        if "error" in answer:
            raise WorkerError(f"{do}: {answer['error']}", answer["trace"])
        return answer["result"]

    def end(self) -> None:
        for pipe in (self.child.stdin, self.child.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self.child.wait(2)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Pair:
    """A context manager: a peer's server and a client that has reached it, each in a process of its own.

    `hosts` and `prefixes` are the server's and the client's address and what is
    put before their commands.
    """

    def __init__(
        self,
        peer: str,
        work: Path,
        hosts: tuple[str, str] = ("127.0.0.1", "127.0.0.1"),
        prefixes: tuple[list[str], list[str]] | None = None,
    ) -> None:
        self.peer, self.work, self.hosts = peer, str(work), hosts
        self.prefixes = prefixes or ([], [])

    def __enter__(self) -> Pair:
        self.server, self.client = Worker(self.prefixes[0]), Worker(self.prefixes[1])
        try:
            address = self.server.tell("serve", peer=self.peer, host=self.hosts[0], work=self.work)["address"]
            mine = self.client.tell("connect", peer=self.peer, host=self.hosts[1], work=self.work, address=address)
            self.server.tell("meet", address=mine["address"])
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if error is None:
            for worker in (self.client, self.server):
                with contextlib.suppress(WorkerError):
                    worker.tell("quit", timeout=5)
        self.end()

    def end(self) -> None:
        self.client.end()
        self.server.end()

    def bulk(self, size: int) -> dict[str, float]:
        """Send one value of `size` bytes; the result has both sides' peak of memory above what they had before."""
        before = self.server.tell("forget_peak")["now"]
        found: dict[str, float] = self.client.tell("bulk", size=size, timeout=300)
        found["rss_sender"] = found.pop("rss") / size
        found["rss_receiver"] = (self.server.tell("memory")["peak"] - before) / size
        return found


@contextlib.contextmanager
def certificate(*addresses: str) -> Iterator[Path]:
    """Make a folder with cert.pem and key.pem for localhost and `addresses`; it goes away afterwards."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(each)) for each in addresses)]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    with tempfile.TemporaryDirectory(prefix="mycorrizal-bench-") as folder:
        work = Path(folder)
        (work / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (work / "key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        yield work
