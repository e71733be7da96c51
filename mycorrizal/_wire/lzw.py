"""LZW as Go's ``compress/lzw`` writes it: least significant bit first, 8-bit literals.

The encoder is byte-exact with Go's; the decoder accepts what Go's accepts.
Both pack and unpack runs of codes of one width at a time, eight codes being
exactly `width` bytes: this is on the path of every packet.

From: memberlist-protocol §4.
"""

from __future__ import annotations

from ..exceptions import RemoteProtocolError

__all__ = ["compress", "compress_below", "decompress"]

_CLEAR = 256
_END = 257
_HI_START = 257  # `hi` after a clear; the first entry made gets the next number
_HI_CLEAR = 4095  # the encoder's dictionary never holds this code: reaching it clears
_WIDTH_MIN = 9
_TABLE_SIZE = 1 << 12

# The places of clear and end are empty, which no expansion is.
_ROOTS: list[bytes] = [*(bytes((n,)) for n in range(256)), b"", b""]

_EXPANSION_MAX = _TABLE_SIZE - _HI_START
"""Longest expansion of one code: each entry is one byte longer than an earlier one."""

_FROZEN_RUN = 1024
"""Codes unpacked at a time once the table is full and their width does not change any more."""


def compress(data: bytes) -> bytes:
    """Return `data` compressed."""
    return _packed(_encoded(data))


def compress_below(data: bytes, limit: int) -> bytes | None:
    """Return `data` compressed, or None if that takes `limit` bytes or more."""
    runs = _encoded(data)
    bits = sum(width * len(codes) for width, codes in runs)
    return _packed(runs) if (bits + 7) // 8 < limit else None


def _encoded(data: bytes) -> list[tuple[int, list[int]]]:
    """Return the codes for `data`, in runs with their width."""
    if not data:
        return [(_WIDTH_MIN, [_CLEAR, _END])]
    codes = [_CLEAR]
    runs = [(_WIDTH_MIN, codes)]
    put = codes.append
    hi, width, overflow = _HI_START, _WIDTH_MIN, 1 << _WIDTH_MIN
    table: dict[int, int] = {}  # (prefix code << 8 | byte) -> code << 8
    find = table.get
    prefix = data[0] << 8
    for byte in data[1:]:
        pair = prefix | byte
        known = find(pair)
        if known is not None:
            prefix = known
            continue
        put(prefix >> 8)
        prefix = byte << 8
        hi += 1
        if hi == overflow:
            # The width grows when hi *reaches* the power of two, one code later than in TIFF.
            width += 1
            overflow <<= 1
            codes = []
            put = codes.append
            runs.append((width, codes))
        if hi != _HI_CLEAR:
            table[pair] = hi << 8
            continue
        put(_CLEAR)
        hi, width, overflow = _HI_START, _WIDTH_MIN, 1 << _WIDTH_MIN
        table.clear()
        codes = []
        put = codes.append
        runs.append((width, codes))
    put(prefix >> 8)
    # The end mark is written as if one more entry had been made: maybe wider, maybe after a clear.
    if hi + 1 == _HI_CLEAR:
        put(_CLEAR)
        width = _WIDTH_MIN
    elif hi + 1 == overflow:
        width += 1
    runs.append((width, [_END]))
    return runs


def _packed(runs: list[tuple[int, list[int]]]) -> bytes:
    """Return the bytes of runs of codes, each run with its width."""
    out: list[bytes] = []
    pending, bits = 0, 0  # what does not fill a byte yet
    for width, codes in runs:
        two, four, eight = 2 * width, 4 * width, 8 * width
        mask = (1 << eight) - 1
        whole = len(codes) & ~7
        for i in range(0, whole, 8):
            a, b, c, d, e, f, g, h = codes[i : i + 8]
            low = a | b << width | (c | d << width) << two
            high = e | f << width | (g | h << width) << two
            pending |= (low | high << four) << bits
            out.append((pending & mask).to_bytes(width, "little"))
            pending >>= eight
        for code in codes[whole:]:
            pending |= code << bits
            bits += width
        size = bits >> 3
        out.append((pending & (1 << 8 * size) - 1).to_bytes(size, "little"))
        pending >>= 8 * size
        bits &= 7
    if bits:
        out.append(pending.to_bytes(1, "little"))
    return b"".join(out)


def decompress(data: bytes, limit: int) -> bytes:
    """Return what `data` decompresses to; bytes after its end mark are ignored.

    Args:
        limit: most bytes to produce; one more is refused while decompressing.

    Raises:
        RemoteProtocolError: an impossible code, no end mark, or more than `limit` bytes.
    """
    result = bytearray()
    out: list[bytes] = []
    table = _ROOTS.copy()
    last = b""  # expansion of the code before; empty after a clear and while the table is full
    width, position = _WIDTH_MIN, 0  # position counts bits
    while True:
        full = len(table) == _TABLE_SIZE
        hi = len(table) if last else _HI_START
        codes = _unpacked(data, position, width, _FROZEN_RUN if full else (1 << width) - hi)
        if not codes:
            raise RemoteProtocolError("unexpected EOF")
        mark, last = _expand(codes, table, last, out, stop_at_clear=width > _WIDTH_MIN)
        position += (len(out) + 1 if mark == _CLEAR else len(codes)) * width
        if len(result) + len(out) * _EXPANSION_MAX > limit and len(result) + sum(map(len, out)) > limit:
            raise RemoteProtocolError(f"decompressed data is larger than the limit of {limit} bytes")
        result += b"".join(out)
        out.clear()
        if mark == _END:
            return bytes(result)
        if mark == _CLEAR:
            width = _WIDTH_MIN
        elif len(table) == _TABLE_SIZE:
            last = b""  # nothing is added any more
        elif len(table) == 1 << width:
            width += 1


def _expand(
    codes: list[int], table: list[bytes], last: bytes, out: list[bytes], *, stop_at_clear: bool
) -> tuple[int | None, bytes]:
    """Append the expansions of `codes` to `out` and the entries they make to `table`.

    Returns:
        The mark that ended the run early, if one did, and the last expansion.
    """
    put, grow = out.append, table.append
    grows = len(table) < _TABLE_SIZE
    for code in codes:
        try:
            entry = table[code]
        except IndexError:
            # The one code that may be used before it is known is the one being made.
            if code != len(table) or not last:
                raise RemoteProtocolError("lzw: invalid code") from None
            entry = last + last[:1]
        if not entry:
            if code == _END:
                return _END, last
            del table[_END + 1 :]
            last = b""
            if stop_at_clear:
                return _CLEAR, last
            continue
        if last and grows:
            grow(last + entry[:1])
        put(entry)
        last = entry
    return None, last


def _unpacked(data: bytes, position: int, width: int, count: int) -> list[int]:
    """Return up to `count` codes that start at bit `position`; fewer where the data end."""
    count = min(count, (len(data) * 8 - position) // width)
    codes: list[int] = []
    mask = (1 << width) - 1
    two, three, four = 2 * width, 3 * width, 4 * width
    start, shift = position >> 3, position & 7
    read = int.from_bytes
    for at in range(start, start + (count + 7) // 8 * width, width):
        group = read(data[at : at + width + 1], "little") >> shift
        low, high = group, group >> four
        codes += (
            low & mask,
            low >> width & mask,
            low >> two & mask,
            low >> three & mask,
            high & mask,
            high >> width & mask,
            high >> two & mask,
            high >> three & mask,
        )
    del codes[max(count, 0) :]
    return codes
