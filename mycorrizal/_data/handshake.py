"""How the two ends of a connection prove themselves, before anything else is read.

The server speaks first: a challenge rides with its handshake. The client's
proof is bound to this TLS session, and its first frames follow right behind
it, so the proof costs no round trip; the server reads nothing of them before
the proof has held, and the client nothing before it is welcomed. Where TLS
does not prove the server (``Trust.early``) nothing follows until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._wire.frames import FORMAT, Challenge, Close, Frame, Proof, Welcome
from ..exceptions import ProofError
from ..types import printable

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Handshake"]


class Handshake:
    """One connection's challenge, proof and welcome; each of them counts once."""

    __slots__ = ("_challenge", "_link", "_nonce")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._nonce = b""
        self._challenge: Challenge | None = None

    def begin(self) -> None:
        """TLS is done: a server speaks first."""
        link = self._link
        if not link.conn.dialled:
            machine = link.machine
            host = machine.host
            self._challenge = Challenge(host.nonce(), host.name, host.boot, machine.trust.offer(), machine.limits)
            link.conn.send(link.lane, self._challenge.pack())

    def frame(self, kind: int, body: bytes, now: float) -> None:
        """Take a frame that came before the end of the handshake.

        Raises:
            ProofError: it is not the one that is due, or does not hold.
            RemoteProtocolError: it cannot be read.
        """
        dialled, challenged = self._link.conn.dialled, self._challenge is not None
        if kind == Frame.CHALLENGE and dialled and not challenged:
            self._challenged(body, now)
        elif kind == Frame.WELCOME and dialled and challenged:
            self._welcomed(body, now)
        elif kind == Frame.PROOF and not dialled and challenged:
            self._proved(body, now)
        else:
            raise ProofError(f"frame kind {kind} before the proof")

    def _challenged(self, body: bytes, now: float) -> None:
        challenge = Challenge.parse(body)
        link = self._link
        self._check_process(challenge.boot)
        machine = link.machine
        host, trust = machine.host, machine.trust
        if link.expected is not None and challenge.name != link.expected:
            link.close(Close.WRONG_NAME, f"this is {challenge.name}, not {link.expected}", now)
            return
        link.name, link.boot, link.remote = challenge.name, challenge.boot, challenge.limits
        refusal = _other_format(challenge.name, challenge.format, host.name)
        refusal = refusal or machine.claim(link, challenge.name, challenge.boot, now)
        if refusal is not None:
            link.close(*refusal, now)
            return
        self._nonce = host.nonce()
        binding = host.binding(self._channel(), challenge.nonce, self._nonce, host.name, challenge.name)
        proof, link.key_id = trust.prove(binding, challenge.offer)
        peer = machine.peer(challenge.name)
        accepted = peer.incoming_for(challenge.boot).accepted
        self._challenge = challenge
        packed = Proof(self._nonce, host.name, host.boot, proof, machine.limits, accepted).pack()
        link.conn.send(link.lane, packed)
        link.proved(peer, now)

    def _proved(self, body: bytes, now: float) -> None:
        proof = Proof.parse(body)
        link, challenge = self._link, self._challenge
        assert challenge is not None
        machine = link.machine
        host, trust = machine.host, machine.trust
        binding = host.binding(self._channel(), challenge.nonce, proof.nonce, proof.name, host.name)
        link.key_id = trust.verify(binding, proof.proof)
        self._check_process(proof.boot)
        refusal = _other_format(proof.name, proof.format, host.name)
        refusal = refusal or machine.claim(link, proof.name, proof.boot, now)
        if refusal is not None:
            link.close(*refusal, now)
            return
        link.name, link.boot, link.remote = proof.name, proof.boot, proof.limits
        peer = machine.peer(proof.name)
        welcome = Welcome(trust.answer(binding, link.key_id), peer.incoming_for(proof.boot).accepted)
        link.conn.send(link.lane, welcome.pack())
        link.proved(peer, now)
        link.welcome(proof.accepted, now)

    def _welcomed(self, body: bytes, now: float) -> None:
        welcome = Welcome.parse(body)
        link, challenge = self._link, self._challenge
        assert challenge is not None
        machine = link.machine
        binding = machine.host.binding(self._channel(), challenge.nonce, self._nonce, machine.host.name, link.name)
        machine.trust.check_answer(binding, link.key_id, welcome.answer)
        link.welcome(welcome.accepted, now)

    def _check_process(self, boot: bytes) -> None:
        if self._link.conn.boot not in (None, boot):
            raise ProofError("another process than the one that the connection was made with")

    def _channel(self) -> bytes:
        channel = self._link.conn.channel
        if channel is None:
            raise ProofError("this connection has no channel binding")
        return channel


def _other_format(name: str, spoken: int, ours: str) -> tuple[Close, str] | None:
    """Return how to refuse somebody of another version; None if it is ours."""
    if spoken == FORMAT:
        return None
    name = printable(name)
    older = name if spoken < FORMAT else ours
    return Close.WRONG_FORMAT, f"{name} speaks format {spoken}, {ours} speaks {FORMAT}: {older} is older"
