"""Trust in an operator's certificates: files, names, proofs, and attacks over real connections."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal._runtime.quic.trust import pki
from mycorrizal._runtime.quic.trust.certificates import ServerTls, hashed_name, wall
from mycorrizal._runtime.quic.trust.keys import Binding, KeyTrust
from mycorrizal._runtime.quic.trust.pki import PkiTrust, tls_name
from mycorrizal._wire.security import Keyring
from mycorrizal.exceptions import ConfigError, ProofError
from tests.keys import key_of

from .authority import CLIENT, SERVER, Authority, Files, PrivateKey
from .pairs import UNKNOWN_CA, Pair, connect, nonce, prove_over

NAMES = ("alice", "bob")
S = Binding(bytes(32), bytes([1]) * 32, bytes([2]) * 32, *NAMES)


@pytest.fixture
def root(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def bindings(pair: Pair, names: tuple[str, str] = NAMES) -> tuple[Binding, Binding]:
    both = nonce(), nonce()
    return Binding(pair.client.channel, *both, *names), Binding(pair.server.channel, *both, *names)


class Forged(PkiTrust):
    """A client or server that does not look at its own certificate first, as an attacker's would not."""

    def __init__(self, name: str, good: Files, files: Files) -> None:
        super().__init__(name, *good)
        private = load_pem_private_key(files.keyfile.read_bytes(), None)
        assert isinstance(private, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
        chain = x509.load_pem_x509_certificates(files.certfile.read_bytes())
        self._identity = type(self._identity)(private, chain, chain[-1:])


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bob", "a.example.com", "node-1", "n1", "1a", "x" * 63, "1.2.3.a", "n" + "a" * 61])
def test_host_names_stay(name: str) -> None:
    assert tls_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("Bob", "a b", "a_b", "é", "", ".", "a.", "a..b", "-a", "a-", "123", "10.0.0.1", "a.7", "::1", "*", "*.a"),
        *("a\n", "x" * 64, ".".join(["a" * 60] * 5), hashed_name("Bob")),
    ],
)
def test_other_names_are_hashed(name: str) -> None:
    assert tls_name(name) == hashed_name(name)


@given(st.from_regex(r"[a-cA-C0-9.\-]{1,6}", fullmatch=True), st.from_regex(r"[a-cA-C0-9.\-]{1,6}", fullmatch=True))
def test_no_two_nodes_share_a_name(one: str, other: str) -> None:
    assert (tls_name(one).lower() == tls_name(other).lower()) == (one == other)


# -- the good case -----------------------------------------------------------------------------


@pytest.mark.parametrize("names", [NAMES, ("Alice B", "10.0.0.1"), ("a.example.com", "b.example.com")])
def test_nodes_of_one_authority_connect_and_prove(root: Authority, names: tuple[str, str]) -> None:
    alice, bob = root.trust(names[0]), root.trust(names[1])
    pair = connect(alice, bob, names[1])
    assert pair.client.complete
    found = prove_over(pair, alice, bob, names)
    assert bob.holds(found) and alice.holds(found)
    leaf = alice.server_tls().certificate
    assert found == f"{leaf.fingerprint(SHA256()).hex()}:{int(leaf.not_valid_after_utc.timestamp())}"


def test_chain_with_an_intermediate(tmp_path: Path, root: Authority) -> None:
    middle = Authority(tmp_path, "middle", root)
    alice, bob = middle.trust("alice"), middle.trust("bob")
    assert len(bob.server_tls().chain) == 1
    pair = connect(alice, bob, "bob")
    assert pair.client.complete
    prove_over(pair, alice, bob, NAMES)
    prove_over(connect(root.trust("alice"), bob, "bob"), root.trust("alice"), bob, NAMES)


@pytest.mark.parametrize(
    "private", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)], ids=["P-384", "RSA"]
)
def test_other_kinds_of_key(root: Authority, private: PrivateKey) -> None:
    alice = PkiTrust("alice", *root.issue("alice", private=private))
    bob = PkiTrust("bob", *root.issue("bob", private=private))
    pair = connect(alice, bob, "bob")
    assert pair.client.complete
    prove_over(pair, alice, bob, NAMES)


def test_key_under_a_password(root: Authority) -> None:
    files = root.issue("alice", password=b"geheim")
    for password in ("geheim", b"geheim"):
        PkiTrust("alice", *files, password)
    for wrong in (None, "falsch"):
        with pytest.raises(ConfigError, match="password") as caught:
            PkiTrust("alice", *files, wrong)
        assert "the private key" in str(caught.value) and "falsch" not in str(caught.value)


