"""Faults in what is read and written: packets, streams, values, keys."""

from __future__ import annotations

from planted.fault import Fault

FAULTS = [
    Fault("find_numpy", '"_initializing", False)', '"_begun", False)', "NumPy that is being imported is not there yet"),
    # -- packets and streams --
    Fault(
        "_Unpacking._take",
        "left, self._bytes_left = self._bytes_left, 0",
        "left = self._bytes_left",
        "after a compressed message that is broken no further one of a datagram is tried",
    ),
    Fault(
        "_Unpacking._take",
        "self._bytes_left = left - len(plain)",
        "self._bytes_left = left",
        "what a datagram decompresses to is bounded together",
    ),
    Fault("_Unpacking._take_compound", "self._parts_left -= 1\n", "pass\n", "messages of one datagram are bounded"),
    Fault(
        "_Unpacking.take",
        "error.__cause__ = error.__context__ = None",
        "pass",
        "an error that is kept keeps no other alive",
    ),
    Fault(
        "_checked",
        "len(message.meta) > META_MAX_SIZE",
        "len(message.meta) >= META_MAX_SIZE",
        "metadata of exactly 512 bytes are taken",
    ),
    Fault(
        "PacketCodec.overhead",
        "(gossip or self._verify_outgoing)",
        "self._verify_outgoing",
        "a gossip round counts encryption as Go does",
    ),
    Fault("_compounds", "len(part) > _PART_BYTES_MAX]", "len(part) >= _PART_BYTES_MAX]", "each part is sent once"),
    Fault(
        "StreamCodec.__init__",
        "max(2 * config.max_nodes, limits.PUSH_PULL_NODES_FLOOR)",
        "2 * config.max_nodes",
        "a small max_nodes refuses no table of 4,096",
    ),
    Fault("StreamReader._read_nodes", "left -= at\n", "pass\n", "members of a push/pull are bounded together"),
    Fault(
        "StreamReader._read_nodes", "_member_bounded(end - at)", "pass", "a member is bounded though all of it is there"
    ),
    Fault("StreamReader._refuse", "if self._answer or ", "if ", "who dialled answers no error"),
    Fault(
        "StreamReader._read_label",
        "self._begun = bool(self._buffer)",
        "self._begun = True",
        "a connection closed after its label is no error",
    ),
    Fault("StreamReader.held", " + self._records * limits.RECORD_BYTES", "", "decoded members count as held"),
    Fault("StreamReader._finish", "self._buffer.clear()", "pass", "what is over holds no memory"),
    Fault("_member_bounded", "size > ", "size >= ", "a member of exactly the bound is taken"),
    Fault("numbered", "header.number <= 0", "header.number < 0", "numbers of messages begin at 1"),
    Fault("numbered", " or header.user_msg_len != len(data)", "", "a numbered message is as long as it says"),
    Fault("decode_message", ' and codec.name == "cbor"', "", "a numbered message is none where Go peers are"),
    Fault(
        "plan_values",
        "low <= values[position] <= high",
        "values[position] <= high",
        "a negative number does not go out",
    ),
    Fault(
        "wire_mismatch",
        "set wire={theirs!r} here or wire={ours!r} there",
        "set wire={ours!r} here or wire={theirs!r} there",
        "the hint says which setting belongs where",
    ),
    Fault("_inflate", "not inflater.eof", "False", "a cut DEFLATE message is refused"),
    Fault(
        "decompress_message",
        "compressed.algo == DEFLATE and _is_ours(body)",
        "compressed.algo == DEFLATE",
        "beside Go only LZW is read",
    ),
    Fault(
        "add_label", "len(label) > LABEL_MAX_BYTES", "len(label) >= LABEL_MAX_BYTES", "a label of 255 bytes goes out"
    ),
    Fault("_measure", " or len(pending) > BODY_DEPTH_MAX", "", "an unknown field of a body nests 32 deep at most"),
    Fault("_loads", "len(table) != count", "len(table) > count", "a body with a key twice is refused"),
    # -- keys --
    Fault("_unpadded", "not 1 <= padding", "not 0 <= padding", "a padding of no bytes is wrong"),
    Fault("Keyring._tell", "if self.keys() != before:", "if True:", "watchers hear of changes only"),
    Fault("Keyring.unwatch", "self._watchers.pop(callback, None)", "pass", "who stopped watching hears nothing"),
    Fault(
        "decrypt_payload",
        "_unpadded(plaintext) if version == 0 else plaintext",
        "plaintext",
        "the padding of version 0 is taken off",
    ),
    # -- frames --
    Fault(
        "LaneReader.feed",
        "not 0 < size <= self.limit",
        "not 0 < size < self.limit",
        "a frame of exactly the limit is taken",
    ),
    Fault("StreamHead.feed", "not 0 < size <= 512", "not 0 < size < 512", "a head of 512 bytes is taken"),
    Fault("parse_response", "status > Status.NOT_YET", "status > Status.EXPIRED", "what is too deep is told so"),
    Fault("_parse_limits", "min(limits) < 1", "limits.messages < 1", "no limit of a peer may be zero"),
    Fault("Proof.parse", "len(nonce) != 32 or ", "", "a nonce has 32 bytes"),
    Fault("Challenge.parse", " or len(boot) != 8", "", "a boot id has 8 bytes"),
    Fault(
        "_name",
        "not 0 < len(raw) <= _NAME_MAX",
        "not 0 <= len(raw) <= _NAME_MAX",
        "no node of a handshake is called nothing",
    ),
    Fault("name_field", "not 0 < len(raw) <= _NAME_MAX", "not 0 < len(raw) < _NAME_MAX", "a name may have 255 bytes"),
    Fault("parse_request", "len(body) < 11 + size", "len(body) < 10 + size", "a request cut in its name is refused"),
    Fault("parse_open", "len(body) < 2 or ", "", "a stream without a name is refused"),
    # -- values: guard --
    Fault(
        "_decimal",
        "exponent <= DECIMAL_EXPONENT_MAX:",
        "exponent <= DECIMAL_EXPONENT_MAX + 1:",
        "an exponent of a peer's is bounded",
    ),
    Fault("_long_key", "count > KEY_BYTES_MAX", "count >= KEY_BYTES_MAX", "a key of 255 bytes is taken"),
    Fault("_codec_name", "count > NAME_MAX", "count >= NAME_MAX", "a codec's name of 255 bytes is taken"),
    Fault("_scan", "containers += _ARRAY_WEIGHT", "pass", "arrays count eightfold"),
    Fault("_scan", "len(outer) >= DEPTH_MAX", "len(outer) > DEPTH_MAX", "values nest 64 deep at most"),
    Fault("_scan", " or used != len(buffers)", "", "a buffer that nothing refers to is refused"),
    Fault("_argument", "number < _LEAST[info]:", "number < _LEAST[info] - 1:", "lengths are in their shortest form"),
    Fault("_shaped", "count > DIMENSIONS_MAX", "count > 2 * DIMENSIONS_MAX", "an array has 32 dimensions at most"),
    Fault("_reference", "index != used or ", "", "buffers are used once each and in order"),
    Fault("_set", " or count > ITEMS_MAX", "", "a set is bounded"),
    # -- values: reader --
    Fault(
        "ValueReader._needed",
        "if count < MANY:",
        "if count < 0:",
        "the long form of the number of buffers is for 255 and more",
    ),
    Fault("ValueReader._needed", " or count > BUFFERS_MAX", "", "buffers of a value are bounded"),
    Fault(
        "ValueReader.feed",
        "self.received > self._size:",
        "self.received > self._size + 1:",
        "more than was announced is refused",
    ),
    Fault(
        "ValueReader.parts",
        "buffers, self._buffers = self._buffers, []",
        "buffers = self._buffers",
        "a reader that was read holds nothing",
    ),
    Fault("ValueReader._preamble", " or not 0 < self._head <= HEADER_MAX", "", "a header is bounded, and there is one"),
    # -- values: walk and codecs --
    Fault(
        "_memoryview",
        'value.cast("B") if value.c_contiguous else memoryview(value.tobytes())',
        'value.cast("B")',
        "a view with strides travels",
    ),
    Fault("_memoryview", " or len(buffers) >= BUFFERS_MAX", "", "views beside the header are bounded"),
    Fault("_bytes", " or len(buffers) >= BUFFERS_MAX", "", "byte strings beside the header are bounded"),
    Fault("_str", " or len(buffers) >= BUFFERS_MAX", "", "texts beside the header are bounded"),
    Fault("as_key", "len(key) <= guard.KEY_BYTES_MAX", "len(key) < guard.KEY_BYTES_MAX", "a key of 255 bytes travels"),
    Fault(
        "as_key",
        "-_KEY_LIMIT <= key < _KEY_LIMIT",
        "-_KEY_LIMIT <= key <= _KEY_LIMIT",
        "an integer key of more than 64 bits is refused at home",
    ),
    Fault("_place", "{text[:80]}...", "{text}...", "an error names a long key in short"),
    Fault("_coded", "if depth >= guard.DEPTH_MAX:", "if False:", "codecs in codecs are bounded"),
    Fault("_coded", 'error.path.append(f"<{codec.name}>")', "pass", "an error names the codec on the way"),
    Fault(
        "_decimal",
        "abs(exponent) <= guard.DECIMAL_EXPONENT_MAX",
        "exponent <= guard.DECIMAL_EXPONENT_MAX",
        "a tiny Decimal is refused at home, not by the receiver",
    ),
    Fault("_decimal", "len(digits) <= 16:", "True:", "a NaN with a long payload is refused at home"),
    Fault(
        "_plain_numbers",
        "-_SAFE < min(value) and max(value) < _SAFE",
        "True",
        "numbers of more than 63 bits are looked at one by one",
    ),
    Fault("Codecs.register", "name in self.by_name or ", "", "a name stands for one type"),
    Fault("Codecs.register", " or kind in self.by_type", "", "a type has one codec"),
    Fault("Codecs.register", "not 0 < len(name) <= NAME_MAX", "not 0 <= len(name) <= NAME_MAX", "a codec has a name"),
    Fault("Codecs.register", "if not isinstance(kind, type):", "if False:", "what is no type is not registered"),
    Fault(
        "encode_value",
        "size + 5 <= limit",
        "size <= limit",
        "the limit holds for short byte strings with all that belongs to them",
    ),
    # -- values: arrays, lent --
    Fault(
        "_odd_elements",
        "array.view(numpy.uint8).max() > 1",
        "array.view(numpy.uint8).max() > 2",
        "a bool is 0 or 1",
    ),
    Fault("_set", "sorted(plain, key=cbor2.dumps)", "plain", "equal sets are equal bytes"),
    Fault("_dict", "len(changed) != len(value)", "False", "no key of a dict is lost on the way"),
    Fault("_datetime", "offset.seconds % 60", "False", "tag 0 has offsets of whole minutes"),
    Fault(
        "_check_dtype",
        "value.ndim > DIMENSIONS_MAX",
        "value.ndim > 64",
        "an array of too many dimensions is refused at home",
    ),
    Fault(
        "_plain_shaped", "if fortran:", "if False:", "without NumPy an array in Fortran order is refused, not turned"
    ),
    Fault("_plain", "if len(memory) % size:", "if False:", "without NumPy too a typed array has whole elements"),
    Fault(
        "Lent.pack",
        "packed = self._encoded.pack()\n        return None if self.over else packed",
        "return None if self.over else self._encoded.pack()",
        "what was read too late is thrown away",
    ),
    # -- metadata and text --
    Fault("_decimal_port", "0 < port <= 0xFFFF", "0 <= port <= 0xFFFF", "port 0 is none"),
    Fault("read_meta", "if len(boot) == BOOT_BYTES", "if boot", "a boot id of another length is none"),
    Fault("agent_meta", "len(data) > limit", "len(data) >= limit", "metadata of exactly the limit are taken"),
    Fault(
        "port_meta",
        "0 <= port <= PORT_MAX",
        "0 <= port <= 0xFFFF",
        "a port that looks like Serf's tags is not announced",
    ),
    Fault("_indented", "lines[:TRACEBACK_LINES_MAX]", "lines", "a traceback in the log is bounded"),
    Fault(
        "_made_printable",
        "record.msg = printable(str(record.msg), ARGUMENT_MAX)",
        "pass",
        "a log line is one line, whatever it says",
    ),
]
