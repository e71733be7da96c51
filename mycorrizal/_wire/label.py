"""The label header: ``F4``, one length byte, the label, in front of everything else.

From: memberlist-protocol §2.1.
"""

from __future__ import annotations

from ..exceptions import LabelMismatch, LocalProtocolError
from .limits import LABEL_MAX_BYTES
from .messages import MessageType

__all__ = ["add_label", "check_label", "label_bytes", "label_overhead", "peel_label"]


def label_bytes(label: str) -> bytes:
    """Return the setting ``label=`` as it travels."""
    return label.encode("utf-8", "surrogateescape")


def add_label(label: bytes, packet: bytes) -> bytes:
    """Return `packet` with the header of `label` in front; no label, no header."""
    if not label:
        return packet
    if len(label) > LABEL_MAX_BYTES:
        raise LocalProtocolError(f"a label of {len(label)} bytes; at most {LABEL_MAX_BYTES}")
    return bytes((MessageType.HAS_LABEL, len(label))) + label + packet


def peel_label(packet: bytes) -> tuple[bytes, bytes]:
    """Return the label of `packet` (empty if it has none) and the rest.

    Raises:
        LabelMismatch: the header is cut, or its label is empty.
    """
    if not packet or packet[0] != MessageType.HAS_LABEL:
        return b"", packet
    end = 2 + packet[1] if len(packet) > 1 else 2
    if end > len(packet):
        raise LabelMismatch("cannot decode label; packet has been truncated")
    if end == 2:
        raise LabelMismatch("label header cannot be empty when present")
    return packet[2:end], packet[end:]


def check_label(received: bytes, configured: bytes, *, skip: bool) -> None:
    """Compare what was peeled with the configured label.

    Args:
        skip: the setting ``skip_inbound_label_check``: a front end has removed
            labels already, so a label that is still there is an error.

    Raises:
        LabelMismatch: they differ.
    """
    if skip:
        if received:
            raise LabelMismatch("a label header, although skip_inbound_label_check is set")
    elif received != configured:
        raise LabelMismatch(
            f"label {_text(received)} is not ours, {_text(configured)}",
            hint="nodes of one cluster need the same label= setting",
        )


def _text(label: bytes) -> str:
    return repr(label[:32].decode("utf-8", "backslashreplace"))


def label_overhead(label: bytes) -> int:
    """Return how many bytes the header takes."""
    return 2 + len(label) if label else 0
