"""Trust over real aioquic connections in memory: who gets in, and how each attack ends."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from mycorrizal._runtime.quic.trust.certificates import LEAF_HALF_LIFE, hashed_name, member_name, wall
from mycorrizal._runtime.quic.trust.keys import Binding, KeyTrust, OpenTrust, ServerTls
from mycorrizal._wire.security import Keyring
from mycorrizal.exceptions import ProofError
from tests.keys import key_of

from .pairs import ALPN, BAD_DATES, BAD_SIGNATURE, NO_ALPN, UNKNOWN_CA, Pair, connect, nonce, prove_over

OLD, NEW, OTHER = key_of("old"), key_of("new"), key_of("other")
NAMES = ("alice", "bob")


def trust(name: str, *keys: bytes, cluster: str = "c", clock: Callable[[], float] = wall) -> KeyTrust:
    return KeyTrust(Keyring(keys[1:], keys[0]), name, cluster, clock=clock)


def self_signed(names: list[str]) -> ServerTls:
    private, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(text) for text in names]), critical=True)
        .sign(private, SHA256())
    )
    return ServerTls(leaf, private, [])


def bindings(pair: Pair, names: tuple[str, str] = NAMES) -> tuple[Binding, Binding]:
    """Return one session as its client and as its server see it."""
    both = nonce(), nonce()
    return Binding(pair.client.channel, *both, *names), Binding(pair.server.channel, *both, *names)


# -- members -----------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["bob", None])
def test_same_key_connects_and_proves(peer: str | None) -> None:
    alice, bob = trust("alice", OLD), trust("bob", OLD)
    pair = connect(alice, bob, peer)
    assert pair.client.complete and pair.server.complete and pair.refused is None
    assert bob.holds(prove_over(pair, alice, bob, NAMES))


def test_names_that_are_no_host_names() -> None:
    for name in ("a b/c:d@é", "123", "10.0.0.1", "::1", "UPPER", "*", "x" * 300):
        alice, bob = trust("alice", OLD), trust(name, OLD)
        pair = connect(alice, bob, name)
        assert pair.client.complete, name
        prove_over(pair, alice, bob, ("alice", name))


def test_both_ends_share_a_channel_and_no_two_connections_do() -> None:
    alice, bob = trust("alice", OLD), trust("bob", OLD)
    one, two = connect(alice, bob, "bob"), connect(alice, bob, "bob")
    assert one.client.channel == one.server.channel
    assert one.client.channel != two.client.channel


def test_no_ticket_is_offered() -> None:
    """A resumed session would skip the certificate."""
    alice, bob = trust("alice", OLD), trust("bob", OLD)
    pair = connect(alice, bob, "bob")
    prove_over(pair, alice, bob, NAMES)
    assert pair.client.tickets == []


def test_clocks_may_differ_by_weeks() -> None:
    for days in (-29, 29):
        bob = trust("bob", OLD, clock=lambda days=days: wall() + days * 86400)
        assert connect(trust("alice", OLD), bob, "bob").client.complete


# -- strangers, as servers ---------------------------------------------------------------------


def test_other_key_is_refused_in_tls() -> None:
    pair = connect(trust("alice", OLD), trust("bob", OTHER), "bob")
    assert pair.refused == UNKNOWN_CA and not pair.client.complete and not pair.server.complete


def test_same_key_of_another_cluster_is_refused_in_tls() -> None:
    pair = connect(trust("alice", OLD), trust("bob", OLD, cluster="d"), "bob")
    assert pair.refused == UNKNOWN_CA


@pytest.mark.parametrize("peer", ["bob", None])
def test_self_signed_with_the_right_names_is_refused(peer: str | None) -> None:
    pair = Pair(trust("alice", OLD).client_tls(peer), self_signed([hashed_name("bob"), member_name("c")])).pump()
    assert pair.refused == UNKNOWN_CA


def test_another_members_name_is_refused() -> None:
    pair = connect(trust("alice", OLD), trust("carol", OLD), "bob")
    assert pair.refused == UNKNOWN_CA and pair.client.end is not None
    assert "match" in pair.client.end.reason_phrase


def test_leaf_past_its_dates_is_refused() -> None:
    for seconds in (-LEAF_HALF_LIFE - 3600, LEAF_HALF_LIFE + 3600):
        bob = trust("bob", OLD, clock=lambda seconds=seconds: wall() + seconds)
        assert connect(trust("alice", OLD), bob, "bob").refused == BAD_DATES


def test_leaf_without_its_private_key_is_refused() -> None:
    stolen = trust("bob", OLD).server_tls()._replace(private_key=ec.generate_private_key(ec.SECP256R1()))
    assert Pair(trust("alice", OLD).client_tls("bob"), stolen).pump().refused == BAD_SIGNATURE


def test_leaf_cannot_sign_another_leaf() -> None:
    """Who stole one process's leaf, key included, is that process for 30 days and nobody else."""
    stolen = trust("bob", OLD).server_tls()
    private, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    forged = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(stolen.certificate.subject)
        .public_key(private.public_key())
        .serial_number(2)
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hashed_name("carol"))]), critical=True)
        .sign(stolen.private_key, SHA256())
    )
    server = ServerTls(forged, private, [stolen.certificate])
    assert Pair(trust("alice", OLD).client_tls("carol"), server).pump().refused == UNKNOWN_CA


