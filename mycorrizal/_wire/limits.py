"""Every bound on what a peer may make us read, hold or compute, with its reason.

"memberlist" marks a number that Go enforces too; the others close what Go
leaves open (memberlist-protocol §12, "not fixed upstream") and are listed as
differences in docs/wire.md.
"""

from __future__ import annotations

__all__ = [
    "BODY_DEPTH_MAX",
    "BODY_ITEMS_MAX",
    "COMPOUND_PARTS_MAX",
    "COMPRESSED_BUF_MAX",
    "DECOMPRESSED_MAX",
    "ENCRYPTED_FRAME_MAX",
    "LABEL_MAX_BYTES",
    "LARGE_BYTES",
    "PACKET_DECOMPRESSED_MAX",
    "PACKET_DEPTH_MAX",
    "PACKET_PARTS_MAX",
    "PUSH_PULL_NODES_FLOOR",
    "PUSH_PULL_NODES_MAX",
    "RECORD_BYTES",
    "STATE_BYTES_MAX",
    "STREAM_BODY_MAX",
    "STREAM_COMPRESS_MAX",
    "USER_BYTES_MAX",
    "USER_BYTES_SENT_MAX",
]

LABEL_MAX_BYTES = 255
"""Longest label: its length travels in one byte (memberlist)."""

DECOMPRESSED_MAX = 40 << 20
"""Most bytes one compressed message may become: exactly 40 MiB pass (memberlist)."""

ENCRYPTED_FRAME_MAX = 20 << 20
"""Longest encrypted payload on a stream, refused before it is read (memberlist)."""

PUSH_PULL_NODES_MAX = 1 << 20
"""Most members one push/pull may declare (memberlist)."""

PUSH_PULL_NODES_FLOOR = 1 << 12
"""Members a push/pull may always declare, however small ``max_nodes`` is: the sender's table may be larger."""

USER_BYTES_MAX = 20 << 20
"""Longest user state or user message on a stream (memberlist)."""

USER_BYTES_SENT_MAX = 19 << 20
"""Longest one that we send. With member records and headers around it, it fits one encrypted frame: there Go refuses
what it would take without a key."""

COMPOUND_PARTS_MAX = 255
"""Most parts of one compound we write: their number travels in one byte (memberlist)."""

# Differs from memberlist: the bounds below are ours; Go has none.

PACKET_DEPTH_MAX = 16
"""How deep compounds and compressed messages may nest in one datagram; honest senders use 2."""

PACKET_DECOMPRESSED_MAX = 1 << 20
"""Bytes that all compressed messages of one datagram may become together.

A datagram of 64 KiB that 255 parts blow up to 40 MiB each would be 10 GB; what
an honest sender compresses came from a packet buffer of at most 64 KiB, or is
a user message that shrank 16-fold; and unpacking holds the gossip thread.
"""

PACKET_PARTS_MAX = 4096
"""Messages taken out of one datagram. A datagram of pings holds about 3,000."""

STREAM_BODY_MAX = 1 << 16
"""Longest header or member record on a stream; a longer one could not travel in a packet."""

STATE_BYTES_MAX = DECOMPRESSED_MAX
"""Bytes that the member records of one push/pull take together, compressed or not."""

LARGE_BYTES = 1 << 20
"""Streams whose opening takes more memory are opened one at a time, since copies are made on the way."""

RECORD_BYTES = 512
"""What a decoded member record counts as, of the bytes that are held for a conversation."""

COMPRESSED_BUF_MAX = 64 << 20
"""Longest ``Buf`` of a compressed message on a plain stream.

More than 60 MiB of LZW codes cannot become 40 MiB of output or less.
"""

STREAM_COMPRESS_MAX = 4 << 20
"""Longest message we compress on a stream ourselves, for the time it takes; plain is always understood."""

BODY_ITEMS_MAX = 256
"""Values in one body that are not ours: unknown keys, whatever they hold. Honest bodies have none."""

BODY_DEPTH_MAX = 32
"""How deep an unknown value may nest. memberlist allows 1024, and nobody nests at all."""