def test_dialling_needs_a_name(root: Authority) -> None:
    with pytest.raises(ConfigError, match="by its name"):
        root.trust("alice").client_tls(None)


def test_nothing_that_needs_a_common_key(root: Authority) -> None:
    alice = root.trust("alice")
    assert alice.knock() == b"" and not alice.knows(b"") and alice.reset_token(b"1") is None


# -- files that are refused at construction ------------------------------------------------------


def refused(root: Authority, field: str, text: str, files: Files, node: str = "alice") -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        PkiTrust(node, *files)
    assert caught.value.field == (field if field == "name" else "certificates")
    if field != "name":
        words, path = {"certfile": "the certificate", "keyfile": "the private key", "cafile": "the CA"}, files._asdict()
        assert words[field] in str(caught.value) and str(path[field]) in str(caught.value)


def test_certificate_of_another_name(root: Authority) -> None:
    refused(root, "certfile", "DNS:alice", root.issue("bob"))
    refused(root, "certfile", f"DNS:{hashed_name('Alice')}", root.issue("alice"), "Alice")
    refused(root, "certfile", "DNS:a.example.com", root.issue("x", names=("*.example.com",)), "a.example.com")
    refused(root, "certfile", "DNS:alice", root.issue("alice", names=()))
    refused(root, "name", "empty", root.issue("alice"), "")


def test_certificate_outside_its_dates(root: Authority) -> None:
    refused(root, "certfile", "not now", root.issue("alice", days=(-9, -1)))
    refused(root, "certfile", "not now", root.issue("alice", days=(1, 9)))


def test_certificate_for_one_use_only(root: Authority) -> None:
    refused(root, "certfile", "as a client", root.issue("alice", uses=(SERVER,)))
    refused(root, "certfile", "as a server", root.issue("alice", uses=(CLIENT,)))
    PkiTrust("alice", *root.issue("alice", uses=()))


def test_files_that_do_not_fit_together(tmp_path: Path, root: Authority) -> None:
    one, other = root.issue("alice"), root.issue("alice")
    refused(root, "keyfile", "not the key", one._replace(keyfile=other.keyfile))
    stranger = Authority(tmp_path, "stranger").issue("alice")
    refused(root, "certfile", "refuse it", one._replace(cafile=stranger.cafile))
    refused(root, "cafile", "root", one._replace(cafile=one.certfile))  # a leaf is no authority
    middle = tmp_path / "middle"
    middle.write_bytes(Authority(tmp_path, "middle", root).certificate.public_bytes(Encoding.PEM))
    refused(root, "cafile", "root", one._replace(cafile=middle))