# -- strangers, as clients ---------------------------------------------------------------------


def test_client_that_does_not_verify_cannot_prove() -> None:
    """TLS lets a stranger in who accepts any server; the proof stops it there."""
    bob, stranger = trust("bob", OLD), trust("alice", OTHER)
    pair = Pair(bob.client_tls("bob"), bob.server_tls()).pump()  # the authority is public: anyone may use it
    assert pair.server.complete
    mine, theirs = bindings(pair)
    with pytest.raises(ProofError, match="no key in common"):
        stranger.prove(mine, bob.offer())
    proof, _ = stranger.prove(mine, stranger.offer())
    with pytest.raises(ProofError, match="not installed"):
        bob.verify(theirs, proof)
    with pytest.raises(ProofError, match="not one for this session"):
        bob.verify(theirs, bob.offer()[:16] + proof[16:])


def test_proof_replayed_on_another_connection_is_refused() -> None:
    alice, bob = trust("alice", OLD), trust("bob", OLD)
    first, second = connect(alice, bob, "bob"), connect(alice, bob, "bob")
    mine, theirs = bindings(first)
    proof, _ = alice.prove(mine, bob.offer())
    bob.verify(theirs, proof)
    # Even if the server drew the same nonces again.
    replayed = Binding(second.server.channel, theirs.server_nonce, theirs.client_nonce, *NAMES)
    with pytest.raises(ProofError, match="not one for this session"):
        bob.verify(replayed, proof)


def test_proof_for_an_earlier_nonce_of_the_same_connection_is_refused() -> None:
    alice, bob = trust("alice", OLD), trust("bob", OLD)
    pair = connect(alice, bob, "bob")
    proof, _ = alice.prove(bindings(pair)[0], bob.offer())
    with pytest.raises(ProofError, match="not one for this session"):
        bob.verify(bindings(pair)[1], proof)


def test_relay_with_a_stolen_leaf_is_refused() -> None:
    """Mallory has bob's leaf and its key but not the cluster's; alice dials mallory, mallory dials bob."""
    alice, bob = trust("alice", OLD), trust("bob", OLD)
    towards_alice = Pair(alice.client_tls("bob"), bob.server_tls()).pump()
    towards_bob = Pair(bob.client_tls("bob"), bob.server_tls()).pump()
    assert towards_alice.client.complete and towards_bob.server.complete
    # Mallory passes on bob's nonce and offer, and then what alice answers: all equal but the channel.
    mine, theirs = bindings(towards_alice)
    theirs = Binding(towards_bob.server.channel, mine.server_nonce, mine.client_nonce, *NAMES)
    proof, used = alice.prove(mine, bob.offer())
    with pytest.raises(ProofError, match="not one for this session"):
        bob.verify(theirs, proof)
    # Nor can mallory welcome alice: the answer bob would give is for another channel.
    with pytest.raises(ProofError, match="not one for this session"):
        alice.check_answer(mine, used, bob.answer(theirs, used))


def test_man_in_the_middle_with_a_certificate_of_its_own_is_refused() -> None:
    mallory = trust("bob", OTHER)
    pair = connect(trust("alice", OLD), mallory, "bob")
    assert pair.refused == UNKNOWN_CA
    assert pair.client.tap.binding() is None or not pair.client.complete


