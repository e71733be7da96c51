"""How two nodes prove to each other that both hold the cluster's key.

The server does it in TLS, with a certificate signed by an authority that only
holders of the key can make. The client does it over that channel: the server
sends a nonce and the ids of the keys it accepts, the client answers with a MAC
over the whole session (``proof.Binding``), and the server answers that with one
of its own. Whoever holds the key is a member and may claim any name, as in
memberlist; ``pki.PkiTrust`` is for those who need more.

Rotation needs no second signature: a leaf is signed by the primary key, and
peers accept the authorities of all their keys, so [old], [old, new],
[new, old], [new] work with their neighbours, as the gossip's keyring does.

Guards against: RFC 9000 §21.3 (spoofed clients), §21.11 (reset oracles, with
the marked connection ids of ``endpoint``), RFC 8446 §8 (no tickets, no 0-RTT).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from ...._wire.security import Keyring
from ....exceptions import ConfigError, ProofError
from .certificates import (
    KEY_ID_BYTES,
    LEAF_HALF_LIFE,
    ClientTls,
    ServerTls,
    hashed_name,
    key_id,
    member_name,
    wall,
)
from .proof import MAC_BYTES, Binding, SecretsTap, derive, mac, transcript

if TYPE_CHECKING:
    from .authority import Authority

__all__ = ["Binding", "ClientTls", "KeyTrust", "OpenTrust", "SecretsTap", "ServerTls", "Trust"]

_KEYS_MAX = 64
"""Keys in one offer; a keyring during a rotation has two."""

_RENEW_AFTER = LEAF_HALF_LIFE / 3
_KNOCK_SECONDS = 90.0
_KNOCK_TAG = 16
_KNOCK_TIME = 8
_KNOCK_RANDOM = 8
_KNOCK_MARK = b"k"
_KNOCK_BYTES = len(_KNOCK_MARK) + _KNOCK_TIME + _KNOCK_RANDOM + _KNOCK_TAG
_RESET_BYTES = 16  # RFC 9000 §10.3
_CLIENT = "mycorrizal client proof 1"
_SERVER = "mycorrizal server proof 1"


class Trust(Protocol):
    """What the QUIC plane asks about trust. Any thread; each call is short enough for the loop (≤ 1 ms).

    Attributes:
        early: whether a server whose TLS has passed is the one that was dialled, so that it may have a client's
            first frames before its answer.
        compare: what to do about a peer that does not prove what it should.
    """

    early: bool
    compare: str

    def server_tls(self) -> ServerTls:
        """Return the certificate for the next accepted connection; connections that exist keep theirs."""

    def client_tls(self, peer: str | None) -> ClientTls:
        """Return what to verify the server with, as node `peer` or, with None, as any member.

        Raises:
            ConfigError: None, where each node has an identity of its own.
        """

    def offer(self) -> bytes:
        """Return what a server announces beside its nonce: what it accepts proofs with."""

    def prove(self, s: Binding, offer: bytes) -> tuple[bytes, str]:
        """Return the client's proof, and the id of the key it used.

        Raises:
            ProofError: no common key, or the session cannot be bound to.
        """

    def verify(self, s: Binding, proof: bytes) -> str:
        """Check a client's proof on the server; return the id of its key.

        Raises:
            ProofError: it is not one for this session.
        """

    def answer(self, s: Binding, key_id: str) -> bytes:
        """Return the server's own proof, with the key that the client used.

        Raises:
            ProofError: that key was removed meanwhile.
        """

    def check_answer(self, s: Binding, key_id: str, answer: bytes) -> None:
        """Check the server's proof on the client.

        Raises:
            ProofError: it is not one for this session.
        """

    def holds(self, key_id: str) -> bool:
        """Tell whether what a connection was proved with still counts; if not, close it."""

    def reload(self) -> None:
        """Read again what lies in files. Blocks.

        Raises:
            ConfigError: nothing does, or it cannot be used; everything stays as it was.
        """
        raise ConfigError("certificates", "none were given", hint="certificates=; a key is changed with agent.keys")

    def validity(self) -> tuple[float, float] | None:
        """Return from when to when an operator's certificate is valid, seconds since 1970; None if there is none."""
        return None

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback`, on the thread that makes the change, whenever ``holds`` may answer differently."""

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Call it no longer."""

    def knock(self) -> bytes:
        """Return a token for a dialler's first packet that tells members from strangers; empty if there is none."""

    def knows(self, token: bytes) -> bool:
        """Tell whether a member made `token` within the last 90 s; constant time, no TLS.

        A cheap sign, good enough to be served ahead of strangers and for nothing
        else: who sees it on the way can use it too.
        """

    def reset_token(self, cid: bytes) -> bytes | None:
        """Return the stateless reset token of a connection id; None if there is none (RFC 9000 §10.3)."""


class _Key:
    """One key of the ring with everything that is derived from it."""

    __slots__ = ("_authority", "_secret", "client", "id", "knock", "reset", "server", "text")

    def __init__(self, key: bytes, cluster: str) -> None:
        self.id = key_id(key, cluster)
        self.text = self.id.hex()
        self._secret = key, cluster
        self._authority: Authority | None = None
        self.client = derive(key, "client proof", cluster)
        self.server = derive(key, "server proof", cluster)
        self.knock = derive(key, "knock", cluster)
        self.reset = derive(key, "stateless reset", cluster)

    @property
    def authority(self) -> Authority:
        """The authority of this key, made for the first connection."""
        if self._authority is None:
            from .authority import Authority  # late: X.509

            self._authority = Authority(*self._secret)  # by two threads at once: alike in all that counts
        return self._authority

    def __repr__(self) -> str:
        return f"<key {self.id.hex()}>"


class _Ring:
    """What follows from one state of the keyring. Immutable but for the leaf, which is renewed."""

    __slots__ = ("by_id", "keys", "offer", "primary", "raw")

    def __init__(self, raw: tuple[bytes, ...], keys: tuple[_Key, ...]) -> None:
        self.raw = raw
        self.keys = keys
        self.primary = keys[0]
        self.by_id = {key.id: key for key in keys}
        self.offer = b"".join(key.id for key in keys[:_KEYS_MAX])


class KeyTrust(Trust):
    """Trust in whoever holds a key of the ring. Follows changes of the ring by itself. Any thread."""

    early = True
    compare = "compare key= and cluster= of both sides"

    def __init__(self, keyring: Keyring, name: str, cluster: str, *, clock: Callable[[], float] = wall) -> None:
        """Derive everything for node `name`; an authority, about 1 ms a key, with the first connection.

        Args:
            keyring: at least one key.
            name: of this node.
            cluster: clusters that share a key but not this text refuse each other.
            clock: seconds since 1970.

        Raises:
            ConfigError: an empty ring, or no name.
        """
        if not keyring:
            raise ConfigError("key", "there is none", hint="make one with secrets.token_bytes(32)")
        if not name:
            raise ConfigError("name", "is empty")
        self._keyring = keyring
        self._cluster = cluster
        self._clock = clock
        self._names = [hashed_name(name), member_name(cluster)]
        self._lock = Lock()
        self._leaf: tuple[_Key, float, ServerTls] | None = None
        self._known: _Ring | None = None
        self._ring()

    # -- TLS -------------------------------------------------------------------------------

    def server_tls(self) -> ServerTls:
        """Return a leaf signed by the primary key, at most ten days old."""
        key, now = self._ring().primary, self._clock()
        leaf = self._leaf
        if leaf is None or leaf[0] is not key or abs(now - leaf[1]) > _RENEW_AFTER:
            leaf = self._leaf = (key, now, key.authority.issue(self._names, now))
        return leaf[2]

    def client_tls(self, peer: str | None) -> ClientTls:
        """Return the authorities of all keys; with no `peer`, the name that every member's leaf carries."""
        authorities = b"".join(key.authority.pem for key in self._ring().keys)
        return ClientTls(authorities, self._names[1] if peer is None else hashed_name(peer))

    # -- proofs ----------------------------------------------------------------------------

    def offer(self) -> bytes:
        """Return the ids of the keys, the primary first, 16 bytes each."""
        return self._ring().offer

    def prove(self, s: Binding, offer: bytes) -> tuple[bytes, str]:
        """Prove the first of our keys that `offer` holds."""
        if len(offer) % KEY_ID_BYTES or not 0 < len(offer) <= _KEYS_MAX * KEY_ID_BYTES:
            raise ProofError("the offer of keys is malformed", node=s.server)
        offered = {offer[at : at + KEY_ID_BYTES] for at in range(0, len(offer), KEY_ID_BYTES)}
        for key in self._ring().keys:
            if key.id in offered:
                return key.id + mac(key.client, transcript(_CLIENT, s, key.id)), key.text
        raise ProofError("no key in common", node=s.server, hint="add the new key on every node before you use it")

    def verify(self, s: Binding, proof: bytes) -> str:
        """Check the MAC with the key that the proof names."""
        if len(proof) != KEY_ID_BYTES + MAC_BYTES:
            raise ProofError("the proof has a wrong length", node=s.client)
        key = self._ring().by_id.get(proof[:KEY_ID_BYTES])
        if key is None:
            raise ProofError("proved with a key that is not installed", node=s.client)
        expected = mac(key.client, transcript(_CLIENT, s, key.id))
        if not hmac.compare_digest(expected, proof[KEY_ID_BYTES:]):
            raise ProofError("the proof is not one for this session", node=s.client)
        return key.text

    def answer(self, s: Binding, key_id: str) -> bytes:
        """Return the server's MAC."""
        key = self._by_text(key_id, s.client)
        return mac(key.server, transcript(_SERVER, s, key.id))

    def check_answer(self, s: Binding, key_id: str, answer: bytes) -> None:
        """Check the server's MAC."""
        key = self._by_text(key_id, s.server)
        if not hmac.compare_digest(mac(key.server, transcript(_SERVER, s, key.id)), answer):
            raise ProofError("the server's proof is not one for this session", node=s.server)

    def holds(self, key_id: str) -> bool:
        """Tell whether the key is still installed."""
        return any(key.text == key_id for key in self._ring().keys)

    def watch(self, callback: Callable[[], None]) -> None:
        """Watch the keyring."""
        self._keyring.watch(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Stop watching the keyring."""
        self._keyring.unwatch(callback)

    # -- before and after TLS --------------------------------------------------------------

    def knock(self) -> bytes:
        """Return the time, random bytes so that no two members have the same, and a MAC of both."""
        body = max(0, int(self._clock() * 1000)).to_bytes(_KNOCK_TIME, "big") + os.urandom(_KNOCK_RANDOM)
        return _KNOCK_MARK + body + mac(self._ring().primary.knock, body)[:_KNOCK_TAG]

    def knows(self, token: bytes) -> bool:
        """Check time and MAC against every key; a few microseconds."""
        if len(token) != _KNOCK_BYTES or not token.startswith(_KNOCK_MARK):
            return False
        body, tag = token[1:-_KNOCK_TAG], token[-_KNOCK_TAG:]
        known = False
        for key in self._ring().keys:
            known |= hmac.compare_digest(mac(key.knock, body)[:_KNOCK_TAG], tag)
        return known and abs(int.from_bytes(body[:_KNOCK_TIME], "big") / 1000 - self._clock()) <= _KNOCK_SECONDS

    def reset_token(self, cid: bytes) -> bytes | None:
        """Return a MAC of the id under the primary key: any member that lost its state can make it again."""
        return mac(self._ring().primary.reset, cid)[:_RESET_BYTES]

    # -- private ---------------------------------------------------------------------------

    def _ring(self) -> _Ring:
        raw = self._keyring.keys()
        known = self._known
        if known is not None and known.raw == raw:
            return known
        with self._lock:
            # Read again: a thread that waited here must not put an older state in place.
            raw = self._keyring.keys()
            known = self._known
            if known is None or known.raw != raw:
                have = dict(zip(known.raw, known.keys, strict=True)) if known is not None else {}
                known = self._known = _Ring(raw, tuple(have.get(key) or _Key(key, self._cluster) for key in raw))
        return known

    def _by_text(self, key_id: str, node: str) -> _Key:
        for key in self._ring().keys:
            if key.text == key_id:
                return key
        raise ProofError("the key of this session was removed", node=node)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self._ring().keys)} keys>"


class OpenTrust(KeyTrust):
    """The same steps with a key that everyone knows: it encrypts, and proves nothing.

    For loopback, or where the caller said ``insecure=True``. A node with a key
    and one without refuse each other in TLS, in both directions.
    """

    def __init__(self, name: str, cluster: str, *, clock: Callable[[], float] = wall) -> None:
        super().__init__(Keyring(primary=_PUBLIC_KEY, allow_weak=True), name, cluster, clock=clock)

    def knock(self) -> bytes:
        """Return nothing: a token that anyone can make tells nobody apart."""
        return b""

    def knows(self, token: bytes) -> bool:
        """Know nobody."""
        return False


_PUBLIC_KEY = b"mycorrizal without a key: public"
