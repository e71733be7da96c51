"""Faults in the codecs of frames, tables and classes: what arrives as less, and what a stranger may send."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("exact", "return items if kind is list else _Tuple(items)", "return items", "a tuple stays one"),
    Fault("exact", "return value if kind is set else _Frozen(value)", "return value", "a frozenset stays one"),
    Fault("exact", "if isinstance(value, _LOSSY):", "if False:", "what would lose its type is refused"),
    Fault("exact", "if depth > DEPTH_MAX:", "if False:", "what holds itself is refused by its name"),
    Fault("_one_kind", "return all(isnan(cell) for", "return all(True for", "a number among texts is not missing"),
    Fault("_unpack_texts", "if missing is not None and arrow.null_count:", "if False:", "in which way it is missing"),
    Fault("_typed", "if arrow.type != kind:", "if False:", "an array of another type is refused"),
    Fault("pack_freq", "if not _parses(pd.PeriodDtype, freq, dtype):", "if False:", "it may be more than its text"),
    Fault(
        "_index_freq", "if not _parses(pd.tseries.frequencies.to_offset, freq.freqstr, freq):", "if False:",
        "holidays do not get lost",
    ),
    Fault("pack_index", "if most is not None and len(index) > most:", "if False:", "a range inside is bounded"),
    Fault("_pack_frame", 'dtype.kind != "O"', "True", "objects are no block"),
    Fault("_about", "exact(data.attrs, codecs)", "{}", "what a frame says of itself arrives"),
    Fault("_unpack_timestamp", "time if zone is None else", "time if True else", "a zone arrives"),
    Fault("unpack_table", "or _compressed(message)", "", "what is compressed is refused before it grows"),
    Fault("unpack_table", "table.validate(full=True)", "pass", "offsets, indices and texts are looked at"),
    Fault("unpack_table", "if number >= _MESSAGES_MAX:", "if False:", "pieces are bounded"),
    Fault("unpack_table", "if sorted(_extensions(table.schema)) != names:", "if False:", "a type of one side"),
    Fault("pack_table", "> _MESSAGES_MAX // 4:", "> 1 << 60:", "a table in many pieces is joined"),
    Fault("_names", "if late or once or not", "if not", "what its fields do not make again is refused"),
    Fault("_of", "if type(value) is not kind:", "if False:", "a class is made of what it was sent as"),
    Fault("pack_zone", "if zone.tzname(None) == timezone(offset).tzname(None):", "if True:", "an offset with a name"),
]