def test_proof_sent_back_to_its_maker_is_refused() -> None:
    """A stranger dials alice while alice dials it, and hands her own proof back to her."""
    alice, bob = trust("alice", OLD), trust("bob", OLD)
    dialled, incoming = connect(alice, bob, "bob"), connect(bob, alice, "alice")
    mine, _ = bindings(dialled)
    proof, used = alice.prove(mine, bob.offer())
    swapped = Binding(incoming.server.channel, mine.server_nonce, mine.client_nonce, "alice", "alice")
    with pytest.raises(ProofError):
        alice.verify(swapped, proof)
    # And as the server's answer on the very same connection.
    with pytest.raises(ProofError):
        alice.check_answer(mine, used, proof[16:])


def test_server_cannot_be_talked_into_another_name() -> None:
    alice, bob = trust("alice", OLD), trust("bob", OLD)
    pair = connect(alice, bob, "bob")
    mine, theirs = bindings(pair)
    proof, _ = alice.prove(mine, bob.offer())
    with pytest.raises(ProofError):
        bob.verify(Binding(theirs.channel, theirs.server_nonce, theirs.client_nonce, "root", "bob"), proof)


# -- downgrade ---------------------------------------------------------------------------------


def test_open_and_keyed_refuse_each_other_both_ways() -> None:
    keyed, open_ = trust("alice", OLD), OpenTrust("bob", "c")
    assert connect(keyed, open_, "bob").refused == UNKNOWN_CA
    assert connect(open_, keyed, "alice").refused == UNKNOWN_CA
    assert connect(keyed, open_, None).refused == UNKNOWN_CA


def test_open_nodes_encrypt() -> None:
    alice, bob = OpenTrust("alice", "c"), OpenTrust("bob", "c")
    pair = connect(alice, bob, "bob")
    assert pair.client.complete
    prove_over(pair, alice, bob, NAMES)


def test_other_protocol_is_refused() -> None:
    alice, bob = trust("alice", OLD), trust("bob", OLD)
    pair = Pair(alice.client_tls("bob"), bob.server_tls(), alpn=("mycorrizal/0", ALPN)).pump()
    assert pair.refused == NO_ALPN


# -- rotation ----------------------------------------------------------------------------------

STEPS = [(OLD,), (OLD, NEW), (NEW, OLD), (NEW,)]


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("direction", [0, 1])
def test_each_step_of_a_rotation_works_with_its_neighbours(step: int, direction: int) -> None:
    keys = STEPS[step], STEPS[step + 1]
    for client_keys, server_keys in (keys[::-1] if direction else keys, (keys[direction],) * 2):
        alice, bob = trust("alice", *client_keys), trust("bob", *server_keys)
        pair = connect(alice, bob, "bob")
        assert pair.client.complete
        assert bob.holds(prove_over(pair, alice, bob, NAMES))


def test_rotation_of_live_nodes() -> None:
    """Each node makes its steps at another time; the old connection is found out when the old key goes."""
    rings = Keyring((), OLD), Keyring((), OLD)
    alice, bob = KeyTrust(rings[0], "alice", "c"), KeyTrust(rings[1], "bob", "c")
    first = prove_over(connect(alice, bob, "bob"), alice, bob, NAMES)
    for change, key in ((Keyring.add, NEW), (Keyring.use, NEW), (Keyring.remove, OLD)):
        for ring in rings:
            change(ring, key)
            last = prove_over(connect(alice, bob, "bob"), alice, bob, NAMES)
            prove_over(connect(bob, alice, "alice"), bob, alice, NAMES[::-1])
    assert not bob.holds(first) and bob.holds(last)


def test_old_key_after_the_rotation_is_a_strangers() -> None:
    left_behind, bob = trust("alice", OLD), trust("bob", NEW)
    assert connect(left_behind, bob, "bob").refused == UNKNOWN_CA
    assert connect(bob, left_behind, "alice").refused == UNKNOWN_CA
    # As a client that does not care whom it reached.
    pair = Pair(bob.client_tls("bob"), bob.server_tls()).pump()
    mine, theirs = bindings(pair)
    proof, _ = left_behind.prove(mine, left_behind.offer())
    with pytest.raises(ProofError, match="not installed"):
        bob.verify(theirs, proof)


def test_renewing_the_leaf_leaves_connections_alone() -> None:
    ring = Keyring((), OLD)
    alice, bob = KeyTrust(ring, "alice", "c"), KeyTrust(ring, "bob", "c")
    pair = connect(alice, bob, "bob")
    ring.add(NEW)
    ring.use(NEW)
    assert bob.server_tls().certificate.issuer.rfc4514_string() != ""
    prove_over(pair, alice, bob, NAMES)  # the connection of the old leaf, proved with the new key
    pair.close()
    assert pair.client.end is not None and pair.client.end.error_code == 0
