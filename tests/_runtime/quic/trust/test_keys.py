"""Trust from one key: what is derived, what proves, what a change of the keyring does. No connection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from mycorrizal._runtime.quic.trust.certificates import LEAF_HALF_LIFE, hashed_name, key_id, member_name
from mycorrizal._runtime.quic.trust.keys import Binding, KeyTrust, OpenTrust, Trust
from mycorrizal._wire.security import Keyring
from mycorrizal.exceptions import ConfigError, ProofError
from tests.keys import key_of

OLD, NEW, OTHER = key_of("old"), key_of("new"), key_of("other")
S = Binding(bytes(32), bytes([1]) * 32, bytes([2]) * 32, "alice", "bob")
DAY = 86400.0


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def trust(*keys: bytes, name: str = "alice", cluster: str = "c", clock: Callable[[], float] | None = None) -> KeyTrust:
    ring = Keyring(keys[1:], keys[0])
    return KeyTrust(ring, name, cluster, clock=clock) if clock else KeyTrust(ring, name, cluster)


def names_of(subject: Trust) -> list[str]:
    certificate = subject.server_tls().certificate
    assert isinstance(certificate, x509.Certificate)
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert san.critical
    return san.value.get_values_for_type(x509.DNSName)


# -- certificates ----------------------------------------------------------------------------


def test_leaf_names_the_node_and_any_member() -> None:
    assert names_of(trust(OLD, name="a b/c@é")) == [hashed_name("a b/c@é"), member_name("c")]
    assert trust(OLD).client_tls("bob").server_name == hashed_name("bob")
    assert trust(OLD).client_tls(None).server_name == member_name("c")


@given(st.text(), st.text())
def test_no_name_of_a_node_is_the_members_name(node: str, cluster: str) -> None:
    try:
        hashed, member = hashed_name(node), member_name(cluster)
    except UnicodeEncodeError:
        return  # a surrogate that is no escape: no node can be called so
    assert hashed != member and len(hashed) == len(member) == 63


def test_leaf_is_no_authority() -> None:
    leaf = trust(OLD).server_tls().certificate
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_authority_is_the_keys_and_the_clusters() -> None:
    def public(subject: KeyTrust) -> object:
        return x509.load_pem_x509_certificate(subject.client_tls(None).cadata).public_key().public_numbers()  # type: ignore[union-attr]

    assert public(trust(OLD)) == public(trust(OLD, name="bob"))
    assert len({public(trust(OLD)), public(trust(NEW)), public(trust(OLD, cluster="d"))}) == 3


def test_leaf_is_kept_renewed_and_follows_the_clock_back() -> None:
    clock = Clock()
    subject = trust(OLD, clock=clock)
    first = subject.server_tls()
    clock.now += 9 * DAY
    assert subject.server_tls() is first
    clock.now += 2 * DAY
    second = subject.server_tls()
    assert second is not first
    assert second.certificate.not_valid_after_utc.timestamp() == clock.now + LEAF_HALF_LIFE
    assert second.certificate.not_valid_before_utc.timestamp() == clock.now - LEAF_HALF_LIFE
    clock.now -= 100 * DAY
    assert subject.server_tls() is not second


def test_leaf_follows_the_primary_key() -> None:
    ring = Keyring((), OLD)
    subject = KeyTrust(ring, "alice", "c")
    first = subject.server_tls()
    ring.add(NEW)
    assert subject.server_tls() is first
    ring.use(NEW)
    assert subject.server_tls() is not first
    assert subject.server_tls().certificate.issuer != first.certificate.issuer


def test_key_is_nowhere_to_be_seen() -> None:
    subject = trust(OLD, NEW)
    shown = (
        repr(subject) + repr(subject._ring().primary) + subject.client_tls(None).cadata.decode() + subject.offer().hex()
    )
    assert OLD.hex() not in shown and NEW.hex() not in shown and "ooo" not in shown


@pytest.mark.parametrize("ring", [Keyring(), Keyring(())])
def test_ring_without_a_key_is_refused(ring: Keyring) -> None:
    with pytest.raises(ConfigError, match="key"):
        KeyTrust(ring, "alice", "c")


def test_name_is_needed() -> None:
    with pytest.raises(ConfigError, match="name"):
        trust(OLD, name="")


# -- proofs ----------------------------------------------------------------------------------


def test_proof_and_answer() -> None:
    alice, bob = trust(OLD), trust(OLD, name="bob")
    proof, used = alice.prove(S, bob.offer())
    assert bob.verify(S, proof) == used == key_id(OLD, "c").hex()
    alice.check_answer(S, used, bob.answer(S, used))
    assert bob.holds(used) and alice.holds(used) and not alice.holds("") and not alice.holds(used[:-1])


@pytest.mark.parametrize(
    "changed",
    [
        replace(S, channel=bytes([7]) * 32),
        replace(S, server_nonce=bytes([7]) * 32),
        replace(S, client_nonce=bytes([7]) * 32),
        replace(S, client="mallory"),
        replace(S, server="mallory"),
        replace(S, client="bob", server="alice"),
    ],
)
def test_proof_of_another_session_is_refused(changed: Binding) -> None:
    alice = trust(OLD)
    proof, used = alice.prove(S, alice.offer())
    answer = alice.answer(S, used)
    with pytest.raises(ProofError, match="not one for this session"):
        alice.verify(changed, proof)
    with pytest.raises(ProofError, match="not one for this session"):
        alice.check_answer(changed, used, answer)


def test_proof_is_no_answer_and_the_other_way_round() -> None:
    alice = trust(OLD)
    proof, used = alice.prove(S, alice.offer())
    with pytest.raises(ProofError):
        alice.check_answer(S, used, proof[16:])
    with pytest.raises(ProofError):
        alice.verify(S, proof[:16] + alice.answer(S, used))


def test_other_cluster_is_another_world() -> None:
    alice, bob = trust(OLD, cluster="blue"), trust(OLD, name="bob", cluster="red")
    with pytest.raises(ProofError, match="no key in common"):
        alice.prove(S, bob.offer())
    proof, _ = alice.prove(S, alice.offer())
    with pytest.raises(ProofError, match="not installed"):
        bob.verify(S, proof)
    assert not bob.knows(alice.knock()) and bob.reset_token(b"1") != alice.reset_token(b"1")


@given(st.binary(max_size=60) | st.binary(min_size=48, max_size=48))
def test_garbage_is_a_proof_error_and_nothing_else(data: bytes) -> None:
    for call in (lambda: SUBJECT.verify(S, data), lambda: SUBJECT.check_answer(S, SUBJECT_ID, data)):
        with pytest.raises(ProofError):
            call()
    try:
        SUBJECT.prove(S, data)
    except ProofError:
        pass
    assert not SUBJECT.knows(data)


SUBJECT = trust(OLD)
SUBJECT_ID = key_id(OLD, "c").hex()


@pytest.mark.parametrize("offer", [b"", bytes(15), bytes(17), bytes(16 * 65)])
def test_malformed_offer(offer: bytes) -> None:
    with pytest.raises(ProofError, match="malformed"):
        trust(OLD).prove(S, offer)


# -- rotation --------------------------------------------------------------------------------


def test_client_proves_its_own_first_choice_among_what_is_offered() -> None:
    both = trust(NEW, OLD)
    assert both.prove(S, trust(OLD, NEW).offer())[1] == key_id(NEW, "c").hex()
    assert both.prove(S, trust(OLD).offer())[1] == key_id(OLD, "c").hex()


def test_removed_key_proves_nothing_and_is_not_held() -> None:
    ring = Keyring((OLD,), NEW)
    bob, alice = KeyTrust(ring, "bob", "c"), trust(OLD)
    proof, used = alice.prove(S, bob.offer())
    assert bob.verify(S, proof) == used and bob.holds(used)
    ring.remove(OLD)
    assert not bob.holds(used)
    with pytest.raises(ProofError, match="not installed"):
        bob.verify(S, proof)
    with pytest.raises(ProofError, match="removed"):
        bob.answer(S, used)
    with pytest.raises(ProofError, match="removed"):
        bob.check_answer(S, used, bytes(32))
    assert not bob.knows(alice.knock())


def test_watch_tells_each_change_on_the_thread_that_made_it() -> None:
    ring, told = Keyring((), OLD), []
    subject = KeyTrust(ring, "alice", "c")

    def callback() -> None:
        told.append(threading.get_ident())

    subject.watch(callback)
    ring.add(OLD)
    ring.use(OLD)
    ring.remove(OTHER)
    assert told == []  # nothing changed
    ring.add(NEW)
    ring.use(NEW)
    ring.remove(OLD)
    assert told == [threading.get_ident()] * 3
    subject.unwatch(callback)
    subject.unwatch(callback)
    ring.add(OTHER)
    assert len(told) == 3


def test_what_a_callback_sees_is_already_the_new_state() -> None:
    ring, seen = Keyring((OLD,), NEW), []
    subject = KeyTrust(ring, "alice", "c")
    subject.watch(lambda: seen.append(subject.holds(SUBJECT_ID)))
    ring.remove(OLD)
    assert seen == [False]


def test_threads_that_change_and_prove_at_once() -> None:
    ring = Keyring((), OLD)
    subject, failed = KeyTrust(ring, "alice", "c"), []
    keys = [key_of(str(i)) for i in range(8)]

    def change() -> None:
        for key in keys:
            ring.add(key)
            ring.use(key)

    def use() -> None:
        try:
            for _ in range(100):
                proof, used = subject.prove(S, subject.offer())
                assert subject.verify(S, proof) == used
                subject.server_tls()
        except Exception as exc:  # told to the main thread
            failed.append(exc)

    threads = [threading.Thread(target=change), *(threading.Thread(target=use) for _ in range(3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert subject.offer()[:16] == key_id(keys[-1], "c") and len(subject.offer()) == 9 * 16


# -- before and after TLS --------------------------------------------------------------------


def test_knock_is_known_for_ninety_seconds_either_way() -> None:
    clock, late = Clock(), Clock()
    token, subject = trust(OLD, clock=clock).knock(), trust(NEW, OLD, clock=late)
    for offset, known in ((0, True), (89, True), (-89, True), (91, False), (-91, False), (1e6, False)):
        late.now = clock.now + offset
        assert subject.knows(token) is known
    assert not trust(OTHER, clock=clock).knows(token)


def test_knock_with_any_changed_byte_is_unknown() -> None:
    subject = trust(OLD)
    token = subject.knock()
    assert subject.knows(token) and not subject.knows(token + b"x") and not subject.knows(token[:-1])
    for at in range(len(token)):
        assert not subject.knows(token[:at] + bytes([token[at] ^ 1]) + token[at + 1 :])


def test_no_two_knocks_are_the_same_in_one_millisecond() -> None:
    clock = Clock()
    one, two = trust(OLD, clock=clock), trust(OLD, name="bob", clock=clock)
    knocks = {subject.knock() for _ in range(50) for subject in (one, two)}
    assert len(knocks) == 100 and all(one.knows(knock) for knock in knocks)


def test_reset_token_is_the_clusters() -> None:
    one, two = trust(OLD), trust(OLD, NEW, name="bob")
    token = one.reset_token(b"12345678")
    assert token == two.reset_token(b"12345678") and token is not None and len(token) == 16
    assert one.reset_token(b"12345679") != token


# -- without a key ---------------------------------------------------------------------------


def test_open_trust_agrees_with_itself_only() -> None:
    alice, bob = OpenTrust("alice", "c"), OpenTrust("bob", "c")
    proof, used = alice.prove(S, bob.offer())
    assert bob.verify(S, proof) == used
    alice.check_answer(S, used, bob.answer(S, used))
    for one, other in ((alice, trust(OLD)), (trust(OLD), alice)):
        with pytest.raises(ProofError, match="no key in common"):
            one.prove(S, other.offer())
        with pytest.raises(ProofError, match="not installed"):
            other.verify(S, one.prove(S, one.offer())[0])


def test_open_trust_knows_nobody_beforehand() -> None:
    subject = OpenTrust("alice", "c")
    assert subject.knock() == b"" and not subject.knows(b"") and not subject.knows(trust(OLD).knock())
