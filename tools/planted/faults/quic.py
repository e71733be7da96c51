"""Faults in the runtime of the data plane."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault(
        "Connection.receive",
        "if self._quic.take_datagram(data, sockaddr, now):",
        "self._quic.take_datagram(data, sockaddr, now)\n            if True:",
        "a forged datagram is no sign of life",
    ),
    Fault("ask", "not unknown.retriable or ", "True or ", "a handler that may come is asked for again"),
    Fault("Core.settling", "clock.now() < self._settled", "False", "who has just started may register handlers"),
    Fault("PkiTrust._loaded", "if not _names(leaf, wanted):", "if False:", "a certificate is for its node"),
    Fault(
        "Connection.mark_proved", "            self._quic.raise_limit(PROVEN_WINDOW)\n", "", "the proven may send more"
    ),
    Fault("Connection._within_allowance", "<= UNPROVEN_BYTES", "<= 16 * UNPROVEN_BYTES", "the unproven send little"),
    Fault(
        "Connection.pump", "if self.closed or not (self.proved", "if not (self.proved", "nothing comes after the end"
    ),
    Fault(
        "Connection._ended_by_quic",
        '"idle" if self.connected else "silent"',
        '"idle"',
        "a dial nobody answers is silent",
    ),
    Fault("Connection._ended_by_quic", " or (by_peer and code == _APPLICATION_ERROR)", "", "an early close is a close"),
    Fault(
        "Connection._finish", 'self._endpoint.count("quic.handshake_failed")', "pass", "failed handshakes are counted"
    ),
    Fault(
        "StockTransport._acknowledged", "stream.acked += length", "stream.acked += 1", "what arrived is acknowledged"
    ),
    Fault("StockTransport._arrived", "> self._gaps", "> 4 * self._gaps", "a stream in many pieces ends the connection"),
    Fault("StockTransport._arrived", "> self._held_max", "> 1 << 40", "gaps make us keep no more than a window"),
    Fault("StockTransport.take_datagram", "return self._heard", "return True", "a forged packet is no sign of life"),
    Fault("_choice", "if (wrong := try_out(stock, stock)) is not None:", "if False:", "a log must be readable"),
    Fault("_fast", "return try_out(fast, fast) or fast", "return fast", "what behaves otherwise is noticed"),
]