def test_files_that_are_no_pem(tmp_path: Path, root: Authority) -> None:
    good, bad = root.issue("alice"), tmp_path / "bad"
    for data in (None, b"", b"\x00\xff", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        if data is not None:
            bad.write_bytes(data)
        text = "cannot read" if data is None else "PEM|private key"
        refused(root, "certfile", text, good._replace(certfile=bad))
        refused(root, "keyfile", text, good._replace(keyfile=bad))
        refused(root, "cafile", text, good._replace(cafile=bad))


def test_private_key_that_others_can_read(root: Authority) -> None:
    files = root.issue("alice")
    files.keyfile.chmod(0o644)
    refused(root, "keyfile", "others can read it .mode 0644.*chmod 600", files)
    files.certfile.chmod(0o644)
    files.keyfile.chmod(0o600)
    PkiTrust("alice", *files)


def test_a_pipe_is_no_file_of_these(root: Authority, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for field in Files._fields:
        refused(root, field, "no regular file", root.issue("alice")._replace(**{field: tmp_path / "pipe"}))


def test_validity_ends_with_the_first_that_expires(root: Authority, tmp_path: Path) -> None:
    files = root.issue("alice", days=(-1, 20))
    leaf = x509.load_pem_x509_certificate(files.certfile.read_bytes())
    begins, ends = PkiTrust("alice", *files).validity()
    assert (begins, ends) == (leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp())
    longer = PkiTrust("alice", *root.issue("alice", days=(-1, 90))).validity()
    assert longer[1] == root.certificate.not_valid_after_utc.timestamp()
    key = KeyTrust(Keyring(primary=bytes(range(32))), "alice", "c")
    assert key.validity() is None
    with pytest.raises(ConfigError, match="certificates: none were given"):
        key.reload()


def test_keys_of_other_kinds_and_sizes(root: Authority) -> None:
    refused(root, "certfile", "kind or size", root.issue("alice", private=ed25519.Ed25519PrivateKey.generate()))
    refused(root, "certfile", "kind or size", root.issue("alice", private=ec.generate_private_key(ec.SECP521R1())))
    files = root.issue("alice")
    ed = root.issue("alice", private=ed25519.Ed25519PrivateKey.generate())
    refused(root, "keyfile", "another kind", files._replace(keyfile=ed.keyfile))


def test_chain_that_is_too_long(root: Authority) -> None:
    many = tuple(f"a{i}.{'x' * 60}.example.com" for i in range(120))
    refused(root, "certfile", "too large", root.issue("alice", names=("alice", *many)))
    files = root.issue("alice")
    files.certfile.write_bytes(files.certfile.read_bytes() * 6)
    refused(root, "certfile", "at most", files)


# -- reload --------------------------------------------------------------------------------------


def test_reload_takes_a_renewed_certificate_and_tells(root: Authority) -> None:
    files, told = root.issue("alice"), []
    alice = PkiTrust("alice", *files)
    before = alice.server_tls().certificate
    callback = lambda: told.append(alice.server_tls().certificate)  # noqa: E731
    alice.watch(callback)
    renewed = root.issue("alice")
    files.certfile.write_bytes(renewed.certfile.read_bytes())
    with pytest.raises(ConfigError, match="not the key"):
        alice.reload()
    assert told == [] and alice.server_tls().certificate == before
    files.keyfile.write_bytes(renewed.keyfile.read_bytes())
    alice.reload()
    assert told == [alice.server_tls().certificate] != [before]
    alice.unwatch(callback)
    alice.reload()
    assert len(told) == 1


def test_expired_certificate_is_not_held(root: Authority) -> None:
    used = root.trust("alice").prove(S, root.trust("bob").offer())[1]
    now = [wall()]
    bob = PkiTrust("bob", *root.issue("bob"), clock=lambda: now[0])
    assert bob.holds(used)
    now[0] += 31 * 86400.0
    assert not bob.holds(used)
    assert not any(bob.holds(text) for text in ("", "abc", "abc:-1", "abc:", ":x"))


# -- attacks: the server -------------------------------------------------------------------------


def test_server_of_another_name_is_refused_in_tls(root: Authority) -> None:
    assert connect(root.trust("alice"), root.trust("carol"), "bob").refused == UNKNOWN_CA


def test_server_of_another_authority_is_refused_in_tls(tmp_path: Path, root: Authority) -> None:
    other = Authority(tmp_path, "root")  # of the same name, even
    assert connect(root.trust("alice"), other.trust("bob"), "bob").refused == UNKNOWN_CA


def test_keyed_and_certified_nodes_refuse_each_other(root: Authority) -> None:
    keyed, alice = KeyTrust(Keyring((), key_of("k")), "bob", "c"), root.trust("alice")
    assert connect(alice, keyed, "bob").refused == UNKNOWN_CA
    assert connect(keyed, alice, "alice").refused == UNKNOWN_CA
    with pytest.raises(ProofError, match="takes no certificates"):
        alice.prove(S, keyed.offer())
    with pytest.raises(ProofError, match="malformed"):
        keyed.prove(S, alice.offer())


def test_server_with_a_clients_certificate_passes_tls_but_not_its_answer(root: Authority) -> None:
    """aioquic does not look at the extended key usage; the answer does."""
    alice = root.trust("alice")
    thief = Forged("bob", root.issue("bob"), root.issue("bob", uses=(CLIENT,)))
    pair = connect(alice, thief, "bob")
    assert pair.client.complete
    mine, theirs = bindings(pair)
    used = alice.prove(mine, thief.offer())[1]
    with pytest.raises(ProofError, match="not trusted.*EKU"):
        alice.check_answer(mine, used, thief.answer(theirs, used))


def test_wildcard_passes_tls_but_not_the_answer(root: Authority) -> None:
    alice = root.trust("alice")
    names = ("*.example.com",)
    broad = Forged("b.example.com", root.issue("b.example.com"), root.issue("b.example.com", names=names))
    pair = connect(alice, broad, "b.example.com")
    mine, theirs = bindings(pair, ("alice", "b.example.com"))
    used = alice.prove(mine, broad.offer())[1]
    with pytest.raises(ProofError, match="not one for"):
        alice.check_answer(mine, used, broad.answer(theirs, used))


# -- attacks: the client -------------------------------------------------------------------------


def attack(root: Authority, files: Files, text: str, claimed: str = "alice") -> None:
    """Dial bob with the certificate in `files` under the name `claimed`; the proof must be refused."""
    bob = root.trust("bob")
    mallory = Forged("mallory", root.issue("mallory"), files)
    pair = Pair(bob.client_tls("bob"), bob.server_tls()).pump()
    assert pair.server.complete
    mine, theirs = bindings(pair, (claimed, "bob"))
    proof, _ = mallory.prove(mine, bob.offer())
    with pytest.raises(ProofError, match=text):
        bob.verify(theirs, proof)
    # A proof that is well-formed but for this is taken: what was refused is what the test is about.
    alice = root.trust("alice")
    mine, theirs = bindings(pair)
    assert bob.verify(theirs, alice.prove(mine, bob.offer())[0])


def test_client_with_a_valid_certificate_of_another_name(root: Authority) -> None:
    attack(root, root.issue("mallory"), "not one for 'alice'")
    attack(root, root.issue("mallory", names=("*", "mallory")), "not one for 'alice'")
    attack(root, root.issue("alice"), "not one for 'Alice'", claimed="Alice")


def test_client_with_a_servers_certificate(root: Authority) -> None:
    attack(root, root.issue("alice", uses=(SERVER,)), "EKU")


def test_client_with_an_expired_or_future_certificate(root: Authority) -> None:
    attack(root, root.issue("alice", days=(-9, -1)), "not trusted")
    attack(root, root.issue("alice", days=(1, 9)), "not trusted")


def test_client_of_another_authority(tmp_path: Path, root: Authority) -> None:
    attack(root, Authority(tmp_path, "root").issue("alice"), "not trusted")


def test_client_with_a_leaf_signed_by_a_leaf(tmp_path: Path, root: Authority) -> None:
    """Mallory's own valid certificate cannot vouch for one that says alice."""
    middle = Authority(tmp_path, "mallory", root)
    middle.certificate = root.sign(
        "mallory", middle.private, names=("mallory",), uses=(), authority=False, above=root, days=(-1, 30)
    )
    attack(root, middle.issue("alice"), "out of order")


def test_extensions_that_cannot_be_read(tmp_path: Path, root: Authority) -> None:
    attack(root, root.issue("alice", names=(), broken=x509.SubjectAlternativeName.oid), "not one for")
    attack(root, root.issue("alice", uses=(), broken=x509.ExtendedKeyUsage.oid), "not one for")
    broken = Authority(tmp_path, "broken", root, broken=x509.BasicConstraints.oid)
    attack(root, broken.issue("alice"), "out of order")
    assert not pki._is_root(broken.certificate)


@pytest.mark.parametrize(("name", "signatures"), [("evil", 0), ("root", 1)])
def test_strangers_chain_ends_at_its_first_signature(
    tmp_path: Path, root: Authority, monkeypatch: pytest.MonkeyPatch, name: str, signatures: int
) -> None:
    """Certificates that could all have issued each other must not be tried in every order."""
    evil = Authority(tmp_path, name)
    files = evil.issue("alice")
    files.certfile.write_bytes(files.certfile.read_bytes() + evil.certificate.public_bytes(Encoding.PEM) * 4)
    bob, proof = root.trust("bob"), Forged("alice", root.issue("alice"), files).prove(S, b"x509")[0]
    tried: list[str] = []

    def signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        tried.append("signature")
        return check(certificate, issuer)

    check = pki._signed_by
    monkeypatch.setattr(pki, "_signed_by", signed_by)
    with pytest.raises(ProofError, match="out of order"):
        bob.verify(S, proof)
    assert len(tried) == signatures


def test_authority_itself_is_no_node(root: Authority) -> None:
    attack(root, root.issue("alice", authority=True), "not trusted")


def test_client_without_the_private_key(root: Authority) -> None:
    """Certificates are public: alice's, with a signature of mallory's."""
    alice, mallory = root.trust("alice"), root.trust("mallory")
    bob = root.trust("bob")
    stolen = alice._identity
    forged = mallory.prove(S, bob.offer())[0][len(mallory._identity.prefix) :]
    with pytest.raises(ProofError, match="signature"):
        bob.verify(S, stolen.prefix + forged)
    with pytest.raises(ProofError, match="signature"):
        bob.verify(S, stolen.prefix)


def test_relay_by_a_node_that_was_dialled(root: Authority) -> None:
    """Alice dials mallory, a node in good standing, who passes bob's nonce on and then alice's proof to bob."""
    alice, bob, mallory = root.trust("alice"), root.trust("bob"), root.trust("mallory")
    inner, outer = connect(alice, mallory, "mallory"), connect(mallory, bob, "bob")
    assert inner.client.complete and outer.client.complete
    mine, theirs = bindings(inner, ("alice", "mallory"))[0], bindings(outer)[1]
    mine = replace(mine, server_nonce=theirs.server_nonce, client_nonce=theirs.client_nonce)
    proof, _ = alice.prove(mine, mallory.offer())
    with pytest.raises(ProofError, match="signature"):
        bob.verify(theirs, proof)
    # The channel alone is enough to refuse it, even had alice been told she speaks to bob.
    proof, used = alice.prove(replace(mine, server="bob"), mallory.offer())
    with pytest.raises(ProofError, match="signature"):
        bob.verify(theirs, proof)
    with pytest.raises(ProofError, match="signature"):
        alice.check_answer(replace(mine, server="bob"), used, bob.answer(theirs, used))


def test_proof_of_another_session_or_role(root: Authority) -> None:
    alice, bob = root.trust("alice"), root.trust("bob")
    proof, used = alice.prove(S, bob.offer())
    assert bob.verify(S, proof) == used
    answer = bob.answer(S, used)
    alice.check_answer(S, used, answer)
    for changed in (
        replace(S, channel=bytes([7]) * 32),
        replace(S, server_nonce=bytes([7]) * 32),
        replace(S, client_nonce=bytes([7]) * 32),
    ):
        with pytest.raises(ProofError, match="signature"):
            bob.verify(changed, proof)
        with pytest.raises(ProofError, match="signature"):
            alice.check_answer(changed, used, answer)
    with pytest.raises(ProofError, match="signature"):
        alice.check_answer(S, used + "0", answer)
    same = replace(S, client="alice", server="alice")
    proof, used = alice.prove(same, alice.offer())
    with pytest.raises(ProofError, match="signature"):
        alice.check_answer(same, used, proof)
    with pytest.raises(ProofError, match="signature"):
        alice.verify(same, alice.answer(same, used))


def test_malformed_proofs(root: Authority) -> None:
    alice, bob = root.trust("alice"), root.trust("bob")
    proof = alice.prove(S, bob.offer())[0]
    for bad in (b"", b"\x00", b"\x06" + proof[1:], b"\x01", b"\x01\x00", b"\x01\x00\x00", proof + bytes(16384)):
        with pytest.raises(ProofError):
            bob.verify(S, bad)
    for at in range(0, len(proof), 7):
        for bad in (proof[:at], proof[:at] + bytes([proof[at] ^ 0x55]) + proof[at + 1 :]):
            with pytest.raises(ProofError):
                bob.verify(S, bad)


@given(st.binary(max_size=300))
def test_garbage_is_a_proof_error_and_nothing_else(data: bytes) -> None:
    for framed in (data, b"\x01" + len(data).to_bytes(2, "big") + data):
        with pytest.raises(ProofError):
            PkiTrust.verify(NOBODY, S, framed)


NOBODY = object.__new__(PkiTrust)  # refuses before it looks at itself


def test_keys_that_are_slow_to_check_are_refused_before_they_are_used(root: Authority) -> None:
    bob = root.trust("bob")
    slow = rsa.RSAPublicNumbers((1 << 2047) + 1, (1 << 2048) - 159).public_key()
    leaf = _with_key(root, slow)
    der = leaf.public_bytes(Encoding.DER)
    with pytest.raises(ProofError, match="kind or size"):
        bob.verify(S, b"\x01" + len(der).to_bytes(2, "big") + der + bytes(256))


def _with_key(root: Authority, public: rsa.RSAPublicKey) -> x509.Certificate:
    class Holder:
        def public_key(self) -> rsa.RSAPublicKey:
            return public

    holder: object = Holder()
    return root.sign(
        "alice",
        holder,  # type: ignore[arg-type]
        names=("alice",),
        uses=(),
        authority=False,
        above=root,
        days=(-1, 1),
    )


def test_server_tls_is_what_the_files_say(root: Authority) -> None:
    tls = root.trust("bob").server_tls()
    assert repr(root.trust("bob")) == "<PkiTrust of 'bob'>"
    assert isinstance(tls, ServerTls) and tls.private_key.public_key() == tls.certificate.public_key()
